"""Bad days, one at a time, with real worker processes on toy stages: each ends well, and with a clean verdict.

With `CHAOS_FULL` (`make chaos`) Redis is away for 30 s and S3 for 20 s; without, just long enough to hurt.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from crew import TOY, Crew, Hand
from fleet import Listener, all_events, environment, process_of, submit, unsettled
from needs import Require
from ours import servers
from proxy import FaultyS3
from redis_server import RedisServer
from s3_server import BUCKET, WEED, S3Server
from toy_worker import body, write_source
from verdict import gather, judge

from pipeline.conductor import LEASE_S
from pipeline.events import Event
from pipeline.job import SCHEMA
from pipeline.presentation.publish import latest
from pipeline.requests import ProcessRequest
from pipeline.storage import open_storage
from workers.client import Client
from workers.embedded import find_server
from workers.settings import Settings
from workers.wiring import control

PATIENCE_S = 120.0
FULL = bool(os.environ.get("CHAOS_FULL"))
REDIS_AWAY_S = 30.0 if FULL else LEASE_S + 3
"""Longer than a lease and than any client's patience with a socket."""
S3_AWAY_S = 20.0 if FULL else 2.0
"""Beside the time in which the first steps meet it."""


_DAYS = itertools.count(1)


@dataclass(kw_only=True)
class Day:
    """A fleet of toy workers, and what is asked of it."""

    redis: RedisServer
    s3: S3Server
    folder: Path
    name: str
    crew: Crew | None = None
    jobs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settings: dict[str, Any] = {
            "redis_url": self.redis.url(),
            "storage_url": self.s3.url(self.name),
            "scratch_dir": self.folder,
            "local_sources": "true",
            "workers_hint": 2,
            "grace_s": 5,
        }
        self.fleet = Client(self.redis.url())
        self.listener = Listener(self.redis.url())
        self.listener.start()

    def hire(self, size: int = 2, *, quirks: Sequence[Mapping[str, str]] = ({},), **changes: Any) -> Crew:
        changed = environment({**self.settings, **changes})
        self.crew = Crew(command=TOY, environment=changed, size=size, log=self.folder / "log", quirks=quirks)
        self.crew.tend()
        return self.crew

    def request(self, **source: Any) -> ProcessRequest:
        number = len(self.jobs)
        path = write_source(self.folder / f"{number}.toy", **{"seconds": 8, "work_s": 0.3, **source})
        request = ProcessRequest(
            id=f"{self.name}-{number}",
            asset_id=f"{self.name:x<8}{number:03d}",
            url=str(path),
            profile="fast",
            resolutions=("240p",),
        )
        self.jobs.append(request.id)
        return request

    def ask(self, count: int = 1, **source: Any) -> list[ProcessRequest]:
        requests = [self.request(**source) for _ in range(count)]
        for request in requests:
            submit(self.fleet, request)
        return requests

    def until(self, happened: Callable[[], object]) -> None:
        """Wait for it, while the dead are replaced."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < deadline, f"{Counter(map(str, self.names()))}\n{self.said()[-3000:]}"
            if self.crew is not None:
                self.crew.tend()
            time.sleep(0.05)

    def until_busy(self, count: int = 1) -> None:
        self.until(lambda: len(self.listener.busy()) >= count)

    def until_done(self) -> None:
        """Every job has ended, and its storage is tidied."""
        self.until(lambda: self.listener.ended.issuperset(self.jobs))
        with self.redis.client() as client:
            self.until(lambda: not unsettled(client))

    def holder(self, stage: str, *, attempt: int) -> Hand:
        """The worker that begins this attempt at the stage, as soon as it does."""
        begun: list[int] = []

        def look() -> bool:
            asked = ("step.started", stage, attempt)
            begun[:] = [process_of(e.data["worker"]) for e in self.events() if _which(e) == asked]
            return bool(begun)

        self.until(look)
        assert self.crew is not None
        return next(hand for hand in self.crew.hands if hand.pid == begun[0])

    def events(self) -> list[Event]:
        with self.redis.client() as client:
            return [Event.model_validate(event) for event in all_events(client)]

    def names(self) -> list[str]:
        return [event.name for event in self.events()]

    def codes(self, name: str = "step.retrying") -> Counter[str]:
        """The error codes of all events of this name."""
        return Counter(event.data["error"]["code"] for event in self.events() if event.name == name)

    def said(self) -> str:
        """The workers' log."""
        return (self.folder / "log").read_text(errors="replace")

    def came_well(self) -> None:
        """Every asset is ready, nothing is wrong, and no worker fell over."""
        self.until_done()
        assert self.crew is not None
        self.crew.close()
        with self.redis.client() as client:
            evidence = gather(all_events(client), open_storage(self.s3.url(self.name)), self.jobs)
        assert [str(finding) for finding in judge(evidence)] == []
        assert self.names().count("asset.ready") == len(self.jobs)
        assert self.crew.uninvited == []

    def close(self) -> None:
        self.listener.stop()
        if self.crew is not None:
            self.crew.close(grace_s=0)


def _which(event: Event) -> tuple[str, str | None, int | None]:
    return event.name, event.data.get("stage"), event.data.get("attempt")


@pytest.fixture(scope="module")
def shared_servers(
    tmp_path_factory: pytest.TempPathFactory, require: Require
) -> Iterator[tuple[RedisServer, S3Server]]:
    require(WEED.exists() and find_server().path, "there is no redis-server or no S3 server")
    with servers(tmp_path_factory.mktemp("servers")) as both:
        yield both


