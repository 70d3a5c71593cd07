"""Who is at work: whoever beats is seen, and whoever is silent is gone, by Redis's own clock."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from redis_server import RedisServer, running_server
from waiting import wait_until

from pipeline.errors import PipelineError
from workers.registry import Presence, Registry, WorkerRecord
from workers.settings import Settings
from workers.wiring import control, fleet_settings

PATIENCE_S = 10.0


def a_worker(name: str = "w1", **changes: Any) -> WorkerRecord:
    fields: dict[str, Any] = {"name": name, "host": "here", "pid": 7, "stages": ("audio",), "slots": 1, "build": "x264"}
    return WorkerRecord(**{**fields, **changes})


@pytest.fixture
def registry(redis_server: RedisServer) -> Registry:
    return Registry(redis_server.client())


def test_who_beats_is_seen_as_it_describes_itself(registry: Registry) -> None:
    registry.beat(a_worker("w2", slots=3, refused={"job/step": "memory"}))
    registry.beat(a_worker("w1"))
    first, second = registry.workers()

    assert (first.name, second.name) == ("w1", "w2")
    assert (second.slots, second.refused) == (3, {"job/step": "memory"})
    assert abs(first.seen_ms - time.time() * 1000) < 60_000


def test_who_is_silent_is_gone_and_forgotten(redis_server: RedisServer) -> None:
    client: Any = redis_server.client()
    hasty = Registry(client, gone_s=0.05)
    hasty.beat(a_worker("dead"))
    wait_until(lambda: not hasty.workers())

    hasty.beat(a_worker("alive"))

    assert [record.name for record in hasty.workers()] == ["alive"]
    assert client.hkeys("reelway:workers") == [b"alive"], "the next beat removes what the dead left"


@pytest.mark.parametrize(
    ("theirs", "ours", "fits"),
    [
        ("s3://films/fleet?endpoint=http://one:1", "s3://films/fleet/?region=eu&endpoint=http://two:2", True),
        ("file:///srv/films", "/srv/films/", True),
        ("", "file:///srv/films", True),
        ("s3://films/fleet", "s3://films", False),
        ("s3://films/fleet", "s3://other/fleet", False),
        ("file:///srv/films", "s3://srv/films", False),
        ("s3://key:hush@films/a?secret=hush", "s3://key:hush@films/b?secret=hush", False),
    ],
)
def test_a_fleet_has_one_storage(theirs: str, ours: str, fits: bool, registry: Registry) -> None:
    """What says how to get there may differ, and is told to nobody."""
    registry.beat(a_worker(storage_url=theirs))

    if fits:
        registry.check_storage(ours)
        return
    with pytest.raises(PipelineError) as caught:
        registry.check_storage(ours)
    assert caught.value.code == "storage_differs"
    assert "hush" not in str(caught.value.document())
    registry.leave("w1")
    registry.check_storage(ours)


def test_who_leaves_is_gone_at_once(registry: Registry) -> None:
    registry.beat(a_worker())
    registry.leave("w1")

    assert list(registry.workers()) == []


def test_a_record_of_another_release_harms_nobody(registry: Registry, redis_server: RedisServer) -> None:
    client: Any = redis_server.client()
    registry.beat(a_worker("w1"))
    registry.beat(a_worker("strange"))
    client.hset("reelway:workers", "strange", '{"name": 3, "new": true}')

    assert [record.name for record in registry.workers()] == ["w1"]


def test_the_fleet_is_as_large_as_its_slots(redis_server: RedisServer) -> None:
    client = redis_server.client()
    assert Registry(client).slots() == 1, "nobody is there, and a plan is made for one"

    registry = Registry(client)
    registry.beat(a_worker("w1", slots=3))
    registry.beat(a_worker("w2", slots=2))
    registry.beat(a_worker("w3", slots=9, draining=True))

    assert registry.slots() == 5


def test_a_build_is_missed_since_its_last_worker(registry: Registry) -> None:
    registry.beat(a_worker(build="x264-164"))

    assert registry.absent_s("x264-164") < 60
    assert registry.absent_s("never seen") == 0, "it is missed from the first question on"
    wait_until(lambda: registry.absent_s("never seen") > 0)


def test_a_presence_beats_until_it_stops(registry: Registry) -> None:
    said = [a_worker()]
    presence = Presence(registry, lambda: said[0])
    presence.start()
    wait_until(lambda: len(registry.workers()) == 1)

    said[0] = a_worker(draining=True)
    presence.changed()
    wait_until(lambda: registry.workers()[0].draining)
    presence.stop()

    assert list(registry.workers()) == []


def test_a_presence_outlives_an_absent_redis() -> None:
    with running_server() as server:
        registry = Registry(server.client(timeout_s=0.2))
        presence = Presence(registry, a_worker)
        server.kill()
        presence.start()
        with pytest.raises(PipelineError, match="queue_unavailable"):
            registry.workers()
        server.start()
        presence.changed()
        wait_until(lambda: len(registry.workers()) == 1)
        presence.stop()


def test_a_presence_hears_a_stop_at_every_moment(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.registry.BEAT_S", 3600.0)
    presence = Presence(registry, a_worker)

    class Bell(threading.Event):
        """The stop rings just before the bell is silenced."""

        def clear(self) -> None:
            presence._stopping.set()
            self.set()
            super().clear()

    presence._changed = Bell()
    presence.changed()
    presence.start()

    assert presence._thread is not None
    presence._thread.join(PATIENCE_S)
    assert not presence._thread.is_alive()


def test_a_command_that_was_not_told_asks_the_fleet_where_it_stores(
    registry: Registry,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("REELWAY_STORAGE_URL", raising=False)
    url = redis_server.url()
    assert fleet_settings(redis_url=url).storage_url == Settings.model_fields["storage_url"].default

    registry.beat(a_worker(storage_url="file:///fleet", public_base_url="http://here:1"))

    found = fleet_settings(redis_url=url)
    assert (found.storage_url, found.public_base_url) == ("file:///fleet", "http://here:1")
    assert fleet_settings(redis_url=url, storage_url="file:///mine").storage_url == "file:///mine"


def test_what_is_about_storage_alone_does_not_go_on_with_a_storage_that_nobody_named(
    registry: Registry,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("REELWAY_STORAGE_URL", raising=False)
    url = redis_server.url()
    with pytest.raises(PipelineError, match="no worker is there") as refused:
        fleet_settings(stored=True, redis_url=url)
    registry.beat(a_worker(storage_url="file:///fleet"))

    assert (refused.value.code, refused.value.params["name"]) == ("setting_invalid", "REELWAY_STORAGE_URL")
    assert fleet_settings(stored=True, redis_url=url).storage_url == "file:///fleet"
    assert fleet_settings(stored=True, redis_url=url, storage_url="file:///mine").storage_url == "file:///mine"


def test_a_redis_that_is_away_is_not_a_fleet_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REELWAY_STORAGE_URL", raising=False)
    with running_server() as server:
        server.kill()

        with pytest.raises(PipelineError) as refused:
            fleet_settings(stored=True, redis_url=server.url())

    assert refused.value.code == "queue_unavailable"


def test_more_workers_may_be_announced_than_there_are(registry: Registry, redis_server: RedisServer) -> None:
    registry.beat(a_worker(slots=2))

    def size(**changes: Any) -> int:
        return control(Settings.read(redis_url=redis_server.url(), **changes)).fleet_size()

    assert size() == 2, "the number of cores of whoever asks says nothing about the fleet"
    assert size(workers_hint=100) == 100
    assert size(workers_hint=1) == 2
