"""The sweeper: what nobody else looks after is looked after, whatever stands before it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from builders import a_request
from memory_fleet import MemoryFleet

from pipeline.conductor import LEASE_S, TIDY_DUE_S
from pipeline.errors import PipelineError
from pipeline.job import READY_DUE_S, SCHEMA, Job, JobStatus, Ref, Status
from pipeline.memory import GRACE_S
from pipeline.requests import DeleteRequest
from workers.redis_jobs import DUE
from workers.sweeper import EXPIRY_LOOK_S, REFUSED_S, Sweeper

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


def sweep_and_tidy(sweeper: Sweeper) -> None:
    """What its two threads do, one after the other."""
    sweeper.sweep()
    while sweeper.tidy_next(0):
        pass


def until(holds: Callable[[], object]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(holds())


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
        sweep_and_tidy(sweeper)
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
    sweep_and_tidy(sweeper)
    assert tidied == ["request-1", "request-2"]
    fleet.live(TIDY_DUE_S - 10)
    sweep_and_tidy(sweeper)
    assert len(tidied) == 2
    fleet.live(20)
    sweep_and_tidy(sweeper)
    assert tidied == ["request-1", "request-2", "request-1"]


def test_a_slow_tidying_holds_up_no_judgement_and_nothing_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deletion of many objects takes minutes; a worker dies meanwhile. There is room for one more in line."""
    monkeypatch.setattr("workers.sweeper.LINE", 1)
    fleet, tidied = MemoryFleet(), []
    at_it, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def tidy(job: Job) -> None:
        at_it.set()
        assert go_on.wait(PATIENCE_S)
        tidied.append(job.id)
        if len(set(tidied)) == 3:
            done.set()

    sweeper = Sweeper(fleet.conductor, fleet.switchboard, tidy)
    sweeper.start()
    try:
        for number in ("1", "2", "3"):
            fleet.conductor.accept(a_request(id=f"ended-{number}", asset_id=f"asset10000{number}"))
            fleet.conductor.cancel(f"ended-{number}")
        fleet.switchboard.ring(DUE)
        assert at_it.wait(PATIENCE_S)
        lost = begun(fleet, 1)

        fleet.live(GRACE_S + LEASE_S)
        assert until(lambda: status(fleet, lost) is Status.READY)
        assert tidied == []

        go_on.set()
        assert until(lambda: fleet.live(TIDY_DUE_S) or fleet.switchboard.ring(DUE) or done.is_set())
    finally:
        go_on.set()
        sweeper.stop()


def test_a_stop_does_not_wait_for_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.sweeper.STOP_S", 0.01)
    fleet, at_it, go_on = MemoryFleet(), threading.Event(), threading.Event()
    tidied: list[str] = []

    def tidy(job: Job) -> None:
        tidied.append(job.id)
        at_it.set()
        go_on.wait(PATIENCE_S)

    sweeper = Sweeper(fleet.conductor, fleet.switchboard, tidy)
    for number in ("1", "2"):
        fleet.conductor.accept(a_request(id=f"ended-{number}", asset_id=f"asset10000{number}"))
        fleet.conductor.cancel(f"ended-{number}")
    sweeper.start()
    assert at_it.wait(PATIENCE_S)
    threads = [thread for thread in threading.enumerate() if thread.name == "tidier"]

    sweeper.stop()
    go_on.set()

    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(tidied) == 1, "what stood in line is due again"


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


def test_what_expires_is_deleted_and_what_is_refused_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first cannot be looked at: that must not keep the others waiting."""
    fleet, asked, now = MemoryFleet(), [], [100.0]
    monkeypatch.setattr("workers.sweeper.time.monotonic", lambda: now[0])
    for number in (1, 2):
        due = fleet.clock.now_ms() + number
        fleet.conductor.accept(a_request(id=f"r-{number}", asset_id=f"asset00000{number}", expire_at=due))

    def expire(asset: str, at_ms: int) -> None:
        asked.append(asset)
        if asset == "asset000001":
            raise PipelineError("storage_forbidden", reason="test")
        fleet.conductor.accept(DeleteRequest(id="d-2", ids=(asset,)))

    sweeper = Sweeper(fleet.conductor, fleet.switchboard, lambda job: None, expire)
    sweeper.sweep_expired()
    assert asked == []

    fleet.clock.advance(1)
    for _ in range(3):
        now[0] += EXPIRY_LOOK_S
        sweeper.sweep_expired()
        sweeper.sweep_expired()
    assert asked == ["asset000001", "asset000002"]

    now[0] += REFUSED_S
    sweeper.sweep_expired()
    assert asked == ["asset000001", "asset000002", "asset000001"]


@pytest.mark.parametrize("code", ["asset_not_found", "asset_deleted"])
def test_what_never_came_to_be_is_not_asked_about_again(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, asked, now = MemoryFleet(), [], [100.0]
    monkeypatch.setattr("workers.sweeper.time.monotonic", lambda: now[0])
    fleet.conductor.accept(a_request(id="r-1", asset_id="asset000001", expire_at=fleet.clock.now_ms() + 1))
    fleet.clock.advance(1)

    def expire(asset: str, at_ms: int) -> None:
        asked.append(asset)
        raise PipelineError(code, asset=asset)

    sweeper = Sweeper(fleet.conductor, fleet.switchboard, lambda job: None, expire)
    for _ in range(2):
        sweeper.sweep_expired()
        now[0] += REFUSED_S

    assert asked == ["asset000001"]
    assert fleet.store.expired(9) == []