@pytest.fixture
def day(shared_servers: tuple[RedisServer, S3Server], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Day]:
    """Whatever a test does to its servers, it leaves them running."""
    redis, s3 = shared_servers
    with redis.client() as client:
        client.flushall()
    day = Day(redis=redis, s3=s3, folder=tmp_path, name=f"day{next(_DAYS):04d}")
    try:
        yield day
    finally:
        day.close()


# -- Redis ------------------------------------------------------------------------------------------------------------


def test_redis_is_killed_under_load_and_comes_back_with_its_file(day: Day) -> None:
    day.hire()
    day.ask(6)
    day.until_busy(2)

    day.redis.kill()
    day.redis.start()

    day.came_well()


def test_an_outage_of_redis_is_nobodys_loss(day: Day) -> None:
    """Longer than the leases: who works goes on working, and what it made is committed when Redis is back."""
    day.hire()
    day.ask(2, work_s=2.0)
    day.until_busy(2)

    with day.redis.paused():
        time.sleep(REDIS_AWAY_S)  # the outage itself

    day.came_well()
    assert day.codes()["worker_lost"] == 0


# -- S3 ---------------------------------------------------------------------------------------------------------------


def test_an_outage_of_s3_is_tried_again_until_it_is_over(day: Day) -> None:
    day.hire()
    day.ask(3)
    day.until_busy()

    day.s3.kill()
    day.until(lambda: day.codes()["storage_unavailable"] >= 2)
    time.sleep(S3_AWAY_S)  # the outage goes on
    day.s3.start()

    day.came_well()


def test_s3_says_that_it_is_busy_for_a_while(day: Day) -> None:
    with FaultyS3(day.s3.port) as proxy:
        day.hire(storage_url=through(proxy, day))
        day.ask(3)
        day.until_busy()

        proxy.refuse = 1.0
        day.until(lambda: day.codes()["storage_unavailable"] >= 2)
        proxy.refuse = 0.0

        day.came_well()
        assert proxy.refused > 2


def test_one_call_in_twenty_fails_at_random(day: Day) -> None:
    with FaultyS3(day.s3.port) as proxy:
        proxy.refuse = 0.05
        day.hire(storage_url=through(proxy, day))
        day.ask(6)

        day.came_well()
        assert proxy.refused > 2


def test_a_truncated_body_is_never_taken_for_the_whole(day: Day) -> None:
    with FaultyS3(day.s3.port) as proxy:
        proxy.cut = 0.05
        day.hire(storage_url=through(proxy, day))
        day.ask(4)

        day.came_well()
        assert proxy.cuts >= 1
    storage = open_storage(day.settings["storage_url"])
    for asset in {event.subject for event in day.events()}:
        shown = latest(storage, asset)
        assert shown is not None
        for track in shown.tracks:
            assert [storage.get(segment.key) for segment in track.segments] == [
                body(track.id, segment.start) for segment in track.segments
            ]


def through(proxy: FaultyS3, day: Day) -> str:
    return f"s3://{BUCKET}/{day.name}?endpoint=http://127.0.0.1:{proxy.port}&region=us-east-1"


# -- machines ---------------------------------------------------------------------------------------------------------


def test_a_full_scratch_disk_is_tried_again(day: Day) -> None:
    day.hire()
    day.ask(2, fates={"transcode": "full"}, times=1)

    day.came_well()
    assert day.codes()["storage_full"] >= 1


def test_a_zombie_finishes_nothing(day: Day) -> None:
    """Stopped in the middle of a step for longer than its lease, it wakes while another is at that step."""
    crew, gate = day.hire(), day.folder / "gate"
    day.ask(1, seconds=4, until={"transcode": gate})
    zombie = day.holder("transcode", attempt=1)
    crew.stop(zombie, 3600)
    heir = day.holder("transcode", attempt=2)

    crew.stop(heir, 5)  # so that the zombie is the first to be done
    zombie.wakes_at = 0.0
    gate.touch()
    day.until(lambda: '"outcome": "lost"' in day.said())

    day.came_well()
    [finished] = [event for event in day.events() if (event.name, event.data.get("stage")) == FINISHED]
    assert (finished.data["attempt"], process_of(finished.data["worker"])) == (2, heir.pid)
    assert zombie.process.returncode == 0, "it goes on as a worker like any other, until it is asked to end"


FINISHED = ("step.finished", "transcode")


def test_clocks_that_are_wrong_do_no_harm(day: Day) -> None:
    """One worker is 90 s ahead, the other as much behind: leases go by Redis's clock."""
    day.hire(quirks=({"TOY_CLOCK_S": "90"}, {"TOY_CLOCK_S": "-90"}))
    day.ask(4)

    day.came_well()
    assert day.codes() == Counter()
    hours = {event.time.timestamp() // 60 for event in day.events() if event.name == "step.started"}
    assert max(hours) - min(hours) >= 2, "both of them worked"


# -- messages ---------------------------------------------------------------------------------------------------------


def test_a_request_that_is_delivered_twice_is_one_job(day: Day) -> None:
    day.hire()
    requests = [day.request() for _ in range(3)]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda request: submit(day.fleet, request), requests * 4))

    day.came_well()
    assert day.names().count("asset.accepted") == 3


def test_a_record_of_a_newer_schema_is_left_to_newer_workers(day: Day) -> None:
    newer = day.request()
    control(Settings.read(**day.settings)).conductor.accept(newer)
    with day.redis.client() as client:
        key = f"reelway:job:{newer.id}"
        ours: Any = client.hget(key, "header")
        client.hset(key, "header", json.dumps({**json.loads(ours), "schema": SCHEMA + 1}))
        day.hire()
        day.ask(2)
        day.until(lambda: len(day.listener.ended) == 2)

        assert not any(event.correlationid == newer.id for event in day.events() if event.name == "step.started")
        assert client.hget(key, "status") == b"active"
