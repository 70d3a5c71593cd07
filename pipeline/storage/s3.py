"""The storage on an S3 bucket, Amazon's or another server's.

Needs, on the bucket or on its part below the prefix: `s3:GetObject`, `s3:PutObject`, `s3:DeleteObject`,
`s3:AbortMultipartUpload`, and `s3:ListBucket` (without it a missing object looks like a forbidden one). The server must
know conditional writes: `If-None-Match: *` and `If-Match`, also when a multipart upload completes.

Objects up to 64 MiB are one request; larger files go in parts, four at a time, each read when its turn comes, so memory
stays at four parts whatever the size. Parts become an object in one conditional step at the end, and are thrown away
where that fails.

The client repeats a request whose reply was lost. A conditional write can then meet its own first try: such a
`PreconditionFailed` says `resent`, and a caller who must know reads the object back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from pipeline.errors import PipelineError
from pipeline.ports import Moved, ObjectNotFound, PreconditionFailed, StoredObject
from pipeline.storage.naming import cache_control, check_key, check_prefix, content_type

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
_CONFLICT = "ConditionalRequestConflict"
"""Amazon's answer where two conditional writes meet: neither was judged, the request is to be repeated."""
_CONFLICT_TRIES = 5


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
    return boto3.session.Session().client("s3", endpoint_url=endpoint, region_name=region, config=config)


