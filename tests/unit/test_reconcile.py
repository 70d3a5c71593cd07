"""A store that was lost, or put back to an older state, learns from storage what it must know."""

from __future__ import annotations

import copy
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from front import ASSET, Front
from storages import Interrupted

from pipeline import document as documents
from pipeline import keys
from pipeline.clips import mark
from pipeline.doorman import FULL
from pipeline.errors import PipelineError
from pipeline.job import AssetRecord, JobStatus
from pipeline.ports import ObjectNotFound
from pipeline.presentation.publish import latest
from pipeline.reconcile import Outcome, Reconciled, Reconciliation
from pipeline.tidy import erase
from pipeline.trims import trims_of


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return Front(tmp_path / "root")


def reconciled(front: Front, *, everything: bool = False, dry_run: bool = False) -> list[Reconciled]:
    return list(Reconciliation(front.doorman, everything=everything, dry_run=dry_run).run())


def the_record(front: Front) -> AssetRecord:
    record: AssetRecord | None = front.store.asset(ASSET)
    assert record is not None
    return record


def rewound(front: Front) -> Any:
    """What the store knows now, to be put back later."""
    lock = getattr(front.store, "_lock")  # noqa: B009
    return copy.deepcopy(front.books, {id(lock): threading.RLock(), id(front.clock): front.clock})


def put_back(front: Front, books: Any) -> None:
    front.books = books
    front.conductor.store = front.doorman.store = front.store


def test_a_fleet_that_lost_nothing_is_left_alone(front: Front) -> None:
    front.ready()

    assert reconciled(front) == []


def test_a_lost_store_knows_its_assets_again(front: Front) -> None:
    front.ready(title="A film", expire_at=9_999_999_999_999)
    before = the_record(front)
    front.forget()

    assert reconciled(front) == [Reconciled(asset=ASSET, outcome=Outcome.RESTORED)]

    after = the_record(front)
    assert documents.load(after.document).title == "A film"
    assert documents.load(after.document).video == documents.load(before.document).video
    assert (after.version >= before.version, after.sequence > before.sequence) == (True, True)
    assert front.store.expired(9) == []
    front.clock.time_ms = 10_000_000_000_000
    assert [asset for asset, _ in front.store.expired(9)] == [ASSET]


def test_it_tells_the_world_in_a_new_epoch(front: Front) -> None:
    front.ready()
    told = front.events
    front.forget()

    reconciled(front, everything=True)

    (event,) = [event for event in front.events if event["subject"] == ASSET]
    assert event["type"] == "dev.reelway.asset.updated.v1"
    assert event["epoch"] > max(each["epoch"] for each in told) or event["sequence"] > max(
        each["sequence"] for each in told
    )
    assert event["data"]["asset"]["video"]["status"] == "Completed"


def test_what_was_restored_can_be_worked_with(front: Front) -> None:
    front.ready(resolutions=("360p",))
    front.forget()
    reconciled(front, everything=True)

    (job,) = front.ask("repackage", asset_id=ASSET, id="again")
    front.live()

    assert front.job(job).status is JobStatus.SUCCEEDED
    presentation = latest(front.storage, ASSET)
    assert presentation is not None
    assert presentation.version == 2


def test_a_publication_that_the_store_has_forgotten_is_told_again(front: Front) -> None:
    """Redis is put back to a moment before the asset was published."""
    job = front.process()
    front.work(("ingest",))
    earlier = rewound(front)
    front.live()
    put_back(front, earlier)
    assert documents.load(the_record(front).document).video.status != "Completed"

    assert reconciled(front) == [Reconciled(asset=ASSET, outcome=Outcome.RENEWED)]

    assert documents.load(the_record(front).document).video.status == "Completed"
    front.live(seconds=300)
    assert front.job(job.id).status is JobStatus.SUCCEEDED
    presentation = latest(front.storage, ASSET)
    assert presentation is not None
    assert presentation.version == 1, "what had been published was not published again"


