"""Signals as calls of an ordinary thread.

A Python signal handler runs between two steps of the main thread, whatever that is doing: if it holds a lock that the
handler wants (that of an event, of a log), both stand still for ever. So the handler only writes a byte into a pipe.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress


def on_signals(call: Callable[[int], None], *numbers: signal.Signals) -> None:
    """From now on `call` is told every signal of `numbers`, one after the other, in a thread of its own."""
    read, write = os.pipe()
    os.set_blocking(write, False)

    def listen() -> None:
        while told := os.read(read, 1):
            call(told[0])

    threading.Thread(target=listen, daemon=True, name="signals").start()
    for number in numbers:
        signal.signal(number, lambda received, _frame: _note(write, received))


def _note(pipe: int, number: int) -> None:
    with suppress(BlockingIOError):  # 64 KB of signals that nobody has heeded yet say enough
        os.write(pipe, bytes([number]))
