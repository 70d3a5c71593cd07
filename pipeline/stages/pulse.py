"""Reports of progress, often enough for the lease and seldom enough to cost nothing."""

from __future__ import annotations

import time

from pipeline.stages.contract import Tick


class Pulse:
    """Calls `tick` at most five times a second, however often it is asked to."""

    def __init__(self, tick: Tick, *, every_s: float = 0.2) -> None:
        self._tick = tick
        self._every_s = every_s
        self._next = 0.0
        self._fraction = 0.0

    def __call__(self, fraction: float | None = None) -> None:
        """Something was done; `fraction` says how far this is, None that it is no further than before."""
        if fraction is not None:
            self._fraction = min(max(fraction, 0.0), 1.0)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._every_s
            self._tick(self._fraction)

    def between(self, first: float, last: float) -> Pulse:
        """The same pulse for a part of the work: its 0 is `first`, its 1 is `last`."""
        return Pulse(lambda fraction: self(first + (last - first) * fraction), every_s=0)
