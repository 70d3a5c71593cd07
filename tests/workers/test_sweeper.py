"""The sweeper: what nobody else looks after is looked after, whatever stands before it."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from builders import a_request
from memory_fleet import MemoryFleet

from pipeline.conductor import LEASE_S, TIDY_DUE_S
from pipeline.errors import PipelineError
from pipeline.job import READY_DUE_S, SCHEMA, Job, JobStatus, Ref, Status
from pipeline.memory import GRACE_S
from workers.redis_jobs import DUE
from workers.sweeper import Sweeper

PATIENCE_S = 20.0
BATCH = 5


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.sweeper.BATCH", BATCH)


def a_sweeper(fleet: MemoryFleet) -> Sweeper:
    return Sweeper(fleet.conductor, fleet.switchboard, lambda _job: None)


def begun(fleet: MemoryFleet, number: int) -> Ref:
    """A job of its own, with a step that has begun."""
    fleet.conductor.accept(a_request(id=f"request-{number}", asset_id=f"asset{number:06d}"))
    attempt = fleet.conductor.begin(Ref(job=f"request-{number}", step="s0"), "worker")
    assert attempt is not None
    return attempt.ref


def status(fleet: MemoryFleet, ref: Ref) -> Status:
    job = fleet.store.job(ref.job)
    assert job is not None
    return job.steps[ref.step].status


def test_it_lets_the_conductor_look_at_what_is_due() -> None:
    fleet = MemoryFleet()
    ref = begun(fleet, 1)
    sweeper = a_sweeper(fleet)
    assert sweeper.sweep() == 0
    fleet.live(GRACE_S + LEASE_S)
    assert sweeper.sweep() == 1
    assert status(fleet, ref) is Status.READY
    assert fleet.store.take({"transcode": 9}) == [ref]


def test_a_lost_ticket_costs_it_nothing() -> None:
    fleet = MemoryFleet()
    fleet.conductor.accept(a_request())
    (ref,) = fleet.store.take({"transcode": 9})
    fleet.live(READY_DUE_S + 1)
    assert a_sweeper(fleet).sweep() == 0
    assert fleet.store.take({"transcode": 9}) == [ref]


def test_sweepers_share_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = MemoryFleet()
    refs = [begun(fleet, number) for number in range(BATCH + 2)]
    fleet.live(GRACE_S + LEASE_S)
    looked: list[Ref] = []
    sweep = fleet.conductor.sweep

    def watched(ref: Ref) -> Job | None:
        looked.append(ref)
        return sweep(ref)

    monkeypatch.setattr(fleet.conductor, "sweep", watched)
    assert [a_sweeper(fleet).sweep() for _ in range(3)] == [BATCH, 2, 0]
    assert sorted(looked, key=str) == sorted(refs, key=str), "each was looked at once"


@pytest.mark.parametrize("poison", ["newer", "unreadable"])
def test_what_nobody_can_decide_holds_up_nobody(poison: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of it than a batch, all of it overdue for longer than the step whose worker was lost."""
    fleet = MemoryFleet()
    for number in range(BATCH + 2):
        ref = begun(fleet, number)
        job = fleet.store.job(ref.job)
        assert job is not None
        if poison == "newer":
            fleet.store._jobs[ref.job] = replace(job, schema=SCHEMA + 1)
    read, spoilt = fleet.store.job, set(fleet.store._jobs)

    def unreadable(job_id: str) -> Job | None:
        if job_id in spoilt:
            raise ValueError("not a record")
        return read(job_id)

    if poison == "unreadable":
        monkeypatch.setattr(fleet.store, "job", unreadable)
    fleet.live(1)
    lost = begun(fleet, 999)
    fleet.live(GRACE_S + LEASE_S)
    sweeper = a_sweeper(fleet)
    assert [sweeper.sweep() for _ in range(3)] == [BATCH, 3, 0]
    assert status(fleet, lost) is Status.READY
    fleet.live(60)
    assert sweeper.sweep() == BATCH, "nothing was forgotten"


def test_an_ended_job_is_tidied_by_one_sweeper_and_then_left_alone() -> None:
    fleet = MemoryFleet()
    tidied: list[Job] = []
    fleet.conductor.accept(a_request())
    fleet.conductor.cancel("request-1")
    sweepers = [Sweeper(fleet.conductor, fleet.switchboard, tidied.append) for _ in range(3)]
    for sweeper in sweepers:
        sweeper.sweep()
    assert [(job.id, job.status) for job in tidied] == [("request-1", JobStatus.CANCELLED)]
    fleet.live(300)
    assert [sweeper.sweep() for sweeper in sweepers] == [0, 0, 0]


def test_a_tidying_that_fails_is_tried_again_later_and_holds_up_nobody() -> None:
    fleet = MemoryFleet()
    tidied: list[str] = []

    def tidy(job: Job) -> None:
        tidied.append(job.id)
        if len(tidied) == 1:
            raise PipelineError("storage_unavailable", reason="test")

    for number in ("1", "2"):
        fleet.conductor.accept(a_request(id=f"request-{number}", asset_id=f"asset00000{number}"))
        fleet.conductor.cancel(f"request-{number}")
    sweeper = Sweeper(fleet.conductor, fleet.switchboard, tidy)
    sweeper.sweep()
    assert tidied == ["request-1", "request-2"]
    fleet.live(TIDY_DUE_S - 10)
    sweeper.sweep()
    assert len(tidied) == 2
    fleet.live(20)
    sweeper.sweep()
    assert tidied == ["request-1", "request-2", "request-1"]


def test_a_ring_wakes_the_sweeper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.sweeper.LOOK_S", 1e6)
    fleet, done = MemoryFleet(), threading.Event()
    sweeper = Sweeper(fleet.conductor, fleet.switchboard, lambda _job: done.set())
    sweeper.start()
    fleet.conductor.accept(a_request())
    fleet.conductor.cancel("request-1")
    fleet.switchboard.ring(DUE)
    assert done.wait(PATIENCE_S)
    sweeper.stop()
