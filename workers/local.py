"""A whole asset on this machine with nothing running beforehand: a private Redis, a worker a core, and away again.

Everything that an asset needs later lies in the folder; of the fleet nothing stays, however the run ends.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TextIO

from pipeline.errors import PipelineError
from pipeline.events import STREAM
from pipeline.requests import ProcessRequest
from workers.private import PrivateFleet
from workers.result import CANCEL_S, Look, Result, unmoved
from workers.settings import Settings
from workers.wiring import Control, control


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
        heard=(record.epoch, record.sequence) if record else (0, 0),
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
        deadline = time.monotonic() + CANCEL_S
        with unmoved():
            while time.monotonic() < deadline and self.wired.store.job(job_id) is not None:
                with suppress(PipelineError):  # busy: it is asked again
                    self.wired.conductor.cancel(job_id)
                self._copy_events(block_ms=100)
                if self._ended(job_id):
                    return

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
