"""A source from the web, as blocks in order: every byte once, however often the connection breaks.

What a server says of itself is not believed: its length may be wrong, its body endless, its ranges others than asked,
its file another one after a break. A download goes on after a break only where the server has given the file a
version (a strong ETag, else a date) and keeps it; a file without one is begun anew by the next attempt of the step.
Nothing is unpacked: a body in a content coding is refused.

A live stream never ends, so it is refused as soon as it can be told from a file: a radio server says so (`icy-…`
headers, and no length), a camera sends picture after picture (`multipart/x-mixed-replace`), and what has not ended
within the time limit, of a length that nobody told, has no end. Before that, nothing tells such a stream from a file.
A playlist is short, and is judged by whoever opens it.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from http.client import HTTPResponse
from time import time

from pipeline.document import public_url
from pipeline.errors import PipelineError
from pipeline.exchange import get, live, reading, unavailable
from pipeline.guard import Guard, Place
from pipeline.pace import Pace
from pipeline.ports import Moved
from pipeline.sizes import check_size

_BLOCK = 1024**2
_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_REDIRECTS = 5
_PASSING = {408, 425, 429}
"""4xx that pass; so do all 5xx."""
_CODINGS = {"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress"}
_TRIES = 5
"""Breaks in a row between which nothing came."""
_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")


@dataclass(frozen=True, kw_only=True)
class Web:
    """How sources come from the web."""

    guard: Guard = field(default_factory=Guard)
    longest_s: float = 4 * 3600.0
    """A download may take so long."""
    rate: int = 1024
    """Bytes a second that must come at least …"""
    window_s: float = 30.0
    """… over so many seconds; the first byte may take as long."""
    pause_s: float = 0.5
    """Before going on after a break; twice as long with every break in which nothing came."""
    live: bool = False
    """A stream that says that it is live is taken until it ends, within the limits."""
    tls: ssl.SSLContext | None = None
    """Whom to trust; None: whom the system trusts."""

    def blocks(self, url: str, *, max_bytes: int | None, moved: Moved) -> Iterator[bytes]:
        """The bytes of `url`, in order. `moved` is called often; what it raises ends the download at once.

        Raises `source_forbidden`, `media_url_not_accessible`, `media_url_file_broken` (empty),
        `media_filesize_too_large`, `video_file_live`, `source_unavailable`, `source_changed`, `source_too_slow` and
        `timed_out`.
        """
        shown = public_url(url)
        with Pace(
            moved,
            rate=self.rate,
            window_s=self.window_s,
            longest_s=self.longest_s,
            slow=lambda: PipelineError(
                "source_too_slow", url=shown, minimum_rate=self.rate, seconds=round(self.window_s)
            ),
            long=lambda: PipelineError("timed_out", stage="ingest", seconds=round(self.longest_s)),
        ) as pace:
            download = _Download(web=self, url=url, max_bytes=max_bytes, pace=pace)
            try:
                yield from download.blocks()
            except PipelineError as error:
                if error.code != "timed_out" or self.live or not download.endless:
                    raise
                raise live(f"it has not ended after {round(self.longest_s)} s") from error


PUBLIC_WEB = Web()


@dataclass(kw_only=True)
class _Download:
    """One file under way."""

    web: Web
    url: str
    max_bytes: int | None
    pace: Pace
    received: int = 0
    total: int | None = None
    """Bytes of the whole file, as far as the server says."""
    version: str | None = None
    """What names the file as it is now, for `If-Range`."""

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """Made when it is needed: to read all whom a system trusts takes a while."""
        return self.web.tls or ssl.create_default_context()

    @property
    def endless(self) -> bool:
        """Bytes come, and nobody has said how many they are."""
        return self.received > 0 and self.total is None

    def blocks(self) -> Iterator[bytes]:
        tries = 0
        while True:
            before = self.received
            try:
                yield from self._rest()
                break
            except PipelineError as error:
                tries = 1 if self.received > before else tries + 1
                if error.code != "source_unavailable" or not self._may_go_on(tries):
                    raise
            self.pace.pause(self.web.pause_s * 2 ** (tries - 1))

    def _may_go_on(self, tries: int) -> bool:
        return self.version is not None and self.received > 0 and tries <= _TRIES

    def _rest(self) -> Iterator[bytes]:
        """What is not here yet. Raises `source_unavailable` where it breaks off."""
        with self._reply() as (place, reply):
            skipped = self._begins_at(place, reply)
            for block in self._body(place, reply, skipped):
                self.received += len(block)
                check_size(self.received, self.max_bytes)
                yield block
            if self.received == 0 and self.total is None and not reply.chunked:
                # A head that broke off looks like one that says nothing of the body.
                raise unavailable(place, "the connection broke off")
        check_size(self.received, self.max_bytes)

    # -- the reply ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _reply(self) -> Iterator[tuple[Place, HTTPResponse]]:
        """The reply at the end of the redirects."""
        place = self.web.guard.place(self.url)
        for _ in range(_MAX_REDIRECTS + 1):
            with get(place, self._headers(), tls=lambda: self.tls, pace=self.pace) as reply:
                location = reply.headers.get("Location")
                if reply.status not in _REDIRECTS or location is None:
                    yield place, reply
                    return
            place = self.web.guard.redirected(place, _as_utf8(location))
        raise self._refused(f"more than {_MAX_REDIRECTS} redirects")

    def _headers(self) -> Mapping[str, str]:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "reelway"}
        if self.received and self.version is not None:
            headers |= {"Range": f"bytes={self.received}-", "If-Range": self.version}
        return headers

    def _begins_at(self, place: Place, reply: HTTPResponse) -> int:
        """Check that this is our file; returns where its body begins: at most where we are."""
        self._check_status(place, reply)
        self._check_codings(reply)
        if reply.status == 206:
            first, total = self._range(reply)
        else:
            first, total = 0, _length(reply)
        if total is None and not self.web.live:
            _check_ends(reply)
        if self.received == 0:
            self.version, self.total = _version(reply), total
        elif not self._same(reply, total):
            raise self._changed()
        self.total = total if self.total is None else self.total
        if self.total is not None:
            check_size(self.total, self.max_bytes)
        return first

    def _check_status(self, place: Place, reply: HTTPResponse) -> None:
        status = reply.status
        if status in (200, 203) or (status == 206 and self.received):
            return
        if status == 416 and self.received:
            raise self._changed()
        if status in _PASSING or status >= 500:
            raise unavailable(place, f"HTTP {status}", status=status, retry_after_s=_retry_after_s(reply))
        raise self._refused(f"HTTP {status}", status=status)

    def _check_codings(self, reply: HTTPResponse) -> None:
        coding = (reply.headers.get("Content-Encoding") or "").strip().lower()
        if coding in _CODINGS:
            raise self._refused(f"its bytes are in the coding {coding}")
        transfer = (reply.headers.get("Transfer-Encoding") or "identity").strip().lower()
        if transfer not in ("identity", "chunked"):
            raise self._refused("its transfer coding is none that we know")

    def _range(self, reply: HTTPResponse) -> tuple[int, int | None]:
        """(first byte, size of the file) of a part that is just what was asked. Raises `source_changed`."""
        match = _RANGE.fullmatch((reply.headers.get("Content-Range") or "").strip())
        if match is None or int(match[1]) != self.received:
            raise self._changed()
        return self.received, None if match[3] == "*" else int(match[3])

    def _same(self, reply: HTTPResponse, total: int | None) -> bool:
        """Whether it is still the file that we have the beginning of. A part need not say so: we asked for that one."""
        version = _version(reply)
        if version is None and reply.status != 206:
            return False
        return version in (None, self.version) and (total is None or self.total in (None, total))

    # -- the body -----------------------------------------------------------------------------------------------------

    def _body(self, place: Place, reply: HTTPResponse, at: int) -> Iterator[bytes]:
        """The bytes from `received` on, of a body that begins at `at`."""
        while self.total is None or at < self.total:
            # Never more than is left: some versions would wait for it on a connection that stays open.
            size = _BLOCK if self.total is None else min(_BLOCK, self.total - at)
            with reading(place, self.pace):
                block = reply.read1(size)
            if not block:
                break
            self.pace.came(len(block))
            new = block[max(0, self.received - at) :]
            at += len(block)
            if new:
                yield new
        if self.total is not None and at != self.total:
            raise unavailable(place, f"the connection broke off after {at} of {self.total} bytes")

    # -- refusals -----------------------------------------------------------------------------------------------------

    def _refused(self, reason: str, *, status: int = 0) -> PipelineError:
        """`status`: of the reply; 0 where it is not the matter."""
        return PipelineError("media_url_not_accessible", url=public_url(self.url), reason=reason, status=status)

    def _changed(self) -> PipelineError:
        return PipelineError("source_changed", url=public_url(self.url))


def _check_ends(reply: HTTPResponse) -> None:
    """Raises `video_file_live` for a body without a length that says that it has no end."""
    said = [name.lower() for name in reply.headers]
    if any(name.startswith("icy-") for name in said):
        raise live("a radio server sends it")
    if reply.headers.get_content_type() == "multipart/x-mixed-replace":
        raise live("picture after picture, as cameras send them")


def _version(reply: HTTPResponse) -> str | None:
    """A validator that `If-Range` takes: a strong ETag, else the date of the last change (RFC 9110 §13.1.5)."""
    etag = (reply.headers.get("ETag") or "").strip()
    if etag.startswith('"') and len(etag) < 1024 and etag.isascii() and etag.isprintable():
        return etag
    date = (reply.headers.get("Last-Modified") or "").strip()
    return date if date and not etag and len(date) < 64 and date.isascii() and date.isprintable() else None


def _length(reply: HTTPResponse) -> int | None:
    """Of the body, where it is told and counts."""
    return None if reply.headers.get("Transfer-Encoding", "").strip().lower() == "chunked" else reply.length


def _retry_after_s(reply: HTTPResponse) -> int:
    """Seconds, from a number or a date (RFC 9110 §10.2.3); at most an hour, 0 where nothing is said."""
    said = (reply.headers.get("Retry-After") or "").strip()
    if said.isascii() and said.isdigit():
        return min(int(said[:9]), 3600)
    try:
        return max(0, min(round(parsedate_to_datetime(said).timestamp() - time()), 3600))
    except (TypeError, ValueError, OverflowError):
        return 0


def _as_utf8(header: str) -> str:
    """A header comes as Latin-1, and what servers write into it is UTF-8."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        return header
