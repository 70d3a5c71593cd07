"""Our fleet under test: what it is asked, by whom, and what it has said so far.

Those who ask and the one who listens have threads of their own: a Redis that is away makes them wait, and the storm
must not.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import redis
from history import TERMINAL

from pipeline.errors import PipelineError
from pipeline.events import STREAM, Event
from pipeline.requests import ProcessRequest
from workers.client import Client
from workers.redis_client import Client as RedisClient
from workers.redis_client import connect
from workers.settings import Settings
from workers.wiring import control

T = TypeVar("T")


def submit(fleet: Client, request: ProcessRequest) -> None:
    """Returns when the request is on the stream: from then on it must not be lost."""
    fleet.send(request)


@dataclass(frozen=True, kw_only=True)
class Order:
    """One request, and what its caller does besides."""

    request: ProcessRequest
    again: bool = False
    """It is sent twice at once, and once more when the job is on its way."""
    regretted: bool = False
    """It is cancelled soon after."""
    fails_with: str | None = None
    """The code of its source's own fault."""


@dataclass(kw_only=True, eq=False)
class Callers(threading.Thread):
    """Send the orders as `may` lets them, and insist until each is accepted."""

    orders: Sequence[Order]
    settings: Settings
    may: Callable[[int], bool]
    """Whether the n-th order may be sent by now."""
    seed: int
    promised: set[str] = field(default_factory=set)
    """Ids of requests that are on the stream for sure."""
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        super().__init__(name="callers", daemon=True)
        self.stopping = threading.Event()
        self.random = random.Random(self.seed)
        self.fleet = Client(self.settings.redis_url)
        self.conductor = control(self.settings).conductor

    def run(self) -> None:
        try:
            with ThreadPoolExecutor(2) as pool:
                for number, order in enumerate(self.orders):
                    while not self.may(number):
                        if self.stopping.wait(0.05):
                            return
                    list(pool.map(self._send, [order] * (2 if order.again else 1)))
                    if order.regretted:
                        pool.submit(self._regret, order.request, self.random.uniform(0.0, 2.0))
                for order in (order for order in self.orders if order.again):
                    self._send(order)
        except BaseException as failure:
            self.failure = failure

    def stop(self) -> None:
        self.stopping.set()
        self.join()

    def _send(self, order: Order) -> None:
        insist(lambda: submit(self.fleet, order.request), self.stopping)
        self.promised.add(order.request.id)

    def _regret(self, request: ProcessRequest, after_s: float) -> None:
        self.stopping.wait(after_s)
        with suppress(PipelineError):  # `asset_busy`: too late
            insist(lambda: self.conductor.cancel(request.id), self.stopping)


def insist(call: Callable[[], T], stopping: threading.Event) -> T:
    """Ask until there is an answer, through any outage."""
    while True:
        try:
            return call()
        except PipelineError as error:
            if error.code != "queue_unavailable" or stopping.wait(0.2):
                raise


class Listener(threading.Thread):
    """Follows the event stream, and knows who holds what."""

    def __init__(self, redis_url: str) -> None:
        super().__init__(name="listener", daemon=True)
        self.client = connect(redis_url)
        self.stopping = threading.Event()
        self.accepted: set[str] = set()
        self.ended: set[str] = set()
        self._held: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()
        self.heard = 0

    def run(self) -> None:
        cursor: Any = "0"
        while not self.stopping.is_set():
            try:
                replies: Any = self.client.xread({STREAM: cursor}, count=500, block=200)
            except redis.RedisError:
                self.stopping.wait(0.1)
                continue
            for _, entries in replies or ():
                for cursor, fields in entries:  # noqa: B007
                    self._hear(Event.model_validate_json(fields[b"ce"]))

    def stop(self) -> None:
        self.stopping.set()
        self.join()

    def busy(self) -> frozenset[int]:
        """Process ids of those that hold a step."""
        with self._lock:
            return frozenset(self._held.values())

    def _hear(self, event: Event) -> None:
        job = event.correlationid or ""
        with self._lock:
            self.heard += 1
            if event.name == "asset.accepted":
                self.accepted.add(job)
            elif event.name in TERMINAL:
                self.ended.add(job)
                self._held = {step: pid for step, pid in self._held.items() if step[0] != job}
            elif event.name == "step.started":
                self._held[job, event.data["step"]] = process_of(event.data["worker"])
            elif event.name.startswith("step."):
                self._held.pop((job, event.data["step"]), None)


def process_of(worker: str) -> int:
    """The process id in a worker's name (`host-pid-nonce`)."""
    return int(worker.split("-")[-2])


def all_events(client: RedisClient) -> list[dict[str, Any]]:
    """The whole log, in its order."""
    entries: Any = client.xrange(STREAM)
    return [json.loads(fields[b"ce"]) for _, fields in entries]


def unsettled(client: RedisClient) -> list[str]:
    """What somebody still means to look at: what is due, and jobs that have not ended; empty when all is tidied."""
    due: Any = client.zrange("reelway:due", 0, -1)
    jobs = [key for key in client.scan_iter("reelway:job:*") if client.hget(key, "status") not in ENDED]
    return [each.decode() for each in (*due, *jobs)]


ENDED = (b"succeeded", b"failed", b"cancelled")


def left_over(client: RedisClient) -> list[str]:
    """What stands in the ready index, or is counted as taken or open, though everything has ended."""
    queues = [key.decode() for key in client.scan_iter("reelway:ready:*") if client.zcard(key)]
    places: Any = client.hgetall("reelway:places")
    counts = [
        f"{key} {name.decode()} {number.decode()}"
        for key in ("reelway:ready", "reelway:out", "reelway:open")
        for name, number in cast(dict[bytes, bytes], client.hgetall(key)).items()
        if number != b"0"
    ]
    return [*queues, *(f"place of {member.decode()}" for member in places), *counts]


def environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as the variables of a worker."""
    return {f"REELWAY_{name.upper()}": str(value) for name, value in settings.items()}
