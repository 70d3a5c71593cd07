"""The storage on an S3 bucket, Amazon's or another server's.

Needs, on the bucket or on its part below the prefix: `s3:GetObject`, `s3:PutObject`, `s3:DeleteObject`,
`s3:AbortMultipartUpload`, `s3:ListBucketMultipartUploads` (for the janitor), `s3:ListMultipartUploadParts` (for what
others upload), and `s3:ListBucket` (without it a missing object looks like a forbidden one). The server must know
conditional writes: `If-None-Match: *` and `If-Match`, also when a multipart upload completes.

Objects up to 64 MiB are one request; larger files go in parts, four at a time, each read when its turn comes, so memory
stays at six parts whatever the size; so do blocks whose end nobody knows yet. Parts become an object in one conditional
step at the end, and are thrown away where that fails.

The client repeats a request that failed or was throttled; a body that broke off on its way is fetched again here, and
never passes for a whole one. The client also repeats a request whose reply was lost: a conditional write can then meet
its own first try. Such a `PreconditionFailed` says `resent`, and a caller who must know reads the object back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from pipeline.ports import Abandoned, Body, Moved, ObjectNotFound, PreconditionFailed, StoredObject, nobody_knows
from pipeline.storage.naming import cache_control, check_key, check_prefix, content_type
from pipeline.storage.s3_errors import CONFLICT, NothingThere, coded, translated
from pipeline.storage.s3_multipart import S3Multipart
from pipeline.storage.s3_replies import bare, listing, ms, refuse_half, replied_ms, walks_folders, whole
from pipeline.storage.unfinished import sweep

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import CompletedPartTypeDef, ListObjectsV2OutputTypeDef

Checksums = Literal["when_supported", "when_required"]
"""Whether requests carry a CRC32 wherever the client could, or only where S3 insists (some S3-alikes refuse it)."""

_SINGLE_BYTES = 64 * 1024**2
"""Up to here one request: fewer round trips than parts, and a retry still costs seconds."""
_PART_BYTES = 16 * 1024**2
_MAX_PARTS = 10_000
"""S3's limit; the parts of a larger file grow."""
_PARALLEL = 4
_BATCH = 1000
"""Keys that one DeleteObjects takes."""
_CONFLICT_TRIES = 5
_BODY_TRIES = 4
"""The client tries a request again, but not once the body is on its way."""


def connect(
    *,
    endpoint: str | None = None,
    region: str | None = None,
    checksums: Checksums = "when_supported",
) -> S3Client:
    """A client for `S3Storage`, with the credentials of the environment. Threads may share it; processes may not."""
    import boto3
    from botocore.config import Config

    config = Config(
        # With a custom endpoint the default would sign URLs with the withdrawn version 2.
        signature_version="s3v4",
        # Host names per bucket need DNS that own servers rarely have.
        s3={"addressing_style": "path"},
        retries={"mode": "standard", "total_max_attempts": 4},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=16,
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
    )
    # A session of its own: the default one is a global that remembers the first credentials it saw.
    client = boto3.session.Session().client("s3", endpoint_url=endpoint, region_name=region, config=config)
    client.meta.events.register_first("before-parse.s3", refuse_half)
    return client


