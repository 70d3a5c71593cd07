"""Proof of a storage: does this bucket or folder do what Reelway relies on, with the credentials that this process has?

Everything is tried with small objects below `private/doctor/`, which are removed again whatever happens. The steps
stand in the order in which they need each other; the first one that fails ends the proof.
"""

from __future__ import annotations

import os
import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.ports import ObjectNotFound, PreconditionFailed, Storage
from pipeline.storage import open_storage
from workers.finding import Finding

_BODY = b"reelway doctor was here\n"
_ORIGIN = "https://player.example"
_SLOW_S = 0.5
"""A median above it: a step that stores a hundred segments spends a minute in waiting."""
_TRIES = 5

_CONDITIONS = "use a server that keeps to If-None-Match and If-Match: without them two workers overwrite each other"
_PERMISSIONS = "allow s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket to these credentials"


class _Refuted(Exception):
    """The storage answered, and not what it must."""

    def __init__(self, detail: str, mend: str) -> None:
        self.detail = detail
        self.mend = mend
        super().__init__(detail)


def prove(url: str) -> Iterator[Finding]:
    """A finding a step. `url` as `open_storage` takes it; nothing but its scheme, host and path is shown."""
    try:
        storage = open_storage(url)
    except PipelineError as error:
        yield Finding(name="storage", state="missing", detail=error.message, mend=error.hint)
        return
    folder = keys.probe(secrets.token_hex(8))
    try:
        for name, step in _STEPS:
            finding = _tried(name, step, storage, folder)
            if finding is None:
                continue
            yield finding if name != "storage" or finding.state != "ok" else _reached(url, finding)
            if finding.state == "missing":
                return
    finally:
        with suppress(PipelineError):
            storage.delete(folder)


def _reached(url: str, finding: Finding) -> Finding:
    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}" if "://" in url else url
    return Finding(name=finding.name, state=finding.state, detail=f"{shown}: {finding.detail}")


def _tried(
    name: str, step: Callable[[Storage, str], Finding | str | None], storage: Storage, folder: str
) -> Finding | None:
    """What a step says: a text is a finding that is fine, None one that does not apply."""
    try:
        said = step(storage, folder)
    except _Refuted as refuted:
        return Finding(name=name, state="missing", detail=refuted.detail, mend=refuted.mend)
    except PipelineError as error:
        return Finding(name=name, state="missing", detail=error.message, mend=error.hint)
    except (ObjectNotFound, PreconditionFailed) as error:
        return Finding(name=name, state="missing", detail=f"{type(error).__name__}: {error}", mend=_PERMISSIONS)
    return Finding(name=name, state="ok", detail=said) if isinstance(said, str) else said


# -- the steps --------------------------------------------------------------------------------------------------------


def _reach(storage: Storage, folder: str) -> str:
    """Listing comes first: it is harmless, and some servers make a missing bucket when something is put into it."""
    next(iter(storage.list(folder)), None)
    return "answers"


def _read(storage: Storage, folder: str) -> str:
    storage.put(folder + "object", _BODY)
    stored = storage.stat(folder + "object")
    if storage.get(folder + "object") != _BODY or stored is None or stored.size != len(_BODY):
        raise _Refuted("what is read is not what was written", "look what stands between here and the storage")
    if storage.get(folder + "object", 8, 6) != _BODY[8:14]:
        raise _Refuted("a range of an object cannot be read", "use a server that knows Range")
    return "written, read, and read by range"


def _create(storage: Storage, folder: str) -> str:
    storage.put(folder + "once", _BODY, absent=True)
    try:
        storage.put(folder + "once", b"another", absent=True)
    except PreconditionFailed:
        return "a second creation is refused"
    raise _Refuted("an object that is there was created again", _CONDITIONS)


def _swap(storage: Storage, folder: str) -> str:
    seen = storage.put(folder + "door", b"one").etag
    storage.put(folder + "door", b"two", match=seen)
    try:
        storage.put(folder + "door", b"three", match=seen)
    except PreconditionFailed:
        return "a swap of what has changed is refused"
    raise _Refuted("an object was replaced although it had changed", _CONDITIONS)


def _list(storage: Storage, folder: str) -> str:
    found = [stored.key.removeprefix(folder) for stored in storage.list(folder)]
    if found != ["door", "object", "once"]:
        raise _Refuted("a listing lacks what was just written", "use a storage whose listings are consistent")
    return "complete, and in order"


