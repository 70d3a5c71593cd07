"""One job on this machine with nothing running beforehand: a private Redis, a worker a core, and away again.

Everything that an asset needs later lies in the folder; of the fleet nothing stays, however the run ends.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import PipelineError
from pipeline.events import STREAM
from pipeline.fetch import local_file
from pipeline.job import Job, JobStatus
from pipeline.requests import ProcessRequest
from pipeline.tidy import tidy
from workers.embedded import EmbeddedFleet
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


def process(request: ProcessRequest, settings: Settings, *, look: Look, events: TextIO | None = None) -> Result:
    """Run one request to its end. Raises `PipelineError` when it cannot be accepted.

    `settings` must name the folder in `storage_url`; its Redis and scratch are replaced by private ones. `events` gets
    every event as a line of JSON. An interrupt cancels the job; nothing public is left unless it was ready already.
    """
    made = _root_to_be_made(settings)
    with private_fleet(settings) as wired:
        started = time.monotonic()
        job = wired.conductor.accept(request, workers=settings.workers_hint)
        interrupted = False
        try:
            job = _follow(wired, job, look, events)
        except KeyboardInterrupt:
            interrupted = True
            job = _cancel(wired, job, look, events)
        seconds = time.monotonic() - started
        record = wired.store.asset(job.asset)
        document = record.document if record else {}
    # Every process is gone: what is removed now stays removed.
    tidy(wired.storage, job, document)
    if made is not None and job.status is not JobStatus.SUCCEEDED:
        shutil.rmtree(made, ignore_errors=True)
    return Result(job=job, document=document, seconds=seconds, interrupted=interrupted)


@contextmanager
def private_fleet(settings: Settings) -> Iterator[Control]:
    """A Redis and workers of our own while inside; the control side of them."""
    with (
        tempfile.TemporaryDirectory(prefix="reelway-", ignore_cleanup_errors=True) as scratch,
        EmbeddedFleet(
            processes=settings.workers_hint,
            environment=lambda redis_url: _environment(settings, redis_url, scratch),
            log=Path(scratch) / "workers.log",
        ) as fleet,
    ):
        private = settings.model_copy(update={"redis_url": fleet.redis_url, "scratch_dir": Path(scratch)})
        yield control(private)


def _environment(settings: Settings, redis_url: str, scratch: str) -> Mapping[str, str]:
    """The workers' whole environment beside the machine's own."""
    ours = settings.model_copy(
        update={"redis_url": redis_url, "scratch_dir": Path(scratch), "local_sources": True, "grace_s": 0.0}
    )
    values = ours.model_dump(mode="json")
    return {**os.environ, **{f"REELWAY_{name.upper()}": str(value) for name, value in values.items()}}


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


def _root_to_be_made(settings: Settings) -> Path | None:
    """The output folder if it is not there yet: a job that fails leaves none behind."""
    root = local_file(settings.storage_url)
    return root if root is not None and not root.exists() else None


def document_line(document: Mapping[str, Any]) -> str:
    """The asset document as it is printed by `--json`."""
    return json.dumps(document, indent=2, ensure_ascii=False)
