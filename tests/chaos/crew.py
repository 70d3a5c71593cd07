"""Worker processes under our hands: so many are awake, whatever becomes of them.

Every process is a child of ours on a leash, and is killed, stopped and continued by its own process id. Start them from
the thread that lives longest: the leash is held by the thread.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from s3_server import free_ports

from workers.embedded import end, leashed

REAL = (sys.executable, "-m", "workers.main")
TOY = (sys.executable, str(Path(__file__).resolve().parent.parent / "toy_worker.py"))
_TICKETS = re.compile(r'^reelway_tickets_total\{result="(\w+)",stage="\w+"\} ([\d.]+)$', re.M)


@dataclass(kw_only=True)
class Hand:
    """One worker process."""

    process: subprocess.Popen[bytes]
    port: int
    """Where it tells its metrics."""
    wakes_at: float | None = None
    """When it is continued, by `time.monotonic`; None: it is awake."""
    killed: bool = False
    """By us."""
    tickets: Counter[str] = field(default_factory=Counter)
    """Tickets that it had received when it was last asked, by what became of them."""

    @property
    def pid(self) -> int:
        return self.process.pid


@dataclass(kw_only=True)
class Crew:
    """`size` workers awake: `tend` starts others for those that were killed or sleep, and wakes who slept enough."""

    command: Sequence[str]
    environment: Mapping[str, str]
    size: int
    log: Path
    quirks: Sequence[Mapping[str, str]] = ({},)
    """What differs between the workers' environments: each that is started gets the next one, round and round."""
    hands: list[Hand] = field(default_factory=list)
    buried: Counter[str] = field(default_factory=Counter)
    """Tickets of workers that have ended."""
    hired: int = 0
    uninvited: list[str] = field(default_factory=list)
    """Workers that ended though nobody killed them."""

    @property
    def awake(self) -> list[Hand]:
        return [hand for hand in self.hands if hand.wakes_at is None and not hand.killed]

    def tend(self) -> None:
        now = time.monotonic()
        for hand in list(self.hands):
            if hand.process.poll() is not None:
                self._bury(hand)
            elif hand.wakes_at is not None and now >= hand.wakes_at:
                hand.process.send_signal(signal.SIGCONT)
                hand.wakes_at = None
        while len(self.awake) < self.size:
            self._hire()

    def kill(self, hand: Hand) -> None:
        """kill -9. What it knew of its tickets is gone, but for what was counted before."""
        hand.killed = True
        hand.process.kill()

    def stop(self, hand: Hand, seconds: float) -> None:
        """SIGSTOP: it will wake as a zombie, if that is longer than a lease."""
        hand.wakes_at = time.monotonic() + seconds
        hand.process.send_signal(signal.SIGSTOP)

    def close(self, *, grace_s: float = 20.0) -> None:
        """End all of them politely, and note who does not end well."""
        for hand in self.hands:
            if hand.wakes_at is not None:
                hand.process.send_signal(signal.SIGCONT)
            self.count(hand)
        end(*(hand.process for hand in self.hands), grace_s=grace_s)
        for hand in list(self.hands):
            self._bury(hand)

    def count(self, hand: Hand) -> None:
        """Ask what it knows of its tickets; a worker that is too young, or sleeps, says nothing."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{hand.port}/metrics", timeout=1.0) as reply:
                text = reply.read().decode()
        except (OSError, urllib.error.URLError):
            return
        counted: Counter[str] = Counter()
        for result, number in _TICKETS.findall(text):
            counted[result] += round(float(number))
        hand.tickets = counted

    @property
    def tickets(self) -> Counter[str]:
        """Tickets received, by what became of them; of killed workers, as far as they were counted."""
        return sum((hand.tickets for hand in self.hands), self.buried)

    def _hire(self) -> None:
        (port,) = free_ports(1)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("REELWAY_")}
        quirk = self.quirks[self.hired % len(self.quirks)]
        environment = {**inherited, **self.environment, **quirk, "REELWAY_METRICS_PORT": str(port)}
        self.hired += 1
        with self.log.open("ab") as log:
            process = leashed(list(self.command), env=environment, stdout=log, stderr=log)
        self.hands.append(Hand(process=process, port=port))

    def _bury(self, hand: Hand) -> None:
        self.hands.remove(hand)
        self.buried += hand.tickets
        code = hand.process.wait()
        if code != (-signal.SIGKILL if hand.killed else 0):
            self.uninvited.append(f"worker {hand.pid} ended with {code}")


Busy = Callable[[], frozenset[int]]
"""Process ids of the workers that hold a step, as far as it is known at this moment."""
