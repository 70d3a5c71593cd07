"""Ours: the worker process of the product, with its broker, dispatcher, sweeper, leases and drain; steps are toys."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from builders import a_blueprint, some_ingest_facts
from prometheus_client import CollectorRegistry
from redis_server import RedisServer

from pipeline.conductor import Answer, Attempt
from pipeline.errors import PipelineError
from pipeline.job import Job, Ref, Status, Step
from pipeline.requests import JobRequest, ProcessRequest
from pipeline.sandbox import Nursery
from pipeline.tasks import Blueprint, IngestFacts
from pipeline.watch import Watch
from regressions.world import Process, World, until
from workers import process as product
from workers.metrics import WorkerMetrics
from workers.redis_client import connect
from workers.settings import Settings
from workers.switchboard import Switchboard
from workers.tickets import NAMESPACE, RedisTickets, Slots, TicketBroker
from workers.wiring import Control, control

STAGE = "transcode"


class Ours(World):
    name = "ours"
    # A request is committed, and then a ticket is sent.
    enqueuing = (b":commit:", b"enqueue")
    fetching = (b"\r\nfetch\r\n", b"\r\ntranscode\r\n")

    def __init__(self, server: RedisServer) -> None:
        super().__init__(server)
        self.folder = tempfile.TemporaryDirectory(prefix="reelway-", ignore_cleanup_errors=True)
        self.look: Any = server.client(1)
        self.control = self._control(server.url)

    def close(self) -> None:
        self.look.close()
        self.control.redis.close()
        self.folder.cleanup()

    # -- sending ------------------------------------------------------------------------------------------------------

    def submit(self, name: str, *, url: Callable[[int], str] | None = None) -> None:
        sender = self._control(url) if url else self.control
        _insist(lambda: sender.conductor.accept(ProcessRequest(id=name, url="/toy")))
        self._dispatch(url or self.server.url)

    def submit_join(self, parts: tuple[str, ...], then: str) -> None:
        self.control.conductor.accept(ProcessRequest(id="join", url="/toy", meta={"parts": parts, "then": then}))

    def double(self, name: str) -> None:
        with self._broker(self.server.url) as broker:
            RedisTickets(broker, Switchboard(self.control.redis)).send(Ref(job="join", step=name), STAGE)

    def trash(self) -> None:
        self.look.hset(f"{NAMESPACE}:{STAGE}.msgs", "trash", b"not json")
        self.look.rpush(f"{NAMESPACE}:{STAGE}", "trash")

    # -- workers ------------------------------------------------------------------------------------------------------

    def process(self, threads: int, url: Callable[[int], str], timeout_s: float) -> Process:
        settings = self._settings(lambda number: f"{url(number)}&socket_timeout={timeout_s}", slots=threads)
        metrics = partial(WorkerMetrics, registry=CollectorRegistry())
        with patch.object(product.metrics, "WorkerMetrics", metrics):
            made = product.WorkerProcess(settings, Nursery(Path(tempfile.mkdtemp(dir=self.folder.name))))
        made.control.conductor.planner = _Plan()
        made.bench._work = self._work  # type: ignore[method-assign]
        self._listen(made)
        return _Process(made, self.look)

    def _work(self, attempt: Attempt, _folder: Path, watch: Watch) -> Answer:
        self.perform(_name(attempt.ref), watch.check)
        return Answer(ingest=some_ingest_facts() if attempt.step.stage == "ingest" else None)

    def _listen(self, made: product.WorkerProcess) -> None:
        """Note what becomes of attempts and tickets."""
        run, begin = made.bench.run, made.control.conductor.begin

        def run_noted(attempt: Attempt, *args: Any) -> str:
            outcome = run(attempt, *args)
            if outcome == "succeeded":
                self.diary.note("effect", _name(attempt.ref))
            self.diary.note("over", _name(attempt.ref))
            return outcome

        def begin_noted(ref: Ref, *args: Any, **options: Any) -> Attempt | None:
            attempt = begin(ref, *args, **options)
            if attempt is None:
                self.diary.note("refused", _name(ref))
            return attempt

        made.bench.run = run_noted  # type: ignore[method-assign]
        made.control.conductor.begin = begin_noted  # type: ignore[method-assign]

    def die_at_work(self) -> bool:
        with self._broker(self.server.url, Slots(1)) as broker:
            consumer = broker.consume(STAGE, timeout=10)
            taken: list[Ref] = []

            def take() -> bool:
                self._sweep()
                self._dispatch(self.server.url)
                message = next(consumer)
                if message is not None:
                    ref = Ref(job=message.args[0], step=message.args[1])
                    taken.extend([ref] if self.control.conductor.begin(ref, "doomed") else [])
                return bool(taken) or self._all_ended()

            assert until(take)
            for ref in taken:
                self.diary.note("start", _name(ref))
            return bool(taken)

    def find_the_dead(self) -> None:
        """That is the sweeper's work, once the lease has run out."""

    # -- looking ------------------------------------------------------------------------------------------------------

    def waiting(self) -> int:
        return int(self.look.llen(f"{NAMESPACE}:{STAGE}"))

    def over(self, name: str) -> bool:
        job = self._job(name)
        return job is None or job.status.ended

    def retry_passed(self, name: str) -> bool:
        job = self._job(name)
        return job is None or all(step.status is not Status.RETRYING for step in job.steps.values())

    def trouble(self) -> Exception:
        return PipelineError("storage_unavailable", reason="no luck")

    def _job(self, name: str) -> Job | None:
        return self.control.store.job(name) or self.control.store.job("join")

    def _all_ended(self) -> bool:
        keys: Any = self.control.redis.keys("reelway:job:*")
        jobs = (self.control.store.job(key.decode().rpartition(":")[2]) for key in keys)
        return all(job is None or job.status.ended for job in jobs)

    # -- wiring -------------------------------------------------------------------------------------------------------

    def _settings(self, url: Callable[[int], str], **changes: Any) -> Settings:
        """The stages that our plan has; no requests but ours, and room for everything."""
        fields = {"stages": "ingest,transcode,package", "intake": False, "admission": False, **changes}
        return Settings.read(redis_url=url(0), storage_url=f"file://{self.folder.name}/storage", **fields)

    def _control(self, url: Callable[[int], str]) -> Control:
        made = control(self._settings(url))
        made.conductor.planner = _Plan()
        return made

    @contextlib.contextmanager
    def _broker(self, url: Callable[[int], str], slots: Slots | None = None) -> Iterator[TicketBroker]:
        broker = TicketBroker(url(1), slots=slots, switchboard=Switchboard(self.control.redis))
        broker.declare_queue(STAGE)
        try:
            yield broker
        finally:
            broker.close()

    def _dispatch(self, url: Callable[[int], str]) -> None:
        """What the dispatcher of any worker does at once."""
        with self._broker(url) as broker:
            tickets = RedisTickets(broker, Switchboard(connect(url(0))))
            dispatcher = product.Dispatcher(self.control.store, tickets, tickets.switchboard, {STAGE: 100})
            _insist(dispatcher.dispatch)

    def _sweep(self) -> None:
        """What the sweeper of any worker does at its next look."""
        sweeper = product.Sweeper(self.control.conductor, Switchboard(self.control.redis), lambda _job: None)
        sweeper.sweep()
        while sweeper.tidy_next(0):
            pass


