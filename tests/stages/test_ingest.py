"""Ingest tells what a source is by counting, and refuses with a code what cannot be served."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from makers import make_clip

from pipeline.errors import PipelineError
from pipeline.media.encoder import PROCESSING, fingerprint
from pipeline.media.languages import tag
from pipeline.media.probe import probe
from pipeline.media.rates import timeline_of
from pipeline.media.sources import FORMATS, open_source
from pipeline.stages.ingest import MEDIA, ingest
from pipeline.tasks import Color, IngestFacts, IngestTask, Limits, MediaInfo, from_json, to_json

CORPUS = Path(os.environ.get("REELWAY_MEDIA", Path(__file__).parents[2].parent / "shared" / "media"))
NTSC = Fraction(30000, 1001)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


def learn(path: Path, limits: Limits | None = None) -> MediaInfo:
    return probe(path, limits or Limits(), lambda _fraction: None)


def refusal(path: Path, limits: Limits | None = None) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        learn(path, limits)
    return caught.value


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


class Folder:
    """Outputs in a folder, as the workbench gives them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.finished: list[str] = []

    def path(self, name: str) -> Path:
        return self.root / name

    def done(self, name: str) -> None:
        self.finished.append(name)


# -- what a good source is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rate", [Fraction(24000, 1001), Fraction(25), NTSC, Fraction(50), Fraction(60000, 1001)], ids=str
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "ts", "flv"])
def test_rate_and_frames_are_exact_in_every_container(tmp_path: Path, suffix: str, rate: Fraction) -> None:
    media = learn(make_clip(tmp_path / f"clip.{suffix}", rate=rate, seconds=2))
    assert media.video is not None
    frames = round(2 * rate)
    assert (media.video.rate, media.video.constant, media.video.frames) == (rate, True, frames)
    assert media.video.end - media.video.start == pytest.approx(frames / rate, abs=0.002)
    grid = timeline_of(media, segment=Fraction(4), keyframe=Fraction(2))
    late = (media.video.start - media.start) * rate
    assert grid.frames == frames + max(0, -int(-(late - Fraction(1, 2)) // 1))


def test_codecs_have_their_own_names(tmp_path: Path) -> None:
    """And not those of the decoders that happen to read them."""
    media = learn(make_clip(tmp_path / "clip.mkv", codec="libsvtav1", audio="libmp3lame", seconds=1))
    assert media.video is not None
    assert (media.video.codec, media.audio[0].codec) == ("av1", "mp3")


def test_a_codec_whose_tag_is_a_number_is_known(tmp_path: Path) -> None:
    """AAC in AVI is 0x00ff."""
    assert learn(make_clip(tmp_path / "clip.avi")).audio[0].codec == "aac"


def test_priming_samples_do_not_begin_the_asset(tmp_path: Path) -> None:
    """AAC begins with 1024 samples that are not presented; t = 0 is the first sample that is."""
    media = learn(make_clip(tmp_path / "clip.mp4", seconds=2))
    assert (media.start, media.audio[0].start) == (0, 0)
    assert media.audio[0].end == pytest.approx(2, abs=1024 / 48000)


def test_starts_are_told_by_stream(tmp_path: Path) -> None:
    media = learn(make_clip(tmp_path / "late.mp4", seconds=2, video_start=Fraction(1, 2)))
    assert media.video is not None
    assert media.video.start - media.audio[0].start == pytest.approx(0.5, abs=0.001)
    assert media.start == media.audio[0].start
    media = learn(make_clip(tmp_path / "dub.mp4", seconds=2, audio_start=Fraction(1, 2)))
    # An AAC frame of priming may come before it, and MP4's edit lists are in milliseconds.
    assert media.audio[0].start - media.start == pytest.approx(0.5, abs=1024 / 48000 + 0.001)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_is_clockwise_to_upright(tmp_path: Path, rotation: int) -> None:
    media = learn(make_clip(tmp_path / "clip.mp4", seconds=1, rotation=rotation))
    assert media.video is not None
    assert media.video.rotation == rotation
    assert media.video.display_size == ((180, 320) if rotation in (90, 270) else (320, 180))


def test_pixels_that_are_not_square_are_told(tmp_path: Path) -> None:
    media = learn(make_clip(tmp_path / "clip.mp4", seconds=1, sar=Fraction(4, 3)))
    assert media.video is not None
    assert media.video.display_size == (427, 180)


def test_colour_is_told_by_ffmpegs_names(tmp_path: Path) -> None:
    color = Color(range="tv", primaries="bt2020", transfer="smpte2084", matrix="bt2020nc")
    media = learn(make_clip(tmp_path / "clip.mp4", seconds=1, color=color))
    assert media.video is not None
    assert media.video.color == color
    assert media.video.color.hdr


def test_interlaced_pictures_are_noticed(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.ts", codec="mpeg2video", seconds=1, interlaced=True)
    media = learn(clip)
    assert media.video is not None
    assert media.video.interlaced
    assert media.video.frames == 25
    progressive = learn(make_clip(tmp_path / "progressive.ts", codec="mpeg2video", seconds=1))
    assert progressive.video is not None
    assert not progressive.video.interlaced


def test_a_variable_rate_is_noticed(tmp_path: Path) -> None:
    times = [n / 30 for n in range(30)] + [4 + n / 30 for n in range(30)]
    media = learn(make_clip(tmp_path / "clip.mp4", rate=30, pts=times, audio=None))
    assert media.video is not None
    assert (media.video.rate, media.video.constant, media.video.frames) == (30, False, 60)
    assert media.duration == pytest.approx(5, abs=0.001)
    assert timeline_of(media, segment=Fraction(4), keyframe=Fraction(2)).frames == 150


def test_every_sound_is_told_with_its_language(tmp_path: Path) -> None:
    media = learn(make_clip(tmp_path / "clip.mkv", seconds=1, languages=("eng", "ger", "und"), channels=6))
    assert [sound.language for sound in media.audio] == ["en", "de", "und"]
    assert {(sound.channels, sound.layout) for sound in media.audio} == {(6, "5.1")}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        *(("eng", "en"), ("fre", "fr"), ("fra", "fr"), ("EN-us", "en-us"), ("haw", "haw"), ("pt_BR", "pt-br")),
        *((None, "und"), ("", "und"), ("English", "und"), ("../x", "und"), ("\x00\x00\x00", "und")),
    ],
)
def test_languages_are_bcp_47(written: str | None, expected: str) -> None:
    assert tag(written) == expected


@pytest.mark.parametrize(("suffix", "audio"), [("m4a", "aac"), ("mp3", "libmp3lame"), ("wav", "pcm_s16le")])
def test_sound_alone_is_a_source(tmp_path: Path, suffix: str, audio: str) -> None:
    media = learn(make_clip(tmp_path / f"clip.{suffix}", codec=None, audio=audio, seconds=3))
    assert media.video is None
    assert len(media.audio) == 1
    assert media.duration == pytest.approx(3, abs=0.05)


def test_a_picture_without_sound_is_a_source(tmp_path: Path) -> None:
    assert learn(make_clip(tmp_path / "clip.mp4", seconds=1, audio=None)).audio == ()


@pytest.mark.parametrize(("suffix", "seekable"), [("mp4", True), ("mkv", True), ("ts", False), ("flv", False)])
def test_keyframes_are_listed_and_seeking_is_tried(tmp_path: Path, suffix: str, seekable: bool) -> None:
    media = learn(make_clip(tmp_path / f"clip.{suffix}", seconds=4, rate=25, gop=25))
    assert media.video is not None
    assert media.seekable is seekable
    places = {round((time - media.video.start) * 25) for time in media.keyframes}
    assert {0, 25, 50, 75} <= places


def test_a_fragmented_file_without_an_index_is_still_known(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "clip.mp4", seconds=4, gop=25)
    fragmented = tmp_path / "fragmented.mp4"
    with (
        av.open(str(whole)) as source,
        av.open(str(fragmented), "w", options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}) as target,
    ):
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams if s.type in ("video", "audio")}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
    media = learn(fragmented)
    assert media.video is not None
    assert (media.video.frames, media.video.rate, len(media.keyframes)) == (100, 25, 4)
    assert media.video.end - media.video.start == 4


