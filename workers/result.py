"""How the job of a command ended, and how it is watched until then, whoever carries it out."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.events import Event
from pipeline.job import Job

CANCEL_S = 30.0
"""How long an interrupted command waits for its job to end, before it takes down what the job runs on."""

Look = Callable[[Job, Mapping[str, float]], None]
"""Shown the job and the fractions of its running steps, about four times a second."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How the job ended."""

    job: Job
    document: Mapping[str, Any]
    seconds: float
    """Wall time from the request to the end of the job."""
    interrupted: bool = False
    heard: tuple[int, int] = (0, 0)
    """(epoch, sequence) of the asset's last event."""
    told: Sequence[Event] = ()
    """All events, the newest first, where they were not written elsewhere."""


@contextmanager
def unmoved() -> Iterator[None]:
    """Inside, an interrupt changes nothing: one is being heeded already."""
    heeded = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)


def document_line(document: Mapping[str, Any]) -> str:
    """The asset document as it is printed by `--json`."""
    return json.dumps(document, indent=2, ensure_ascii=False)
