"""The pages that are made from the code they document.

`python -m pipeline.reference` writes them and a test compares them, so a page that is edited by hand does not last.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline import asyncapi, events, organizations, profile
from pipeline.errors import CATALOGUE, ErrorSpec
from pipeline.job import TRANSITIONS, Move, Status
from pipeline.media import notes, standard

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
    """The error catalogue as a table: the values of each code, and the modules that name it."""
    raisers = _raisers()
    return "\n".join(
        [
            "# Errors",
            "",
            f"<!-- {_MADE} -->",
            "",
            "A code is a stable name: it stands in the event, in the log line, as a metric label and on the command "
            "line. Names in braces are values that come with the error, under these names in its `params`. A step that "
            "fails with a code marked *again* (`retryable`) backs off and is tried again; any other failure is final.",
            "",
            "| code | message | what to do | values | again | raised in |",
            "|---|---|---|---|---|---|",
            *(_row(spec, raisers.get(spec.code, [])) for spec in CATALOGUE.values()),
            "",
        ]
    )


def _row(spec: ErrorSpec, raisers: Sequence[str]) -> str:
    cells = (
        f"`{spec.code}`",
        spec.message,
        spec.hint,
        ", ".join(f"`{name}`" for name in spec.values),
        "yes" if spec.retryable else "",
        ", ".join(f"`{name}`" for name in raisers),
    )
    return f"| {' | '.join(cells)} |"


def _raisers() -> Mapping[str, list[str]]:
    """Modules of the product by the codes that they raise: that hand one to a call."""
    root = Path(__file__).resolve().parents[1]
    found: dict[str, list[str]] = {}
    for file in sorted(path for package in ("pipeline", "workers") for path in (root / package).rglob("*.py")):
        name = ".".join(file.relative_to(root).with_suffix("").parts)
        if name in _ONLY_NAMES_THEM:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for code in sorted({code for node in ast.walk(tree) for code in _codes(node)}):
            found.setdefault(code, []).append(name)
    return found


_ONLY_NAMES_THEM = ("pipeline.errors", "pipeline.asyncapi", "pipeline.reference")


def _codes(node: ast.AST) -> Iterator[str]:
    """Codes that a call is given, also one of two."""
    for given in node.args if isinstance(node, ast.Call) else ():
        for part in (given.body, given.orelse) if isinstance(given, ast.IfExp) else (given,):
            if isinstance(part, ast.Constant) and part.value in CATALOGUE:
                yield str(part.value)


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def sources() -> str:
    """The words that say what is unusual about a source, and what keeps it from being standard input."""
    return "\n".join(
        [
            "# What is learned of a source",
            "",
            f"<!-- {_MADE} -->",
            "",
            "Ingest reads every packet of a source once and decodes some frames of each stream; it counts durations, "
            "rates and bit rates instead of believing a header. What it learned is `private/<asset>/media.json`, with "
            "the time of every keyframe. `asset.ingested` carries it without those, and tells of at most "
            f"{events.MOST_LISTED} streams of a kind (`unlisted` counts the others). `reelway probe FILE` says it of a "
            "file of this machine, with nothing running.",
            "",
            "Times are seconds and, like rates, exact fractions: `30000/1001`. To show the picture, scale it so that "
            "pixels are square, swap left and right if it is `mirrored`, then turn it `rotation` degrees clockwise.",
            "",
            "## Notes",
            "",
            "A note is no refusal. All of these are served; a stream that cannot be is left out.",
            "",
            *_words("note", notes.SENTENCES),
            "",
            "## Standard input",
            "",
            "`standard.reasons` says what keeps the file from being played everywhere as it is; empty, it would be. It "
            "is recorded, and nothing follows from it.",
            "",
            *_words("reason", standard.SENTENCES),
            "",
        ]
    )


def _words(title: str, sentences: Mapping[str, str]) -> list[str]:
    rows = [f"| `{word}` | {sentence} |" for word, sentence in sorted(sentences.items())]
    return [f"| {title} | it means |", "|---|---|", *rows]


PAGES: Mapping[str, Callable[[], str]] = {
    "docs/reference/asyncapi.json": lambda: _json(asyncapi.document()),
    "docs/reference/errors.md": errors,
    "docs/reference/sources.md": sources,
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
