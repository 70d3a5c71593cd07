"""A small typed consumer of the event stream, so that nobody has to write XAUTOCLAIM.

At least once: an event is acknowledged after the handler returned, one at a time, in the order of the stream. An event
that was delivered and not acknowledged (the handler raised, the process died, Redis went away) comes first when this
member goes on, and goes to another member of the group when this one stays away. What was handled once is remembered
for a day, so that the same event standing on the stream twice is not handled again. Nothing of this helps when a
process dies between its effect and the acknowledgement: a handler writes the event's `id`, or the asset's version, in
the same transaction as its effect.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
import structlog

from pipeline.errors import PipelineError
from pipeline.events import STREAM, Event
from workers.redis_client import away, connect, unavailable

Handler = Callable[[Event], None]
"""What it raises ends the run."""

REMEMBER_S = 86_400
"""How long it is remembered that an event was handled: a commit that a failover made twice comes within seconds."""
BLOCK_MS = 1000
"""One read waits so long for news: well below the socket's timeout, and the longest that a stop has to wait."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
"""Between two attempts while Redis is away; doubled from the first to the longest."""

log = structlog.get_logger("reelway.consumer")


class EventConsumer:
    """One member of a consumer group. It connects when it is used; use it from one thread.

    `group` names the consuming service. `name` names this member: unique among those that run, and the same after a
    restart, so that it finds what it left. `start` is where a new group begins: `0` at the beginning of the stream,
    `$` from now on, or after a stream id. After `reclaim_s` without acknowledgement another member takes an event over,
    so it must be longer than a handler ever takes. `set_aside_after`: a handler that failed on the same event so often
    gets the next one, and the event goes to the stream `<stream>:set-aside:<group>`; None: it is tried for ever.
    """

    def __init__(
        self,
        redis_url: str,
        group: str,
        name: str,
        *,
        start: str = "0",
        reclaim_s: float = 60.0,
        set_aside_after: int | None = None,
        stream: str = STREAM,
    ) -> None:
        self._client: Any = connect(redis_url)
        self._group = group
        self._name = name
        self._stream = stream
        self._start = start
        self._reclaim_s = reclaim_s
        self._set_aside_after = set_aside_after
        self._seen = f"{stream}:seen:{group}"
        self._joined = False
        self._behind = True
        """Something may have been delivered to this member and not acknowledged."""
        self._handled: tuple[bytes, str] | None = None
        """Entry and mark of an event that was handled and still must be acknowledged."""
        self._reclaim_at = 0.0
        self._reclaim_cursor = b"0-0"

    @property
    def set_aside(self) -> str:
        """The stream of events that were set aside; the same handler can consume it once it is mended."""
        return f"{self._stream}:set-aside:{self._group}"

    def run(self, handler: Handler, stop: threading.Event | None = None) -> None:
        """Handle events until `stop` is set. While Redis is away it waits and tries again, and the log says so.

        An exception of the handler (or an event that cannot be read) ends the run; the event is not acknowledged and
        comes first in the next run.
        """
        stop = stop or threading.Event()
        wait = 0.0
        while not stop.is_set():
            try:
                self._step(handler, BLOCK_MS)
            except _Away as gone:
                if not wait:
                    log.warning("redis is away", action="consumer.waiting", group=self._group, reason=gone.message)
                wait = min(LONGEST_WAIT_S, wait * 2 or FIRST_WAIT_S)
                stop.wait(wait)
            else:
                if wait:
                    log.info("redis is back", action="consumer.resumed", group=self._group)
                wait = 0.0

    def poll(self, handler: Handler) -> None:
        """Handle what is there and return. Raises `queue_unavailable`, and what the handler raises."""
        while self._step(handler, None):
            pass

    def replay(self, start: str = "0") -> None:
        """Let the whole group begin again at `start`, as if it had handled nothing. Raises `queue_unavailable`.

        The stream keeps about a million events, and none for longer than `REELWAY_EVENT_DAYS`: what is older comes from
        the archive alone (`reelway events tail --since 0 --json`).
        """
        with self._asking():
            self._join()
            with self._client.pipeline(transaction=True) as batch:
                batch.xgroup_destroy(self._stream, self._group)
                batch.xgroup_create(self._stream, self._group, id=start)
                batch.delete(self._seen)
                batch.execute()
        self._handled = None
        log.info("replaying", action="consumer.replay", group=self._group, start=start)

    # -- one event ----------------------------------------------------------------------------------------------------

    def _step(self, handler: Handler, block_ms: int | None) -> bool:
        """Handle one event. False: there was none."""
        try:
            with self._asking():
                self._settle()
                delivery = self._next(block_ms)
                if delivery is None:
                    return False
                event = self._open(delivery)
            if event is not None:
                handler(event)
                self._handled = delivery.entry, _mark(event)
            with self._asking():
                self._settle()
            return True
        except BaseException:
            self._behind = True
            raise

    def _open(self, delivery: _Delivery) -> Event | None:
        """The event to handle; None: there is nothing to do but to go on."""
        if delivery.body is None:
            log.warning("nothing left to read", action="consumer.missed", entry=delivery.entry.decode())
            self._client.xack(self._stream, self._group, delivery.entry)
            return None
        if self._set_aside_after is not None and delivery.again and self._tries(delivery) >= self._set_aside_after:
            self._put_aside(delivery, delivery.body)
            return None
        event = Event.model_validate_json(delivery.body)
        if self._client.zscore(self._seen, _mark(event)) is not None:
            self._handled = delivery.entry, _mark(event)
            return None
        return event

    def _settle(self) -> None:
        """Acknowledge what was handled, and remember it, in one transaction."""
        if self._handled is None:
            return
        entry, mark = self._handled
        now = time.time()
        with self._client.pipeline(transaction=True) as batch:
            batch.zadd(self._seen, {mark: now})
            batch.zremrangebyscore(self._seen, "-inf", now - REMEMBER_S)
            batch.expire(self._seen, REMEMBER_S)
            batch.xack(self._stream, self._group, entry)
            batch.execute()
        self._handled = None

    def _tries(self, delivery: _Delivery) -> int:
        """How often the event was delivered before this time."""
        pending = self._client.xpending_range(self._stream, self._group, delivery.entry, delivery.entry, 1)
        return int(pending[0]["times_delivered"]) - 1 if pending else 0

    def _put_aside(self, delivery: _Delivery, body: bytes) -> None:
        with self._client.pipeline(transaction=True) as batch:
            batch.xadd(self.set_aside, {"ce": body, "entry": delivery.entry})
            batch.xack(self._stream, self._group, delivery.entry)
            batch.execute()
        log.error("set aside", action="consumer.set_aside", entry=delivery.entry.decode(), stream=self.set_aside)

    # -- where the next one comes from --------------------------------------------------------------------------------

    def _next(self, block_ms: int | None) -> _Delivery | None:
        """What this member left behind, what another one did, or what is new."""
        try:
            self._join()
            return self._left_behind() or self._reclaimed() or self._new(block_ms)
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
        # Redis lost the group, and with it perhaps the stream: rather everything again than something never.
        log.warning("the group is gone", action="consumer.group_lost", group=self._group)
        self._joined, self._start = False, "0"
        self._join()
        return self._new(block_ms)

    def _join(self) -> None:
        if self._joined:
            return
        try:
            self._client.xgroup_create(self._stream, self._group, id=self._start, mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):  # the group is there already
                raise
        self._joined = True

    def _left_behind(self) -> _Delivery | None:
        """The first event that was delivered to this member and not acknowledged."""
        delivery = self._read("0", None) if self._behind else None
        self._behind = delivery is not None
        return delivery

    def _reclaimed(self) -> _Delivery | None:
        """An event that a member took and did not acknowledge for too long."""
        if time.monotonic() < self._reclaim_at:
            return None
        idle_ms = round(self._reclaim_s * 1000)
        reply = self._client.xautoclaim(
            self._stream, self._group, self._name, idle_ms, start_id=self._reclaim_cursor, count=1
        )
        self._reclaim_cursor, entries = reply[0], reply[1]
        if not entries:
            if self._reclaim_cursor == b"0-0":  # the whole list was looked through
                self._reclaim_at = time.monotonic() + self._reclaim_s / 4
            return None
        entry, fields = entries[0]
        if entry is None:  # Redis 6.2 hands over a trimmed entry without its id: our own list has it
            self._behind = True
            return self._left_behind()
        return _Delivery(entry=entry, body=fields.get(b"ce"), again=True)

    def _new(self, block_ms: int | None) -> _Delivery | None:
        return self._read(">", block_ms)

    def _read(self, after: str, block_ms: int | None) -> _Delivery | None:
        # One at a time: `reclaim_s` then measures one handler, and the count of deliveries is that of the tries.
        reply = self._client.xreadgroup(self._group, self._name, {self._stream: after}, count=1, block=block_ms)
        for _stream, entries in reply or ():
            for entry, fields in entries:
                return _Delivery(entry=entry, body=(fields or {}).get(b"ce"), again=after != ">")
        return None

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Redis is being asked: that it is away is told from what a handler raises."""
        try:
            yield
        except redis.AuthenticationError:
            raise  # waiting does not mend a wrong password
        except redis.RedisError as error:
            if away(error):
                raise _Away("queue_unavailable", reason=unavailable(error).params["reason"]) from error
            raise


@dataclass(frozen=True, kw_only=True)
class _Delivery:
    """One entry of the stream in this member's hands."""

    entry: bytes
    body: bytes | None
    """None: it was trimmed off the stream, or is no event."""
    again: bool
    """It was delivered before."""


class _Away(PipelineError):
    """`queue_unavailable` from the consumer itself, not from a handler."""


def _mark(event: Event) -> str:
    """Names the event for ever: a rebuilt record may make the same id again, in a new epoch."""
    return f"{event.epoch}/{event.id}"
