"""`reelway plan`: what would be made of a file, in the words of the real plan, and nothing is made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from catalogue import told
from makers import make_clip

PATIENCE_S = 120


def reelway(*words: str | Path, code: int = 0, **settings: str) -> str:
    """What the command printed; of one that failed, its one line on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "workers", *map(str, words)],
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return told(done.stderr) if code else done.stdout


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=Fraction(9), languages=("eng", "deu"))


def test_a_plan_is_what_is_then_done(clip: Path, tmp_path: Path) -> None:
    """The same tracks and the same steps; and nothing is above its cap."""
    options = ("--resolutions", "240p", "--profile", "fast")
    said = json.loads(reelway("plan", clip, *options, "--json", REELWAY_WORKERS_HINT="2"))
    assert list(clip.parent.iterdir()) == [clip], "nothing was made"

    words = ("--out", tmp_path / "out", "--events", tmp_path / "events", "--json")
    document = json.loads(reelway("process", clip, *options, *words, REELWAY_WORKERS_HINT="2"))

    events: list[dict[str, Any]] = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    done = {event["data"]["step"] for event in events if ".step.finished." in event["type"]}
    assert {step["id"] for step in said["steps"]} == done
    made = {rendition["name"]: rendition["bytes"] for rendition in document["video"]["renditions"]}
    promised = {track["track"]: track["most_bytes"] for track in [*said["video"], *said["audio"]]}
    assert made.keys() == promised.keys()
    assert all(made[name] <= promised[name] for name in made)


def test_a_plan_is_read_by_people(clip: Path) -> None:
    text = reelway("plan", clip, "--workers", "16")

    for words in ("video-180p", "audio-1-en", "audio-2-de", "on 16 workers", "An estimate", "at most"):
        assert words in text


@pytest.mark.raises_code("video_duration_too_long", "media_url_not_accessible", "parameter_invalid", "profile_unknown")
def test_what_would_be_refused_is_one_line(clip: Path, tmp_path: Path) -> None:
    refused = reelway("plan", clip, code=1, REELWAY_SOURCE_MAX_DURATION_S="2")

    assert refused.startswith("error: video_duration_too_long: The video lasts 9 s; 0 to 2 s are accepted. ")
    assert len(refused.splitlines()) == 1
    assert "media_url_not_accessible" in reelway("plan", tmp_path / "nothing.mp4", code=1)
    assert "parameter_invalid" in reelway("plan", clip, "--resolutions", "9p", code=2)
    assert "profile_unknown" in reelway("plan", clip, "--profile", "nosuch", code=2)
