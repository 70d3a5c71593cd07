"""Export: one progressive MP4 of what is played, exact to the frame and to the sample, by copying."""

from __future__ import annotations

import subprocess
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from makers import make_clip, read_frame_number
from presentations import frame_ticks
from running import FFMPEG, Clip, Folder, Made, ignored, opened

from pipeline.errors import PipelineError
from pipeline.media import fragments
from pipeline.media.boxes import Sample, boxes, find, scan_segment
from pipeline.media.cues import Cue
from pipeline.media.mp4_index import FILE_TYPE, IndexedTrack, SampleTable, index
from pipeline.media.webvtt import StyledCue, write_styled, write_webvtt
from pipeline.media.whole_track import description
from pipeline.stages.contract import Input
from pipeline.stages.export import export
from pipeline.tasks import ExportFacts, ExportTask, ExportTrack

NTSC = Fraction(30000, 1001)
FRAME = 1024
"""Samples of an AAC frame."""


@dataclass(frozen=True, kw_only=True)
class Film:
    """A clip and its ladder."""

    clip: Clip
    video: Made
    audio: tuple[Made, ...]

    @property
    def duration(self) -> Fraction:
        return self.clip.timeline.duration


def make_film(root: Path, **changes: Any) -> Film:
    """Ten seconds of 29.97 with B-frames, two sounds; segments of 2 s."""
    settings: dict[str, Any] = {"seconds": 10, "rate": NTSC, "languages": ("eng", "deu"), **changes}
    clip = opened(make_clip(root / "clip.mkv", **settings), segment=2, keyframe=1)
    _, (video,) = clip.transcode(root, preset="fast")
    return Film(clip=clip, video=video, audio=tuple(clip.audio(root, n) for n in range(len(clip.media.audio))))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Film:
    return make_film(tmp_path_factory.mktemp("film"))


def a_track(kind: Any, track: str, **changes: Any) -> ExportTrack:
    return ExportTrack(track=track, kind=kind, **changes)


def exported(
    root: Path,
    tracks: Sequence[ExportTrack],
    inputs: Mapping[str, Input],
    *,
    end: Fraction,
    start: Fraction = Fraction(0),
    tick: Callable[[float], None] = ignored,
) -> tuple[Path, ExportFacts]:
    task = ExportTask(asset="testasset01", tracks=tuple(tracks), start=start, end=end)
    out = Folder(root=root / "export")
    facts = export(task, inputs, out, tick)
    assert out.completed == ["video.mp4"]
    path = out.root / "video.mp4"
    assert facts == ExportFacts(size=path.stat().st_size, duration=end - start)
    return path, facts


def export_film(root: Path, film: Film, **changes: Any) -> Path:
    tracks = [a_track("video", "video"), a_track("audio", "sound", language="en", name="English")]
    inputs = {"video": film.video.appended(), "sound": film.audio[0].appended()}
    return exported(root, tracks, inputs, end=film.duration, **changes)[0]


