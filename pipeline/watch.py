"""The watch over one attempt: keeps its lease while the work moves, and ends it when it must not go on."""

from __future__ import annotations

import enum
import threading
from contextlib import suppress

from pipeline.conductor import LEASE_S, Attempt, Conductor
from pipeline.errors import PipelineError
from pipeline.ports import Clock
from pipeline.sandbox import Child


class Verdict(enum.StrEnum):
    """Why an attempt was stopped from outside."""

    LOST = "lost"
    """The step is no longer ours: cancelled, or taken over."""
    STALLED = "stalled"
    """No progress for the stage's stall limit."""
    TIMED_OUT = "timed_out"
    """Longer than the wall limit."""
    HANDED_BACK = "handed_back"
    """The worker is draining."""


class Stopped(Exception):
    """The attempt ends now, for this reason."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        super().__init__(verdict.value)


class Watch:
    """Keeps the lease while the work moves, and ends the child when it must not go on."""

    def __init__(self, conductor: Conductor, attempt: Attempt, clock: Clock, *, stall_s: float, wall_s: float) -> None:
        self._conductor = conductor
        self._attempt = attempt
        self._clock = clock
        self._stall_s = stall_s
        self._deadline = clock.monotonic() + wall_s
        self._moved = clock.monotonic()
        self._child: Child | None = None
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self.verdict: Verdict | None = None
        self._thread = threading.Thread(target=self._keep, name=f"lease-{attempt.ref}", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def moved(self) -> None:
        """There was progress."""
        self._moved = self._clock.monotonic()

    def guard(self, child: Child) -> None:
        """End this child when the verdict falls."""
        with self._lock:
            self._child = child
        self.check_child()

    def check_child(self) -> None:
        if self.verdict is not None and self._child is not None:
            self._child.kill()

    def check(self) -> None:
        """Raises `Stopped` when the attempt must not go on."""
        if self.verdict is not None:
            raise Stopped(self.verdict)

    def stop(self, verdict: Verdict) -> None:
        with self._lock:
            self.verdict = self.verdict or verdict
        self.check_child()

    def _keep(self) -> None:
        while not self._ended.wait(LEASE_S / 3):
            now = self._clock.monotonic()
            if now - self._moved > self._stall_s:
                self.stop(Verdict.STALLED)
            elif now > self._deadline:
                self.stop(Verdict.TIMED_OUT)
            with suppress(PipelineError):  # Redis is away: that is an outage, not a loss; the next round asks again
                if not self._conductor.renew(self._attempt):
                    self.stop(Verdict.LOST)
            if self.verdict is not None:
                return
