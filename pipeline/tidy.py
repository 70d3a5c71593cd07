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
from functools import partial
from typing import Any

from pipeline import clips, keys
from pipeline import document as documents
from pipeline.document import public_url
from pipeline.job import AssetRecord, Commit, Job, JobStatus, Status, Step
from pipeline.past import SCHEMA, keep, tombstone
from pipeline.ports import JobStore, ObjectNotFound, PreconditionFailed, Storage
from pipeline.presentation.publish import latest, mend
from pipeline.tasks import as_data, to_json

Others = Callable[[], Iterable[Job]]
"""The asset's other jobs, as they stand now."""
Find = Callable[[str], Job | None]
"""A job by its id, as it stands now."""
_NONE: Sequence[Job] = ()
_NO_STONE: Mapping[str, Any] = {}


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
    tidy(storage, job, record.document if record else {}, others=others, find=store.job, heard=heard)
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
    find: Find | None = None,
    heard: tuple[int, int] = (0, 0),
) -> None:
    """Put an ended job's storage in order: its history, and doors at the latest version.

    Where a job that did not succeed was the first, nothing is left of the asset: neither what was never published, nor
    the half of a publication that broke off; but for a source that nobody could fetch again, because its URL was
    erased: it stays in private, with what is known of it, for a retry. And once another job of the asset has begun,
    nothing more is removed: what lies there may be that one's, which tidies when it ends. `heard` is the (epoch,
    sequence) of the asset's last event.

    Of an asset that plays it asks for none of its other jobs, however many there were.
    """
    if job.status is not JobStatus.SUCCEEDED and _found_another(job):
        return
    if tombstone(storage, job.asset) is None:
        if _ended_in_vain(storage, job, find or _among(others())):
            _take_back(storage, job, document, others, heard)
        else:
            mend(storage, job.asset)
            _keep_history(storage, job, document, heard)
    if (stone := tombstone(storage, job.asset)) is not None:
        _remove(storage, job.asset, stone, for_clips=True, cut_from=_cut_from(storage, job))


def _take_back(storage: Storage, job: Job, document: Mapping[str, Any], others: Others, heard: tuple[int, int]) -> None:
    """Remove what never became an asset, unless somebody has made one of it meanwhile."""
    seen = tuple(others())  # before the next look: who comes later may publish after it
    if _ended_in_vain(storage, job, _among(seen)):
        kept = job.fetched or _kept_for_a_look(job)
        cut_from = _cut_from(storage, job)
        allowed = partial(_nobody_came, seen, others)
        gone = remove_asset(storage, job.asset, keep_source=kept, cut_from=cut_from, allowed=allowed)
        if gone and not kept:
            return
    else:
        mend(storage, job.asset)
    _keep_history(storage, job, document, heard)


def _keep_history(storage: Storage, job: Job, document: Mapping[str, Any], heard: tuple[int, int]) -> None:
    keep(storage, job.asset, job.id, history(job, document, heard=heard))


def _kept_for_a_look(job: Job) -> bool:
    """Its source was refused, or broke whoever looked at it, and the settings want to see it."""
    ingest = job.steps.get("ingest")
    return job.limits.keep_refused and ingest is not None and ingest.status is Status.FAILED


def _ended_in_vain(storage: Storage, job: Job, find: Find) -> bool:
    """It came to nothing, and so did whoever brought anything: later versions keep the effects of earlier ones, or say
    that they do not, so the latest knows."""
    if job.status is JobStatus.SUCCEEDED:
        return False
    presentation = latest(storage, job.asset)
    makers = {effect.job for effect in presentation.effects} if presentation else set()
    return all(_came_to_nothing(find(maker)) for maker in makers - {job.id})


def _among(jobs: Iterable[Job]) -> Find:
    return {job.id: job for job in jobs}.get


def _came_to_nothing(job: Job | None) -> bool:
    return job is not None and job.status.ended and job.status is not JobStatus.SUCCEEDED


def _nobody_came(seen: Iterable[Job], others: Others) -> bool:
    """All of the others had ended when they were seen: one that began since may have published, and even have ended."""
    over = {job.id for job in seen if job.status.ended}
    return all(other.id in over for other in others())