class S3Storage:
    """Objects of `bucket` below `prefix` (which may be empty). Safe for threads."""

    def __init__(self, client: S3Client, bucket: str, prefix: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._base = check_key(prefix) + "/" if prefix else ""

    def __repr__(self) -> str:
        return f"S3Storage('s3://{self._bucket}/{self._base}')"

    # -- the port -----------------------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        body: bytes | Path,
        *,
        absent: bool = False,
        match: str | None = None,
        moved: Moved | None = None,
    ) -> StoredObject:
        """See the port. Raises `OSError` where the file `body` cannot be read: that is the caller's file."""
        check_key(key)
        condition = _condition(absent, match)
        size = body.stat().st_size if isinstance(body, Path) else len(body)
        with _told(), _translated(key, conditional=bool(condition)):
            if isinstance(body, bytes):
                etag = self._put_once(key, body, condition)
            elif size <= _SINGLE_BYTES:
                with body.open("rb") as file:
                    etag = self._put_once(key, _Watched(file, moved) if moved else file, condition)
            else:
                self._foresee(key, absent, match)
                etag = self._put_parts(key, body, size, condition, moved)
        return StoredObject(key=key, size=size, etag=etag)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        name = self._name(key)
        if offset < 0 or (length is not None and length < 0):
            raise ValueError("offset and length count bytes from the start")
        if length == 0:  # S3 has no empty range
            return self._nothing(key)
        last = "" if length is None else offset + length - 1
        ranged: Any = {"Range": f"bytes={offset}-{last}"} if offset or length is not None else {}
        try:
            with _translated(key):
                return self._client.get_object(Bucket=self._bucket, Key=name, **ranged)["Body"].read()
        except _NothingThere:
            return b""

    def stat(self, key: str) -> StoredObject | None:
        name = self._name(key)
        try:
            with _translated(key):
                head = self._client.head_object(Bucket=self._bucket, Key=name)
        except ObjectNotFound:
            return None
        return StoredObject(key=key, size=head["ContentLength"], etag=_bare(head["ETag"]))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        pages = self._pages(check_prefix(prefix))
        for page in pages:
            if _walks_folders(page):
                rest = (stored for page in pages for stored in self._stored(page))
                yield from sorted((*self._stored(page), *rest), key=lambda stored: stored.key)
            else:
                yield from self._stored(page)

    def delete(self, prefix: str) -> int:
        """See the port. Raises `ValueError` on an empty prefix: no wish to delete everything is ever meant."""
        if not prefix:
            raise ValueError("an empty prefix would delete everything")
        stored = self.list(prefix)
        count = 0
        while batch := [item.key for item in islice(stored, _BATCH)]:
            self._delete(batch)
            count += len(batch)
        return count

    def presign(self, key: str, expires_s: int) -> str:
        request = {"Bucket": self._bucket, "Key": self._name(key)}
        with _translated(key):
            return self._client.generate_presigned_url("get_object", Params=request, ExpiresIn=expires_s)

    def local_path(self, key: str) -> Path | None:
        check_key(key)
        return None

    # -- requests -----------------------------------------------------------------------------------------------------

    def _name(self, key: str) -> str:
        return self._base + check_key(key)

    def _put_once(self, key: str, body: Any, condition: Any) -> str:
        target: Any = {"Bucket": self._bucket, "Key": self._name(key), **_headers(key)}
        tries = 0
        while True:
            try:
                return _bare(self._client.put_object(**target, Body=body, **condition)["ETag"])
            except self._client.exceptions.ClientError as error:
                tries += 1
                if tries == _CONFLICT_TRIES or error.response["Error"].get("Code") != _CONFLICT:
                    raise
            if not isinstance(body, bytes):
                body.seek(0)

    def _foresee(self, key: str, absent: bool, match: str | None) -> None:
        """Refuse now what the completion would refuse after the whole file was sent. The completion still decides."""
        if absent or match is not None:
            stored = self.stat(key)
            if (absent and stored is not None) or (match is not None and (stored is None or stored.etag != match)):
                raise PreconditionFailed(key)

    def _put_parts(self, key: str, path: Path, size: int, condition: Any, moved: Moved | None) -> str:
        target: Any = {"Bucket": self._bucket, "Key": self._name(key)}
        target["UploadId"] = self._client.create_multipart_upload(**target, **_headers(key))["UploadId"]
        try:
            parts: Any = {"Parts": self._send_parts(target, path, size, moved)}
            return _bare(self._client.complete_multipart_upload(**target, MultipartUpload=parts, **condition)["ETag"])
        except BaseException:
            # Parts of an upload that nobody completes cost money and are in no listing.
            with suppress(Exception):
                self._client.abort_multipart_upload(**target)
            raise

    def _send_parts(self, target: Any, path: Path, size: int, moved: Moved | None) -> Sequence[CompletedPartTypeDef]:
        part_bytes = max(_PART_BYTES, -(-size // _MAX_PARTS))

        def send(number: int) -> CompletedPartTypeDef:
            with path.open("rb") as file:
                file.seek((number - 1) * part_bytes)
                block = file.read(part_bytes)
            body: Any = _Watched(BytesIO(block), moved) if moved else block
            reply = self._client.upload_part(**target, PartNumber=number, Body=body)
            return {"PartNumber": number, "ETag": reply["ETag"]}

        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="upload") as pool:
            return list(pool.map(send, range(1, -(-size // part_bytes) + 1)))

    def _nothing(self, key: str) -> bytes:
        if self.stat(key) is None:
            raise ObjectNotFound(key)
        return b""

    def _pages(self, prefix: str) -> Iterator[ListObjectsV2OutputTypeDef]:
        pages = iter(
            self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._base + prefix)
        )
        while True:
            with _translated(prefix):
                page = next(pages, None)
            if page is None:
                return
            yield page

    def _stored(self, page: ListObjectsV2OutputTypeDef) -> Iterator[StoredObject]:
        for item in page.get("Contents", ()):
            key = item["Key"].removeprefix(self._base)
            yield StoredObject(key=key, size=item["Size"], etag=_bare(item["ETag"]))

    def _delete(self, keys: Iterable[str]) -> None:
        objects: Any = [{"Key": self._name(key)} for key in keys]
        with _translated("delete"):
            reply = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
        if errors := reply.get("Errors"):
            raise _error(errors[0].get("Code", "?"), 0, "DeleteObjects")


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


def _bare(etag: str) -> str:
    return etag.strip('"')


def _walks_folders(page: ListObjectsV2OutputTypeDef) -> bool:
    """SeaweedFS lists folder by folder (`a/b` before `a-b`), S3 and the port by whole keys.

    Its listings are sorted here, at some 500 bytes of memory an object; those of other servers pass as they come.
    """
    return page["ResponseMetadata"]["HTTPHeaders"].get("server", "").startswith("SeaweedFS")


# -- errors: the one border where the client's become ours ------------------------------------------------------------


class _NothingThere(Exception):
    """The range begins at or after the object's end."""


_GONE = {"NoSuchKey", "NotFound", "404"}
_FULL = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"}
# Refused now and next time, whatever the status says.
_REFUSED = {"NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "AccessDenied"}
# 4xx that pass: a resent completion whose upload is done, a slow or throttled request.
_PASSING = {"NoSuchUpload", "RequestTimeout", "SlowDown", "OperationAborted", _CONFLICT}


@contextmanager
def _translated(key: str, *, conditional: bool = False) -> Iterator[None]:
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
    )

    try:
        yield
    except ClientError as error:
        raise _answer(key, conditional, error.response, error.operation_name) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise PipelineError("storage_forbidden", reason="there are no S3 credentials", log=str(error)) from error
    except ParamValidationError:
        raise  # a bug of ours; trying again would not mend it
    except BotoCoreError as error:
        raise PipelineError("storage_unavailable", reason=type(error).__name__, log=str(error)) from error


def _answer(key: str, conditional: bool, response: Any, operation: str) -> Exception:
    """What an error reply means. Only codes and names go on: a reply may quote what was signed."""
    code, meta = str(response["Error"].get("Code", "")), response["ResponseMetadata"]
    if code in ("PreconditionFailed", "412"):
        failed = PreconditionFailed(key)
        failed.resent = meta.get("RetryAttempts", 0) > 0
        return failed
    if code in _GONE:  # Amazon's answer to If-Match where there is nothing
        return PreconditionFailed(key) if conditional else ObjectNotFound(key)
    if code == "InvalidRange":
        return _NothingThere()
    return _error(code, meta.get("HTTPStatusCode", 0), operation)


def _error(code: str, status: int, operation: str) -> PipelineError:
    reason = f"{operation}: {code}"
    if code in _FULL or status == 507:
        return PipelineError("storage_full", where="the bucket", log=reason)
    passing = code in _PASSING or status in (408, 429) or status >= 500
    if code in _REFUSED or (400 <= status < 500 and not passing):
        return PipelineError("storage_forbidden", reason=reason)
    return PipelineError("storage_unavailable", reason=reason)
