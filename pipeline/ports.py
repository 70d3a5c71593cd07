"""What the library needs from outside: two to seven methods each, with a contract in words.

An adapter knows its port; a port knows no adapter. `pipeline.memory` and `pipeline.storage` hold the adapters that ship
with the product, and every adapter of a port passes the same contract tests (`tests/contracts`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.job import AssetRecord, Commit, EventDraft, Job, Outcome, Ref


class JobStore(Protocol):
    """The records. Python decides, the store compares and applies: one `commit` is one atomic step.

    Raises `PipelineError("queue_unavailable")` from every method when the store does not answer.
    """

    def job(self, job_id: str) -> Job | None:
        """The job as it stands, with all of its steps."""

    def asset(self, asset_id: str) -> AssetRecord | None:
        """The asset's document, its version, epoch and last sequence."""

    def commit(self, commit: Commit) -> Outcome:
        """Compare everything that the commit expects; if all of it holds, apply all of it, else change nothing."""

    def renew(self, ref: Ref, fence: str, lease_s: float) -> bool:
        """Push the step's due time to now + `lease_s`. False when `fence` no longer runs this step."""

    def due(self, limit: int) -> Sequence[Ref]:
        """Claim up to `limit` references whose due time has passed, oldest first.

        What was claimed is not shown to anybody for some seconds, so that sweepers share the work, and an entry that
        nobody can decide does not stand before the others. Ready steps are not shown: the store itself puts them into
        the ready index again (their tickets were lost). What belongs to no record, or to a step of an ended job, is
        dropped. For the first seconds after an outage of the store leased steps are left out: nobody could renew a
        lease meanwhile, so none is judged.
        """

    def take(self, stages: Mapping[str, int]) -> Sequence[Ref]:
        """Take up to `stages[name]` ready steps of each stage out of the ready index, best first."""

    def append(self, asset: str, draft: EventDraft, *, organization: str = "default", job: str | None = None) -> None:
        """Append an event that comes with no change of a job: `request.refused`."""


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


class PreconditionFailed(Exception):
    """The object is not as the caller expected: there already, gone, or changed. Carries no bytes."""

    resent: bool = False
    """True: the request was sent more than once, so what stands there may be the caller's own first try."""


class ObjectNotFound(Exception):
    """There is no object under this key."""


Moved = Callable[[], None]
"""Called when something went on; whoever has it called may raise to stop."""


class Storage(Protocol):
    """Objects by key. A reader never sees half of one.

    Raises `PipelineError("storage_unavailable" | "storage_forbidden" | "storage_full")` where the storage fails.
    """

    def put(
        self,
        key: str,
        body: bytes | Path,
        *,
        absent: bool = False,
        match: str | None = None,
        moved: Moved | None = None,
    ) -> StoredObject:
        """Store `body` (bytes, or the content of a local file) under `key`, atomically.

        `absent`: only where there is none (create-only). `match`: only over the object with this etag. Raises
        `PreconditionFailed`. The content type and the cache header follow from the key. `moved` is called for every few
        megabytes of a file that were written, from any thread; what it raises ends the write, and nothing is stored.
        """

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes [offset, offset + length) of the object, or to its end. Raises `ObjectNotFound`."""

    def stat(self, key: str) -> StoredObject | None:
        """Size and etag, or None where there is no such object."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key begins with `prefix`, in the order of the keys."""

    def delete(self, prefix: str) -> int:
        """Delete every object whose key begins with `prefix`; returns how many. None there is fine."""

    def presign(self, key: str, expires_s: int) -> str:
        """A URL that reads the object without credentials until it expires."""

    def local_path(self, key: str) -> Path | None:
        """Where the object lies on this machine, for reading only; None where it has no path."""
