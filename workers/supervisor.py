"""Keeps a number of worker processes alive beside each other: one that dies is replaced, and the others never notice.

A worker that was killed is started again at once: what killed it was its step, or a person. One that ends by itself is
given a pause, and a longer one each time, because it will most likely end again. Every worker is on a leash
(`workers.embedded.leashed`): none outlives the thread that keeps it.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from workers.embedded import end, leashed
from workers.signals import on_signals

WORKER = (sys.executable, "-m", "workers.main")
SETTLED_S = 60.0
"""A worker that lived so long was in order: the next pause is a short one again."""
LONGEST_PAUSE_S = 30.0

log = logging.getLogger("reelway.supervisor")


def pause_s(deaths: int, *, killed: bool) -> float:
    """Seconds until a worker is started again that died for the `deaths`th time in a row: 1, 2, 4 … 30.

    Killed by a signal it is started at once, unless that goes on.
    """
    doubled = deaths - 2 if killed else deaths - 1
    return 0.0 if doubled < 0 else min(LONGEST_PAUSE_S, 2.0**doubled)


@dataclass(kw_only=True)
class _Place:
    """One of the workers that there shall be."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    """In a row."""
    due: float = 0.0
    """When to start it (again)."""


class Supervisor:
    """`processes` workers, from `keep` to `stop`.

    `command` is what a worker is (None: ours), `environment` the whole environment of the n-th (from 0), `output` where
    it writes (None: where this process does). `restarts`: how many are replaced in all, then `exhausted` is set and the
    others go on; None: no limit. `until_done`: a worker that ends well has nothing left to do, and is not replaced.
    `grace_s`: how long one may take to end after SIGTERM.
    """

    def __init__(
        self,
        *,
        processes: int,
        environment: Callable[[int], Mapping[str, str]],
        command: Sequence[str] | None = None,
        output: IO[bytes] | None = None,
        restarts: int | None = None,
        until_done: bool = False,
        grace_s: float = 10.0,
        pause: Callable[..., float] = pause_s,
    ) -> None:
        self.environment = environment
        self.command = list(command or WORKER)
        self.output = output
        self.until_done = until_done
        self.grace_s = grace_s
        self.exhausted = threading.Event()
        """Too many workers ended by themselves: none is replaced any more."""
        self.killed = 0
        """Workers that had not ended when their time was over."""
        self.deaths = 0
        """Workers that ended before they were told to."""
        self._pause = pause
        self._restarts_left = restarts
        self._places = [_Place(number=number) for number in range(processes)]
        self._started = threading.Event()
        self._changed = threading.Event()
        self._stopping = False

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the workers that run now."""
        running = [place.process for place in self._places]
        return tuple(process.pid for process in running if process is not None and process.poll() is None)

    def wait_started(self) -> None:
        """Returns when every worker was started once, or `keep` has ended."""
        self._started.wait()

    def keep(self) -> None:
        """Keep them until `stop` is called, or none is left; then end them. The calling thread holds their leashes."""
        try:
            while not self._stopping and self._look():
                self._changed.wait(self._next_s())
                self._changed.clear()
        finally:
            self._end()
            self._started.set()

    def stop(self) -> None:
        """Let `keep` end, from another thread."""
        self._stopping = True
        self._changed.set()

    def signal(self, number: signal.Signals) -> None:
        """Pass a signal on to every worker."""
        for place in self._places:
            if place.process is not None and place.process.poll() is None:
                place.process.send_signal(number)

    def _look(self) -> bool:
        """Replace who has died and start who is due. False: nobody is left."""
        for place in list(self._places):
            if place.process is not None and place.process.poll() is not None:
                self._bury(place, place.process)
            if place in self._places and place.process is None and time.monotonic() >= place.due:
                place.process, place.started = self._spawn(place.number), time.monotonic()
        self._started.set()
        return bool(self._places) or not self.until_done

    def _next_s(self) -> float | None:
        """Seconds until somebody is to be started; None: nobody is."""
        due = [place.due for place in self._places if place.process is None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _bury(self, place: _Place, dead: subprocess.Popen[bytes]) -> None:
        code, place.process = dead.returncode, None
        if self.until_done and code == 0:
            self._places.remove(place)
            return
        self.deaths += 1
        place.deaths = 1 if time.monotonic() - place.started > SETTLED_S else place.deaths + 1
        wait = self._pause(place.deaths, killed=code < 0)
        place.due = time.monotonic() + wait
        extra = {"action": "worker.ended", "pid": dead.pid, "code": code, "restart_in_s": wait}
        log.warning("worker %d ended (exit code %d)", dead.pid, code, extra=extra)
        self._count_restart(place)

    def _count_restart(self, place: _Place) -> None:
        if self._restarts_left is None:
            return
        if self._restarts_left == 0:
            self._places.remove(place)
            self.exhausted.set()
            return
        self._restarts_left -= 1

    def _spawn(self, number: int) -> subprocess.Popen[bytes]:
        environment = dict(self.environment(number))
        process = leashed(self.command, env=environment, stdout=self.output, stderr=self.output)
        threading.Thread(target=self._watch, args=[process], daemon=True, name=f"worker-{process.pid}").start()
        return process

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._changed.set()

    def _end(self) -> None:
        """SIGTERM to all, `grace_s` to finish or hand back, SIGKILL to the rest."""
        running = [place.process for place in self._places if place.process is not None]
        end(*running, grace_s=self.grace_s)
        self.killed = sum(process.returncode == -signal.SIGKILL for process in running)
        self._places.clear()


def keep_until_told(workers: Supervisor) -> int:
    """Keep them until SIGTERM, SIGINT or the terminal's end: then they drain. A second one: they hand back at once.

    Returns the exit code: 0 when every worker ended in order. Belongs to the main thread.
    """
    told = threading.Event()

    def tell(_number: int) -> None:
        if told.is_set():
            workers.signal(signal.SIGTERM)
        told.set()
        workers.stop()

    stays = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # `nohup` says that it shall outlive the terminal
    on_signals(tell, signal.SIGTERM, signal.SIGINT, *(() if stays else (signal.SIGHUP,)))
    workers.keep()
    return 1 if workers.killed else 0


def cores() -> int:
    """Cores that this process may use: a worker each uses a machine best."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1
