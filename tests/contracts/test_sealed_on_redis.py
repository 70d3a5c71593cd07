"""On the real store a sealed URL lives as long as it is needed, and is gone from every key afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from front import ASSET, Front
from redis_server import RedisServer
from test_worlds_on_redis import RedisBooks, RedisClock

from pipeline.errors import PipelineError
from pipeline.job import JobStatus

SECRET = "canary5ecret"
URL = f"https://bucket.example/films/a.mp4?X-Signature={SECRET}"


class Desk:
    def __init__(self, client: Any, root: Path) -> None:
        self.client = client
        self.front = Front(root, clock=RedisClock(client), books=lambda clock: RedisBooks(client, clock))

    def records(self) -> str:
        """Every hash and every event."""
        found: list[Any] = []
        for key in self.client.scan_iter(count=1000):
            kind = self.client.type(key)
            found += [self.client.hgetall(key)] if kind == b"hash" else []
            found += self.client.xrange(key) if kind == b"stream" else []
        return repr(found)

    def opened(self, job: str) -> str | None:
        sealed = self.front.job(job).sealed
        return self.front.conductor.seal.open(sealed, ASSET) if sealed else sealed


@pytest.fixture
def desk(redis_server: RedisServer, tmp_path: Path) -> Iterator[Desk]:
    with redis_server.client() as client:
        yield Desk(client, tmp_path)


def test_it_is_sealed_retried_and_erased_from_every_job_when_the_source_is_there(desk: Desk) -> None:
    front = desk.front
    old = front.process(url=URL)
    assert desk.opened(old.id) == URL
    front.conductor.fail(front.begin(old.id, "ingest"), PipelineError("video_file_broken"))
    front.live(seconds=2)
    (retried,) = front.ask("retry", id="again", asset_id=ASSET)
    assert desk.opened(retried) == desk.opened(old.id) == URL
    assert SECRET not in desk.records()
    sealed = str(front.job(old.id).sealed)
    assert sealed in desk.records(), "what is looked for can be found"

    front.live(seconds=5)

    assert front.job(retried).status is JobStatus.SUCCEEDED
    assert (desk.opened(retried), desk.opened(old.id)) == ("", "")
    assert sealed not in desk.records()
    assert SECRET not in desk.records()
    ended = front.job(old.id)
    assert (ended.status, front.store.failed(9)) == (JobStatus.FAILED, [old.id])
    assert 0 < desk.client.ttl(f"reelway:job:{old.id}") <= 7 * 86_400, "its record still goes in its time"


def test_a_deletion_takes_it_along(desk: Desk) -> None:
    front = desk.front
    job = front.process(url=URL)
    front.conductor.fail(front.begin(job.id, "ingest"), PipelineError("video_file_broken"))
    front.live(seconds=2)

    front.ask("delete", ids=[ASSET])
    front.live(seconds=5)

    assert desk.opened(job.id) == ""
    assert str(job.sealed) not in desk.records()
