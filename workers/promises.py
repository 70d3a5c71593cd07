"""What the steps that run on this machine were promised, written down where its worker processes all see it.

Many processes share one disk and one memory, and what becomes ready becomes ready for all of them at once: each would
see the same free gigabyte. So a process notes in its scratch folder what it has let begin, and counts what the others
noted. A step has its memory some seconds after it began, and then the system counts it; its files grow to the end.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from workers.needs import Need
from workers.owned_folder import PREFIX

GROWN_S = 20.0
"""So long after its begin a step has taken the memory that it needs."""
FILE = "promises.json"
PATIENCE_S = 2.0
"""A promise takes a moment; who holds the lock for longer stands still, and must not stop the others."""
_LOOK_S = 0.02


class Promises:
    """The promises of this process, in its scratch folder `own`; those of its siblings lie beside it."""

    def __init__(self, own: Path) -> None:
        self._own = own
        # One a user: nobody may write another's file.
        self._shared = own.parent / f".reelway-promises-{os.getuid()}.lock"
        self._made: dict[str, tuple[Need, float]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While inside, no other process of this machine (and scratch disk) looks or promises. Raises `OSError`."""
        with self._lock, self._shared.open("a") as file:
            _lock(file)
            yield

    def outstanding(self, but: str) -> Need:
        """What was promised on this machine and is not taken yet; `but` this one, which asks again."""
        now, total = time.monotonic(), Need()
        for promise in self._written():
            if promise["name"] == but:
                continue
            memory = promise["memory"] if now - promise["since"] < GROWN_S else 0
            total += Need(memory=memory, scratch=promise["scratch"])
        return total

    def make(self, name: str, need: Need) -> None:
        self._made[name] = (need, time.monotonic())
        self._write()

    def release(self, name: str) -> None:
        """The step has ended, or has not begun. Twice is fine."""
        with self._lock:
            if self._made.pop(name, None) is not None:
                self._write()

    def _write(self) -> None:
        made = [
            {"name": name, "memory": need.memory, "scratch": need.scratch, "since": since}
            for name, (need, since) in self._made.items()
        ]
        temporary = self._own / f"{FILE}.new"
        temporary.write_text(json.dumps(made))
        temporary.replace(self._own / FILE)

    def _written(self) -> Iterator[dict[str, Any]]:
        for file in self._own.parent.glob(f"{PREFIX}*/{FILE}"):
            try:
                yield from json.loads(file.read_text())
            except (OSError, ValueError):
                continue  # its process ends at this moment


def _lock(file: IO[str]) -> None:
    """Until it is closed. Raises `OSError` where another process holds it for too long."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another worker of this machine holds the promises") from None
        time.sleep(_LOOK_S)
