"""Admission: a step begins where there is room for it; where there is none it waits, or goes elsewhere.

Everything that decides whether *this machine* may begin a step lives here. What the step needs is estimated from its
plan (`workers.needs`), what there is comes from the system (`workers.machine`), and what runs on this machine already
was promised its share (`workers.promises`). A machine whose encoder is another build than the one that a job began with
leaves its encoding to others: two builds must not meet in one track.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import structlog

from pipeline.errors import PipelineError
from pipeline.job import Job, Ref, Step
from pipeline.tasks import SpeechModel
from workers.machine import Machine, Share
from workers.needs import MB, Need, need
from workers.promises import Promises
from workers.registry import GONE_S, Registry

WAIT_S = 2.0
"""A step that does not fit now is offered again so soon, to whoever has room."""
LONG_WAIT_S = 15.0
"""… and one for which nobody can be expected to have any."""
REST_S = 1.0
"""So long a worker that had no room takes no other step: it is idle, and would be first to take each of them."""
SAID_S = 60.0
"""How long the reason of a refusal is shown."""
ENCODING = frozenset({"transcode", "audio"})
"""Stages whose bytes depend on the encoder's build."""

log = structlog.get_logger("reelway.room")


@dataclass(frozen=True, kw_only=True)
class Reserve:
    """What is left free for everybody else, in bytes."""

    memory: int = 0
    scratch: int = 0


class Room:
    """What this worker may begin. `build` says its encoder's fingerprint; empty: it cannot tell, and judges none."""

    def __init__(
        self,
        machine: Machine,
        promises: Promises,
        registry: Registry,
        *,
        build: Callable[[], str],
        reserve: Reserve = Reserve(),
        speech: SpeechModel,
        encoder_patience_s: float = 600.0,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self.machine = machine
        self.promises = promises
        self.registry = registry
        self.build = build
        self.reserve = reserve
        self.speech = speech
        self.encoder_patience_s = encoder_patience_s
        self.pause = pause
        self._said: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def fits(self, job: Job, step: Step) -> float | None:
        """None: it may begin, and its share is promised until `leave`. Else the seconds after which to ask again.

        Raises `PipelineError("encoder_unavailable")` where nobody has had the job's encoder for too long.
        """
        ref = Ref(job=job.id, step=step.id)
        wait = self._other_encoder(ref, job, step)
        return wait if wait is not None else self._too_little(ref, step.stage, need(job, step, self.speech))

    def leave(self, ref: Ref) -> None:
        """The step has ended here, or has not begun after all. Twice is fine."""
        self.promises.release(str(ref))

    def rest(self) -> None:
        """There was no room: let others have what is ready."""
        self.pause(REST_S)

    @property
    def most(self) -> Need | None:
        """What this machine can give to one step if nothing else runs on it; None: it cannot tell."""
        memory = self.machine.memory()
        if memory is None:
            return None
        return Need(
            memory=max(0, memory.total - self.reserve.memory),
            scratch=max(0, self.machine.disk().total - self.reserve.scratch),
        )

    @property
    def refused(self) -> Mapping[str, str]:
        """What has not begun here within the last minute, and why."""
        with self._lock:
            now = time.monotonic()
            self._said = {name: said for name, said in self._said.items() if now - said[0] < SAID_S}
            return {name: reason for name, (_, reason) in self._said.items()}

    def _other_encoder(self, ref: Ref, job: Job, step: Step) -> float | None:
        theirs, ours = job.blueprint.encoder if job.blueprint else "", self.build()
        if step.stage not in ENCODING or not theirs or not ours or theirs == ours:
            return None
        absent_s = self.registry.absent_s(theirs)
        if absent_s > self.encoder_patience_s:
            raise PipelineError("encoder_unavailable", encoder=theirs, seconds=round(absent_s))
        self._refuse(ref, "step.other_encoder", f"the job's encoder is {theirs}, this worker's is {ours}")
        return WAIT_S if absent_s < GONE_S else LONG_WAIT_S

    def _too_little(self, ref: Ref, stage: str, needed: Need) -> float | None:
        try:
            shortages = self._promised(ref, needed)
        except OSError as error:  # not even a line can be written there
            self._refuse(ref, "step.no_room", f"scratch disk: {error.strerror}")
            return WAIT_S
        if not shortages:
            return None
        hopeless = any(shortage.hopeless for shortage in shortages) and not self._elsewhere(stage, needed)
        reason = "; ".join(map(str, shortages))
        self._refuse(ref, "step.too_large" if hopeless else "step.no_room", reason)
        return LONG_WAIT_S if hopeless else WAIT_S

    def _elsewhere(self, stage: str, needed: Need) -> bool:
        """Somebody who is there has a machine that is large enough, as far as anybody can tell."""
        return any(
            stage in record.stages
            and (record.memory_bytes is None or record.memory_bytes >= needed.memory)
            and (record.scratch_bytes is None or record.scratch_bytes >= needed.scratch)
            for record in self.registry.lately()
            if not record.draining
        )

    def _promised(self, ref: Ref, needed: Need) -> list[Shortage]:
        """What there is too little of; nothing: it is promised now."""
        with self.promises.alone():
            shortages = list(self._shortages(needed, self.promises.outstanding(but=str(ref))))
            if not shortages:
                self.promises.make(str(ref), needed)
            return shortages

    def _shortages(self, needed: Need, promised: Need) -> Iterator[Shortage]:
        """What there is too little of."""
        disk = self.machine.disk()
        for what, share, wanted, kept, taken in (
            ("memory", self.machine.memory(), needed.memory, self.reserve.memory, promised.memory),
            ("scratch disk", disk, needed.scratch, self.reserve.scratch, promised.scratch),
        ):
            if share is not None and wanted > share.free - kept - taken:
                yield Shortage(what=what, share=share, wanted=wanted, kept=kept, taken=taken)

    def _refuse(self, ref: Ref, action: str, reason: str) -> None:
        with self._lock:
            self._said[str(ref)] = (time.monotonic(), reason)
        # What no machine of the fleet can ever do needs a person; anything else passes.
        (log.warning if action == "step.too_large" else log.info)("no room", action=action, ref=str(ref), reason=reason)


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """Why a step does not fit."""

    what: str
    share: Share
    wanted: int
    kept: int
    """Reserved for everybody else."""
    taken: int
    """Promised to steps that run."""

    @property
    def hopeless(self) -> bool:
        """It does not fit this machine, even if nothing else runs on it."""
        return self.wanted > self.share.total - self.kept

    def __str__(self) -> str:
        if self.hopeless:
            given = _mb(max(0, self.share.total - self.kept))
            return f"{self.what}: {_mb(self.wanted)} needed, the machine has {given} to give"
        free = max(0, self.share.free - self.kept - self.taken)
        return f"{self.what}: {_mb(self.wanted)} needed, {_mb(free)} free"


def _mb(size: int) -> str:
    return f"{round(size / MB):,} MB"
