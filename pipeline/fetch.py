"""Bringing a source into private storage: the only place that reads what a caller pointed at."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.document import public_url
from pipeline.errors import PipelineError
from pipeline.ports import PreconditionFailed, Storage
from pipeline.tasks import IngestTask


def fetch(storage: Storage, task: IngestTask, *, local: bool, moved: Callable[[], None]) -> None:
    """Store the source of `task` under its private key, once; a second attempt finds it there.

    `local`: files of this machine may be sources. Raises `media_url_not_accessible`, `media_url_file_broken` (empty)
    and `media_filesize_too_large`.
    """
    path = local_file(task.url) if local else None
    if path is None:
        raise PipelineError("media_url_not_accessible", url=public_url(task.url))
    size = _readable_size(path, task.url)
    if size == 0:
        raise PipelineError("media_url_file_broken")
    if task.limits.max_bytes is not None and size > task.limits.max_bytes:
        raise PipelineError("media_filesize_too_large", current_size=size, maximum_size=task.limits.max_bytes)
    with suppress(PreconditionFailed):  # an earlier attempt brought it
        storage.put(task.source, path, absent=True)
    moved()


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
