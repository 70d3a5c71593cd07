"""Who knocks and who reads: a listener on loopback, files that tell when they are opened, and the UDP ports in use."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_IN_NONBLOCK, _IN_OPEN = 0o4000, 0x20


@dataclass
class Listener:
    """A TCP port of 127.0.0.1, and what came to it."""

    port: int
    knocks: list[bytes] = field(default_factory=list)
    """The first bytes of every connection."""


@contextmanager
def listening() -> Iterator[Listener]:
    """The listener, while inside. It answers nothing, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        heard = Listener(server.getsockname()[1])

        def listen() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, suppress(OSError):
                        connection.settimeout(1)
                        heard.knocks.append(connection.recv(1000))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield heard
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


class Tripwire:
    """Tells which of these files were opened, by whomever."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(_IN_NONBLOCK)
        assert self._fd >= 0, "this system cannot watch files"
        self._names = {self._libc.inotify_add_watch(self._fd, os.fsencode(path), _IN_OPEN): path.name for path in paths}

    def tripped(self) -> set[str]:
        """Names of the files that were opened since the last time."""
        names = set()
        with suppress(BlockingIOError):
            data = os.read(self._fd, 1 << 20)
            while data:
                watch, _, _, length = struct.unpack_from("iIII", data)
                names.add(self._names[watch])
                data = data[16 + length :]
        return names

    def close(self) -> None:
        os.close(self._fd)


def free_udp_ports() -> int:
    """The first of two neighbours that nobody has, the first an even one, as RTP likes it."""
    for port in range(45_454, 60_000, 2):
        with (
            suppress(OSError),
            socket.socket(type=socket.SOCK_DGRAM) as one,
            socket.socket(type=socket.SOCK_DGRAM) as two,
        ):
            one.bind(("127.0.0.1", port))
            two.bind(("127.0.0.1", port + 1))
            return port
    raise AssertionError("no UDP port is free")


def bound_udp() -> set[int]:
    """UDP ports that are in use."""
    lines = [*Path("/proc/net/udp").read_text().splitlines()[1:], *Path("/proc/net/udp6").read_text().splitlines()[1:]]
    return {int(line.split()[1].rpartition(":")[2], 16) for line in lines}
