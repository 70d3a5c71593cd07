"""The faults of one run, drawn by a seed: which, in which order, how long; when follows from how far the work is.

Scheduling is the machine's, so two runs of a seed meet the same faults in the same order, not at the same instruction.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, fields

from crew import Busy, Crew, Hand
from redis_server import RedisServer
from s3_server import S3Server

from pipeline.conductor import LEASE_S
from pipeline.memory import GRACE_S

ON_WORKERS = ("kills", "zombies")
KIND_TO_THE_IDLE = 0.2
"""Share of the kills that take any worker; the others take one that holds a step."""


@dataclass(frozen=True, kw_only=True)
class Faults:
    """How many of each."""

    kills: int = 0
    """kill -9 of workers."""
    zombies: int = 0
    """Workers stopped for longer than their lease, then continued."""
    redis_kills: int = 0
    """kill -9 of Redis, which comes back with its append-only file."""
    redis_pauses: int = 0
    """Redis silent for some seconds."""
    s3_kills: int = 0
    """kill -9 of the S3 server."""
    s3_pauses: int = 0
    """The S3 server silent for some seconds."""

    @property
    def count(self) -> int:
        return sum(getattr(self, each.name) for each in fields(self))


@dataclass(kw_only=True)
class Outage:
    """A server that is away, and comes back."""

    began: float
    """By `time.time`."""
    until: float
    """By `time.monotonic`."""
    shadow_s: float
    """For so long after its return nothing is judged."""
    back: Callable[[], None]


@dataclass(kw_only=True)
class Storm:
    """Strikes about every `pace_s` seconds until nothing is left to strike with. Call `blow` often, from one thread."""

    faults: Faults
    seed: int
    crew: Crew
    busy: Busy
    redis: RedisServer
    s3: S3Server | None
    pace_s: float
    struck: list[tuple[float, str, int]] = field(default_factory=list)
    """(time.time, what, process id) of every blow."""
    outages: list[Outage] = field(default_factory=list)
    away: list[tuple[float, float]] = field(default_factory=list)
    """Spans (time.time) in which recovery had to wait for a server, or for the grace time after its return."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.deck = [each.name for each in fields(self.faults) for _ in range(getattr(self.faults, each.name))]
        self.random.shuffle(self.deck)
        # The first third of the storm leaves the servers alone, so that recovery can be seen undisturbed.
        late = [name for name in self.deck if name not in ON_WORKERS]
        self.deck = [name for name in self.deck if name in ON_WORKERS]
        for name in late:
            self.deck.insert(self.random.randint(0, len(self.deck) * 2 // 3), name)
        self.next_at = time.monotonic() + self.pace_s

    @property
    def passed(self) -> float:
        """How much of it is over: 0 to 1."""
        return 1 - len(self.deck) / self.faults.count if self.faults.count else 1.0

    @property
    def over(self) -> bool:
        """Nothing is left, everything is back, nobody sleeps."""
        return not self.deck and not self.outages and all(hand.wakes_at is None for hand in self.crew.hands)

    def blow(self) -> None:
        """Strike if it is time, and bring back what was away long enough."""
        now = time.monotonic()
        for outage in [outage for outage in self.outages if now >= outage.until]:
            self._return(outage)
        if self.deck and now >= self.next_at and self._strike(self.deck[-1]):
            self.deck.pop()
            self.next_at = time.monotonic() + self.random.uniform(0.3, 1.7) * self.pace_s

    def blows(self, fault: str) -> list[tuple[float, int]]:
        """(time.time, process id) of each blow of this kind."""
        return [(at, pid) for at, what, pid in self.struck if what == fault]

    def calm(self) -> None:
        """Bring back whatever is away, at once."""
        for outage in list(self.outages):
            self._return(outage)

    def _return(self, outage: Outage) -> None:
        self.outages.remove(outage)
        outage.back()
        self.away.append((outage.began, time.time() + outage.shadow_s))

    def _strike(self, fault: str) -> bool:
        """False: there is nobody to strike at the moment."""
        strike: Callable[[], int | None] = getattr(self, f"_{fault}")
        pid = strike()
        if pid is not None:
            self.struck.append((time.time(), fault, pid))
        return pid is not None

    # -- workers ------------------------------------------------------------------------------------------------------

    def _kills(self) -> int | None:
        busy = self.random.random() >= KIND_TO_THE_IDLE
        hand = self._somebody(busy)
        if hand is None:
            return None
        self.crew.count(hand)
        if busy and hand.pid not in self.busy():  # it has finished while we asked
            return None
        self.crew.kill(hand)
        return hand.pid

    def _zombies(self) -> int | None:
        sleepers = [hand for hand in self.crew.hands if hand.wakes_at is not None]
        hand = self._somebody(True)
        if hand is None or len(sleepers) >= self.crew.size:
            return None
        # Some wake while another still does what they believe is theirs.
        self.crew.stop(hand, LEASE_S + self.random.uniform(0.5, 6.0))
        return hand.pid

    def _somebody(self, busy: bool) -> Hand | None:
        able = self.crew.awake
        if busy:
            holding = self.busy()
            able = [hand for hand in able if hand.pid in holding]
        return self.random.choice(able) if able else None

    # -- servers ------------------------------------------------------------------------------------------------------

    def _redis_kills(self) -> int | None:
        return self._away(self.redis, self.random.uniform(0.1, 3.0), self.redis.kill, self.redis.start)

    def _redis_pauses(self) -> int | None:
        return self._silent(self.redis, self.random.uniform(1.0, 8.0))

    def _s3_kills(self) -> int | None:
        assert self.s3 is not None
        return self._away(self.s3, self.random.uniform(0.1, 3.0), self.s3.kill, self.s3.start)

    def _s3_pauses(self) -> int | None:
        assert self.s3 is not None
        return self._silent(self.s3, self.random.uniform(1.0, 6.0))

    def _silent(self, server: RedisServer | S3Server, seconds: float) -> int | None:
        silence = ExitStack()
        return self._away(server, seconds, lambda: silence.enter_context(server.paused()), silence.close)

    def _away(
        self, server: RedisServer | S3Server, seconds: float, go: Callable[[], object], back: Callable[[], None]
    ) -> int | None:
        """One server at a time: two that are away together say less."""
        if self.outages:
            return None
        pid = server.process.pid
        go()
        shadow_s = GRACE_S if server is self.redis else 0.0
        self.outages.append(Outage(began=time.time(), until=time.monotonic() + seconds, shadow_s=shadow_s, back=back))
        return pid