def warnings(path: Path) -> str:
    """What ffmpeg, an independent build, has to say against it; empty is good."""
    command = [FFMPEG, "-v", "warning", "-xerror", "-i", str(path), "-map", "0:v?", "-map", "0:a?", "-f", "null", "-"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.stderr + (f"exit {run.returncode}" if run.returncode else "")


def pictures(path: Path) -> list[tuple[Fraction, int]]:
    """(seconds, number) of every frame that is shown."""
    with av.open(str(path)) as container:
        return [(Fraction(f.pts) * f.time_base, read_frame_number(f)) for f in container.decode(video=0)]


def sound(path: Path, index: int = 0) -> tuple[Fraction, np.ndarray[Any, Any]]:
    """(seconds of the first sample, the first channel)."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=index))
    return Fraction(frames[0].pts) * frames[0].time_base, np.concatenate([f.to_ndarray()[0] for f in frames])


def top(path: Path) -> list[bytes]:
    return [box.kind for box in boxes(path.read_bytes())]


# -- the whole of it ---------------------------------------------------------------------------------------------------


def test_every_frame_and_every_sample_are_where_they_were(tmp_path: Path, film: Film) -> None:
    path = export_film(tmp_path, film)

    assert pictures(path) == [(n / NTSC, n) for n in range(300)]
    begin, heard = sound(path)
    original = film.audio[0].sound()[0]
    assert begin == 0
    assert np.array_equal(heard[: len(original) - FRAME], original[: len(heard)][: len(original) - FRAME])
    assert warnings(path) == ""


def test_the_index_is_in_front_and_nothing_tells_when_or_by_what_it_was_made(tmp_path: Path, film: Film) -> None:
    path = export_film(tmp_path, film)

    assert top(path) == [b"ftyp", b"moov", b"free", b"free", b"mdat"]
    data = path.read_bytes()
    assert data[: len(FILE_TYPE)] == FILE_TYPE
    mvhd = find(data, b"moov", b"mvhd")
    assert data[mvhd.body + 4 : mvhd.body + 12] == bytes(8)
    assert not any(word in data[: find(data, b"moov").end] for word in (b"Lavf", b"Lavc", b"reelway"))
    assert export_film(tmp_path / "again", film).read_bytes() == data


def test_durations_are_exact(tmp_path: Path, film: Film) -> None:
    with av.open(str(export_film(tmp_path, film))) as container:
        (video,), (audio,) = container.streams.video, container.streams.audio
        assert video.frames == 300
        assert video.duration * video.time_base == 300 / NTSC
        assert abs(audio.duration * audio.time_base - 300 / NTSC) < Fraction(FRAME, 48000)
        last = list(container.demux(video))[-2]
        assert last.duration * last.time_base == 1 / NTSC


def test_two_sounds_have_their_languages_and_names_and_one_is_on(tmp_path: Path, film: Film) -> None:
    tracks = [
        a_track("video", "video"),
        a_track("audio", "1", language="en", name="English"),
        a_track("audio", "2", language="pt-br", name="Português", default=True),
    ]
    inputs = {"video": film.video.appended(), "1": film.audio[0].appended(), "2": film.audio[1].appended()}
    path, _ = exported(tmp_path, tracks, inputs, end=film.duration)

    with av.open(str(path)) as container:
        told = [(s.metadata["language"], s.metadata["handler_name"]) for s in container.streams.audio]
        on = [bool(s.disposition & s.disposition.default) for s in container.streams.audio]
    assert told == [("eng", "English"), ("por", "Português")]
    assert on == [False, True]
    assert b"elng\0\0\0\0pt-br\0" in path.read_bytes()
    assert np.array_equal(sound(path, 1)[1][:FRAME], film.audio[1].sound()[0][:FRAME])
    assert warnings(path) == ""


def test_a_sound_alone_is_a_file_with_sound_only(tmp_path: Path, film: Film) -> None:
    made = film.audio[0]
    samples = made.part.segments[-1].start + made.part.segments[-1].duration
    path, facts = exported(tmp_path, [a_track("audio", "1")], {"1": made.appended()}, end=Fraction(samples, 48000))

    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["audio"]
        assert round(facts.duration * 10**6) == container.duration
    assert len(sound(path)[1]) == samples
    assert warnings(path) == ""


def test_progress_is_told_and_whoever_ends_it_ends_it(tmp_path: Path, film: Film) -> None:
    told: list[float] = []
    export_film(tmp_path, film, tick=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0

    class EndedError(Exception):
        pass

    def end(_: float) -> None:
        raise EndedError

    with pytest.raises(EndedError):
        export_film(tmp_path, film, tick=end)


# -- captions ----------------------------------------------------------------------------------------------------------


def spoken(path: Path) -> list[tuple[int, int, str]]:
    """(start, end, text) of the captions, in milliseconds, by the samples."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(container.streams.subtitles[0]) if p.size]
        assert container.streams.subtitles[0].codec_context.codec.name == "mov_text"
    return [(p.pts, p.pts + p.duration, bytes(p)[2:].decode()) for p in packets]


def export_captions(root: Path, film: Film, text: str, **changes: Any) -> Path:
    (root / "text.vtt").write_text(text, "utf-8")
    tracks = [a_track("video", "video"), a_track("text", "text", **changes)]
    return exported(root, tracks, {"video": film.video.appended(), "text": root / "text.vtt"}, end=film.duration)[0]


def test_captions_come_along_with_their_gaps(tmp_path: Path, film: Film) -> None:
    cues = [
        Cue(start_ms=1000, end_ms=2500, lines=("Salt & pepper <3", "und Öl")),
        Cue(start_ms=2500, end_ms=3000, lines=("日本語",)),
        Cue(start_ms=9000, end_ms=12_000, lines=("The end",)),
    ]
    path = export_captions(tmp_path, film, write_webvtt(cues), language="ja", name="日本語", default=True)

    assert spoken(path) == [
        (0, 1000, ""),
        (1000, 2500, "Salt & pepper <3\nund Öl"),
        (2500, 3000, "日本語"),
        (3000, 9000, ""),
        (9000, 10010, "The end"),
    ]
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        assert stream.metadata["language"] == "jpn"
        assert stream.disposition & stream.disposition.default
        decoded = [s.dialogue.decode() for p in container.demux(stream) for s in p.decode()]
    assert [text for text in decoded if text] == ["Salt & pepper <3\nund Öl", "日本語", "The end"]


def test_captions_that_overlap_are_shown_together_and_without_style(tmp_path: Path, film: Film) -> None:
    cues = [
        StyledCue(start_ms=0, end_ms=2000, payload="<i>One</i> &lt;b&gt;"),
        StyledCue(start_ms=1000, end_ms=3000, payload="Two", top=True),
    ]
    text = write_styled(cues).replace("WEBVTT", "WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:900000", 1)
    path = export_captions(tmp_path, film, text)

    assert spoken(path)[:4] == [
        (0, 1000, "One <b>"),
        (1000, 2000, "One <b>\nTwo"),
        (2000, 3000, "Two"),
        (3000, 10010, ""),
    ]
    assert not av.open(str(path)).streams.subtitles[0].disposition & 1


def test_captions_without_a_cue_are_an_empty_track(tmp_path: Path, film: Film) -> None:
    assert spoken(export_captions(tmp_path, film, write_webvtt([]))) == [(0, 10010, "")]


@pytest.mark.parametrize("text", ["", "WEBVTT\n\n00:02.000 --> 00:01.000\nBackwards\n", "WEBVTT\n\n00:00 -->\nx\n"])
def test_captions_that_cannot_be_read_are_named(tmp_path: Path, film: Film, text: str) -> None:
    with pytest.raises(PipelineError, match="captions text cannot be read") as refused:
        export_captions(tmp_path, film, text)
    assert refused.value.code == "export_not_possible"


# -- a trimmed range ---------------------------------------------------------------------------------------------------


def picture_from(made: Made, segment: int) -> bytes:
    """The track from one of its segments on."""
    return made.init + b"".join(made.segment(n) for n in range(segment, len(made.part.segments)))


def sound_from(made: Made, first: int) -> bytes:
    """The track from its frame `first` on, cut as a trim cuts it."""
    parts, init = [made.init], made.init
    for number in range(len(made.part.segments)):
        media = made.segment(number)
        kept = [sample for sample in scan_segment(media, init).samples if sample.decode >= first * FRAME]
        parts += [fragments.sound(media, kept, init)] if kept else []
    return b"".join(parts)


def test_a_trimmed_range_begins_at_0_and_its_sound_stays_in_sync_to_the_sample(tmp_path: Path, film: Film) -> None:
    first = film.video.part.segments[2].start // frame_ticks(film.clip.timeline)
    start = first / NTSC
    frame = int(start * 48000) // FRAME
    assert 0 < start * 48000 - frame * FRAME < FRAME, "else the sound begins with the picture"
    (tmp_path / "v.mp4").write_bytes(picture_from(film.video, 2))
    (tmp_path / "a.mp4").write_bytes(sound_from(film.audio[0], frame))

    path, _ = exported(
        tmp_path,
        [a_track("video", "v"), a_track("audio", "a")],
        {"v": tmp_path / "v.mp4", "a": tmp_path / "a.mp4"},
        start=start,
        end=film.duration,
    )

    assert pictures(path) == [(n / NTSC - start, n) for n in range(first, 300)]
    begin, heard = sound(path)
    original = film.audio[0].sound()[0][round(start * 48000) :]
    assert begin == 0
    # The decoder needs the frame before for the first one; the last is cut by the edit, or not.
    assert np.array_equal(heard[2 * FRAME : len(original) - FRAME], original[2 * FRAME : len(original) - FRAME])
    assert warnings(path) == ""


def test_a_sound_that_begins_late_is_late(tmp_path: Path, film: Film) -> None:
    (tmp_path / "a.mp4").write_bytes(sound_from(film.audio[0], 47))
    path, _ = exported(
        tmp_path,
        [a_track("video", "v"), a_track("audio", "a")],
        {"v": film.video.appended(), "a": tmp_path / "a.mp4"},
        end=film.duration,
    )

    assert abs(sound(path)[0] - Fraction(47 * FRAME, 48000)) < 1 / NTSC / 100
    assert pictures(path)[0] == (0, 0)


# -- seams -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(film: Film, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The same picture by an encoder with other parameter sets."""
    _, (made,) = film.clip.transcode(tmp_path_factory.mktemp("other"), preset="fast", profile="main")
    assert made.init != film.video.init
    return made


def patched(film: Film, other: Made) -> bytes:
    """Begins and ends with pieces of another encoder."""
    own = film.video
    between = own.init + own.segment(1) + own.segment(2) + own.segment(3)
    return other.init + other.segment(0) + between + other.init + other.segment(4)


def test_pieces_of_another_encoder_are_decoded_too(tmp_path: Path, film: Film, other: Made) -> None:
    (tmp_path / "v.mp4").write_bytes(patched(film, other))
    tracks = [a_track("video", "v", seamed=True)]
    path, _ = exported(tmp_path, tracks, {"v": tmp_path / "v.mp4"}, end=film.duration)

    assert pictures(path) == [(n / NTSC, n) for n in range(300)]
    assert warnings(path) == ""
    with av.open(str(path)) as container:  # back to what another encoder made
        assert container.streams.video[0].codec_context.codec_tag == "avc3"
        container.seek(5_000_000)
        assert read_frame_number(next(container.decode(video=0))) >= 120
        container.seek(0)
        assert read_frame_number(next(container.decode(video=0))) == 0


@pytest.mark.raises_code("export_not_possible")
def test_what_changes_midway_and_nobody_said_so_is_refused(tmp_path: Path, film: Film, other: Made) -> None:
    (tmp_path / "v.mp4").write_bytes(patched(film, other))
    with pytest.raises(PipelineError, match="made by different encoders") as refused:
        exported(tmp_path, [a_track("video", "v")], {"v": tmp_path / "v.mp4"}, end=film.duration)
    assert refused.value.code == "export_not_possible"


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (lambda film: b"", "v is empty"),
        (lambda film: film.video.init, "v is empty"),
        (lambda film: film.video.segment(0), "without a description"),
        (lambda film: film.video.appended().read_bytes()[:-9], "too early"),
        (lambda film: film.video.appended().read_bytes()[:4] + b"\0\0", "ends within"),
        (lambda film: film.video.init + film.video.segment(1) + film.video.segment(0), "decoded"),
        (lambda film: film.video.init + film.video.segment(0) + film.audio[0].init + film.video.segment(1), "clock"),
    ],
)
def test_what_is_no_track_is_refused(tmp_path: Path, film: Film, content: Callable[[Film], bytes], detail: str) -> None:
    (tmp_path / "v.mp4").write_bytes(content(film))
    with pytest.raises(PipelineError, match=detail) as refused:
        exported(tmp_path, [a_track("video", "v")], {"v": tmp_path / "v.mp4"}, end=film.duration)
    assert refused.value.code == "export_not_possible"


