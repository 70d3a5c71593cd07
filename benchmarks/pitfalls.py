"""Known failures, stock dramatiq's figures beside ours: `python -m benchmarks.pitfalls [--only NAME] [--runs 1]`.

Each row is a story of `tests/regressions`, lived through in both worlds on a real Redis; the same stories are
regression tests. Nothing is measured in seconds: what counts is what became of the work.
"""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from collections import Counter
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from regressions.rows import ROWS, WORLDS, Row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--runs", type=int, default=1, help="of each row in each world")
    options = parser.parse_args()
    _be_quiet()
    print("| what goes wrong | stock dramatiq | ours |\n|---|---|---|")
    for row in ROWS:
        if options.only in row.name:
            print(f"| {_told(row)} | {' | '.join(_seen(row, world, options.runs) for world in WORLDS)} |", flush=True)


def _told(row: Row) -> str:
    return row.trap.rstrip(".") + (f" (`{row.client}=`)" if row.client != "url" else "")


def _seen(row: Row, world: str, runs: int) -> str:
    """What was seen; where runs differ, how often each."""
    seen = Counter(_words(row, world) for _ in range(runs))
    return "; ".join(words if len(seen) == 1 else f"{times} × {words}" for words, times in seen.most_common())


def _words(row: Row, world: str) -> str:
    def said(value: int | bool) -> str:
        return str(value) if not isinstance(value, bool) else "yes" if value else "no"

    return ", ".join(f"{name}: {said(value)}" for name, value in row.seen(world).items())


def _be_quiet() -> None:
    """What fails there fails loudly, and on purpose."""
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    threading.excepthook = lambda _: None


if __name__ == "__main__":
    main()
