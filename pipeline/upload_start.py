"""The beginning of an upload: what is asked for is looked at before anything is sent, and its parts are drawn.

Nothing is stored here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pipeline import keys
from pipeline.attachments import KINDS
from pipeline.conductor import refusal
from pipeline.doorman import Doorman
from pipeline.errors import PipelineError
from pipeline.ports import Clock
from pipeline.requests import ProcessRequest, new_asset_id, new_upload_id
from pipeline.sizes import check_size
from pipeline.upload_record import Upload
from pipeline.upload_wire import StartUpload

MIB = 1024**2
KEEP_S = 3 * 86_400.0
URL_S = 3600
_PART_BYTES = 16 * MIB
"""S3's smallest is 5 MiB; a part is what is sent again after a break."""
_MANY = 1000
"""Parts grow before there are more of them: an answer names each with its URL."""
_LARGE_BYTES = 512 * MIB
_MOST = 10_000
"""S3's limit."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What holds for every upload."""

    keep_s: float = KEEP_S
    """One that is not complete after so long goes with its parts."""
    url_s: int = URL_S
    """How long the URL of a part is good."""


USUAL = Terms()


class Opening:
    """Makes a record of what is asked for; `doorman` foresees what becomes of it."""

    def __init__(self, doorman: Doorman, clock: Clock, terms: Terms) -> None:
        self.doorman = doorman
        self.clock = clock
        self.terms = terms

    def upload(self, said: StartUpload | Mapping[str, Any]) -> Upload:
        """The upload that is asked for, without a handle yet. Raises what `Uploads.start` raises."""
        wish = _checked(said)
        return self._related(wish) if wish.relationship or wish.parent_asset_id else self._source(wish)

    def _source(self, wish: StartUpload) -> Upload:
        """An upload that becomes an asset."""
        asset = str(wish.process.get("asset_id") or new_asset_id())
        id_ = new_upload_id(asset)
        request = _request(wish, asset, id_)
        limits = self.doorman.foresee(request)
        check_size(wish.file_size, limits.max_bytes)
        if next(iter(self.doorman.storage.list(keys.sources(asset))), None) is not None:
            raise PipelineError("asset_exists", asset=asset)
        said = request.model_dump(mode="json", exclude_defaults=True)
        return self._new(wish, asset, id_, keys.source(asset, wish.file_name)).model_copy(update={"request": said})

    def _related(self, wish: StartUpload) -> Upload:
        """An upload that belongs to an asset which is there."""
        if wish.relationship is None or wish.parent_asset_id is None:
            raise PipelineError("parameter_invalid", detail="parentAssetId and relationship need each other")
        if wish.process:
            detail = f"{next(iter(wish.process))} means nothing for a {wish.relationship}"
            raise PipelineError("parameter_invalid", detail=detail)
        kind = KINDS[wish.relationship]
        suffix = kind.suffixes.get(wish.file_name.rpartition(".")[2].lower())
        if suffix is None:
            raise PipelineError("upload_wrong_format", relationship=wish.relationship, supported_formats=kind.formats)
        check_size(wish.file_size, kind.max_bytes)
        self.doorman.check_present(wish.parent_asset_id)
        id_ = new_upload_id(wish.parent_asset_id)
        return self._new(wish, wish.parent_asset_id, id_, keys.related(wish.parent_asset_id, id_, suffix))

    def _new(self, wish: StartUpload, asset: str, id_: str, key: str) -> Upload:
        now = self.clock.now_ms()
        return Upload(
            id=id_,
            asset=asset,
            organization=wish.organization,
            key=key,
            handle="",
            file_name=wish.file_name,
            file_size=wish.file_size,
            content_type=wish.content_type,
            part_bytes=part_bytes(wish.file_size),
            started_ms=now,
            expires_ms=now + round(self.terms.keep_s * 1000),
            relationship=wish.relationship,
        )


def part_bytes(size: int) -> int:
    """Bytes of each part of a file of this size: whole MiB, so that there are at most a thousand, for very large files
    at most ten thousand."""
    return max(_PART_BYTES, min(_whole(size / _MANY), _LARGE_BYTES), _whole(size / _MOST))


def _whole(size: float) -> int:
    return int(-(-size // MIB)) * MIB


def _checked(said: StartUpload | Mapping[str, Any]) -> StartUpload:
    try:
        return said if isinstance(said, StartUpload) else StartUpload.model_validate(said)
    except ValidationError as error:
        raise refusal(error) from error


def _request(wish: StartUpload, asset: str, upload: str) -> ProcessRequest:
    """The request that starts the job. Its id is the upload's, unless the caller has one."""
    said = {"id": upload, "organization": wish.organization, **wish.process}
    try:
        return ProcessRequest.model_validate(
            {**said, "asset_id": asset, "upload": upload, "orig_filename": wish.file_name}
        )
    except ValidationError as error:
        raise refusal(error) from error
