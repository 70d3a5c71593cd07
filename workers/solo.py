"""One job in this very process, with nothing running beforehand: for a change of an asset that lies in a folder.

The fleet's own machinery does it (doorman, conductor, workbench) with the record in memory and one pair of hands. Such
a job takes one step, so a Redis and workers of its own would take longer to start than the work takes. What an earlier
command made is brought back from the folder by the doorman, as for a fleet that lost its Redis.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline import plan
from pipeline.conductor import Attempt, Conductor
from pipeline.doorman import Doorman
from pipeline.errors import PipelineError
from pipeline.events import Event
from pipeline.memory import MemoryJobStore, MemoryProgress, SystemClock
from pipeline.organizations import Organizations
from pipeline.profile import load_profiles
from pipeline.requests import JobRequest
from pipeline.sandbox import Nursery
from pipeline.stages import STAGES
from pipeline.storage import open_storage
from pipeline.workbench import Workbench
from workers.embedded import short_folder
from workers.owned_folder import OwnedFolder
from workers.result import CANCEL_S, Look, Result, unmoved
from workers.settings import Settings
from workers.wiring import bench_limits, speech_model, worker_name

LOOK_S = 0.25
IDLE_S = 0.02
"""How long the hands rest when nothing may begin: a step that waits for its next try."""


def carry_out(request: JobRequest, storage_url: str, *, look: Look) -> Result | None:
    """Run one request to its end; None when it was interrupted before it was accepted.

    An interrupt cancels the job; a step that is publishing at that moment is let finish. Raises `PipelineError` when
    the request is refused.
    """
    started, interrupted = time.monotonic(), False
    with _solo(storage_url) as solo:
        try:
            solo.begin(request)
            solo.follow(request.id, look)
        except KeyboardInterrupt:
            interrupted = True
            solo.cancel(request.id, look)
        job = solo.store.job(request.id)
        if job is None:
            return None
        record = solo.store.asset(job.asset)
        return Result(
            job=job,
            document=record.document if record else {},
            seconds=time.monotonic() - started,
            interrupted=interrupted,
            heard=(record.epoch, record.sequence) if record else (0, 0),
            told=solo.told,
        )


@contextmanager
def _solo(storage_url: str) -> Iterator[Solo]:
    settings = Settings.read(storage_url=storage_url, local_sources="true")
    with OwnedFolder(short_folder()) as scratch:
        solo = Solo(settings, scratch)
        try:
            yield solo
        finally:
            solo.close()


class Solo:
    """Records in memory, and one thread that does the steps. Belongs to the main thread."""

    def __init__(self, settings: Settings, scratch: Path) -> None:
        # Nobody reads a log of ours: what matters of it is in the job's error.
        logging.getLogger("reelway").addHandler(logging.NullHandler())
        clock = SystemClock()
        storage = open_storage(settings.storage_url)
        self.store = MemoryJobStore(clock, prefix=settings.event_prefix)
        self.progress = MemoryProgress()
        self.conductor = Conductor(
            self.store, clock, plan, load_profiles(settings.profiles_dir), base_url=settings.public_base_url
        )
        # Nobody else asks: no quota holds.
        self.doorman = Doorman(self.conductor, storage, Organizations(), limits=settings.source_limits)
        self.nursery = Nursery(scratch)
        self.bench = Workbench(
            self.conductor,
            storage,
            self.progress,
            clock,
            self.nursery,
            limits=bench_limits(settings),
            speech=speech_model(settings),
        )
        self.name = worker_name()
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._hands: threading.Thread | None = None
        self._failure: BaseException | None = None

    def begin(self, request: JobRequest) -> None:
        """Let the request in, and set to work. Raises what it is refused with."""
        self.doorman.handle(request)
        job = self.store.job(request.id)
        assert job is not None, "what was let in is known"
        if any(step.stage != "package" for step in job.steps.values()):
            self.nursery.start()  # it loads while the first step is prepared
        self._hands = threading.Thread(target=self._work, args=[request.id], daemon=True, name="hands")
        self._hands.start()

    def follow(self, job_id: str, look: Look) -> None:
        """Watch the job until it has ended."""
        while not self._seen(job_id, look):
            if self._failure is not None:
                raise self._failure
            self._ended.wait(LOOK_S)

    def cancel(self, job_id: str, look: Look) -> None:
        """Stop the job, as soon as nothing of it is being published; a second interrupt changes nothing."""
        deadline = time.monotonic() + CANCEL_S
        with unmoved():
            while time.monotonic() < deadline and self.store.job(job_id) is not None:
                with suppress(PipelineError):  # busy: it is asked again
                    self.conductor.cancel(job_id)
                if self._seen(job_id, look):
                    return
                self._ended.wait(0.1)

    @property
    def told(self) -> Sequence[Event]:
        """All events, the newest first."""
        return [Event.model_validate(event) for event in reversed(self.store.events)]

    def close(self) -> None:
        """Whatever still runs ends within a moment."""
        self._stopping.set()
        self.bench.hand_back_all()
        if self._hands is not None:
            self._hands.join()
        self.bench.close()

    def _seen(self, job_id: str, look: Look) -> bool:
        job = self.store.job(job_id)
        if job is None:
            return False
        look(job, self.progress.fractions(job_id))
        return job.status.ended

    # -- the hands ----------------------------------------------------------------------------------------------------

    def _work(self, job_id: str) -> None:
        """Do one step after the other, until the job has ended. Whoever follows it learns what went wrong here."""
        try:
            while not self._stopping.is_set() and self._open(job_id):
                if not self._turn():
                    self._stopping.wait(IDLE_S)
        except BaseException as error:
            self._failure = error
        finally:
            self._ended.set()

    def _open(self, job_id: str) -> bool:
        job = self.store.job(job_id)
        return job is not None and not job.status.ended

    def _turn(self) -> bool:
        """Do what may begin now, one after the other; False: there is nothing."""
        for ref in self.store.due(10):
            self.conductor.sweep(ref)
        taken = self.store.take(dict.fromkeys(STAGES, 1))
        for ref in taken:
            attempt = self.conductor.begin(ref, self.name)
            if attempt is not None:
                self._do(attempt)
        return bool(taken)

    def _do(self, attempt: Attempt) -> None:
        try:
            self.bench.run(attempt)
        except Exception as error:
            failure = PipelineError("stage_failed", stage=attempt.step.stage, reason=type(error).__name__)
            self.conductor.fail(attempt, failure)
