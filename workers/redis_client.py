"""How this fleet talks to Redis: one place makes clients, one place translates their errors.

A client here never repeats a command by itself: only the caller knows whether doing it twice is harmless.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipeline.errors import PipelineError

SOCKET_TIMEOUT_S = 5.0
"""A Redis that is silent for so long counts as away."""
_AWAY_KINDS = (redis.ConnectionError, redis.TimeoutError, redis.OutOfMemoryError, redis.ReadOnlyError)
_AWAY = re.compile(r"\b(OOM|MISCONF|READONLY|NOREPLICAS|LOADING|MASTERDOWN|CLUSTERDOWN|BUSY|TRYAGAIN)\b")
"""Replies of a Redis that is there but cannot serve now; the client has no classes for most, and some Redis versions
wrap what a script met into other text."""

Client = redis.Redis


def connect(url: str, *, timeout_s: float = SOCKET_TIMEOUT_S) -> Client:
    """A client for `redis://…`, `rediss://…` or `unix://path?db=1`: thread-safe, bytes in and out."""
    return redis.Redis.from_url(
        url,
        # `protocol=2` gives the same shapes of replies from redis-py 5 to 8.
        protocol=2,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        max_connections=1024,
    )


def away(error: redis.RedisError) -> bool:
    """Redis cannot be reached or cannot serve now; any other error is a bug of ours."""
    if isinstance(error, _AWAY_KINDS):
        return True
    return isinstance(error, redis.ResponseError) and bool(_AWAY.search(str(error)))


def unavailable(error: redis.RedisError) -> PipelineError:
    """The error of the catalogue; the reason is one short line without addresses' secrets."""
    text = str(error).splitlines()
    return PipelineError("queue_unavailable", reason=f"{type(error).__name__}: {text[0][:200] if text else ''}")


@contextmanager
def answering() -> Iterator[None]:
    """Translate the errors of an absent or full Redis to `queue_unavailable`."""
    try:
        yield
    except redis.RedisError as error:
        if away(error):
            raise unavailable(error) from error
        raise
