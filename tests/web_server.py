"""A web server under test control: a test says, byte by byte, what it answers to whom. On 127.0.0.1 only.

with running_web(answer) as web: …     `answer(request)` is called for every request, in a thread of its own
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Request:
    """A request that came, and the connection to answer on."""

    path: str
    headers: Mapping[str, str]
    """By name in lower case."""
    number: int
    """From 1 on."""
    connection: socket.socket
    over: threading.Event
    """The server ends: so should whoever answers slowly."""

    def head(self, status: int = 200, headers: Mapping[str, object] | None = None) -> None:
        lines = [f"HTTP/1.1 {status} Told", *(f"{name}: {value}" for name, value in (headers or {}).items())]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def reply(self, body: bytes = b"", status: int = 200, **headers: object) -> None:
        """A whole answer; `content_length=…` and others override what is usual."""
        named = {name.replace("_", "-").title(): value for name, value in headers.items()}
        self.head(status, {"Content-Length": len(body), **named})
        self.send(body)

    def reset(self) -> None:
        """The connection breaks, as a machine that dies breaks it."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.connection.close()

    def trickle(self, data: bytes, every_s: float = 0.02) -> None:
        """The data again and again, a little at a time, until nobody listens."""
        while not self.over.wait(every_s):
            self.send(data)


Answer = Callable[[Request], None]


@dataclass(kw_only=True)
class Web:
    """The server, and what came to it."""

    port: int
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def running_web(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[Web]:
    """The server, while inside; each connection carries one request."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    web = Web(port=listener.getsockname()[1])
    threads: list[threading.Thread] = []

    def serve(raw: socket.socket) -> None:
        with suppress(OSError), raw if tls is None else tls.wrap_socket(raw, server_side=True) as connection:
            connection.settimeout(30)
            request = _read(connection, len(web.requests) + 1, over)
            if request is not None:
                web.requests.append(request)
                answer(request)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                web.connections += 1
                threads.append(threading.Thread(target=serve, args=[connection], daemon=True))
                threads[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield web
    finally:
        over.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(10)
        for thread in threads:
            thread.join(10)


def _read(connection: socket.socket, number: int, over: threading.Event) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return None
        data += more
    first, *lines = data.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Request(path=first.split(" ")[1], headers=headers, number=number, connection=connection, over=over)
