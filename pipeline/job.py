"""A job, its steps, and every legal move of a step, as a table.

Everything that decides what may happen next to a step lives here: `TRANSITIONS` is the only place that says which move
leads where. A move that may be repeated is in it too; a late one simply is not. What a move *means* (leases, retries,
events) is decided by the conductor and applied by a store in one `Commit`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from pipeline.tasks import Blueprint

SCHEMA = 1
"""Schema of the record; a worker that meets a newer one leaves the step alone."""

JOB_LEVEL = "@"
"""The step id under which a job itself stands in the due index."""

READY_DUE_S = 30.0
"""A ready step that nobody began for so long is put into the ready index again: its ticket was lost."""


class Status(enum.StrEnum):
    """Where a step stands."""

    WAITING = "waiting"
    """Something it needs is not settled yet."""
    READY = "ready"
    """It may begin; it stands in the ready index or a ticket is under way."""
    RUNNING = "running"
    """A worker holds its lease."""
    PUBLISHING = "publishing"
    """A worker holds its lease and is changing what the public sees: it can no longer be cancelled."""
    RETRYING = "retrying"
    """It failed for a reason that may pass, and waits for its time."""
    SUCCEEDED = "succeeded"
    """Its outputs are stored and its effect is public."""
    FAILED = "failed"
    """It failed for good."""

    @property
    def settled(self) -> bool:
        """Nothing will happen to it any more."""
        return self in (Status.SUCCEEDED, Status.FAILED)

    @property
    def leased(self) -> bool:
        """A worker is at work on it."""
        return self in (Status.RUNNING, Status.PUBLISHING)


class Move(enum.StrEnum):
    """What can happen to a step."""

    RELEASE = "release"
    """Everything it needs is settled."""
    BEGIN = "begin"
    """A worker takes it, with a new fence."""
    PUBLISH = "publish"
    """Its worker is about to change what the public sees."""
    FINISH = "finish"
    """Its worker is done."""
    FAIL = "fail"
    """It failed for good, or its worker was lost too often."""
    RETRY = "retry"
    """It failed for a reason that may pass."""
    WAKE = "wake"
    """The time of its retry has come."""
    LOSE = "lose"
    """Its worker was lost: the lease ran out."""
    HAND_BACK = "hand_back"
    """Its worker gave it back unharmed (a drain, a newer record); nothing is counted against it."""
    GIVE_UP = "give_up"
    """It is optional, and its job was cancelled when everything required was done."""


TRANSITIONS: Mapping[tuple[Status, Move], Status] = MappingProxyType(
    {
        (Status.WAITING, Move.RELEASE): Status.READY,
        (Status.READY, Move.BEGIN): Status.RUNNING,
        (Status.RUNNING, Move.PUBLISH): Status.PUBLISHING,
        # Repeated when the reply to the first was lost.
        (Status.PUBLISHING, Move.PUBLISH): Status.PUBLISHING,
        (Status.RUNNING, Move.FINISH): Status.SUCCEEDED,
        (Status.PUBLISHING, Move.FINISH): Status.SUCCEEDED,
        (Status.RUNNING, Move.FAIL): Status.FAILED,
        (Status.PUBLISHING, Move.FAIL): Status.FAILED,
        (Status.RUNNING, Move.RETRY): Status.RETRYING,
        (Status.PUBLISHING, Move.RETRY): Status.RETRYING,
        (Status.RETRYING, Move.WAKE): Status.READY,
        (Status.RUNNING, Move.LOSE): Status.READY,
        (Status.PUBLISHING, Move.LOSE): Status.READY,
        (Status.RUNNING, Move.HAND_BACK): Status.READY,
        (Status.PUBLISHING, Move.HAND_BACK): Status.READY,
        # Not from `publishing`: a job is not cancelled while what the public sees is being changed.
        (Status.WAITING, Move.GIVE_UP): Status.FAILED,
        (Status.READY, Move.GIVE_UP): Status.FAILED,
        (Status.RUNNING, Move.GIVE_UP): Status.FAILED,
        (Status.RETRYING, Move.GIVE_UP): Status.FAILED,
    }
)


class JobStatus(enum.StrEnum):
    """Where a job stands."""

    ACTIVE = "active"
    """Its steps are at work; it can be cancelled."""
    PUBLISHING = "publishing"
    """A step has begun to change what the public sees and is not settled yet: until then it cannot be cancelled."""
    SUCCEEDED = "succeeded"
    """Every required step succeeded."""
    FAILED = "failed"
    """A required step failed for good."""
    CANCELLED = "cancelled"
    """Somebody asked for it to stop."""

    @property
    def ended(self) -> bool:
        """Its one terminal event is out."""
        return self in ENDED


ENDED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
OPEN = frozenset({JobStatus.ACTIVE, JobStatus.PUBLISHING})


@dataclass(frozen=True, kw_only=True)
class Ref:
    """Names one step of one job (or the job itself: `JOB_LEVEL`)."""

    job: str
    step: str

    def __str__(self) -> str:
        return f"{self.job}/{self.step}"

    @classmethod
    def parse(cls, text: str) -> Ref:
        job, _, step = text.rpartition("/")
        return cls(job=job, step=step)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage with its arguments."""

    id: str
    stage: str
    args: Mapping[str, Any] = field(default_factory=dict)
    """Which part of the blueprint it makes: small, JSON-like."""
    needs: tuple[str, ...] = ()
    """Ids of the steps that must be settled before it begins."""
    optional: bool = False
    """Its failure does not fail the job."""
    weight: float = 1.0
    """Its share of the job's work, for the progress."""
    status: Status = Status.WAITING
    fence: str = "0"
    """`<n>-<nonce>` of the latest attempt; n grows by one an attempt."""
    exposed: bool = False
    """An attempt has begun to change what the public sees."""
    retries: int = 0
    """Transient failures so far."""
    suspicions: int = 0
    """How many of these may have been its file's own fault."""
    troubled_ms: int | None = None
    """When the first of its transient failures was."""
    losses: int = 0
    """Workers lost while they did it."""
    worker: str | None = None
    started_ms: int | None = None
    """Begin of the latest attempt."""
    ended_ms: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What it answered, a few hundred bytes; anything longer is an object whose key stands here."""
    error: Mapping[str, Any] | None = None
    """The last error, as `PipelineError.document()`."""

    @property
    def attempt(self) -> int:
        """How often it was begun."""
        return int(self.fence.partition("-")[0])

    def after(self, move: Move, **changes: Any) -> Step:
        """The step after a legal move. Raises `IllegalMove`."""
        try:
            status = TRANSITIONS[self.status, move]
        except KeyError:
            raise IllegalMove(f"{self.id}: no {move} from {self.status}") from None
        return replace(self, status=status, **changes)


class IllegalMove(Exception):
    """A move that the table does not know."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One accepted request for an asset."""

    id: str
    asset: str
    organization: str = "default"
    kind: str = "process"
    request: Mapping[str, Any] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict)
    """The profile as it was at acceptance: a later change of the file changes nothing here."""
    workers: int = 1
    """Hint of the fleet's size at acceptance: an input of the plan, recorded so that the plan stays a pure function."""
    blueprint: Blueprint | None = None
    status: JobStatus = JobStatus.ACTIVE
    revision: int = 0
    """Grows with every change of anything but the steps."""
    error: Mapping[str, Any] | None = None
    created_ms: int = 0
    ended_ms: int | None = None
    steps: Mapping[str, Step] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def settled(self) -> bool:
        return all(step.status.settled for step in self.steps.values())

    @property
    def publishing(self) -> bool:
        """A step has begun to change what the public sees, and is not settled: also when its worker was lost since."""
        return any(step.exposed and not step.status.settled for step in self.steps.values())

    @property
    def delivered(self) -> bool:
        """Everything required is done; what is left, if anything, is optional."""
        return all(step.optional or step.status.settled for step in self.steps.values())

    def unsettled_needs(self, step: Step) -> tuple[str, ...]:
        return tuple(need for need in step.needs if not self.steps[need].status.settled)

    def dependants(self, step_id: str) -> tuple[Step, ...]:
        """Waiting steps that need this one."""
        return tuple(s for s in self.steps.values() if s.status is Status.WAITING and step_id in s.needs)

    def progress(self, fractions: Mapping[str, float]) -> float:
        """0 to 1 over all steps by weight; `fractions` are of the running ones."""
        total = sum(step.weight for step in self.steps.values())
        done = sum(
            step.weight * (1.0 if step.status.settled else fractions.get(step.id, 0.0)) for step in self.steps.values()
        )
        return done / total if total else 0.0


