"""The life of a URL that holds a secret: sealed at the door, opened to fetch, erased when the source is there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from front import ASSET, Front

from pipeline import keys, plan
from pipeline.errors import PipelineError
from pipeline.job import JobStatus
from pipeline.memory import MemoryJobStore
from pipeline.tasks import IngestTask
from pipeline.tidy import history

SECRET = "canary5ecret"
SHOWN = "https://bucket.example/films/a.mov"
URL = f"{SHOWN}?X-Signature={SECRET}"
BROKEN = PipelineError("video_file_broken")


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return Front(tmp_path)


def everything(front: Front) -> str:
    """All that Redis and the storage hold."""
    store = front.store
    assert isinstance(store, MemoryJobStore)
    objects = [front.storage.get(key).decode() for key in front.left()]
    return "\n".join([repr(store._jobs), repr(store._assets), json.dumps(front.events), *objects])


def opened(front: Front, job: str) -> str | None:
    sealed = front.job(job).sealed
    return front.conductor.seal.open(sealed, ASSET) if sealed else sealed


def test_a_record_shows_what_may_be_shown_and_holds_the_rest_sealed(front: Front) -> None:
    job = front.process(url=URL)

    assert job.request["url"] == SHOWN
    assert opened(front, job.id) == URL
    assert job.source == keys.source(ASSET, "a.mov")
    assert SECRET not in everything(front)


@pytest.mark.parametrize("url", ["https://open.example/a.mp4", "s3://bucket/a.mp4", "/videos/a.mp4"])
def test_what_holds_no_secret_stays_readable(url: str, front: Front) -> None:
    job = front.process(url=url)

    assert (job.request["url"], job.sealed) == (url, None)
    front.live()
    assert (front.job(job.id).request["url"], front.job(job.id).sealed) == (url, None)


def test_the_commit_that_settles_ingest_erases_it(front: Front) -> None:
    job = front.process(url=URL)

    front.work({"ingest"})

    assert (front.job(job.id).sealed, front.job(job.id).request["url"]) == ("", SHOWN)
    front.live()
    assert front.job(job.id).status is JobStatus.SUCCEEDED
    assert json.loads(front.storage.get(keys.history(ASSET, job.id)))["job"]["sealed"] == ""
    assert SECRET not in everything(front)


def test_an_attempt_that_failed_for_now_leaves_it_for_the_next(front: Front) -> None:
    job = front.process(url=URL)
    front.conductor.fail(front.begin(job.id, "ingest"), PipelineError("source_unavailable", url=SHOWN, reason="503"))

    assert opened(front, job.id) == URL


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_job_that_ended_before_its_source_was_there_is_retried_from_the_url(cancelled: bool, front: Front) -> None:
    old = front.process(url=URL)
    if cancelled:
        front.ask("cancel", asset_id=ASSET)
    else:
        front.conductor.fail(front.begin(old.id, "ingest"), BROKEN)
    front.sweep()

    (id_,) = front.ask("retry", id="retry-1", asset_id=ASSET)

    assert opened(front, id_) == opened(front, old.id) == URL
    task = plan.task(front.job(id_), front.job(id_).steps["ingest"])
    assert isinstance(task, IngestTask)
    assert (task.known, task.url) == (False, SHOWN)
    front.live()
    assert front.job(id_).status is JobStatus.SUCCEEDED
    assert (opened(front, id_), opened(front, old.id)) == ("", ""), "the source is there: no job needs the URL"


def test_a_history_that_holds_it_sealed_is_enough_for_a_retry_and_loses_it_then(front: Front) -> None:
    """The job before was tidied late, beside a retry, and left a history; then Redis was lost."""
    old = front.process(url=URL)
    front.conductor.fail(front.begin(old.id, "ingest"), BROKEN)
    told = history(front.job(old.id), front.document())
    front.storage.put(keys.history(ASSET, old.id), told.encode())
    front.forget()

    (id_,) = front.ask("retry", asset_id=ASSET)

    assert opened(front, id_) == URL
    front.live()
    assert front.job(id_).status is JobStatus.SUCCEEDED
    assert json.loads(front.storage.get(keys.history(ASSET, old.id)))["job"]["sealed"] == ""


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_job_that_failed_later_is_retried_from_the_stored_source(forgotten: bool, front: Front) -> None:
    old = front.process(url=URL)
    front.work({"ingest"})
    step = next(name for name in front.job(old.id).steps if name.startswith("transcode"))
    front.conductor.fail(front.begin(old.id, step), BROKEN)
    front.sweep()
    kept = {keys.source(ASSET, "a.mov"), keys.media(ASSET), keys.history(ASSET, old.id), keys.digest(ASSET)}
    assert set(front.left()) == kept, "nobody could fetch it again, so it stays; nothing else does"
    if forgotten:
        front.forget()
    front.done.clear()

    (id_,) = front.ask("retry", asset_id=ASSET)
    front.live()

    assert front.job(id_).status is JobStatus.SUCCEEDED
    ingest = front.done[0]
    assert isinstance(ingest, IngestTask)
    assert (ingest.known, ingest.source) == (True, keys.source(ASSET, "a.mov"))


def test_a_retry_whose_source_is_gone_says_so(front: Front) -> None:
    old = front.process(url=URL)
    front.work({"ingest"})
    front.ask("cancel", asset_id=ASSET)
    front.live()
    front.storage.delete(front.job(old.id).source)

    assert front.refusal("retry", asset_id=ASSET).code == "asset_not_ready"


def test_a_source_that_anybody_can_fetch_again_is_not_kept_for_a_failed_job(front: Front) -> None:
    job = front.process(url="https://open.example/a.mp4")
    front.work({"ingest"})
    front.ask("cancel", asset_id=ASSET)
    front.live()

    assert front.job(job.id).status is JobStatus.CANCELLED
    assert front.left() == []


def test_a_deleted_asset_loses_it(front: Front) -> None:
    old = front.process(url=URL)
    front.conductor.fail(front.begin(old.id, "ingest"), BROKEN)
    front.sweep()
    assert opened(front, old.id) == URL

    front.ask("delete", ids=[ASSET])
    front.live()

    assert front.job(old.id).sealed == ""
    assert front.left() == [keys.tombstone(ASSET)]


def test_a_batch_seals_each_of_its_urls(front: Front) -> None:
    front.ask("batch", id="b", requests=[{"asset_id": ASSET, "url": URL}, {"url": "https://open.example/b.mp4"}])

    assert opened(front, "b-1") == URL
    assert front.job("b-2").sealed is None
    assert SECRET not in everything(front)


def test_a_record_of_before_urls_were_sealed_still_works_and_is_cleaned(front: Front) -> None:
    job = front.process(url=URL)
    store = front.store
    assert isinstance(store, MemoryJobStore)
    store._jobs[job.id] = replace(front.job(job.id), sealed=None, request={**job.request, "url": URL}, schema=1)
    task = plan.task(front.job(job.id), front.job(job.id).steps["ingest"])
    assert isinstance(task, IngestTask)
    assert (task.url, task.known) == (URL, False)

    front.live()

    assert front.job(job.id).status is JobStatus.SUCCEEDED
    assert front.job(job.id).sealed == ""
    assert SECRET not in everything(front)


def test_the_same_request_again_is_the_same_job(front: Front) -> None:
    first = front.ask("process", id="r-1", asset_id=ASSET, url=URL)

    assert front.ask("process", id="r-1", asset_id=ASSET, url=URL) == first
    assert front.accepted() == ["r-1"]
