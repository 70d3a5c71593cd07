"""Objects that others bring to a bucket in parts: S3's multipart upload, with a presigned URL for each part.

The object carries the name of its upload as metadata, which it gets in the same moment as its bytes. So whoever asks
for the completion again, after a lost reply or a crash, can tell the object that came of it from any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pipeline import keys
from pipeline.ports import Begun, ObjectNotFound, PreconditionFailed, StoredObject, StoredPart
from pipeline.storage.naming import cache_control, check_key, content_type
from pipeline.storage.s3_errors import CONFLICT, translated
from pipeline.storage.s3_replies import bare, ms, replied_ms

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_NAME = "reelway-upload"
"""Metadata of the object."""
_GONE = {"NoSuchUpload", "InvalidPart"}
_MET = {"PreconditionFailed", "412", "NoSuchUpload", CONFLICT}
"""Answers to a completion that may have met its own first try, or another's."""


class S3Multipart:
    """See the port. `base` is the part of the bucket that is ours: empty, or with a slash at its end."""

    def __init__(self, client: S3Client, bucket: str, base: str) -> None:
        self._client = client
        self._bucket = bucket
        self._base = base

    def begin(self, key: str, name: str) -> str:
        headers: Any = {"ContentType": content_type(key), "CacheControl": cache_control(key), "Metadata": {_NAME: name}}
        with translated(key):
            return self._client.create_multipart_upload(**self._object(key), **headers)["UploadId"]

    def url(self, key: str, handle: str, number: int, size: int, expires_s: int) -> str:
        """See the port. The length is signed with the rest: a body of another one is refused before it is read."""
        request = {**self._upload(key, handle), "PartNumber": number, "ContentLength": size}
        with translated(key):
            return self._client.generate_presigned_url("upload_part", Params=request, ExpiresIn=expires_s)

    def parts(self, key: str, handle: str, number: int | None = None) -> Iterator[StoredPart]:
        """See the port. SeaweedFS lists a part that was sent twice twice, by their etags, and takes either; also where
        both are the same."""
        after = 0 if number is None else number - 1
        found: dict[StoredPart, int] = {}
        while True:
            page = self._page(key, handle, after, few=number is not None)
            for part in page.get("Parts", ()):
                stored = StoredPart(number=part["PartNumber"], size=part["Size"], etag=bare(part["ETag"]))
                if number in (None, stored.number):
                    found[stored] = max(found.get(stored, 0), ms(part["LastModified"]))
            if number is not None or not page["IsTruncated"]:
                break
            after = page["NextPartNumberMarker"]
        yield from sorted(found, key=lambda stored: (stored.number, found[stored]))

    def complete(self, key: str, handle: str, name: str, parts: Sequence[StoredPart]) -> StoredObject:
        chosen: Any = {"Parts": [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]}
        try:
            with translated(key):
                reply = self._client.complete_multipart_upload(
                    **self._upload(key, handle), MultipartUpload=chosen, IfNoneMatch="*"
                )
        except Exception as error:
            made = self.completed(key, handle, name) if _code(error) in _MET else None
            if made is None:
                raise self._why(key, error) from error
            return made
        size = sum(part.size for part in parts)
        return StoredObject(key=key, size=size, etag=bare(reply["ETag"]), modified_ms=replied_ms(reply))

    def completed(self, key: str, handle: str, name: str) -> StoredObject | None:
        with suppress(ObjectNotFound), translated(key):
            head = self._client.head_object(**self._object(key))
            if head.get("Metadata", {}).get(_NAME) == name:
                return StoredObject(
                    key=key, size=head["ContentLength"], etag=bare(head["ETag"]), modified_ms=ms(head["LastModified"])
                )
        return None

    def abort(self, key: str, handle: str) -> None:
        with translated(key), suppress(self._client.exceptions.NoSuchUpload):  # it was completed meanwhile
            self._client.abort_multipart_upload(**self._upload(key, handle))

    def begun(self) -> Iterator[Begun]:
        for area in (keys.PRIVATE, keys.PUBLIC):
            yield from self._begun(f"{self._base}{area}/")

    # -- requests -----------------------------------------------------------------------------------------------------

    def _object(self, key: str) -> Any:
        return {"Bucket": self._bucket, "Key": self._base + check_key(key)}

    def _upload(self, key: str, handle: str) -> Any:
        return {**self._object(key), "UploadId": handle}

    def _page(self, key: str, handle: str, after: int, *, few: bool) -> Any:
        more: Any = {"MaxParts": 10} if few else {}
        try:
            with translated(key):
                return self._client.list_parts(**self._upload(key, handle), PartNumberMarker=after, **more)
        except Exception as error:
            raise self._why(key, error) from error

    def _begun(self, prefix: str) -> Iterator[Begun]:
        after: Any = {}
        while after is not None:
            with translated(prefix):
                page = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=prefix, **after)
                found = [
                    Begun(
                        key=upload["Key"].removeprefix(self._base),
                        handle=upload["UploadId"],
                        age_s=(replied_ms(page) - ms(upload["Initiated"])) / 1000,
                    )
                    for upload in page.get("Uploads", ())
                ]
                marker = page.get("NextKeyMarker") if page["IsTruncated"] else None
                after = {"KeyMarker": marker, "UploadIdMarker": page["NextUploadIdMarker"]} if marker else None
            yield from found

    def _why(self, key: str, error: Exception) -> Exception:
        """What is gone here is gone for good, while the table of all requests takes it for something that passes."""
        if _code(error) in _GONE:
            return ObjectNotFound(key)
        return error if _code(error) != "PreconditionFailed" else PreconditionFailed(key)


def _code(error: BaseException) -> str:
    """What the server answered, if it answered."""
    from botocore.exceptions import ClientError

    cause = error if isinstance(error, ClientError) else error.__cause__
    return str(cause.response["Error"].get("Code", "")) if isinstance(cause, ClientError) else ""
