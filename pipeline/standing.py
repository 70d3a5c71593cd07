"""What storage says of an asset: all that must be known of it where the store has forgotten it.

The store keeps what is in flight, some days beyond its end. What lasts lies beside the asset: the histories of its
jobs, with the document at the end of each; its presentations; and the tombstone, when it is deleted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline import keys
from pipeline.document import public_url
from pipeline.job import AssetRecord, Job, JobStatus
from pipeline.past import Past, Told, decisive, everything, past_of, tombstone
from pipeline.ports import JobStore, ObjectNotFound, Storage
from pipeline.presentation.model import Presentation
from pipeline.presentation.publish import latest
from pipeline.tasks import Blueprint


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What storage says of an asset."""

    asset: str
    deleted: int | None = None
    """When it was deleted, milliseconds since 1970."""
    document: Mapping[str, Any] | None = None
    """The newest that is known; None while its first job has not ended."""
    presentation: Presentation | None = None
    """The latest version."""
    source: str | None = None
    """Storage key of the source, which of a clip is another asset's; of one that is used in place, the place."""
    past: tuple[Past, ...] = ()
    """Those of its jobs that tell how it stands, newest first."""
    under_way: tuple[Job, ...] = ()
    """Jobs that the store knows: what they are to make plays already, and they have no history yet."""
    epoch: int = 0
    sequence: int = 0
    """Highest sequence of its events that is known."""

    @property
    def profile(self) -> Mapping[str, Any]:
        """The profile of the last job that made something of it; empty where none is known."""
        return next((job.profile for job in self._successful if job.profile), {})

    @property
    def blueprint(self) -> Blueprint | None:
        """What was last drawn for it: its media and its grid."""
        return next((job.blueprint for job in self._successful if job.blueprint), None)

    @property
    def record(self) -> AssetRecord | None:
        """What the store should know of it."""
        if self.document is None:
            return None
        return AssetRecord(
            id=self.asset,
            document=self.document,
            version=int(self.document["version"]),
            epoch=self.epoch,
            sequence=self.sequence,
        )

    @property
    def _successful(self) -> list[Job | Past]:
        return [*self.under_way, *(job for job in self.past if job.status is JobStatus.SUCCEEDED)]


def standing(storage: Storage, asset: str) -> Standing | None:
    """What storage says of the asset; None where there is nothing of it. Raises `schema_newer`.

    `ObjectNotFound` comes out where again and again something goes between the listing and the reading.
    """
    try:
        return _seen(storage, asset)
    except ObjectNotFound:  # it is removed at this very moment: what is there now is what counts
        return _seen(storage, asset)


def _seen(storage: Storage, asset: str) -> Standing | None:
    stone = tombstone(storage, asset)
    if stone is not None:
        return Standing(
            asset=asset,
            deleted=int(stone["deleted"]),
            document=stone["document"],
            epoch=int(stone["epoch"]),
            sequence=int(stone["sequence"]),
        )
    told = decisive(storage, asset)
    presentation = latest(storage, asset)
    source = _source(storage, asset, told, of_clip=presentation is not None and presentation.base is not None)
    if not told.histories and presentation is None and source is None:
        return None
    heard = (presentation.epoch, presentation.sequence) if presentation else (0, 0)
    documents = [history["document"] for history in told.histories if history["document"]]
    return Standing(
        asset=asset,
        document=max(documents, key=lambda document: int(document["version"]), default=None),
        presentation=presentation,
        source=source,
        past=told.past,
        epoch=max(told.epoch, heard[0]),
        sequence=max(told.sequence, heard[1]),
    )


def untouched(storage: Storage, asset: str) -> bool:
    """Nobody has begun anything under this id: quicker than to ask how it stands."""
    return next(iter(storage.list(keys.private(asset))), None) is None


def jobs_of(store: JobStore, storage: Storage, asset: str) -> Sequence[Job | Past]:
    """All jobs of a living asset, newest first; those that only storage knows come last. Of a deleted one there are
    none."""
    if tombstone(storage, asset) is not None:
        return ()
    known = [job for id_ in store.jobs(asset) if (job := store.job(id_)) is not None]
    return [*known, *sorted(past_of(storage, asset), key=lambda job: job.created_ms, reverse=True)]


def _source(storage: Storage, asset: str, told: Told, *, of_clip: bool) -> str | None:
    """Where its jobs have it from, the newest first: of an upload that broke off something else may lie there too."""
    there = [stored.key for stored in storage.list(keys.sources(asset))]
    named = _named(asset, told.past, there)
    if named is None and len(there) > 1 and not told.whole:
        named = _named(asset, everything(storage, asset).past, there)
    if of_clip and named and named not in there:  # another asset's: as long as that one has it
        return named if not keys.is_ours(named) or storage.stat(named) else None
    if there and not (named and _elsewhere(asset, named)):
        return named or there[0]
    return _place(storage, asset)


def _named(asset: str, past: Sequence[Past], there: Sequence[str]) -> str | None:
    return next((job.source for job in past if job.source in there or _elsewhere(asset, job.source)), None)


def _elsewhere(asset: str, source: str) -> bool:
    return source != "" and not (keys.is_ours(source) and keys.owner(source) == asset)


def _place(storage: Storage, asset: str) -> str | None:
    """Where a source lies that is used in place."""
    with suppress(ObjectNotFound):
        return public_url(str(json.loads(storage.get(keys.place(asset)))["url"]))
    return None


__all__ = ["Past", "Standing", "jobs_of", "past_of", "standing", "tombstone", "untouched"]
