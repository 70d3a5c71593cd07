"""A job, its steps, and every legal move of a step, as a table.

Everything that decides what may happen next to a step lives here: `TRANSITIONS` is the only place that says which move
leads where. A move that may be repeated is in it too; a late one simply is not. What a move *means* (leases, retries,
events) is decided by the conductor and applied by a store in one `Commit`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from pipeline.tasks import USUAL_LIMITS, Blueprint, Limits

SCHEMA = 3
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
    """It failed for a reason that may pass, or found no room; it waits for its time."""
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
    POSTPONE = "postpone"
    """It does not fit into the worker that asked for it: it waits a little; nothing is counted against it."""
    GIVE_UP = "give_up"
    """It is optional, and its job was cancelled when everything required was done."""


TRANSITIONS: Mapping[tuple[Status, Move], Status] = MappingProxyType(
    {
        (Status.WAITING, Move.RELEASE): Status.READY,
        (Status.READY, Move.BEGIN): Status.RUNNING,
        (Status.READY, Move.POSTPONE): Status.RETRYING,
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


class Priority(enum.StrEnum):
    """How soon a job's steps begin, beside those of other jobs; within one, organizations take turns."""

    HIGH = "high"
    """Before everything else."""
    STANDARD = "standard"
    """After `high`, before `bulk`."""
    BULK = "bulk"
    """When nothing else is to be done."""


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
    stage: str | None = field(default=None, compare=False, repr=False)
    """Its stage, where whoever gave the reference knows it (`Agenda.take`)."""

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
    begun_ms: int | None = None
    """Begin of the first attempt."""
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


class StepTable(Mapping[str, Step]):
    """Steps by id in the order of the plan, each decoded when somebody looks at it.

    A record of a thousand steps is read for the sake of one or two: where all of them stand is known without decoding.
    """

    def __init__(self, statuses: Mapping[str, Status], decode: Callable[[str], Step]) -> None:
        self.statuses = statuses
        """Where every step stands, in the order of the plan."""
        self._decode = decode
        self._steps: dict[str, Step] = {}

    def __getitem__(self, step_id: str) -> Step:
        if step_id not in self.statuses:
            raise KeyError(step_id)
        if step_id not in self._steps:
            self._steps[step_id] = self._decode(step_id)
        return self._steps[step_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.statuses)

    def __len__(self) -> int:
        return len(self.statuses)

    def __contains__(self, step_id: object) -> bool:
        return step_id in self.statuses

    def __repr__(self) -> str:
        return f"StepTable({dict(self)!r})"

    def with_steps(self, *changed: Step) -> StepTable:
        """The table with these in it, changed or new; nothing is decoded for that."""
        table = StepTable({**self.statuses, **{step.id: step.status for step in changed}}, self._decode)
        table._steps = {**self._steps, **{step.id: step for step in changed}}
        return table