class S3Storage:
    """Objects of `bucket` below `prefix` (which may be empty). Safe for threads."""

    def __init__(self, client: S3Client, bucket: str, prefix: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._base = check_key(prefix) + "/" if prefix else ""
        self.multipart = S3Multipart(client, bucket, self._base)

    def __repr__(self) -> str:
        return f"S3Storage('s3://{self._bucket}/{self._base}')"

    # -- the port -----------------------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        body: Body,
        *,
        absent: bool = False,
        match: str | None = None,
        moved: Moved | None = None,
    ) -> StoredObject:
        """See the port. Raises `OSError` where the file `body` cannot be read: that is the caller's file."""
        check_key(key)
        condition = _condition(absent, match)
        with _told(), translated(key, conditional=bool(condition)):
            if isinstance(body, bytes):
                reply, size = self._put_once(key, body, condition), len(body)
            elif isinstance(body, Path) and (size := body.stat().st_size) <= _SINGLE_BYTES:
                with body.open("rb") as file:
                    reply = self._put_once(key, _Watched(file, moved) if moved else file, condition)
            elif isinstance(body, Path):
                self._foresee(key, absent, match)
                reply = self._put_parts(key, _file_parts(body, size), condition, moved)
            else:
                self._foresee(key, absent, match)
                reply, size = self._put_blocks(key, body, condition, moved)
            return StoredObject(key=key, size=size, etag=bare(reply["ETag"]), modified_ms=replied_ms(reply))

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        name = self._name(key)
        if offset < 0 or (length is not None and length < 0):
            raise ValueError("offset and length count bytes from the start")
        if length == 0:  # S3 has no empty range
            return self._nothing(key)
        last = "" if length is None else offset + length - 1
        ranged: Any = {"Range": f"bytes={offset}-{last}"} if offset or length is not None else {}
        try:
            with translated(key):
                return read(self._client, {"Bucket": self._bucket, "Key": name, **ranged})
        except NothingThere:
            return b""

    def stat(self, key: str) -> StoredObject | None:
        name = self._name(key)
        try:
            with translated(key):
                head = self._client.head_object(Bucket=self._bucket, Key=name)
                etag, modified_ms = bare(head["ETag"]), ms(head["LastModified"])
        except ObjectNotFound:
            return None
        return StoredObject(key=key, size=head["ContentLength"], etag=etag, modified_ms=modified_ms)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        pages = self._pages(check_prefix(prefix))
        for page in pages:
            if walks_folders(page):
                rest = (stored for page in pages for stored in self._stored(page))
                yield from sorted((*self._stored(page), *rest), key=lambda stored: stored.key)
            else:
                yield from self._stored(page)

    def delete(self, prefix: str, *, moved: Moved | None = None) -> int:
        """See the port. Raises `ValueError` on an empty prefix: no wish to delete everything is ever meant."""
        if not prefix:
            raise ValueError("an empty prefix would delete everything")
        stored = self.list(prefix)
        count = 0
        while batch := [item.key for item in islice(stored, _BATCH)]:
            if moved is not None:
                moved()
            self._delete(batch)
            count += len(batch)
        return count

    def presign(self, key: str, expires_s: int) -> str:
        request = {"Bucket": self._bucket, "Key": self._name(key)}
        with translated(key):
            return self._client.generate_presigned_url("get_object", Params=request, ExpiresIn=expires_s)

    def sweep_uploads(self, older_than_s: float, *, abandoned: Abandoned = nobody_knows, dry_run: bool = False) -> int:
        """See the port. Only uploads to the areas that are ours: others may use the bucket as well."""
        return sweep(self.multipart, older_than_s, abandoned, dry_run=dry_run)

    def local_path(self, key: str) -> Path | None:
        check_key(key)
        return None

    # -- requests -----------------------------------------------------------------------------------------------------

    def _name(self, key: str) -> str:
        return self._base + check_key(key)

    def _put_once(self, key: str, body: Any, condition: Any) -> Any:
        target: Any = {"Bucket": self._bucket, "Key": self._name(key), **_headers(key)}
        tries = 0
        while True:
            try:
                return self._client.put_object(**target, Body=body, **condition)
            except self._client.exceptions.ClientError as error:
                tries += 1
                if tries == _CONFLICT_TRIES or error.response["Error"].get("Code") != CONFLICT:
                    raise
            if not isinstance(body, bytes):
                body.seek(0)

    def _foresee(self, key: str, absent: bool, match: str | None) -> None:
        """Refuse now what the completion would refuse after the whole file was sent. The completion still decides."""
        if absent or match is not None:
            stored = self.stat(key)
            if (absent and stored is not None) or (match is not None and (stored is None or stored.etag != match)):
                raise PreconditionFailed(key)

    def _put_blocks(self, key: str, blocks: Iterator[bytes], condition: Any, moved: Moved | None) -> tuple[Any, int]:
        """Store blocks as they come. Returns the reply and the size."""
        parts = _parts(blocks, _growing)
        first = next(parts, b"")
        if len(first) < _PART_BYTES:
            return self._put_once(key, first, condition), len(first)
        sizes: list[int] = []

        def counted() -> Iterator[bytes]:
            for part in chain((first,), parts):
                sizes.append(len(part))
                yield part

        return self._put_parts(key, counted(), condition, moved), sum(sizes)

    def _put_parts(self, key: str, parts: Iterator[bytes], condition: Any, moved: Moved | None) -> Any:
        target: Any = {"Bucket": self._bucket, "Key": self._name(key)}
        target["UploadId"] = self._client.create_multipart_upload(**target, **_headers(key))["UploadId"]
        try:
            sent: Any = {"Parts": self._send_parts(target, parts, moved)}
            return self._client.complete_multipart_upload(**target, MultipartUpload=sent, **condition)
        except BaseException:
            # Parts of an upload that nobody completes cost money and are in no listing.
            with suppress(Exception):
                self._client.abort_multipart_upload(**target)
            raise

    def _send_parts(self, target: Any, parts: Iterator[bytes], moved: Moved | None) -> Sequence[CompletedPartTypeDef]:
        def send(number: int, part: bytes) -> CompletedPartTypeDef:
            body: Any = _Watched(BytesIO(part), moved) if moved else part
            reply = self._client.upload_part(**target, PartNumber=number, Body=body)
            return {"PartNumber": number, "ETag": reply["ETag"]}

        sent: list[CompletedPartTypeDef] = []
        under_way: deque[Future[CompletedPartTypeDef]] = deque()
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="upload") as pool:
            for number, part in enumerate(parts, start=1):
                under_way.append(pool.submit(send, number, part))
                if len(under_way) == _PARALLEL:
                    sent.append(under_way.popleft().result())
            return [*sent, *(part.result() for part in under_way)]

    def _nothing(self, key: str) -> bytes:
        if self.stat(key) is None:
            raise ObjectNotFound(key)
        return b""

    def _pages(self, prefix: str) -> Iterator[ListObjectsV2OutputTypeDef]:
        pages = iter(
            self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._base + prefix)
        )
        while True:
            with translated(prefix):
                page = next(pages, None)
                if page is None:
                    return
                listing(page)
            yield page

    def _stored(self, page: ListObjectsV2OutputTypeDef) -> Iterator[StoredObject]:
        for item in page.get("Contents", ()):
            key = item["Key"].removeprefix(self._base)
            yield StoredObject(
                key=key, size=item["Size"], etag=bare(item["ETag"]), modified_ms=ms(item["LastModified"])
            )

    def _delete(self, names: Iterable[str]) -> None:
        objects: Any = [{"Key": self._name(key)} for key in names]
        with translated("delete"):
            reply = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
        if errors := reply.get("Errors"):
            raise coded(errors[0].get("Code", "?"), 0, "DeleteObjects")


