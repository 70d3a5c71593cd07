"""What becomes of a ticket: it is begun or refused, counted, and a cancel finds it wherever it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from builders import a_profile, a_request
from dramatiq.brokers.stub import StubBroker
from prometheus_client import CollectorRegistry
from redis_server import RedisServer

from pipeline import plan
from pipeline.conductor import Attempt, Conductor, Fits
from pipeline.errors import PipelineError
from pipeline.held import BenchLimits
from pipeline.job import SCHEMA, Job, Ref, Status, Step
from pipeline.memory import MemoryJobStore, MemoryProgress, MemoryTickets, SystemClock
from pipeline.sandbox import Child, Nursery
from pipeline.storage.folder import FolderStorage
from pipeline.workbench import Workbench
from workers import actors
from workers.metrics import WorkerMetrics
from workers.redis_jobs import RedisJobStore


class Worker:
    """The actors of a worker whose children are never born: `started` counts how often one was wanted."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = root / "clip.mp4"
        source.write_bytes(b"anything")
        clock, nursery = SystemClock(), Nursery(root)
        self.conductor = Hasty(MemoryJobStore(clock), clock, plan, {"default": a_profile()})
        storage, limits = FolderStorage(root / "storage"), BenchLimits(local_sources=True)
        self.bench = Workbench(self.conductor, storage, MemoryProgress(), clock, nursery, limits=limits)
        self.registry = CollectorRegistry()
        metrics = WorkerMetrics(registry=self.registry)
        self.room = Room()
        self.tickets = MemoryTickets()
        self.perform = actors.performer(
            self.conductor,
            self.bench,
            metrics,
            "worker",
            on_stop=self.on_stop,
            room=self.room,
            others=actors.Others(self.conductor.store, self.tickets, lambda _seconds: False),
        )
        self.stop: Callable[[], None] | None = None
        self.started = 0
        self.job = self.conductor.accept(a_request(url=str(source))).id

        def child(*_: object) -> Child:
            self.started += 1
            raise RuntimeError("no children here")

        monkeypatch.setattr(nursery, "child", child)

    def step(self, name: str) -> Step:
        job = self.conductor.store.job(self.job)
        assert job is not None
        return job.steps[name]

    @contextmanager
    def on_stop(self, job: str, call: Callable[[], None]) -> Iterator[None]:
        assert job == self.job
        self.stop = call
        yield
        self.stop = None

    def counted(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"stage": "ingest", **labels})


class Room:
    """A machine that answers `says`, and knows whom it has room for."""

    says: float | PipelineError | None = None

    def __init__(self) -> None:
        self.promised: list[Ref] = []
        self.rested = 0

    def fits(self, job: Job, step: Step) -> float | None:
        if isinstance(self.says, PipelineError):
            raise self.says
        self.promised.append(Ref(job=job.id, step=step.id))
        return self.says

    def rest(self) -> None:
        self.rested += 1

    def leave(self, ref: Ref) -> None:
        if ref in self.promised:
            self.promised.remove(ref)


class Hasty(Conductor):
    """`then` happens as soon as a step has begun, before anybody can work on it."""

    then: Callable[[], None] = staticmethod(lambda: None)

    def begin(self, ref: Ref, worker: str, *, fits: Fits | None = None) -> Attempt | None:
        attempt = super().begin(ref, worker, fits=fits)
        self.then()
        return attempt


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    return Worker(tmp_path, monkeypatch)


def test_a_cancel_right_after_the_begin_is_not_missed(worker: Worker) -> None:
    """Nobody is at the bench yet who could be stopped; the next look at the lease would be seconds away."""

    def cancel() -> None:
        assert worker.conductor.cancel(worker.job)
        assert worker.stop is not None
        worker.stop()

    worker.conductor.then = cancel
    worker.perform("ingest", worker.job, "ingest")
    assert worker.started == 0, "nothing is done for a job that has ended"
    assert worker.counted("reelway_steps_total", outcome="lost") == 1


def test_without_a_cancel_the_step_is_done(worker: Worker) -> None:
    worker.perform("ingest", worker.job, "ingest")
    assert worker.started == 1
    assert worker.counted("reelway_steps_total", outcome="lost") == 0


def test_a_ticket_that_comes_too_late_is_refused_and_counted(worker: Worker) -> None:
    worker.perform("ingest", worker.job, "ingest")
    worker.perform("ingest", worker.job, "ingest")
    assert worker.counted("reelway_tickets_total", result="begun") == 1
    assert worker.counted("reelway_tickets_total", result="refused") == 1


