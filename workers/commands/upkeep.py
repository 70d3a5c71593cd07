"""The commands that put a fleet's storage and records in order; each says first what it would do, if asked."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from workers.commands.options import AsJson

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def janitor(
    dry_run: DryRun = False,
    grace_hours: Annotated[float, typer.Option(min=0, help="Leave alone what is younger than this.")] = 24.0,
    as_json: AsJson = False,
) -> None:
    """Remove from storage what has no owner: what broken attempts, lost races and deletions left behind.

    The workers do it themselves every few hours.
    """
    from pipeline.janitor import Janitor
    from pipeline.memory import SystemClock
    from workers.commands import fleet
    from workers.keeper import open_jobs_of

    wired = fleet.fleet(stored=True)
    store = wired.store
    sweeper = Janitor(
        wired.storage, store, open_jobs_of(store), SystemClock(), grace_s=grace_hours * 3600, dry_run=dry_run
    )
    objects = size = 0
    for finding in sweeper.sweep():
        objects, size = objects + finding.objects, size + finding.bytes
        _say(as_json, finding.reason.value, finding.asset, objects=finding.objects, bytes=finding.bytes)
    _end(as_json, f"{'would remove' if dry_run else 'removed'} {objects} objects, {size / 1e6:.1f} MB")


def reconcile(
    dry_run: DryRun = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also bring back the assets at rest, which nobody may ever ask for.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring a Redis that was lost or put back to what storage says. Run it once, after Redis is back.

    Assets that expire, and those whose latest version was never told, are known again, and go on in a new epoch of
    events; any other comes back when it is asked for. A job that only the lost Redis knew is gone: its asset is listed
    as unfinished.
    """
    from pipeline.reconcile import Reconciliation
    from workers.commands import fleet

    count = 0
    doorman = fleet.doorman(fleet.fleet(stored=True))
    for found in Reconciliation(doorman, everything=everything, dry_run=dry_run).run():
        count += 1
        _say(as_json, found.outcome.value, found.asset)
    _end(as_json, f"{count} assets {'would be' if dry_run else 'were'} mended or need a look")


def _say(as_json: bool, what: str, asset: str, **figures: int) -> None:
    from workers.commands import show

    if as_json:
        show.print_json({"what": what, "asset": asset, **figures})
        return
    details = "  ".join(f"{value} {name}" for name, value in figures.items())
    sys.stdout.write(f"{what:<10}  {asset:<12}  {details}".rstrip() + "\n")


def _end(as_json: bool, text: str) -> None:
    from workers.console import say

    if not as_json:
        say().print(text, highlight=False)
