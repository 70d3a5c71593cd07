"""Several pieces of work at once, bounded, and all of them done where the block ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import pytest

from pipeline.storage.side_by_side import SideBySide


class Counter:
    """How many pieces are under way at once, at most."""

    def __init__(self) -> None:
        self.now = self.most = self.done = 0
        self._lock = threading.Lock()
        self.full = threading.Event()
        """Set when four are under way."""

    def work(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
            if self.now == 4:
                self.full.set()
        self.full.wait(10)
        with self._lock:
            self.now -= 1
            self.done += 1


def do_all(pieces: Iterable[Callable[[], object]], several: SideBySide) -> None:
    with several:
        for piece in pieces:
            several.do(piece)


def test_everything_is_done_at_the_end_and_never_more_at_once_than_allowed() -> None:
    counter, moves = Counter(), []

    with SideBySide(lambda: moves.append(threading.current_thread()), threads=4) as several:
        for _ in range(50):
            several.do(counter.work)

    assert (counter.done, counter.most) == (50, 4)
    assert moves == [threading.current_thread()] * 50


def test_the_first_error_ends_the_block_and_what_is_under_way_is_waited_for() -> None:
    ended: list[int] = []

    def work(number: int) -> None:
        if number == 3:
            raise ValueError("the third")
        ended.append(number)

    with pytest.raises(ValueError, match="third"):
        do_all([partial(work, number) for number in range(100)], SideBySide(threads=2))

    assert 3 not in ended
    assert len(ended) < 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("storage")]


@pytest.mark.parametrize("pieces", [1, 5])
def test_an_error_of_the_last_piece_is_raised_too(pieces: int) -> None:
    def work(number: int) -> None:
        if number == pieces - 1:
            raise ValueError("the last")

    with pytest.raises(ValueError, match="last"):
        do_all([partial(work, number) for number in range(pieces)], SideBySide())


def test_who_is_told_that_it_moves_may_stop_it() -> None:
    class Enough(BaseException):
        pass

    def moved() -> None:
        raise Enough

    done: list[int] = []
    with pytest.raises(Enough):
        do_all([partial(done.append, number) for number in range(10)], SideBySide(moved, threads=1))

    assert done == [0]


def test_an_error_of_the_callers_own_is_the_one_that_is_raised() -> None:
    def fail() -> None:
        raise ValueError("of a piece")

    def pieces() -> Iterator[Callable[[], object]]:
        yield fail
        raise KeyError

    with pytest.raises(KeyError):
        do_all(pieces(), SideBySide())
