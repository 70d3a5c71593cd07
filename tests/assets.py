"""Assets made the way a user makes them: by the command, from a file."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from makers import make_clip

TIMEOUT_S = 300
"""Far more than it takes: a hang becomes a failure."""


@dataclass(frozen=True, kw_only=True)
class MadeAsset:
    """A folder that `reelway process` made, and what its source was."""

    root: Path
    id: str
    document: dict[str, Any]
    """What `--json` printed."""
    frames: int
    rate: Fraction
    rungs: int
    """How many pictures there are to choose from."""

    @property
    def duration(self) -> Fraction:
        """Seconds."""
        return self.frames / self.rate


def make_asset(folder: Path) -> MadeAsset:
    """A little over ten seconds with picture and sound, as three rungs: the last segment is shorter than the others."""
    rate, frames = Fraction(25), 253
    clip = make_clip(folder / "clip.mp4", seconds=frames / rate, rate=rate, size=(854, 480))
    command = [sys.executable, "-m", "workers.cli", "process", str(clip), "--out", str(folder / "out")]
    options = ["--resolutions", "240p,360p,480p", "--profile", "fast", "--json"]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, check=True, timeout=TIMEOUT_S)
    document = json.loads(done.stdout)
    return MadeAsset(root=folder / "out", id=document["id"], document=document, frames=frames, rate=rate, rungs=3)
