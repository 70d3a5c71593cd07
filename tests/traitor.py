"""A real worker, `python tests/traitor.py`, whose ingest tells all that it knows, or dies, where a source says so."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from pipeline.media.handle import Handle
from pipeline.stages import STAGES
from pipeline.stages.contract import Inputs, Outputs, Tick
from pipeline.stages.ingest import ingest as honest
from pipeline.tasks import IngestFacts, IngestTask

BETRAY, CRASH, WAIT = b"betray! ", b"crash!  ", b"wait!   "
"""A source that begins so is followed by nothing that matters."""


def ingest(task: IngestTask, inputs: Inputs, out: Outputs, tick: Tick) -> IngestFacts:
    begins = _begins(inputs["source"])
    if begins == BETRAY:
        _betray(task)
    if begins == CRASH:
        print(_known(task), file=sys.stderr, flush=True)
        ctypes.string_at(0)
    while begins == WAIT:
        tick(0.5)
        time.sleep(0.05)
    return honest(task, inputs, out, tick)


def _begins(source: Any) -> bytes:
    reader = source.open() if isinstance(source, Handle) else source.open("rb")
    return bytes(reader.read(8))


def _betray(task: IngestTask) -> NoReturn:
    raise LookupError(_known(task))


def _known(task: IngestTask) -> str:
    """Everything that hostile code inside of a stage can reach."""
    told = [f"all that I know: {task.url} {task!r} {dict(os.environ)} {sys.argv}"]
    for process in ("self", str(nursery := os.getppid()), _parent(nursery)):
        for name in ("environ", "cmdline"):
            with suppress(OSError):
                told.append(str(Path("/proc", process, name).read_bytes()))
    return "\n".join(told)


def _parent(pid: int) -> str:
    with suppress(OSError):
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1]
    return "self"


if __name__ == "__main__":
    from workers.main import main

    index: Any = STAGES
    index["ingest"] = replace(STAGES["ingest"], function="traitor:ingest")
    sys.exit(main())
