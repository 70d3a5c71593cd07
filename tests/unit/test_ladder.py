"""A rung is a box: the picture is fitted inside, never enlarged, and kept while one side reaches it."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.media.ladder import BOXES, fit, sizes

SIDES = st.integers(1, 8192)
ALL = tuple(BOXES)


def test_full_hd_gets_every_rung_at_its_box() -> None:
    assert sizes((1920, 1080), ALL) == tuple((name, *box) for name, box in BOXES.items())


def test_rungs_turn_with_the_picture() -> None:
    assert sizes((1080, 1920), ["240p", "720p"]) == (("720p", 720, 1280), ("240p", 240, 426))


@pytest.mark.parametrize(
    ("size", "asked", "expected"),
    [
        ((1920, 800), ["1080p"], ("1080p", 1920, 800)),
        ((1920, 800), ["720p"], ("720p", 1280, 534)),
        ((1440, 1080), ["1080p"], ("1080p", 1440, 1080)),
        ((3840, 2160), ["1080p"], ("1080p", 1920, 1080)),
        ((642, 642), ["360p"], ("360p", 360, 360)),
        ((720, 576), ["480p"], ("480p", 600, 480)),
        ((16, 4000), ["1080p"], ("1080p", 8, 1920)),
    ],
)
def test_a_rung_is_kept_while_either_side_reaches_its_box(
    size: tuple[int, int], asked: list[str], expected: tuple[str, int, int]
) -> None:
    assert sizes(size, asked) == (expected,)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((320, 178), ("178p", 320, 178)),
        ((161, 121), ("121p", 160, 120)),
        ((200, 300), ("200p", 200, 300)),
        ((1, 1), ("1p", 2, 2)),
    ],
)
def test_a_small_source_gets_one_rung_named_by_its_short_side(
    size: tuple[int, int], expected: tuple[str, int, int]
) -> None:
    assert sizes(size, ALL) == (expected,)


def test_rungs_above_the_source_are_left_out() -> None:
    assert [name for name, _, _ in sizes((1000, 562), ALL)] == ["540p", "480p", "360p", "240p"]


def test_what_is_asked_twice_is_made_once_and_the_largest_comes_first() -> None:
    assert [name for name, _, _ in sizes((1280, 720), ["240p", "720p", "240p"])] == ["720p", "240p"]


def test_an_unknown_rung_is_refused_by_name() -> None:
    with pytest.raises(PipelineError, match="999p") as caught:
        sizes((1280, 720), ["999p"])
    assert caught.value.code == "parameter_invalid"


@given(size=st.tuples(SIDES, SIDES), box=st.sampled_from(list(BOXES.values())))
def test_a_fitted_picture_is_even_inside_and_never_larger(size: tuple[int, int], box: tuple[int, int]) -> None:
    for side, limit, own in zip(fit(size, box), box, size, strict=True):
        assert side % 2 == 0
        assert 2 <= side <= max(2, min(limit, own))


@given(size=st.tuples(st.integers(64, 8192), st.integers(64, 8192)), box=st.sampled_from(list(BOXES.values())))
def test_a_fitted_picture_keeps_its_shape(size: tuple[int, int], box: tuple[int, int]) -> None:
    """Each side is within two pixels of the exact one."""
    scale = min(Fraction(1), Fraction(box[0], size[0]), Fraction(box[1], size[1]))
    for side, own in zip(fit(size, box), size, strict=True):
        assert abs(side - own * scale) <= 2


@given(size=st.tuples(SIDES, SIDES), asked=st.lists(st.sampled_from(ALL), min_size=1))
def test_there_is_always_a_rung_and_rungs_get_smaller(size: tuple[int, int], asked: list[str]) -> None:
    rungs = sizes(size, asked)
    areas = [width * height for _, width, height in rungs]
    assert rungs
    assert areas == sorted(areas, reverse=True)
    assert len({name for name, _, _ in rungs}) == len(rungs)
