"""A proxy in front of an S3 server that answers some requests itself with 503, or cuts a reply short.

It passes bytes on as they are, the signed `Host` included, and looks only at where a request begins.
"""

from __future__ import annotations

import random
import re
import select
import socket
import threading
from contextlib import suppress

_BEGINS = re.compile(rb"(GET|PUT|POST|HEAD|DELETE) /")
_BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class FaultyS3:
    """`with FaultyS3(port, seed) as proxy: proxy.refuse = 0.05 …`"""

    def __init__(self, target: int, *, seed: int = 0) -> None:
        self.target = target
        self.refuse = 0.0
        """Share of the requests that are answered with 503."""
        self.cut = 0.0
        """Share of the GETs whose reply ends in the middle."""
        self.refused = 0
        self.cuts = 0
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> FaultyS3:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self.target)) as server:
            cut = False
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    if ready is client and (begins := _BEGINS.match(data)):
                        if self._random.random() < self.refuse:
                            self.refused += 1
                            client.sendall(_BUSY)
                            return
                        cut = begins[1] == b"GET" and self._random.random() < self.cut
                    if ready is server and cut and b"\r\n\r\n" in data and not data.endswith(b"\r\n\r\n"):
                        self.cuts += 1
                        client.sendall(data[: data.index(b"\r\n\r\n") + 4 + len(data.partition(b"\r\n\r\n")[2]) // 2])
                        return
                    (server if ready is client else client).sendall(data)