def test_an_asset_that_was_published_and_not_finished_is_known_again(front: Front) -> None:
    """Redis is lost between the publication and the end of the first job: nobody wrote a history yet."""
    front.ready()
    front.storage.delete(keys.histories(ASSET))
    front.forget()

    assert reconciled(front) == [Reconciled(asset=ASSET, outcome=Outcome.RESTORED)]

    document = documents.load(the_record(front).document)
    assert document.video.status == "Completed"
    assert document.video.renditions
    assert document.presentation == 1


def test_a_first_job_that_was_lost_shows_as_unfinished(front: Front) -> None:
    front.process()
    front.work(("ingest",))
    front.storage.put(keys.source(ASSET, "a.mp4"), b"a source")
    front.forget()

    assert reconciled(front) == [Reconciled(asset=ASSET, outcome=Outcome.UNFINISHED)]
    assert front.store.asset(ASSET) is None


def test_a_deleted_asset_stays_deleted(front: Front) -> None:
    front.ready()
    earlier = rewound(front)
    front.ask("delete", ids=[ASSET])
    front.live()
    put_back(front, earlier)
    assert documents.load(the_record(front).document).deleted is None

    assert reconciled(front) == [Reconciled(asset=ASSET, outcome=Outcome.DELETED)]

    front.live()
    assert documents.load(the_record(front).document).deleted is not None
    assert front.refusal("repackage", asset_id=ASSET).code == "asset_deleted"
    assert reconciled(front) == []


def test_doing_it_twice_changes_nothing_more(front: Front) -> None:
    front.ready()
    front.forget()
    reconciled(front, everything=True)
    record, events = the_record(front), front.events

    assert reconciled(front, everything=True) == []
    assert (the_record(front), front.events) == (record, events)


def test_a_dry_run_only_says_what_it_would_do(front: Front) -> None:
    front.ready()
    front.forget()

    assert reconciled(front, everything=True, dry_run=True) == [Reconciled(asset=ASSET, outcome=Outcome.RESTORED)]

    assert front.store.asset(ASSET) is None
    assert front.events == []


def test_doors_that_lag_behind_are_mended(front: Front) -> None:
    front.ready()
    door = keys.hls_door(ASSET)
    whole = front.storage.get(door)
    front.storage.delete(door)
    front.forget()

    reconciled(front, everything=True)

    assert front.storage.get(door) == whole


# -- beside a fleet that works ----------------------------------------------------------------------------------------


def test_an_asset_at_rest_whose_record_has_expired_is_left_alone(front: Front) -> None:
    """That is so of every old asset: to write them all again would flood the store and the stream."""
    front.ready()
    front.forget()

    assert reconciled(front) == []

    assert front.store.asset(ASSET) is None
    assert front.events == []
    front.ask("repackage", asset_id=ASSET, id="again")
    assert the_record(front).document["video"]["status"] == "Completed", "it comes back when somebody asks for it"


def test_a_deleted_asset_for_which_something_was_refused_is_left_alone(front: Front) -> None:
    """The store forgot it, and knows no more of it than that refusal."""
    front.ready()
    front.ask("delete", ids=[ASSET])
    front.live()
    front.forget()
    front.conductor.refuse(ASSET, PipelineError("asset_deleted", asset=ASSET))

    assert reconciled(front) == []


def test_a_version_that_was_never_told_is_told_though_the_record_has_expired(front: Front) -> None:
    """A history was written, then came another version, and Redis was lost before that job's end."""
    job = front.ready()
    history = front.storage.get(keys.history(ASSET, job.id))
    front.ask("repackage", asset_id=ASSET, id="again")
    front.live()
    front.storage.delete(keys.histories(ASSET))
    front.storage.put(keys.history(ASSET, job.id), history)
    front.forget()

    assert reconciled(front) == [Reconciled(asset=ASSET, outcome=Outcome.RESTORED)]
    assert the_record(front).document["presentation"] == 2


