"""Objects of buckets as sources: only of buckets that the fleet's owner has named.

A request names a bucket and a key, the fleet has the credentials: without a list, a stranger could read whatever the
workers can. The server too is the owner's to name; a request may repeat it, and nothing else, so that no signed request
goes anywhere but there. What we store ourselves is no source: it belongs to other assets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pipeline import keys
from pipeline.blocks import ranges
from pipeline.document import holds_secret, public_url
from pipeline.errors import PipelineError
from pipeline.ports import Moved, ObjectNotFound, PreconditionFailed
from pipeline.sizes import check_size
from pipeline.storage.s3_errors import translated

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_OPTIONS = {"endpoint", "region"}
_AREAS = (keys.PRIVATE, keys.PUBLIC)


def server(options: Mapping[str, str]) -> str | None:
    """The `endpoint` of a bucket's URL. Raises `ValueError`, which shows nothing of it: it may hold credentials.

    It is told to the whole fleet, and to whoever asks where that stores.
    """
    endpoint = options.get("endpoint")
    if endpoint is not None and (not endpoint.startswith(("http://", "https://")) or holds_secret(endpoint)):
        raise ValueError("the endpoint is https://host:port; credentials come from the environment")
    return endpoint


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
    shared: bool = False
    """Nobody named what of it may be read: what any fleet keeps there, below whatever prefix, is no source."""

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
            endpoint=server(options),
            region=options.get("region"),
        )

    def without(self, storage: Bucket) -> Bucket:
        """The same bucket without what a storage keeps there.

        Only its name tells which one it is: a server has many names (`localhost`, `127.0.0.1`), and none at Amazon.
        """
        if self.name != storage.name:
            return self
        return replace(self, closed=tuple(f"{storage.prefix}{area}/" for area in _AREAS))

    def holds(self, name: str, key: str, said: dict[str, str]) -> bool:
        """Whether a request that names this bucket, this key and these options means one of its objects.

        The region may be named, but only ours is used.
        """
        return (
            name == self.name
            and said.get("endpoint", self.endpoint) == self.endpoint
            and key.startswith(self.prefix)
            and not key.startswith(self.closed)
            and not (self.shared and set(_AREAS) & set(key.split("/")[:-1]))
        )

    def shown(self, key: str) -> str:
        """An object as it is named to the world."""
        return f"s3://{self.name}/{quote(key)}"

    def look(self, key: str) -> tuple[int, str]:
        """Size and etag of an object as it is now. Raises `media_url_not_accessible`, and what a storage raises."""
        shown = self.shown(key)
        try:
            with translated(shown):
                head = self.client.head_object(Bucket=self.name, Key=key)
        except ObjectNotFound:
            raise PipelineError("media_url_not_accessible", url=shown, reason="there is no such object") from None
        return head["ContentLength"], head["ETag"]

    @cached_property
    def client(self) -> S3Client:
        from pipeline.storage.s3 import connect

        return connect(endpoint=self.endpoint, region=self.region)


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """One object of a bucket, and one content of it: another one is never read in its place."""

    bucket: Bucket
    key: str
    size: int
    etag: str

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of it, as of `Storage.get`. Raises `source_changed`, `media_url_not_accessible` (it is gone),
        `source_archived`, and what a storage raises."""
        assert key == self.key, "it is this one object"
        last = (self.size if length is None else offset + length) - 1
        target = {"Bucket": self.bucket.name, "Key": key, "IfMatch": self.etag, "Range": f"bytes={offset}-{last}"}
        shown = self.bucket.shown(key)
        try:
            return _read(self.bucket.client, target, shown)
        except PreconditionFailed:
            self.bucket.look(key)  # which says so where it is gone
            raise PipelineError("source_changed", url=shown) from None

    def blocks(self) -> Iterator[bytes]:
        """All bytes of it, in order. Raises as `get`."""
        for offset, length in ranges(self.size):
            yield self.get(self.key, offset, length)


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """The buckets from which sources may come."""

    allowed: Sequence[Bucket] = field(default_factory=tuple)

    @classmethod
    def of(cls, text: str, storage_url: str) -> Buckets:
        """From `s3://one, s3://two/below?region=…`; from nothing: the bucket of the storage itself, if it is one, but
        for folders that are called as ours are: another fleet may store beside us.

        Raises `ValueError`.
        """
        storage = Bucket.of(storage_url) if storage_url.startswith("s3://") else None
        named = tuple(Bucket.of(word.strip()) for word in text.split(",") if word.strip())
        if storage is None:
            return cls(allowed=named)
        own = replace(storage, prefix="", shared=True)
        return cls(allowed=tuple(each.without(storage) for each in named or (own,)))

    def blocks(self, url: str, *, max_bytes: int | None, moved: Moved) -> Iterator[bytes]:
        """The bytes of the object that `url` names, in order; `moved` is called for each block.

        Raises `source_forbidden`, `media_url_not_accessible`, `media_url_file_broken` (empty),
        `media_filesize_too_large`, `source_changed`, and what a storage raises.
        """
        pinned = self.pinned(url)
        check_size(pinned.size, max_bytes)
        for block in pinned.blocks():
            yield block
            moved()

    def pinned(self, url: str) -> Pinned:
        """The object that `url` names, with the content that it has now.

        Raises `source_forbidden`, `media_url_not_accessible`, and what a storage raises.
        """
        bucket, key = self._object(url)
        size, etag = bucket.look(key)
        return Pinned(bucket=bucket, key=key, size=size, etag=etag)

    def pinned_before(self, url: str, *, size: int, etag: str) -> Pinned:
        """The object that `url` names, with the content that it had once. Raises `source_forbidden`."""
        bucket, key = self._object(url)
        return Pinned(bucket=bucket, key=key, size=size, etag=etag)

    def allow(self, url: str) -> bool:
        """Whether the object that `url` names may be a source."""
        try:
            self._object(url)
        except PipelineError:
            return False
        return True

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