# -- large -------------------------------------------------------------------------------------------------------------


def test_an_index_that_is_larger_than_its_room_moves_the_media_back(
    tmp_path: Path, film: Film, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = export_film(tmp_path / "roomy", film)
    monkeypatch.setattr("pipeline.stages.export._room", lambda *_: 10)
    monkeypatch.setattr("pipeline.media.progressive._COPIED", 1000)
    path = export_film(tmp_path, film)

    assert top(path) == [b"ftyp", b"moov", b"free", b"free", b"mdat"]
    assert pictures(path) == pictures(expected)
    assert np.array_equal(sound(path)[1], sound(expected)[1])
    assert warnings(path) == ""


def test_what_is_larger_than_32_bits_can_tell_has_boxes_of_64(
    tmp_path: Path, film: Film, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.media.mp4_index.MOST_32", 30_000)
    monkeypatch.setattr("pipeline.media.progressive.MOST_32", 30_000)
    path = export_film(tmp_path, film)

    data = path.read_bytes()
    assert [word in data for word in (b"co64", b"stco")] == [True, False]
    assert top(path) == [b"ftyp", b"moov", b"free", b"mdat"]
    assert pictures(path) == [(n / NTSC, n) for n in range(300)]
    assert warnings(path) == ""


class Heavy:
    """A track of forty fragments of three megabytes, read as a handle is."""

    def __init__(self, made: Made) -> None:
        self._media, self._init = bytes(100_000), made.init
        self._parts = chain([made.init], map(self._fragment, range(40)))
        self._rest = b""

    def _fragment(self, number: int) -> bytes:
        size, first = len(self._media), number * 30
        samples = [
            Sample(tick=n * FRAME, decode=n * FRAME, duration=FRAME, offset=0, size=size, sync=True, moof=0)
            for n in range(first, first + 30)
        ]
        return fragments.sound(self._media, samples, self._init)

    def open(self) -> Heavy:
        return self

    def read(self, size: int) -> bytes:
        self._rest = self._rest or next(self._parts, b"")
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def test_of_the_media_no_more_than_a_fragment_is_in_memory(tmp_path: Path, film: Film) -> None:
    heavy: Any = Heavy(film.audio[0])
    tracemalloc.start()
    try:
        path, facts = exported(tmp_path, [a_track("audio", "a")], {"a": heavy}, end=Fraction(1200 * FRAME, 48000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert facts.size > 120 * 10**6
    assert peak < 24 * 1024**2
    path.unlink()


def test_the_index_is_made_in_time_that_grows_with_its_length(film: Film) -> None:
    """An hour, B-frames among them; it took hours once."""
    table = SampleTable()
    for number in range(200_000):
        if number % 15 == 0:
            table.chunk(number)
        tick = number + (2, 0, -1)[number % 3]
        table.add(Sample(tick=tick, decode=number, duration=1, offset=0, size=1, sync=number % 60 == 0, moof=0), 1)
    track = IndexedTrack(
        kind="video", timescale=60, description=description(film.video.init), table=table, start=0, end=200_000
    )
    assert len(index([track], 60)) > 2_400_000
