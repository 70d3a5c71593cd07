"""`reelway why`: what an operator is told, from a real record on a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from builders import some_ingest_facts
from redis_server import RedisServer
from stories import Teller

from pipeline.conductor import Answer
from pipeline.errors import PipelineError
from pipeline.job import Job, Ref
from pipeline.organizations import Organization, Organizations
from workers.commands.reasons import reasons
from workers.progress import RedisProgress
from workers.registry import Registry, WorkerRecord


class Fleet:
    """A job that waits for somebody."""

    def __init__(self, server: RedisServer) -> None:
        self.client = server.client()
        self.teller = Teller(self.client)
        self.registry = Registry(self.client)
        self.organizations = Organizations()
        self.job = self.teller.accept(1)

    def has_worker(self, **changes: Any) -> None:
        record = {"name": "box-7", "host": "box", "pid": 7, "stages": ("ingest", "package"), "slots": 1, **changes}
        self.registry.beat(WorkerRecord(**record))

    @property
    def said(self) -> str:
        job = self.teller.store.job(self.job.id)
        assert isinstance(job, Job)
        control: Any = SimpleNamespace(
            store=self.teller.store,
            registry=self.registry,
            progress=RedisProgress(self.client),
            organizations=self.organizations,
        )
        return "\n".join(reasons(control, job))


@pytest.fixture
def fleet(redis_server: RedisServer) -> Iterator[Fleet]:
    made = Fleet(redis_server)
    yield made
    made.client.close()


def test_no_worker_for_the_stage(fleet: Fleet) -> None:
    fleet.has_worker(stages=("package",))

    assert "ingest may begin, but no worker for ingest is there: start `reelway worker --stages ingest`." in fleet.said


def test_a_worker_is_there_and_nothing_stands_in_the_way(fleet: Fleet) -> None:
    fleet.has_worker()

    assert "ready at this stage: 1 standard (it is standard)" in fleet.said
    assert "no worker" not in fleet.said


def test_the_stage_is_paused(fleet: Fleet) -> None:
    fleet.has_worker()
    fleet.teller.store.pause("ingest", True)

    assert "ingest is paused: `reelway queues resume ingest`" in fleet.said


def test_it_is_held(fleet: Fleet) -> None:
    fleet.teller.conductor.hold(fleet.job.id)

    assert f"none of its steps begins until `reelway release {fleet.job.asset}`" in fleet.said


def test_it_found_no_room(fleet: Fleet) -> None:
    fleet.has_worker(refused={f"{fleet.job.id}/ingest": "memory: 900 MB needed, 200 MB free"})

    assert "box-7 found no room for it: memory: 900 MB needed, 200 MB free." in fleet.said


def test_its_organization_has_a_limit(fleet: Fleet) -> None:
    fleet.has_worker()
    fleet.organizations = Organizations(default=Organization(max_running_steps=2))

    assert "Of default at most 2 steps run at once." in fleet.said


def test_it_runs(fleet: Fleet) -> None:
    fleet.has_worker()
    fleet.teller.conductor.begin(Ref(job=fleet.job.id, step="ingest"), "box-7")

    assert "ingest runs on box-7 since " in fleet.said


def test_it_tries_again(fleet: Fleet) -> None:
    attempt = fleet.teller.conductor.begin(Ref(job=fleet.job.id, step="ingest"), "box-7")
    assert attempt is not None
    fleet.teller.conductor.fail(attempt, PipelineError("storage_unavailable", reason="timeout"))

    assert "ingest tries again by itself since " in fleet.said
    assert "because of storage_unavailable: The storage does not answer (timeout)." in fleet.said


def test_it_waits_for_another_step(fleet: Fleet) -> None:
    attempt = fleet.teller.conductor.begin(Ref(job=fleet.job.id, step="ingest"), "box-7")
    assert attempt is not None
    fleet.teller.conductor.finish(attempt, Answer(ingest=some_ingest_facts(), source="private/a.mp4"))

    assert "1 of 2 steps are done" in fleet.said
    assert "package may begin" in fleet.said
