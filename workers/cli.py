"""The command `reelway`: thin doors to what the other modules do.

`workers.commands` holds what the words do, a module a topic; here is the table of them. Heavy imports wait until a
command needs them, so that `--help` answers at once. Exit codes: 0 done, 1 failed with one coded line on stderr, 2
a wrong call or setting, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import typer

from pipeline.errors import PipelineError
from workers.commands import (
    dead,
    edits,
    events,
    forecast,
    local,
    look,
    machine,
    orders,
    sources,
    station,
    upkeep,
    uploads,
    versions,
    wishes,
)
from workers.console import fail, usage

COMMANDS: Mapping[str, Callable[..., Any]] = {
    # -- one machine
    "process": local.process,
    "play": local.play,
    "ls": local.list_assets,
    "demo": local.demo,
    "probe": sources.probe,
    "plan": forecast.plan,
    "corpus": local.corpus,
    # -- an asset of a folder or of a fleet: change what is played of it
    "trim": edits.trim,
    "revert": edits.revert,
    "versions": versions.versions,
    "trims": versions.trims,
    "clip": edits.clip,
    "duplicate": edits.duplicate,
    "export": edits.export,
    # -- a fleet: run
    "up": station.up,
    "worker": station.worker,
    # -- a fleet: ask
    "submit": wishes.submit,
    "upload": uploads.upload,
    "retry": wishes.retry,
    "reprocess": wishes.reprocess,
    "repackage": wishes.repackage,
    "subtitle": wishes.subtitle,
    "expire": wishes.expire,
    "delete": wishes.delete,
    # -- a fleet: look
    "status": look.status,
    "watch": look.watch,
    "why": look.why,
    "history": look.history,
    # -- a fleet: intervene
    "cancel": orders.cancel,
    "hold": orders.hold,
    "release": orders.release,
    "prioritize": orders.prioritize,
    # -- a fleet: put in order
    "janitor": upkeep.janitor,
    "reconcile": upkeep.reconcile,
    # -- this installation
    "doctor": machine.doctor,
    "version": machine.version,
}
"""Every command by its name, in the order in which `--help` shows them."""

GROUPS: Mapping[str, tuple[str, Mapping[str, Callable[..., Any]]]] = {
    "queues": (
        "What waits at each stage.",
        {"ls": orders.queues_ls, "pause": orders.queues_pause, "resume": orders.queues_resume},
    ),
    "dead": (
        "Jobs that failed for good.",
        {"ls": dead.dead_ls, "show": dead.dead_show, "replay": dead.dead_replay},
    ),
    "events": ("The stream of events.", {"tail": events.tail}),
    "uploads": (
        "Uploads in parts, step by step.",
        {
            "start": uploads.start,
            "parts": uploads.parts,
            "confirm": uploads.confirm,
            "complete": uploads.complete,
            "cancel": uploads.cancel,
            "ls": uploads.ls,
        },
    ),
}
"""Commands of two words: what the first is about, and the second ones."""


def _group(help_: str, commands: Mapping[str, Callable[..., Any]], name: str | None = None) -> typer.Typer:
    made = typer.Typer(
        name=name,
        help=help_,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for word, function in commands.items():
        made.command(word)(function)
    return made


app = _group("Turn a video into a streamable asset.", COMMANDS, "reelway")
for _name, (_help, _commands) in GROUPS.items():
    app.add_typer(_group(_help, _commands), name=_name)


def main() -> None:
    """Every command: errors of the catalogue end as one line, never as a traceback."""
    try:
        app()
    except PipelineError as error:
        (usage if error.code == "setting_invalid" else fail)(error)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)


if __name__ == "__main__":
    main()
