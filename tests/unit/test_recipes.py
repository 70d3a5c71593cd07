"""By which recipe a picture was made is read back from the name of its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import a_blueprint, a_profile
from presentations import ASSET, video_track

from pipeline import keys
from pipeline.job import Job, JobStatus
from pipeline.memory import ManualClock, MemoryJobStore
from pipeline.presentation.model import Track
from pipeline.recipes import Recipe, recipes
from pipeline.storage.folder import FolderStorage
from pipeline.tasks import Blueprint, Rung, TranscodeTask
from pipeline.tidy import history


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path)


def job(**changes: Any) -> Job:
    fields = {
        "id": "job",
        "asset": ASSET,
        "status": JobStatus.SUCCEEDED,
        "profile": a_profile().model_dump(mode="json"),
    }
    return Job(**fields | changes)


def drawn_now() -> Blueprint:
    rungs = (Rung(name="240p", width=426, height=240, crf=23, maxrate=400_000, bufsize=800_000, preset="veryfast"),)
    return a_blueprint(rungs=rungs)


def soft(drawn: Blueprint) -> Blueprint:
    """The same with other settings, of which nobody knows any more why."""
    return replace(drawn, rungs=tuple(replace(rung, crf=31.5) for rung in drawn.rungs))


def made(drawn: Blueprint, asset: str = ASSET) -> Track:
    """The first rung of the blueprint as a track of the asset."""
    rung, video = drawn.rungs[0], drawn.media.video
    assert video is not None
    task = TranscodeTask(
        asset=asset,
        source="",
        video=video,
        timeline=drawn.timeline,
        rungs=(rung,),
        first_segment=0,
        last_segment=1,
        encoder=drawn.encoder,
        source_sha256=drawn.media.sha256,
    )
    init = f"{keys.track(asset, rung.track, keys.recipe(rung, task))}init.mp4"
    return video_track(rung.name, drawn.timeline, init=init, width=rung.width, height=rung.height)


def recipe(track: Track, by: Job, storage: FolderStorage) -> Recipe:
    return recipes([track], by, MemoryJobStore(ManualClock()), storage)[track.id]


def told(storage: FolderStorage, ended: Job) -> None:
    storage.put(keys.history(ended.asset, ended.id), history(ended, {}).encode())


def test_the_jobs_own_blueprint_is_looked_at_first(storage: FolderStorage) -> None:
    drawn = soft(drawn_now())

    found = recipe(made(drawn), job(asset=ASSET, blueprint=drawn), storage)

    assert (found.rung, found.known) == (drawn.rungs[0], True)


def test_an_older_job_of_the_asset_knows_what_a_newer_one_does_not(storage: FolderStorage) -> None:
    drawn = drawn_now()
    told(storage, job(id="old", asset=ASSET, blueprint=soft(drawn)))
    told(storage, job(id="none", asset=ASSET, blueprint=None))

    found = recipe(made(soft(drawn)), job(asset=ASSET, blueprint=drawn), storage)

    assert (found.rung.crf, found.known) == (31.5, True)


def test_the_recipe_of_a_clips_track_stands_with_the_asset_that_it_was_made_for(storage: FolderStorage) -> None:
    drawn = drawn_now()
    told(storage, job(id="old", asset=ASSET, blueprint=soft(drawn)))

    found = recipe(made(soft(drawn)), job(asset="cl1pcl1pcl1", blueprint=drawn), storage)

    assert (found.rung.crf, found.known) == (31.5, True)


def test_a_recipe_that_nobody_knows_is_the_one_of_today_in_the_size_of_the_track(storage: FolderStorage) -> None:
    drawn = drawn_now()
    track = replace(made(soft(drawn)), width=400, height=226)

    found = recipe(track, job(asset=ASSET, blueprint=drawn), storage)

    assert (found.known, found.rung.crf) == (False, drawn.rungs[0].crf)
    assert (found.rung.track, found.rung.width, found.rung.height) == (track.id, 400, 226)
