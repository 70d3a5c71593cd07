"""Tickets on dramatiq: the wake-up transport, made hard to hurt.

What dramatiq's own Redis broker does under failure is noted at each method here; the record makes all of it harmless,
and this subclass makes it short. It has no retries, delays, results or groups: a step's outcome is committed to the
record, never to a message. A process fetches a ticket only when it has a free slot, so that it never holds one that
another process could begin, and it waits for a ring of the switchboard instead of polling.

Pinned to dramatiq 2.2: the broker's `do_…` commands, its script and the names of its keys are private.
`tests/contracts/test_tickets.py` is the contract.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import dramatiq
import redis
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import ConnectionClosed, DecodeError
from dramatiq.middleware import Middleware

from pipeline.job import Ref
from workers.redis_client import Client, answering, away, connect
from workers.switchboard import Switchboard, ticket_topic

NAMESPACE = "reelway:queue"
HEARTBEAT_TIMEOUT_MS = 60_000
"""A process that is silent for so long is dead to dramatiq. The record is much quicker: this only tidies."""
LOOK_S = 1.0
"""An idle consumer looks by itself so often, should a ring be lost; about as often as dramatiq's own."""
MAINTENANCE_CHANCE = 10_000
"""Of a million commands: how many look for dead processes. It runs KEYS, in a database that holds nothing else."""


class Slots:
    """How many tickets this process may hold: as many as it has worker threads, whatever number of queues it hears.

    A ticket holds its slot from before it is fetched until dramatiq has acknowledged it. `freed` is called whenever one
    comes free: give it `switchboard.ring(SLOT)`, and the dispatcher looks for the next step at once.
    """

    def __init__(self, count: int, *, freed: Callable[[], None] = lambda: None) -> None:
        self.count = count
        self._freed = freed
        self._reserved = 0
        self._held: set[str] = set()
        self._closed = False
        self._changed = threading.Condition()

    @property
    def held(self) -> frozenset[str]:
        """Ids of the tickets that this process holds."""
        with self._changed:
            return frozenset(self._held)

    @property
    def idle(self) -> bool:
        """Closed, and nothing is held or about to be fetched."""
        with self._changed:
            return self._closed and not self._reserved and not self._held

    def reserve(self, timeout_s: float) -> bool:
        """Wait for a free slot and keep it; follow with `hold` or `cancel`. False: none came free in time."""
        with self._changed:
            free = self._changed.wait_for(self._room, timeout_s)
            self._reserved += free
            return free

    def hold(self, ticket: str) -> None:
        """The reserved slot belongs to this ticket now."""
        with self._changed:
            self._reserved -= 1
            self._held.add(ticket)

    def cancel(self) -> None:
        """The reserved slot is free again: nothing was there to fetch."""
        with self._changed:
            self._reserved -= 1
            self._changed.notify()

    def release(self, ticket: str) -> None:
        """The ticket is done with. Releasing twice is fine."""
        with self._changed:
            if ticket not in self._held:
                return
            self._held.remove(ticket)
            self._changed.notify()
        self._freed()

    def close(self) -> None:
        """Take nothing any more (SIGTERM); what is held may finish."""
        with self._changed:
            self._closed = True

    def _room(self) -> bool:
        return not self._closed and self._reserved + len(self._held) < self.count


