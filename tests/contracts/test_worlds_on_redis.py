"""The random worlds on the real store: whatever goes wrong, Redis and memory tell the same story, word by word."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from books import Books
from redis_server import RedisServer
from worlds import World

from pipeline.job import Priority, Ref
from pipeline.memory import ManualClock
from pipeline.ready import Place
from workers.redis_client import Client
from workers.redis_jobs import RedisJobStore

TIME = "test:time"
"""Where the scripts read the time instead of asking Redis: a list of seconds and microseconds, as TIME answers."""


class TimedStore(RedisJobStore):
    """The store on Redis, by a clock that the test moves: nothing else of it is changed."""

    def _lua(self, name: str) -> str:
        return super()._lua(name).replace("redis.call('TIME')", f"redis.call('LRANGE', '{TIME}', 0, 1)")


class RedisClock(ManualClock):
    """A clock whose time stands in Redis."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self.client = client
        self.advance(0)

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        whole, ms = divmod(self.time_ms, 1000)
        with self.client.pipeline() as pipe:
            pipe.delete(TIME)
            pipe.rpush(TIME, whole, ms * 1000)
            pipe.execute()


class RedisBooks:
    """The books of the store on Redis."""

    def __init__(self, client: Any, clock: ManualClock) -> None:
        self.client = client
        self.store = TimedStore(client, clock=clock)

    def due(self) -> set[Ref]:
        return {Ref.parse(member.decode()) for member in self.client.zrange("reelway:due", 0, -1)}

    def ready(self) -> dict[Ref, Place]:
        return self._places("ready")

    def out(self) -> dict[Ref, Place]:
        return self._places("out")

    def _places(self, kind: str) -> dict[Ref, Place]:
        found: dict[Ref, Place] = {}
        for member, place in self.client.hgetall("reelway:places").items():
            word, stage, priority, organization = place.decode().split("|")
            if word == kind:
                at = Place(stage=stage, priority=Priority(priority), organization=organization)
                found[Ref.parse(member.decode())] = at
        return found

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(fields[b"ce"]) for _, fields in self.client.xrange("reelway:events")]


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Client]:
    with redis_server.client() as client:
        yield client


@pytest.mark.parametrize("seed", range(10))
def test_a_world_on_redis_is_the_world_in_memory(seed: int, client: Client) -> None:
    """The same choices make the same history: whatever one store refuses, shows or says, the other does as well."""

    def books(clock: ManualClock) -> Books:
        return RedisBooks(client, clock)

    on_redis = World(random.Random(seed).randrange, clock=RedisClock(client), books=books)
    in_memory = World(random.Random(seed).randrange)
    assert on_redis.run() == in_memory.run()
    assert told(on_redis) == told(in_memory)


def told(world: World) -> list[dict[str, Any]]:
    """Its events but for the epochs, each of which is new on Redis."""
    return [{**event, "epoch": None} for event in world.books.events()]
