"""An ended job leaves an asset that plays, or nothing at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders import a_request
from presentations import ASSET, NTSC, audio_track, text_track, video_track
from storages import Interrupted

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.job import Job, JobStatus, Step
from pipeline.ports import Storage
from pipeline.presentation.compose import compose
from pipeline.presentation.model import Effect, Presentation, Track, marked_version
from pipeline.presentation.publish import publish
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

    assert left(storage) == sorted([*before, keys.history(ASSET, "job-1")])


def test_a_job_that_succeeded_keeps_everything_with_and_without_its_captions(storage: FolderStorage) -> None:
    publish_tracks(storage, video_track())
    failed = Step(id="subtitle", stage="subtitle", optional=True)
    before = left(storage)

    tidy(storage, a_job(JobStatus.SUCCEEDED, steps={"subtitle": failed}), {})
    assert left(storage) == sorted([*before, keys.history(ASSET, "job-1")])

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