def _link(storage: Storage, folder: str) -> Finding | str | None:
    """A folder creates by `link()`; where there are no hard links it takes a lock instead, as slow as it is safe."""
    path = storage.local_path(folder + "object")
    if path is None:
        return None
    try:
        os.link(path, path.with_name("linked"))
    except OSError as error:
        return Finding(
            name="storage: links",
            state="warning",
            detail=f"no hard links here ({os.strerror(error.errno or 0)})",
            mend="use a file system that has them, at best; writers take turns here",
        )
    return "objects are created by link"


def _presigned(storage: Storage, folder: str) -> str | None:
    if storage.local_path(folder + "object") is not None:
        return None
    if _fetch(storage.presign(folder + "object", 60))[0] != _BODY:
        raise _Refuted("a presigned URL answers something else", "look what stands between here and the storage")
    return "read without credentials"


def _cors(storage: Storage, folder: str) -> Finding | str | None:
    """Asked as a browser asks: credentials may be allowed to read a bucket, and not to read its CORS rules."""
    if storage.local_path(folder + "object") is not None:
        return None
    allowed = _fetch(storage.presign(folder + "object", 60), origin=_ORIGIN)[1]
    if allowed in ("*", _ORIGIN):
        return "players on other sites may read"
    return Finding(
        name="storage: CORS",
        state="warning",
        detail="players on other sites may not read from it",
        mend="allow GET and HEAD from your sites in the bucket's CORS rules, unless a CDN in front adds the header",
    )


def _uploads(storage: Storage, folder: str) -> Finding | str:
    try:
        storage.sweep_uploads(float(2**40), dry_run=True)
    except PipelineError as error:
        return Finding(
            name="storage: uploads",
            state="warning",
            detail=error.message,
            mend="allow s3:ListBucketMultipartUploads, or abort incomplete uploads by a lifecycle rule",
        )
    return "uploads that nobody completed can be found"


def _speed(storage: Storage, folder: str) -> Finding | str:
    puts = [_seconds(lambda: storage.put(folder + "object", _BODY)) for _ in range(_TRIES)]
    gets = [_seconds(lambda: storage.get(folder + "object")) for _ in range(_TRIES)]
    put_s, get_s = statistics.median(puts), statistics.median(gets)
    detail = f"a small object: {put_s * 1000:.0f} ms to write, {get_s * 1000:.0f} ms to read (median of {_TRIES})"
    if max(put_s, get_s) < _SLOW_S:
        return detail
    return Finding(
        name="storage: speed", state="warning", detail=detail, mend="run the workers in the region of the bucket"
    )


def _delete(storage: Storage, folder: str) -> str:
    storage.delete(folder)
    if next(iter(storage.list(folder)), None) is not None or storage.stat(folder + "object") is not None:
        raise _Refuted("what was deleted is still there", _PERMISSIONS)
    return "and nothing of this is left"


_STEPS: tuple[tuple[str, Callable[[Storage, str], Finding | str | None]], ...] = (
    ("storage", _reach),
    ("storage: read", _read),
    ("storage: create-only", _create),
    ("storage: swap", _swap),
    ("storage: list", _list),
    ("storage: links", _link),
    ("storage: presign", _presigned),
    ("storage: CORS", _cors),
    ("storage: uploads", _uploads),
    ("storage: speed", _speed),
    ("storage: delete", _delete),
)


def _fetch(url: str, *, origin: str | None = None) -> tuple[bytes, str | None]:
    """The body, and who may read it from another site. Nothing of the URL is told: it is a key to the object."""
    request = Request(url, headers={"Origin": origin} if origin else {})  # noqa: S310 - our own client made the URL
    mend = "check the endpoint in REELWAY_STORAGE_URL, the region, and this machine's clock"
    try:
        with urlopen(request, timeout=10) as reply:  # noqa: S310
            return reply.read(), reply.headers.get("Access-Control-Allow-Origin")
    except HTTPError as error:
        raise _Refuted(f"a presigned URL is answered with {error.code}", mend) from error
    except (URLError, OSError) as error:
        raise _Refuted(f"a presigned URL cannot be read ({type(error).__name__})", mend) from error


def _seconds(work: Callable[[], object]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin
