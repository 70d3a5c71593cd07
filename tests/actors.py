"""Processes that run one at a time, and only as far as their next call of a port.

Each actor is a thread that runs while it holds the baton. `pause` gives the baton back to the world, which decides who
goes on next, or that the actor dies where it stands. So one list of choices makes one history, however many cores and
whatever scheduler the machine has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from pipeline.conductor import Attempt


class Killed(BaseException):
    """kill -9: nothing in the product may catch it."""


class Crash(BaseException):
    """The actor goes down by itself."""


def always() -> bool:
    return True


class Stage:
    """Where the world waits while an actor runs."""

    def __init__(self) -> None:
        self.baton = threading.Lock()
        self.baton.acquire()


class Actor:
    """One process of a world."""

    def __init__(self, stage: Stage, name: str, body: Callable[[Actor], None]) -> None:
        self.name = name
        self.attempt: Attempt | None = None
        """What a worker holds, or believes that it holds."""
        self.luck = 0
        """0 to 99, drawn anew whenever it goes on."""
        self.can_go_on: Callable[[], bool] = always
        self.ended = False
        self._stage = stage
        self._body = body
        self._killed = False
        self._asleep = 0
        self._failure: BaseException | None = None
        self._turn = threading.Lock()
        self._turn.acquire()
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._thread.start()

    # -- the world's side ---------------------------------------------------------------------------------------------

    def go_on(self, luck: int) -> None:
        """Run to the next pause. Raises what the actor did not catch."""
        self.luck = luck
        self._turn.release()
        self._stage.baton.acquire()
        if self.ended:
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def sleep(self, turns: int) -> None:
        """Stand still (SIGSTOP, a swapping machine) the next `turns` times that somebody asks whether it is awake."""
        self._asleep = turns

    def awake(self) -> bool:
        self._asleep = max(0, self._asleep - 1)
        return self._asleep == 0

    def kill(self) -> None:
        """It dies where it paused."""
        if not self.ended:
            self._killed = True
            self.go_on(0)

    # -- the actor's side ---------------------------------------------------------------------------------------------

    def pause(self, until: Callable[[], bool] = always) -> int:
        """Let others run, at least until `until`. Returns fresh luck."""
        self.can_go_on = until
        self._stage.baton.release()
        self._wait()
        return self.luck

    def _wait(self) -> None:
        self._turn.acquire()
        if self._killed:
            raise Killed

    def _live(self) -> None:
        try:
            self._wait()
            self._body(self)
        except (Killed, Crash):
            pass
        except BaseException as failure:
            self._failure = failure
        self.ended = True
        self._stage.baton.release()
