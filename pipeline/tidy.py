"""What is left to do when a job has ended: write its history, and remove what never became an asset. And deletion.

Idempotent: any worker may do it, twice or after a crash. Whoever learns that the step it worked on was lost does it as
well, because it may have stored its last object after somebody else had tidied.

A deletion writes the tombstone before it removes anything, and whoever stores something of the asset looks for the
tombstone afterwards: of the two, one sees the other. So what is deleted stays deleted, whoever wakes up late.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pipeline import document as documents
from pipeline import keys
from pipeline.document import public_url
from pipeline.job import AssetRecord, Commit, Job, JobStatus, Status, Step
from pipeline.ports import JobStore, ObjectNotFound, PreconditionFailed, Storage
from pipeline.presentation.publish import latest, mend
from pipeline.standing import SCHEMA, references, tombstone
from pipeline.tasks import as_data, to_json

Others = Callable[[], Iterable[Job]]
"""The asset's other jobs, as they stand now."""
_NONE: Sequence[Job] = ()


def tidy_after(store: JobStore, storage: Storage, job: Job) -> None:
    """Put the storage of a job in order that has ended, or delete the asset of one that asks for it."""

    def others() -> Iterable[Job]:
        jobs = (store.job(id_) for id_ in store.jobs(job.asset) if id_ != job.id)
        return [other for other in jobs if other is not None]

    record = store.asset(job.asset)
    heard = (record.epoch, record.sequence) if record else (0, 0)
    if job.kind == "delete":
        erase(storage, job, record)
        _erase_urls(store, others())
        return
    if job.sealed and any(other.fetched for other in others()):
        job = replace(job, sealed="")
    tidy(storage, job, record.document if record else {}, others=others, heard=heard)
    if job.fetched:
        _erase_urls(store, others())
        _erase_urls_of_histories(storage, job.asset)


def _erase_urls(store: JobStore, others: Iterable[Job]) -> None:
    """Ended jobs that knew the source's URL for a retry need it no more: the source is there, or gone for good."""
    for job in others:
        if job.sealed and job.status.ended:
            bare = replace(job, sealed="")
            ended = frozenset({job.status})
            store.commit(Commit(job=job.id, asset=job.asset, job_in=ended, revision=job.revision, header=bare))


def _erase_urls_of_histories(storage: Storage, asset: str) -> None:
    for stored in storage.list(keys.histories(asset)):
        # Whoever wrote it again meanwhile knew it as well.
        with suppress(ObjectNotFound, PreconditionFailed):
            told = json.loads(storage.get(stored.key))
            if told["job"].get("sealed"):
                told["job"]["sealed"] = ""
                storage.put(stored.key, json.dumps(told).encode(), match=stored.etag)


def tidy(
    storage: Storage,
    job: Job,
    document: Mapping[str, Any],
    *,
    others: Others = lambda: _NONE,
    heard: tuple[int, int] = (0, 0),
) -> None:
    """Put an ended job's storage in order: its history, and doors at the latest version.

    Where a job that did not succeed was the first, nothing is left of the asset: neither what was never published, nor
    the half of a publication that broke off; but for a source that nobody could fetch again, because its URL was
    erased: it stays in private, with what is known of it, for a retry. And once another job of the asset has begun,
    nothing more is removed: what lies there may be that one's, which tidies when it ends. `heard` is the (epoch,
    sequence) of the asset's last event.
    """
    if job.status is not JobStatus.SUCCEEDED and _found_another(job):
        return
    if tombstone(storage, job.asset) is None:
        _put_in_order(storage, job, document, others, heard)
    if tombstone(storage, job.asset) is not None:
        _remove(storage, job.asset, keep_tracks=references(storage, job.asset) > 0)


def _put_in_order(
    storage: Storage, job: Job, document: Mapping[str, Any], others: Others, heard: tuple[int, int]
) -> None:
    seen = tuple(others())  # before the look at what is published: who comes later may publish after it
    if job.status is not JobStatus.SUCCEEDED and _all_of_the_unsuccessful(storage, job, seen):
        kept = job.fetched or _kept_for_a_look(job)
        gone = remove_asset(storage, job.asset, keep_source=kept, allowed=lambda: _nobody_came(seen, others()))
        if gone and not kept:
            return
    else:
        mend(storage, job.asset)
    storage.put(keys.history(job.asset, job.id), history(job, document, heard=heard).encode())


def _kept_for_a_look(job: Job) -> bool:
    """Its source was refused, or broke whoever looked at it, and the settings want to see it."""
    ingest = job.steps.get("ingest")
    return job.limits.keep_refused and ingest is not None and ingest.status is Status.FAILED


def _all_of_the_unsuccessful(storage: Storage, job: Job, others: Iterable[Job]) -> bool:
    """Nobody who succeeded brought anything: later versions keep the effects of earlier ones, so the latest knows."""
    presentation = latest(storage, job.asset)
    unsuccessful = {job.id, *(other.id for other in others if _came_to_nothing(other))}
    return presentation is None or unsuccessful.issuperset(effect.job for effect in presentation.effects)


def _came_to_nothing(job: Job) -> bool:
    return job.status.ended and job.status is not JobStatus.SUCCEEDED


