"""What the library needs from outside: two to seven methods each, with a contract in words.

An adapter knows its port; a port knows no adapter. `pipeline.memory` and `pipeline.storage` hold the adapters that ship
with the product, and every adapter of a port passes the same contract tests (`tests/contracts`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.job import AssetRecord, Commit, EventDraft, Job, Outcome, Priority, Ref


class JobStore(Protocol):
    """The records. Python decides, the store compares and applies: one `commit` is one atomic step.

    Raises `PipelineError("queue_unavailable")` from every method when the store does not answer.
    """

    def job(self, job_id: str) -> Job | None:
        """The job as it stands, with all of its steps."""

    def asset(self, asset_id: str) -> AssetRecord | None:
        """The asset's document, its version, epoch and last sequence."""

    def jobs(self, asset_id: str, *, open_only: bool = False) -> Iterator[str]:
        """Ids of the asset's jobs that the store still knows, newest first; `open_only`: of those that have not ended.

        An asset may have had thousands: they come lazily, so whoever wants the newest pays for those.
        """

    def commit(self, commit: Commit, *more: Commit) -> Outcome:
        """Compare everything that the commits expect; if all of it holds, apply all of them, else change nothing."""

    def renew(self, ref: Ref, fence: str, lease_s: float) -> bool:
        """Push the step's due time to now + `lease_s`. False when `fence` no longer runs this step."""

    def append(self, asset: str, draft: EventDraft, *, organization: str = "default", job: str | None = None) -> None:
        """Append an event that comes with no change of a job: `request.refused`.

        The same draft appended again within some minutes is appended once.
        """

    def restore(self, record: AssetRecord) -> bool:
        """Bring back an asset that the store has forgotten, or knows in an older state, from what storage says of it.

        It gets a new epoch that no earlier one had (`record.epoch` is ignored) and goes on above `record.sequence`.
        False, and nothing changes, where the store knows this version of the document or a higher one.
        """


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """How many steps an organization may have taken at once; None: no limit."""

    default: int | None = None
    by_organization: Mapping[str, int | None] = field(default_factory=dict)


NO_QUOTAS = Quotas()


@dataclass(frozen=True, kw_only=True)
class QueueFigures:
    """One stage's queue."""

    stage: str
    ready: Mapping[Priority, int] = field(default_factory=dict)
    """Steps that wait for a worker, by priority."""
    taken: int = 0
    """Steps whose tickets are out, or that run."""
    organizations: Mapping[str, int] = field(default_factory=dict)
    """Ready steps by organization."""
    paused: bool = False


class Agenda(Protocol):
    """What is to be done, and in which order. Kept by the store: every commit changes it in the same moment.

    Ready steps stand by stage, priority and organization. Raises `PipelineError("queue_unavailable")`.
    """

    def due(self, limit: int) -> Sequence[Ref]:
        """Claim up to `limit` references whose due time has passed, oldest first.

        What was claimed is not shown to anybody for some seconds, so that sweepers share the work, and an entry that
        nobody can decide does not stand before the others. Ready steps are not shown: the store itself puts them into
        the ready index again (their tickets were lost). What belongs to no record, or to a step of an ended job, is
        dropped. For the first seconds after an outage of the store leased steps are left out: nobody could renew a
        lease meanwhile, so none is judged.
        """

    def take(self, stages: Mapping[str, int], quotas: Quotas = NO_QUOTAS) -> Sequence[Ref]:
        """Take up to `stages[name]` ready steps of each stage out of the ready index, best first.

        Higher priorities first; within one, organizations take turns, and each gives its step of the lowest rank. What
        was taken counts for its organization until the step is settled, waits for a retry, or is ready again; an
        organization at its quota is passed over, and so are paused stages. The references know their stages.

        A quota is exact as long as a ticket waits less than `READY_DUE_S` for a worker. Then it counts as lost, and its
        step as ready; where the old ticket begins it all the same, more may run than the quota allows.
        """

    def pause(self, stage: str, paused: bool) -> None:
        """Give out no step of this stage until it is resumed; what runs, or was given out before, goes on."""

    def queues(self) -> Sequence[QueueFigures]:
        """Every stage that has something ready or taken, or is paused, by name."""

    def failed(self, limit: int) -> Sequence[str]:
        """Ids of the failed jobs that the store still knows, newest first."""

    def expired(self, limit: int) -> Sequence[tuple[str, int]]:
        """Assets whose `expire_at_ms` has passed, and that time, earliest first."""

    def unexpire(self, asset: str, at_ms: int) -> None:
        """Drop an asset from what `expired` shows, as there is nothing to delete; unless its time is another by now."""

    def pressure(self) -> float:
        """How full the store's memory is: 0 to 1 of its limit; 0 where it has none."""


class Ledger(JobStore, Agenda, Protocol):
    """Records and agenda, kept by one store."""


class Tickets(Protocol):
    """The wake-up transport: a ticket may be lost, doubled or late, and nothing bad happens."""

    def send(self, ref: Ref, stage: str) -> None:
        """Tell some worker of this stage to begin the step."""

    def waiting(self, stage: str) -> int:
        """Tickets sent to the stage that no worker has fetched."""


class ProgressBoard(Protocol):
    """How far each step is. State, not history: it may be lost and never blocks anyone."""

    def report(self, ref: Ref, fraction: float) -> None:
        """Note that the step is at `fraction` (0 to 1); the asset's subscribers hear of it at most once a second."""

    def fractions(self, job_id: str) -> Mapping[str, float]:
        """The last reported fraction by step id."""


