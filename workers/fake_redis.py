"""fakeredis' TCP server, for machines that have no Redis at all: loopback only, in this process, nothing is kept.

It hangs up after every error reply, which a Redis does not: a script that it does not know yet (NOSCRIPT, the first use
of each of ours) would look like an outage. This server stays on the line.
"""

from __future__ import annotations

import threading
from typing import Any

from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import TCPFakeRequestHandler


class _StaysOnTheLine(TCPFakeRequestHandler):
    def setup(self) -> None:
        super().setup()
        self.refused = False
        dump = self.writer.dump

        def noting(value: Any) -> None:
            self.refused = isinstance(value, Exception)
            dump(value)

        self.writer.dump = noting  # type: ignore[method-assign]

    def handle(self) -> None:
        """Returns when the peer has gone; the stock one also returns after it refused a command."""
        while True:
            self.refused = False
            super().handle()
            if not self.refused:
                return


class FakeRedis:
    """A running server; `url` is its address without a database."""

    def __init__(self) -> None:
        self._server = TcpFakeServer(("127.0.0.1", 0), server_type="redis")
        self._server.RequestHandlerClass = _StaysOnTheLine
        self._server.daemon_threads = True
        self.url = f"redis://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True, name="fakeredis").start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
