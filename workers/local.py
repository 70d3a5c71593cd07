"""One job on this machine with nothing running beforehand: a private Redis, a worker a core, and away again.

Everything that an asset needs later lies in the folder; of the fleet nothing stays, however the run ends.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TextIO

from pipeline.errors import PipelineError
from pipeline.events import STREAM
from pipeline.job import Job
from pipeline.ports import Storage
from pipeline.requests import ProcessRequest
from pipeline.tidy import tidy
from workers.private import PrivateFleet
from workers.settings import Settings
from workers.wiring import Control, control

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


def process(request: ProcessRequest, fleet: PrivateFleet, *, look: Look, events: TextIO | None = None) -> Result:
    """Run one request to its end on a fleet of our own. Raises `PipelineError` when it cannot be accepted.

    `events` gets every event as a line of JSON. An interrupt cancels the job; a job that is being published already is
    let finish. Call `leave` with the result once the fleet is gone.
    """
    settings = Settings.read(**fleet.settings)
    wired = control(settings)
    started, interrupted = time.monotonic(), False
    job = wired.conductor.accept(request, workers=settings.workers_hint)
    try:
        job = _follow(wired, job, look, events)
    except KeyboardInterrupt:
        interrupted = True
        job = _cancel(wired, job, look, events)
    record = wired.store.asset(job.asset)
    return Result(
        job=job,
        document=record.document if record else {},
        seconds=time.monotonic() - started,
        interrupted=interrupted,
    )


def leave(result: Result, storage: Storage) -> None:
    """Put the storage in order when every process is gone: what is removed now stays removed."""
    tidy(storage, result.job, result.document)


def _follow(wired: Control, job: Job, look: Look, events: TextIO | None) -> Job:
    """Watch the job until it has ended; the events come in the order in which they happened."""
    cursor = "0"
    while True:
        cursor = _copy_events(wired, cursor, events, block_ms=250)
        job = wired.store.job(job.id) or job
        look(job, wired.progress.fractions(job.id))
        if job.status.ended:
            _copy_events(wired, cursor, events, block_ms=None)
            return job


def _copy_events(wired: Control, cursor: str, events: TextIO | None, *, block_ms: int | None) -> str:
    """Write what is new on the stream; waits up to `block_ms` for something. Returns the next cursor."""
    replies: Any = wired.redis.xread({STREAM: cursor}, count=1000, block=block_ms)
    for _stream, entries in replies or ():
        for entry_id, fields in entries:
            cursor = entry_id.decode() if isinstance(entry_id, bytes) else entry_id
            if events is not None:
                line = fields.get(b"ce") or fields["ce"]
                events.write((line.decode() if isinstance(line, bytes) else line) + "\n")
                events.flush()
    return cursor


def _cancel(wired: Control, job: Job, look: Look, events: TextIO | None) -> Job:
    """Stop the job; one that is being published already is let finish (it takes a moment)."""
    with suppress(PipelineError):
        wired.conductor.cancel(job.id)
    return _follow(wired, job, look, events)


def document_line(document: Mapping[str, Any]) -> str:
    """The asset document as it is printed by `--json`."""
    return json.dumps(document, indent=2, ensure_ascii=False)
