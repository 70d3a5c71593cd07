"""One file on trial: through real ingest, and where that takes it through the first chunk and the first sound.

Every stage runs in a sandbox of its own, as on a worker; what only a worker would do (storing, publishing) is left out.

with Court(folder) as court: verdict = court.try_(path)
"""

from __future__ import annotations

import os
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from builders import a_profile

from pipeline.errors import CATALOGUE, PipelineError
from pipeline.media import timeline as grid
from pipeline.plan import blueprint
from pipeline.ports import StoredObject
from pipeline.ranges import Given, Served, serving
from pipeline.requests import ProcessRequest
from pipeline.sandbox import ChildKilled, ChildLimits, Nursery
from pipeline.storage.folder import FolderStorage
from pipeline.tasks import (
    USUAL_LIMITS,
    AudioTask,
    Blueprint,
    IngestFacts,
    IngestTask,
    Limits,
    Task,
    TranscodeTask,
    from_json,
    to_json,
)

UNCODED = ("stage_failed", "hang", "worker")
"""Outcomes that are findings: an error that nobody translated, no end, an error outside of the sandbox."""
_READY = {"ok", *CATALOGUE}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of one file."""

    name: str
    outcome: str
    """`ok`, a code of the catalogue, `hang`, or `worker` for an error outside of the sandbox."""
    stage: str
    """Where it ended."""
    seconds: float
    peak_bytes: int
    """Of the largest of its processes."""
    detail: str = ""
    params: Mapping[str, str | int | float] = field(default_factory=dict)

    @property
    def coded(self) -> bool:
        return self.outcome in _READY and self.outcome not in UNCODED

    @property
    def crashed(self) -> bool:
        return self.outcome == "stage_crashed"


class Court:
    """Children of one nursery; `try_` may be called by several threads."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: ChildLimits | None = None,
        media: Limits = USUAL_LIMITS,
        longest_s: float = 30.0,
        resolutions: tuple[str, ...] = ("240p",),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.nursery = Nursery(folder)
        self.folder = folder
        self._limits = limits or ChildLimits()
        self._media = media
        self._longest_s = longest_s
        self._resolutions = resolutions

    def __enter__(self) -> Court:
        self.nursery.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.nursery.close()

    def try_(self, path: Path, *, served: bool = False, name: str = "") -> Verdict:
        """`served`: it is read by a handle, as an object in a bucket is."""
        trial = _Trial(self, path, served, name or path.name)
        folder = self.folder / f"step-{os.urandom(6).hex()}"
        try:
            return trial.run(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def left(self) -> list[str]:
        """What children left in the scratch folder."""
        return sorted(path.name for path in self.folder.iterdir() if path.name.startswith(("step-", "child-")))


class _Hang(Exception):
    """No progress for too long, or no end."""


_MOST_S = 300.0


class _Trial:
    def __init__(self, court: Court, path: Path, served: bool, name: str) -> None:
        self._court = court
        self._path = path
        self._served = served
        self._name = name
        self._stage = "ingest"
        self._peak = 0

    def run(self, folder: Path) -> Verdict:
        began, outcome, detail, params = time.monotonic(), "ok", "", {}
        try:
            self._all(folder)
        except PipelineError as error:
            outcome, detail, params = error.code, f"{error.params.get('reason', '')} {error.log or ''}", error.params
        except _Hang:
            outcome = "hang"
        except Exception:  # in a worker it would be an error outside of the sandbox
            outcome, detail = "worker", traceback.format_exc()
        seconds = time.monotonic() - began
        return Verdict(
            name=self._name,
            outcome=outcome,
            stage=self._stage,
            seconds=round(seconds, 3),
            peak_bytes=self._peak,
            detail=detail.strip()[-2000:],
            params=params,
        )

    def _all(self, folder: Path) -> None:
        task = IngestTask(asset="asset000001", url="", source="source", limits=self._court._media)
        facts = from_json(IngestFacts, self._child("ingest", task, folder))
        request = ProcessRequest(url="source", resolutions=self._court._resolutions)
        drawn = blueprint(facts, a_profile(), request)
        for stage, task_ in _first_parts(drawn):
            self._child(stage, task_, folder)

    def _child(self, stage: str, task: Task, folder: Path) -> str:
        self._stage, facts = stage, ""
        out = folder / stage
        out.mkdir(parents=True)
        began = moved = time.monotonic()
        given = self._given()
        with serving([given]):
            child = self._court.nursery.child([given])
            try:
                for message in child.run(stage, to_json(task), {"source": given}, out, self._court._limits):
                    facts = message.get("facts", facts)
                    if str(message.get("done", "")).endswith(".m4s"):  # as a worker does that has stored it
                        (out / message["done"]).unlink()
                    moved = time.monotonic() if message else moved
                    if time.monotonic() - moved > self._court._longest_s:
                        raise _Hang
                    if time.monotonic() - began > _MOST_S:
                        raise _Hang
            except ChildKilled:
                raise PipelineError("stage_interrupted", stage=stage) from None
            finally:
                child.close()
                self._peak = max(self._peak, child.peak_bytes)
        return facts

    def _given(self) -> Given:
        if not self._served:
            return self._path
        stored = StoredObject(key=self._path.name, size=self._path.stat().st_size, etag="", modified_ms=0)
        return Served(FolderStorage(self._path.parent), stored, lambda: None)


def _first_parts(drawn: Blueprint) -> Iterator[tuple[str, Task]]:
    """The first chunk and the first sound."""
    if drawn.rungs and drawn.media.video is not None:
        segments = len(grid.segment_starts(drawn.timeline))
        yield (
            "transcode",
            TranscodeTask(
                asset="asset000001",
                source="source",
                video=drawn.media.video,
                timeline=drawn.timeline,
                rungs=drawn.rungs,
                first_segment=0,
                last_segment=min(2, segments),
                seekable=drawn.media.seekable,
                encoder=drawn.encoder,
            ),
        )
    if drawn.audio:
        yield (
            "audio",
            AudioTask(asset="asset000001", source="source", rendition=drawn.audio[0], timeline=drawn.timeline),
        )
