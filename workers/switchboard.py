"""One subscription a process: what happens elsewhere in the fleet wakes the thread here that waits for it.

Topics are words: a stage's name (something of it became ready), `@due` (something is due now), `ticket:<stage>` (a
ticket was sent), `@slot` (this process has room for a step again). A ring may be lost while Redis is away, so whoever
waits also looks by itself every second or so; after each new subscription every topic rings once.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis
import structlog

from workers.redis_client import Client

SLOT = "@slot"
_LISTEN_S = 0.2
_RECONNECT_S = (0.1, 5.0)

log = structlog.get_logger("reelway.switchboard")


def ticket_topic(stage: str) -> str:
    return f"ticket:{stage}"


class Switchboard:
    """Listens on `<prefix>:wake` and `<prefix>:stop` from `start` to `stop`; reconnects by itself.

    `ended` says whether a job has ended; it is asked after a reconnect about the jobs that somebody watches here,
    because their stop may have been missed. Without `start` it rings for this process alone.
    """

    def __init__(
        self, client: Client, *, prefix: str = "reelway", ended: Callable[[str], bool] = lambda _job: False
    ) -> None:
        self.client = client
        self.prefix = prefix
        self.ended = ended
        self.connected = threading.Event()
        self._rings: defaultdict[str, int] = defaultdict(int)
        self._everyone = 0
        self._changed = threading.Condition()
        self._watchers: defaultdict[str, list[Callable[[], None]]] = defaultdict(list)
        self._stopping = threading.Event()
        self._listener: threading.Thread | None = None

    # -- bells --------------------------------------------------------------------------------------------------------

    def heard(self, *topics: str) -> int:
        """How often any of the topics rang: take it before you look, give it to `wait` after."""
        with self._changed:
            return self._heard(topics)

    def wait(self, seen: int, timeout_s: float, *topics: str) -> bool:
        """Wait until a topic rings that `seen` does not know. False: it did not, within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._heard(topics) != seen, timeout_s)

    def ring(self, *topics: str) -> None:
        with self._changed:
            for topic in topics:
                self._rings[topic] += 1
            self._changed.notify_all()

    def ring_all(self) -> None:
        """Wake everybody: something may have been missed."""
        with self._changed:
            self._everyone += 1
            self._changed.notify_all()

    def tell(self, *topics: str) -> None:
        """Ring in every process of the fleet. Raises `redis.RedisError`."""
        self.client.publish(f"{self.prefix}:wake", " ".join(topics))

    def _heard(self, topics: tuple[str, ...]) -> int:
        return self._everyone + sum(self._rings[topic] for topic in topics)

    # -- stops --------------------------------------------------------------------------------------------------------

    @contextmanager
    def on_stop(self, job_id: str, call: Callable[[], None]) -> Iterator[None]:
        """While inside, `call` once the job has ended (cancelled, failed by another step …); from another thread."""
        with self._changed:
            self._watchers[job_id].append(call)
        try:
            yield
        finally:
            with self._changed:
                self._watchers[job_id].remove(call)
                if not self._watchers[job_id]:
                    del self._watchers[job_id]

    def _stop_job(self, job_id: str) -> None:
        with self._changed:
            calls = list(self._watchers.get(job_id, ()))
        for call in calls:
            try:
                call()
            except Exception:
                log.exception("stop failed", action="stop.failed", job=job_id)

    def _look_for_missed_stops(self) -> None:
        with self._changed:
            watched = list(self._watchers)
        for job_id in watched:
            if self.ended(job_id):
                self._stop_job(job_id)

    # -- the listener -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._listener = threading.Thread(target=self._listen, daemon=True, name="switchboard")
        self._listener.start()

    def stop(self) -> None:
        self._stopping.set()
        self.ring_all()
        if self._listener is not None:
            self._listener.join()
            self._listener = None

    def _listen(self) -> None:
        first, longest = _RECONNECT_S
        pause = first
        while not self._stopping.is_set():
            try:
                self._subscribe_and_listen()
                pause = first
            except Exception as error:
                if self.connected.is_set():
                    pause = first
                self.connected.clear()
                log.warning("not listening", action="switchboard.lost", error=str(error), retry_in_s=pause)
                self._stopping.wait(pause)
                pause = min(longest, pause * 2)

    def _subscribe_and_listen(self) -> None:
        wake, stop = f"{self.prefix}:wake", f"{self.prefix}:stop"
        with self.client.pubsub() as subscription:  # type: ignore[no-untyped-call]
            subscription.subscribe(wake, stop)
            pulse = _Pulse()
            while not self._stopping.is_set():
                message = subscription.get_message(timeout=_LISTEN_S)
                if message is None:
                    pulse.check(subscription)
                    continue
                pulse.heard()
                if message["type"] == "message":
                    text = message["data"].decode(errors="replace")
                    if message["channel"] == wake.encode():
                        self.ring(*text.split())
                    else:
                        self._stop_job(text)
                elif message["type"] == "subscribe" and message["channel"] == stop.encode():
                    self.connected.set()
                    self.ring_all()
                    self._look_for_missed_stops()


class _Pulse:
    """Notices a connection on which nothing will ever come again: a subscriber writes nothing, so TCP cannot tell."""

    QUIET_S = 10.0

    def __init__(self) -> None:
        self.heard()

    def heard(self) -> None:
        self._last = time.monotonic()
        self._asked = False

    def check(self, subscription: redis.client.PubSub) -> None:
        quiet = time.monotonic() - self._last
        if quiet > 2 * self.QUIET_S:
            raise redis.ConnectionError(f"nothing was heard for {quiet:.0f} s")
        if quiet > self.QUIET_S and not self._asked:
            subscription.ping()
            self._asked = True
