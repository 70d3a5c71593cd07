"""What part of an asset may be asked for: whatever numbers come, they mean some frames or are refused with bounds."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import cuts
from pipeline.errors import PipelineError
from pipeline.presentation.cutting import frames_of
from pipeline.presentation.model import Edit
from pipeline.requests import Range, exact
from pipeline.tasks import Timeline

RATES = (Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(60000, 1001), Fraction(48000, 1024))
TIMELINES = st.builds(Timeline, rate=st.sampled_from(RATES), frames=st.integers(1, 200_000))
TIMES = st.none() | st.floats() | st.integers(-1, 4000).map(float) | st.floats(0, 4000)
PAL = Timeline(rate=Fraction(25), frames=250)


def settle(start: float | None = None, end: float | None = None, **changes: Any) -> tuple[Fraction, Fraction | None]:
    return cuts.settle(Range(start_time=start, end_time=end), changes.pop("timeline", PAL), **changes)


def refusal(start: float | None = None, end: float | None = None, **changes: Any) -> dict[str, Any]:
    with pytest.raises(PipelineError) as caught:
        settle(start, end, **changes)
    assert caught.value.code == "trim_range_invalid"
    assert set(caught.value.params) == {"field", "minimum", "maximum", "current"}
    return dict(caught.value.params)


def test_times_are_those_that_were_written() -> None:
    """0.1 as a binary number lies behind a tenth, and so would its frame."""
    assert settle(0.1, 0.3) == (Fraction(1, 10), Fraction(3, 10))
    assert settle(1e-7, 1) == (Fraction(1, 10_000_000), Fraction(1))
    assert settle(start=2) == (Fraction(2), None)
    assert settle(end=2.5) == (Fraction(0), Fraction(5, 2))


@pytest.mark.parametrize(
    ("start", "end", "field", "minimum", "maximum"),
    [
        (-0.001, None, "start_time", 0.0, 9.96),
        (-1e300, 5, "start_time", 0.0, 9.96),
        (10, None, "start_time", 0.0, 9.96),
        (9.97, None, "start_time", 0.0, 9.96),
        (1e300, None, "start_time", 0.0, 9.96),
        (5, 2, "end_time", 5.04, 10.0),
        (5, 5, "end_time", 5.04, 10.0),
        (5.01, 5.03, "end_time", 5.08, 10.0),
        (None, 0, "end_time", 0.04, 10.0),
        (None, -3, "end_time", 0.04, 10.0),
        (None, 10.041, "end_time", 0.04, 10.0),
        (9.96, 12, "end_time", 10.0, 10.0),
    ],
)
def test_what_shows_no_frame_or_lies_outside_is_refused_with_what_would_be_taken(
    start: float | None, end: float | None, field: str, minimum: float, maximum: float
) -> None:
    said = refusal(start, end)

    assert said == {
        "field": field,
        "minimum": minimum,
        "maximum": maximum,
        "current": start if field == "start_time" else end,
    }


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused_in_words_that_json_can_carry(value: float) -> None:
    assert refusal(start=value)["current"] == str(value)
    assert refusal(start=1, end=value) == {"field": "end_time", "minimum": 1.04, "maximum": 10.0, "current": str(value)}


def test_less_than_a_frame_behind_the_end_is_the_end() -> None:
    assert settle(1, 10.03) == settle(1, 10) == (Fraction(1), Fraction(10))
    assert settle(9.96, 10.04) == (Fraction(249, 25), Fraction(10))


def test_the_last_frame_and_the_first_can_be_shown_alone() -> None:
    ntsc = Timeline(rate=Fraction(30000, 1001), frames=300)

    assert frames_of(*settle(9.976633, timeline=ntsc), ntsc) == (299, 300), "written with microseconds"
    assert frames_of(*settle(0, 0.033, timeline=ntsc), ntsc) == (0, 1)


def test_in_a_clip_times_count_from_where_it_begins_and_end_where_it_does() -> None:
    base = Edit(start=Fraction(2), end=Fraction(6))

    assert settle(base=base) == (Fraction(2), Fraction(6)), "a duplicate of it"
    assert settle(1, 3, base=base) == (Fraction(3), Fraction(5))
    assert settle(start=3.5, base=base) == (Fraction(11, 2), Fraction(6)), "never the end of the source"
    assert refusal(end=4.1, base=base)["maximum"] == 4.0
    assert refusal(start=4, base=base) == {"field": "start_time", "minimum": 0.0, "maximum": 3.96, "current": 4}


@given(start=TIMES, end=TIMES, timeline=TIMELINES, cut=st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_any_numbers_mean_frames_of_the_asset_or_are_refused_with_bounds_that_are_taken(
    start: float | None, end: float | None, timeline: Timeline, cut: tuple[float, float] | None
) -> None:
    base = _part(timeline, cut)
    low, high = frames_of(base.start, base.end, timeline) if base else (0, timeline.frames)
    try:
        first, last = frames_of(*settle(start, end, timeline=timeline, base=base), timeline)
    except PipelineError as error:
        _bounds_are_taken(error, start, end, timeline, base)
    else:
        assert low <= first < last <= high
        assert start is None or abs(first - low - exact(start) * timeline.rate) < 1
        assert end is None or last == high or abs(last - low - exact(end) * timeline.rate) < 1


def _part(timeline: Timeline, cut: tuple[float, float] | None) -> Edit | None:
    if cut is None:
        return None
    first = min(int(cut[0] * timeline.frames), timeline.frames - 1)
    end = first + 1 + int(cut[1] * (timeline.frames - first - 1))
    return Edit(start=first / timeline.rate, end=end / timeline.rate)


def _bounds_are_taken(
    error: PipelineError, start: float | None, end: float | None, timeline: Timeline, base: Edit | None
) -> None:
    assert error.code == "trim_range_invalid"
    for bound in ("minimum", "maximum"):
        value = float(error.params[bound])
        if error.params["field"] == "start_time":
            settle(value, None, timeline=timeline, base=base)
        else:
            settle(start, value, timeline=timeline, base=base)


# -- before anybody knows how long the source is ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "field"),
    [
        (-1, None, "start_time"),
        (math.nan, 3, "start_time"),
        (3, 3, "end_time"),
        (3, 2, "end_time"),
        (None, 0, "end_time"),
    ],
)
def test_what_no_source_can_show_is_refused_at_once(start: float | None, end: float | None, field: str) -> None:
    with pytest.raises(PipelineError) as caught:
        cuts.check_said(Range(start_time=start, end_time=end))
    assert (caught.value.code, caught.value.params["field"]) == ("trim_range_invalid", field)


def test_what_some_source_can_show_is_let_in() -> None:
    for start, end in ((None, None), (0, 0.001), (1e6, None), (None, 1e9)):
        cuts.check_said(Range(start_time=start, end_time=end))
