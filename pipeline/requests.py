"""Wishes: what a caller may ask for, validated at the door.

A request's `id` is its idempotency key: accepting it twice is accepting it once. An unknown field is refused, so that a
misspelt option never passes silently.
"""

from __future__ import annotations

import json
import re
import secrets
import string
import uuid
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

STREAM = "reelway:requests"
RESOLUTIONS = ("240p", "360p", "480p", "540p", "720p", "1080p")
META_BYTES = 4096
LANGUAGE = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$"
"""A language tag as far as its form goes (RFC 5646 §2.1); whether it can be heard is up to the speech model."""

_ASSET_ID = re.compile(r"[A-Za-z0-9]{11}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def new_asset_id() -> str:
    """11 of `[a-z0-9]`: 57 bits, made by the client so that URLs are known before anything is sent."""
    alphabet = string.ascii_lowercase + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(11))


def new_request_id() -> str:
    return uuid.uuid4().hex


def _asset_id(value: str) -> str:
    if not _ASSET_ID.fullmatch(value):
        raise ValueError("an asset id is 11 characters of [A-Za-z0-9], or a UUID")
    return value


AssetId = Annotated[str, AfterValidator(_asset_id)]
RequestId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class ProcessRequest(BaseModel):
    """`asset.process`: make a streamable asset of a source."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    type: Literal["asset.process"] = "asset.process"
    id: RequestId = Field(default_factory=new_request_id)
    asset_id: AssetId = Field(default_factory=new_asset_id)
    organization: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "default"
    url: str
    """Where the source is: a path or a `file:` URL."""
    title: str | None = None
    resolutions: tuple[str, ...] = ()
    """Asked rungs; empty: those of the profile."""
    profile: str = "default"
    content_protection_type: Literal["disable"] = "disable"
    generate_subtitle: bool = False
    """Captions of what is said, by speech recognition."""
    language: Annotated[str, Field(pattern=LANGUAGE)] | None = None
    """BCP 47 tag of what is spoken; the captions are in it. Without: in English, translated if need be."""
    parent_id: str | None = None
    external_id: str | None = None
    orig_filename: str | None = None
    meta: dict[str, Any] = Field(default_factory=dict)
    """Opaque to us (≤ 4 KB as JSON); echoed in every event."""

    @field_validator("resolutions", mode="before")
    @classmethod
    def _resolutions(cls, value: object) -> object:
        """A list, or the reference's comma-separated string."""
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("resolutions")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in RESOLUTIONS]
        if unknown:
            raise ValueError(f"unknown resolution {unknown[0]!r}; known are {', '.join(RESOLUTIONS)}")
        return tuple(dict.fromkeys(value))

    @model_validator(mode="after")
    def _language_of_something(self) -> ProcessRequest:
        if self.language is not None and not self.generate_subtitle:
            raise ValueError("language says what is spoken in the captions: it needs generate_subtitle")
        return self

    @field_validator("meta")
    @classmethod
    def _small(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            size = len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"meta must be JSON ({type(error).__name__})") from error
        if size > META_BYTES:
            raise ValueError(f"meta may have at most {META_BYTES} bytes as JSON; this has {size}")
        return value

    @field_validator("url", "title", "external_id", "parent_id", "orig_filename")
    @classmethod
    def _unicode(cls, value: str | None) -> str | None:
        """A file name that is not UTF-8 reaches Python with lone surrogates, which no event could carry."""
        try:
            (value or "").encode()
        except UnicodeEncodeError as error:
            raise ValueError("not valid Unicode text") from error
        return value


def first_wrong_field(error: ValidationError) -> str:
    """`<field>: <what is wrong with it>`, for one sentence instead of a report. Shows no value: it may be a secret."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    return f"{place}: {reason}" if place else reason
