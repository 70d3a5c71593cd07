"""The control plane in random worlds: whatever goes wrong, every accepted job ends once, and the events tell no lie."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutants import MUTANTS
from worlds import World

from pipeline.errors import PipelineError
from pipeline.events import Event
from pipeline.job import IllegalMove

SEEDS = 100
"""Worlds that a mutant may survive before the test gives up on it."""


@settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_every_accepted_job_ends_once_whatever_happens(data: st.DataObject) -> None:
    """`World.run` checks the invariants of DESIGN §6 after every operation, and its event log at the end."""
    World(lambda n: data.draw(st.integers(0, n - 1))).run()


def test_the_worlds_in_which_the_mutants_are_caught_are_fair_and_full() -> None:
    """The real core lives through all of them, and they hold every way to fail and to end."""
    seen: set[tuple[str, str | None]] = set()
    for seed in range(SEEDS):
        world = _world(seed)
        world.run()
        for event in world.books.events():
            seen.add((Event.model_validate(event).name, (event["data"].get("error") or {}).get("code")))
    assert seen >= {
        ("step.retrying", "worker_lost"),
        ("step.retrying", "storage_unavailable"),
        ("step.retrying", "stalled"),
        ("step.failed", "worker_lost"),
        ("step.failed", "storage_unavailable"),
        ("step.failed", "stalled"),
        ("step.failed", "video_file_broken"),
        ("step.failed", "cancelled"),
        ("subtitle.failed", "cancelled"),
        ("asset.ready", None),
        ("asset.failed", "worker_lost"),
        ("asset.cancelled", "cancelled"),
    }


def test_one_list_of_choices_makes_one_history() -> None:
    first, second = _world(7), _world(7)
    assert first.run() == second.run()
    assert first.books.events() == second.books.events()


@pytest.mark.parametrize("name", MUTANTS)
def test_the_worlds_catch(name: str) -> None:
    """A core with this one fault does not live through the same worlds."""
    mutant = MUTANTS[name]
    for seed in range(SEEDS):
        world = World(random.Random(seed).randrange, conductor=mutant.conductor, books=mutant.books)
        try:
            world.run()
        except (AssertionError, PipelineError, IllegalMove):
            return
    pytest.fail(f"{name} lived through {SEEDS} worlds")


def _world(seed: int) -> World:
    return World(random.Random(seed).randrange)
