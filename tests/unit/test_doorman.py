"""What becomes of a request: each kind of it, asked as the stream brings it, on an asset that lies in a real folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import a_profile
from front import ASSET, Front

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.job import JobStatus, Priority, Ref, Status
from pipeline.memory import MemoryJobStore
from pipeline.organizations import Organization
from pipeline.tasks import AudioTask, IngestTask, PackageTask, SubtitleTask, TranscodeTask

OTHER = "0ther000001"


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return Front(tmp_path)


@pytest.fixture
def ready(front: Front) -> Front:
    """With an asset that plays, in two rungs and one sound."""
    assert front.ready().status is JobStatus.SUCCEEDED
    assert front.tracks() == ["video-720p", "video-240p", "audio-1-en"]
    return front


# -- process ----------------------------------------------------------------------------------------------------------


def test_a_request_becomes_a_job_of_its_id_and_the_fleets_size_is_recorded(front: Front) -> None:
    assert front.ask("process", id="r-1", asset_id=ASSET, url="/a.mp4") == ("r-1",)

    job = front.job("r-1")
    assert (job.kind, job.asset, job.workers, job.priority) == ("process", ASSET, 3, Priority.STANDARD)
    assert job.source == keys.source(ASSET, "a.mp4")
    assert front.told() == ["asset.accepted", "asset.updated"]


def test_the_same_request_is_one_job_also_where_it_names_no_asset(front: Front) -> None:
    """The stream may bring an entry twice, and each time it is read an asset id is made for it."""
    first = front.ask("process", id="r-1", url="/a.mp4")
    assert front.ask("process", id="r-1", url="/a.mp4") == first

    assert front.accepted() == ["r-1"]
    assert front.told().count("asset.accepted") == 1


def test_a_request_id_is_one_requests_alone(front: Front) -> None:
    front.ask("process", id="r-1", asset_id=ASSET, url="/a.mp4")

    error = front.refusal("process", id="r-1", asset_id=OTHER, url="/a.mp4")
    assert error.code == "parameter_invalid"
    assert "r-1" in error.message
    assert front.refusal("repackage", id="r-1", asset_id=ASSET).code == "parameter_invalid"


def test_an_asset_id_is_used_once(ready: Front) -> None:
    assert ready.refusal("process", id="r-2", asset_id=ASSET, url="/a.mp4").code == "asset_exists"

    ready.forget()
    assert ready.refusal("process", id="r-2", asset_id=ASSET, url="/a.mp4").code == "asset_exists"
    assert ready.ask("process", id="request-1", asset_id=ASSET, url="/videos/clip.mp4") == ("request-1",), "the same"
    assert ready.store.job("request-1") is None, "it need not be made again"


def test_an_unknown_profile_is_refused(front: Front) -> None:
    assert front.refusal("process", url="/a.mp4", profile="nosuch").code == "profile_unknown"


# -- what an organization may do --------------------------------------------------------------------------------------


def test_an_organization_has_so_many_open_jobs_and_is_told_when_to_come_back(tmp_path: Path) -> None:
    front = Front(tmp_path, acme=Organization(max_open_jobs=2))
    for number in (1, 2):
        front.ask("process", id=f"r-{number}", url="/a.mp4", organization="acme")

    error = front.refusal("process", id="r-3", url="/a.mp4", organization="acme")

    assert error.code == "quota_exceeded"
    assert (error.params["maximum"], error.params["organization"]) == (2, "acme")
    assert int(error.params["retry_after_s"]) > 0
    assert front.ask("process", id="r-2", url="/a.mp4", organization="acme"), "what was let in is let in"
    assert front.ask("process", id="r-3", url="/a.mp4"), "others are not meant"
    front.ask("cancel", asset_id=front.job("r-1").asset)
    assert front.ask("process", id="r-4", url="/a.mp4", organization="acme")


def test_a_store_that_is_nearly_full_takes_nothing_new_and_can_still_be_told_to_stop(
    ready: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.process(id="open", asset_id=OTHER)
    monkeypatch.setattr(MemoryJobStore, "pressure", lambda self: 0.93)

    error = ready.refusal("process", id="r-9", url="/a.mp4")
    assert (error.code, error.params["percent"]) == ("queue_full", 93)
    assert int(error.params["retry_after_s"]) > 0
    assert ready.refusal("batch", requests=[{"url": "/a.mp4"}]).code == "queue_full"
    assert ready.refusal("repackage", asset_id=ASSET).code == "queue_full"

    assert ready.ask("process", id="open", asset_id=OTHER, url="/videos/clip.mp4") == ("open",), "let in before"
    assert ready.ask("cancel", asset_id=OTHER) == ("open",)
    assert ready.ask("delete", id="d-1", ids=[ASSET]) == ("d-1",)


@pytest.mark.parametrize("type_", ["process", "prioritize"])
def test_priorities_are_the_organizations(type_: str, tmp_path: Path) -> None:
    front = Front(tmp_path, acme=Organization(priorities=(Priority.BULK,)))
    front.process(priority="bulk", organization="acme")
    wish = {"url": "/a.mp4"} if type_ == "process" else {"asset_id": ASSET}

    error = front.refusal(type_, organization="acme", priority="high", **wish)

    assert error.code == "priority_not_allowed"
    assert error.hint == "Use one of: bulk."


def test_the_limits_of_an_organization_go_with_the_job(tmp_path: Path) -> None:
    front = Front(tmp_path, acme=Organization(max_bytes=7, max_duration_s=60))
    job = front.process(organization="acme")
    front.doorman.organizations = front.doorman.organizations.model_copy(update={"organizations": {}})
    front.work({"ingest"})

    (task,) = front.done
    assert isinstance(task, IngestTask)
    assert (task.limits.max_bytes, task.limits.max_duration_s) == (7, 60)
    assert task.limits.max_pixels == job.limits.max_pixels > 0, "the product's own"


# -- batches ----------------------------------------------------------------------------------------------------------


def members(count: int, **changes: Any) -> list[dict[str, Any]]:
    return [{"asset_id": f"batch00000{n}", "url": f"/{n}.mp4", **changes} for n in range(count)]


def test_a_batch_is_all_of_its_jobs_in_order_and_the_same_batch_is_the_same_jobs(front: Front) -> None:
    ids = front.ask("batch", id="b", requests=members(3))

    assert ids == ("b-1", "b-2", "b-3")
    assert [front.job(id_).asset for id_ in ids] == ["batch000000", "batch000001", "batch000002"]
    assert front.ask("batch", id="b", requests=members(3)) == ids
    assert front.told().count("asset.accepted") == 3


def test_a_batch_that_exceeds_the_quota_is_refused_as_a_whole_and_says_at_which(tmp_path: Path) -> None:
    front = Front(tmp_path, acme=Organization(max_open_jobs=2))

    error = front.refusal("batch", organization="acme", requests=members(4))

    assert (error.code, error.params["index"]) == ("quota_exceeded", 2)
    assert front.accepted() == []


@pytest.mark.parametrize(
    ("wrong", "code"), [({"profile": "nosuch"}, "profile_unknown"), ({"asset_id": ASSET}, "asset_exists")]
)
def test_one_wrong_request_of_a_batch_is_named_and_nothing_is_accepted(
    wrong: dict[str, Any], code: str, ready: Front
) -> None:
    requests = members(3)
    requests[1] |= wrong

    error = ready.refusal("batch", requests=requests)

    assert (error.code, error.params["index"]) == (code, 1)


# -- a ready asset: one stage alone -----------------------------------------------------------------------------------


def test_reprocess_makes_only_what_is_missing(ready: Front) -> None:
    (id_,) = ready.ask("reprocess", id="again", asset_id=ASSET, resolutions=["240p", "480p", "720p"])
    assert ready.document()["video"]["status"] == "Completed"
    ready.live()

    assert ready.job(id_).status is JobStatus.SUCCEEDED
    ingest, *made, package = ready.done
    assert isinstance(ingest, IngestTask)
    assert (ingest.known, ingest.source) == (True, keys.source(ASSET, "clip.mp4"))
    assert {rung.name for task in made if isinstance(task, TranscodeTask) for rung in task.rungs} == {"480p"}
    assert not [task for task in made if isinstance(task, AudioTask)]
    assert isinstance(package, PackageTask)
    assert set(ready.tracks()) == {"video-720p", "video-480p", "video-240p", "audio-1-en"}
    assert (ready.shown().version, ready.document()["presentation"]) == (2, 2)
    assert ready.document()["video"]["resolutions"] == ["240p", "480p", "720p"]


def test_reprocess_of_what_lacks_nothing_makes_nothing(ready: Front) -> None:
    (id_,) = ready.ask("reprocess", asset_id=ASSET, resolutions=["720p"])
    ready.live()

    assert [type(task) for task in ready.done] == [IngestTask]
    assert ready.job(id_).status is JobStatus.SUCCEEDED
    assert ready.shown().version == 1
    assert ready.told()[-2:] == ["asset.ready", "asset.updated"]


def test_what_is_missing_is_made_with_the_assets_own_profile(ready: Front) -> None:
    """Another grid or another quality beside the rungs that there are would show at every switch."""
    ready.conductor.profiles = {"default": a_profile(segment_seconds=2, description="Changed since.")}
    (id_,) = ready.ask("reprocess", asset_id=ASSET, resolutions=["480p"])

    assert ready.job(id_).profile["description"] == "For tests."
    assert ready.refusal("reprocess", asset_id=ASSET, everything=True, profile="nosuch").code == "profile_unknown"


def test_everything_again_is_todays_profile_and_takes_over_at_the_end(ready: Front) -> None:
    before = {track.id: track.init for track in ready.shown().tracks}
    ready.conductor.profiles = {"default": a_profile(resolutions=("480p",), description="Changed since.")}

    (id_,) = ready.ask("reprocess", id="again", asset_id=ASSET, everything=True)
    ready.work({"ingest", "transcode", "audio"})
    assert ready.shown().version == 1, "what plays goes on playing until the new version is whole"
    ready.live()

    assert ready.job(id_).profile["description"] == "Changed since."
    assert set(ready.tracks()) == {"video-480p", "audio-1-en"}, "the old rungs are gone"
    assert ready.shown().version == 2
    assert ready.document()["video"]["resolutions"] == ["480p"]
    assert all(ready.storage.stat(init) for init in before.values()), "older versions still find theirs"
    assert not [task for task in ready.done if isinstance(task, IngestTask) and not task.known]


@pytest.mark.parametrize(
    ("stage", "kind", "kept"), [("transcode", TranscodeTask, "audio-1-en"), ("audio", AudioTask, "video-720p")]
)
def test_one_stage_again_leaves_the_others_as_they_are(stage: str, kind: type, kept: str, ready: Front) -> None:
    before = {track.id: track for track in ready.shown().tracks}

    ready.ask("reprocess", id="again", asset_id=ASSET, stages=[stage], resolutions=["240p", "720p"])
    ready.live(stages=("ingest", stage, "package"))

    assert {type(task) for task in ready.done} == {IngestTask, kind, PackageTask}
    after = {track.id: track for track in ready.shown().tracks}
    assert ready.shown().version == 2
    assert after[kept] == before[kept]
    assert after.keys() == before.keys()


def test_repackage_is_the_package_stage_alone_and_the_next_version_of_the_same_tracks(ready: Front) -> None:
    before = ready.shown().tracks

    (id_,) = ready.ask("repackage", asset_id=ASSET)
    ready.live(stages=("package",))

    assert [type(task) for task in ready.done] == [PackageTask]
    assert ready.job(id_).status is JobStatus.SUCCEEDED
    assert (ready.shown().version, ready.shown().tracks) == (2, before)


def test_captions_are_the_subtitle_stage_alone_and_come_beside_the_rest(ready: Front) -> None:
    told = len(ready.events)
    (id_,) = ready.ask("make_subtitles", asset_id=ASSET, language="de")
    ready.live(stages=("subtitle",))

    (task,) = ready.done
    assert isinstance(task, SubtitleTask)
    assert (task.language, task.source) == ("de", keys.source(ASSET, "clip.mp4"))
    assert ready.job(id_).status is JobStatus.SUCCEEDED
    assert ready.tracks() == ["video-720p", "video-240p", "audio-1-en", "text-en-auto"]
    assert [track["id"] for track in ready.document()["video"]["tracks"]] == ["text-en-auto"]
    assert ready.told(told)[-6:] == [
        "step.finished", "track.ready", "subtitle.completed", "asset.updated", "asset.ready", "asset.updated",
    ]  # fmt: skip


def test_captions_that_are_the_job_and_fail_are_said_to_have_failed(ready: Front) -> None:
    (id_,) = ready.ask("make_subtitles", asset_id=ASSET)
    told = len(ready.events)
    ready.conductor.fail(ready.begin(id_, "subtitle"), PipelineError("speech_model_missing", model="small"))

    assert ready.told(told) == ["step.started", "step.failed", "subtitle.failed", "asset.failed", "asset.updated"]
    assert ready.document()["video"]["status"] == "Completed", "it plays as before"


ALONE = [("reprocess", {}), ("repackage", {}), ("make_subtitles", {})]


@pytest.mark.parametrize(("type_", "fields"), ALONE)
def test_the_same_wish_again_is_the_same_job(type_: str, fields: dict[str, Any], ready: Front) -> None:
    first = ready.ask(type_, id="w-1", asset_id=ASSET, **fields)
    assert ready.ask(type_, id="w-1", asset_id=ASSET, **fields) == first == ("w-1",)
    ready.live()
    assert ready.ask(type_, id="w-1", asset_id=ASSET, **fields) == first


@pytest.mark.parametrize(("type_", "fields"), ALONE)
def test_what_needs_a_ready_asset_is_refused_until_there_is_one(
    type_: str, fields: dict[str, Any], front: Front
) -> None:
    assert front.refusal(type_, asset_id=ASSET, **fields).code == "asset_not_found"

    front.process(generate_subtitle=True)
    assert front.refusal(type_, asset_id=ASSET, **fields).code == "asset_not_ready"

    front.work({"ingest", "transcode", "audio", "package"})
    error = front.refusal(type_, asset_id=ASSET, **fields)
    assert (error.code, error.params["detail"]) == ("asset_not_ready", "its first job has not ended")


@pytest.mark.parametrize("type_", ["reprocess", "make_subtitles"])
def test_without_its_source_there_is_nothing_to_make(type_: str, ready: Front) -> None:
    ready.storage.delete(keys.sources(ASSET))
    assert ready.refusal(type_, asset_id=ASSET).params["detail"] == "its source is gone"
    assert ready.ask("repackage", asset_id=ASSET)


@pytest.mark.parametrize(("type_", "fields"), [*ALONE, ("expire", {"expire_at": 7}), ("hold", {}), ("cancel", {})])
def test_an_asset_that_redis_forgot_is_brought_back_first(type_: str, fields: dict[str, Any], ready: Front) -> None:
    before, sequence = ready.document(), len(ready.events)
    ready.forget()

    ready.ask(type_, asset_id=ASSET, **fields)
    ready.live()

    after = ready.document()
    assert after["created"] == before["created"]
    assert after["version"] >= before["version"]
    events = ready.events
    assert all(int(event["sequence"]) > sequence for event in events), "no sequence is used twice"
    assert not any(job.status is not JobStatus.SUCCEEDED for job in map(ready.job, ready.accepted()))


# -- retry ------------------------------------------------------------------------------------------------------------


def test_retry_asks_for_the_same_again_as_a_new_job(front: Front) -> None:
    old = front.process(meta={"course": 42}, priority="bulk")
    front.conductor.fail(front.begin(old.id, "ingest"), PipelineError("video_file_broken"))
    front.sweep()
    assert front.document()["video"]["status"] == "Error"

    (id_,) = front.ask("retry", id="retry-1", asset_id=ASSET)

    new = front.job(id_)
    assert (new.id, new.kind, new.priority) == ("retry-1", "process", Priority.BULK)
    assert {**new.request, "id": old.id} == old.request
    assert (front.document()["video"]["status"], front.document()["video"]["error"]) == ("Queued", None)
    assert front.ask("retry", id="retry-1", asset_id=ASSET) == (id_,)
    front.live()
    assert front.job(id_).status is JobStatus.SUCCEEDED
    assert front.document()["video"]["status"] == "Completed"


def test_what_is_open_or_succeeded_is_not_retried(front: Front) -> None:
    front.process()
    error = front.refusal("retry", asset_id=ASSET)
    assert (error.code, error.params["status"]) == ("nothing_to_retry", "active")

    front.live()
    assert front.refusal("retry", asset_id=ASSET).params["status"] == "succeeded"
    assert front.refusal("retry", asset_id=OTHER).code == "asset_not_found"


def test_a_cancelled_reprocess_is_retried_as_one_and_also_after_redis_forgot_it(ready: Front) -> None:
    ready.ask("reprocess", id="again", asset_id=ASSET, resolutions=["480p"])
    ready.ask("cancel", asset_id=ASSET)
    ready.live()
    ready.forget()

    (id_,) = ready.ask("retry", asset_id=ASSET)

    assert (ready.job(id_).kind, ready.job(id_).request["resolutions"]) == ("reprocess", ["480p"])
    ready.live()
    assert "video-480p" in ready.tracks()


def test_a_retry_does_not_lose_its_work_to_the_one_who_tidies_the_job_before(front: Front) -> None:
    """The first job's storage is tidied late, when the next one has stored its source and its segments."""
    old = front.process()
    front.conductor.fail(front.begin(old.id, "ingest"), PipelineError("video_file_broken"))
    front.ask("retry", id="retry-1", asset_id=ASSET)
    front.work({"ingest", "transcode", "audio"})
    before = front.left()

    front.sweep()

    assert front.left() == sorted([*before, keys.digest(ASSET), keys.history(ASSET, old.id)])
    front.live()
    assert front.job("retry-1").status is JobStatus.SUCCEEDED


