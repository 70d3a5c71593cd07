"""What a stage is: a function of files that knows no queue, no storage and no key (DESIGN §10)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from pipeline.media.handle import Handle

Input = Path | Handle
"""What a stage reads: a local file, or an object that its parent reads for it. What is small is always a file."""

Inputs = Mapping[str, Input]
"""By role (`source`)."""


class Outputs(Protocol):
    """Where a stage writes. A finished output is stored at once, while the stage goes on."""

    def path(self, name: str) -> Path:
        """The local file to write the output `name` to (`<track>/<start tick>.m4s`); its folder exists."""

    def done(self, name: str) -> None:
        """The output is complete. The file may be gone afterwards."""


Tick = Callable[[float], None]
"""Report progress (0 to 1), at least twice a second."""

Stage = Callable[[Any, Inputs, Outputs, Tick], Any]
"""`stage(task, inputs, out, tick) -> facts`. Raises `PipelineError`."""
