"""The pages that are made from the code they document.

`python -m pipeline.reference` writes them and a test compares them, so a page that is edited by hand does not last.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pipeline import asyncapi, organizations, profile
from pipeline.errors import CATALOGUE, ErrorSpec
from pipeline.job import TRANSITIONS, Move, Status

_MADE = "made by `python -m pipeline.reference`: change the code and run it again"


def states() -> str:
    """Every status and every legal move of a step, drawn from `pipeline.job.TRANSITIONS`."""
    moves = [f"    {before} --> {after}: {move}" for (before, move), after in TRANSITIONS.items()]
    ends = [f"    {status} --> [*]" for status in Status if status.settled]
    diagram = ["```mermaid", "stateDiagram-v2", f"    [*] --> {Status.WAITING}", *moves, *ends, "```"]
    return "\n".join(
        [
            "# The life of a step",
            "",
            f"<!-- {_MADE} -->",
            "",
            "A step moves along these arrows and no others; a move that is not drawn is refused. A step that needs "
            f"nothing begins its life as `{Status.READY}`.",
            "",
            *diagram,
            "",
            f"Statuses: {', '.join(f'`{status}`' for status in Status)}.",
            "",
            f"Moves: {', '.join(f'`{move}`' for move in Move)}.",
            "",
        ]
    )


def errors() -> str:
    """The error catalogue as a table."""
    return "\n".join(
        [
            "# Errors",
            "",
            f"<!-- {_MADE} -->",
            "",
            "A code is a stable name: it stands in the event, in the log line, as a metric label and on the command "
            "line. Names in braces are values that come with the error. A step that fails with a code marked *again* "
            "backs off and is tried again; any other failure is final.",
            "",
            "| code | message | what to do | again |",
            "|---|---|---|---|",
            *(_row(spec) for spec in CATALOGUE.values()),
            "",
        ]
    )


def _row(spec: ErrorSpec) -> str:
    return f"| `{spec.code}` | {spec.message} | {spec.hint} | {'yes' if spec.retryable else ''} |"


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    "docs/reference/asyncapi.json": lambda: _json(asyncapi.document()),
    "docs/reference/errors.md": errors,
    "docs/reference/states.md": states,
    "config/profiles/profile.schema.json": lambda: _json(profile.schema()),
    "config/organizations.schema.json": lambda: _json(organizations.schema()),
}
"""Every generated page by its path in the repository."""


def write(root: Path, pages: Mapping[str, Callable[[], str]] = PAGES) -> Iterator[Path]:
    """Write every page under `root`; yields the paths."""
    for name, page in pages.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(), encoding="utf-8")
        yield path


if __name__ == "__main__":
    for written in write(Path(sys.argv[1] if len(sys.argv) > 1 else ".")):
        print(written)
