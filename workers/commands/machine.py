"""The commands about this machine and this installation."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from workers.commands.options import AsJson


def doctor(
    storage: Annotated[
        str | None, typer.Option(help="Prove this bucket or folder; REELWAY_STORAGE_URL if it is set.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is missing here and how to mend it."""
    from workers import doctor as checks

    sys.exit(checks.run(as_json, storage))


def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(f"reelway {installed('reelway')}")