def test_a_ticket_says_job_and_step_and_its_queue_says_the_stage() -> None:
    broker = StubBroker(middleware=[])
    done: list[tuple[str, ...]] = []
    declared = actors.declare(broker, lambda *names: done.append(names), ("ingest", "audio"))
    assert set(declared) == broker.get_declared_actors() == {"ingest", "audio"}
    assert {actor.queue_name for actor in declared.values()} == {"ingest", "audio"}
    for stage in declared:
        declared[stage].send("job-1", "step-1")
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=50)
    worker.start()
    for stage in declared:
        broker.join(stage)
    worker.stop()
    assert sorted(done) == [("audio", "job-1", "step-1"), ("ingest", "job-1", "step-1")]


# -- admission --------------------------------------------------------------------------------------------------------


def test_a_step_that_fits_nowhere_now_waits_unharmed(worker: Worker) -> None:
    worker.room.says = 2.0
    worker.perform("ingest", worker.job, "ingest")
    step = worker.step("ingest")

    assert worker.started == 0
    assert step.status is Status.RETRYING, "anybody may take it when its time has come"
    assert (step.attempt, step.retries, step.losses) == (0, 0, 0)
    assert worker.room.rested == 1, "who has no room is idle, and must not be first to take the next"
    assert worker.counted("reelway_tickets_total", result="refused") == 1


def test_a_step_has_its_share_of_the_machine_until_it_ends(worker: Worker) -> None:
    seen: list[int] = []
    worker.conductor.then = lambda: seen.append(len(worker.room.promised))
    worker.perform("ingest", worker.job, "ingest")

    assert seen == [1]
    assert worker.room.rested == 0
    assert worker.room.promised == []


def test_a_second_ticket_does_not_give_away_the_share_of_a_step_that_runs(worker: Worker) -> None:
    def again() -> None:
        worker.conductor.then = lambda: None
        worker.perform("ingest", worker.job, "ingest")
        assert len(worker.room.promised) == 1

    worker.conductor.then = again
    worker.perform("ingest", worker.job, "ingest")
    assert worker.started == 1


def test_a_step_that_nobody_will_ever_do_fails_as_every_step_fails(worker: Worker) -> None:
    worker.room.says = PipelineError("encoder_unavailable", encoder="x264-1", seconds=700)
    worker.perform("ingest", worker.job, "ingest")
    job = worker.conductor.store.job(worker.job)

    assert job is not None
    assert job.error is not None
    assert job.error["code"] == "encoder_unavailable"
    assert worker.started == 0


def test_an_absent_registry_fails_nothing(worker: Worker) -> None:
    worker.room.says = PipelineError("queue_unavailable", reason="away")
    worker.perform("ingest", worker.job, "ingest")

    assert worker.step("ingest").status is Status.READY


# -- a newer release beside this one ----------------------------------------------------------------------------------


def test_a_newer_record_is_left_alone_and_its_ticket_goes_on(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    before = worker.step("ingest")
    real = worker.conductor.store.job

    def newer(job_id: str) -> Job | None:
        job = real(job_id)
        return replace(job, schema=SCHEMA + 1) if job else None

    monkeypatch.setattr(worker.conductor.store, "job", newer)
    for _ in range(100):
        worker.perform("ingest", worker.job, "ingest")

    assert worker.started == 0
    assert worker.step("ingest") == before
    assert len(worker.tickets.sent["ingest"]) == actors.Others.TIMES, "it does not go round for ever"


def test_a_ticket_that_comes_too_late_goes_nowhere(worker: Worker) -> None:
    worker.perform("ingest", worker.job, "ingest")
    worker.perform("ingest", worker.job, "ingest")

    assert not worker.tickets.sent


def test_a_newer_record_in_redis_is_not_touched(worker: Worker, redis_server: RedisServer) -> None:
    """Whatever a later release writes there: this one cannot know what it would break."""
    client: Any = redis_server.client()
    store = RedisJobStore(client)
    conductor = Conductor(store, SystemClock(), plan, {"default": a_profile()})
    conductor.accept(a_request())
    key = "reelway:job:request-1"
    header = json.loads(client.hget(key, "header"))
    client.hset(key, mapping={"header": json.dumps({**header, "schema": SCHEMA + 1, "new": {"field": 1}}), "more": "x"})
    before = client.hgetall(key)
    others = actors.Others(store, worker.tickets, lambda _seconds: False)
    perform = actors.performer(
        conductor, worker.bench, WorkerMetrics(registry=CollectorRegistry()), "old", on_stop=no_stop, others=others
    )
    for _ in range(3):
        perform("ingest", "request-1", "ingest")

    assert client.hgetall(key) == before
    assert worker.started == 0
    assert worker.tickets.sent["ingest"] == [Ref(job="request-1", step="ingest")] * 3, "somebody else shall have it"


@contextmanager
def no_stop(_job: str, _call: Callable[[], None]) -> Iterator[None]:
    yield
