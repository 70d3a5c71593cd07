"""The same work and the same storm on plain dramatiq, as its documentation would have one write it.

One message a step, each of which sends the next when it is done: ingest → transcode → package. `RedisBroker(url=…)`,
the default middleware, and one thing tuned so that it recovers within the run at all: a heartbeat as long as our lease
(15 s; 60 by default) and maintenance with every command (0.1 % by default). With the defaults a killed worker's message
comes back after 2 to 24 minutes. What a step did, it tells on a stream: that is what is counted.

    python tests/chaos/stock.py        one worker, settings from STOCK_REDIS, STOCK_STORAGE and STOCK_WORK
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dramatiq
import redis
from crew import Crew
from dramatiq.brokers.redis import RedisBroker
from figures import Attempt, Figures, completed_twice, recoveries, robbed
from ours import Chaos, servers
from redis_server import RedisServer
from s3_server import S3Server
from storm import Storm

from pipeline.conductor import LEASE_S
from pipeline.storage import open_storage
from workers.redis_client import Client

TOLD = "stock:told"
STEPS = ("ingest", "transcode", "package")
QUIET_S = 75.0
"""After the storm, nothing moved for so long …"""
GIVEN_UP_S = 300.0
"""… and while messages are left, for so long: by default the back-off of the fourth retry is 2 minutes and more."""


def broker(url: str) -> RedisBroker:
    return RedisBroker(url=url, heartbeat_timeout=round(LEASE_S * 1000), maintenance_chance=1_000_000)


def declare(on: RedisBroker, perform: Callable[[str, str], None]) -> Mapping[str, Any]:
    """The three actors; each sends the next one's message when its own work is done."""
    actors: dict[str, Any] = {}

    def actor(step: str, after: str | None) -> Any:
        def run(asset: str) -> None:
            perform(step, asset)
            if after is not None:
                actors[after].send(asset)

        return dramatiq.actor(run, actor_name=step, queue_name=step, broker=on)

    for step, after in zip(STEPS, (*STEPS[1:], None), strict=True):
        actors[step] = actor(step, after)
    return actors


# -- a worker ---------------------------------------------------------------------------------------------------------


def work() -> None:
    on = broker(os.environ["STOCK_REDIS"])
    storage = open_storage(os.environ["STOCK_STORAGE"])
    seconds = json.loads(os.environ["STOCK_WORK"])

    def tell(what: str, step: str, asset: str) -> None:
        on.client.xadd(TOLD, {"what": what, "step": step, "asset": asset, "process": os.getpid(), "at": time.time()})

    def perform(step: str, asset: str) -> None:
        tell("begun", step, asset)
        time.sleep(seconds[step])
        storage.put(f"stock/{asset}/{step}", f"{asset}/{step}\n".encode() * 200)
        tell("finished", step, asset)

    declare(on, perform)
    worker = dramatiq.Worker(on, worker_threads=1)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    worker.start()
    stopping.wait()
    worker.stop(timeout=2_000)
    os._exit(0)


# -- a run ------------------------------------------------------------------------------------------------------------


def run_stock(chaos: Chaos) -> Figures:
    with servers(chaos.folder) as (server, s3):
        return _Run(chaos=chaos, redis=server, s3=s3).live()


