"""Stock dramatiq: its Redis broker with its default middleware, used as its guide says."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import current_millis
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend
from redis_server import RedisServer

from regressions.world import SURE, Process, World, until

QUEUE = "work"
RETRY_MS = 1500
"""A failed job is tried again after this time, or half of it."""


class Stock(World):
    """`client`: "url", as `RedisBroker(url=…)`; "host", as `RedisBroker(host=…)`, whose client repeats commands."""

    name = "stock"
    trapped = True
    enqueuing = (b"enqueue",)
    fetching = (b"\r\nfetch\r\n", b"\r\nwork\r\n")

    def __init__(self, server: RedisServer, *, client: str = "url") -> None:
        super().__init__(server)
        self.client = client
        self.look: Any = server.client(1)
        self.sender = self._broker(server.url)

    def close(self) -> None:
        self.look.close()
        self.sender.client.close()

    def submit(self, name: str, *, url: Callable[[int], str] | None = None) -> None:
        broker = self._broker(url) if url else self.sender
        message = broker.get_actor("work").message(name)
        while True:
            try:
                broker.enqueue(message)
                return
            except redis.RedisError:
                continue

    def submit_join(self, parts: tuple[str, ...], then: str) -> None:
        work = self.sender.get_actor("work")
        group = dramatiq.group([work.message(part) for part in parts], broker=self.sender)
        group.add_completion_callback(work.message(then))
        group.run()

    def double(self, name: str) -> None:
        again = next(message for message in self._messages() if name in message["args"])
        again["options"]["redis_message_id"] = id_ = str(uuid.uuid4())
        self.sender.do_enqueue(QUEUE, id_, json.dumps(again).encode())

    def trash(self) -> None:
        self.look.hset(f"dramatiq:{QUEUE}.msgs", "trash", b"not json")
        self.look.rpush(f"dramatiq:{QUEUE}", "trash")

    def process(self, threads: int, url: Callable[[int], str], timeout_s: float) -> Process:
        broker = self._broker(lambda number: f"{url(number)}&socket_timeout={timeout_s}")
        return _Process(broker, dramatiq.Worker(broker, worker_threads=threads, worker_timeout=50), self.look)

    def die_at_work(self) -> bool:
        broker = self._broker(self.server.url)
        consumer = broker.consume(QUEUE, prefetch=1, timeout=10)
        taken: list[Any] = []
        until(lambda: taken.extend(filter(None, [next(consumer)])) or bool(taken))
        self.diary.note("start", taken[0].args[0])
        broker.client.close()
        return True

    def find_the_dead(self) -> None:
        broker = self._broker(self.server.url)
        broker.heartbeat_timeout, broker.maintenance_chance = 0, SURE
        broker.do_qsize(QUEUE)
        broker.client.close()

    def waiting(self) -> int:
        return int(self.look.llen(f"dramatiq:{QUEUE}"))

    def over(self, name: str) -> bool:
        return not any(name in message["args"] for message in self._messages())

    def retry_passed(self, name: str) -> bool:
        etas = [message["options"].get("eta", 0) for message in self._messages() if name in message["args"]]
        return all(eta + 300 < current_millis() for eta in etas)

    def trouble(self) -> Exception:
        return RuntimeError("no luck")

    def _messages(self) -> list[dict[str, Any]]:
        """Every message that Redis knows of: waiting, fetched, delayed or dead."""
        texts = (text for kind in ("", ".DQ", ".XQ") for text in self.look.hvals(f"dramatiq:{QUEUE}{kind}.msgs"))
        return [json.loads(text) for text in texts if text.startswith(b"{")]

    def _broker(self, url: Callable[[int], str]) -> RedisBroker:
        """A process's broker, with the one actor that all of them have."""
        if self.client == "url":
            broker = RedisBroker(url=url(1))
        else:
            broker = RedisBroker(unix_socket_path=url(1).removeprefix("unix://").partition("?")[0], db=1)
        broker.add_middleware(GroupCallbacks(RedisBackend(client=broker.client)))
        dramatiq.actor(self._work, actor_name="work", queue_name=QUEUE, broker=broker, min_backoff=RETRY_MS)
        return broker

    def _work(self, name: str) -> None:
        try:
            self.perform(name, lambda: None)
            self.diary.note("effect", name)
        finally:
            self.diary.note("over", name)


class _Process(Process):
    """A dramatiq worker; SIGTERM is `Worker.stop`, with the time that the command line gives it."""

    holds_retries = 1

    def __init__(self, broker: RedisBroker, worker: dramatiq.Worker, look: Any) -> None:
        super().__init__(broker, worker, look)
        self._stopper: threading.Thread | None = None

    def start(self) -> None:
        self.worker.start()

    def drain(self, *, grace_s: float) -> None:
        if self._stopper is None:
            self._stopper = threading.Thread(target=self.worker.stop, args=[round(grace_s * 1000)], daemon=True)
            self._stopper.start()

    def ended(self) -> bool:
        return self._stopper is not None and not self._stopper.is_alive()

    def close(self) -> None:
        self.broker.client.close()