def test_a_store_that_is_nearly_full_is_not_filled(front: Front) -> None:
    front.ready()
    front.forget()
    front.store.fullness = FULL + 0.01  # type: ignore[attr-defined]

    with pytest.raises(PipelineError, match="queue_full"):
        reconciled(front, everything=True)

    assert front.store.asset(ASSET) is None


def test_a_deletion_that_is_under_way_is_left_to_itself(front: Front) -> None:
    front.ready()
    front.ask("delete", ids=[ASSET], id="d-1")
    erase(front.storage, front.job("d-1"), the_record(front))

    assert reconciled(front) == []

    front.live()
    assert front.job("d-1").status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("times", [1, 99])
def test_what_goes_while_it_is_read_ends_nothing(times: int, front: Front) -> None:
    """It is read once more; if something has gone again, it is left to whoever removes it."""
    front.ready(expire_at=9_999_999_999_999)
    front.forget()
    left = times

    def gone(_: int, operation: str, key: str) -> None:
        nonlocal left
        if operation == "get" and key.startswith(keys.histories(ASSET)) and left > 0:
            left -= 1
            raise ObjectNotFound(key)

    front.doorman.storage = Interrupted(front.storage, gone)

    assert [found.outcome for found in reconciled(front)] == ([Outcome.RESTORED] if times == 1 else [])


def test_a_request_that_meets_a_removal_looks_again(front: Front) -> None:
    front.ready()
    front.forget()
    left = 1

    def gone(_: int, operation: str, key: str) -> None:
        nonlocal left
        if operation == "get" and key.startswith(keys.histories(ASSET)) and left > 0:
            left -= 1
            raise ObjectNotFound(key)

    front.doorman.storage = Interrupted(front.storage, gone)

    assert front.ask("repackage", asset_id=ASSET, id="again") == ("again",)


@pytest.mark.parametrize("body", [b"no JSON", b"{}", b"[]", b'{"schema": 99}'])
def test_what_cannot_be_read_is_told_and_the_others_are_looked_after(body: bytes, front: Front) -> None:
    front.ready(expire_at=9_999_999_999_999)
    for key in (keys.media("00000000000"), keys.media("zzzzzzzzzzz")):
        front.storage.put(key, b"x")
    front.storage.put(keys.history("00000000000", "job-1"), body)
    front.storage.put(keys.history("zzzzzzzzzzz", "job-1"), body)
    front.forget()

    found = {each.asset: each.outcome for each in reconciled(front)}

    assert found == {
        "00000000000": Outcome.UNREADABLE,
        ASSET: Outcome.RESTORED,
        "zzzzzzzzzzz": Outcome.UNREADABLE,
    }


# -- edits and clips --------------------------------------------------------------------------------------------------

CLIP, OTHER = "cl1p0000001", "cl1p0000002"


def trimmed(front: Front) -> None:
    """An asset that was trimmed twice, and a clip of it that was trimmed as well."""
    front.ready()
    for number, asset in enumerate((ASSET, ASSET, CLIP), 1):
        if asset == CLIP:
            front.ask("clip", id="clip", asset_id=ASSET, new_id=CLIP, start_time=1, end_time=8)
            front.live()
        front.ask("trim", id=f"trim-{number}", asset_id=asset, start_time=number, end_time=6)
        front.live()


def test_what_was_trimmed_is_as_trimmed_as_before(front: Front) -> None:
    trimmed(front)
    before = {asset: front.document(asset)["video"] for asset in (ASSET, CLIP)}
    trims = {asset: trims_of(front.store, front.storage, asset) for asset in (ASSET, CLIP)}
    front.forget()

    outcomes = reconciled(front, everything=True)

    assert outcomes == [Reconciled(asset=asset, outcome=Outcome.RESTORED) for asset in (ASSET, CLIP)]
    assert {asset: front.document(asset)["video"] for asset in (ASSET, CLIP)} == before
    assert before[ASSET]["status"] == before[CLIP]["status"] == "Completed"
    assert before[ASSET]["edit"]["trim_job_id"] == 2
    assert before[CLIP]["duration_ms"] < before[ASSET]["duration_ms"]
    assert {asset: trims_of(front.store, front.storage, asset) for asset in (ASSET, CLIP)} == trims
    assert reconciled(front, everything=True) == []


