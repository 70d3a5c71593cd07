"""Sources that stay where they lie: no copy is made, nothing of ours removes them.

Ingest reads the object once for its checksum and once to understand it, and pins what it saw: its size, and its etag
(of a file: when it was last changed). Every read from then on, also of jobs that come later, is of that content or of
none. The pin is put by comparing: an attempt that was thought dead can never pin what it saw over what a later one
saw. What lies there is the owner's, who may change it or take it away: then it is said so, and what was made of it
stays.

    private/<asset>/place.json      {"url": …, "size": …, "etag": …}
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline import keys
from pipeline.blocks import file_blocks
from pipeline.document import public_url
from pipeline.errors import PipelineError
from pipeline.fetch import check_foreign, local_file, not_accessible, readable_size
from pipeline.ports import Moved, ObjectNotFound, PreconditionFailed, Storage, StoredObject
from pipeline.sizes import check_size
from pipeline.storage.buckets import Buckets, Pinned
from pipeline.tasks import IngestTask


@dataclass(frozen=True, kw_only=True)
class InPlace:
    """Where a source lies, and which content is meant."""

    url: str
    size: int
    etag: str


@dataclass(frozen=True, kw_only=True)
class Places:
    """From where sources may be used in place: buckets that were named, and files where a private fleet allows them."""

    buckets: Buckets
    local: bool

    def register(self, storage: Storage, task: IngestTask, moved: Moved) -> str:
        """Pin what lies there now as the source of `task`; returns its SHA-256.

        Raises `source_forbidden`, `media_url_not_accessible`, `media_url_file_broken` (empty),
        `media_filesize_too_large`, `source_changed`, `source_archived`, and what a storage raises.
        """
        pin = storage.stat(keys.place(task.asset))
        found = self._found(storage, task.url)
        check_size(found.size, task.limits.max_bytes)
        checksum = self._checksum(storage, found, moved)
        _pin(storage, task.asset, found, pin)
        return checksum

    def checksum(self, storage: Storage, asset: str, moved: Moved) -> str:
        """SHA-256 of a source that was registered before. Raises as `source`."""
        return self._checksum(storage, _registered(storage, asset), moved)

    def source(self, storage: Storage, asset: str) -> Path | Pinned:
        """What was registered, to be read. Raises `source_changed` and `media_url_not_accessible`; of an object only
        the reads tell."""
        return self._opened(storage, _registered(storage, asset))

    def _found(self, storage: Storage, url: str) -> InPlace:
        """What lies there now."""
        path = local_file(url)
        if path is None:
            pinned = self.buckets.pinned(url)
            return InPlace(url=url, size=pinned.size, etag=pinned.etag)
        if not self.local:
            raise not_accessible(url, "no file of the workers' machines is a source here")
        check_foreign(storage, path, url)
        return InPlace(url=url, size=readable_size(path, url), etag=str(path.stat().st_mtime_ns))

    def _opened(self, storage: Storage, place: InPlace) -> Path | Pinned:
        path = local_file(place.url)
        if path is None:
            return self.buckets.pinned_before(place.url, size=place.size, etag=place.etag)
        if self._found(storage, place.url) != place:
            raise PipelineError("source_changed", url=public_url(place.url))
        return path.absolute()

    def _checksum(self, storage: Storage, place: InPlace, moved: Moved) -> str:
        digest = hashlib.sha256()
        source = self._opened(storage, place)
        for block in file_blocks(source) if isinstance(source, Path) else source.blocks():
            digest.update(block)
            moved()
        self._opened(storage, place)  # a file may have changed meanwhile
        return digest.hexdigest()


def _pin(storage: Storage, asset: str, found: InPlace, seen: StoredObject | None) -> None:
    """Put the pin in the place of the one that was seen. Raises `source_changed` where somebody pinned something else
    meanwhile."""
    body = json.dumps(asdict(found)).encode()
    try:
        storage.put(keys.place(asset), body, absent=seen is None, match=seen.etag if seen else None)
    except PreconditionFailed:
        if _registered(storage, asset) != found:
            raise PipelineError("source_changed", url=public_url(found.url)) from None


def _registered(storage: Storage, asset: str) -> InPlace:
    try:
        return InPlace(**json.loads(storage.get(keys.place(asset))))
    except ObjectNotFound:
        raise PipelineError("asset_not_ready", asset=asset, detail="where its source lies is not known") from None
