"""The output grid, over every rate, segment length and cut."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.media.timeline import (
    AAC_FRAME,
    JITTER_S,
    audio_frames,
    audio_segment_starts,
    chunk_range,
    keyframes,
    sampling,
    segment_starts,
)
from pipeline.tasks import Timeline, VideoStream

STANDARD = [Fraction(n) for n in (24, 25, 30, 48, 50, 60)] + [Fraction(n * 1000, 1001) for n in (24, 30, 48, 60)]
RATES = st.one_of(
    st.sampled_from([*STANDARD, Fraction(25, 2), Fraction(15)]),
    st.fractions(min_value=1, max_value=60, max_denominator=1001),
)
SECONDS = st.fractions(min_value=Fraction(1, 2), max_value=12, max_denominator=10)
GRIDS = st.builds(
    Timeline,
    rate=RATES,
    frames=st.integers(1, 900),
    segment=SECONDS,
    keyframe=SECONDS,
    cuts=st.lists(st.fractions(min_value=0, max_value=40, max_denominator=1000), max_size=5).map(tuple),
)


@settings(deadline=None, max_examples=50)
@given(GRIDS)
def test_every_frame_belongs_to_exactly_one_segment(timeline: Timeline) -> None:
    ranges = [chunk_range(timeline, index, index + 1) for index in range(len(segment_starts(timeline)))]
    assert all(first < end for first, end in ranges)
    assert [first for first, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
    assert ranges[-1][1] == timeline.frames


@settings(deadline=None, max_examples=50)
@given(GRIDS)
def test_a_segment_starts_at_the_first_frame_that_is_not_before_its_time(timeline: Timeline) -> None:
    starts = set(segment_starts(timeline))
    wanted: list[Fraction] = [k * timeline.segment for k in range(math.ceil(timeline.duration / timeline.segment))]
    for time in [*wanted, *timeline.cuts]:
        after = [n for n in (math.floor(time * timeline.rate) + i for i in range(3)) if n / timeline.rate >= time]
        assert min(after) in starts or min(after) >= timeline.frames


@settings(deadline=None, max_examples=50)
@given(GRIDS)
def test_segments_start_with_a_keyframe_and_keyframes_are_never_further_apart(timeline: Timeline) -> None:
    forced = keyframes(timeline)
    assert forced[0] == 0
    assert set(segment_starts(timeline)) <= set(forced)
    longest = math.ceil(max(timeline.keyframe * timeline.rate, Fraction(1)))
    ends = (*forced[1:], timeline.frames)
    assert all(0 < b - a <= longest for a, b in zip(forced, ends, strict=True))


@settings(deadline=None, max_examples=50)
@given(GRIDS, st.integers(1, 900))
def test_the_grid_of_a_longer_video_begins_like_that_of_a_shorter_one(timeline: Timeline, frames: int) -> None:
    """Boundaries are absolute: what comes later changes none of them."""
    other = replace(timeline, frames=frames)
    common = min(frames, timeline.frames)
    for function in (segment_starts, keyframes):
        assert [n for n in function(timeline) if n < common] == [n for n in function(other) if n < common]


def test_segments_of_2997_alternate_rather_than_drift() -> None:
    timeline = Timeline(rate=Fraction(30000, 1001), frames=3000)
    starts = segment_starts(timeline)
    assert starts[:4] == (0, 120, 240, 360)
    assert all(n / timeline.rate - 4 * k < 1 / timeline.rate for k, n in enumerate(starts))


def test_a_cut_is_one_more_segment_and_a_keyframe() -> None:
    timeline = Timeline(rate=Fraction(25), frames=300, cuts=(Fraction("5.01"),))
    assert segment_starts(timeline) == (0, 100, 126, 200)
    assert keyframes(timeline) == (0, 50, 100, 126, 150, 200, 250)
    assert chunk_range(timeline, 1, 3) == (100, 200)


@pytest.mark.parametrize(("first", "last"), [(0, 0), (-1, 1), (2, 4), (1, 1)])
def test_there_are_no_segments_outside_of_the_grid(first: int, last: int) -> None:
    with pytest.raises(IndexError):
        chunk_range(Timeline(rate=Fraction(25), frames=300), first, last)


@settings(deadline=None, max_examples=50)
@given(GRIDS)
def test_sound_covers_the_picture_and_starts_segments_less_than_a_frame_after_it(timeline: Timeline) -> None:
    frame = Fraction(AAC_FRAME, 48000)
    count = audio_frames(timeline, 48000)
    assert timeline.duration <= count * frame < timeline.duration + frame
    starts = audio_segment_starts(timeline, 48000)
    assert starts[0] == 0
    assert starts[-1] < count
    pictures = [n / timeline.rate for n in segment_starts(timeline)]
    for start in starts:
        nearest = max(picture for picture in pictures if picture <= start * frame)
        assert start * frame - nearest < frame


def test_an_asset_of_sound_alone_counts_in_aac_frames() -> None:
    timeline = Timeline(rate=Fraction(48000, AAC_FRAME), frames=500)
    assert audio_segment_starts(timeline, 48000) == segment_starts(timeline)


# -- which source frame is shown ---------------------------------------------------------------------------------------


def _stream(rate: Fraction, *, start: Fraction = Fraction(0), constant: bool = True, frames: int = 100) -> VideoStream:
    return VideoStream(
        index=0,
        codec="h264",
        width=320,
        height=180,
        rate=rate,
        constant=constant,
        frames=frames,
        start=start,
        end=start + frames / rate,
    )


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from(STANDARD),
    st.sampled_from([Fraction(1, 1000), Fraction(1, 90000), Fraction(1, 12800)]),
    st.fractions(min_value=0, max_value=3, max_denominator=977),
    st.fractions(min_value=0, max_value=2, max_denominator=991),
)
def test_a_constant_rate_maps_one_to_one_however_its_timestamps_are_rounded(
    rate: Fraction, tick: Fraction, start: Fraction, later: Fraction
) -> None:
    """Wherever the sound starts before the picture, by whatever part of a frame."""
    pts = [round((start + later + n / rate) / tick) * tick for n in range(200)]
    grid = Timeline(rate=rate, frames=400, start=start)
    places = sampling(_stream(rate, start=pts[0]), grid, tick)
    first = places.first_shown(pts[0])
    assert [places.first_shown(time) for time in pts] == list(range(first, first + 200))
    assert abs(first - later * rate) <= Fraction(1, 2) + tick * rate


@settings(deadline=None, max_examples=50)
@given(st.sampled_from([(100, 2), (120, 2), (240, 4)]), st.sampled_from([Fraction(1, 1000), Fraction(1, 90000)]))
def test_a_high_rate_keeps_every_nth_frame(rates: tuple[int, int], tick: Fraction) -> None:
    rate, divisor = rates
    pts = [round(Fraction(n, rate) / tick) * tick for n in range(200)]
    grid = Timeline(rate=Fraction(rate, divisor), frames=100)
    places = sampling(_stream(Fraction(rate)), grid, tick)
    last = {places.first_shown(time): index for index, time in enumerate(pts)}
    assert [last[n] for n in range(50)] == [n * divisor for n in range(50)]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(1, 40_000), min_size=1, max_size=60),
    st.sampled_from([Fraction(24), Fraction(30000, 1001), Fraction(60)]),
)
def test_a_variable_rate_shows_the_last_frame_that_is_not_later(distances: list[int], rate: Fraction) -> None:
    tick = Fraction(1, 90_000)
    pts = [sum(distances[:n]) * tick for n in range(len(distances) + 1)]
    places = sampling(_stream(rate, constant=False), Timeline(rate=rate, frames=9000), tick)
    for number in range(0, math.ceil(pts[-1] * rate) + 2):
        shown = max((i for i, time in enumerate(pts) if places.first_shown(time) <= number), default=0)
        truth = max(i for i, time in enumerate(pts) if time <= number / rate + JITTER_S)
        assert shown == truth


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(STANDARD), st.integers(0, 500))
def test_the_source_time_of_a_frame_is_where_it_is_found(rate: Fraction, number: int) -> None:
    places = sampling(_stream(rate, start=Fraction(1, 7)), Timeline(rate=rate, frames=900), Fraction(1, 90_000))
    assert places.first_shown(places.source_time(number)) <= number
    assert (
        places.first_shown(places.source_time(number) + 1 / rate) == places.first_shown(places.source_time(number)) + 1
    )
