"""When a worker that ends by itself has nothing left to do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from builders import a_profile, a_request
from redis_server import RedisServer, running_server

from pipeline import plan
from pipeline.conductor import Attempt, Conductor
from pipeline.errors import PipelineError
from pipeline.job import Ref
from pipeline.memory import SystemClock
from pipeline.requests import STREAM, DeleteRequest
from workers.drain import Remainder
from workers.redis_jobs import RedisJobStore

INGEST = Ref(job="request-1", step="ingest")


class Fleet:
    """A store with at most one job, whose first step is `ingest`."""

    def __init__(self, server: RedisServer) -> None:
        self.store = RedisJobStore(server.client())
        self.conductor = Conductor(self.store, SystemClock(), plan, {"default": a_profile()})

    def left(self, *stages: str, requests: bool = True) -> bool:
        return not Remainder(self.store, stages or ("ingest",), requests=requests).none()

    def begin(self) -> Attempt:
        self.store.take({"ingest": 1})
        attempt = self.conductor.begin(INGEST, "w")
        assert attempt is not None
        return attempt


@pytest.fixture
def fleet(redis_server: RedisServer) -> Iterator[Fleet]:
    made = Fleet(redis_server)
    with made.store.client:
        yield made


def test_an_empty_fleet_has_nothing_left(fleet: Fleet) -> None:
    assert not fleet.left()


def test_what_is_ready_is_left_for_its_own_stage_alone(fleet: Fleet) -> None:
    fleet.conductor.accept(a_request())

    assert fleet.left("ingest", "audio")
    assert not fleet.left("audio")


def test_what_runs_is_left_because_more_may_come_of_it(fleet: Fleet) -> None:
    fleet.conductor.accept(a_request())
    fleet.begin()

    assert fleet.left()


def test_what_waits_for_its_retry_is_left_because_nobody_else_would_wake_it(fleet: Fleet) -> None:
    fleet.conductor.accept(a_request())
    fleet.conductor.fail(fleet.begin(), PipelineError("storage_unavailable", reason="for a while"))

    assert fleet.left()
    assert not fleet.left("audio")


def test_what_failed_for_good_is_not_left(fleet: Fleet) -> None:
    fleet.conductor.accept(a_request())
    fleet.conductor.fail(fleet.begin(), PipelineError("video_file_broken"))

    assert not fleet.left()


def test_nobody_waits_for_what_is_paused_or_held(fleet: Fleet) -> None:
    job = fleet.conductor.accept(a_request())
    fleet.store.pause("ingest", True)
    assert not fleet.left()

    fleet.store.pause("ingest", False)
    assert fleet.left()
    fleet.conductor.hold(job.id)
    assert not fleet.left()


def test_a_request_that_nobody_has_answered_is_left_for_those_who_answer(fleet: Fleet) -> None:
    entry = fleet.store.client.xadd(STREAM, {"request": "{}"})

    assert fleet.left("audio")
    assert not fleet.left("audio", requests=False)
    fleet.store.client.xdel(STREAM, entry)
    assert not fleet.left("audio")


def test_a_deletion_is_left_until_it_is_done(fleet: Fleet) -> None:
    fleet.conductor.accept(a_request())
    fleet.conductor.fail(fleet.begin(), PipelineError("video_file_broken"))
    deletion = fleet.conductor.accept(DeleteRequest(id="delete-1", ids=("asset000001",)))
    assert fleet.left("audio")

    fleet.conductor.tidied(deletion)

    assert not fleet.left("audio")


def test_a_redis_that_is_away_has_not_said_that_nothing_is_left() -> None:
    with running_server() as server:
        fleet = Fleet(server)
        server.kill()

        assert fleet.left()
