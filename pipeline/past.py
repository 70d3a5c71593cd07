"""What an asset has been through: the histories of its jobs, and a digest that spares reading all of them.

A history is written when its job ends, `private/<asset>/jobs/<job>.json`. An asset may have thousands, and whoever lets
the next request in must not read them all, nor list them. So `private/<asset>/standing.json` names the few that tell
how the asset stands: the one with its newest document, the last job that has a plan, and so on.

The law: the digest is written before the history. A digest that names a history which is not there is not believed,
and all of them are read; so whatever a crash leaves, no history is ever overlooked. Of several writers each adds its
own job by compare-and-swap; adding it twice changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.job import JobStatus
from pipeline.ports import ObjectNotFound, PreconditionFailed, Storage
from pipeline.tasks import Blueprint, from_json, to_json

SCHEMA = 1
"""Of histories, digests and tombstones; a worker that meets a newer one leaves it alone."""
END_OF_LIFE = ("delete", "expire")
"""Kinds of jobs that make nothing."""
_TRIES = 100

History = Mapping[str, Any]
"""One history as it is stored: `pipeline.tidy.history` writes it."""


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
    number: int | None = None
    """As `Job.number`."""
    ended_ms: int | None = None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Told:
    """What histories tell of an asset."""

    histories: tuple[History, ...]
    """Those that matter, or all of them."""
    whole: bool
    """These are all that there are."""
    epoch: int = 0
    sequence: int = 0
    """Highest of its events that any history, also one that is not here, has heard of."""

    @property
    def past(self) -> tuple[Past, ...]:
        """Newest first."""
        return tuple(sorted(map(_past, self.histories), key=lambda job: job.created_ms, reverse=True))


def decisive(storage: Storage, asset: str) -> Told:
    """What tells how the asset stands: a few histories, however many there are. Raises `schema_newer`."""
    # None of them, or not all: it is being written, or removed, or somebody died in the middle.
    with suppress(ObjectNotFound):
        digest = _told(storage, keys.digest(asset))
        names = dict.fromkeys(job for _, job in digest["newest"].values())
        found = tuple(_told(storage, keys.history(asset, name)) for name in names)
        return Told(histories=found, whole=False, epoch=digest["epoch"], sequence=digest["sequence"])
    return everything(storage, asset)


def everything(storage: Storage, asset: str) -> Told:
    """All histories. Raises `schema_newer`, and `ObjectNotFound` where one goes between the listing and the reading."""
    found = tuple(_told(storage, stored.key) for stored in storage.list(keys.histories(asset)))
    heard = [(told["epoch"], told["sequence"]) for told in found if "epoch" in told]
    return Told(
        histories=found,
        whole=True,
        epoch=max((epoch for epoch, _ in heard), default=0),
        sequence=max((sequence for _, sequence in heard), default=0),
    )


def past_of(storage: Storage, asset: str) -> Iterator[Past]:
    """Its jobs that have ended, oldest first, each read when it is asked for: who has found enough reads no more."""
    for stored in sorted(storage.list(keys.histories(asset)), key=lambda stored: stored.modified_ms):
        with suppress(ObjectNotFound):
            yield _past(_told(storage, stored.key))


def is_told(storage: Storage, asset: str, job: str) -> bool:
    """The job has a history."""
    return storage.stat(keys.history(asset, job)) is not None


def keep(storage: Storage, asset: str, job: str, history: str) -> None:
    """Write the history of a job, once more where it was written before."""
    told: History = json.loads(history)
    _note(storage, asset, told)
    storage.put(keys.history(asset, job), history.encode())


def tombstone(storage: Storage, asset: str) -> Mapping[str, Any] | None:
    """What is left of a deleted asset; None where it is not deleted."""
    with suppress(ObjectNotFound):
        return _told(storage, keys.tombstone(asset))
    return None


# -- the digest -------------------------------------------------------------------------------------------------------

_MATTERS: Mapping[str, Callable[[History], int | None]] = {
    "document": lambda told: int((told["document"] or {}).get("version", 0)) or None,
    "profile": lambda told: _when(told, told["job"]["profile"] and _succeeded(told)),
    "blueprint": lambda told: _when(told, told["job"].get("blueprint") and _succeeded(told)),
    "source": lambda told: _when(told, told["job"].get("source")),
    "asked": lambda told: _when(told, told["job"]["kind"] not in END_OF_LIFE),
}
"""What the newest history that has it is looked for, and how new it is there; None: this one has it not."""


def _when(told: History, has: object) -> int | None:
    return int(told["job"]["created_ms"]) if has else None


def _succeeded(told: History) -> bool:
    return bool(told["job"]["status"] == JobStatus.SUCCEEDED)


def _note(storage: Storage, asset: str, told: History) -> None:
    """Add a history to the digest; where there is none yet, all the others as well."""
    key = keys.digest(asset)
    for _ in range(_TRIES):
        stored = storage.stat(key)
        with suppress(PreconditionFailed, ObjectNotFound):  # somebody else was faster: look again
            known = _told(storage, key) if stored else _drawn_up(everything(storage, asset).histories)
            digest = _with(known, told)
            if stored is None or digest != known:
                body = to_json(digest).encode()
                storage.put(key, body, absent=stored is None, match=stored.etag if stored else None)
            return
    raise PipelineError("storage_unavailable", reason=f"too many jobs of {asset} end at once")


def _drawn_up(histories: Iterable[History]) -> Mapping[str, Any]:
    digest: Mapping[str, Any] = {"schema": SCHEMA, "epoch": 0, "sequence": 0, "newest": {}}
    for told in histories:
        digest = _with(digest, told)
    return digest


def _with(digest: Mapping[str, Any], told: History) -> Mapping[str, Any]:
    mine = {name: [at, told["job"]["id"]] for name, of in _MATTERS.items() if (at := of(told)) is not None}
    newest = digest["newest"]
    return {
        **digest,
        "epoch": max(digest["epoch"], told.get("epoch", 0)),
        "sequence": max(digest["sequence"], told.get("sequence", 0)),
        "newest": {**newest, **{name: max(newest.get(name, at), at) for name, at in mine.items()}},
    }


# -- reading ----------------------------------------------------------------------------------------------------------


def _told(storage: Storage, key: str) -> Mapping[str, Any]:
    told: Mapping[str, Any] = json.loads(storage.get(key))
    if int(told["schema"]) > SCHEMA:
        raise PipelineError("schema_newer", what=key, found=int(told["schema"]), known=SCHEMA)
    return told


def _past(told: History) -> Past:
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
        number=job.get("number"),
        ended_ms=job.get("ended_ms"),
        error=job.get("error"),
    )
