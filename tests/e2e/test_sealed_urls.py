"""A secret in a source's URL is found nowhere but on the wire: not in Redis, the storage, a log or an argument list."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from canaries import Canaries, Places
from makers import make_clip
from redis_server import RedisServer, running_server
from s3_server import S3Server
from waiting import wait_until
from web_server import Request, Web, running_web

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.job import Job, JobStatus
from pipeline.requests import STREAM
from workers.client import Client
from workers.embedded import end
from workers.settings import Settings
from workers.wiring import Control, control

CANARY = "canary5ecretOfTheQuery"
PATIENCE_S = 120.0


class House:
    """A worker with its Redis and its part of a bucket, and a web server whose files need a token."""

    def __init__(self, redis: RedisServer, storage_url: str, web: Web, folder: Path) -> None:
        self.redis = redis
        self.web = web
        self.folder = folder
        self.environment = {
            "REELWAY_REDIS_URL": redis.url(),
            "REELWAY_STORAGE_URL": storage_url,
            "REELWAY_SCRATCH_DIR": str(folder / "scratch"),
            "REELWAY_SOURCE_ALLOW": "127.0.0.1",
            "REELWAY_SOURCE_PORTS": "any",
            "REELWAY_LOG_LEVEL": "debug",
            "REELWAY_GRACE_S": "0",
        }
        self.wired: Control = control(Settings.read(redis_url=redis.url(), storage_url=storage_url))
        self.client = Client(redis.url())

    @contextmanager
    def worker(self) -> Iterator[None]:
        (self.folder / "scratch").mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "workers.main"], env={**os.environ, **self.environment}, stderr=log
            )
        try:
            yield
        finally:
            end(process, grace_s=10)

    def url(self, path: str) -> str:
        return f"{self.web.url}{path}?X-Amz-Signature={CANARY}"

    def send(self, **fields: Any) -> str:
        """Ask by the stream, as anybody can; returns the job's id."""
        said = {"type": "asset.process", "profile": "fast", "resolutions": "240p", **fields}
        return self.client.submit(said, wait_s=PATIENCE_S).jobs[0]

    def job(self, id_: str) -> Job:
        job = self.wired.store.job(id_)
        assert job is not None
        return job

    def ended(self, id_: str) -> Job:
        wait_until(lambda: self.job(id_).status.ended)
        wait_until(lambda: not self.wired.store.scheduled(1))  # tidied
        return self.job(id_)

    def finds(self) -> list[str]:
        """Where the canary is."""
        places = Places(redis=self.redis, storage=self.wired.storage, folder=self.folder)
        return places.finds(Canaries({"canary": CANARY}))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=1).read_bytes()


@pytest.fixture
def gate() -> threading.Event:
    """Closed, a film does not come."""
    return threading.Event()


@pytest.fixture
def house(shared_s3: S3Server, clip: bytes, gate: threading.Event, tmp_path: Path) -> Iterator[House]:
    def answer(request: Request) -> None:
        path, _, query = request.path.partition("?")
        if CANARY not in query:
            request.reply(status=403)
        elif path == "/film.mp4":
            gate.wait(PATIENCE_S)
            request.reply(clip)
        elif path == "/page.mp4":
            request.reply(f"<html>you asked for {request.path}</html>".encode() * 10)
        elif path == "/away.mp4":
            request.reply(f"try {request.path}".encode(), status=302, location=f"http://10.0.0.1/?{query}")
        else:
            request.reply(f"there is no {request.path}".encode(), status=404)

    with ExitStack() as stack:
        redis = stack.enter_context(running_server(appendonly=False))
        web = stack.enter_context(running_web(answer))
        stack.callback(gate.set)
        yield House(redis, shared_s3.url(f"sealed-{tmp_path.name}"), web, tmp_path)


def test_a_secret_is_nowhere_while_the_source_comes_and_nowhere_afterwards(house: House, gate: threading.Event) -> None:
    with house.worker():
        id_ = house.send(url=house.url("/film.mp4"), asset_id="5ealed00001")
        wait_until(lambda: house.web.requests)
        assert house.job(id_).sealed
        assert house.finds() == []
        gate.set()

        job = house.ended(id_)

        assert (job.status, job.sealed, job.error) == (JobStatus.SUCCEEDED, "", None)
        assert job.request["url"] == f"{house.web.url}/film.mp4"
        assert house.finds() == []
    assert house.wired.storage.stat(keys.SEAL_KEY) is not None, "nothing was configured: the fleet has its own key"
    assert CANARY in house.web.requests[0].path


@pytest.mark.slow
def test_failures_tell_it_nowhere_and_a_retry_knows_it_still(house: House, gate: threading.Event) -> None:
    refused: list[dict[str, Any]] = [
        {"type": "asset.process", "url": house.url("/film.mp4"), "bogus": house.url("/film.mp4")},
        {"type": "asset.process", "url": [house.url("/film.mp4")]},
        {"type": "asset.process", "url": house.url("/film.mp4"), "profile": "none"},
        {"type": "asset.batch", "requests": [{"url": house.url("/film.mp4"), "resolutions": ["9p"]}]},
    ]
    with house.worker():
        for body in (*map(json.dumps, refused), f"no JSON {house.url('/film.mp4')}"):
            house.wired.redis.xadd(STREAM, {"request": body})
        failed = {
            path: house.send(url=house.url(path), asset_id=f"5ealed0000{number}")
            for number, path in enumerate(("/none.mp4", "/page.mp4", "/away.mp4"))
        }
        codes = {path: str((house.ended(id_).error or {})["code"]) for path, id_ in failed.items()}
        assert codes == {
            "/none.mp4": "media_url_not_accessible",
            "/page.mp4": "media_url_unsupported_format",
            "/away.mp4": "source_forbidden",
        }
        wait_until(lambda: house.wired.redis.xlen(STREAM) == 0)
        assert house.finds() == []

        before = len(house.web.requests)
        again = house.client.submit({"type": "asset.retry", "asset_id": "5ealed00000"}, wait_s=PATIENCE_S).jobs[0]
        assert house.ended(again).status is JobStatus.FAILED
        assert [CANARY in request.path for request in house.web.requests[before:]] == [True]
        assert house.finds() == []
    with pytest.raises(PipelineError) as gone:
        house.client.submit(refused[0])
    assert CANARY not in f"{gone.value.message}{gone.value.params}"
