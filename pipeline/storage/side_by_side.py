"""Many small objects at once: a few threads that each wait for the storage, where one after the other would be slow.

    with SideBySide(moved) as several:
        for key, body in files:
            several.do(partial(storage.put, key, body, absent=True))
    # here all of them are stored

The law: leaving the block means that everything in it is done. Order inside is nobody's: what must come after the
others (the JSON of a version, say) comes after the block.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType

from pipeline.ports import Moved

THREADS = 8
"""An S3 client keeps 16 connections; a worker has several slots, and a single one still gains sevenfold."""


def _untold() -> None:
    pass


class SideBySide:
    """Does up to `threads` pieces of work at once, and holds back whoever brings more: nothing piles up in memory.

    The first error of a piece is raised by `do` or at the end of the block; nothing new is begun then, and what is
    under way is waited for. `moved` is called in the caller's thread whenever a piece is done; what it raises ends the
    block in the same way.
    """

    def __init__(self, moved: Moved = _untold, *, threads: int = THREADS) -> None:
        self._moved = moved
        self._threads = threads
        self._under_way: set[Future[object]] = set()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="storage")

    def __enter__(self) -> SideBySide:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if error is None:
                self._settle(0)
        finally:
            self._pool.shutdown(cancel_futures=True)

    def do(self, work: Callable[[], object]) -> None:
        """Begin `work` as soon as a thread is free."""
        self._settle(self._threads - 1)
        self._under_way.add(self._pool.submit(work))

    def _settle(self, left: int) -> None:
        """Wait until at most `left` pieces are under way; and hear of those that are done already."""
        while len(self._under_way) > left:
            done, self._under_way = wait(self._under_way, return_when=FIRST_COMPLETED)
            for each in done:
                each.result()
                self._moved()
