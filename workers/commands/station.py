"""The commands that stay: the workers of a machine, and a whole fleet on one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import PipelineError
from workers.commands.options import PLAY_PORT
from workers.console import usage

DATA = Path("reelway-data")
Processes = Annotated[int | None, typer.Option(min=1, help="Worker processes; one a core if left out.")]


def worker(
    stages: Annotated[str, typer.Option(help="Only these stages, e.g. transcode,audio; all if left out.")] = "",
    processes: Processes = None,
    drain: Annotated[bool, typer.Option("--drain", help="End by itself when nothing is left to do for them.")] = False,
) -> None:
    """Run the workers of this machine. SIGTERM drains them, a second one hands back at once."""
    from workers import logs
    from workers.settings import Settings
    from workers.station import work

    said: dict[str, Any] = {**({"stages": stages} if stages else {}), **({"drain": True} if drain else {})}
    try:
        settings = Settings.read(**said)
    except PipelineError as error:
        usage(error)
    logs.configure(settings.log_level)
    try:
        sys.exit(work(settings, processes))
    except PipelineError as error:
        usage(error)


def up(
    data: Annotated[Path, typer.Option("--data", help="Folder that keeps everything.")] = DATA,
    processes: Processes = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the player's page; 0: any.")] = PLAY_PORT,
) -> None:
    """Start a whole fleet on this machine, and stay."""
    from workers.station import up as start

    try:
        sys.exit(start(data, processes, port))
    except PipelineError as error:
        if error.code in ("parameter_invalid", "setting_invalid", "storage_differs"):
            usage(error)
        raise