def read(client: S3Client, request: Any) -> bytes:
    """The whole body of a GetObject. The client tries again what fails, but not once the body is on its way."""
    from botocore.exceptions import BotoCoreError

    for _ in range(_BODY_TRIES - 1):
        reply = client.get_object(**request)
        with suppress(BotoCoreError):
            return whole(reply)
    return whole(client.get_object(**request))


def _file_parts(path: Path, size: int) -> Iterator[bytes]:
    part_bytes = max(_PART_BYTES, -(-size // _MAX_PARTS))
    with path.open("rb") as file:
        yield from iter(lambda: file.read(part_bytes), b"")


def _growing(number: int) -> int:
    """Bytes of part `number` where nobody knows how many there will be: ten thousand of them hold 968 GiB."""
    return _PART_BYTES << ((number - 1) // 2000)


def _parts(blocks: Iterator[bytes], part_bytes: Callable[[int], int]) -> Iterator[bytes]:
    """The blocks, put together and cut to the size of each part."""
    held, number = bytearray(), 1
    for block in blocks:
        held += block
        while len(held) >= (size := part_bytes(number)):
            yield bytes(memoryview(held)[:size])
            del held[:size]
            number += 1
    if held:
        yield bytes(held)


class _Stopped(BaseException):
    """What `moved` raised. No `Exception`: the client would take that for a failure of the network, and send again."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__()


class _Watched:
    """A body that tells whenever some of it was read to be sent: one part alone can take minutes on a slow line."""

    def __init__(self, body: BinaryIO, moved: Moved) -> None:
        self._body = body
        self._moved = moved
        self.seek, self.tell = body.seek, body.tell

    def read(self, size: int = -1) -> bytes:
        try:
            self._moved()
        except BaseException as error:
            raise _Stopped(error) from error
        return self._body.read(size)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except _Stopped as stopped:
        raise stopped.error from None


def _condition(absent: bool, match: str | None) -> dict[str, str]:
    if absent and match is not None:
        raise ValueError("an object cannot be absent and match")
    if absent:
        return {"IfNoneMatch": "*"}
    return {} if match is None else {"IfMatch": f'"{match}"'}


def _headers(key: str) -> Any:
    return {"ContentType": content_type(key), "CacheControl": cache_control(key)}
