"""What the contracts of the store share."""

from __future__ import annotations

from collections.abc import Iterator

import fakeredis
import pytest
from redis_server import RedisServer
from stores import MemoryWorld, RedisWorld, World


@pytest.fixture(params=["memory", "redis", "fakeredis"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
    elif request.param == "fakeredis":
        with fakeredis.FakeStrictRedis(version=(7,)) as client:
            yield RedisWorld(client)
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        with server.client() as client:
            yield RedisWorld(client)
