"""Rates come from timestamps, and the frames of a constant source map one to one to the output grid."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.media.rates import STANDARD, measure, output_rate, snap, timeline_of
from pipeline.media.timeline import keyframes, sampling, segment_starts
from pipeline.tasks import AudioStream, MediaInfo, Timeline, VideoStream

MS = Fraction(1, 1000)
NTSC = Fraction(30000, 1001)


def grid(rate: Fraction, count: int, time_base: Fraction, first: int = 0) -> list[int]:
    """Timestamps of a constant source as a container with this time base rounds them."""
    return [first + round(n / rate / time_base) for n in range(count)]


def video(
    *, rate: Fraction = Fraction(25), frames: int = 100, start: Fraction = Fraction(0), constant: bool = True
) -> VideoStream:
    return VideoStream(
        index=0,
        codec="h264",
        width=1280,
        height=720,
        rate=rate,
        constant=constant,
        frames=frames,
        start=start,
        end=start + frames / rate,
    )


def sound(start: Fraction, end: Fraction) -> AudioStream:
    return AudioStream(index=1, codec="aac", channels=2, layout="stereo", sample_rate=48000, start=start, end=end)


def media(picture: VideoStream | None, *sounds: AudioStream) -> MediaInfo:
    streams = [*([picture] if picture else []), *sounds]
    start, end = min(s.start for s in streams), max(s.end for s in streams)
    return MediaInfo(format="mov", size=1, duration=end - start, start=start, video=picture, audio=sounds)


def grid_of(source: MediaInfo) -> Timeline:
    return timeline_of(source, segment=Fraction(4), keyframe=Fraction(2))


@pytest.mark.parametrize(
    ("rate", "snapped"),
    [
        (Fraction(2997, 100), NTSC),
        (Fraction(23976, 1000), Fraction(24000, 1001)),
        (Fraction(299, 10), NTSC),
        (Fraction(298, 10), Fraction(298, 10)),
        (Fraction(1000001, 1000000), Fraction(1)),
        (Fraction(125, 10), Fraction(25, 2)),
    ],
)
def test_a_rate_within_half_a_percent_of_a_standard_one_is_that_one(rate: Fraction, snapped: Fraction) -> None:
    assert snap(rate) == snapped


@pytest.mark.parametrize(
    ("rate", "output"),
    [
        (Fraction(60), Fraction(60)),
        (Fraction(50), Fraction(50)),
        (Fraction(100), Fraction(50)),
        (Fraction(120), Fraction(60)),
        (Fraction(11988, 100), Fraction(60000, 1001)),
        (Fraction(90), Fraction(45)),
        (Fraction(240), Fraction(60)),
        (Fraction(1000), Fraction(1000, 17)),
    ],
)
def test_above_sixty_the_rate_is_divided_by_the_smallest_integer_that_fits(rate: Fraction, output: Fraction) -> None:
    assert output_rate(rate) == output


@given(rate=st.sampled_from(STANDARD), count=st.integers(2, 400), first=st.integers(-5000, 5000))
def test_milliseconds_do_not_hide_a_constant_rate(rate: Fraction, count: int, first: int) -> None:
    """Matroska rounds to milliseconds; the number of frames on the grid of the measured rate stays the source's."""
    measured, constant = measure(grid(rate, count, MS, first), MS, rate)
    assert constant
    assert abs(count / measured - count / rate) < Fraction(1, 2) / rate


@given(rate=st.sampled_from(STANDARD), count=st.integers(2, 400))
def test_exact_timestamps_give_the_exact_rate(rate: Fraction, count: int) -> None:
    assert measure(grid(rate, count, 1 / rate), 1 / rate) == (rate, True)


@given(rate=st.fractions(min_value=1, max_value=60, max_denominator=1001), count=st.integers(2, 400))
@example(rate=Fraction(791, 53), count=124)
def test_odd_constant_rates_are_constant_too(rate: Fraction, count: int) -> None:
    measured, constant = measure(grid(rate, count, Fraction(1, 90_000)), Fraction(1, 90_000))
    assert constant
    last = count - 1
    assert abs(last / measured - last / rate) <= Fraction(1, 2) / rate


def test_a_header_of_1000_fps_is_not_believed() -> None:
    assert measure(grid(NTSC, 300, MS), MS, Fraction(1000)) == (NTSC, True)


def test_twelve_hours_of_an_odd_clock_do_not_drift() -> None:
    """A phone's clock: 30.0004 fps. The nearest simple fraction would be a frame away after an hour."""
    rate, count = Fraction(300_004, 10_000), 200_000
    measured, constant = measure(grid(rate, count, Fraction(1, 90_000)), Fraction(1, 90_000))
    assert constant
    last = count - 1
    assert abs(last / measured - last / rate) <= Fraction(1, 2) / rate
    assert measured.denominator <= 100_000


def test_a_few_late_frames_leave_a_source_constant() -> None:
    pts = grid(Fraction(25), 1000, MS)
    pts[500] += 30
    assert measure(pts, MS) == (Fraction(25), True)


def test_a_dropped_frame_makes_the_rate_vary_but_leaves_it_known() -> None:
    pts = grid(NTSC, 1000, MS)
    del pts[300:303]
    assert measure(pts, MS) == (NTSC, False)


