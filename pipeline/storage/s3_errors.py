"""The one border where the S3 client's errors become ours.

Only codes and names go on: a reply may quote what was signed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.errors import PipelineError
from pipeline.ports import ObjectNotFound, PreconditionFailed

CONFLICT = "ConditionalRequestConflict"
"""Amazon's answer where two conditional writes meet: neither was judged, the request is to be repeated."""

_GONE = {"NoSuchKey", "NotFound", "404"}
_FULL = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"}
# Refused now and next time, whatever the status says.
_REFUSED = {"NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "AccessDenied"}
# A bucket of another region; a header that the server will never know.
_REFUSED |= {"PermanentRedirect", "NotImplemented"}
# 4xx that pass: a resent completion whose upload is done, a slow or throttled request.
_PASSING = {"NoSuchUpload", "RequestTimeout", "SlowDown", "OperationAborted", CONFLICT}
# Cold storage classes: what a read says of them, and what a copy says.
_ARCHIVED = {"InvalidObjectState", "ObjectNotInActiveTierError"}


class NothingThere(Exception):
    """The range begins at or after the object's end."""


@contextmanager
def translated(key: str, *, conditional: bool = False) -> Iterator[None]:
    """Raise what the library knows in place of what the client raises. `key` is what the request was about."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
    )
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        raise _answer(key, conditional, error.response, error.operation_name) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise PipelineError("storage_forbidden", reason="there are no S3 credentials", log=str(error)) from error
    except ParamValidationError:
        raise  # a bug of ours; trying again would not mend it
    # urllib3's own come through where the body of an error breaks off.
    except (BotoCoreError, HTTPError) as error:
        raise PipelineError("storage_unavailable", reason=type(error).__name__, log=str(error)) from error
    except KeyError as error:
        raise PipelineError("storage_unavailable", reason=f"a reply without {error}: is this S3?") from error


def _answer(key: str, conditional: bool, response: Any, operation: str) -> Exception:
    """What an error reply means."""
    error, meta = response["Error"], response["ResponseMetadata"]
    code = str(error.get("Code", ""))
    if code in ("PreconditionFailed", "412"):
        failed = PreconditionFailed(key)
        failed.resent = meta.get("RetryAttempts", 0) > 0
        return failed
    if code in _GONE:  # Amazon's answer to If-Match where there is nothing
        return PreconditionFailed(key) if conditional else ObjectNotFound(key)
    if code == "InvalidRange":
        return NothingThere()
    if code in _ARCHIVED:
        storage_class = error.get("StorageClass") or response.get("StorageClass") or "not told"
        return PipelineError("source_archived", key=key, storage_class=str(storage_class), log=f"{operation}: {code}")
    return coded(code, meta.get("HTTPStatusCode", 0), operation)


def coded(code: str, status: int, operation: str) -> PipelineError:
    """The error of the catalogue for a code that says nothing of one object."""
    reason = f"{operation}: {code}"
    if code in _FULL or status == 507:
        return PipelineError("storage_full", where="the bucket", log=reason)
    passing = code in _PASSING or status in (408, 429) or status >= 500
    if code in _REFUSED or (400 <= status < 500 and not passing):
        return PipelineError("storage_forbidden", reason=reason)
    return PipelineError("storage_unavailable", reason=reason)
