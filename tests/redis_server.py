"""A real redis-server for tests: on a socket of its own, and stopped, paused and killed by its own id.

The fixtures are there for every test (`tests/conftest.py`), so that all of them share one server.
"""

from __future__ import annotations

import itertools
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from workers.embedded import Server, end, find_server, leashed, server_command, short_folder
from workers.redis_client import Client, connect


class RedisServer:
    """One redis-server that a test may stop, pause, kill and start again; what it wrote stays."""

    def __init__(self, server: Server, *, appendonly: bool = False, password: str = "") -> None:
        assert server.path is not None
        self.path = server.path
        self.appendonly = appendonly
        self.password = password
        self.folder = Path(tempfile.mkdtemp(prefix="reelway-test-", dir=short_folder()))
        self.socket = self.folder / "redis.sock"
        self.start()

    def url(self, database: int = 0) -> str:
        user = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"unix://{user}{self.socket}?db={database}"

    def client(self, database: int = 0, *, timeout_s: float = 5.0) -> Client:
        return connect(self.url(database), timeout_s=timeout_s)

    def start(self) -> None:
        command = server_command(self.path, self.folder, socket=self.socket, appendonly=self.appendonly)
        if self.password:  # in a file, as every argument can be seen by everybody
            (self.folder / "password.conf").write_text(f'requirepass "{self.password}"\n')
            command += ["--include", str(self.folder / "password.conf")]
        self.process = leashed(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    assert self.process.poll() is None, (self.folder / "redis.log").read_text()
                    assert time.monotonic() < deadline, "redis-server does not answer"
                    time.sleep(0.01)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Silent, but there: connections are accepted by the kernel and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        end(self.process, grace_s=5)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def running_server(*, appendonly: bool = False, password: str = "") -> Iterator[RedisServer]:
    """A server for one test. Where none can be started: skipped at home, failed in CI."""
    found = find_server()
    if found.path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("there is no redis-server of 6.2 or newer")
    server = RedisServer(found, appendonly=appendonly, password=password)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def shared_server() -> Iterator[RedisServer]:
    """One server for every test that leaves it as it was but for data; use `redis_server`."""
    with running_server() as server:
        yield server


@pytest.fixture
def redis_server(shared_server: RedisServer) -> RedisServer:
    """A running, empty server. Do not stop it: a test that breaks its server starts one with `running_server`."""
    with shared_server.client() as client:
        client.flushall()
    return shared_server


class LossyProxy:
    """A proxy to a server's socket with the faults of a network: it loses replies, hangs up, and falls silent."""

    def __init__(self, server: RedisServer) -> None:
        self.target = server.socket
        self.path = server.folder / f"proxy-{next(_NUMBERS)}.sock"
        self.lose: Callable[[bytes], bool] = lambda _request: False
        """Asked about each request; True: pass it on, then hang up instead of answering."""
        self.lost = 0
        self._clients: set[socket.socket] = set()
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return self.database(0)

    def database(self, number: int) -> str:
        return f"unix://{self.path}?db={number}"

    def cut(self) -> None:
        """Hang up on everybody; what has not passed is lost. Who connects again is served."""
        clients, self._clients = self._clients, set()
        for client in clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Nothing passes in either direction, and nobody is told."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    def close(self) -> None:
        self._listener.close()
        self._flowing.set()
        self.path.unlink()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._clients.add(client)
        try:
            with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
                server.connect(str(self.target))
                self._pass_on(client, server)
        finally:
            self._clients.discard(client)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        deaf = False
        while True:
            for ready in select.select([client, server], [], [])[0]:
                self._flowing.wait()
                data = ready.recv(1 << 16)
                if not data or client not in self._clients:
                    return
                if ready is client:
                    deaf = self.lose(data)
                    server.sendall(data)
                elif deaf:
                    self.lost += 1
                    return
                else:
                    client.sendall(data)


_NUMBERS = itertools.count()
