"""The commands about jobs that failed for good."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import PipelineError
from workers.commands import fleet
from workers.commands.look import jobs_of
from workers.commands.options import AsJson
from workers.console import say, tell, usage

if TYPE_CHECKING:
    from pipeline.job import Job
    from workers.wiring import Control

NOTHING_TO_REPLAY = frozenset({"nothing_to_retry", "asset_deleted", "asset_not_found"})
"""Refusals that say that a failed job is history: its asset went on, or is gone."""
OF_THE_FLEET = frozenset({"queue_unavailable", "request_unanswered"})
"""Errors that the next asset would meet as well."""
DEAD_SHOWN = 1000
"""Jobs that are looked at, at most."""
FailedJob = Annotated[str, typer.Argument(metavar="ID", help="A job, or an asset whose last failed job is meant.")]


def dead_ls(as_json: AsJson = False) -> None:
    """List the failed jobs that the fleet still knows, newest first, and count tickets that nobody could read."""
    from workers.commands import show

    control = fleet.fleet()
    failed = [job for job_id in control.store.failed(DEAD_SHOWN) if (job := control.store.job(job_id)) is not None]
    letters = _dead_letters(control)
    if as_json:
        show.print_json({"jobs": [show.job(job, {}) for job in failed], "unreadable_tickets": letters})
        return
    show.paper().print(show.dead_table(failed))
    for stage, count in letters.items():
        show.paper().print(f"{count} tickets of {stage} could not be read and were set aside; no step depends on them")


def _dead_letters(control: Control) -> dict[str, int]:
    """How many tickets each queue set aside. The record is what counts: whatever they meant was sent again."""
    from pipeline.stages import STAGES
    from workers.redis_client import answering, connect
    from workers.tickets import NAMESPACE
    from workers.wiring import broker_url

    with answering(), connect(broker_url(control.settings.redis_url)) as client:
        counts = {stage: int(client.zcard(f"{NAMESPACE}:{stage}.XQ")) for stage in STAGES}
    return {stage: count for stage, count in counts.items() if count}


def dead_show(name: FailedJob, as_json: AsJson = False) -> None:
    """Show what became of each step of a failed job, with its errors."""
    from pipeline.tidy import history
    from workers.commands import show

    control = fleet.fleet()
    job = failed_job(control, name)
    record = control.store.asset(job.asset)
    told = show.past(history(job, record.document if record else {}))
    if as_json:
        show.print_json(told)
        return
    show.paper().print(show.history_table([told]))
    show.paper().print(show.steps_table(told))
    if job.error is not None:
        error = PipelineError.from_document(job.error)
        show.paper().print(f"{error.code}: {error.message} {error.hint}", highlight=False, markup=False, soft_wrap=True)


def dead_replay(
    name: Annotated[str | None, typer.Argument(metavar="ID", help="A job, or an asset.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every failed job that the fleet still knows.")] = False,
) -> None:
    """Ask for the same again, as a new job of the same asset; prints the assets.

    With --all an asset that needs it no more is passed over, and one that is refused does not stop the others.
    """
    if (name is None) != everything:
        usage(PipelineError("parameter_invalid", detail="give one ID, or --all"))
    control = fleet.fleet()
    if name is None:
        _replay_all(control)
        return
    asset = failed_job(control, name).asset
    fleet.submitted(fleet.request("asset.retry", asset_id=asset))
    sys.stdout.write(f"{asset}\n")


def _replay_all(control: Control) -> None:
    """Ends the command (exit 1) when all were asked for and one of them was refused."""
    jobs = (control.store.job(job) for job in control.store.failed(DEAD_SHOWN))
    assets = dict.fromkeys(job.asset for job in jobs if job is not None)
    client, passed_over, failed = fleet.client(), 0, False
    for asset in assets:
        try:
            client.submit(fleet.request("asset.retry", asset_id=asset))
        except PipelineError as error:
            if error.code in OF_THE_FLEET:
                raise
            if error.code in NOTHING_TO_REPLAY:
                passed_over += 1
            else:
                tell(error, where=asset)
                failed = True
        else:
            sys.stdout.write(f"{asset}\n")
    if passed_over:
        say().print(f"passed over {passed_over} of {len(assets)} assets: they went on or are gone", highlight=False)
    if failed:
        sys.exit(1)


def failed_job(control: Control, name: str) -> Job:
    """A failed job by its id, or the last failed one of an asset. Raises `job_not_found`."""
    from pipeline.job import JobStatus

    job = control.store.job(name)
    candidates = [job] if job is not None else jobs_of(control, name)
    for candidate in candidates:
        if candidate.status is JobStatus.FAILED:
            return candidate
    raise PipelineError("job_not_found", job=name)
