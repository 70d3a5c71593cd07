"""Secrets that can be told from everything else, and a search for them wherever the product leaves something.

with watching(worker.pid) as watch: …     looks at every process, again and again, as long as it is inside
Places(…).finds(canaries)                 looks at everything that is stored, written and said
"""

from __future__ import annotations

import base64
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from redis_server import RedisServer

from pipeline.ports import Storage

Place = tuple[str, bytes]
"""A name, and what is there."""

SIGNATURE = re.compile(rb"Signature(=|%3D|:\\n)[0-9a-f]{64}")
"""Of a presigned URL, of a request, and as the S3 client writes it into its log: nobody knows it before."""


@dataclass(frozen=True)
class Canaries:
    """Secrets by their names."""

    secrets: Mapping[str, str]

    def within(self, data: bytes) -> list[str]:
        """The names of those that are in `data` as they are, quoted for a URL, or anywhere inside of base64."""
        found = [name for name, told in self._disguises.items() if any(each in data for each in told)]
        return found + (["signature"] if SIGNATURE.search(data) else [])

    def in_all(self, places: Iterator[Place]) -> list[str]:
        return [f"{secret} in {name}" for name, data in places for secret in self.within(data)]

    @cached_property
    def _disguises(self) -> Mapping[str, set[bytes]]:
        return {name: set(disguises(secret)) for name, secret in self.secrets.items()}


def disguises(secret: str) -> Iterator[bytes]:
    yield secret.encode()
    yield quote(secret, safe="").encode()
    for shift in range(3):
        told = base64.b64encode(b"\0" * shift + secret.encode())
        inner = told[4 if shift else 0 : -4]
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a fleet leaves something. `folder`: scratch, logs, what commands said, and cores."""

    redis: RedisServer
    storage: Storage
    folder: Path
    metrics_url: str = ""
    """Nowhere, if empty."""

    def finds(self, canaries: Canaries) -> list[str]:
        return canaries.in_all(self._all())

    def _all(self) -> Iterator[Place]:
        yield from self.records()
        yield from self.objects()
        yield from self.files()
        yield from arguments()
        if self.metrics_url:
            with urllib.request.urlopen(self.metrics_url) as page:
                yield "metrics", page.read()

    def records(self) -> Iterator[Place]:
        """Every key of every database, as Redis would write it to a disk: deleted entries of a stream are in it."""
        with self.redis.client() as client:
            databases = int(client.config_get("databases")["databases"])
        for database in range(databases):
            with self.redis.client(database) as client:
                client.config_set("rdbcompression", "no")
                for key in client.scan_iter(count=1000):
                    dumped: Any = client.dump(key)
                    yield f"redis {database} {key.decode()}", key + (dumped or b"")

    def objects(self) -> Iterator[Place]:
        """Every object, the sources too: the tests' own hold no secret."""
        for stored in self.storage.list(""):
            with suppress(Exception):  # it goes while we look
                yield f"object {stored.key}", stored.key.encode() + self.storage.get(stored.key)

    def files(self) -> Iterator[Place]:
        for path in self.folder.rglob("*"):
            with suppress(OSError):  # it goes while we look
                if path.is_file():
                    yield f"file {path.relative_to(self.folder)}", str(path).encode() + path.read_bytes()


def arguments() -> Iterator[Place]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield f"arguments of {process.name}", (process / "cmdline").read_bytes()


def environments(parent: int) -> Iterator[Place]:
    """Of everything that a process has started: in a worker, the nursery and the stages."""
    for pid in descendants(parent):
        with suppress(OSError):
            yield f"environment of {pid}", (Path("/proc") / str(pid) / "environ").read_bytes()


def descendants(parent: int) -> list[int]:
    children = _children()
    found = list(children.get(parent, ()))
    for pid in found:  # which grows
        found += children.get(pid, ())
    return found


def _children() -> Mapping[int, list[int]]:
    known: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            known.setdefault(int((process / "stat").read_text().rpartition(")")[2].split()[1]), []).append(
                int(process.name)
            )
    return known


@dataclass
class Watch:
    """What was seen of processes that came and went."""

    look: Callable[[], Iterator[Place]]
    canaries: Canaries
    found: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)

    def once(self) -> None:
        for name, data in self.look():
            self.seen.add(name)
            self.found.update(f"{secret} in {name}" for secret in self.canaries.within(data))


@contextmanager
def watching(parent: int, canaries: Canaries) -> Iterator[Watch]:
    """Look five times a second at the arguments of all processes and at the environments of those below `parent`."""

    def look() -> Iterator[Place]:
        yield from arguments()
        yield from environments(parent)

    over, watch = threading.Event(), Watch(look, canaries)

    def keep() -> None:
        while not over.wait(0.2):
            watch.once()

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()