class Clock(Protocol):
    """Wall time, for what is printed; leases and due times are the store's own."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary point."""


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    key: str
    size: int
    """Bytes."""
    etag: str
    """Opaque; changes whenever the content does."""
    modified_ms: int = field(compare=False)
    """When it was last written, by the storage's own clock, in milliseconds since 1970.

    Not compared: a storage may tell whole seconds only, and `put` answers the time of its reply."""


class PreconditionFailed(Exception):
    """The object is not as the caller expected: there already, gone, or changed. Carries no bytes."""

    resent: bool = False
    """True: the request was sent more than once, so what stands there may be the caller's own first try."""


class ObjectNotFound(Exception):
    """There is no object under this key."""


@dataclass(frozen=True, kw_only=True)
class StoredPart:
    """One part of an object that others bring piece by piece."""

    number: int
    """From 1."""
    size: int
    """Bytes."""
    etag: str
    """What the one who brought it was answered; in a folder the MD5 of its bytes, hex."""


@dataclass(frozen=True, kw_only=True)
class Begun:
    """An object that is being brought in parts."""

    key: str
    handle: str
    age_s: float
    """Since it was begun; in a folder since it was last written to."""


class Multipart(Protocol):
    """Objects that others bring in parts, with nothing but a URL for each. Raises what `Storage` raises.

    Parts are in no listing and are no object; a part brought again takes the place of the one before.
    """

    def begin(self, key: str, name: str) -> str:
        """Begin what becomes the object `key` when it is complete. Returns a handle, which is no secret.

        `name` tells this object from any other that was brought to the same key.
        """

    def url(self, key: str, handle: str, number: int, size: int, expires_s: int) -> str:
        """Where to bring part `number`: a URL to PUT just so many bytes to, without credentials until it expires; or a
        `file:` URL, which takes any."""

    def parts(self, key: str, handle: str, number: int | None = None) -> Iterator[StoredPart]:
        """The parts that are there by their numbers, or those of one number. Raises `ObjectNotFound` where the handle
        leads to nothing: it was completed, or given up.

        A server may keep several parts of one number, all of which differ; the last that came stands last.
        """

    def complete(self, key: str, handle: str, name: str, parts: Sequence[StoredPart]) -> StoredObject:
        """Make the object of these parts, create-only. Asked again, by whoever, it answers the same.

        Raises `PreconditionFailed` where another object has the key, and `ObjectNotFound` where the handle leads to
        nothing, or a part with that etag is not there (any more).
        """

    def completed(self, key: str, handle: str, name: str) -> StoredObject | None:
        """The object, if it is the one that was begun with this name."""

    def abort(self, key: str, handle: str) -> None:
        """Throw away what is left of the parts. None there is fine."""

    def begun(self) -> Iterator[Begun]:
        """Everything that was begun in our areas, and neither completed nor given up."""


Abandoned = Callable[[str, str], bool | None]
"""Whether the object of this key and handle was given up by whoever began it; None: nobody knows, its age decides."""


def nobody_knows(_key: str, _handle: str) -> bool | None:
    return None


Body = bytes | Path | Iterator[bytes]
"""What is stored as an object."""
Moved = Callable[[], None]
"""Called when something went on; whoever has it called may raise to stop."""


class Storage(Protocol):
    """Objects by key. A reader never sees half of one.

    Raises `PipelineError("storage_unavailable" | "storage_forbidden" | "storage_full")` where the storage fails, and
    `source_archived` where an object lies in a cold storage class and must be restored before it can be read.
    """

    def put(
        self,
        key: str,
        body: Body,
        *,
        absent: bool = False,
        match: str | None = None,
        moved: Moved | None = None,
    ) -> StoredObject:
        """Store `body` under `key`, atomically: bytes, the content of a local file, or blocks as they come.

        `absent`: only where there is none (create-only). `match`: only over the object with this etag. Raises
        `PreconditionFailed`. The content type and the cache header follow from the key. `moved` is called for every few
        megabytes of a file that were written, from any thread; what it raises ends the write, and nothing is stored. So
        does what the blocks raise, and that comes out as it is. Of blocks some megabytes are held at a time.
        """

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes [offset, offset + length) of the object, or to its end. Raises `ObjectNotFound`."""

    def stat(self, key: str) -> StoredObject | None:
        """Size and etag, or None where there is no such object."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key begins with `prefix`, in the order of the keys."""

    def delete(self, prefix: str, *, moved: Moved | None = None) -> int:
        """Delete every object whose key begins with `prefix`; returns how many. None there is fine.

        `moved` is called before every batch of at most a thousand objects; what it raises ends the deletion.
        """

    def presign(self, key: str, expires_s: int) -> str:
        """A URL that reads the object without credentials until it expires."""

    def sweep_uploads(self, older_than_s: float, *, abandoned: Abandoned = nobody_knows, dry_run: bool = False) -> int:
        """Throw away what was written of objects that nobody completed: those that are `abandoned`, and those of which
        it does not know and that were begun (in a folder: last written to) longer ago than `older_than_s`. Returns how
        many. `dry_run`: only count them."""

    def local_path(self, key: str) -> Path | None:
        """Where the object lies on this machine, for reading only; None where it has no path."""

    @property
    def multipart(self) -> Multipart:
        """Objects that others bring in parts."""
