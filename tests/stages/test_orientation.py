"""A picture comes out as a person would hold it: turned, mirrored, with square pixels, and never stretched."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import Picture, disc, make_film, oriented, roundness
from running import Made, opened

SIZE = (320, 200)
CORNERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))
"""Top left, top right, bottom left, bottom right."""
MATRICES = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


def corners(size: tuple[int, int] = SIZE) -> Picture:
    width, height = size
    picture = np.full((height, width, 3), 128, np.uint8)
    for (row, column), color in zip(((0, 0), (0, 1), (1, 0), (1, 1)), CORNERS, strict=True):
        rows = slice(row * height // 2, (row + 1) * height // 2)
        picture[rows, column * width // 2 : (column + 1) * width // 2] = color
    return picture


def stored(upright: Picture, matrix: tuple[int, int, int, int]) -> Picture:
    """The picture that becomes `upright` when every point (x, y) goes to (ax + cy, bx + dy)."""
    a, b, c, d = matrix
    across, down = (a, d) if a else (b, c)
    picture = upright if a else upright.transpose(1, 0, 2)
    # An axis that runs against the one that it becomes is stored backwards.
    return np.ascontiguousarray(picture[::down, ::across])


def seen(made: Made) -> list[tuple[int, int, int]]:
    """Which of the colours lies in each corner."""
    rgb = made.frames()[0].to_ndarray(format="rgb24")
    height, width = rgb.shape[:2]
    places = [(height // 4, width // 4), (height // 4, 3 * width // 4)]
    places += [(3 * height // 4, width // 4), (3 * height // 4, 3 * width // 4)]
    return [min(CORNERS, key=lambda color: int(np.abs(rgb[place].astype(int) - color).sum())) for place in places]


@pytest.mark.parametrize("matrix", MATRICES, ids=str)
def test_every_display_matrix_comes_out_upright(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    path = oriented(make_film(tmp_path / "film.mp4", [stored(corners(), matrix)] * 3), matrix)
    _, (made,) = opened(path).transcode(tmp_path, "1080p")
    frame = made.frames()[0]
    assert (frame.width, frame.height) == SIZE
    assert seen(made) == list(CORNERS)


@pytest.mark.parametrize(
    ("degrees", "quarters"), [(1, 0), (30, 0), (44, 0), (46, 1), (89, 1), (91, 1), (181, 2), (269, 3), (359, 0)]
)
def test_angles_between_are_turned_to_the_nearest_quarter(tmp_path: Path, degrees: int, quarters: int) -> None:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    upright = ((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))[quarters]
    path = oriented(make_film(tmp_path / "film.mp4", [stored(corners(), upright)] * 3), (cos, sin, -sin, cos))
    _, (made,) = opened(path).transcode(tmp_path, "1080p")
    assert seen(made) == list(CORNERS)


def test_half_way_between_two_quarters_there_is_a_picture(tmp_path: Path) -> None:
    half = math.sqrt(0.5)
    path = oriented(make_film(tmp_path / "film.mp4", [corners()] * 3), (half, half, -half, half))
    _, (made,) = opened(path).transcode(tmp_path, "1080p")
    assert sorted(seen(made)) == sorted(CORNERS)


def test_pixels_whose_shape_changes_do_not_end_the_work(tmp_path: Path) -> None:
    """A broadcast that goes from 4:3 to 16:9 and back, with the same number of pixels."""
    ratios = (Fraction(16, 15), Fraction(64, 45), Fraction(16, 15))
    parts = [
        make_film(tmp_path / f"{n}.ts", [disc((384, 288), (360, 288))] * 25, sar=ratio, start=25 * n)
        for n, ratio in enumerate(ratios)
    ]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    clip = opened(both)
    _, (made,) = clip.transcode(tmp_path, "1080p")
    frames = made.frames()
    assert len(frames) == clip.timeline.frames == 75
    assert {(frame.width, frame.height) for frame in frames} == {(384, 288)}
    assert roundness(frames[5].to_ndarray(format="gray")) == pytest.approx(1, abs=0.015)
    assert made.warnings() == ""


@pytest.mark.parametrize("rotation", [0, 90])
@pytest.mark.parametrize("sar", ["16/15", "64/45", "4/3", "8/9", "2/1", "1280/1281"])
def test_a_circle_stays_a_circle(tmp_path: Path, sar: str, rotation: int) -> None:
    """Pixels of any shape, also where the picture is turned: the ratio is that of the stored pixels."""
    ratio, size = Fraction(sar), (360, 288)
    film = make_film(tmp_path / "film.mp4", [disc((round(size[0] * ratio), size[1]), size)] * 3, sar=ratio)
    if rotation:
        film = oriented(film, (0, 1, -1, 0))
    _, (made,) = opened(film).transcode(tmp_path, "1080p")
    frame = made.frames()[0]
    shape = (round(size[0] * ratio / 2) * 2, size[1])
    assert (frame.width, frame.height) in (shape, shape[::-1])
    assert (frame.height > frame.width) == (bool(rotation) == (shape[0] > shape[1]))
    assert roundness(frame.to_ndarray(format="gray")) == pytest.approx(1, abs=0.015)


@pytest.mark.parametrize("size", [(2, 2), (16, 16), (853, 479), (33, 17), (8, 200)])
def test_every_size_has_a_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    film = make_film(
        tmp_path / "film.mkv", [np.full((size[1], size[0], 3), 200, np.uint8)] * 2, codec="ffv1", pix_fmt="yuv444p"
    )
    _, (made,) = opened(film).transcode(tmp_path, "1080p")
    luma = made.frames()[0].to_ndarray(format="gray").astype(int)
    assert luma.shape == (size[1] // 2 * 2, size[0] // 2 * 2)
    assert np.ptp(luma) <= 4


def test_a_film_whose_shape_changes_gets_bars_and_is_not_stretched(tmp_path: Path) -> None:
    """A phone that is turned while it records: the disc stays a disc, with black beside it."""
    first = make_film(tmp_path / "a.ts", [disc((320, 180), (320, 180))] * 25)
    second = make_film(tmp_path / "b.ts", [disc((180, 320), (180, 320))] * 25, start=25)
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    _, made = opened(both).transcode(tmp_path, "1080p", "240p")
    for rendition in made:
        frames = [frame.to_ndarray(format="gray") for frame in rendition.frames()]
        assert {frame.shape for frame in frames} == {frames[0].shape}
        assert roundness(frames[5]) == pytest.approx(1, abs=0.02)
        assert roundness(frames[40]) == pytest.approx(1, abs=0.05)
        assert frames[40][:, :60].max() <= 20


def test_a_film_whose_resolution_changes_fills_the_picture(tmp_path: Path) -> None:
    first = make_film(tmp_path / "a.ts", [disc((320, 180), (320, 180))] * 25)
    second = make_film(tmp_path / "b.ts", [disc((426, 240), (426, 240))] * 25, start=25)
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    _, (made,) = opened(both).transcode(tmp_path, "1080p")
    frames: list[Any] = [frame.to_ndarray(format="gray").astype(int) for frame in made.frames()]
    assert np.abs(frames[5] - frames[40]).mean() < 2
