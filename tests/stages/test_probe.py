"""Everything that probing learns beside what planning needs: notes, standard input, colour, orientation, dispositions.

Each word of `notes` and of `standard` has a file that deserves it, and a plain file deserves none.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import oddities
import pytest
from av.stream import Disposition
from builders import a_media, a_video
from makers import make_clip, read_frame_number
from oddities import copied, patched
from texts import Said, TextIn, make_text_clip

from pipeline.errors import PipelineError
from pipeline.media import notes, standard
from pipeline.media.edits import edit_lists
from pipeline.media.pixels import bits, chroma, transparent
from pipeline.media.probe import probe
from pipeline.media.side_data import top_field_first
from pipeline.media.sources import decoded, open_source
from pipeline.tasks import Color, DolbyVision, Light, Limits, MediaInfo

Maker = Callable[[Path], Path]
"""Makes one file in a folder."""

FAST = {"preset": "ultrafast"}


def learn(path: Path) -> MediaInfo:
    return probe(path, Limits(), lambda _fraction: None)


def clip(name: str = "clip.mp4", **settings: Any) -> Maker:
    options = settings.pop("options", FAST if settings.get("codec", "libx264") == "libx264" else {})
    return lambda folder: make_clip(folder / name, **{"seconds": 1, "size": (160, 96), "options": options} | settings)


def twice_at_once(folder: Path) -> Path:
    """Two packets of the picture have the same time."""

    def change(packet: Any) -> bool:
        if packet.stream.type == "video" and packet.pts == 400:
            packet.pts = packet.dts = 360
        return True

    plain = clip("plain.mkv", options={**FAST, "bf": "0"}, audio=None)(folder)
    return copied(plain, folder / "clip.mkv", change)


def transport_error(folder: Path) -> Path:
    """The demodulator has marked a packet of the transport stream (ISO/IEC 13818-1 §2.4.3.3)."""
    made = clip("clip.ts", audio=None)(folder)
    content = bytearray(made.read_bytes())
    place = 188 * (len(content) // 188 // 2)
    content[place + 1] |= 0x80
    made.write_bytes(content)
    return made


def cut_by_its_edit_list(folder: Path) -> Path:
    """The list begins ten frames later than the media."""
    made = clip("clip.mp4", options={**FAST, "bf": "0"}, audio=None)(folder)
    entry = made.read_bytes().index(b"elst") + 12
    (start,) = struct.unpack_from(">i", made.read_bytes(), entry + 4)
    return patched(made, b"elst", 16, struct.pack(">i", start + 10 * 512))


def with_duration(seconds: float) -> Maker:
    """A Matroska file whose header says so many seconds."""

    def make(folder: Path) -> Path:
        made = clip("clip.mkv", seconds=4)(folder)
        return patched(made, b"\x44\x89\x88", 3, struct.pack(">d", seconds * 1000))

    return make


def shifted(name: str, seconds: float) -> Maker:
    """All clocks begin later."""

    def make(folder: Path) -> Path:
        def change(packet: Any) -> bool:
            ticks = round(Fraction(seconds) / packet.time_base)
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
            return True

        plain = clip("plain.ts", seconds=4)(folder)
        return copied(plain, folder / name, change)

    return make


def cut_inside(folder: Path) -> Path:
    """The first keyframe is missing."""

    def change(packet: Any) -> bool:
        return bool(packet.stream.type != "video" or packet.pts * packet.time_base > plain_start)

    plain = clip("plain.ts", gop=10, audio=None, options={**FAST, "bf": "0"}, seconds=2)(folder)
    plain_start = learn(plain).start + Fraction(1, 100)
    return copied(plain, folder / "clip.ts", change)


def joined(folder: Path) -> Path:
    """Two recordings end to end, each with its own clock."""
    parts = [clip(f"{n}.ts", video_start=start, audio_start=start)(folder) for n, start in enumerate((50, 0))]
    made = folder / "clip.ts"
    made.write_bytes(b"".join(part.read_bytes() for part in parts))
    return made


def square_in_the_container(folder: Path) -> Path:
    made = clip("clip.mp4", sar=Fraction(2))(folder)
    return patched(made, b"pasp", 4, struct.pack(">II", 1, 1))


def growing(folder: Path) -> Path:
    small, large = (
        clip(f"{name}.webm", codec="libvpx", size=size, audio=None, options={"deadline": "realtime"}, gop=5)(folder)
        for name, size in (("small", (64, 48)), ("large", (160, 96)))
    )
    return oddities.growing(folder / "clip.webm", small, large)


def two_pictures(folder: Path) -> Path:
    first, second = (clip(f"{name}.mp4", audio=None, seconds=0.5)(folder) for name in ("one", "two"))
    return oddities.two_pictures(folder / "clip.mp4", first, second)


def sound_of_no_codec(folder: Path) -> Path:
    made = patched(clip()(folder), b"mp4a", 0, b"zzzz")
    return patched(made, b"esds", 0, b"zzzz")


def covered(folder: Path) -> Path:
    return oddities.covered(folder / "song.m4a", clip("plain.m4a", codec=None)(folder))


def turned(folder: Path) -> Path:
    return clip(rotation=90)(folder)


def swapped(folder: Path) -> Path:
    one = 1 << 16
    return oddities.mirrored(folder / "clip.mp4", (-one, 0, 0, 0, one, 0, 0, 0, 1 << 30))


def dolby(profile: int, compatibility: int) -> Maker:
    return lambda folder: oddities.dolby(folder / "clip.mp4", profile=profile, compatibility=compatibility)


def hdr10(folder: Path) -> Path:
    return oddities.hdr10(folder / "clip.mkv")


OPEN = {**FAST, "x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=12:min-keyint=2:scenecut=0"}
INTERLACED = {**FAST, "x264-params": "tff=1"}
SPARSE = {**FAST, "x264-params": "keyint=1000:scenecut=0"}

NOTED: dict[str, Maker] = {
    "broken_timestamps": twice_at_once,
    "clock_joined": joined,
    "damaged": transport_error,
    "edit_list": cut_by_its_edit_list,
    "ends_apart": clip(audio_seconds=2),
    "header_lies": with_duration(1),
    "negative_timestamps": shifted("clip.ts", (1 << 33) / 90_000 - 4.4),
    "starts_apart": clip(audio_start=1, seconds=2, audio_seconds=1),
    "timestamp_wrap": shifted("clip.ts", (1 << 33) / 90_000 - 4.4),
    "truncated": with_duration(60),
    "unseekable": clip("clip.ts"),
    "begins_inside": cut_inside,
    "high_rate": clip(rate=100),
    "interlaced": clip(interlaced=True, options=INTERLACED),
    "open_gop": clip("clip.ts", options=OPEN, seconds=2, audio=None),
    "size_changes": growing,
    "sparse_keyframes": clip(seconds=12, rate=10, options=SPARSE, gop=1000),
    "variable_rate": clip(pts=[0, 0.1, 0.15, 0.4, 0.45, 0.9, 1.0]),
    "anamorphic": clip(sar=Fraction(4, 3)),
    "aspect_disagrees": square_in_the_container,
    "mirrored": swapped,
    "odd_size": clip("clip.webm", codec="libvpx-vp9", size=(81, 61), audio=None, options={"deadline": "realtime"}),
    "rotated": turned,
    "chroma_422": clip(pix_fmt="yuv422p"),
    "chroma_444": clip(pix_fmt="yuv444p"),
    "dolby_vision": dolby(8, 1),
    "full_range": clip(pix_fmt="yuvj420p", color=Color(range="pc")),
    "hdr": hdr10,
    "ten_bit": clip(pix_fmt="yuv420p10le"),
    "transparent": clip("clip.mkv", codec="ffv1", pix_fmt="yuva420p", audio=None),
    "cover_art": covered,
    "no_picture": clip("song.m4a", codec=None),
    "no_sound": clip(audio=None),
    "several_pictures": two_pictures,
    "several_sounds": clip(languages=("eng", "deu")),
    "stream_left_out": sound_of_no_codec,
    "surround": clip(channels=6),
}
"""A file for every word of the notes."""

ABOUT_TEXT = {word for word in notes.SENTENCES if word.startswith(("text_", "captions_"))}
"""Those have their files in `test_texts.py`."""

NOT_STANDARD: dict[str, Maker] = {
    "audio_channels": clip(channels=6),
    "audio_codec": clip(audio="libmp3lame"),
    "bit_depth": clip(pix_fmt="yuv420p10le"),
    "bitrate": clip("clip.mkv", codec="rawvideo", size=(320, 180), audio=None),
    "chroma": clip(pix_fmt="yuv422p"),
    "container": clip("clip.mkv"),
    "damaged": lambda folder: patched(
        clip("clip.mkv", seconds=4)(folder), b"\x44\x89\x88", 3, struct.pack(">d", 60_000)
    ),
    "edit_list": cut_by_its_edit_list,
    "frame_rate": clip(rate=100),
    "hdr": hdr10,
    "interlaced": clip(interlaced=True, options=INTERLACED),
    "keyframes": clip(seconds=12, rate=10, options=SPARSE, gop=1000),
    "open_gop": clip("clip.ts", options=OPEN, seconds=2, audio=None),
    "pixel_aspect": clip(sar=Fraction(4, 3)),
    "resolution": clip(size=(1922, 64), seconds=0.2),
    "rotation": turned,
    "sample_rate": clip(audio="aac", sample_rate=96_000),
    "variable_rate": clip(pts=[0, 0.1, 0.15, 0.4, 0.45, 0.9, 1.0]),
    "video_codec": clip(codec="mpeg4"),
}
"""A file for every reason not to be standard input."""


def many_channels(folder: Path, channels: int) -> Path:
    """A wave file with so many channels, of silence."""
    data = bytes(2 * channels * 480)
    head = struct.pack("<HHIIHH", 1, channels, 48_000, 96_000 * channels, 2 * channels, 16)
    content = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", len(data)) + data
    path = folder / f"{channels}.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(content)) + content)
    return path


def beside(path: Path, *sources: Path) -> Path:
    """All streams of these files in one."""
    with ExitStack() as opened:
        read = [opened.enter_context(av.open(str(source))) for source in sources]
        target = opened.enter_context(av.open(str(path), "w"))
        copies = {stream: target.add_stream_from_template(stream) for source in read for stream in source.streams}
        for source in read:
            for packet in source.demux():
                if packet.size:
                    packet.stream = copies[packet.stream]
                    target.mux(packet)
    return path


# -- the words ---------------------------------------------------------------------------------------------------------


def test_a_plain_file_has_no_notes_and_would_play_as_it_is(tmp_path: Path) -> None:
    media = learn(clip(options={**FAST, "bf": "2"})(tmp_path))
    assert media.notes == ()
    assert media.standard is not None
    assert media.standard.ok


def test_every_word_has_a_sentence_and_a_file() -> None:
    assert set(NOTED) | ABOUT_TEXT == set(notes.SENTENCES)
    assert set(NOT_STANDARD) == set(standard.SENTENCES)
    assert all(sentence.endswith(".") for sentence in (*notes.SENTENCES.values(), *standard.SENTENCES.values()))


@pytest.mark.parametrize("word", NOTED)
def test_what_is_unusual_is_noted(word: str, tmp_path: Path) -> None:
    media = learn(NOTED[word](tmp_path))
    assert word in media.notes
    assert set(media.notes) <= set(notes.SENTENCES)
    assert list(media.notes) == sorted(set(media.notes))


@pytest.mark.parametrize("word", NOT_STANDARD)
def test_what_would_not_play_everywhere_is_told(word: str, tmp_path: Path) -> None:
    media = learn(NOT_STANDARD[word](tmp_path))
    assert media.standard is not None
    assert word in media.standard.reasons
    assert not media.standard.ok
    assert set(media.standard.reasons) <= set(standard.SENTENCES)


def test_a_text_that_outlasts_the_picture_is_no_lie_of_the_header(tmp_path: Path) -> None:
    late = TextIn(
        codec="subrip", said=[Said(start=0, end=1, text="First."), Said(start=58, end=60, text="Long after.")]
    )

    for name in ("clip.mkv", "clip.mp4"):
        text = late if name.endswith("mkv") else replace(late, codec="mov_text")
        media = learn(make_text_clip(tmp_path / name, text, seconds=2))

        assert not {"truncated", "header_lies", "damaged"} & set(media.notes), name


@pytest.mark.parametrize("missing", [1, 5000])
def test_a_matroska_file_that_is_cut_short_says_so(missing: int, tmp_path: Path) -> None:
    """However little is missing, and also where a text keeps its duration from telling."""
    text = TextIn(codec="subrip", said=[Said(start=0, end=1, text="First.")])
    whole = make_text_clip(tmp_path / "whole.mkv", text, seconds=2)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[:-missing])

    assert "truncated" not in learn(whole).notes
    assert "truncated" in learn(cut).notes


def test_hdr_is_what_is_mapped_whoever_says_it() -> None:
    """Only the Dolby Vision layer says that its base is HDR10."""
    layer = DolbyVision(profile=8, level=1, compatibility=1)
    silent = a_media(video=a_video(color=Color(), dolby_vision=layer))

    assert {"hdr", "dolby_vision"} <= set(notes.notes(silent))
    assert "hdr" in standard.standard(a_media(video=a_video(color=Color(transfer="arib-std-b67")))).reasons


def test_parts_that_were_joined_are_no_damage(tmp_path: Path) -> None:
    media = learn(joined(tmp_path))
    assert "clock_joined" in media.notes
    assert not {"damaged", "broken_timestamps"} & set(media.notes)


def test_priming_and_reordering_are_no_edits(tmp_path: Path) -> None:
    """Every MP4 with AAC and B-frames has an edit list that leaves out what is there for the decoder alone."""
    media = learn(clip(options={**FAST, "bf": "2"})(tmp_path))
    assert edit_lists(tmp_path / "clip.mp4")
    assert "edit_list" not in media.notes


ONE, HALF = 1 << 16, 1 << 15
TENTH = 1280
"""Of a second: the media's clock of `clip` has 12,800 ticks, and the movie's has 1,000."""


@pytest.mark.parametrize(
    ("edits", "pieces", "normal_rate"),
    [
        ([(400, 0, ONE), (400, 5 * TENTH, ONE)], 2, True),
        ([(500, -1, ONE), (400, 0, ONE), (200, 8 * TENTH, ONE)], 2, True),
        ([(800, 0, HALF)], 1, False),
    ],
)
def test_lists_that_cut_or_stretch_are_edits(
    edits: list[tuple[int, int, int]], pieces: int, normal_rate: bool, tmp_path: Path
) -> None:
    made = clip(options={**FAST, "bf": "0"}, audio=None)(tmp_path)
    oddities.with_edits(made, *edits)

    [found] = edit_lists(made)
    assert (found.pieces, found.normal_rate) == (pieces, normal_rate)
    assert "edit_list" in learn(made).notes


def test_a_list_that_shows_pieces_of_a_gop_is_served_and_never_sought(tmp_path: Path) -> None:
    """libav gives the packets from the keyframe on again, marked as not shown; their clock goes back."""
    made = clip(options={**FAST, "bf": "0"}, audio=None, seconds=4, gop=100)(tmp_path)
    oddities.with_edits(made, (1000, 0, ONE), (1000, 30 * TENTH, ONE))

    media = learn(made)
    assert media.video is not None
    assert (media.video.frames, media.duration, media.seekable) == (50, 2, False)
    with open_source(made) as container:
        frames = list(decoded(container, container.streams.video[0]))
    assert [frame.pts for frame in frames] == [512 * n for n in range(50)]
    assert [read_frame_number(frame) for frame in frames] == [*range(25), *range(75, 100)]


def test_a_list_that_only_waits_is_no_edit(tmp_path: Path) -> None:
    made = clip(options={**FAST, "bf": "0"}, audio=None)(tmp_path)
    oddities.with_edits(made, (500, -1, ONE), (1000, 0, ONE))

    media = learn(made)
    assert media.start == Fraction(1, 2)
    assert "edit_list" not in media.notes


def test_damaged_boxes_end_the_walk(tmp_path: Path) -> None:
    made = clip()(tmp_path)
    whole = edit_lists(made)
    assert len(whole) == 2
    assert edit_lists(patched(made, b"elst", -4, struct.pack(">I", 7))) == whole[1:]
    assert edit_lists(patched(made, b"moov", -4, struct.pack(">I", 1 << 31))) == whole[1:], "longer than the file"
    assert edit_lists(patched(made, b"moov", -4, bytes(4))) == whole[1:], "0: up to the end of the file"


def test_a_first_frame_that_does_not_decode_is_noted(tmp_path: Path) -> None:
    made = clip("clip.webm", codec="libvpx-vp9", audio=None, options={"deadline": "realtime"}, gop=5)(tmp_path)
    with av.open(str(made)) as container:
        first = bytes(next(container.demux(video=0)))
    media = learn(patched(made, first, 0, b"\xaa" * len(first)))
    assert "damaged" in media.notes


def test_a_clock_that_overflows_late_counts_on(tmp_path: Path) -> None:
    """Within a minute of the overflow libav begins below 0 instead."""
    limit = Fraction(1 << 33, 90_000)
    plain = clip("plain.mp4", rate=1, seconds=75, size=(64, 48), audio=None, gop=10, options={**FAST, "bf": "0"})

    def change(packet: Any) -> bool:
        packet.pts = packet.dts = packet.pts + round((limit - 70) / packet.time_base)
        return True

    media = learn(copied(plain(tmp_path), tmp_path / "clip.ts", change))
    assert "timestamp_wrap" in media.notes
    assert media.video is not None
    assert media.video.end > limit


# -- the picture -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_the_matrix_is_read_as_the_standard_says(rotation: int, mirrored: bool, tmp_path: Path) -> None:
    """A point (x, y), y downwards, goes to (ax + cy, bx + dy) (ISO/IEC 14496-12 §6.2.2): mirror first, then turn."""

    def moved(x: int, y: int) -> tuple[int, int]:
        x = -x if mirrored else x
        for _ in range(rotation // 90):
            x, y = -y, x
        return x, y

    (a, b), (c, d) = moved(1, 0), moved(0, 1)
    one = 1 << 16
    matrix = (a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    video = learn(oddities.mirrored(tmp_path / "clip.mp4", matrix)).video
    assert video is not None
    assert (video.rotation, video.mirrored) == (rotation, mirrored)


def test_hdr10_says_how_bright_it_is(tmp_path: Path) -> None:
    video = learn(hdr10(tmp_path)).video
    assert video is not None
    assert video.light == Light(mastering_peak=1000.0, max_content=1000, max_average=400)
    assert (video.bits, video.color.hdr, video.dolby_vision) == (10, True, None)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(("profile", "compatibility"), [(8, 1), (8, 4)])
def test_dolby_vision_is_told_whatever_the_container(
    profile: int, compatibility: int, suffix: str, tmp_path: Path
) -> None:
    made = oddities.dolby(tmp_path / "dolby.mp4", profile=profile, compatibility=compatibility)
    if suffix != "mp4":
        made = copied(made, tmp_path / f"dolby.{suffix}", options={"strict": "unofficial"})
    video = learn(made).video
    assert video is not None
    assert video.dolby_vision == DolbyVision(profile=profile, level=6, compatibility=compatibility)


def test_fields_are_found_where_a_film_begins_progressive(tmp_path: Path) -> None:
    """Only the middle is interlaced: the first frames do not tell."""
    first = clip("first.ts", audio=None, seconds=2, gop=25)(tmp_path)
    second = clip("second.ts", audio=None, seconds=4, gop=25, interlaced=True, options=INTERLACED, video_start=2)
    made = tmp_path / "clip.ts"
    made.write_bytes(first.read_bytes() + second(tmp_path).read_bytes())

    video = learn(made).video
    assert video is not None
    assert (video.interlaced, video.top_field_first) == (True, True)


@pytest.mark.parametrize(("order", "expected"), [("tff", True), ("bff", False), ("prog", None)])
def test_the_order_of_fields_is_read_from_the_frame(order: str, expected: bool | None) -> None:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=64, height=48, format=av.VideoFormat("yuv420p"), time_base=Fraction(1, 25))
    graph.link_nodes(source, graph.add("setparams", f"field_mode={order}"), graph.add("buffersink")).configure()
    graph.push(av.VideoFrame(64, 48, "yuv420p"))
    frame = graph.pull()
    assert isinstance(frame, av.VideoFrame)
    assert top_field_first(frame) is expected


def test_what_the_codec_says_of_itself(tmp_path: Path) -> None:
    video = learn(clip(options={**FAST, "profile": "baseline", "level": "3.1"})(tmp_path)).video
    assert video is not None
    assert (video.profile, video.level, video.bits) == ("Constrained Baseline", 31, 8)
    assert (video.top_field_first, video.light, video.dolby_vision) == (None, None, None)


def test_bitrates_are_counted(tmp_path: Path) -> None:
    made = clip(seconds=2)(tmp_path)
    media = learn(made)
    assert media.video is not None
    assert media.video.bitrate is not None
    assert media.audio[0].bitrate is not None
    sizes = media.video.bitrate * 2 / 8 + media.audio[0].bitrate * 2 / 8
    assert 0.7 * made.stat().st_size < sizes < made.stat().st_size


@pytest.mark.parametrize(("options", "expected"), [(OPEN, True), ({**FAST, "bf": "2"}, False)])
def test_open_and_closed_groups_are_told_apart(options: dict[str, str], expected: bool, tmp_path: Path) -> None:
    video = learn(clip("clip.ts", options=options, gop=12, seconds=2, audio=None)(tmp_path)).video
    assert video is not None
    assert video.open_gop is expected


def test_one_keyframe_says_nothing_about_groups(tmp_path: Path) -> None:
    video = learn(clip(audio=None)(tmp_path)).video
    assert video is not None
    assert video.open_gop is None


@pytest.mark.parametrize(
    ("pix_fmt", "expected"),
    [
        ("yuv420p", (8, "420", False)),
        ("nv12", (8, "420", False)),
        ("yuvj422p", (8, "422", False)),
        ("p010le", (10, "420", False)),
        ("yuv444p12le", (12, "444", False)),
        ("gbrp", (8, "444", False)),
        ("pal8", (8, "444", False)),
        ("rgba", (8, "444", True)),
        ("gray", (8, "other", False)),
        ("yuv411p", (8, "other", False)),
    ],
)
def test_the_name_of_a_format_says_its_samples(pix_fmt: str, expected: tuple[int, str, bool]) -> None:
    assert (bits(pix_fmt), chroma(pix_fmt), transparent(pix_fmt)) == expected


# -- the sound, and what else there is ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("disposition", "role"),
    [
        (Disposition.default, "main"),
        (Disposition.comment, "commentary"),
        (Disposition.visual_impaired, "description"),
        (Disposition.hearing_impaired, "main"),
        (Disposition(0), "main"),
    ],
)
def test_dispositions_make_the_role_and_the_default(disposition: Disposition, role: str, tmp_path: Path) -> None:
    plain = clip("plain.mkv", languages=("eng", "deu"))(tmp_path)
    dispositions = {1: Disposition(0), 2: disposition}
    made = copied(plain, tmp_path / "clip.mkv", dispositions=dispositions, titles={2: "  Second\x07 track "})
    second = learn(made).audio[1]
    assert (second.role, second.default) == (role, disposition == Disposition.default)
    assert (second.title, second.language) == ("Second track", "de")


def test_the_picture_has_a_title_and_a_language_too(tmp_path: Path) -> None:
    plain = clip("plain.mkv")(tmp_path)
    video = learn(copied(plain, tmp_path / "clip.mkv", titles={0: "x" * 500})).video
    assert video is not None
    assert video.title == "x" * 200
    assert video.language == "und"


@pytest.mark.parametrize(
    ("name", "audio", "expected"),
    [
        ("a.wav", "pcm_s24le", ("pcm_s24le", None, 24)),
        ("a.flac", "flac", ("flac", None, 16)),
        ("a.m4a", "alac", ("alac", None, 24)),
        ("a.m4a", "aac", ("aac", "LC", None)),
        ("a.mp3", "libmp3lame", ("mp3", None, None)),
    ],
)
def test_sound_says_its_profile_and_its_bits(
    name: str, audio: str, expected: tuple[str, str | None, int | None], tmp_path: Path
) -> None:
    sound = learn(clip(name, codec=None, audio=audio)(tmp_path)).audio[0]
    assert (sound.codec, sound.profile, sound.bits) == expected


def test_a_cover_is_listed_and_is_no_stream_of_another_kind(tmp_path: Path) -> None:
    media = learn(covered(tmp_path))
    assert [(cover.codec, cover.width, cover.height) for cover in media.pictures] == [("mjpeg", 64, 48)]
    assert (media.video, media.others) == (None, 0)


@pytest.mark.raises_code("audio_format_unsupported")
def test_sound_of_more_channels_than_can_be_folded_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    assert learn(many_channels(tmp_path, 64)).audio[0].channels == 64
    picture = clip("picture.mkv", audio=None)(tmp_path)
    for path in (many_channels(tmp_path, 65), beside(tmp_path / "film.mkv", picture, many_channels(tmp_path, 80))):
        with pytest.raises(PipelineError) as caught:
            learn(path)
        assert caught.value.code == "audio_format_unsupported"
        assert str(caught.value.params["format"]) in ("65 channels", "80 channels")


def test_sound_of_too_many_channels_is_left_out_beside_another(tmp_path: Path) -> None:
    film = clip("plain.mkv")(tmp_path)
    media = learn(beside(tmp_path / "film.mkv", film, many_channels(tmp_path, 80)))
    assert [sound.channels for sound in media.audio] == [2]
    assert "stream_left_out" in media.notes


@pytest.mark.raises_code("audio_file_broken")
def test_a_picture_whose_sound_does_not_decode_is_refused_and_the_stream_is_named(tmp_path: Path) -> None:
    film = clip("plain.mkv", audio="flac")(tmp_path)

    def change(packet: Any) -> bool:
        if packet.stream.type == "audio":
            packet.update(bytes(packet.size))
        return True

    with pytest.raises(PipelineError) as caught:
        learn(copied(film, tmp_path / "film.mkv", change))
    assert caught.value.code == "audio_file_broken"
    assert "stream 1 (flac)" in str(caught.value.log)


def test_what_nothing_is_made_of_is_counted(tmp_path: Path) -> None:
    assert learn(two_pictures(tmp_path)).others == 1
    assert learn(sound_of_no_codec(tmp_path)).others == 1
