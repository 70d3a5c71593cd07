"""The commands that change what a fleet does right now; they are done when they return, with or without workers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import PipelineError
from pipeline.job import Priority
from workers.commands import fleet
from workers.commands.options import AsJson, AssetId
from workers.console import say, usage

if TYPE_CHECKING:
    from workers.wiring import Control

Stages = Annotated[list[str] | None, typer.Argument(metavar="[STAGE]…", help="The stages; all of them if left out.")]


def cancel(asset: AssetId) -> None:
    """Stop the jobs of an asset that have not ended; nothing that is public goes away by it."""
    _do("asset.cancel", asset)


def hold(asset: AssetId) -> None:
    """Begin no further step of an asset until it is released; what runs goes on."""
    _do("asset.hold", asset)


def release(asset: AssetId) -> None:
    """Let an asset that was held go on."""
    _do("asset.release", asset)


def prioritize(
    asset: AssetId, priority: Annotated[Priority, typer.Argument(help="How soon its steps begin from now on.")]
) -> None:
    """Give the jobs of an asset that have not ended another priority."""
    _do("asset.prioritize", asset, priority=priority)


def _do(type_: str, asset: str, **fields: Any) -> None:
    """Carry out a request here and now, and print the ids of the jobs that it touched."""
    wish = fleet.request(type_, asset_id=asset, **fields)
    try:
        jobs = fleet.doorman(fleet.fleet()).handle(wish)
    except PipelineError as error:
        fleet.refused(error)
    if not jobs:
        say().print(f"no job of {asset} is open: nothing changed", highlight=False)
    sys.stdout.write("".join(f"{job}\n" for job in jobs))


# -- queues -----------------------------------------------------------------------------------------------------------


def queues_ls(as_json: AsJson = False) -> None:
    """Show what waits at each stage, and for whom."""
    from workers.commands import show

    control = fleet.fleet()
    queues = show.queues(control.store.queues(), control.registry.workers())
    if as_json:
        show.print_json(queues)
    else:
        show.paper().print(show.queues_table(queues))


def queues_pause(stages: Stages = None) -> None:
    """Give out no further step of a stage until it is resumed; what runs, or was given out before, goes on."""
    _pause(fleet.fleet(), stages, True)


def queues_resume(stages: Stages = None) -> None:
    """Let a stage go on."""
    _pause(fleet.fleet(), stages, False)


def _pause(control: Control, stages: list[str] | None, paused: bool) -> None:
    from pipeline.stages import STAGES

    unknown = [stage for stage in stages or () if stage not in STAGES]
    if unknown:
        detail = f"unknown stage {unknown[0]!r}; known are {', '.join(STAGES)}"
        usage(PipelineError("parameter_invalid", detail=detail))
    for stage in stages or STAGES:
        control.store.pause(stage, paused)