@pytest.mark.parametrize("missing", [30, 31, 100, 101])
def test_film_in_fields_with_a_hole_loses_no_frame(missing: int) -> None:
    """Shown for three fields and two in turn, it has two typical distances; a grid of the longer one is too coarse."""
    times = [round(Fraction(5 * n + n % 2, 2) * 1501.5) for n in range(400)]
    del times[missing], times[missing + 50]
    rate, constant = measure(times, Fraction(1, 90_000))
    places = sampling(video(rate=rate, constant=constant), Timeline(rate=rate, frames=1000), Fraction(1, 90_000))
    assert (rate, constant) == (NTSC, False)
    assert len({places.first_shown(ticks * Fraction(1, 90_000)) for ticks in times}) == len(times)


def test_a_variable_rate_is_the_standard_one_of_its_typical_distance() -> None:
    """A screen recording: bursts of 60 fps between holds of seconds."""
    pts = [hold * 5000 + round(n * 1000 / 60) for hold in range(10) for n in range(60)]
    assert measure(pts, MS) == (Fraction(60), False)


@pytest.mark.parametrize("distances", [[1, 1, 90, 1, 1], [9000, 20_000, 4000]])
def test_a_variable_rate_stays_sane(distances: list[int]) -> None:
    pts = [sum(distances[:n]) for n in range(len(distances) + 1)]
    rate, constant = measure(pts, MS)
    assert not constant
    assert 10 <= rate <= 120


@pytest.mark.parametrize(("declared", "rate"), [(Fraction(2997, 100), NTSC), (None, 25), (Fraction(90_000), 25)])
def test_a_single_frame_has_the_rate_of_its_header_if_that_is_sane(declared: Fraction | None, rate: Fraction) -> None:
    assert measure([7], MS, declared) == (rate, True)


@given(
    rate=st.sampled_from([rate for rate in STANDARD if rate <= 60]),
    frames=st.integers(1, 5000),
    early=st.fractions(0, Fraction(1, 2), max_denominator=50),
)
def test_a_constant_source_keeps_its_frames(rate: Fraction, frames: int, early: Fraction) -> None:
    """Also where the sound begins up to half a frame before the picture."""
    picture = video(rate=rate, frames=frames, start=Fraction(3))
    begin = picture.start - early / rate
    grid = grid_of(media(picture, sound(begin, begin + frames / rate)))
    assert (grid.rate, grid.frames, grid.start) == (rate, frames, begin)


def test_a_rate_that_is_only_near_a_standard_one_keeps_its_frames() -> None:
    """29.833 lies within 0.5 % of 29.97, but forty seconds of it have six frames fewer."""
    grid = grid_of(media(video(rate=Fraction(179, 6), frames=1189)))
    assert (grid.rate, grid.frames) == (Fraction(179, 6), 1189)


@pytest.mark.parametrize(("rate", "frames"), [(100, 500), (120, 601), (240, 999)])
def test_a_fast_source_keeps_its_duration(rate: int, frames: int) -> None:
    grid = grid_of(media(video(rate=Fraction(rate), frames=frames)))
    assert grid.rate <= 60
    assert abs(grid.duration - Fraction(frames, rate)) <= 1 / grid.rate


def test_a_late_picture_has_its_first_frame_held() -> None:
    picture = video(frames=100, start=Fraction(1))
    grid = grid_of(media(picture, sound(Fraction(0), Fraction(5))))
    assert (grid.start, grid.frames) == (0, 125)
    assert sampling(picture, grid, MS).first_shown(picture.start) == 25


def test_sound_that_lasts_longer_holds_the_last_frame() -> None:
    assert grid_of(media(video(frames=100), sound(Fraction(0), Fraction(9)))).frames == 225


def test_a_little_more_sound_is_cut() -> None:
    assert grid_of(media(video(frames=100), sound(Fraction(0), Fraction(9, 2)))).frames == 100


def test_a_hold_at_the_end_of_a_picture_counts() -> None:
    held = replace(video(frames=10), end=Fraction(5))
    assert grid_of(media(held)).frames == 125


def test_a_variable_source_covers_its_whole_duration() -> None:
    picture = replace(video(frames=7, constant=False), end=Fraction(10))
    assert grid_of(media(picture)).duration == 10


def test_sound_alone_counts_aac_frames() -> None:
    grid = grid_of(media(None, sound(Fraction(1), Fraction(11))))
    assert (grid.rate, grid.frames, grid.start) == (Fraction(48000, 1024), 469, 1)


def test_a_very_slow_source_has_a_frame_for_every_keyframe() -> None:
    """One slide in ten seconds: shown five times, so that every segment has a picture to begin with."""
    grid = grid_of(media(video(rate=Fraction(1, 10), frames=6)))
    assert (grid.rate, grid.frames) == (Fraction(1, 2), 30)
    assert segment_starts(grid) == tuple(range(0, 30, 2))
    assert keyframes(grid) == tuple(range(30))


def test_cuts_go_into_the_grid() -> None:
    grid = timeline_of(media(video()), segment=Fraction(4), keyframe=Fraction(2), cuts=[Fraction(1)])
    assert segment_starts(grid) == (0, 25)
