"""`reelway why`: what an operator is told, from a real record on a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from builders import some_ingest_facts
from redis_server import RedisServer
from stories import Teller

from pipeline.conductor import Answer
from pipeline.errors import PipelineError
from pipeline.job import Commit, Job, Ref
from pipeline.organizations import Organization, Organizations
from workers.commands.reasons import over, reasons
from workers.commands.show import asked
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
    def control(self) -> Any:
        return SimpleNamespace(
            store=self.teller.store,
            registry=self.registry,
            progress=RedisProgress(self.client),
            organizations=self.organizations,
        )

    @property
    def said(self) -> str:
        job = self.teller.store.job(self.job.id)
        assert isinstance(job, Job)
        return "\n".join(reasons(self.control, job))


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


def test_nothing_is_open_and_the_last_job_ended_well(fleet: Fleet) -> None:
    fleet.teller.tell(2)
    record = fleet.teller.store.asset("asset000002")
    assert record is not None

    said = over("asset000002", record.document, fleet.teller.store.job("job-2"))

    assert said == ["Nothing of asset000002 is open: it is Completed."]


def test_an_asset_plays_though_its_last_job_failed(fleet: Fleet) -> None:
    """A trim that failed changes nothing of the asset, so the document does not tell of it."""
    fleet.teller.tell(2)
    record = fleet.teller.store.asset("asset000002")
    assert record is not None
    failed = replace(fleet.job, kind="trim", number=58, error=PipelineError("cancelled").document())

    said = " ".join(over("asset000002", record.document, failed))

    assert "it is Completed. Its last job (trim 58) ended with cancelled: " in said


def test_a_trim_waits_for_the_one_before_it(fleet: Fleet) -> None:
    store = fleet.teller.store
    for number, created_ms in ((1, 1000), (2, 2000), (3, 3000), (4, 4000)):
        trim = replace(fleet.job, id=f"trim-{number}", kind="trim", number=number, created_ms=created_ms)
        store.commit(Commit(job=trim.id, asset=trim.asset, new=True, header=trim, steps=trim.steps, rank=created_ms))
    waiting = store.job("trim-2")
    assert waiting is not None

    said = "\n".join(reasons(fleet.control, waiting))

    assert "Job trim-2 (trim 2) is active" in said
    assert "It waits for trim 1 (job trim-1), which was asked for before it." in said
    assert "trim 3" not in said
    assert fleet.teller.conductor.begin(Ref(job="trim-3", step="ingest"), "box-7") is None
    postponed = store.job("trim-3")
    assert postponed is not None

    assert reasons(fleet.control, postponed)[1:] == [
        "It waits for trim 1 (job trim-1), which was asked for before it."
    ], "who is first is enough, and that it looks again later says nothing"


@pytest.mark.parametrize(
    ("kind", "number", "request_", "words"),
    [
        ("process", None, {}, "process"),
        ("trim", 58, {"start_time": 5.0}, "trim 58"),
        ("trim", None, {"preview": True}, "preview of a trim"),
        ("roll_back", None, {"version": 2}, "revert to 2"),
        ("revert_trim", None, {}, "revert"),
        ("clip", None, {"asset_id": "k3v9x0q2m7a", "new_id": "theclip0001"}, "clip of k3v9x0q2m7a"),
    ],
)
def test_a_job_is_told_by_what_was_asked_for(
    kind: str, number: int | None, request_: dict[str, Any], words: str
) -> None:
    assert asked(kind, number, request_) == words