class _Process(Process):
    """A `WorkerProcess`, which runs in a thread; SIGTERM is `stop`, once."""

    def __init__(self, made: product.WorkerProcess, look: Any) -> None:
        super().__init__(made.broker, made.worker, look)
        self.made = made
        self._draining = False
        self.watch(made.control.redis)
        self._thread = threading.Thread(target=made.run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def skew(self, seconds: float) -> None:
        super().skew(seconds)
        clock = self.made.control.conductor.clock
        now_ms = clock.now_ms
        clock.now_ms = lambda: now_ms() + round(seconds * 1000)  # type: ignore[method-assign]

    def drain(self, *, grace_s: float) -> None:
        if not self._draining:
            self._draining = True
            self.made.settings = self.made.settings.model_copy(update={"grace_s": grace_s})
            self.made.stop()

    def ended(self) -> bool:
        return not self._thread.is_alive()

    def close(self) -> None:
        self.made.switchboard.stop()
        self.made.broker.close()
        self.made.control.redis.close()


class _Plan:
    """One step; or, where the request names parts, those, and one that needs all of them."""

    def first_steps(self, request: JobRequest) -> tuple[Step, ...]:
        return (Step(id="ingest", stage="ingest") if "parts" in request.meta else Step(id="only", stage=STAGE),)

    def grow(self, job: Job, facts: IngestFacts) -> tuple[Blueprint, tuple[Step, ...]]:
        meta: Any = job.request["meta"]
        parts = [Step(id=name, stage=STAGE) for name in meta["parts"]]
        return a_blueprint(), (*parts, Step(id=meta["then"], stage="package", needs=tuple(meta["parts"])))


def _name(ref: Ref) -> str:
    """A job of one step has the job's name; the steps of another one their own."""
    return ref.job if ref.step == "only" else ref.step


def _insist(call: Callable[[], Any]) -> None:
    while True:
        try:
            call()
            return
        except PipelineError as error:
            if error.code != "queue_unavailable":
                raise