def test_a_trim_that_nobody_was_told_of_is_told(front: Front) -> None:
    """It was published, and then Redis was lost."""
    trimmed(front)
    books = rewound(front)
    front.ask("revert_trim", id="revert", asset_id=ASSET)
    front.live()
    put_back(front, books)

    assert reconciled(front) == [Reconciled(asset=ASSET, outcome=Outcome.RENEWED)]
    assert front.document()["video"]["edit"] is None
    assert reconciled(front) == []


@pytest.mark.parametrize("parent", ["is there", "was lost with it", "is deleted", "is deleted and untold"])
def test_a_clip_whose_first_job_was_lost_is_known_as_one(parent: str, front: Front) -> None:
    """Redis is lost between its publication and the end of its job: nobody wrote a history yet."""
    front.ready(title="A film")
    front.ask("clip", id="clip", asset_id=ASSET, new_id=CLIP, start_time=1, end_time=8)
    front.live()
    mark(front.storage, CLIP, [ASSET])
    before = front.document(CLIP)
    if parent.startswith("is deleted"):
        front.ask("delete", id="d-1", ids=[ASSET])
        front.live()
    if parent == "is deleted and untold":
        stone = json.loads(front.storage.get(keys.tombstone(ASSET)))
        front.storage.put(keys.tombstone(ASSET), json.dumps({**stone, "document": None}).encode())
    for asset in (ASSET, CLIP) if parent == "was lost with it" else (CLIP,):
        for lost in (keys.histories(asset), keys.digest(asset)):
            front.storage.delete(lost)
    front.forget()

    outcomes = {each.asset: each.outcome for each in reconciled(front)}

    assert outcomes[CLIP] is Outcome.RESTORED
    after = front.document(CLIP)
    told = parent in ("is there", "is deleted")
    assert (after["parent_id"], after["parent"]["uuid"]) == (ASSET, ASSET)
    assert (after["title"], after["parent"]["title"]) == (("A film", "A film") if told else (None, None))
    assert after["video"]["inputs"] == before["video"]["inputs"] or not told
    same = {*after["video"]} - {"inputs", "resolutions"}
    assert {name: after["video"][name] for name in same} == {name: before["video"][name] for name in same}


def test_a_clip_of_a_clip_was_cut_from_that(front: Front) -> None:
    """It plays objects of both."""
    front.ready(title="A film")
    front.ask("clip", id="clip", asset_id=ASSET, new_id=CLIP, title="The best", start_time=1, end_time=8)
    front.live()
    front.ask("duplicate", id="dup", asset_id=CLIP, new_id=OTHER)
    front.live()
    first = f"{keys.version(OTHER, 1)}presentation.json"
    body = json.loads(front.storage.get(first))
    front.storage.put(first, json.dumps({**body, "more": [f"{keys.public(CLIP)}video-720p/0a1b2c/0.m4s"]}).encode())
    for lost in (keys.histories(OTHER), keys.digest(OTHER)):
        front.storage.delete(lost)
    front.forget()

    reconciled(front)

    document = front.document(OTHER)
    assert (document["parent_id"], document["title"]) == (CLIP, "The best")


def test_a_deletion_that_is_asked_for_again_takes_nothing_that_a_clip_plays(front: Front) -> None:
    """Storage says that it was deleted, an older Redis that it was not."""
    trimmed(front)
    mark(front.storage, CLIP, [ASSET])
    books = rewound(front)
    front.ask("delete", id="d-1", ids=[ASSET])
    front.live()
    before = front.left()
    put_back(front, books)

    assert reconciled(front) == [Reconciled(asset=ASSET, outcome=Outcome.DELETED)]
    front.live()

    assert front.left() == before
    assert all(front.storage.stat(track.init) for track in front.shown(CLIP).tracks)
