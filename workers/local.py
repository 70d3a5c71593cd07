"""One job on this machine with nothing running beforehand: a private Redis, a worker a core, and away again.

Everything that an asset needs later lies in the folder; of the fleet nothing stays, however the run ends.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TextIO

from pipeline.errors import PipelineError
from pipeline.events import STREAM
from pipeline.job import Job
from pipeline.requests import ProcessRequest
from workers.private import PrivateFleet
from workers.settings import Settings
from workers.wiring import Control, control

CANCEL_S = 30.0
"""How long an interrupted command waits for its job to end, before it takes the fleet down under it."""

Look = Callable[[Job, Mapping[str, float]], None]
"""Shown the job and the fractions of its running steps, about four times a second."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How the job ended."""

    job: Job
    document: Mapping[str, Any]
    seconds: float
    """Wall time from the request to the end of the job."""
    interrupted: bool = False


def process(request: ProcessRequest, fleet: PrivateFleet, *, look: Look, events: TextIO | None = None) -> Result | None:
    """Run one request to its end on a fleet of our own; None when it was interrupted before it was accepted.

    `events` gets every event as a line of JSON. An interrupt cancels the job; a step that is publishing at that moment
    is let finish. Raises `PipelineError` when the request cannot be accepted, or when the fleet dies.
    """
    settings = Settings.read(**fleet.settings)
    run = _Run(wired=control(settings), fleet=fleet, look=look, events=events)
    started, interrupted = time.monotonic(), False
    try:
        run.wired.conductor.accept(request, workers=settings.workers_hint, limits=settings.source_limits)
        run.follow(request.id)
    except KeyboardInterrupt:
        interrupted = True
        run.cancel(request.id)
    job = run.wired.store.job(request.id)
    if job is None:
        return None
    record = run.wired.store.asset(job.asset)
    return Result(
        job=job,
        document=record.document if record else {},
        seconds=time.monotonic() - started,
        interrupted=interrupted,
    )


@dataclass(kw_only=True)
class _Run:
    """One job under our eyes."""

    wired: Control
    fleet: PrivateFleet
    look: Look
    events: TextIO | None
    cursor: str = "0"

    def follow(self, job_id: str) -> None:
        """Watch the job until it has ended; the events come in the order in which they happened."""
        while True:
            self.fleet.check()
            self._copy_events(block_ms=250)
            if self._ended(job_id):
                return

    def cancel(self, job_id: str) -> None:
        """Stop the job, as soon as nothing of it is being published; a second interrupt changes nothing."""
        heeded = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            deadline = time.monotonic() + CANCEL_S
            while time.monotonic() < deadline and self.wired.store.job(job_id) is not None:
                with suppress(PipelineError):  # busy: it is asked again
                    self.wired.conductor.cancel(job_id)
                self._copy_events(block_ms=100)
                if self._ended(job_id):
                    return
        finally:
            for number, handler in heeded.items():
                signal.signal(number, handler)

    def _ended(self, job_id: str) -> bool:
        job = self.wired.store.job(job_id)
        if job is None:
            return False
        self.look(job, self.wired.progress.fractions(job_id))
        if job.status.ended:
            self._copy_events(block_ms=None)
        return job.status.ended

    def _copy_events(self, *, block_ms: int | None) -> None:
        """Write what is new on the stream; waits up to `block_ms` for something."""
        replies: Any = self.wired.redis.xread({STREAM: self.cursor}, count=1000, block=block_ms)
        for _stream, entries in replies or ():
            for entry_id, fields in entries:
                self.cursor = entry_id.decode()
                if self.events is not None:
                    self.events.write(fields[b"ce"].decode() + "\n")
                    self.events.flush()


def document_line(document: Mapping[str, Any]) -> str:
    """The asset document as it is printed by `--json`."""
    return json.dumps(document, indent=2, ensure_ascii=False)
