"""What is said about uploads at the door, in the reference's names (Nomad: `fileName`, `partNumber`, `uploadUrl` …)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from pipeline.requests import AssetId


class _Said(BaseModel):
    """Names are the reference's; those in snake case are understood as well."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )


_NAMES = {"parentId": "parent_id", "assetId": "asset_id"}
"""The reference's names of a folder and of the asset."""


class StartUpload(_Said):
    """What is to be brought. Every other field is one of `asset.process`, but for its source."""

    model_config = ConfigDict(extra="allow")

    file_name: Annotated[str, Field(min_length=1, max_length=255)]
    file_size: Annotated[int, Field(ge=1)]
    """Bytes."""
    content_type: Annotated[str, Field(max_length=255)] = "application/octet-stream"
    organization: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "default"
    parent_asset_id: AssetId | None = None
    """The asset that the file belongs to; needs `relationship`."""
    relationship: Literal["subtitle", "thumbnail"] | None = None

    @field_validator("file_name", "content_type")
    @classmethod
    def _text(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("not printable text")
        return value

    @model_validator(mode="after")
    def _says_each_once(self) -> StartUpload:
        said = self.model_extra or {}
        for theirs, ours in _NAMES.items():
            if {theirs, ours} <= said.keys():
                raise ValueError(f"{theirs} and {ours} are the same: say one")
        if "upload" in said:
            raise ValueError("upload is made by the start: leave it out")
        if said.get("orig_filename", self.file_name) != self.file_name:
            raise ValueError("orig_filename is what fileName says: leave it out")
        return self

    @property
    def process(self) -> dict[str, Any]:
        """The fields of `asset.process` among it."""
        return {_NAMES.get(name, name): value for name, value in (self.model_extra or {}).items()}


class PartSaid(_Said):
    """One part."""

    part_number: int
    size: int
    """Bytes that it must have."""
    etag: str | None = None
    """Of a part that is there."""
    upload_url: str | None = None
    """Of a part that is missing: PUT its bytes there. A secret until it expires."""


class UploadSaid(_Said):
    """How an upload stands."""

    id: str
    asset_id: str
    file_name: str
    file_size: int
    content_type: str
    relationship: Literal["subtitle", "thumbnail"] | None = None
    state: str
    started_at: int
    """Milliseconds since 1970."""
    expires_at: int
    """Not complete by then, it goes with its parts; milliseconds since 1970."""
    parts: tuple[PartSaid, ...] = ()


class CompleteSaid(_Said):
    """What came of a complete upload: a job, or of a related one the storage key of the file."""

    id: str
    asset_id: str
    job: str | None = None
    key: str | None = None
    relationship: Literal["subtitle", "thumbnail"] | None = None
