"""The Redis of `reelway up`: whoever answers where the settings say, else one of our own there that forgets nothing.

What it holds lies in a folder, so that the next start goes on with what was there, however the last one ended.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import redis

from pipeline.errors import PipelineError
from workers.embedded import find_server, server_command, wait_for
from workers.redis_client import connect, unavailable
from workers.supervisor import Supervisor

ANSWER_S = 2.0
"""A Redis of this machine says something within that time."""
LOAD_S = 120.0
"""How long our own may take to read what it wrote before."""
LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, kw_only=True)
class Address:
    """A place on this machine where a Redis of ours may listen."""

    database: int
    """Of the records; the tickets' is the next."""
    path: Path | None = None
    """Of its socket; None: it is a port."""
    host: str = "127.0.0.1"
    port: int = 6379

    def __str__(self) -> str:
        return str(self.path) if self.path else f"{self.host}:{self.port}"


def address_of(url: str) -> Address | None:
    """Where the URL points to, if a Redis of ours may be started there: on this machine, without TLS and password."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    if parts.username or parts.password or "password" in query:
        return None
    database = query.get("db", [parts.path.strip("/") if parts.scheme == "redis" else "0"])[0]
    number = int(database) if database.isdigit() else 0
    if parts.scheme == "unix":
        return Address(path=Path(parts.path), database=number)
    if parts.scheme == "redis" and (parts.hostname or "localhost") in LOCAL:
        return Address(host=parts.hostname or "127.0.0.1", port=parts.port or 6379, database=number)
    return None


def greeting(address: Address) -> bytes | None:
    """The first words of whoever listens there; None: nobody does."""
    family = socket.AF_UNIX if address.path else socket.AF_INET6 if ":" in address.host else socket.AF_INET
    target = str(address.path) if address.path else (address.host, address.port)
    with socket.socket(family) as line:
        line.settimeout(ANSWER_S)
        try:
            line.connect(target)
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        except OSError as error:
            raise PipelineError("queue_unavailable", reason=f"{address}: {error.strerror or error}") from error
        try:
            line.sendall(b"PING\r\n")
            return line.recv(64)
        except OSError:  # it hung up, or says nothing
            return b""


@contextmanager
def standing_redis(url: str, folder: Path) -> Iterator[bool]:
    """While inside, a Redis answers at `url`. True: it is ours, and keeps its data in `folder`.

    Raises `address_taken` where something else listens there, `queue_unavailable` where none can be reached or started.
    """
    address = address_of(url)
    said = greeting(address) if address else b"+"
    if address is not None and said is None:
        with _ours(url, address, folder):
            yield True
        return
    if said is not None and not said.startswith((b"+", b"-")):
        raise PipelineError("address_taken", address=str(address))
    _check(url)
    yield False


def _check(url: str) -> None:
    """It lets us in. One that still reads its file is one."""
    try:
        with connect(url, timeout_s=ANSWER_S) as client:
            client.ping()
    except redis.BusyLoadingError:
        wait_for(url, "Redis", said=None, ended=lambda: None, patience_s=LOAD_S)
    except redis.RedisError as error:
        raise unavailable(error) from error


@contextmanager
def _ours(url: str, address: Address, folder: Path) -> Iterator[None]:
    server = find_server()
    if server.path is None:
        raise PipelineError("queue_unavailable", reason="there is no redis-server of 6.2 or newer on this machine")
    folder.mkdir(parents=True, exist_ok=True)
    command = server_command(
        server.path,
        folder.absolute(),
        socket=address.path,
        port=0 if address.path else address.port,
        host=address.host,
        databases=max(16, address.database + 2),
    )
    keeper = Supervisor(processes=1, environment=lambda _number: os.environ, command=command, grace_s=30.0)
    thread = threading.Thread(target=keeper.keep, daemon=True, name="redis")
    thread.start()
    try:
        wait_for(url, str(server), said=folder, ended=lambda: keeper.deaths or None, patience_s=LOAD_S)
        yield
    finally:
        keeper.stop()
        thread.join()
