"""What the two worlds have in common: a diary of what happened, and worker processes that can be looked into."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dramatiq
import redis
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers import redis as dramatiq_redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.worker import ConsumerThread, WorkerThread
from redis_server import RedisServer

PATIENCE_S = 20.0
SURE = 1_000_000
"""A maintenance chance: every command looks for dead processes, instead of one in a thousand."""

Act = Callable[[Callable[[], None]], None]
"""What a job does. It calls its argument now and then, which raises when the job shall stop."""
Seen = Mapping[str, int | bool]
"""What came of a story."""


def until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
    """Wait until it holds. False: it did not, within the time."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Diary:
    """What happened to whom, by name of the job.

    `start` and `end` of its work, `effect` where its outcome counts, `over` when a worker is done with it either way,
    `refused` where a ticket came in vain.
    """

    def __init__(self) -> None:
        self._count: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def note(self, what: str, name: str) -> None:
        with self._lock:
            self._count[what, name] += 1

    def count(self, what: str, name: str | None = None) -> int:
        """How often it happened, to `name` or to anybody."""
        with self._lock:
            return sum(times for (did, who), times in self._count.items() if did == what and name in (None, who))


class Process(ABC):
    """One worker process, and what can be seen of it. Both worlds' are a dramatiq worker on a Redis broker."""

    holds_retries = 0
    """How many messages a worker holds for a failed job that waits for its next try."""

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def drain(self, *, grace_s: float) -> None:
        """SIGTERM: it has so long to end what runs. Returns at once; again is fine."""

    @abstractmethod
    def ended(self) -> bool: ...

    @abstractmethod
    def close(self) -> None:
        """Close what a process that ends would close."""

    def __init__(self, broker: RedisBroker, worker: dramatiq.Worker, look: redis.Redis) -> None:
        self.broker = broker
        self.worker = worker
        self.looks: Counter[str] = Counter()
        """How often each queue was looked at in vain."""
        self.taken = 0
        """Messages that its consumers gave out."""
        self.falls = 0
        """Commands of its consumers that failed."""
        self.stumbles = 0
        """Commands of its worker threads that failed."""
        self._look: Any = look
        self._listen()
        self.watch(broker.client)

    def hurry(self, *, heartbeat_s: float | None = None) -> None:
        """Win the maintenance lottery each time; who is silent for `heartbeat_s` is dead."""
        self.broker.maintenance_chance = SURE
        if heartbeat_s is not None:
            self.broker.heartbeat_timeout = round(heartbeat_s * 1000)

    def skew(self, seconds: float) -> None:
        """Its clock is ahead."""
        dispatch = self.broker._dispatch

        def skewed(command: str) -> Callable[..., Any]:
            def do(*args: Any) -> Any:
                _SKEW.ms = round(seconds * 1000)
                try:
                    return dispatch(command)(*args)
                finally:
                    _SKEW.ms = 0

            return do

        self.broker._dispatch = skewed

    def held(self) -> int:
        """Messages fetched in its name and not settled."""
        return self._taken(self.broker.queues | self.broker.delay_queues)

    def waits_with_retry(self) -> bool:
        """It has a failed job's next try, and nothing else."""
        return self._taken(self.broker.delay_queues) == self.held() == self.holds_retries

    def rest(self, times: int = 3) -> None:
        """Wait until it has looked so often, in vain, at every queue that it still listens to."""
        seen = Counter(self.looks)
        assert until(
            lambda: all(
                self.looks[thread.queue_name] >= seen[thread.queue_name] + times
                for thread in self.worker.consumers.values()
                if thread.is_alive()
            )
        )

    def watch(self, client: redis.Redis) -> None:
        """Count the commands of this client that fail."""
        execute: Any = client.execute_command

        def watched(*args: Any, **options: Any) -> Any:
            try:
                return execute(*args, **options)
            except redis.RedisError:
                self.falls += isinstance(threading.current_thread(), ConsumerThread)
                self.stumbles += isinstance(threading.current_thread(), WorkerThread)
                raise

        client.execute_command = watched  # type: ignore[method-assign]

    def _taken(self, queues: set[str]) -> int:
        acks = f"{self.broker.namespace}:__acks__.{self.broker.broker_id}"
        return sum(self._look.scard(f"{acks}.{queue}") for queue in queues)

    def _listen(self) -> None:
        consume = self.broker.consume

        def watched(queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
            return _Looking(consume(queue_name, prefetch, timeout), self, queue_name)

        self.broker.consume = watched  # type: ignore[method-assign]


class _Looking(Consumer):
    """A consumer whose looks are counted."""

    def __init__(self, consumer: Consumer, process: Process, queue_name: str) -> None:
        self._consumer, self._process, self._queue_name = consumer, process, queue_name
        self.ack, self.nack, self.requeue = consumer.ack, consumer.nack, consumer.requeue  # type: ignore[method-assign]
        self.close = consumer.close  # type: ignore[method-assign]

    def __next__(self) -> MessageProxy | None:
        message = next(self._consumer)
        self._process.looks[self._queue_name] += message is None
        self._process.taken += message is not None
        return message


class World(ABC):
    """A sender, worker processes and a Redis. Jobs have names; `acts` says what each does, else it just ends."""

    name = ""
    trapped = False
    """This is the world in which the bad things happen."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.diary = Diary()
        self.acts: dict[str, Act] = {}
        self._gates: list[threading.Event] = []

    def patience(self, doubt_s: float, *, bad: bool = False) -> float:
        """How long to wait for a good (or bad) thing: here it must come, or it must not, which takes only a while."""
        return PATIENCE_S if self.trapped is bad else doubt_s

    @abstractmethod
    def close(self) -> None:
        """Close the connections of those who look."""

    # -- what each world has in its own way ---------------------------------------------------------------------------

    @abstractmethod
    def submit(self, name: str, *, url: Callable[[int], str] | None = None) -> None:
        """Send a job, as a careful sender does: again, until it hears that it was taken. `url`: another way to Redis,
        by the database's number."""

    @abstractmethod
    def submit_join(self, parts: tuple[str, ...], then: str) -> None:
        """Send jobs after all of which, and only then, another one is to be done."""

    @abstractmethod
    def double(self, name: str) -> None:
        """Deliver the message of this job of `submit_join` once more."""

    @abstractmethod
    def trash(self) -> None:
        """Put something unreadable into the queue."""

    @abstractmethod
    def process(self, threads: int, url: Callable[[int], str], timeout_s: float) -> Process:
        """A worker process that is not started yet; `timeout_s`: how long it waits for an answer of Redis."""

    @abstractmethod
    def die_at_work(self) -> bool:
        """A worker process takes what is next, begins it, and is gone: Redis sees no more of a kill -9. False: there
        is nothing to take any more."""

    @abstractmethod
    def find_the_dead(self) -> None:
        """Somebody looks after what dead workers held, as soon as it can be known."""

    @abstractmethod
    def waiting(self) -> int:
        """Messages that no worker has fetched."""

    @abstractmethod
    def over(self, name: str) -> bool:
        """Nothing will come of this job any more: it has ended, or nobody knows of it."""

    @abstractmethod
    def retry_passed(self, name: str) -> bool:
        """A failed job's next try was due some time ago, or there is none."""

    @abstractmethod
    def trouble(self) -> Exception:
        """What a job raises when it wants to be tried again."""

    enqueuing: tuple[bytes, ...] = ()
    """What the commands hold by which a job is sent; the reply to any of them may be lost."""
    fetching: tuple[bytes, ...] = ()
    """What the command holds by which a job is fetched."""

    # -- what jobs do -------------------------------------------------------------------------------------------------

    def gate(self) -> threading.Event:
        """Jobs wait there; every gate opens when the story is over."""
        made = threading.Event()
        self._gates.append(made)
        return made

    def wait_at(self, gate: threading.Event) -> Act:
        def act(check: Callable[[], None]) -> None:
            while not gate.wait(0.01):
                check()

        return act

    def fail_once(self, name: str, gate: threading.Event | None = None) -> Act:
        """The first attempt fails, behind the gate."""
        failed: list[bool] = []

        def act(check: Callable[[], None]) -> None:
            if gate is not None:
                self.wait_at(gate)(check)
            if not failed:
                failed.append(True)
                raise self.trouble()

        self.acts[name] = act
        return act

    def perform(self, name: str, check: Callable[[], None]) -> None:
        self.diary.note("start", name)
        self.acts.get(name, lambda _check: None)(check)
        self.diary.note("end", name)

    def starts(self, name: str) -> int:
        return self.diary.count("start", name)

    @contextlib.contextmanager
    def worker(
        self, threads: int = 1, *, url: Callable[[int], str] | None = None, timeout_s: float = 5.0
    ) -> Iterator[Process]:
        """A worker process that works as long as the story wants, and ends whatever happens."""
        process = self.process(threads, url or self.server.url, timeout_s)
        process.start()
        try:
            yield process
        finally:
            for gate in self._gates:
                gate.set()
            process.drain(grace_s=5.0)
            assert until(process.ended)
            process.close()


_SKEW = threading.local()
_millis = dramatiq_redis.current_millis


@contextlib.contextmanager
def clocks() -> Iterator[None]:
    """Processes may have clocks of their own (`Process.skew`)."""
    dramatiq_redis.current_millis = lambda: _millis() + getattr(_SKEW, "ms", 0)
    try:
        yield
    finally:
        dramatiq_redis.current_millis = _millis
