"""The fleet on one page: one dramatiq actor a stage, each on the queue of its name.

A ticket says `(job, step)` and nothing more. dramatiq is the wake-up transport here: no retries, no results, no time
limits of its own. The actor begins the step if the record still wants it begun, does it, commits the outcome, and never
raises, because an exception that dramatiq sees is one that it may lose (TRAPS: dramatiq on Redis).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import dramatiq
import structlog

from pipeline.conductor import Attempt, Conductor
from pipeline.errors import PipelineError
from pipeline.job import Ref
from pipeline.stages import STAGES
from pipeline.workbench import Workbench
from workers.metrics import WorkerMetrics

log = structlog.get_logger("reelway.worker")

Perform = Callable[[str, str, str], None]
"""Do the step of a ticket: stage, job, step."""
OnStop = Callable[[str, Callable[[], None]], AbstractContextManager[None]]


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
    conductor: Conductor, bench: Workbench, metrics: WorkerMetrics, worker: str, *, on_stop: OnStop
) -> Perform:
    """What every actor does with a ticket. While a step runs, `on_stop` tells when its job has ended elsewhere."""

    def perform(stage: str, job: str, step: str) -> None:
        ref, stopped = Ref(job=job, step=step), threading.Event()

        def stop() -> None:
            stopped.set()  # also for an attempt that the bench does not know yet
            bench.stop_job(job)

        with structlog.contextvars.bound_contextvars(job=job, step=step, worker=worker):
            try:
                with on_stop(job, stop):
                    attempt = conductor.begin(ref, worker)
                    metrics.deliveries.labels(stage, "begun" if attempt else "refused").inc()
                    if attempt is None:
                        log.debug("ticket refused", action="ticket.refused")
                    else:
                        _do(conductor, bench, metrics, attempt, stopped)
            except PipelineError as error:
                # The record did not hear of it; the lease runs out and the sweeper decides.
                log.error("step abandoned", action="step.abandoned", code=error.code, error=str(error))
            except Exception:
                log.exception("step abandoned", action="step.abandoned", code="stage_failed")

    return perform


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
