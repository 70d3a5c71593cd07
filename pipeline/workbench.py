"""One step on one machine: hold the lease, do the step by its handler, tell the conductor.

The table of handlers, at the end, says which module does which step. Everything that touches keys, uploads and public
state happens there, in the parent; the stage sees only files. Whatever becomes of the attempt, its scratch folder is
gone afterwards, and exactly one of finish, fail, hand back or nothing (the step is no longer ours) reaches the
conductor.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import plan
from pipeline.answers import Answer
from pipeline.captioning import subtitle
from pipeline.conductor import Attempt, Conductor
from pipeline.editing import revise, trim
from pipeline.errors import PipelineError
from pipeline.exporting import export
from pipeline.held import BenchLimits, Held, Tools
from pipeline.ingesting import ingest
from pipeline.job import JobStatus
from pipeline.numbers import Numbers
from pipeline.packaging import package
from pipeline.parts import make_parts
from pipeline.ports import Clock, ObjectNotFound, ProgressBoard, Storage
from pipeline.sandbox import Nursery
from pipeline.stages import STAGES
from pipeline.standing import tombstone
from pipeline.tasks import (
    AudioTask,
    ExportTask,
    IngestTask,
    PackageTask,
    ReviseTask,
    SpeechModel,
    SubtitleTask,
    Task,
    TranscodeTask,
    TrimTask,
)
from pipeline.tidy import tidy_after
from pipeline.watch import Stopped, Verdict, Watch

log = logging.getLogger("reelway.workbench")


class Workbench:
    """Does steps. One instance serves all slots of a worker."""

    def __init__(
        self,
        conductor: Conductor,
        storage: Storage,
        progress: ProgressBoard,
        clock: Clock,
        nursery: Nursery,
        *,
        limits: BenchLimits | None = None,
        speech: SpeechModel | None = None,
    ) -> None:
        self.conductor = conductor
        self.storage = storage
        self.progress = progress
        self.clock = clock
        self.nursery = nursery
        self.scratch = nursery.scratch
        self.limits = limits or BenchLimits()
        self.speech = speech or SpeechModel()
        self._numbers = Numbers(storage)
        self._watches: dict[str, list[Watch]] = {}
        self._lock = threading.Lock()
        self._ending = False

    # -- from outside -------------------------------------------------------------------------------------------------

    def stop_job(self, job_id: str) -> None:
        """The job has ended: whatever runs of it here ends within a moment."""
        for watch in self._of(job_id):
            watch.stop(Verdict.LOST)

    def hand_back_all(self) -> None:
        """The worker is draining: every attempt ends and goes back unharmed, also one that is about to start."""
        with self._lock:
            self._ending = True
            watches = [watch for held in self._watches.values() for watch in held]
        for watch in watches:
            watch.stop(Verdict.HANDED_BACK)

    def _of(self, job_id: str) -> list[Watch]:
        with self._lock:
            return list(self._watches.get(job_id, ()))

    # -- one attempt --------------------------------------------------------------------------------------------------

    def run(self, attempt: Attempt, stopped: threading.Event | None = None) -> str:
        """Do the step and commit its outcome. Returns the outcome for the metrics: `succeeded`, a code, `lost` …

        `stopped`: set by whoever called `stop_job`, perhaps before this attempt could be found by it.
        """
        entry = STAGES[attempt.step.stage]
        with (
            tempfile.TemporaryDirectory(prefix="step-", dir=self.scratch, ignore_cleanup_errors=True) as folder,
            Watch(self.conductor, attempt, self.clock, stall_s=entry.stall_s, wall_s=self.limits.wall_s) as watch,
        ):
            self._register(attempt, watch)
            if stopped is not None and stopped.is_set():
                watch.stop(Verdict.LOST)
            try:
                outcome = self._outcome(attempt, Path(folder), watch, entry.stall_s)
            finally:
                self._forget(attempt, watch)
        if outcome == Verdict.LOST:
            self._tidy_behind(attempt)
        return outcome

    def _tidy_behind(self, attempt: Attempt) -> None:
        """Where nothing of the job may stay, storage was tidied, perhaps before our last object came: again."""
        try:
            job = self.conductor.store.job(attempt.ref.job)
            if job is None or not job.status.ended:
                return
            if job.status is not JobStatus.SUCCEEDED or tombstone(self.storage, job.asset) is not None:
                tidy_after(self.conductor.store, self.storage, job)
        except PipelineError as error:
            log.warning("cannot tidy", extra={"action": "tidy.failed", "ref": str(attempt.ref), "code": error.code})

    def _outcome(self, attempt: Attempt, folder: Path, watch: Watch, stall_s: float) -> str:
        try:
            answer = self._work(attempt, folder, watch)
        except Stopped as stopped:
            return self._stopped(attempt, stopped.verdict, stall_s)
        except ObjectNotFound as missing:  # removed under our hands: by whoever tidied, if the step was lost
            return self._failed(attempt, PipelineError("storage_unavailable", reason=f"{missing} is gone"))
        except PipelineError as error:
            return self._failed(attempt, error)
        return "succeeded" if self._insist(lambda: self.conductor.finish(attempt, answer)) else Verdict.LOST.value

    def _failed(self, attempt: Attempt, error: PipelineError) -> str:
        log.warning(
            "step failed",
            extra={"action": "step.failed", "ref": str(attempt.ref), "code": error.code, "detail": error.log},
        )
        return error.code if self._insist(lambda: self.conductor.fail(attempt, error)) else Verdict.LOST.value

    @staticmethod
    def _insist(commit: Callable[[], bool]) -> bool:
        """Commit an outcome through an outage of the store: the work is done, only the record does not know it yet."""
        for pause_s in (*([0.5] * 20), *([2.0] * 300)):
            try:
                return commit()
            except PipelineError as error:
                if not error.retryable:
                    raise
                threading.Event().wait(pause_s)
        return commit()

    def _stopped(self, attempt: Attempt, verdict: Verdict, stall_s: float) -> str:
        stage = attempt.step.stage
        stalled = PipelineError("stalled", stage=stage, seconds=round(stall_s))
        timed_out = PipelineError("timed_out", stage=stage, seconds=round(self.limits.wall_s))
        commits: Mapping[Verdict, Callable[[], bool]] = {
            Verdict.HANDED_BACK: lambda: self.conductor.hand_back(attempt),
            Verdict.STALLED: lambda: self.conductor.fail(attempt, stalled),
            Verdict.TIMED_OUT: lambda: self.conductor.fail(attempt, timed_out),
        }
        kept = verdict in commits and self._insist(commits[verdict])
        return verdict.value if kept else Verdict.LOST.value

    def _work(self, attempt: Attempt, folder: Path, watch: Watch) -> Answer:
        task = self._here(plan.task(attempt.job, attempt.step))
        held = Held(attempt=attempt, task=task, scratch=folder, watch=watch, tools=self._tools())
        return HANDLERS[type(task)](held)

    def _here(self, task: Task) -> Task:
        """The task with what only this machine knows."""
        return replace(task, model=self.speech) if isinstance(task, SubtitleTask) else task

    def _tools(self) -> Tools:
        return Tools(
            conductor=self.conductor,
            storage=self.storage,
            progress=self.progress,
            clock=self.clock,
            nursery=self.nursery,
            numbers=self._numbers,
            limits=self.limits,
        )

    # -- bookkeeping --------------------------------------------------------------------------------------------------

    def _register(self, attempt: Attempt, watch: Watch) -> None:
        with self._lock:
            self._watches.setdefault(attempt.ref.job, []).append(watch)
            ending = self._ending
        if ending:  # it had begun in the record, and `hand_back_all` could not find it yet
            watch.stop(Verdict.HANDED_BACK)

    def _forget(self, attempt: Attempt, watch: Watch) -> None:
        with self._lock:
            held = self._watches[attempt.ref.job]
            held.remove(watch)
            if not held:
                del self._watches[attempt.ref.job]

    def close(self) -> None:
        self.nursery.close()
        with suppress(OSError):
            shutil.rmtree(self.scratch)


HANDLERS: Mapping[type[Any], Callable[[Held[Any]], Answer]] = {
    IngestTask: ingest,
    TranscodeTask: make_parts,
    AudioTask: make_parts,
    PackageTask: package,
    SubtitleTask: subtitle,
    TrimTask: trim,
    ReviseTask: revise,
    ExportTask: export,
}
"""Who does which step."""