# -- control ----------------------------------------------------------------------------------------------------------


def test_cancel_stops_every_open_job_or_the_one_that_is_named(ready: Front) -> None:
    ready.ask("repackage", id="a", asset_id=ASSET)
    ready.ask("make_subtitles", id="b", asset_id=ASSET)
    ready.ask("reprocess", id="c", asset_id=ASSET)

    assert ready.ask("cancel", asset_id=ASSET, job="b") == ("b",)
    assert set(ready.ask("cancel", asset_id=ASSET)) == {"a", "c"}
    assert ready.ask("cancel", asset_id=ASSET) == ()
    assert ready.document()["video"]["status"] == "Completed"


def test_what_is_being_published_cannot_be_cancelled_and_the_rest_is(ready: Front) -> None:
    ready.ask("repackage", id="a", asset_id=ASSET)
    ready.ask("make_subtitles", id="b", asset_id=ASSET)
    assert ready.conductor.publishing(ready.begin("a", "package"))

    with pytest.raises(PipelineError, match="asset_busy"):
        ready.ask("cancel", asset_id=ASSET)
    assert ready.job("b").status is JobStatus.CANCELLED


def test_a_deletion_lets_go_on_what_is_held_in_the_middle_of_its_publication(front: Front) -> None:
    """Its worker died, and nobody may begin the step again: it would never become public, nor be cancelled."""
    job = front.process()
    front.work(("ingest", "transcode", "audio"))
    assert front.conductor.publishing(front.begin(job.id, "package"))
    front.ask("hold", asset_id=ASSET)

    front.ask("delete", ids=[ASSET], id="d-1")
    front.live(seconds=120)

    assert front.job("d-1").status is JobStatus.SUCCEEDED
    assert front.left() == [keys.tombstone(ASSET)]


