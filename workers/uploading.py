"""The other end of an upload: a file of this machine, brought part by part to the URLs that its start was answered.

It does what any program would do that has nothing but those URLs: a few parts at once, each tried again when the line
breaks, with a fresh URL when the old one has expired. What is there already is not sent again, so an interrupted upload
goes on where it was. Under which id it went on a small file on this machine remembers, by the identity of the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from pipeline.errors import PipelineError
from pipeline.storage.s3_replies import bare
from pipeline.upload_wire import PartSaid, UploadSaid

PARALLEL = 4
TRIES = 8
DOUBTS = 2
"""So many times a fresh URL is tried where the storage does not say whether another would do."""
LONGEST_PAUSE_S = 15.0
TIMEOUT_S = 60.0
_BLOCK = 1024**2

Ask = Callable[[], UploadSaid]
"""How the upload stands now, with fresh URLs."""
Sent = Callable[[int], None]
"""Called with the number of bytes that went on; a part that is sent again takes its bytes back."""


class _Refused(Exception):
    """The storage did not take the part. `expired`: with another URL it might; or the upload is gone, as the question
    for one tells."""

    def __init__(self, status: int) -> None:
        self.expired = status in (400, 401, 403, 404)
        self.doubtful = status == 400  # credentials that have expired, or a part that is never taken
        self.passing = status >= 500 or status in (408, 409, 425, 429)
        super().__init__(f"HTTP status {status}")


class _Stopped(Exception):
    """Another part failed for good."""


class Sender:
    """Brings the parts of one file."""

    def __init__(self, path: Path, ask: Ask, sent: Sent, *, parallel: int = PARALLEL) -> None:
        self.path = path
        self.ask = ask
        self.sent = sent
        self.parallel = parallel
        self._stopping = threading.Event()
        self._identity = identity(path)

    def send(self, upload: UploadSaid) -> Mapping[int, str]:
        """Bring every missing part. Returns the ETags of all.

        Raises `source_changed` where the file is not what it was, `storage_unavailable` where a part is refused again
        and again, and what `ask` raises.
        """
        offsets = _offsets(upload)
        etags = {part.part_number: part.etag for part in upload.parts if part.etag is not None}
        missing = [part for part in upload.parts if part.etag is None]
        with ThreadPoolExecutor(self.parallel, thread_name_prefix="part") as pool:
            under_way = {pool.submit(self._part, part, offsets[part.part_number]): part for part in missing}
            try:
                done, _ = wait(under_way, return_when=FIRST_EXCEPTION)
            finally:
                self._stopping.set()
                pool.shutdown(cancel_futures=True)
        errors = [each.exception() for each in done if not each.cancelled()]
        for error in sorted(filter(None, errors), key=lambda error: isinstance(error, _Stopped)):
            raise error
        if not self._is_unchanged():
            raise PipelineError("source_changed", url=self.path.name)
        return etags | {under_way[each].part_number: each.result() for each in done}

    def _part(self, part: PartSaid, offset: int) -> str:
        url, reason, doubts = part.upload_url or "", "", DOUBTS
        for pause_s in _pauses():
            if self._stopping.wait(pause_s):
                raise _Stopped
            body = _Slice(self.path, offset, part.size, self.sent, self._stopping)
            try:
                return _write(url, body) if url.startswith("file:") else _put(url, body)
            except _Refused as refused:
                reason = str(refused)
                doubts -= refused.doubtful
                if doubts < 0 or not (refused.expired or refused.passing):
                    break
                if refused.expired:
                    url = self._fresh(part.part_number) or url
            except (HTTPException, OSError) as error:  # no name, no line, no trust
                reason = type(error).__name__
                # A server that refuses a URL may hang up before it has read the bytes, and nobody hears why.
                url = self._fresh(part.part_number) or url
            finally:
                body.close()
            self.sent(-body.read_bytes)
        raise PipelineError("storage_unavailable", reason=f"part {part.part_number}: {reason}")

    def _fresh(self, number: int) -> str:
        """Another URL of the part; empty where it is there by now, or where nobody can be asked at this moment."""
        try:
            return next((part.upload_url or "" for part in self.ask().parts if part.part_number == number), "")
        except PipelineError as error:
            if not error.retryable:
                raise
            return ""

    def _is_unchanged(self) -> bool:
        with suppress(OSError):
            return identity(self.path) == self._identity
        return False


def _pauses() -> list[float]:
    return [0.0, *(min(0.5 * 2**number, LONGEST_PAUSE_S) for number in range(TRIES - 1))]


def _offsets(upload: UploadSaid) -> Mapping[int, int]:
    offsets, offset = {}, 0
    for part in upload.parts:
        offsets[part.part_number] = offset
        offset += part.size
    return offsets


class _Slice:
    """A part of a file, for reading. It ends early where the file does: the storage then misses the rest."""

    def __init__(self, path: Path, offset: int, size: int, sent: Sent, stopping: threading.Event) -> None:
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise PipelineError("source_changed", url=path.name, log=str(error)) from error
        self._file.seek(offset)
        self.size = size
        self.read_bytes = 0
        self._sent = sent
        self._stopping = stopping

    def read(self, size: int = -1) -> bytes:
        if self._stopping.is_set():
            raise _Stopped
        left = self.size - self.read_bytes
        block = self._file.read(left if size < 0 else min(size, left))
        self.read_bytes += len(block)
        self._sent(len(block))
        return block

    def close(self) -> None:
        self._file.close()


def _put(url: str, body: _Slice) -> str:
    """PUT the part; returns its ETag."""
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    with closing(kind(parts.netloc, timeout=TIMEOUT_S, blocksize=_BLOCK)) as connection:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request("PUT", target, body=body, headers={"Content-Length": str(body.size)})
        reply = connection.getresponse()
        reply.read()
        if reply.status != 200:
            raise _Refused(reply.status)
        return bare(reply.headers.get("ETag", ""))


def _write(url: str, body: _Slice) -> str:
    """Write the part into a folder, so that it appears at once; returns its ETag."""
    path = Path(unquote(urlsplit(url).path))
    digest = hashlib.md5(usedforsecurity=False)
    half = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with half.open("wb") as file:
            while block := body.read(_BLOCK):
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
    except OSError as error:
        raise PipelineError("storage_unavailable", reason=os.strerror(error.errno or 0), log=str(error)) from error
    finally:
        half.unlink(missing_ok=True)
    return digest.hexdigest()


# -- which upload it was ----------------------------------------------------------------------------------------------


def identity(path: Path) -> str:
    """What tells this file from another, and from itself when it was changed."""
    status = path.stat()
    text = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:24]


class Remembered:
    """The id of the upload of `path` to a storage with just this wish, kept on this machine until it is complete.

    Where nothing can be kept, nothing is: the id can be given again by hand.
    """

    def __init__(self, path: Path, storage_url: str, wish: Mapping[str, Any]) -> None:
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        meant = f"{identity(path)}\0{storage_url}\0{json.dumps(wish, sort_keys=True)}"
        name = hashlib.sha256(meant.encode()).hexdigest()[:24]
        self._file = Path(home) / "reelway" / "uploads" / name

    def recall(self) -> str | None:
        with suppress(OSError, UnicodeDecodeError):
            return self._file.read_text(encoding="ascii").strip() or None
        return None

    def keep(self, upload: str) -> None:
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(f"{upload}\n", encoding="ascii")

    def forget(self) -> None:
        with suppress(OSError):
            self._file.unlink()


# -- what is shown ----------------------------------------------------------------------------------------------------


class Line:
    """One line that says how far an upload is, written again and again; on what is no screen, nothing."""

    def __init__(self, write: Callable[[str], object], total: int, there: int) -> None:
        self._write = write
        self._total = total
        self._sent = there
        self._there = there
        self._begin = time.monotonic()
        self._said = 0.0
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        with self._lock:
            self._sent += count
            now = time.monotonic()
            if now - self._said < 0.2 and self._sent < self._total:
                return
            self._said = now
            rate = (self._sent - self._there) / max(now - self._begin, 0.001)
            self._write(f"\r{self._sent / self._total:6.1%}  {self._sent / 1e6:,.0f} MB  {rate / 1e6:,.1f} MB/s   ")