_EXCLUSIVE = frozenset({"trim", "revert_trim", "roll_back"})
_ASIDE = _EXCLUSIVE | {"export"}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One accepted request for an asset."""

    id: str
    asset: str
    organization: str = "default"
    kind: str = "process"
    """What was asked: the request's type without `asset.`."""
    priority: Priority = Priority.STANDARD
    held: bool = False
    """None of its steps begins until somebody releases it; what runs goes on."""
    request: Mapping[str, Any] = field(default_factory=dict)
    """As it was asked; of the source's URL what may be shown."""
    sealed: str | None = field(default=None, repr=False)
    """The source's whole URL (`pipeline.seal`); empty once ingest has brought it. None: the request holds all of it."""
    profile: Mapping[str, Any] = field(default_factory=dict)
    """The profile as it was at acceptance: a later change of the file changes nothing here."""
    limits: Limits = USUAL_LIMITS
    """What its source may be, for its organization at acceptance."""
    source: str = ""
    """Storage key of the source: where ingest brings it, or where it lies already."""
    workers: int = 1
    """Hint of the fleet's size at acceptance: an input of the plan, recorded so that the plan stays a pure function."""
    blueprint: Blueprint | None = None
    number: int | None = None
    """Of a trim: what the world calls it by, claimed for good and for all assets (`pipeline.numbers`)."""
    status: JobStatus = JobStatus.ACTIVE
    revision: int = 0
    """Grows with every change of anything but the steps."""
    error: Mapping[str, Any] | None = None
    created_ms: int = 0
    ended_ms: int | None = None
    steps: Mapping[str, Step] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def exclusive(self) -> bool:
        """It changes what part of its asset is played: one at a time may, in the order in which they were accepted."""
        return self.kind in _EXCLUSIVE and not self.request.get("preview")

    @property
    def aside(self) -> bool:
        """It needs an asset that plays, and adds nothing to it: whether the asset is complete is not for it to say."""
        return self.kind in _ASIDE

    @property
    def fetched(self) -> bool:
        """Its source lies where it shall, and its URL was erased: it cannot be fetched again."""
        return self.sealed == ""

    @property
    def statuses(self) -> Mapping[str, Status]:
        """Where every step stands: cheap also where the steps are not decoded yet."""
        if isinstance(self.steps, StepTable):
            return self.steps.statuses
        return {step.id: step.status for step in self.steps.values()}

    def with_steps(self, *changed: Step) -> Job:
        """The job with these steps in it, changed or new."""
        if isinstance(self.steps, StepTable):
            return replace(self, steps=self.steps.with_steps(*changed))
        return replace(self, steps={**self.steps, **{step.id: step for step in changed}})

    @property
    def settled(self) -> bool:
        """All of its steps are. A job without steps is nothing but its own end."""
        statuses = self.statuses
        return bool(statuses) and all(status.settled for status in statuses.values())

    @property
    def publishing(self) -> bool:
        """A step has begun to change what the public sees, and is not settled: also when its worker was lost since."""
        return any(self.steps[name].exposed for name, status in self.statuses.items() if not status.settled)

    @property
    def delivered(self) -> bool:
        """Everything required is done; what is left, if anything, is optional."""
        return all(status.settled or self.steps[name].optional for name, status in self.statuses.items())

    def unsettled_needs(self, step: Step) -> tuple[str, ...]:
        statuses = self.statuses
        return tuple(need for need in step.needs if not statuses[need].settled)

    def dependants(self, step_id: str) -> tuple[Step, ...]:
        """Waiting steps that need this one."""
        waiting = (self.steps[name] for name, status in self.statuses.items() if status is Status.WAITING)
        return tuple(step for step in waiting if step_id in step.needs)

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
    """The document's version (0: there is no asset yet). Of commits that go together only one may ask it of an asset
    whose document they change."""
    max_open: int | None = None
    """Of a new job: with it, its organization has at most so many jobs that have not ended."""
    closes: bool = False
    """Of a new job: it removes its asset. From now on no other new job is accepted for that asset."""
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
    expire_at_ms: int | None = None
    """When the asset is to be deleted, milliseconds since 1970; 0: never; None: no change."""
    events: tuple[EventDraft, ...] = ()
    forget: bool = False
    """The job has ended: drop its steps from the ready and due indexes."""


class Refusal(enum.StrEnum):
    """Why commits were not applied."""

    CONFLICT = "conflict"
    """Something is not as expected: decide again from a fresh read."""
    QUOTA = "quota"
    """The organization has too many open jobs (`Commit.max_open`)."""
    CLOSED = "closed"
    """The asset is being deleted (`Commit.closes`)."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one or more commits: all of them are applied, or none."""

    applied: bool
    settled: bool = False
    """Every step of the (first) job is settled now."""
    refusal: Refusal | None = None
    """Why nothing was applied."""
    index: int = 0
    """Which of the commits was refused."""


CONFLICT = Outcome(applied=False, refusal=Refusal.CONFLICT)