def test_a_held_asset_begins_nothing_until_it_is_released(front: Front) -> None:
    job = front.process()
    assert front.ask("hold", asset_id=ASSET) == (job.id,)
    front.live()
    assert front.done == []
    assert front.conductor.begin(Ref(job=job.id, step="ingest"), "w1") is None, "nor by a ticket that was out"

    assert front.ask("release", asset_id=ASSET) == (job.id,)
    front.live()
    assert front.job(job.id).status is JobStatus.SUCCEEDED


def test_another_priority_goes_before(front: Front) -> None:
    late = front.process(id="late", asset_id=OTHER)
    front.process(id="early")
    front.clock.advance(1)

    assert front.ask("prioritize", asset_id=OTHER, priority="high") == ("late",)

    assert front.store.take({"ingest": 1}) == [Ref(job="late", step="ingest")]
    assert front.job(late.id).priority is Priority.HIGH


@pytest.mark.parametrize("type_", ["cancel", "hold", "release", "retry"])
def test_nobody_controls_an_asset_that_is_not_there(type_: str, front: Front) -> None:
    assert front.refusal(type_, asset_id=ASSET).code == "asset_not_found"


# -- death ------------------------------------------------------------------------------------------------------------


def test_a_deleted_asset_leaves_its_tombstone_and_a_document_that_says_so(ready: Front) -> None:
    ready.process(id="neighbour", asset_id=OTHER)
    when = ready.clock.now_ms()
    assert ready.ask("delete", id="d-1", ids=[ASSET]) == ("d-1",)
    ready.live()

    assert [key for key in ready.left() if OTHER not in key] == [keys.tombstone(ASSET)]
    assert ready.document()["deleted"] == when
    assert ready.told().count("asset.deleted") == 1
    deleted = next(event["data"] for event in ready.events if "asset.deleted" in event["type"])
    assert deleted["asset"]["deleted"] == when
    assert ready.job("d-1").status is JobStatus.SUCCEEDED
    assert ready.ask("delete", id="d-1", ids=[ASSET]) == ("d-1",)


