"""Where objects lie: one port (`pipeline.ports.Storage`), a folder or an S3 bucket behind it, chosen by a URL.

    file:///srv/media                                 a folder (a plain path does as well)
    s3://bucket/prefix?endpoint=https://…&region=…    a bucket, or the part of it below `prefix`

Credentials never stand in the URL: S3 takes them from the usual AWS variables, files and roles.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from pipeline.errors import PipelineError
from pipeline.ports import Storage

_S3_OPTIONS = {"endpoint", "region", "checksums"}


def open_storage(url: str) -> Storage:
    """The storage that `url` names. Nothing is read or written yet.

    `s3://` knows three options: `endpoint` (the server, for S3 that is not Amazon's), `region`, and `checksums`
    (`when_supported`, the default, or `when_required` for servers that refuse CRC32 checksums).
    Raises `PipelineError("parameter_invalid")` where the URL cannot be understood.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # whose words may show a password
        raise _invalid("the storage is no whole URL") from None
    if parts.scheme == "s3":
        return _bucket(parts.netloc, parts.path.strip("/"), parts.query)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return _folder(unquote(parts.path))
    if "://" in url:
        # The URL itself stays out of the message: it might carry a password after all.
        raise _invalid(f"storage is file:// or s3://, not {parts.scheme}://{parts.hostname or ''}")
    return _folder(url)


def _folder(path: str) -> Storage:
    from pipeline.storage.folder import FolderStorage

    if not path:
        raise _invalid("the storage has no path")
    return FolderStorage(Path(path))


def _bucket(bucket: str, prefix: str, query: str) -> Storage:
    from pipeline.storage.buckets import server
    from pipeline.storage.s3 import Checksums, S3Storage, connect

    options = dict(parse_qsl(query, keep_blank_values=True))
    if not bucket or "@" in bucket:
        raise _invalid("an S3 storage is s3://bucket/prefix; credentials come from the environment")
    if unknown := sorted(set(options) - _S3_OPTIONS):
        raise _invalid(f"an S3 storage has no option {unknown[0]}")
    checksums = options.get("checksums", "when_supported")
    if checksums not in get_args(Checksums):
        raise _invalid(f"checksums is one of {', '.join(get_args(Checksums))}")
    try:
        client = connect(endpoint=server(options), region=options.get("region"), checksums=cast(Checksums, checksums))
        return S3Storage(client, bucket, prefix)
    except ValueError as error:  # an endpoint that is no URL, a prefix that is no key
        raise _invalid(str(error)) from error


def _invalid(detail: str) -> PipelineError:
    return PipelineError("parameter_invalid", detail=detail)
