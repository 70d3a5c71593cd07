"""What becomes of a ticket: it is begun or refused, counted, and a cancel finds it wherever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dramatiq
import pytest
from builders import a_profile, a_request
from dramatiq.brokers.stub import StubBroker
from prometheus_client import CollectorRegistry

from pipeline import plan
from pipeline.conductor import Attempt, Conductor
from pipeline.job import Ref
from pipeline.memory import MemoryJobStore, MemoryProgress, SystemClock
from pipeline.sandbox import Child, Nursery
from pipeline.storage.folder import FolderStorage
from pipeline.workbench import BenchLimits, Workbench
from workers import actors
from workers.metrics import WorkerMetrics


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
        self.perform = actors.performer(self.conductor, self.bench, metrics, "worker", on_stop=self.on_stop)
        self.stop: Callable[[], None] | None = None
        self.started = 0
        self.job = self.conductor.accept(a_request(url=str(source))).id

        def child() -> Child:
            self.started += 1
            raise RuntimeError("no children here")

        monkeypatch.setattr(nursery, "child", child)

    @contextmanager
    def on_stop(self, job: str, call: Callable[[], None]) -> Iterator[None]:
        assert job == self.job
        self.stop = call
        yield
        self.stop = None

    def counted(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"stage": "ingest", **labels})


class Hasty(Conductor):
    """`then` happens as soon as a step has begun, before anybody can work on it."""

    then: Callable[[], None] = staticmethod(lambda: None)

    def begin(self, ref: Ref, worker: str) -> Attempt | None:
        attempt = super().begin(ref, worker)
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