LATER: list[tuple[str, dict[str, Any]]] = [
    *ALONE,
    ("process", {"url": "/a.mp4"}),
    ("retry", {}),
    ("expire", {"expire_at": 7}),
    ("cancel", {}),
    ("hold", {}),
    ("delete", {}),
]


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize(("type_", "fields"), LATER)
def test_what_is_deleted_stays_deleted(type_: str, fields: dict[str, Any], forgotten: bool, ready: Front) -> None:
    ready.ask("delete", id="d-1", ids=[ASSET])
    ready.live()
    if forgotten:
        ready.forget()
    whom = {"ids": [ASSET]} if type_ == "delete" else {"asset_id": ASSET}

    assert ready.refusal(type_, **whom, **fields).code == "asset_deleted"


def test_while_it_is_being_deleted_nothing_new_is_let_in(ready: Front) -> None:
    ready.ask("delete", id="d-1", ids=[ASSET])

    assert ready.refusal("repackage", asset_id=ASSET).code == "asset_deleted"
    assert ready.refusal("delete", id="d-2", ids=[ASSET]).code == "asset_deleted"
    with pytest.raises(PipelineError, match="asset_deleted"):
        ready.conductor.cancel("d-1")


def test_many_assets_are_deleted_all_or_none(ready: Front) -> None:
    ready.process(id="second", asset_id=OTHER)

    error = ready.refusal("delete", ids=[ASSET, OTHER, "n0where0001"])
    assert (error.code, error.params["index"]) == ("asset_not_found", 2)

    assert ready.ask("delete", id="d", ids=[ASSET, OTHER, ASSET]) == ("d.1", "d.2")
    assert ready.ask("delete", id="d", ids=[ASSET, OTHER, ASSET]) == ("d.1", "d.2")
    assert ready.job("d.2").request["ids"] == [OTHER]
    ready.live()
    assert ready.left() == sorted([keys.tombstone(ASSET), keys.tombstone(OTHER)])


