"""A storage in which something happens between any two operations."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.ports import Abandoned, Body, Moved, Multipart, Storage, StoredObject, nobody_knows


class Interrupted(Storage):
    """`before(count, operation, key)` is called before each operation; what it raises takes the operation's place."""

    def __init__(self, inner: Storage, before: Callable[[int, str, str], None] = lambda *_: None) -> None:
        self.inner = inner
        self.before = before
        self.count = 0
        self._lock = threading.Lock()

    def _step(self, operation: str, key: str) -> None:
        with self._lock:  # several threads may put at once; each operation has its own number
            self.count += 1
            count = self.count
        self.before(count, operation, key)

    def put(
        self,
        key: str,
        body: Body,
        *,
        absent: bool = False,
        match: str | None = None,
        moved: Moved | None = None,
    ) -> StoredObject:
        self._step("put", key)
        return self.inner.put(key, body, absent=absent, match=match, moved=moved)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        self._step("get", key)
        return self.inner.get(key, offset, length)

    def stat(self, key: str) -> StoredObject | None:
        self._step("stat", key)
        return self.inner.stat(key)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        self._step("list", prefix)
        return self.inner.list(prefix)

    def delete(self, prefix: str, *, moved: Moved | None = None) -> int:
        self._step("delete", prefix)
        return self.inner.delete(prefix, moved=moved)

    def presign(self, key: str, expires_s: int) -> str:
        return self.inner.presign(key, expires_s)

    def sweep_uploads(self, older_than_s: float, *, abandoned: Abandoned = nobody_knows, dry_run: bool = False) -> int:
        self._step("sweep_uploads", "")
        return self.inner.sweep_uploads(older_than_s, abandoned=abandoned, dry_run=dry_run)

    def local_path(self, key: str) -> Path | None:
        return self.inner.local_path(key)

    @property
    def multipart(self) -> Multipart:
        return self.inner.multipart
