"""The composition root: the tickets lie beside the records, whatever form the URL has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from workers.redis_client import connect
from workers.settings import Settings
from workers.wiring import broker_url, control

URLS = {
    "redis://h": "redis://h/1",
    "redis://h:6380/": "redis://h:6380/1",
    "redis://h:6379/2": "redis://h:6379/3",
    "redis://user:p%40ss%2Fword@h:6379/2": "redis://user:p%40ss%2Fword@h:6379/3",
    "redis://h/5?db=2": "redis://h/5?db=3",
    "redis://h?socket_keepalive=yes": "redis://h/1?socket_keepalive=yes",
    "rediss://h:6379/2?ssl_cert_reqs=none": "rediss://h:6379/3?ssl_cert_reqs=none",
    "redis://[::1]:6379/0": "redis://[::1]:6379/1",
    "unix:///run/redis.sock": "unix:///run/redis.sock?db=1",
    "unix:///run/redis.sock?db=7": "unix:///run/redis.sock?db=8",
    "unix:///run/redis.sock?db=0&password=x": "unix:///run/redis.sock?db=1&password=x",
    "unix:///run/2?password=a%2Bb%20c%26d": "unix:///run/2?password=a%2Bb+c%26d&db=1",
    "unix://user:secret@/run/redis.sock": "unix://user:secret@/run/redis.sock?db=1",
}


@pytest.mark.parametrize("url", URLS)
def test_the_tickets_are_one_database_further(url: str) -> None:
    assert broker_url(url) == URLS[url]


@pytest.mark.parametrize("url", URLS)
def test_nothing_else_differs_to_the_client(url: str) -> None:
    records, tickets = meant_by(url), meant_by(broker_url(url))
    assert tickets.pop("db") == (records.pop("db", None) or 0) + 1
    assert tickets == records


def meant_by(url: str) -> dict[str, Any]:
    """What the client makes of a URL; no connection is made."""
    with connect(url) as client:
        pool: redis.ConnectionPool = client.connection_pool
        plain = {name: value for name, value in pool.connection_kwargs.items() if isinstance(value, str | int | float)}
        return {**plain, "kind": pool.connection_class.__name__}


@pytest.mark.parametrize("when", ["refuse", "queue"])
def test_what_becomes_of_a_second_trim_is_a_setting(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELWAY_TRIM_WHEN_BUSY", when)

    wired = control(Settings.read(storage_url=tmp_path.as_uri()))

    assert wired.conductor.when_busy == when
