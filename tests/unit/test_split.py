"""The cut of the picture's work: quick where the fleet is large, cheap where it is not."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import plan
from pipeline.profile import load_profiles
from pipeline.requests import ProcessRequest
from pipeline.split import DEARER, MAX_STEPS, cost, makespan, split
from pipeline.tasks import Blueprint, IngestFacts
from tests.unit.test_plan import media
from workers.settings import Settings

LADDER = ("1080p", "720p", "480p", "360p", "240p")


def drawn(seconds: int, *, seekable: bool = True) -> Blueprint:
    request = ProcessRequest(url="/films/a.mp4", resolutions=LADDER)
    profile = load_profiles(Settings().profiles_dir)["default"]
    return plan.blueprint(IngestFacts(media=media(seconds, seekable=seekable), encoder="x"), profile, request)


def time_to_ready(seconds: int, workers: int) -> float:
    blueprint = drawn(seconds)
    return makespan([cost(blueprint, part) for part in split(blueprint, workers)], workers)


def work(seconds: int, workers: int) -> float:
    blueprint = drawn(seconds)
    return sum(cost(blueprint, part) for part in split(blueprint, workers))


@settings(deadline=None)
@given(st.integers(1, 20_000), st.sampled_from([1, 2, 3, 7, 40, 500, 10_000]))
def test_every_segment_of_every_rung_lies_in_one_part(seconds: int, workers: int) -> None:
    blueprint = drawn(seconds)

    parts = split(blueprint, workers)

    made = sorted(
        (n, rung.name) for part in parts for rung in part.rungs for n in range(part.chunk.first, part.chunk.last)
    )
    assert made == sorted((n, rung.name) for n in range(-(-seconds // 4)) for rung in blueprint.rungs)
    assert sum(Fraction(part.chunk.seconds) * len(part.rungs) for part in parts) == seconds * len(blueprint.rungs)
    assert len(parts) <= MAX_STEPS


@pytest.mark.parametrize("seconds", [5, 60, 600, 3600])
def test_a_larger_fleet_is_never_slower(seconds: int) -> None:
    times = [time_to_ready(seconds, workers) for workers in (1, 2, 4, 8, 16, 64, 256, 1024)]

    assert all(later <= earlier * 1.04 for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize(("seconds", "workers"), [(60, 2), (60, 15), (600, 20), (3600, 100), (3600, 900)])
def test_nobody_waits_long_for_the_last(seconds: int, workers: int) -> None:
    """The time is near what it would be if the work could be cut anywhere at no cost."""
    assert time_to_ready(seconds, workers) <= 1.25 * work(seconds, 1) / workers


def test_a_short_video_uses_a_large_fleet() -> None:
    """Ten seconds on many cores: a segment and a few rungs a step."""
    assert time_to_ready(10, 100) < 0.2 * time_to_ready(10, 1)


def test_speed_is_not_bought_at_any_price() -> None:
    """Every group of rungs decodes the source again; a fleet has other assets as well."""
    assert all(work(seconds, 10_000) <= DEARER * work(seconds, 1) for seconds in (5, 60, 600))


def test_on_one_worker_nothing_is_cut_finely() -> None:
    assert [part.chunk.last - part.chunk.first for part in split(drawn(160), 1)] == [4] * 10


def test_only_the_last_chunk_is_shared_where_that_evens_it_out() -> None:
    parts = split(drawn(60), 2)

    assert [len(part.rungs) for part in parts[:-2]] == [5] * (len(parts) - 2)
    assert sum(len(part.rungs) for part in parts[-2:]) == 5


def test_a_source_that_cannot_be_seeked_is_never_cut_in_time() -> None:
    parts = split(drawn(600, seekable=False), 50)

    assert {(part.chunk.first, part.chunk.last) for part in parts} == {(0, 150)}
    assert len(parts) > 1


@pytest.mark.parametrize(
    ("costs", "workers", "seconds"), [([3, 1, 1, 1], 2, 3), ([1, 1, 1, 3], 2, 4), ([5], 8, 5), ([], 3, 0)]
)
def test_the_makespan_is_that_of_taking_the_next_step_in_order(
    costs: list[float], workers: int, seconds: float
) -> None:
    assert makespan(costs, workers) == seconds
