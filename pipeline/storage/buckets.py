"""Objects of buckets as sources: only of buckets that the fleet's owner has named.

A request names a bucket and a key, the fleet has the credentials: without a list, a stranger could read whatever the
workers can. The server too is the owner's to name; a request may repeat it, and nothing else, so that no signed request
goes anywhere but there. What we store ourselves is no source: it belongs to other assets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pipeline import keys
from pipeline.document import public_url
from pipeline.errors import PipelineError
from pipeline.ports import Moved, ObjectNotFound, PreconditionFailed
from pipeline.storage.s3_errors import translated

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_BLOCK = 8 * 1024**2
_OPTIONS = {"endpoint", "region"}
_OURS = (f"{keys.PRIVATE}/", f"{keys.PUBLIC}/")


@dataclass(frozen=True)
class Bucket:
    """A bucket, or the part of it below a prefix, from which sources may come."""

    name: str
    prefix: str = ""
    """Its keys begin so; `""` or with a slash at the end."""
    endpoint: str | None = None
    region: str | None = None
    closed: tuple[str, ...] = ()
    """Keys that begin so are no sources."""

    @classmethod
    def of(cls, url: str) -> Bucket:
        """From `s3://bucket/prefix?endpoint=…&region=…`. Raises `ValueError`."""
        parts = urlsplit(url)
        prefix = unquote(parts.path).strip("/")
        options = dict(parse_qsl(parts.query))
        if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc:
            raise ValueError("a bucket is s3://bucket/prefix?endpoint=…&region=…")
        return cls(
            name=parts.netloc,
            prefix=f"{prefix}/" if prefix else "",
            endpoint=options.get("endpoint"),
            region=options.get("region"),
        )

    def closed_below(self, prefix: str) -> Bucket:
        """The same bucket without what a storage keeps below `prefix`."""
        return Bucket(self.name, "", self.endpoint, self.region, tuple(prefix + area for area in _OURS))

    def holds(self, name: str, key: str, said: dict[str, str]) -> bool:
        """Whether a request that names this bucket, this key and these options means one of its objects.

        The region may be named, but only ours is used.
        """
        return (
            name == self.name
            and said.get("endpoint", self.endpoint) == self.endpoint
            and key.startswith(self.prefix)
            and not key.startswith(self.closed)
        )

    @cached_property
    def client(self) -> S3Client:
        from pipeline.storage.s3 import connect

        return connect(endpoint=self.endpoint, region=self.region)


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """The buckets from which sources may come."""

    allowed: Sequence[Bucket] = field(default_factory=tuple)

    @classmethod
    def of(cls, text: str, storage_url: str) -> Buckets:
        """From `s3://one, s3://two/below?region=…`; from nothing: the bucket of the storage itself, if it is one.

        Raises `ValueError`.
        """
        storage = Bucket.of(storage_url) if storage_url.startswith("s3://") else None
        named = tuple(Bucket.of(word.strip()) for word in text.split(",") if word.strip())
        if storage is None:
            return cls(allowed=named)
        own = storage.closed_below(storage.prefix)
        closed = tuple(
            Bucket(each.name, each.prefix, each.endpoint, each.region, own.closed)
            if (each.name, each.endpoint) == (storage.name, storage.endpoint)
            else each
            for each in named
        )
        return cls(allowed=closed or (own,))

    def blocks(self, url: str, *, max_bytes: int | None, moved: Moved) -> Iterator[bytes]:
        """The bytes of the object that `url` names, in order; `moved` is called for each block.

        Raises `source_forbidden`, `media_url_not_accessible`, `media_url_file_broken` (empty),
        `media_filesize_too_large`, `source_changed`, and what a storage raises.
        """
        bucket, key = self._object(url)
        shown = public_url(url)
        target: Any = {"Bucket": bucket.name, "Key": key}
        try:
            with translated(shown):
                head = bucket.client.head_object(**target)
            size = head["ContentLength"]
            if size == 0:
                raise PipelineError("media_url_file_broken")
            if max_bytes is not None and size > max_bytes:
                raise PipelineError("media_filesize_too_large", current_size=size, maximum_size=max_bytes)
            for offset in range(0, size, _BLOCK):
                last = min(offset + _BLOCK, size) - 1
                yield _read(
                    bucket.client, {**target, "IfMatch": head["ETag"], "Range": f"bytes={offset}-{last}"}, shown
                )
                moved()
        except ObjectNotFound:
            raise PipelineError("media_url_not_accessible", url=shown, reason="there is no such object") from None
        except PreconditionFailed:
            raise PipelineError("source_changed", url=shown) from None

    def _object(self, url: str) -> tuple[Bucket, str]:
        try:
            parts = urlsplit(url)
            said = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        except ValueError:
            raise _forbidden(url, "it is not a whole URL") from None
        key = unquote(parts.path).removeprefix("/")
        if not key or parts.fragment or not said.keys() <= _OPTIONS or not _plain(key):
            raise _forbidden(url, "it is not s3://bucket/key?endpoint=…&region=…")
        for bucket in self.allowed:
            if bucket.holds(parts.netloc, key, said):
                return bucket, key
        raise _forbidden(url, "no source may come from there")


NO_BUCKETS = Buckets()


def _plain(key: str) -> bool:
    """No server can read the key as another one: `a/../b` or `a//b` is `b` or `a/b` to some."""
    return not {"", ".", ".."} & set(key.split("/")) and "\\" not in key and key.isprintable()


def _read(client: S3Client, request: Any, shown: str) -> bytes:
    from pipeline.storage.s3 import read

    with translated(shown, conditional=True):
        return read(client, request)


def _forbidden(url: str, reason: str) -> PipelineError:
    return PipelineError("source_forbidden", url=public_url(url), reason=reason)
