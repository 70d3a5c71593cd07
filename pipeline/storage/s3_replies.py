"""What a reply of S3 says: whether its body is whole, when it was, in which order its keys are."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef, ListObjectsV2OutputTypeDef


def bare(etag: str) -> str:
    """An ETag without the quotation marks in which S3 answers it, or as somebody brings it again."""
    return etag.strip().strip('"')


def whole(reply: GetObjectOutputTypeDef) -> bytes:
    """The body, if all of it came. Raises the client's errors, and `KeyError` for what is no object of S3's."""
    from botocore.exceptions import IncompleteReadError

    with closing(reply["Body"]) as coming:
        _, body = reply["ETag"], coming.read()
    told = reply.get("ContentLength")
    # Chunks say themselves where they end; with neither, a body that broke off looks like a whole one.
    chunked = "transfer-encoding" in reply["ResponseMetadata"]["HTTPHeaders"]
    if told != len(body) and not (told is None and chunked):
        raise IncompleteReadError(actual_bytes=len(body), expected_bytes=told)
    return body


def refuse_half(operation_model: Any, response_dict: Any, **_: Any) -> None:
    """Before the client reads a reply: one that broke off on its way is a failure, which it tries again.

    The client takes it as it came else (it has urllib3 ignore the length), and a listing without a body is an empty
    listing: an asset with versions would look like one that was never published.
    """
    body, told = response_dict["body"], response_dict["headers"].get("content-length")
    if not isinstance(body, bytes) or told is None or operation_model.http["method"] == "HEAD":
        return
    if len(body) != int(told):
        response_dict["status_code"] = 500


def listing(page: ListObjectsV2OutputTypeDef) -> ListObjectsV2OutputTypeDef:
    """The page, if it is one: whatever else is XML would pass for an empty listing. Raises `KeyError`."""
    if "IsTruncated" not in page:
        raise KeyError("IsTruncated")
    return page


def ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def replied_ms(reply: Any) -> int:
    """The server's time, as each of its replies tells it in whole seconds; ours where it does not."""
    told = reply["ResponseMetadata"]["HTTPHeaders"].get("date")
    return ms(parsedate_to_datetime(told) if told else datetime.now(UTC))


def walks_folders(page: ListObjectsV2OutputTypeDef) -> bool:
    """SeaweedFS lists folder by folder (`a/b` before `a-b`), S3 and the port by whole keys.

    Its listings are sorted here, at some 500 bytes of memory an object; those of other servers pass as they come.
    """
    return page["ResponseMetadata"]["HTTPHeaders"].get("server", "").startswith("SeaweedFS")