def test_progress_grows_and_a_raised_tick_stops(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", seconds=4)
    seen: list[float] = []
    probe(clip, Limits(), seen.append)
    assert seen == sorted(seen)
    assert 0 <= seen[0] <= seen[-1] <= 1

    def cancelled(_fraction: float) -> None:
        raise PipelineError("cancelled")

    with pytest.raises(PipelineError, match="cancelled"):
        probe(clip, Limits(), cancelled)


def test_the_stage_writes_the_long_form_and_answers_the_short_one(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", seconds=4, gop=25)
    out = Folder(tmp_path)
    task = IngestTask(asset="abc", url=str(clip), source="private/abc.mp4")
    facts = ingest(task, {"source": clip}, out, lambda _fraction: None)
    assert out.finished == [MEDIA]
    stored = from_json(MediaInfo, (tmp_path / MEDIA).read_text())
    assert len(stored.keyframes) == 4
    assert facts.media.keyframes == ()
    assert facts.media.video == stored.video
    assert from_json(IngestFacts, to_json(facts)) == facts


def test_the_fingerprint_names_the_build_of_every_encoder() -> None:
    name, codec, x264, processing = fingerprint().split(" ")
    assert name == f"av-{av.__version__}"
    assert codec.startswith("lavc-")
    assert x264.removeprefix("x264-").split("-")[0].isdigit()
    assert processing == f"p{PROCESSING}"


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_no_file_no_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nothing.mp4").code == "media_url_not_accessible"
    assert refusal(tmp_path).code == "media_url_not_accessible"


@pytest.mark.raises_code("media_url_file_broken")
def test_an_empty_file_is_broken(tmp_path: Path) -> None:
    assert refusal(written(tmp_path / "empty.mp4", b"")).code == "media_url_file_broken"


@pytest.mark.parametrize(
    ("content", "detected"),
    [
        (b"Dear diary, this is no film.\n" * 300, "text"),
        ("Käse über alles, größer als die Grenze\n".encode() * 300, "text"),
        (b"#EXTM3U\n#EXTINF:4,\nfile:///etc/passwd\n", "playlist"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "playlist"),
        (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 5000 RTP/AVP 96\r\n", "playlist"),
        (b'<?xml version="1.0"?><MPD></MPD>', "playlist"),
        (PNG, "image"),
        (b"\xff\xd8\xff\xe0" + bytes(64), "image"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(64), "image"),
        (b"%PDF-1.7\n" + bytes(64), "pdf"),
        (bytes(range(256)) * 40, "unknown"),
    ],
)
def test_what_is_no_media_is_refused_whatever_its_name(tmp_path: Path, content: bytes, detected: str) -> None:
    error = refusal(written(tmp_path / "film.mp4", content))
    assert (error.code, error.params["detected_format"]) == ("media_url_unsupported_format", detected)


@pytest.mark.raises_code("media_url_unsupported_format")
def test_a_playlist_does_not_open_its_neighbour(tmp_path: Path) -> None:
    """Also where its first bytes hide what it is: the list of formats holds, not the look at the content."""
    make_clip(tmp_path / "other.mp4", seconds=1)
    hidden = written(tmp_path / "film.mp4", b"\x01\n" + b"ffconcat version 1.0\nfile other.mp4\n")
    assert refusal(hidden).code == "media_url_unsupported_format"
    assert not {"concat", "hls", "dash", "sdp", "rtsp", "image2", "png_pipe", "lavfi", "tedcaptions"} & set(FORMATS)


@pytest.mark.parametrize(
    ("movflags", "reason"), [("", "its headers cannot be read"), ("faststart", "it ends before its last frame")]
)
def test_half_an_mp4_is_broken(tmp_path: Path, movflags: str, reason: str) -> None:
    """Without its index nothing can be read; with the index first, the index tells that the rest is missing."""
    clip = tmp_path / "clip.mp4"
    with (
        av.open(str(make_clip(tmp_path / "whole.mp4", seconds=2))) as source,
        av.open(str(clip), "w", options={"movflags": movflags} if movflags else {}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = clip.read_bytes()
    assert learn(clip).video is not None
    error = refusal(written(clip, content[: len(content) * 2 // 3]))
    assert (error.code, error.params) == ("media_url_file_broken", {"reason": reason})


@pytest.mark.raises_code("video_file_broken")
def test_a_picture_of_rubbish_is_broken(tmp_path: Path) -> None:
    """The container is whole, and not one frame of it decodes: a successful open is not validation."""
    clip = make_clip(tmp_path / "clip.mkv", seconds=1, codec="libvpx-vp9", audio=None)
    with av.open(str(clip)) as source:
        payloads = [bytes(packet) for packet in source.demux(video=0) if packet.size]
    content = clip.read_bytes()
    for payload in payloads:
        content = content.replace(payload, b"\xaa" * len(payload))
    assert refusal(written(clip, content)).code == "video_file_broken"


def test_a_still_picture_with_a_name_is_no_video(tmp_path: Path) -> None:
    """Cover art is not a picture that is served: a song with a cover is a song."""
    song = tmp_path / "song.m4a"
    with (
        av.open(str(make_clip(tmp_path / "plain.m4a", codec=None, seconds=1))) as source,
        av.open(str(song), "w", format="mp4") as target,
    ):
        sound = target.add_stream_from_template(source.streams.audio[0])
        cover: Any = target.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame(64, 64, "yuvj420p")
        frame.pts = 0
        for packet in [*cover.encode(frame), *cover.encode(None)]:
            target.mux(packet)
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = sound
                target.mux(packet)
    media = learn(song)
    assert media.video is None
    assert len(media.audio) == 1


def test_limits_are_kept(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", seconds=3)
    size = clip.stat().st_size
    error = refusal(clip, Limits(max_bytes=size - 1))
    assert (error.code, error.params["current_size"]) == ("media_filesize_too_large", size)
    error = refusal(clip, Limits(max_pixels=320 * 180 - 1))
    assert (error.code, error.params["current_resolution"]) == ("video_resolution_too_high", "320x180")
    error = refusal(clip, Limits(max_duration_s=2))
    assert (error.code, error.params["current_duration"]) == ("video_duration_too_long", 3)
    assert refusal(clip, Limits(max_streams=1)).code == "media_url_unsupported_format"
    assert learn(clip, Limits(max_bytes=size, max_pixels=320 * 180, max_duration_s=4, max_streams=2)).video
    song = make_clip(tmp_path / "song.m4a", codec=None, seconds=3)
    assert refusal(song, Limits(max_duration_s=2)).code == "audio_duration_too_long"


def test_two_frames_hours_apart_are_refused(tmp_path: Path) -> None:
    """A few kilobytes would become a million frames."""
    clip = make_clip(tmp_path / "bomb.mkv", pts=[0, 1 / 25, 36_000], rate=25, audio=None)
    assert refusal(clip).code == "video_file_broken"
    assert refusal(clip, Limits(max_duration_s=None)).code == "video_file_broken"


def test_a_source_is_closed_again(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", seconds=1)
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    for _ in range(3):
        learn(clip)
    with open_source(clip) as container:
        assert container.streams.video[0].width == 320
    after = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    assert after == before


# -- what the world uploads --------------------------------------------------------------------------------------------

_LOOK = """
import json, sys
from pathlib import Path
from pipeline.errors import PipelineError
from pipeline.media.probe import probe
from pipeline.tasks import Limits, as_data
root = Path(sys.argv[1])
for name in sys.stdin.read().splitlines():
    print(json.dumps({"begin": name}), flush=True)
    try:
        answer = {"media": as_data(probe(root / name, Limits(), lambda _fraction: None))}
    except PipelineError as error:
        answer = {"error": error.document()}
    print(json.dumps({"name": name} | answer), flush=True)
"""
_UNTOLD_RATES = ("0", "1000")
"""What ffprobe prints where it does not know."""
_RATE_BY_ANOTHER_COUNT = {
    "androidx-media/mp4/bt601.mov": "the last frame is held by half of another: 29.4 on average",
    "androidx-media/mp4/sample_sef_slow_motion.mp4": "the header counts a frame that the edit list hides",
    "livepeer-catalyst/video/fixtures/bbb-180rotated.mov": "24 fps whose last frame is short",
    "livepeer-lpms/segmenter/test.flv": "30 fps in milliseconds: 33 ms are 30.3",
    "torchcodec/nasa_13013.mp4": "ffprobe shows the first of two pictures, we serve the larger",
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[str, Any]]:
    """What the probe says of every file of the corpus, from a child process: a crash there is a finding, not an end."""
    if not (CORPUS / "INDEX.tsv").exists():
        pytest.skip(f"no real media at {CORPUS} (REELWAY_MEDIA)")
    names = "\n".join(row["path"] for row in index())
    child = subprocess.run(
        [sys.executable, "-c", _LOOK, str(CORPUS)],
        input=names,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = [json.loads(line) for line in child.stdout.splitlines()]
    assert child.returncode == 0, f"crashed at {lines[-1] if lines else 'the start'}: {child.stderr[-500:]}"
    return {line["name"]: line for line in lines if "name" in line}


def index() -> list[dict[str, str]]:
    with (CORPUS / "INDEX.tsv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_every_good_file_of_the_world_is_accepted(outcomes: dict[str, dict[str, Any]]) -> None:
    refused = [outcomes[row["path"]] for row in index() if row["kind"] != "B" and "error" in outcomes[row["path"]]]
    assert refused == []


def test_every_bad_file_of_the_world_has_an_outcome(outcomes: dict[str, dict[str, Any]]) -> None:
    bad = [row["path"] for row in index() if row["kind"] == "B"]
    assert {name for name in bad if name not in outcomes} == set()
    assert all(outcomes[name].get("error") or outcomes[name]["media"] for name in bad)


def test_sound_rotation_and_rate_agree_with_ffprobe(outcomes: dict[str, dict[str, Any]]) -> None:
    wrong = []
    for row in (row for row in index() if row["kind"] != "B"):
        media, name = outcomes[row["path"]]["media"], row["path"]
        if len(media["audio"]) != len([sound for sound in row["audio"].split(";") if sound]):
            wrong.append((name, "sounds", len(media["audio"])))
        if (media["video"] is not None) != bool(row["video"]):
            wrong.append((name, "picture", media["video"]))
        if media["video"] is None:
            continue
        if media["video"]["rotation"] != -int(row["rotation"] or 0) % 360:
            wrong.append((name, "rotation", media["video"]["rotation"]))
        trusted = row["fps"] not in _UNTOLD_RATES and media["video"]["constant"] and name not in _RATE_BY_ANOTHER_COUNT
        if trusted and float(Fraction(media["video"]["rate"])) != pytest.approx(float(row["fps"]), rel=0.001):
            wrong.append((name, "rate", media["video"]["rate"]))
    assert wrong == []


_LASTS_OTHERWISE = {
    "androidx-media/mp4/bbb_800x640_768kbps_30fps_avc_2b_firstpts_10_sec.mp4": "ffprobe counts the wait before it",
    "androidx-media/mp4/iibbibb_editlist_videoonly.mp4": "ffprobe counts frames that its edit list hides",
    "torchcodec/nasa_13013.mp4": "ffprobe counts a picture that is not served",
    "androidx-media/mkv/sample_with_srt.mkv": "ffprobe counts a subtitle that outlasts picture and sound",
    "androidx-media/mkv/sample_with_vtt_subtitles.mkv": "ffprobe counts a subtitle that outlasts picture and sound",
}
_ANOTHER_PICTURE = {"torchcodec/nasa_13013.mp4": "ffprobe shows the first of two pictures, we serve the larger"}


def test_codecs_sizes_durations_and_channels_agree_with_ffprobe(outcomes: dict[str, dict[str, Any]]) -> None:
    wrong: list[object] = []
    for row in (row for row in index() if row["kind"] != "B"):
        media, name = outcomes[row["path"]]["media"], row["path"]
        video = media["video"]
        if video and name not in _ANOTHER_PICTURE:
            told = (video["codec"], f"{video['width']}x{video['height']}")
            expected = (row["video"].partition("/")[0], row["resolution"])
            if told != expected:
                wrong.append((name, told, expected))
            shape = Fraction(video["sample_aspect_ratio"])
            if shape != Fraction(*map(int, (row["sar"] or "1:1").split(":"))):
                wrong.append((name, "pixels", str(shape), row["sar"]))
        told_sounds = [f"{s['codec']} {s['channels']}ch {s['sample_rate']}" for s in media["audio"]]
        if told_sounds != [sound.strip() for sound in row["audio"].split(";") if sound]:
            wrong.append((name, told_sounds, row["audio"]))
        duration = float(Fraction(media["duration"]))
        if name not in _LASTS_OTHERWISE and duration != pytest.approx(float(row["duration_s"]), abs=0.1):
            wrong.append((name, duration, row["duration_s"]))
    assert wrong == []


_SEEN = {
    "interlaced-tt": "interlaced",
    "HDR10-PQ": "hdr",
    "HLG": "hdr",
    "10bit": "ten_bit",
    "4:4:4": "chroma_444",
    "cover-art": "cover_art",
    "full-range": "full_range",
    "alpha": "transparent",
    "odd-dims": "odd_size",
    "open-gop/leading": "open_gop",
    "rotated": "rotated",
    "surround": "surround",
    "2-audio": "several_sounds",
    "2-video": "several_pictures",
    "video-only": "no_sound",
    "audio-only": "no_picture",
}
"""Features of the index, and what the notes call them."""


def test_the_notes_agree_with_the_index(outcomes: dict[str, dict[str, Any]]) -> None:
    wrong = []
    for row in (row for row in index() if row["kind"] != "B"):
        features, told = row["features"].split(), outcomes[row["path"]]["media"]["notes"]
        for feature, word in _SEEN.items():
            if feature in features and word not in told:
                wrong.append((row["path"], feature, told))
    assert wrong == []
