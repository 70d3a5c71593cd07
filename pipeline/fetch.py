"""Bringing a source into private storage: the only place that reads what a caller pointed at."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from pipeline import keys
from pipeline.blocks import file_blocks, ranges
from pipeline.document import public_url
from pipeline.download import PUBLIC_WEB, Web
from pipeline.errors import PipelineError
from pipeline.ports import Moved, ObjectNotFound, PreconditionFailed, Storage, StoredObject
from pipeline.sizes import check_size
from pipeline.storage.buckets import NO_BUCKETS, Buckets
from pipeline.storage.folder import HIDDEN
from pipeline.tasks import IngestTask

_AREAS = (keys.PRIVATE, keys.PUBLIC)
_WORTH_A_THREAD = 64 * 1024
"""Bytes that take longer to count than to hand over."""


def fetch(
    storage: Storage,
    task: IngestTask,
    *,
    local: bool,
    moved: Moved,
    web: Web = PUBLIC_WEB,
    buckets: Buckets = NO_BUCKETS,
) -> str:
    """Store the source of `task` under its private key, once; a second attempt finds it there. Returns its SHA-256.

    `local`: files of this machine may be sources. `moved` is called again and again while bytes move; what it raises
    ends the fetch. Raises what is said of the door: `Web.blocks`, `Buckets.blocks`; of every one
    `media_url_not_accessible`, `media_url_file_broken` (empty), `media_filesize_too_large`, and `source_differs` where
    another file lies under that key; of a file `source_forbidden` (what we store ourselves) and `source_changed`.
    """
    path = local_file(task.url)
    if path is None:
        web = replace(web, live=task.limits.live)
        door = buckets.blocks if task.url.lower().startswith("s3:") else web.blocks
        return _brought(storage, task) or _bring(storage, task, door, moved)
    if not local:
        raise not_accessible(task.url, "no file of the workers' machines is a source here")
    check_foreign(storage, path, task.url)
    return _from_file(storage, task, path, moved)


def not_accessible(url: str, reason: str, *, log: str | None = None) -> PipelineError:
    return PipelineError("media_url_not_accessible", url=public_url(url), reason=reason, log=log)


# -- from afar --------------------------------------------------------------------------------------------------------


class _Door(Protocol):
    """How the bytes of a URL come."""

    def __call__(self, url: str, *, max_bytes: int | None, moved: Moved) -> Iterator[bytes]: ...


def _bring(storage: Storage, task: IngestTask, door: _Door, moved: Moved) -> str:
    """Store what comes, while it comes; what comes a second time, only compare."""
    try:
        with _summed(task, door, moved) as (blocks, digest):
            stored = storage.put(task.source, blocks, absent=True, moved=moved)
    except PreconditionFailed:
        with _summed(task, door, moved) as (blocks, digest):
            size = sum(map(len, blocks))
        _check_same(storage, task, size, digest.hexdigest(), moved)
        return digest.hexdigest()
    said = {"url": _name_of(task.url), "etag": stored.etag, "sha256": digest.hexdigest()}
    storage.put(keys.brought(task.asset), json.dumps(said).encode())
    return digest.hexdigest()


def _brought(storage: Storage, task: IngestTask) -> str | None:
    """The checksum of what an earlier attempt brought whole from the same URL, which may not lead there any more."""
    try:
        said = json.loads(storage.get(keys.brought(task.asset)))
    except ObjectNotFound:
        return None
    stored = storage.stat(task.source)
    ours = stored is not None and (said["url"], said["etag"]) == (_name_of(task.url), stored.etag)
    return str(said["sha256"]) if ours else None


def _name_of(url: str) -> str:
    """A name of the URL that tells nothing of it."""
    return hashlib.sha256(url.encode()).hexdigest()


@contextmanager
def _summed(task: IngestTask, door: _Door, moved: Moved) -> Iterator[tuple[Iterator[bytes], hashlib._Hash]]:
    """The blocks, and the digest of those that were taken."""
    digest = hashlib.sha256()
    blocks = door(task.url, max_bytes=task.limits.max_bytes, moved=moved)
    with closing(_counted(blocks, digest)) as counted:
        yield counted, digest


def _counted(blocks: Iterator[bytes], digest: hashlib._Hash) -> Generator[bytes]:
    """The blocks; each is counted by a thread while it is stored and the next one comes: a third of the time."""
    with ThreadPoolExecutor(1, thread_name_prefix="checksum") as pool:
        counting: Future[None] = pool.submit(digest.update, b"")
        for block in blocks:
            counting.result()
            if len(block) < _WORTH_A_THREAD:
                digest.update(block)
            else:
                counting = pool.submit(digest.update, block)
            yield block
        counting.result()


# -- from this machine ------------------------------------------------------------------------------------------------


def _from_file(storage: Storage, task: IngestTask, path: Path, moved: Moved) -> str:
    size = readable_size(path, task.url)
    check_size(size, task.limits.max_bytes)
    try:
        return _stored(storage, task, path, moved)
    except OSError as error:  # it was there a moment ago
        raise not_accessible(task.url, "it went while it was read", log=str(error)) from error


def _stored(storage: Storage, task: IngestTask, path: Path, moved: Moved) -> str:
    """Store the file, or see that it is the one that is stored. Returns the checksum of what is stored."""
    check_same = partial(_check_unchanged, path, _state(path), task.url)

    def moved_on() -> None:
        moved()
        check_same()

    try:
        if storage.local_path(task.source) is not None:  # a copy of a file may share its blocks
            stored = storage.put(task.source, path, absent=True, moved=moved_on)
            return _sha256(_stored_blocks(storage, stored), moved)
        digest = hashlib.sha256()
        with closing(_counted(_blocks(path, check_same), digest)) as blocks:
            storage.put(task.source, blocks, absent=True, moved=moved)
        return digest.hexdigest()
    except PreconditionFailed:  # an earlier attempt brought it, or somebody brought something else
        checksum = _sha256(_blocks(path, check_same), moved)
        _check_same(storage, task, path.stat().st_size, checksum, moved)
        return checksum


def _state(path: Path) -> tuple[int, int, int]:
    """What tells that a file is another one, or is being written to."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _check_unchanged(path: Path, before: tuple[int, int, int], url: str) -> None:
    try:
        now = _state(path)
    except OSError as error:
        raise not_accessible(url, "it went while it was read", log=str(error)) from error
    if now != before:
        raise PipelineError("source_changed", url=public_url(url))


