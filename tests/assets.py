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

from pipeline import keys
from pipeline.media.cues import Cue
from pipeline.media.webvtt import write_webvtt
from pipeline.ports import Storage
from pipeline.presentation.captions import text_track
from pipeline.presentation.compose import compose
from pipeline.presentation.model import Effect, Presentation
from pipeline.presentation.publish import latest, publish
from pipeline.storage import open_storage

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


def add_captions(root: Path, asset: str, cues: tuple[Cue, ...], *, language: str, name: str) -> Presentation:
    """Publish captions in an asset that is ready, as a step does that brings them."""
    return publish_captions(open_storage(root.as_uri()), asset, cues, language=language, name=name)


def publish_captions(storage: Storage, asset: str, cues: tuple[Cue, ...], *, language: str, name: str) -> Presentation:
    """… wherever it lies."""
    text = write_webvtt(cues).encode()
    key, effect = keys.subtitle(asset, f"text-{language}", "0a1b2c3d4e5f", "vtt"), Effect(job="test", step=language)
    storage.put(key, text)
    before = latest(storage, asset)
    assert before is not None
    track = text_track(
        f"text-{language}", language=language, name=name, key=key, size=len(text), duration=before.duration
    )
    return publish(
        storage,
        asset,
        effect,
        lambda last: compose(last, asset=asset, tracks=(track,), effect=effect, duration=before.duration),
    )
