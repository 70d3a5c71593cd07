"""An ended job leaves an asset that plays, or nothing at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders import a_request
from front import Front
from presentations import ASSET, NTSC, audio_track, text_track, video_track
from storages import Interrupted

from pipeline import keys
from pipeline.clips import mark
from pipeline.errors import PipelineError
from pipeline.job import Job, JobStatus, Step
from pipeline.ports import Moved, Storage, StoredObject
from pipeline.presentation.compose import compose
from pipeline.presentation.model import Effect, Presentation, Track, marked_version
from pipeline.presentation.publish import publish
from pipeline.standing import standing
from pipeline.storage.folder import FolderStorage
from pipeline.tidy import remove_asset, tidy

DOORS = (keys.hls_door(ASSET), keys.dash_door(ASSET))
NEIGHBOUR = f"{keys.PRIVATE}/{ASSET[:-1]}.mp4"


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    """With a source, its facts and a segment, as a job has them when it comes to publish."""
    storage = FolderStorage(tmp_path / "root")
    video = video_track()
    for key in (keys.source(ASSET, "a.mp4"), keys.media(ASSET), video.init, NEIGHBOUR):
        storage.put(key, b"media")
    return storage


def a_job(status: JobStatus, id: str = "job-1", **changes: Any) -> Job:
    return Job(id=id, asset=ASSET, status=status, request=a_request(asset_id=ASSET).model_dump(mode="json"), **changes)


def publish_tracks(storage: Storage, *tracks: Track, job: str = "job-1", step: str = "package") -> Presentation:
    effect = Effect(job=job, step=step)
    return publish(
        storage,
        ASSET,
        effect,
        lambda last: compose(last, asset=ASSET, tracks=tracks, effect=effect, duration=NTSC.duration),
    )


def publish_captions(storage: Storage, *, job: str = "job-1") -> Presentation:
    track = text_track()
    storage.put(track.segments[0].key, b"WEBVTT\n")
    return publish_tracks(storage, track, job=job, step="subtitle")


def left(storage: Storage) -> list[str]:
    return [stored.key for stored in storage.list("")]


def refuse(operation: str, what: str) -> Any:
    def before(_: int, asked: str, key: str) -> None:
        if asked == operation and key == what:
            raise PipelineError("storage_forbidden", reason="this one not")

    return before


UNSUCCESSFUL = [JobStatus.FAILED, JobStatus.CANCELLED]


@pytest.mark.parametrize("status", UNSUCCESSFUL)
def test_what_was_never_published_leaves_nothing(status: JobStatus, storage: FolderStorage) -> None:
    tidy(storage, a_job(status), {})

    assert left(storage) == [NEIGHBOUR]


@pytest.mark.parametrize("door", DOORS)
def test_a_publication_that_broke_off_for_good_leaves_nothing_public(door: str, storage: FolderStorage) -> None:
    with pytest.raises(PipelineError):
        publish_tracks(Interrupted(storage, refuse("put", door)), video_track(), audio_track())
    assert storage.stat(f"{keys.version(ASSET, 1)}presentation.json")

    tidy(storage, a_job(JobStatus.FAILED), {})

    assert left(storage) == [NEIGHBOUR]


def test_several_versions_of_the_failed_job_alone_go_as_well(storage: FolderStorage) -> None:
    publish_tracks(storage, video_track())
    publish_tracks(storage, audio_track(), step="more")

    tidy(storage, a_job(JobStatus.FAILED), {})

    assert left(storage) == [NEIGHBOUR]


@pytest.mark.parametrize("status", UNSUCCESSFUL)
def test_an_asset_of_others_stays_and_plays(status: JobStatus, storage: FolderStorage) -> None:
    publish_tracks(storage, video_track(), job="earlier")
    publish_captions(storage, job="job-1")
    before = left(storage)

    tidy(storage, a_job(status), {})

    assert left(storage) == sorted([*before, keys.digest(ASSET), keys.history(ASSET, "job-1")])


def test_a_job_that_succeeded_keeps_everything_with_and_without_its_captions(storage: FolderStorage) -> None:
    publish_tracks(storage, video_track())
    failed = Step(id="subtitle", stage="subtitle", optional=True)
    before = left(storage)

    tidy(storage, a_job(JobStatus.SUCCEEDED, steps={"subtitle": failed}), {})
    assert left(storage) == sorted([*before, keys.digest(ASSET), keys.history(ASSET, "job-1")])

    publish_captions(storage)
    before = left(storage)
    tidy(storage, a_job(JobStatus.SUCCEEDED), {})
    assert left(storage) == before


def test_doors_that_a_dead_worker_left_behind_are_mended_at_the_end(storage: FolderStorage) -> None:
    publish_tracks(storage, video_track())
    with pytest.raises(PipelineError):
        publish_tracks(Interrupted(storage, refuse("put", DOORS[1])), audio_track(), step="more")
    assert marked_version(storage.get(DOORS[1]).decode()) == 1

    tidy(storage, a_job(JobStatus.SUCCEEDED), {})

    assert [marked_version(storage.get(door).decode()) for door in DOORS] == [2, 2]


def test_a_removal_that_breaks_off_leaves_no_door_and_is_completed_by_the_next(tmp_path: Path) -> None:
    class Died(BaseException):
        pass

    def asset(name: str) -> FolderStorage:
        storage = FolderStorage(tmp_path / name)
        storage.put(keys.source(ASSET, "a.mp4"), b"media")
        publish_tracks(storage, video_track(), audio_track())
        return storage

    counted = Interrupted(asset("count"))
    remove_asset(counted, ASSET)
    for moment in range(3, counted.count + 1):
        storage = asset(str(moment))

        def die(count: int, *_: str, moment: int = moment) -> None:
            if count == moment:
                raise Died

        with pytest.raises(Died):
            remove_asset(Interrupted(storage, die), ASSET)
        assert not set(left(storage)) & set(DOORS)
        tidy(storage, a_job(JobStatus.FAILED), {})
        assert left(storage) == []


# -- deletion ---------------------------------------------------------------------------------------------------------


class Died(BaseException):
    """kill -9."""


def deleting(root: Path) -> Front:
    """An asset with captions, in two versions, that is to be deleted; and a neighbour, and a source in place."""
    front = Front(root)
    front.ready(generate_subtitle=True)
    front.storage.put(NEIGHBOUR, b"somebody else's")
    front.storage.put("uploads/clip.mp4", b"registered in place")
    front.ask("delete", id="d-1", ids=[ASSET])
    return front


def test_a_deletion_that_is_killed_anywhere_ends_in_deleted_and_the_doors_go_first(tmp_path: Path) -> None:
    whole = deleting(tmp_path / "whole")
    everything = set(whole.left())
    counted = Interrupted(whole.storage)
    whole.sweep(counted)
    assert counted.count > 6

    for moment in range(1, counted.count + 1):
        front = deleting(tmp_path / str(moment))

        def die(count: int, *_: str, moment: int = moment) -> None:
            if count == moment:
                raise Died

        with pytest.raises(Died):
            front.sweep(Interrupted(front.storage, die))
        gone = everything - set(front.left())
        assert not gone or gone.issuperset(DOORS[:1]), "nothing goes before the doors"
        assert gone <= set(DOORS) or gone.issuperset(DOORS)
        assert not gone or front.storage.stat(keys.tombstone(ASSET)), "what is half gone is known to be deleted"
        assert "asset.deleted" not in front.told()

        front.live(seconds=90)
        assert front.left() == sorted([keys.tombstone(ASSET), NEIGHBOUR, "uploads/clip.mp4"])
        assert front.told().count("asset.deleted") == 1
        assert front.job("d-1").status is JobStatus.SUCCEEDED


def test_a_tombstone_tells_when_and_the_last_document(tmp_path: Path) -> None:
    front = deleting(tmp_path)
    front.live()

    found = standing(front.storage, ASSET)

    assert found is not None
    assert found.deleted == front.job("d-1").created_ms
    assert found.document is not None
    assert found.document == front.document()
    assert found.sequence > 0


@pytest.mark.parametrize("status", [JobStatus.SUCCEEDED, *UNSUCCESSFUL])
def test_who_wakes_up_late_leaves_nothing_of_a_deleted_asset(status: JobStatus, tmp_path: Path) -> None:
    front = deleting(tmp_path)
    front.live()
    before = front.left()
    late = video_track(recipe="ffffff")
    front.storage.put(late.init, b"a zombie's")

    tidy(front.storage, a_job(status), {})

    assert front.left() == before


def test_a_deletion_between_two_looks_of_the_one_who_tidies_is_seen(tmp_path: Path) -> None:
    """He has looked for a tombstone, and writes the history after everything was removed."""
    front = deleting(tmp_path)
    deleted = False

    def delete_before(_: int, operation: str, key: str) -> None:
        nonlocal deleted
        if not deleted and (operation, key) == ("put", keys.history(ASSET, "job-1")):
            deleted = True
            front.live()

    tidy(Interrupted(front.storage, delete_before), a_job(JobStatus.SUCCEEDED), {})

    assert deleted
    assert not [key for key in front.left() if "jobs/" in key]
    assert front.storage.stat(keys.tombstone(ASSET))


def test_a_clip_that_came_while_its_source_was_being_deleted_keeps_its_segments(tmp_path: Path) -> None:
    front = deleting(tmp_path)
    segments = [key for key in front.left() if key.endswith(".m4s")]
    front.storage.put(keys.references(ASSET) + "cl1p0000001", b"")
    front.live()

    assert set(front.left()) >= set(segments)
    assert not set(front.left()) & set(DOORS)
    assert front.document()["deleted"] is not None


def test_so_it_does_where_another_job_was_open(tmp_path: Path) -> None:
    """That one is tidied as well, and finds the tombstone."""
    front = Front(tmp_path)
    front.ready()
    segments = [key for key in front.left() if key.endswith(".m4s")]
    front.ask("repackage", id="open", asset_id=ASSET)
    front.ask("delete", id="d-1", ids=[ASSET])
    front.storage.put(keys.references(ASSET) + "cl1p0000001", b"")

    front.live(stages=())

    assert front.job("open").status is JobStatus.CANCELLED
    assert front.job("d-1").status is JobStatus.SUCCEEDED
    assert set(front.left()) >= set(segments)


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
def test_a_clip_that_came_to_nothing_holds_nothing_of_what_is_deleted(how: str, tmp_path: Path) -> None:
    front = Front(tmp_path)
    front.ready()
    front.ask("clip", id="c", asset_id=ASSET, new_id="cl1p0000001", start_time=1, end_time=4)
    attempt = front.begin("c", "trim")
    mark(front.storage, "cl1p0000001", [ASSET])
    if how == "fails":
        front.conductor.fail(attempt, PipelineError("asset_not_ready", asset=ASSET, detail="its source is gone"))
    else:
        front.ask("cancel", asset_id="cl1p0000001")
    front.live()

    front.ask("delete", id="d-1", ids=[ASSET])
    front.live()

    assert [key for key in front.left() if ASSET in key] == [keys.tombstone(ASSET)]


# -- several jobs -----------------------------------------------------------------------------------------------------


def test_while_another_job_is_open_nothing_is_removed(storage: FolderStorage) -> None:
    before = left(storage)
    tidy(storage, a_job(JobStatus.FAILED), {}, others=lambda: [a_job(JobStatus.ACTIVE, "job-2")])
    assert left(storage) == sorted([*before, keys.digest(ASSET), keys.history(ASSET, "job-1")]), (
        "what became of it is told all the same"
    )


def test_what_only_unsuccessful_jobs_published_goes_with_the_last_of_them(storage: FolderStorage) -> None:
    """The first broke off in the middle of its publication; the retry failed as well."""
    publish_tracks(storage, video_track(), job="job-1")
    tidy(storage, a_job(JobStatus.FAILED, "job-2"), {}, others=lambda: [a_job(JobStatus.FAILED)])
    assert left(storage) == [NEIGHBOUR]


def test_a_job_that_is_accepted_in_the_middle_of_a_removal_stops_it(storage: FolderStorage) -> None:
    others: list[Job] = []

    def accept(_: int, operation: str, key: str) -> None:
        if (operation, key) == ("delete", keys.dash_door(ASSET)):
            others.append(a_job(JobStatus.ACTIVE, "job-2"))

    tidy(Interrupted(storage, accept), a_job(JobStatus.FAILED), {}, others=lambda: others)

    assert storage.stat(keys.source(ASSET, "a.mp4"))


@pytest.mark.parametrize("moment", ["decision", "removal"])
def test_who_is_slow_to_tidy_removes_nothing_of_a_retry_that_came_and_ended(moment: str, tmp_path: Path) -> None:
    """A sweeper decides that nothing came of the first job, and sleeps; the retry lives and ends meanwhile."""
    front = Front(tmp_path)
    job = front.process()
    front.conductor.fail(front.begin(job.id, "ingest"), PipelineError("media_url_file_broken"))
    for key in (keys.source(ASSET, "clip.mp4"), keys.media(ASSET)):
        front.storage.put(key, b"half of it")
    slept = False

    def sleep(_: int, operation: str, key: str) -> None:
        nonlocal slept
        first = f"{keys.version(ASSET, 1)}presentation.json"
        asked = {"decision": ("stat", first), "removal": ("delete", keys.hls_door(ASSET))}
        if not slept and (operation, key) == asked[moment]:
            slept = True
            front.ask("retry", asset_id=ASSET, id="again")
            front.work()

    class Asleep(Interrupted):
        def stat(self, key: str) -> StoredObject | None:
            found = self.inner.stat(key)  # what it sees is what was there before it slept
            self._step("stat", key)
            return found

    front.sweep(Asleep(front.storage, sleep))

    assert slept
    assert front.job("again").status is JobStatus.SUCCEEDED
    assert front.document()["video"]["status"] == "Completed"
    shown = front.shown()
    assert all(front.storage.stat(segment.key) for track in shown.tracks for segment in track.segments)
    front.live()
    assert {*DOORS, keys.history(ASSET, job.id), keys.history(ASSET, "again")} <= set(front.left())


def test_a_retry_that_begins_while_the_tracks_go_keeps_the_rest_of_them(
    storage: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.folder._BATCH", 1)
    track = video_track()
    for segment in track.segments:
        storage.put(segment.key, b"media")
    others: list[Job] = []

    class Slow(Interrupted):
        def delete(self, prefix: str, *, moved: Moved | None = None) -> int:
            if prefix == keys.public(ASSET) and moved is not None:
                asked = moved

                def moved() -> None:
                    asked()
                    others[:] = [a_job(JobStatus.ACTIVE, "job-2")]

            return self.inner.delete(prefix, moved=moved)

    tidy(Slow(storage), a_job(JobStatus.FAILED), {}, others=lambda: others)

    assert len([key for key in left(storage) if key.startswith(keys.public(ASSET))]) == len(track.segments)


def test_a_job_that_is_tidied_while_its_retry_is_open_is_not_forgotten(tmp_path: Path) -> None:
    front = Front(tmp_path)
    job = front.process()
    front.conductor.fail(front.begin(job.id, "ingest"), PipelineError("media_url_file_broken"))
    front.ask("retry", asset_id=ASSET, id="again")

    front.sweep()
    front.live()

    found = standing(front.storage, ASSET)
    assert found is not None
    assert {past.id: past.status for past in found.past} == {job.id: JobStatus.FAILED, "again": JobStatus.SUCCEEDED}


def test_a_job_that_met_somebody_elses_source_removes_nothing(storage: FolderStorage) -> None:
    before = left(storage)

    tidy(storage, a_job(JobStatus.FAILED, error=PipelineError("source_differs").document()), {})

    assert left(storage) == before


def test_the_history_tells_the_job_and_no_secret_of_its_source(storage: FolderStorage) -> None:
    url = "https://user:canary-1@files.example/clip.mp4?token=canary-2#canary-3"
    request = a_request(asset_id=ASSET, url=url).model_dump(mode="json")
    publish_tracks(storage, video_track())

    steps = {"ingest": Step(id="ingest", stage="ingest")}
    job = Job(id="job-1", asset=ASSET, status=JobStatus.SUCCEEDED, request=request, steps=steps)
    tidy(storage, job, {"id": ASSET})

    text = storage.get(keys.history(ASSET, "job-1")).decode()
    told = json.loads(text)
    assert "canary" not in text
    assert told["job"]["request"]["url"] == "https://files.example/clip.mp4"
    assert told["job"]["request"]["id"] == request["id"]
    assert [step["id"] for step in told["steps"]] == ["ingest"]
    assert told["document"] == {"id": ASSET}


def test_the_history_tells_how_each_step_went_and_what_it_waited_for(tmp_path: Path) -> None:
    front = Front(tmp_path)
    job = front.process(priority="bulk")
    front.clock.advance(3)
    ingest = front.begin(job.id, "ingest")
    front.clock.advance(2)
    front.conductor.fail(ingest, PipelineError("storage_unavailable", reason="timeout"))
    front.live()

    told = json.loads(front.storage.get(keys.history(ASSET, job.id)))

    assert (told["job"]["kind"], told["job"]["status"], told["job"]["priority"]) == ("process", "succeeded", "bulk")
    assert told["job"]["blueprint"]["encoder"] == "x264-164"
    assert told["job"]["ended_ms"] > told["job"]["created_ms"]
    steps = {step["id"]: step for step in told["steps"]}
    assert (steps["ingest"]["attempts"], steps["ingest"]["retries"], steps["ingest"]["losses"]) == (2, 1, 0)
    assert steps["ingest"]["waited_s"] == 3, "until its first attempt"
    assert steps["ingest"]["error"] is None, "it succeeded in the end"
    waited = steps["package"]["begun_ms"] - max(steps[need]["ended_ms"] for need in steps["package"]["needs"])
    assert steps["package"]["waited_s"] == waited / 1000
    assert steps["audio-1-en"]["waited_s"] == (steps["audio-1-en"]["begun_ms"] - steps["ingest"]["ended_ms"]) / 1000
    assert (told["epoch"], told["sequence"]) > (0, 0)
    assert told["document"] == front.document()


def test_the_history_of_a_failure_has_its_error_with_its_values(storage: FolderStorage) -> None:
    publish_tracks(storage, video_track(), job="earlier")
    error = PipelineError("worker_lost", losses=3, step="ingest").document()
    step = Step(id="ingest", stage="ingest", losses=3, error=error)
    tidy(storage, a_job(JobStatus.FAILED, error=error, steps={"ingest": step}), {})

    told = json.loads(storage.get(keys.history(ASSET, "job-1")))
    assert told["job"]["error"]["params"] == {"losses": 3, "step": "ingest"}
    assert (told["steps"][0]["losses"], told["steps"][0]["waited_s"]) == (3, None), "it never began"


# -- what storage says ------------------------------------------------------------------------------------------------


def test_of_what_is_not_there_storage_says_nothing(tmp_path: Path) -> None:
    assert standing(FolderStorage(tmp_path), ASSET) is None


def test_storage_says_what_was_made_and_how(tmp_path: Path) -> None:
    front = Front(tmp_path)
    job = front.ready()
    front.ask("reprocess", id="failed", asset_id=ASSET, everything=True, profile="cinema")
    front.clock.advance(1)
    front.ask("cancel", asset_id=ASSET)
    front.live()

    found = standing(front.storage, ASSET)

    assert found is not None
    assert [past.id for past in found.past] == ["failed", job.id]
    assert found.profile == front.job(job.id).profile, "that of what was made, not of what was cancelled"
    assert found.blueprint == front.job(job.id).blueprint
    assert found.document == front.document()
    assert found.source == keys.source(ASSET, "clip.mp4")
    assert found.sequence == len(front.events)


def test_a_history_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    front = Front(tmp_path)
    job = front.ready()
    key = keys.history(ASSET, job.id)
    front.storage.put(key, json.dumps({**json.loads(front.storage.get(key)), "schema": 99}).encode())

    with pytest.raises(PipelineError, match="schema_newer"):
        standing(front.storage, ASSET)
