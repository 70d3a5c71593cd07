"""The commands that look: they change nothing, and need no worker."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from workers.commands import fleet
from workers.commands.options import AsJson, AssetId

if TYPE_CHECKING:
    from pipeline.job import Job
    from workers.wiring import Control


def status(asset: AssetId, as_json: AsJson = False) -> None:
    """Show an asset, its jobs, and what runs right now."""
    from workers.commands import show

    control = fleet.fleet()
    document = fleet.known_document(control, asset)
    jobs = [(job, control.progress.fractions(job.id)) for job in jobs_of(control, asset)]
    if as_json:
        running = [step for job, fractions in jobs for step in show.running(job, fractions)]
        listed = [show.job(job, fractions) for job, fractions in jobs]
        show.print_json({"asset": document, "jobs": listed, "running": running})
    else:
        show.print_status(document, jobs, time.time_ns() // 1_000_000)


def watch(asset: AssetId) -> None:
    """Follow an asset until nothing of it is open; the exit code tells how its last job ended."""
    control = fleet.fleet()
    fleet.known_document(control, asset)
    last: Job | None = None
    while (job := _next(control, asset)) is not None:
        last = fleet.followed(control, job.id)
    last = last or next(iter(jobs_of(control, asset)), None)
    if last is not None:
        fleet.conclude(last)
    document = fleet.known_document(control, asset)
    sys.stdout.write(f"{asset} {'deleted' if document.get('deleted') else document['video']['status']}\n")


def _next(control: Control, asset: str) -> Job | None:
    """The asset's oldest job that has not ended."""
    return next((job for job in reversed(jobs_of(control, asset)) if not job.status.ended), None)


def jobs_of(control: Control, asset: str) -> Sequence[Job]:
    """The jobs of an asset that Redis knows, newest first."""
    found = (control.store.job(job) for job in control.store.jobs(asset))
    return [job for job in found if job is not None]


def history(asset: AssetId, as_json: AsJson = False) -> None:
    """Show every job that an asset ever had, from Redis and from storage."""
    from workers.commands import show

    told = sorted(_told(fleet.fleet(), asset), key=lambda each: int(each["job"]["created_ms"]))
    if not told:
        raise PipelineError("asset_not_found", asset=asset)
    if as_json:
        show.print_json(told)
    else:
        show.paper().print(show.history_table(told))


def _told(control: Control, asset: str) -> Iterator[dict[str, Any]]:
    from pipeline import keys
    from pipeline.tidy import history as told_of
    from workers.commands import show

    record = control.store.asset(asset)
    known: set[str] = set()
    for job in jobs_of(control, asset):
        known.add(job.id)
        yield show.past(told_of(job, record.document if record else {}))
    for stored in control.storage.list(keys.histories(asset)):
        if stored.key.rpartition("/")[2].removesuffix(".json") not in known:
            yield show.past(control.storage.get(stored.key))


def why(asset: AssetId) -> None:
    """Say in words what an asset waits for."""
    from workers.commands import show
    from workers.commands.reasons import over, reasons

    control = fleet.fleet()
    document = fleet.known_document(control, asset)
    jobs = jobs_of(control, asset)
    open_jobs = [job for job in reversed(jobs) if not job.status.ended]
    said = [line for job in open_jobs for line in reasons(control, job)]
    said = said or over(asset, document, jobs[0] if jobs else None)
    show.paper().print("\n".join(said), highlight=False, markup=False, soft_wrap=True)
