"""A storage in which something happens between any two operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.ports import Moved, Storage, StoredObject


class Interrupted(Storage):
    """`before(count, operation, key)` is called before each operation; what it raises takes the operation's place."""

    def __init__(self, inner: Storage, before: Callable[[int, str, str], None] = lambda *_: None) -> None:
        self.inner = inner
        self.before = before
        self.count = 0

    def _step(self, operation: str, key: str) -> None:
        self.count += 1
        self.before(self.count, operation, key)

    def put(
        self,
        key: str,
        body: bytes | Path,
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

    def delete(self, prefix: str) -> int:
        self._step("delete", prefix)
        return self.inner.delete(prefix)

    def presign(self, key: str, expires_s: int) -> str:
        return self.inner.presign(key, expires_s)

    def local_path(self, key: str) -> Path | None:
        return self.inner.local_path(key)