def _nobody_came(seen: Iterable[Job], others: Iterable[Job]) -> bool:
    """All of the others had ended when they were seen: one that began since may have published, and even have ended."""
    over = {job.id for job in seen if job.status.ended}
    return all(other.id in over for other in others)


def _found_another(job: Job) -> bool:
    """It ended because another file lies where its own belongs: what is there is somebody else's."""
    return job.error is not None and job.error["code"] == "source_differs"


# -- history ----------------------------------------------------------------------------------------------------------


def history(job: Job, document: Mapping[str, Any], *, heard: tuple[int, int] = (0, 0)) -> str:
    """The job's history as JSON: what was asked, how each step went and how long it waited, the document at its end.

    No secret is in it: of the source's URL it shows what may be shown.
    """
    request = dict(job.request)
    if "url" in request:
        request["url"] = public_url(str(request["url"]))
    return to_json(
        {
            "schema": SCHEMA,
            "job": as_data(replace(job, steps={}, request=request)),
            "steps": [_told(job, step) for step in job.steps.values()],
            "document": dict(document),
            "epoch": heard[0],
            "sequence": heard[1],
        }
    )


def _told(job: Job, step: Step) -> dict[str, Any]:
    """One step: as the record has it, with what may be counted from that."""
    return {**as_data(step), "attempts": step.attempt, "waited_s": _waited_s(job, step)}


def _waited_s(job: Job, step: Step) -> float | None:
    """Seconds from the moment when it might begin to the one when it did; None where it never began."""
    if step.begun_ms is None:
        return None
    settled = [job.steps[need].ended_ms or job.created_ms for need in step.needs]
    # What the plan grew began its life when ingest had ended.
    ingest = job.steps.get("ingest")
    if ingest is not None and ingest.ended_ms is not None and step.id != ingest.id:
        settled.append(ingest.ended_ms)
    return max(0, step.begun_ms - max(settled, default=job.created_ms)) / 1000


# -- removal ----------------------------------------------------------------------------------------------------------


class _Occupied(Exception):
    """Somebody has begun something new with the asset."""


def _always() -> bool:
    return True


def remove_asset(
    storage: Storage, asset: str, *, keep_source: bool = False, allowed: Callable[[], bool] = _always
) -> bool:
    """Delete everything of an asset that never came to be, the doors first: none leads to what is gone.

    `keep_source`: but for its source, what is known of that, and the histories. `allowed` is asked before every batch
    of objects; with no the removal ends, and False is returned.
    """
    try:
        _remove(storage, asset, keep_tracks=False, keep_source=keep_source, allowed=allowed)
    except _Occupied:
        return False
    return True


def erase(storage: Storage, job: Job, record: AssetRecord | None) -> None:
    """Delete an asset for good, as its job asks: all that is left is the tombstone, which comes first.

    What lies elsewhere (a source that was registered in place) is not touched. Where a clip has come meanwhile that
    plays its segments, these stay, unless the job may take them as well.
    """
    with suppress(PreconditionFailed):  # an earlier attempt, or an earlier deletion
        storage.put(keys.tombstone(job.asset), _stone(job, record).encode(), absent=True)
    _remove(storage, job.asset, keep_tracks=not job.request.get("force") and references(storage, job.asset) > 0)


def _stone(job: Job, record: AssetRecord | None) -> str:
    document = {}
    if record is not None and record.document:
        gone = documents.deleted(documents.load(record.document), job.created_ms)
        stamped = documents.stamped(gone, version=record.version + 1, now_ms=job.created_ms)
        document = stamped.model_dump(mode="json")
    return to_json(
        {
            "schema": SCHEMA,
            "asset": job.asset,
            "deleted": job.created_ms,
            "job": job.id,
            "document": document or None,
            "epoch": record.epoch if record else 0,
            "sequence": record.sequence if record else 0,
        }
    )


def _remove(
    storage: Storage,
    asset: str,
    *,
    keep_tracks: bool,
    keep_source: bool = False,
    allowed: Callable[[], bool] = _always,
) -> None:
    """The doors, then what is private, the presentations, and the tracks. Raises `_Occupied`."""

    def insist() -> None:
        if not allowed():
            raise _Occupied

    def delete(prefixes: Collection[str]) -> None:
        for prefix in prefixes:
            insist()
            storage.delete(prefix, moved=insist)

    delete((keys.hls_door(asset), keys.dash_door(asset)))
    kept = keys.of_source(asset) if keep_source else ()
    delete(() if keep_source else (keys.sources(asset),))
    delete([prefix for prefix in _private(storage, asset) if prefix not in kept])
    delete((keys.versions(asset),))
    if not keep_tracks:
        delete((keys.public(asset),))


def _private(storage: Storage, asset: str) -> Sequence[str]:
    """What lies in the asset's private folder, but for its tombstone: files, and folders as a whole."""
    root = keys.private(asset)
    names = (stored.key.removeprefix(root) for stored in storage.list(root))
    heads = {f"{head}{slash}" for head, slash, _ in (name.partition("/") for name in names)}
    return sorted(root + head for head in heads if root + head != keys.tombstone(asset))


__all__ = ["erase", "history", "remove_asset", "tidy", "tidy_after"]