@dataclass(frozen=True, kw_only=True)
class AssetRecord:
    """What the store holds of an asset beside its jobs."""

    id: str
    document: Mapping[str, Any]
    version: int
    """Grows by one with every change of the document."""
    epoch: int
    sequence: int
    """Sequence of the asset's last event in this epoch."""


@dataclass(frozen=True, kw_only=True)
class EventDraft:
    """An event before the store gives it its sequence: see `pipeline.events`."""

    id: str
    type: str
    """Without prefix and version: `asset.ready`."""
    data: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Guard:
    """A move that the store makes when all of `needs` are settled after the commit: this step becomes ready.

    It is due in `READY_DUE_S` then. The store asks the record, so that two last needs finishing together cannot both
    look away.
    """

    step: str
    stage: str
    needs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One atomic change of one job: first what must hold, then what changes if it does."""

    job: str
    asset: str
    # -- must hold ----------------------------------------------------------------------------------------------------
    new: bool = False
    """There is no such job yet."""
    job_in: frozenset[JobStatus] = OPEN
    revision: int | None = None
    expect: Mapping[str, tuple[Status, str] | None] = field(default_factory=dict)
    """Status and fence of these steps; None: there is no such step yet."""
    overdue: str | None = None
    """This step's due time has passed, or was claimed by a sweeper and not set since: a lease that was renewed
    meanwhile is not taken away."""
    all_settled: bool = False
    """Every step of the job is settled."""
    asset_version: int | None = None
    """The document's version (0: there is no asset yet)."""
    # -- changes ------------------------------------------------------------------------------------------------------
    header: Job | None = None
    """The job without its steps; the store sets the next revision."""
    steps: Mapping[str, Step] = field(default_factory=dict)
    guards: tuple[Guard, ...] = ()
    due: Mapping[str, float | None] = field(default_factory=dict)
    """Seconds until somebody must look at the step (or at the job: `JOB_LEVEL`) again; None: never."""
    rank: float = 0.0
    """Place in the ready index of what becomes ready by this commit: lower goes first. The store keeps that of a new
    job, for steps whose tickets are lost."""
    organization: str = "default"
    document: Mapping[str, Any] | None = None
    events: tuple[EventDraft, ...] = ()
    forget: bool = False
    """The job has ended: drop its steps from the ready and due indexes."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a commit."""

    applied: bool
    settled: bool = False
    """Every step of the job is settled now."""


CONFLICT = Outcome(applied=False)
