"""Interlaced pictures become whole ones: no combs, no motion that jumps back, every frame once, at any seam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from fields import h264_fields, mpeg2_fields
from films import Picture, bar, combing, make_film, oriented, place_of_bar, woven
from running import Clip, Made, opened

Order = Literal["tff", "bff"]
CODECS: dict[str, dict[str, Any]] = {
    "h264": {"codec": "libx264", "suffix": "mp4"},
    "mpeg2": {"codec": "mpeg2video", "suffix": "ts", "bitrate": 8_000_000},
    "prores": {"codec": "prores_ks", "suffix": "mov", "pix_fmt": "yuv422p10le"},
}
STEP = 3


def interlaced(path: Path, codec: str, order: Order, count: int = 30, start: int = 0) -> Path:
    settings = dict(CODECS[codec])
    suffix = settings.pop("suffix")
    pictures = woven([bar(STEP, number) for number in range(2 * count)], order)
    return make_film(path.with_suffix(f".{suffix}"), pictures, fields=[order] * count, start=start, **settings)


def lumas(made: Made) -> list[np.ndarray[Any, Any]]:
    return [frame.to_ndarray(format="gray") for frame in made.frames()]


def in_pieces(clip: Clip, root: Path, cuts: Sequence[int]) -> list[np.ndarray[Any, Any]]:
    pieces = [clip.transcode(root / str(a), "1080p", first=a, last=b)[1][0] for a, b in pairwise(cuts)]
    return [luma for piece in pieces for luma in lumas(piece)]


def assert_alike(pieces: list[np.ndarray[Any, Any]], whole: list[np.ndarray[Any, Any]]) -> None:
    """But for what the encoder loses, which differs a little with where it began."""
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(pieces, whole, strict=True)) < 20


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize("codec", CODECS)
def test_fields_become_whole_pictures_in_their_order(tmp_path: Path, codec: str, order: Order) -> None:
    """The bar moves on by two steps a frame, evenly, from where it was in each frame's first field."""
    clip = opened(interlaced(tmp_path / "film", codec, order))
    _, (made,) = clip.transcode(tmp_path, "1080p", crf=10)
    frames = lumas(made)
    places = [place_of_bar(luma) for luma in frames]
    assert clip.media.video
    assert clip.media.video.interlaced
    assert clip.media.video.top_field_first == (order == "tff")
    assert len(frames) == 30
    assert places == pytest.approx([20 + 12 - 0.5 + 2 * STEP * number for number in range(30)], abs=0.6)
    assert max(combing(luma) for luma in frames) < 0.5
    assert not any(frame.interlaced_frame for frame in made.frames())


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize(
    ("coded", "suffix"),
    [(h264_fields, "ts"), (h264_fields, "mp4"), (h264_fields, "mkv"), (mpeg2_fields, "ts"), (mpeg2_fields, "mpg")],
)
def test_pictures_that_are_coded_field_by_field(
    tmp_path: Path, coded: Callable[..., Path], suffix: str, order: Order
) -> None:
    """Two pictures of the stream are a frame, however many packets and times they have."""
    film = coded(tmp_path / f"film.{suffix}", woven([grainy(number) for number in range(100)], order), order)
    clip = opened(film, segment=1)
    video = clip.media.video
    _, (made,) = clip.transcode(tmp_path / "whole", "1080p", crf=4)
    frames = lumas(made)
    places = [place_of_bar(luma) for luma in frames]
    assert video
    assert video.rate == 25
    assert video.constant
    assert video.top_field_first == (order == "tff")
    assert video.end - video.start == 2
    assert video.frames == clip.timeline.frames == len(frames) == 50
    assert places == pytest.approx([20 + 12 - 0.5 + 4 * number for number in range(50)], abs=0.6)
    assert max(combing(luma) for luma in frames) < 2
    assert [place_of_bar(luma) for luma in in_pieces(clip, tmp_path, [0, 1, 2])] == pytest.approx(places, abs=0.6)


def grainy(number: int) -> Picture:
    """With so much in it that a picture is not smaller than a packet of a program stream: else two share a time."""
    grain = np.random.default_rng(5).integers(-8, 9, (192, 320, 1))
    return np.clip(bar(2, number, (320, 192)) + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("codec", ["h264", "mpeg2"])
def test_seams_are_what_the_whole_film_would_be(tmp_path: Path, codec: str) -> None:
    """Also where a chunk begins right after a keyframe of the source, and the filter has to see what was before."""
    clip = opened(interlaced(tmp_path / "film", codec, "tff", 75), segment=1)
    _, (whole,) = clip.transcode(tmp_path / "whole", "1080p", crf=4)
    pieces = in_pieces(clip, tmp_path, [0, 1, 2, 3])
    assert len(pieces) == len(lumas(whole)) == 75
    assert_alike(pieces, lumas(whole))


def test_progressive_and_interlaced_scenes_in_one_film(tmp_path: Path) -> None:
    """Whole pictures pass as they are; fields are woven, also when a chunk begins with the first of them."""
    whole = [bar(STEP, 2 * number) for number in range(50)]
    fields = woven([bar(STEP, number) for number in range(150)], "tff")
    pictures = [*whole[:25], *fields[25:50], *[bar(STEP, 2 * number) for number in range(50, 75)]]
    marks: list[Any] = ["prog"] * 25 + ["tff"] * 25 + ["prog"] * 25
    film = make_film(tmp_path / "film.mkv", pictures, codec="ffv1", fields=marks)
    clip = opened(film, segment=1)
    _, (made,) = clip.transcode(tmp_path / "whole", "1080p", crf=4)
    frames = lumas(made)
    assert len(frames) == 75
    assert max(combing(luma) for luma in frames) < 0.5
    sharp = [np.abs(frames[n].astype(int) - pictures[n][..., 0]).mean() for n in (3, 10, 60, 74)]
    assert max(sharp) < 1.5
    pieces = in_pieces(clip, tmp_path, [0, 1, 2, 3])
    assert_alike(pieces, frames)


def test_fields_that_nobody_saw_before_the_chunk(tmp_path: Path) -> None:
    """Probing looks at samples only: a chunk that begins among fields still looks at what was before it."""
    clip = opened(interlaced(tmp_path / "film", "prores", "bff", 50), segment=1)
    assert clip.media.video
    video = replace(clip.media.video, interlaced=False)
    blind = replace(clip, media=replace(clip.media, video=video))
    _, (whole,) = clip.transcode(tmp_path / "whole", "1080p", crf=4)
    pieces = in_pieces(blind, tmp_path, [0, 1, 2])
    assert_alike(pieces, lumas(whole))


def test_interlaced_and_turned(tmp_path: Path) -> None:
    """Fields are rows of the stored picture, so they are woven before it is turned."""
    film = oriented(interlaced(tmp_path / "film", "h264", "tff"), (0, 1, -1, 0))
    _, (made,) = opened(film).transcode(tmp_path, "1080p", crf=10)
    frames = [np.rot90(luma) for luma in lumas(made)]
    assert max(combing(luma) for luma in frames) < 0.5
    places = [place_of_bar(luma) for luma in frames]
    assert np.diff(places) == pytest.approx([2 * STEP] * 29, abs=0.6)
