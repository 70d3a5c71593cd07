"""What storage says of an asset: all that must be known of it where the store has forgotten it.

The store keeps what is in flight, some days beyond its end. What lasts lies beside the asset: the histories of its
jobs, with the document at the end of each; its presentations; and the tombstone, when it is deleted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pipeline import keys
from pipeline.document import public_url
from pipeline.errors import PipelineError
from pipeline.job import AssetRecord, Job, JobStatus
from pipeline.ports import JobStore, ObjectNotFound, Storage
from pipeline.presentation.model import Presentation
from pipeline.presentation.publish import latest
from pipeline.tasks import Blueprint, from_json

SCHEMA = 1
"""Of histories and tombstones; a worker that meets a newer one leaves it alone."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """A job that has ended, as its history tells it."""

    id: str
    kind: str
    status: JobStatus
    created_ms: int
    request: Mapping[str, Any]
    """As it was asked; of a source's URL what may be shown."""
    sealed: str | None = field(default=None, repr=False)
    """As `Job.sealed`."""
    source: str = ""
    """As `Job.source`."""
    profile: Mapping[str, Any] = field(default_factory=dict)
    blueprint: Blueprint | None = None


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
    """Storage key of the source; of one that is used in place, the place."""
    past: tuple[Past, ...] = ()
    """Its jobs, newest first."""
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
    def _successful(self) -> list[Past]:
        return [job for job in self.past if job.status is JobStatus.SUCCEEDED]


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
    told = [_told(storage, stored.key) for stored in storage.list(keys.histories(asset))]
    presentation = latest(storage, asset)
    past = tuple(sorted(map(_past, told), key=lambda job: job.created_ms, reverse=True))
    source = _source(storage, asset, past)
    if not told and presentation is None and source is None:
        return None
    heard = [(history["epoch"], history["sequence"]) for history in told if "epoch" in history]
    heard += [(presentation.epoch, presentation.sequence)] if presentation else []
    documents = [history["document"] for history in told if history["document"]]
    return Standing(
        asset=asset,
        document=max(documents, key=lambda document: int(document["version"]), default=None),
        presentation=presentation,
        source=source,
        past=past,
        epoch=max((epoch for epoch, _ in heard), default=0),
        sequence=max((sequence for _, sequence in heard), default=0),
    )


def untouched(storage: Storage, asset: str) -> bool:
    """Nobody has begun anything under this id: quicker than to ask how it stands."""
    return next(iter(storage.list(keys.private(asset))), None) is None


def tombstone(storage: Storage, asset: str) -> Mapping[str, Any] | None:
    """What is left of a deleted asset; None where it is not deleted."""
    with suppress(ObjectNotFound):
        return _checked(keys.tombstone(asset), storage.get(keys.tombstone(asset)))
    return None


def references(storage: Storage, asset: str) -> int:
    """How many clips play segments of it."""
    return sum(1 for _ in storage.list(keys.references(asset)))


def jobs_of(store: JobStore, storage: Storage, asset: str) -> Sequence[Job | Past]:
    """The jobs of a living asset, newest first; those that only storage knows come last. Of a deleted one there are
    none."""
    found = standing(storage, asset)
    if found is not None and found.deleted is not None:
        return ()
    known = [job for id_ in store.jobs(asset) if (job := store.job(id_)) is not None]
    return [*known, *(found.past if found else ())]


def _source(storage: Storage, asset: str, past: Sequence[Past]) -> str | None:
    """Where its jobs have it from, the newest first: of an upload that broke off something else may lie there too."""
    there = [stored.key for stored in storage.list(keys.sources(asset))]
    named = next((job.source for job in past if job.source in there or _elsewhere(job.source)), None)
    if there and not (named and _elsewhere(named)):
        return named or there[0]
    return _place(storage, asset)


def _elsewhere(source: str) -> bool:
    return source != "" and not keys.is_ours(source)


def _place(storage: Storage, asset: str) -> str | None:
    """Where a source lies that is used in place."""
    with suppress(ObjectNotFound):
        return public_url(str(json.loads(storage.get(keys.place(asset)))["url"]))
    return None


def _told(storage: Storage, key: str) -> Mapping[str, Any]:
    return _checked(key, storage.get(key))


def _checked(key: str, text: bytes) -> Mapping[str, Any]:
    told: Mapping[str, Any] = json.loads(text)
    if int(told["schema"]) > SCHEMA:
        raise PipelineError("schema_newer", what=key, found=int(told["schema"]), known=SCHEMA)
    return told


def _past(told: Mapping[str, Any]) -> Past:
    job = told["job"]
    blueprint = job.get("blueprint")
    return Past(
        id=job["id"],
        kind=job["kind"],
        status=JobStatus(job["status"]),
        created_ms=job["created_ms"],
        request=job["request"],
        sealed=job.get("sealed"),
        source=job.get("source", ""),
        profile=job["profile"],
        blueprint=from_json(Blueprint, json.dumps(blueprint)) if blueprint else None,
    )