@dataclass(kw_only=True)
class _Run:
    chaos: Chaos
    redis: RedisServer
    s3: S3Server
    told: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0
    _cursor: str = "0"

    def __post_init__(self) -> None:
        # Per asset as long as what ours takes: its steps of a kind together.
        work = {"ingest": 0.3, "transcode": 1.8, "package": 0.6}
        self.crew = Crew(
            command=(sys.executable, str(Path(__file__).resolve())),
            environment={
                "STOCK_REDIS": self.redis.url(),
                "STOCK_STORAGE": self.s3.url("chaos"),
                "STOCK_WORK": json.dumps(work),
            },
            size=self.chaos.workers,
            log=self.chaos.folder / "workers.log",
        )
        self.storm = Storm(
            faults=self.chaos.faults,
            seed=self.chaos.seed,
            crew=self.crew,
            busy=self._busy,
            redis=self.redis,
            s3=self.s3,
            pace_s=self.chaos.pace_s,
        )
        self.broker = broker(self.redis.url())
        self.actors = declare(self.broker, lambda _step, _asset: None)
        self.client: Client = self.redis.client(timeout_s=1.0)

    def live(self) -> Figures:
        began, last, moved = time.time(), 0, time.monotonic()
        try:
            while not self._over() and (not self.storm.over or self._may_move(time.monotonic() - moved)):
                self.crew.tend()
                self.storm.blow()
                self._send()
                self._listen()
                if len(self.told) != last:
                    last, moved = len(self.told), time.monotonic()
                time.sleep(0.05)
            seconds = time.time() - began
        finally:
            self.storm.calm()
            self.crew.close(grace_s=5.0)
        self._listen()
        return self._figures(seconds)

    def _over(self) -> bool:
        done = {each["asset"] for each in self.told if (each["what"], each["step"]) == ("finished", "package")}
        return self.storm.over and len(done) == self.chaos.assets

    def _may_move(self, quiet_s: float) -> bool:
        return quiet_s < (GIVEN_UP_S if self._left() else QUIET_S)

    def _left(self) -> int:
        """Messages that are still in Redis, delayed or held ones included."""
        return sum(self.client.hlen(f"dramatiq:{step}{kind}.msgs") for step in STEPS for kind in ("", ".DQ"))

    def _send(self) -> None:
        """As much at a time as ours gets; the caller insists until the broker took it."""
        window = 3 * self.chaos.workers
        done = sum((each["what"], each["step"]) == ("finished", "package") for each in self.told)
        allowed = min(self.chaos.assets, window + self.chaos.assets * self.storm.passed, done + 2 * window)
        while self.sent < allowed and not self.storm.outages:
            self.actors["ingest"].send(f"stock{self.sent:06d}")
            self.sent += 1

    def _listen(self) -> None:
        if self.storm.outages:
            return
        try:
            entries: Any = self.client.xrange(TOLD, f"({self._cursor}")
        except redis.RedisError:
            return
        for entry, fields in entries:
            self._cursor = entry.decode()
            self.told.append({name.decode(): value.decode() for name, value in fields.items()})

    def _busy(self) -> frozenset[int]:
        last = {int(each["process"]): each["what"] for each in self.told[-200:]}
        return frozenset(process for process, what in last.items() if what == "begun")

    def _figures(self, seconds: float) -> Figures:
        attempts = list(_attempts(self.told))
        ends: Counter[str] = Counter(attempt.step for attempt in attempts if attempt.finished)
        published = {asset: ends[f"{asset}/package"] for asset in (f"stock{n:06d}" for n in range(self.sent))}
        everything, calm = recoveries(self.storm.blows("kills"), attempts, self.storm.away)
        return Figures(
            form="stock",
            seed=self.chaos.seed,
            assets=self.chaos.assets,
            ended={"published": sum(count > 0 for count in published.values()), "messages left": self._left()},
            faults=dict(Counter(what for _, what, _ in self.storm.struck)),
            deliveries=len(attempts),
            refused=0,
            attempts=len(attempts),
            lost_leases=0,
            robbed=robbed(self.storm.blows("zombies"), attempts),
            lost=sum(count == 0 for count in published.values()),
            published_twice=sum(count > 1 for count in published.values()),
            repeated=completed_twice(attempts),
            noticed_s=(),
            recoveries_s=everything,
            recoveries_calm_s=calm,
            seconds=round(seconds, 1),
        )


def _attempts(told: list[dict[str, str]]) -> Iterator[Attempt]:
    """Each begin with the end that its process told next of the same step."""
    ends: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for each in told:
        if each["what"] == "finished":
            ends[each["process"], each["asset"], each["step"]].append(float(each["at"]))
    for each in told:
        if each["what"] == "begun":
            own = ends[each["process"], each["asset"], each["step"]]
            end = own.pop(0) if own else None
            yield Attempt(
                step=f"{each['asset']}/{each['step']}",
                process=int(each["process"]),
                begun=float(each["at"]),
                ended=end,
                finished=end is not None,
            )


if __name__ == "__main__":
    work()
