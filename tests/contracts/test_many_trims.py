"""A request for an asset costs the same whether it is the asset's third or its ten thousandth."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from books import Books, MemoryBooks
from front import ASSET, Front
from redis_server import RedisServer
from s3_server import S3Server
from storages import Interrupted
from test_worlds_on_redis import RedisBooks, RedisClock

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.job import Commit, EventDraft, Job, JobStatus
from pipeline.memory import ManualClock, MemoryJobStore
from pipeline.past import keep
from pipeline.ports import Storage, StoredObject
from pipeline.presentation.publish import latest, mend
from pipeline.standing import standing
from pipeline.storage import open_storage

FEW = 4


class Counted(Interrupted):
    """Counts what is asked, the bytes that are read, and what listings answer."""

    def __init__(self, inner: Storage) -> None:
        self.asked: Counter[str] = Counter()
        self.bytes = self.listed = 0
        super().__init__(inner, lambda _, operation, key: self.asked.update([operation]))

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        body = super().get(key, offset, length)
        self.bytes += len(body)
        return body

    def list(self, prefix: str) -> Iterator[StoredObject]:
        for stored in super().list(prefix):
            self.listed += 1
            yield stored


@dataclass(frozen=True, kw_only=True)
class Cost:
    requests: int
    bytes: int
    listed: int
    commands: int = 0
    """Of Redis."""

    def like(self, other: Cost) -> bool:
        """As much, but for longer numbers, and what a version tells of the trims in between."""
        return (
            abs(self.requests - other.requests) <= 2
            and self.listed == other.listed
            and abs(self.bytes - other.bytes) <= other.bytes * 0.1
            and abs(self.commands - other.commands) <= other.commands * 0.1
        )


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


class House:
    """An asset that plays, and whatever it costs to ask for something."""

    def __init__(self, front: Front, client: Any = None) -> None:
        self.front = front
        self.client = client
        self.count = 0
        front.ready()
        self.trim()

    def trim(self, *, fails: bool = False) -> None:
        """A trim from its request to its end."""
        self.count += 1
        id_ = f"trim-{self.count}"
        self.front.ask("trim", id=id_, asset_id=ASSET, start_time=1, end_time=9)
        if fails:
            self.front.conductor.fail(self.front.begin(id_, "trim"), PipelineError("media_url_file_broken"))
        self.front.live(seconds=2)
        assert self.front.job(id_).status is (JobStatus.FAILED if fails else JobStatus.SUCCEEDED)

    def grow_old(self, jobs: int) -> None:
        """As if it had been trimmed that often before."""
        history = json.loads(self.front.storage.get(keys.history(ASSET, "trim-1")))
        shown = latest(self.front.storage, ASSET)
        assert shown is not None
        text = self.front.storage.get(keys.version(ASSET, shown.version) + "presentation.json").decode()
        for number in range(jobs):
            history["job"]["id"] = id_ = f"old-{shown.version}-{number}"
            keep(self.front.storage, ASSET, id_, json.dumps(history))
            version = shown.version + number + 1
            key = keys.version(ASSET, version) + "presentation.json"
            self.front.storage.put(key, text.replace(f'"version":{shown.version}', f'"version":{version}').encode())
            self._remember(id_)
        mended = mend(self.front.storage, ASSET)
        assert mended is not None
        assert mended.version == shown.version + jobs
        self.trim()

    def _remember(self, id_: str) -> None:
        """The store knows it as well."""
        ended = Job(id=id_, asset=ASSET, kind="trim", status=JobStatus.SUCCEEDED)
        told = EventDraft(id=f"{id_}.accepted", type="asset.accepted", data={})
        commit = Commit(job=id_, asset=ASSET, new=True, rank=1, header=ended, steps={}, events=(told,))
        assert self.front.store.commit(commit).applied
        assert self.front.store.commit(Commit(job=id_, asset=ASSET, header=ended, job_in=frozenset(JobStatus))).applied

    def cost(self, act: str) -> Cost:
        front, storage = self.front, self.front.storage
        counted = Counted(storage)
        front.storage = front.doorman.storage = front.doorman.numbers.storage = counted
        before = self.commands()
        if act == "standing":
            assert standing(counted, ASSET) is not None
        else:
            self.trim(fails=act == "failed trim")
        after = self.commands()
        front.storage = front.doorman.storage = front.doorman.numbers.storage = storage
        requests = sum(counted.asked.values())
        return Cost(requests=requests, bytes=counted.bytes, listed=counted.listed, commands=after - before)

    def commands(self) -> int:
        return int(self.client.info("stats")["total_commands_processed"]) if self.client else 0


ACTS = ("standing", "trim", "failed trim")


def compare(house: House, many: int) -> None:
    house.grow_old(FEW)
    first = {act: house.cost(act) for act in ACTS}
    house.grow_old(many)
    last = {act: house.cost(act) for act in ACTS}
    assert all(last[act].like(first[act]) for act in ACTS), (first, last)


def test_the_thousandth_trim_asks_as_little_of_storage_as_the_first(tmp_path: Path) -> None:
    compare(House(Front(tmp_path, books=lambda clock: MemoryBooks(MemoryJobStore(clock)))), 2000)


def test_the_thousandth_trim_asks_as_little_of_redis_as_the_first(redis_server: RedisServer, tmp_path: Path) -> None:
    with redis_server.client() as client:

        def books(clock: ManualClock) -> Books:
            return RedisBooks(client, clock)

        compare(House(Front(tmp_path, clock=RedisClock(client), books=books), client), 400)


def test_so_it_is_in_a_bucket(shared_s3: S3Server, tmp_path: Path) -> None:
    front = Front(tmp_path)
    url = f"s3://reelway/many-trims?endpoint=http://127.0.0.1:{shared_s3.port}&region=us-east-1"
    front.storage = front.doorman.storage = front.doorman.numbers.storage = open_storage(url)
    compare(House(front), 60)
