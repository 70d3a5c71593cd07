"""What a worker holds while it does one step: the task, a scratch folder, and everything it needs to do it.

The handlers of the steps (`ingesting`, `parts`, `publishing`, `captioning`, `editing`, …) get one `Held` each and
return the step's `Answer`. Whatever touches storage happens in the parent, here and there; the stage, which runs in a
child of its own, sees only files and ranges.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Generic, TypeVar

from pipeline import keys
from pipeline.conductor import Attempt, Conductor
from pipeline.download import PUBLIC_WEB, Web
from pipeline.errors import PipelineError
from pipeline.numbers import Numbers
from pipeline.places import Places
from pipeline.ports import Clock, ObjectNotFound, ProgressBoard, Storage, StoredObject
from pipeline.ranges import Given, Served, serving
from pipeline.sandbox import ChildKilled, ChildLimits, Nursery
from pipeline.storage.buckets import NO_BUCKETS, Buckets
from pipeline.storage.side_by_side import SideBySide
from pipeline.tasks import Task, to_json
from pipeline.watch import Watch

Asked = TypeVar("Asked", bound=Task)
Keep = Callable[[str, Path], None]
"""What becomes of an output, by its name. Called from several threads, but with an init segment before the others."""


@dataclass(frozen=True, kw_only=True)
class BenchLimits:
    """What one attempt may take."""

    child: ChildLimits = field(default_factory=ChildLimits)
    wall_s: float = 6 * 3600.0
    local_sources: bool = False
    """Sources may be files of this machine (a private fleet); never where strangers send requests."""
    web: Web = PUBLIC_WEB
    """How sources come from the web, and from where they may."""
    buckets: Buckets = NO_BUCKETS
    """Buckets from which sources may come."""

    @property
    def places(self) -> Places:
        """From where sources may be used in place."""
        return Places(buckets=self.buckets, local=self.local_sources)


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What all attempts of a worker share."""

    conductor: Conductor
    storage: Storage
    progress: ProgressBoard
    clock: Clock
    nursery: Nursery
    numbers: Numbers
    limits: BenchLimits


@dataclass
class Held(Generic[Asked]):
    """One attempt, as its handler sees it."""

    attempt: Attempt
    task: Asked
    scratch: Path
    watch: Watch
    tools: Tools
    cpu_s: float = 0.0
    """Seconds of processor time that its stages took."""

    @property
    def storage(self) -> Storage:
        return self.tools.storage

    @property
    def conductor(self) -> Conductor:
        return self.tools.conductor

    @property
    def limits(self) -> BenchLimits:
        return self.tools.limits

    def moved(self) -> None:
        """There was progress. Raises `Stopped` when the attempt must not go on."""
        self.watch.moved()
        self.watch.check()

    # -- the stage ----------------------------------------------------------------------------------------------------

    def run(
        self,
        inputs: Mapping[str, Given],
        keep: Keep,
        *,
        stage: str | None = None,
        task: Task | None = None,
        limits: ChildLimits | None = None,
    ) -> str:
        """Run a stage's child to its end: the step's own on its task, or another. Returns its facts as JSON."""
        self.watch.check()
        stage, task = stage or self.attempt.step.stage, task or self.task
        out = Path(mkdtemp(prefix="out-", dir=self.scratch))
        facts = ""
        with serving(inputs.values()), SideBySide(self.moved) as several:
            child = self.tools.nursery.child(inputs.values())
            try:
                self.watch.guard(child)
                for message in child.run(stage, to_json(task), inputs, out, limits or self.limits.child):
                    self.watch.check()
                    if "tick" in message:
                        self.watch.moved()
                        self.tools.progress.report(self.attempt.ref, message["tick"])
                    elif "done" in message:
                        _keep(several, keep, message["done"], _inside(out, message["done"]))
                        self.watch.moved()
                    facts = message.get("facts", facts)
            except ChildKilled:
                self.watch.check()
                raise PipelineError("stage_crashed", stage=stage, reason="killed") from None
            finally:
                self.cpu_s += child.cpu_s
                child.kill()
                child.close()
        self.watch.check()
        return facts

    def no_outputs(self, name: str, path: Path) -> None:
        """What becomes of the outputs of a stage that has none."""
        raise AssertionError(f"{self.attempt.step.stage} has no outputs, but made {name}")

    # -- its inputs ---------------------------------------------------------------------------------------------------

    def source(self, key: str, asset: str | None = None) -> Given:
        """The source of an asset (of the task's own) that lies at `key`.

        In place where storage is a folder; else the stage reads what it needs of it, and no more.
        """
        if not keys.is_ours(key):
            return self._placed(asset or self.task.asset)
        path = self.storage.local_path(key)
        if path is not None:
            return path
        stored = self.storage.stat(key)
        if stored is None:
            raise ObjectNotFound(key)
        return Served(self.storage, stored, self.watch.moved)

    def _placed(self, asset: str) -> Given:
        """The source that stays where it lies, with the content that it had at ingest."""
        source = self.limits.places.source(self.storage, asset)
        if isinstance(source, Path):
            return source
        stored = StoredObject(key=source.key, size=source.size, etag=source.etag, modified_ms=0)
        # Its own name is somebody else's choice.
        name = keys.source(asset, source.key).rpartition("/")[2]
        return Served(source, stored, self.watch.moved, name=name)

    def copies(self, names: Mapping[str, str]) -> dict[str, Given]:
        """Small objects as files: inputs by name, from keys by name. Some at a time: a round trip takes longer than the
        bytes."""
        inputs: dict[str, Given] = {}

        def copy(name: str, key: str) -> None:
            inputs[name] = self.copy(key)

        with SideBySide(self.moved) as several:
            for name, key in names.items():
                several.do(partial(copy, name, key))
        return inputs

    def copy(self, key: str) -> Path:
        """A small object as a file."""
        path = self.storage.local_path(key)
        if path is None:
            path = self.scratch / hashlib.sha256(key.encode()).hexdigest()[:16]
            path.write_bytes(self.storage.get(key))
        return path


_OUTPUT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)?")


def _inside(folder: Path, name: str) -> Path:
    """The file of an output; what a child says is not believed: no way out of its folder, and no link."""
    path = folder / name
    if not _OUTPUT.fullmatch(name) or path.resolve() != folder.resolve() / name:
        raise PipelineError("stage_failed", stage="sandbox", reason="an output outside of its folder")
    return path


def _keep(several: SideBySide, keep: Keep, name: str, path: Path) -> None:
    """Store an output beside others, while the stage goes on; scratch holds no more than these."""

    def kept() -> None:
        keep(name, path)
        path.unlink(missing_ok=True)

    if name.endswith("/init.mp4"):
        kept()  # a segment that is there already is described with it
    else:
        several.do(kept)
