"""`examples/api_consumer.py` as an API developer would run it: killed, restarted, replayed, and always right."""

from __future__ import annotations

import itertools
import json
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis_server import RedisServer, running_server
from stories import VERSIONS_OF_A_STORY, Teller, all_events

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60
"""Ends a test that would hang; no test waits for it."""


@dataclass(frozen=True, kw_only=True)
class Api:
    """The running example."""

    url: str
    process: subprocess.Popen[str]
    database: Path

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)

    def status(self, path: str) -> int:
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def wait_for(self, count: int) -> None:
        """Until it has so many rows."""
        deadline, moment = time.monotonic() + PATIENCE_S, threading.Event()
        with closing(sqlite3.connect(self.database)) as opened:
            while opened.execute("SELECT count(*) FROM changes").fetchone()[0] < count:
                assert self.process.poll() is None
                assert time.monotonic() < deadline
                moment.wait(0.01)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def example(server: RedisServer, database: Path) -> Iterator[Api]:
    command = [sys.executable, str(ROOT / "examples" / "api_consumer.py"), server.url(), str(database), "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Api(url=process.stdout.readline().strip(), process=process, database=database)
        finally:
            process.kill()


@contextmanager
def stories_without_end(teller: Teller) -> Iterator[None]:
    """Real events, told in a thread until the block ends."""
    enough = threading.Event()

    def tell() -> None:
        for number in itertools.count(1):
            teller.tell(number)
            if enough.wait(0.02):  # not so many that a replay takes long
                return

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def rows(database: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as opened:
        return opened.execute("SELECT * FROM changes ORDER BY rowid").fetchall()


def drop(database: Path) -> None:
    with closing(sqlite3.connect(database)) as opened:
        opened.execute("DROP TABLE changes")


def told(server: RedisServer) -> dict[tuple[str, int, int], Any]:
    """Every version of every asset, by what is on the stream."""
    with server.client() as client:
        events = [event for event in all_events(client) if event.name.startswith("asset.")]
    return {(event.subject, event.epoch, event.data["asset"]["version"]): event.data["asset"] for event in events}


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_server() as running:
        yield running


def test_a_dropped_table_comes_back_the_same_after_kills_and_a_replay(server: RedisServer, tmp_path: Path) -> None:
    database = tmp_path / "assets.db"
    with server.client() as client:
        teller = Teller(client)
        with stories_without_end(teller):
            for count in (20, 100):
                with example(server, database) as api:
                    api.wait_for(count)
                    api.kill()
        killed_at = len(rows(database))
        teller.tell(999_999)  # nobody can have seen this one
        truth = told(server)
        assert killed_at < len(truth)

        with example(server, database) as api:
            api.wait_for(len(truth))
            api.kill()
        went_on = rows(database)
        drop(database)
        with example(server, database) as api:
            api.wait_for(len(truth))

    assert {row[:3]: json.loads(row[5]) for row in went_on} == truth
    assert rows(database) == went_on


def test_the_answers_have_the_shape_of_the_reference(server: RedisServer, tmp_path: Path) -> None:
    with server.client() as client, example(server, tmp_path / "assets.db") as api:
        teller = Teller(client)
        ready, broken = teller.tell(1), teller.break_(2)
        api.wait_for(VERSIONS_OF_A_STORY + 2)

        asset = api.get(f"/assets/{ready}/")
        feed = api.get("/changes?start=0")
        rest = api.get(f"/changes?start={feed['end']}")
        later = api.get(f"/changes?start={feed['end'] + 1}")

        assert (asset["id"], asset["video"]["status"], asset["video"]["progress"]) == (ready, "Completed", 100)
        assert asset["video"]["playback_url"] == f"https://media.example/transcoded/{ready}/video.m3u8"
        assert api.get(f"/assets/{broken}/")["video"]["error"]["code"] == "video_file_broken"
        assert [change[1:] for change in feed["changes"]] == [
            *(["create", ready], ["update", ready], ["update", ready], ["update", ready]),
            *(["create", broken], ["update", broken]),
        ]
        assert [at for at, _, _ in feed["changes"]] == sorted(at for at, _, _ in feed["changes"])
        assert feed["assets"] == {name: api.get(f"/assets/{name}/") for name in (ready, broken)}
        assert (feed["start"], feed["end"]) == (0, feed["changes"][-1][0])
        assert rest["changes"][-1] == feed["changes"][-1], "the last change is repeated"
        assert later == {"changes": [], "assets": {}, "start": feed["end"] + 1, "end": feed["end"] + 1}
        assert [api.status(path) for path in ("/assets/nobody/", "/", "/changes", "/changes?start=x")] == [
            404,
            404,
            400,
            400,
        ]


def test_who_follows_the_feed_misses_nothing(server: RedisServer, tmp_path: Path) -> None:
    """`end` is the next `start`; also when the clocks of the fleet disagree."""
    with server.client() as client, example(server, tmp_path / "assets.db") as api:
        ahead, behind = Teller(client), Teller(client)
        ahead.clock.advance(3600)
        seen, start = set(), 0
        for number in range(1, 11):
            (ahead if number % 2 else behind).tell(number)
            api.wait_for(number * VERSIONS_OF_A_STORY)
            feed = api.get(f"/changes?start={start}")
            seen |= {(name, asset["version"]) for name, asset in feed["assets"].items()}
            start = feed["end"]

    assert seen == {(f"asset{number:06d}", VERSIONS_OF_A_STORY) for number in range(1, 11)}


def test_the_example_is_as_short_as_we_say() -> None:
    assert len((ROOT / "examples" / "api_consumer.py").read_text().splitlines()) <= 80