def test_what_clips_play_is_deleted_by_force_only(ready: Front) -> None:
    ready.storage.put(keys.reference(ASSET, "cl1p0000001"), b"")
    tracks = [key for key in ready.left() if key.endswith((".m4s", "init.mp4"))]

    ready.ask("delete", ids=[ASSET])
    ready.live()
    assert ready.left() == sorted([keys.tombstone(ASSET), keys.reference(ASSET, "cl1p0000001"), *tracks])


def test_a_deletion_by_force_asks_for_no_clip(ready: Front) -> None:
    ready.storage.put(keys.reference(ASSET, "cl1p0000001"), b"")

    ready.ask("delete", ids=[ASSET], force=True)
    ready.live()
    assert ready.left() == [keys.tombstone(ASSET)]


def test_what_runs_is_cancelled_first_and_removed_again_when_its_worker_must_have_stopped(front: Front) -> None:
    job = front.process()
    attempt = front.begin(job.id, "ingest")
    front.ask("delete", id="d-1", ids=[ASSET])
    front.sweep()
    assert front.job(job.id).status is JobStatus.CANCELLED
    assert not front.conductor.renew(attempt), "its worker is told"
    assert "asset.deleted" not in front.told()

    front.storage.put(keys.source(ASSET, "clip.mp4"), b"what it had in its hands")
    front.live()

    assert front.left() == [keys.tombstone(ASSET)]
    assert front.told()[-2:] == ["asset.deleted", "asset.updated"]


