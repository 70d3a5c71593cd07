"""Bringing a source into private storage: the only place that reads what a caller pointed at."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.document import public_url
from pipeline.errors import PipelineError
from pipeline.ports import Moved, PreconditionFailed, Storage, StoredObject
from pipeline.tasks import IngestTask

_BLOCK = 8 * 1024**2


def fetch(storage: Storage, task: IngestTask, *, local: bool, moved: Moved) -> str:
    """Store the source of `task` under its private key, once; a second attempt finds it there. Returns its SHA-256.

    `local`: files of this machine may be sources. `moved` is called again and again while bytes move; what it raises
    ends the fetch. Raises `media_url_not_accessible`, `media_url_file_broken` (empty), `media_filesize_too_large`, and
    `source_differs` where another file lies under that key.
    """
    path = local_file(task.url) if local else None
    if path is None:
        raise PipelineError("media_url_not_accessible", url=public_url(task.url))
    size = _readable_size(path, task.url)
    if size == 0:
        raise PipelineError("media_url_file_broken")
    if task.limits.max_bytes is not None and size > task.limits.max_bytes:
        raise PipelineError("media_filesize_too_large", current_size=size, maximum_size=task.limits.max_bytes)
    try:
        return _stored(storage, task, path, moved)
    except OSError as error:  # it was there a moment ago
        raise PipelineError("media_url_not_accessible", url=public_url(task.url), log=str(error)) from error


def _stored(storage: Storage, task: IngestTask, path: Path, moved: Moved) -> str:
    """Store the file, or see that it is the one that is stored. Returns its checksum."""
    try:
        storage.put(task.source, path, absent=True, moved=moved)
    except PreconditionFailed:  # an earlier attempt brought it, or somebody brought something else
        checksum = _sha256(_blocks(path), moved)
        stored = storage.stat(task.source)
        if stored is None:  # removed meanwhile: by the next attempt it is clear which of the two was meant
            raise PipelineError("storage_unavailable", reason="the source is being removed") from None
        if stored.size != path.stat().st_size or checksum != _sha256(_stored_blocks(storage, stored), moved):
            raise PipelineError("source_differs", asset=task.asset, url=public_url(task.url)) from None
        return checksum
    return _sha256(_blocks(path), moved)


def _stored_blocks(storage: Storage, stored: StoredObject) -> Iterator[bytes]:
    for offset in range(0, stored.size, _BLOCK):
        yield storage.get(stored.key, offset, _BLOCK)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


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


def _readable_size(path: Path, url: str) -> int:
    """Size in bytes of a regular file that may be read."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and os.access(path, os.R_OK):
            return status.st_size
    except (OSError, ValueError):  # missing, forbidden, a NUL in the name
        pass
    raise PipelineError("media_url_not_accessible", url=public_url(url))