def _check_same(storage: Storage, task: IngestTask, size: int, checksum: str, moved: Moved) -> None:
    """Raises `source_differs` where another file is stored than the one of this size and checksum."""
    stored = storage.stat(task.source)
    if stored is None:  # removed meanwhile: by the next attempt it is clear which of the two was meant
        raise PipelineError("storage_unavailable", reason="the source is being removed")
    if stored.size != size or checksum != _sha256(_stored_blocks(storage, stored), moved):
        raise PipelineError("source_differs", asset=task.asset, url=public_url(task.url))


def checksum_of(storage: Storage, key: str, moved: Moved) -> str:
    """SHA-256 of an object, hex. Raises `ObjectNotFound`."""
    stored = storage.stat(key)
    if stored is None:
        raise ObjectNotFound(key)
    return _sha256(_stored_blocks(storage, stored), moved)


def _stored_blocks(storage: Storage, stored: StoredObject) -> Iterator[bytes]:
    for offset, length in ranges(stored.size):
        yield storage.get(stored.key, offset, length)


def _blocks(path: Path, check_same: Callable[[], None]) -> Iterator[bytes]:
    """The bytes of a file; who stores them never hears the end of one that changed meanwhile."""
    for block in file_blocks(path):
        check_same()
        yield block
    check_same()


def _sha256(blocks: Iterable[bytes], moved: Moved) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
        moved()
    return digest.hexdigest()


def local_file(url: str) -> Path | None:
    """The path that a source names: a plain path or a `file:` URL of this machine; None for anything else."""
    if "://" not in url and not url.startswith("file:"):
        return Path(url)
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return None


def check_foreign(storage: Storage, path: Path, url: str) -> None:
    """Raises `source_forbidden` where a file is one of the storage's own: it belongs to another asset.

    However it is written: what counts are the folders in which it lies in the end.
    """
    areas = [area for area in map(storage.local_path, _AREAS) if area is not None]
    areas += [area.with_name(HIDDEN) for area in areas[:1]]
    try:
        folders = path.resolve().parents
        found = any(folder.samefile(area) for area in areas if area.exists() for folder in folders)
    except (OSError, ValueError, RuntimeError):  # a NUL in the name, a loop of links
        raise not_accessible(url, "there is no such file") from None
    if found:
        raise PipelineError("source_forbidden", url=public_url(url), reason="what is stored there belongs to an asset")


def readable_size(path: Path, url: str) -> int:
    """Size in bytes of a regular file that may be read."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # also a NUL in the name
        raise not_accessible(url, "there is no such file") from None
    if not stat.S_ISREG(status.st_mode):
        raise not_accessible(url, "it is no regular file")
    if not os.access(path, os.R_OK):
        raise not_accessible(url, "it may not be read")
    return status.st_size
