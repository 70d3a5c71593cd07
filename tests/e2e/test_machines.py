"""Machines that share nothing but Redis and a bucket: each worker has a scratch folder of its own, no other disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from makers import make_clip
from redis_server import RedisServer, running_server
from s3_server import S3Server
from waiting import wait_until

from pipeline.janitor import Janitor
from pipeline.job import Job, JobStatus, Status
from pipeline.memory import SystemClock
from pipeline.ports import Storage
from pipeline.requests import ProcessRequest
from workers.embedded import end
from workers.keeper import open_jobs_of
from workers.settings import Settings
from workers.wiring import Control, control


class Machine:
    """A worker process with a disk of its own."""

    def __init__(self, name: str, disk: Path, redis: RedisServer, storage_url: str) -> None:
        disk.mkdir()
        self.name = name
        self.log = disk / "log"
        environment = {
            **os.environ,
            "REELWAY_REDIS_URL": redis.url(),
            "REELWAY_STORAGE_URL": storage_url,
            "REELWAY_SCRATCH_DIR": str(disk),
            "REELWAY_LOCAL_SOURCES": "true",
            "REELWAY_GRACE_S": "0",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "workers.main"], env=environment, stderr=log)

    def said(self, action: str) -> list[dict[str, Any]]:
        """Log lines with this action."""
        lines = self.log.read_text().splitlines(keepends=True)
        entries = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
        return [entry for entry in entries if entry.get("action") == action]


@contextmanager
def machines(count: int, folder: Path, redis: RedisServer, storage_url: str) -> Iterator[list[Machine]]:
    folder.mkdir()
    with ExitStack() as stack:
        made = []
        for number in range(count):
            machine = Machine(f"machine-{number}", folder / str(number), redis, storage_url)
            stack.callback(end, machine.process, grace_s=10)
            made.append(machine)
        yield made


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with running_server(appendonly=True) as server:
        yield server


def wired(redis: RedisServer, storage_url: str) -> Control:
    return control(Settings.read(redis_url=redis.url(), storage_url=storage_url))


def of_asset(storage: Storage, asset: str) -> list[str]:
    """Every key of the asset."""
    return [stored.key for stored in storage.list("") if asset in stored.key]


def the_job(fleet: Control, job_id: str) -> Job:
    job = fleet.store.job(job_id)
    assert job is not None
    return job


def made_of(
    clip: Path, count: int, redis: RedisServer, storage_url: str, folder: Path
) -> tuple[Job, dict[str, bytes], set[str]]:
    """Process a clip on some machines, by a plan for two: the job, its media by key, and who worked."""
    fleet = wired(redis, storage_url)
    request = ProcessRequest(url=str(clip), resolutions=("240p", "360p"))
    with machines(count, folder, redis, storage_url):
        fleet.conductor.accept(request, workers=2)
        wait_until(lambda: the_job(fleet, request.id).status.ended)
    job = the_job(fleet, request.id)
    root = f"transcoded/{request.asset_id}/"
    media = {
        stored.key.removeprefix(root): fleet.storage.get(stored.key)
        for stored in fleet.storage.list(root)
        if stored.key.endswith((".m4s", "init.mp4"))
    }
    return job, media, {str(step.worker) for step in job.steps.values() if step.stage == "transcode"}


def test_two_machines_make_one_asset_and_every_byte_is_what_one_would_have_made(
    tmp_path: Path,
    redis: RedisServer,
    shared_s3: S3Server,
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", seconds=33, size=(640, 360))

    job, together, workers = made_of(clip, 2, redis, shared_s3.url("together"), tmp_path / "two")
    alone_job, alone, worker = made_of(clip, 1, redis, shared_s3.url("alone"), tmp_path / "one")

    assert job.status is alone_job.status is JobStatus.SUCCEEDED
    assert (len(workers), len(worker)) == (2, 1)
    assert len([key for key in together if key.endswith(".m4s")]) == 3 * 9
    assert together.keys() == alone.keys()
    assert [key for key in together if together[key] != alone[key]] == []


def test_cancel_stops_an_encode_at_once_and_leaves_nothing_behind(
    tmp_path: Path,
    redis: RedisServer,
    shared_s3: S3Server,
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", seconds=60, size=(640, 360))
    url = shared_s3.url("cancelled")
    fleet = wired(redis, url)
    request = ProcessRequest(url=str(clip), resolutions=("360p",), profile="hq")
    with machines(1, tmp_path / "machines", redis, url) as (machine,):
        fleet.conductor.accept(request)
        wait_until(lambda: list(fleet.storage.list(f"transcoded/{request.asset_id}/")))
        running = [step.id for step in the_job(fleet, request.id).steps.values() if step.status is Status.RUNNING]

        cancelled_at = time.time()
        assert fleet.conductor.cancel(request.id)

        ended = wait_until(lambda: [line for line in machine.said("step.ended") if line["outcome"] == "lost"])
        wait_until(lambda: not of_asset(fleet.storage, request.asset_id))
    list(Janitor(fleet.storage, fleet.store, open_jobs_of(fleet.store), SystemClock(), grace_s=0).sweep())
    assert [line["step"] for line in ended] == running
    print(f"stopped within {_seconds(ended[0]['timestamp']) - cancelled_at:.3f} s")
    assert the_job(fleet, request.id).status is JobStatus.CANCELLED
    assert of_asset(fleet.storage, request.asset_id) == []


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()
