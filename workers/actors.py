"""The fleet on one page: one dramatiq actor a stage, each on the queue of its name.

A ticket says `(job, step)` and nothing more. dramatiq is the wake-up transport here: no retries, no results, no time
limits of its own. The actor begins the step if the record still wants it begun, does it, commits the outcome, and never
raises, because an exception that dramatiq sees is one that it may lose (TRAPS: dramatiq on Redis).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Protocol

import dramatiq
import structlog

from pipeline.conductor import Attempt, Conductor, Fits
from pipeline.errors import PipelineError
from pipeline.job import SCHEMA, Job, Ref, Step
from pipeline.ports import JobStore, Tickets
from pipeline.stages import STAGES
from pipeline.workbench import Workbench
from workers.metrics import WorkerMetrics

log = structlog.get_logger("reelway.worker")

Perform = Callable[[str, str, str], None]
"""Do the step of a ticket: stage, job, step."""
OnStop = Callable[[str, Callable[[], None]], AbstractContextManager[None]]


class Admission(Protocol):
    """Whether this machine may begin a step: `workers.room.Room`."""

    def fits(self, job: Job, step: Step) -> float | None:
        """None: it may, and its share is promised until `leave`. Else the seconds after which to ask again.

        Raises a `PipelineError` with which the step is to fail, because nobody will ever be able to do it.
        """

    def leave(self, ref: Ref) -> None:
        """The step has ended here, or has not begun after all."""

    def rest(self) -> None:
        """There was no room: let others have what is ready, for a moment."""


class Others:
    """Leaves to other workers what this release cannot read, so that it comes to them soon.

    A ticket of a record with a newer schema is sent again after a moment, some times: then the due index, which is
    slower, brings the step back. `paused` waits so many seconds; True: this worker is ending, and nothing is sent.
    """

    PAUSE_S = 1.0
    TIMES = 20

    def __init__(self, store: JobStore, tickets: Tickets, paused: Callable[[float], bool]) -> None:
        self.store = store
        self.tickets = tickets
        self.paused = paused
        self._sent: Counter[Ref] = Counter()

    def leave(self, ref: Ref, stage: str) -> None:
        """The step was not to be had here: if that is because of the record's schema, somebody else shall have it."""
        job = self.store.job(ref.job)
        if job is None or job.schema <= SCHEMA or job.status.ended or self._sent[ref] >= self.TIMES:
            return
        log.warning("record is newer", action="ticket.left", code="schema_newer", schema=job.schema)
        self._sent[ref] += 1
        if not self.paused(self.PAUSE_S):
            self.tickets.send(ref, stage)
        if len(self._sent) > 10_000:
            self._sent.clear()


def declare(
    broker: dramatiq.Broker, perform: Perform, stages: tuple[str, ...]
) -> Mapping[str, dramatiq.Actor[Any, Any]]:
    """One actor for each of `stages`; actor, queue and stage share one name."""
    return {
        stage: dramatiq.actor(actor_name=stage, queue_name=stage, broker=broker)(partial(perform, stage))
        for stage in STAGES
        if stage in stages
    }


def performer(
    conductor: Conductor,
    bench: Workbench,
    metrics: WorkerMetrics,
    worker: str,
    *,
    on_stop: OnStop,
    room: Admission | None = None,
    others: Others | None = None,
) -> Perform:
    """What every actor does with a ticket. While a step runs, `on_stop` tells when its job has ended elsewhere.

    `room` says what may begin here; without, everything. `others` get what this release cannot read.
    """

    def perform(stage: str, job: str, step: str) -> None:
        ref, stopped = Ref(job=job, step=step), threading.Event()

        def stop() -> None:
            stopped.set()  # also for an attempt that the bench does not know yet
            bench.stop_job(job)

        with structlog.contextvars.bound_contextvars(job=job, step=step, worker=worker):
            try:
                with on_stop(job, stop), _admitted(conductor, ref, worker, room) as attempt:
                    metrics.deliveries.labels(stage, "begun" if attempt else "refused").inc()
                    if attempt is None:
                        log.debug("ticket refused", action="ticket.refused")
                        if others is not None:
                            others.leave(ref, stage)
                    else:
                        _do(conductor, bench, metrics, attempt, stopped)
            except PipelineError as error:
                # The record did not hear of it; the lease runs out and the sweeper decides.
                log.error("step abandoned", action="step.abandoned", code=error.code, error=str(error))
            except Exception:
                log.exception("step abandoned", action="step.abandoned", code="stage_failed")

    return perform


@contextmanager
def _admitted(conductor: Conductor, ref: Ref, worker: str, room: Admission | None) -> Iterator[Attempt | None]:
    """The attempt, if the step is to be had and fits; while inside, it has its share of the machine."""
    if room is None:
        yield conductor.begin(ref, worker)
        return
    answers: list[float | None] = []  # none: a second ticket of a step that runs must not give away its share

    def fits(job: Job, step: Step) -> float | None:
        answers.append(room.fits(job, step))
        return answers[-1]

    try:
        yield _begun(conductor, ref, worker, fits)
    finally:
        if answers:
            room.leave(ref)
    if answers and answers[-1] is not None:
        room.rest()


def _begun(conductor: Conductor, ref: Ref, worker: str, fits: Fits) -> Attempt | None:
    try:
        return conductor.begin(ref, worker, fits=fits)
    except PipelineError as error:
        if error.retryable:  # the record or the registry cannot be asked now
            raise
        # A step fails as it always does: in the hands of a worker.
        attempt = conductor.begin(ref, worker)
        if attempt is not None:
            log.warning("step cannot be done", action="step.failed", code=error.code, error=str(error))
            conductor.fail(attempt, error)
        return None


def _do(
    conductor: Conductor, bench: Workbench, metrics: WorkerMetrics, attempt: Attempt, stopped: threading.Event
) -> None:
    stage = attempt.step.stage
    log.info("step started", action="step.started", stage=stage, asset=attempt.job.asset, attempt=attempt.step.attempt)
    started = time.monotonic()
    with metrics.running.labels(stage).track_inprogress():
        outcome = _outcome(conductor, bench, attempt, stopped)
    seconds = time.monotonic() - started
    metrics.ended(stage, outcome, seconds)
    log.info("step ended", action="step.ended", stage=stage, outcome=outcome, seconds=round(seconds, 3))


def _outcome(conductor: Conductor, bench: Workbench, attempt: Attempt, stopped: threading.Event) -> str:
    try:
        return bench.run(attempt, stopped)
    except PipelineError:
        raise
    except Exception as error:
        log.exception("unknown error", action="step.failed", code="stage_failed")
        failure = PipelineError("stage_failed", stage=attempt.step.stage, reason=type(error).__name__)
        conductor.fail(attempt, failure)
        return failure.code
