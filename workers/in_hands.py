"""Entries of a consumer group stay with whoever works at them, however long that takes: it is not taken for dead."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import redis


def hold(client: Any, stream: str, group: str, member: bytes, ids: Sequence[bytes]) -> Sequence[bytes]:
    """Say that these entries are in hands; returns those that still wait for an answer.

    JUSTID counts no delivery: that it takes long is not the fault of what is asked.
    """
    return client.xclaim(stream, group, member, 0, list(ids), justid=True) if ids else ()


@contextmanager
def held(
    client: Any, stream: str, group: str, member: bytes, ids: Sequence[bytes], *, every_s: float
) -> Iterator[None]:
    """Say so again and again until the block ends."""
    done = threading.Event()

    def go_on() -> None:
        while not done.wait(every_s):
            with suppress(redis.RedisError):  # the next time, then
                hold(client, stream, group, member, ids)

    if ids:
        threading.Thread(target=go_on, daemon=True, name="in-hands").start()
    try:
        yield
    finally:
        # Not joined: what comes late changes nothing, since an entry that was answered cannot be claimed.
        done.set()
