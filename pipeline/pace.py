"""The watch over a download: it must move, and it can be stopped, however a server behaves.

A server may be silent, or send a byte now and then: in its headers, between the chunks, behind the body. Whoever reads
from it waits in a system call, so the watch is a thread beside, which shuts the socket: whatever was waited for ends.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from pipeline.ports import Moved

TICK_S = 0.25
"""How often the watch looks: a cancelled download ends within that time."""


class Pace:
    """Ends a download that is stopped, lasts too long, or of which too little comes.

    Time that is waited for the server is paid with credit, and every byte of the body earns some: at most `window_s`
    seconds of it, so that `rate` bytes a second are enough to go on for ever. Time that we need ourselves is free.
    """

    def __init__(
        self,
        moved: Moved,
        *,
        rate: int,
        window_s: float,
        longest_s: float,
        slow: Callable[[], Exception],
        long: Callable[[], Exception],
    ) -> None:
        self._moved = moved
        self._rate = rate
        self._window_s = window_s
        self._credit_s = window_s
        self._deadline = time.monotonic() + longest_s
        self._slow, self._long = slow, long
        self._since: float | None = None
        self._socket: socket.socket | None = None
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="download-pace", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def over(self, connection: socket.socket) -> None:
        """From now on this is the socket to shut. Raises what `check` raises."""
        with self._lock:
            self._socket = connection
        self.check()

    def check(self) -> None:
        """Raises why the download must not go on."""
        if self._error is not None:
            raise self._error

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The server is waited for. What comes out of a socket that the watch has shut becomes the watch's reason."""
        with self._lock:
            self._since = time.monotonic()
        try:
            yield
        except Exception:
            self.check()
            raise
        finally:
            with self._lock:
                self._pay()
                self._since = None
        self.check()

    def came(self, size: int) -> None:
        """So many bytes of the body came. Raises what `moved` raises."""
        with self._lock:
            self._credit_s = min(self._window_s, self._credit_s + size / self._rate)
        self._moved()

    def pause(self, seconds: float) -> None:
        """Wait, at no cost, but not longer than the download may last. Raises what `check` raises."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            self._moved()
            time.sleep(min(left, TICK_S))
        self.check()

    def _watch(self) -> None:
        while not self._ended.wait(TICK_S):
            try:
                self._judge()
            except BaseException as error:
                self._stop(error)
                return

    def _judge(self) -> None:
        with self._lock:
            self._pay()
            waiting, spent = self._since is not None, self._credit_s <= 0
        if waiting:  # else it is our own side that must show that it moves
            self._moved()
        if spent:
            raise self._slow()
        if time.monotonic() > self._deadline:
            raise self._long()

    def _pay(self) -> None:
        if self._since is not None:
            now = time.monotonic()
            self._credit_s -= now - self._since
            self._since = now

    def _stop(self, error: BaseException) -> None:
        with self._lock:
            self._error = error
            connection = self._socket
        if connection is not None:
            # Not `SSLSocket.shutdown`, which takes the TLS state from under whoever is reading.
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