class TicketBroker(RedisBroker):
    """dramatiq's Redis broker without what loses messages.

    `url` names the broker's own database. `slots` and `switchboard` are the process's; a sender needs neither, and a
    broker without slots cannot consume.
    """

    def __init__(
        self,
        url: str,
        *,
        slots: Slots | None = None,
        switchboard: Switchboard | None = None,
        namespace: str = NAMESPACE,
        middleware: Iterable[Middleware] = (),
        client: Client | None = None,
    ) -> None:
        # A client that never repeats a command: dramatiq's own with `host=` enqueues twice when a reply is lost.
        # `middleware=[]` matters: None would bring Retries, Callbacks, Pipelines and a time limit of ten minutes.
        super().__init__(  # type: ignore[no-untyped-call]
            client=client or connect(url),
            middleware=list(middleware),
            namespace=namespace,
            heartbeat_timeout=HEARTBEAT_TIMEOUT_MS,
            maintenance_chance=MAINTENANCE_CHANCE,
        )
        self.slots = slots
        self.switchboard = switchboard
        self._heart: threading.Thread | None = None
        self._closing = threading.Event()

    def declare_queue(self, queue_name: str) -> None:
        """Without the delayed twin of the queue: delays are kept in the due index, and its consumer would only poll."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        if self.slots is None or self.switchboard is None:
            raise RuntimeError("a broker that consumes needs slots and a switchboard")
        self._start_heart()
        return TicketConsumer(self, queue_name, timeout / 1000, self.slots, self.switchboard)

    def close(self) -> None:
        self._closing.set()
        if self._heart is not None:
            self._heart.join()
        self.client.close()

    def waiting(self, queue_name: str) -> int:
        """Tickets that nobody has fetched."""
        return cast(int, self.client.llen(f"{self.namespace}:{queue_name}"))

    def unaccounted(self, queue_name: str, held: frozenset[str]) -> dict[str, bytes | None]:
        """Tickets fetched in our name that we do not hold (the fetch's reply was lost), by id with their text."""
        acks = cast(set[bytes], self.client.smembers(f"{self.namespace}:__acks__.{self.broker_id}.{queue_name}"))
        lost = sorted(ticket.decode() for ticket in acks if ticket.decode() not in held)
        texts = cast(list[bytes | None], self.client.hmget(f"{self.namespace}:{queue_name}.msgs", lost) if lost else [])
        return dict(zip(lost, texts, strict=True))

    def _max_unpack_size(self) -> int:
        return 1000  # it is only asked for one ticket at a time; the stock one runs a script to find Lua's limit

    def _start_heart(self) -> None:
        """Say that we live, whatever the consumers do: the stock broker only says so when it fetches."""
        if self._heart is None:
            self._heart = threading.Thread(target=self._beat, daemon=True, name="heartbeat")
            self._heart.start()

    def _beat(self) -> None:
        while not self._closing.wait(HEARTBEAT_TIMEOUT_MS / 1000 / 6):
            # Any command notes the time; one that the script does not know does nothing else.
            with contextlib.suppress(redis.RedisError):
                for queue_name in sorted(self.queues)[:1]:
                    self.do_noop(queue_name)


class TicketConsumer(Consumer):
    """Fetches one ticket at a time, and only into a free slot."""

    def __init__(
        self, broker: TicketBroker, queue_name: str, timeout_s: float, slots: Slots, switchboard: Switchboard
    ) -> None:
        self.broker = broker
        self.queue_name = queue_name
        self.timeout_s = timeout_s
        self.slots = slots
        self.switchboard = switchboard
        self._reclaimed = False
        self._seen: int | None = None
        """Rings that were known when the queue was last found empty; None: it may hold more."""
        self._looked = time.monotonic()
        self._empty = False

    def __next__(self) -> MessageProxy | None:
        """The next ticket, or None after `timeout_s`. Raises `ConnectionClosed`: dramatiq makes a new consumer then."""
        if not self._reclaimed:
            with _connected():
                self._reclaim()
        if not self._worth_a_look():
            return None
        seen = self.switchboard.heard(self._topic)
        if not self.slots.reserve(self.timeout_s):
            return None
        message = self._fetch()
        self._seen, self._looked = (seen if self._empty else None), time.monotonic()
        return message

    def ack(self, message: MessageProxy) -> None:
        self._settle("ack", message)

    def nack(self, message: MessageProxy) -> None:
        self._settle("nack", message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        for message in messages:
            self._settle("requeue", message)

    @property
    def _topic(self) -> str:
        return ticket_topic(self.queue_name)

    def _worth_a_look(self) -> bool:
        """A ring came, or none could be heard for a while."""
        rung = self._seen is None or self.switchboard.wait(self._seen, self.timeout_s, self._topic)
        return rung or time.monotonic() - self._looked >= LOOK_S

    def _fetch(self) -> MessageProxy | None:
        """One ticket into the reserved slot; the slot is free again when there is none."""
        try:
            with _connected():
                texts: list[bytes | None] = self.broker.do_fetch(self.queue_name, 1)
        except BaseException:
            self.slots.cancel()
            raise
        self._empty = not texts
        message = readable(texts[0], self.queue_name) if texts else None
        if message is None:
            self.slots.cancel()
            if texts:
                with _connected():
                    self._reclaim()
            return None
        self.slots.hold(message.options["redis_message_id"])
        return MessageProxy(message)

    def _settle(self, command: str, message: MessageProxy) -> None:
        """Tell Redis, then free the slot. A Redis that is away is a `ConnectionClosed`, and dramatiq asks again.

        The stock consumer maps neither TimeoutError nor OOM, so that its thread died or the message was never acked.
        """
        ticket = message.options["redis_message_id"]
        with _connected():
            getattr(self.broker, f"do_{command}")(self.queue_name, ticket)
        self.slots.release(ticket)

    def _reclaim(self) -> None:
        """Put back what was fetched and never arrived; what nobody can read goes to the dead letters."""
        for ticket, text in self.broker.unaccounted(self.queue_name, self.slots.held).items():
            unreadable = text is not None and readable(text, self.queue_name) is None
            (self.broker.do_nack if unreadable else self.broker.do_requeue)(self.queue_name, ticket)
        self._reclaimed = True


class RedisTickets:
    """`Tickets` on the broker: a ticket is the names of a job and of a step, nothing more."""

    def __init__(self, broker: TicketBroker, switchboard: Switchboard) -> None:
        self.broker = broker
        self.switchboard = switchboard

    def send(self, ref: Ref, stage: str) -> None:
        message: dramatiq.Message[Any] = dramatiq.Message(
            queue_name=stage, actor_name=stage, args=(ref.job, ref.step), kwargs={}, options={}
        )
        with answering():
            self.broker.enqueue(message)
            # Should this be lost, the ticket is found by the next look, a second later.
            with contextlib.suppress(redis.RedisError):
                self.switchboard.tell(ticket_topic(stage))

    def waiting(self, stage: str) -> int:
        with answering():
            return self.broker.waiting(stage)


def readable(text: bytes | None, queue_name: str) -> dramatiq.Message[Any] | None:
    """The message, if it is one that can be worked off and acknowledged; a foreign one could kill a worker thread."""
    try:
        message: dramatiq.Message[Any] = dramatiq.Message.decode(text or b"")
    except DecodeError:
        return None
    options = message.options
    named = isinstance(options, dict) and isinstance(options.get("redis_message_id"), str)
    if not named or message.queue_name != queue_name or not isinstance(message.kwargs, dict):
        return None
    # A delayed message would sit in its slot until its time.
    return message if "eta" not in options else None


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        if away(error):
            raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]
        raise