def _cut_from(storage: Storage, job: Job) -> Collection[str]:
    """Where the job of a clip puts markers, published or not; none where it is of another kind."""
    of = str(job.request.get("asset_id", job.asset))
    return () if of == job.asset else {of, *_played(storage, of, tombstone(storage, of) or _NO_STONE)}


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
    storage: Storage,
    asset: str,
    *,
    keep_source: bool = False,
    cut_from: Collection[str] = (),
    allowed: Callable[[], bool] = _always,
) -> bool:
    """Delete everything of an asset that never came to be, the doors first: none leads to what is gone.

    `keep_source`: but for its source, what is known of that, and the histories. `cut_from`: where it may have left
    markers as a clip, if it never said so itself. `allowed` is asked before every batch of objects; with no the removal
    ends, and False is returned.
    """
    try:
        _remove(storage, asset, for_clips=False, keep_source=keep_source, cut_from=cut_from, allowed=allowed)
    except _Occupied:
        return False
    return True


def erase(storage: Storage, job: Job, record: AssetRecord | None) -> None:
    """Delete an asset for good, as its job asks: all that is left is the tombstone, which comes first.

    What lies elsewhere (a source that was registered in place) is not touched, and nothing of other assets but the
    markers that it left there as a clip. What clips play of it stays for them, and goes by the janitor when the last of
    them is deleted; unless the job may take that as well.
    """
    if tombstone(storage, job.asset) is None:
        written = _stone(job, record, clips.parents_of(storage, job.asset))
        with suppress(PreconditionFailed):  # an earlier attempt, or an earlier deletion
            storage.put(keys.tombstone(job.asset), written.encode(), absent=True)
    stone = tombstone(storage, job.asset)
    _remove(storage, job.asset, stone or {}, for_clips=not job.request.get("force"))


def _stone(job: Job, record: AssetRecord | None, parents: Iterable[str]) -> str:
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
            "parents": sorted(parents),
        }
    )


def _remove(
    storage: Storage,
    asset: str,
    stone: Mapping[str, Any] = _NO_STONE,
    *,
    for_clips: bool,
    keep_source: bool = False,
    cut_from: Collection[str] = (),
    allowed: Callable[[], bool] = _always,
) -> None:
    """The doors, then what is private, the presentations, the tracks, and the markers that it left as a clip. Where it
    did, its first version says, or `stone`, which outlasts it, or `cut_from`, where it never had one. `for_clips`: what
    clips play of it stays. Raises `_Occupied`."""

    def insist() -> None:
        if not allowed():
            raise _Occupied

    def delete(prefixes: Collection[str]) -> None:
        for prefix in prefixes:
            insist()
            storage.delete(prefix, moved=insist)

    delete((keys.hls_door(asset), keys.dash_door(asset)))
    parents = {*cut_from, *_played(storage, asset, stone)}
    kept = keys.of_source(asset) if keep_source else ()
    delete(() if keep_source else (keys.sources(asset),))
    delete([prefix for prefix in _private(storage, asset) if prefix not in kept])
    delete((keys.versions(asset),))
    delete(_public(storage, asset) if for_clips else (keys.public(asset),))
    insist()
    clips.unmark(storage, asset, parents)


def _played(storage: Storage, asset: str, stone: Mapping[str, Any]) -> Collection[str]:
    """The assets of which it plays objects, or did."""
    return {*stone.get("parents", ()), *clips.parents_of(storage, asset)}


def _public(storage: Storage, asset: str) -> Sequence[str]:
    """Everything public, but for what clips play. As long as one of them has not said what that is, all of it stays
    that any could play."""
    found = clips.clips_of(storage, asset)
    if not found:
        return (keys.public(asset),)
    kept = clips.kept_for(storage, asset, found)
    if kept is None:
        return (f"{keys.public(asset)}video.", keys.previews(asset))
    return tuple(clips.beside((stored.key for stored in storage.list(keys.public(asset))), asset, kept))


def _private(storage: Storage, asset: str) -> Sequence[str]:
    """What lies in the asset's private folder, but for its tombstone: files, and folders as a whole."""
    root = keys.private(asset)
    names = (stored.key.removeprefix(root) for stored in storage.list(root))
    heads = {f"{head}{slash}" for head, slash, _ in (name.partition("/") for name in names)}
    return sorted(root + head for head in heads if root + head != keys.tombstone(asset))


__all__ = ["erase", "history", "remove_asset", "tidy", "tidy_after"]
