"""The pages that are made from the processes they document: the command and its settings.

`python -m workers.reference` writes them and a test compares them, so a page that is edited by hand does not last.
(`pipeline.reference` makes those of the library.)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from pydantic import SecretStr

from pipeline.reference import write
from workers.cli import app
from workers.settings import OTHER_VARIABLES, PREFIX, Settings

_MADE = "made by `python -m workers.reference`: change the code and run it again"
_WIDTH = 100

_COMPUTED = {
    "REELWAY_PROFILES_DIR": "the profiles that ship with Reelway",
    "REELWAY_SCRATCH_DIR": "the system's temporary folder",
    "REELWAY_WORKERS_HINT": "the number of cores",
    "REELWAY_SPEECH_CACHE": "where the hub's own tools put them",
}
"""Defaults that depend on the machine, in words."""


def cli() -> str:
    """What `--help` says of every command."""
    helps = _helps(typer.main.get_command(app), "reelway")
    pages = "\n".join(f"## {name}\n\n```text\n{said}\n```\n" for name, said in helps)
    return f"""# The command

<!-- {_MADE} -->

Exit codes: 0 done, 1 failed (one line on stderr: `error: <code>: …`, see [errors](errors.md)), 2 wrong call,
130 interrupted. With `--json` stdout carries JSON alone; everything else goes to stderr.

{pages}"""


def _helps(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, str]]:
    """Name and help of a command and of all below it. (The classes of a command's tree are typer's own business.)"""
    context = command.context_class(command, info_name=name.rpartition(" ")[2], parent=parent, terminal_width=_WIDTH)
    yield name, "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    for child in getattr(command, "commands", {}).values():
        yield from _helps(child, f"{name} {child.name}", context)


def settings() -> str:
    """Every setting as a table."""
    rows = (f"| `{name}` | {_default(name, field)} | {field.description} |" for name, field in _fields())
    others = (f"| `{name}` | {said} |" for name, said in OTHER_VARIABLES.items())
    return f"""# Settings

<!-- {_MADE} -->

A process reads its whole environment once, when it starts. Every setting has a default, and an empty variable counts
as not set. [settings.example.env](settings.example.env) has them all in the form that `docker run --env-file` and
systemd's `EnvironmentFile=` read. A wrong value stops the process with one line that names the variable. A variable
that begins with `{PREFIX}` and is not listed here is probably misspelt: `reelway doctor` names it.

| variable | default | meaning |
|---|---|---|
{chr(10).join(rows)}

A setting may be given as a file instead: put a file with the variable's name into a folder, and name the folder in
`REELWAY_SECRETS_DIR`. That is how Kubernetes and Docker mount secrets. The environment goes before the file.

The URLs of sources may hold signatures and tokens. They are sealed where a request is accepted and erased once the
source is fetched, so that no record, event or log holds them. Until it is accepted, a request lies on the stream
`reelway:requests` as it was sent, with the whole URL: for moments, and for as long as the storage is away or nobody
takes it; Redis's append-only file keeps it until it is rewritten (`BGREWRITEAOF`), a backup of these for ever. Let
URLs expire where Redis's files are read by others. Without `REELWAY_SEAL_KEY` the fleet makes a key once and keeps it
in its storage: Redis alone then tells nothing of what was accepted, but who may read `private/` of the storage (the
owner of the bucket, its replicas and backups) could open what waits. Set a key of your own where that is somebody
else, the same for every process of the fleet. To change it, first give every process `old,new`, then `new,old`, and
drop the old one when no job from before waits or failed. `reelway doctor` says which key is in use.

Read beside the settings:

| variable | meaning |
|---|---|
{chr(10).join(others)}

The credentials of S3 are not settings of ours: boto3 finds them where it always does (`AWS_ACCESS_KEY_ID`, profiles,
the machine's role).

How pictures and sound are encoded is not set here but in [profiles](profiles): a request names one.
"""


def example() -> str:
    """Every setting as a line of an environment file, with its default."""
    lines = [
        "# Every setting with its default. Copy it, and uncomment what you change.",
        "# Made by `python -m workers.reference`; config/README.md says more.",
    ]
    for name, field in _fields():
        words = _COMPUTED.get(name)
        comment = f"{field.description} Default: {words}." if words else field.description
        lines += ["", f"# {comment}", f"#{name}={'' if words else _shown(field.default)}"]
    return "\n".join(lines) + "\n"


def _fields() -> Iterator[tuple[str, Any]]:
    for name, field in Settings.model_fields.items():
        yield f"{PREFIX}{name.upper()}", field


def _default(name: str, field: Any) -> str:
    shown = _shown(field.default)
    return _COMPUTED.get(name) or (f"`{shown}`" if shown else "")


def _shown(value: object) -> str:
    """A default as one would write it into the environment."""
    if value is None or isinstance(value, SecretStr):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


PAGES: Mapping[str, Callable[[], str]] = {
    "docs/reference/cli.md": cli,
    "config/README.md": settings,
    "config/settings.example.env": example,
}
"""Every generated page by its path in the repository."""


if __name__ == "__main__":
    for written in write(Path(sys.argv[1] if len(sys.argv) > 1 else "."), PAGES):
        print(written)
