"""A look at a file ends, whatever becomes of the process that looks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from makers import make_clip

from pipeline.errors import PipelineError
from pipeline.plan import INGEST
from pipeline.sandbox import ChildKilled, ChildLimits, Nursery
from pipeline.stages import STAGES
from pipeline.tasks import Limits
from workers import inspection


def test_what_is_learned_has_its_keyframes(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", seconds=1, gop=5)

    media = inspection.inspect(clip, Limits(), ChildLimits())

    assert media.video is not None
    assert media.video.frames == 25
    assert len(media.keyframes) == 5


def test_a_child_without_memory_is_a_coded_error(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", seconds=1, size=(1920, 1080), options={"preset": "ultrafast"})

    with pytest.raises(PipelineError) as caught:
        inspection.inspect(clip, Limits(), ChildLimits(memory_bytes=1024**2))

    assert caught.value.code


class Silent:
    """A child that never says anything."""

    def __init__(self) -> None:
        self.killed = False

    def run(self, *_order: Any) -> Iterator[dict[str, Any]]:
        while not self.killed:
            time.sleep(0.01)
            yield {}
        raise ChildKilled

    def kill(self) -> None:
        self.killed = True

    def close(self) -> None:
        self.kill()


def test_a_look_that_stands_still_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"anything")
    child = Silent()
    monkeypatch.setattr(Nursery, "child", lambda _nursery: child)
    monkeypatch.setattr(inspection, "STAGES", {INGEST: replace(STAGES[INGEST], stall_s=0.05)})

    with pytest.raises(PipelineError, match="stalled"):
        inspection.inspect(tmp_path / "clip.mp4", Limits(), ChildLimits())

    assert child.killed