def test_a_deletion_waits_for_what_is_being_published(ready: Front) -> None:
    ready.ask("repackage", id="a", asset_id=ASSET)
    attempt = ready.begin("a", "package")
    assert ready.conductor.publishing(attempt)
    ready.ask("delete", id="d-1", ids=[ASSET])

    for _ in range(3):
        ready.sweep()
        ready.clock.advance(2)
        ready.conductor.renew(attempt)
    assert ready.storage.stat(keys.tombstone(ASSET)) is None

    ready.conductor.fail(attempt, PipelineError("storage_forbidden", reason="no"))
    ready.live()
    assert ready.left() == [keys.tombstone(ASSET)]


def test_an_asset_lives_as_long_as_it_was_told_to(front: Front) -> None:
    at = front.clock.now_ms() + 3_600_000
    front.ready(expire_at=at)
    assert front.document()["expire_at"] == at
    assert front.store.expired(9) == []

    (id_,) = front.ask("expire", id="e-1", asset_id=ASSET, expire_at=0)
    assert front.ask("expire", id="e-1", asset_id=ASSET, expire_at=0) == (id_,)
    assert (front.document()["expire_at"], front.job(id_).status) == (0, JobStatus.SUCCEEDED)
    front.clock.advance(3601)
    assert front.store.expired(9) == []

    front.ask("expire", id="e-2", asset_id=ASSET, expire_at=at)
    assert front.store.expired(9) == [(ASSET, at)]
    assert front.doorman.expire(ASSET, at) == front.doorman.expire(ASSET, at)
    front.live()
    assert front.left() == [keys.tombstone(ASSET)]
    assert front.store.expired(9) == []


def test_another_end_is_told_and_changes_nothing_else(front: Front) -> None:
    front.process()
    told = len(front.events)
    front.ask("expire", asset_id=ASSET, expire_at=7)

    assert front.told(told) == ["asset.accepted", "asset.updated"]
    assert front.document()["video"]["status"] == "Queued"
    assert front.job("request-1").steps["ingest"].status is Status.READY
