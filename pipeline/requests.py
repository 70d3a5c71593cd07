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
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pipeline.job import Priority

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


def new_upload_id(asset: str) -> str:
    """`<asset>_<16 hex>`: whoever has it knows where the upload's record lies."""
    return f"{asset}_{secrets.token_hex(8)}"


def asset_of(upload: str) -> str:
    """The asset that an upload was begun for; nonsense where it is no id of an upload."""
    return upload.rpartition("_")[0]


def _asset_id(value: str) -> str:
    if not _ASSET_ID.fullmatch(value):
        raise ValueError("an asset id is 11 characters of [A-Za-z0-9], or a UUID")
    return value


AssetId = Annotated[str, AfterValidator(_asset_id)]
RequestId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
LAST_MS = 253_402_300_799_999
"""The end of the year 9999, in milliseconds since 1970: the last moment that calendars know."""
ExpireAt = Annotated[
    int, Field(ge=0, le=LAST_MS, description="When to delete the asset, milliseconds since 1970; 0: never.")
]


Seconds = Annotated[float, Field(strict=True)]
"""A moment of the asset's own timeline, which a trim does not move. Whether it lies inside is known at acceptance."""


def exact(seconds: float) -> Fraction:
    """The time that was written: 0.1 is a tenth, and not the binary number beside it."""
    return Fraction(repr(seconds))


class Wish(BaseModel):
    """What every request has."""

    # Inputs stay out of the errors: a URL may hold a secret.
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True)

    type: str
    id: RequestId = Field(default_factory=new_request_id)
    """Idempotency key, and the id of the job that the request becomes."""
    organization: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "default"
    meta: dict[str, Any] = Field(default_factory=dict)
    """Opaque to us (≤ 4 KB as JSON); echoed in every event."""

    @property
    def kind(self) -> str:
        """The type without its prefix: `process`."""
        return self.type.partition(".")[2]

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


def _once(value: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(value))


def _utf8(value: str | None) -> str | None:
    """A file name that is not UTF-8 reaches Python with lone surrogates, which no event could carry."""
    try:
        (value or "").encode()
    except UnicodeEncodeError as error:
        raise ValueError("not valid Unicode text") from error
    return value


TrackName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
"""A track's id or number, or a language."""


class AssetWish(Wish):
    """What every request has that concerns one asset which is there already."""

    asset_id: AssetId


class JobWish(AssetWish):
    """… and becomes a job with work to do."""

    priority: Priority = Priority.STANDARD


class Range(BaseModel):
    """Part of an asset's timeline."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    start_time: Seconds | None = None
    """Seconds: the first frame that is shown is the first one from here on. Without: from the beginning."""
    end_time: Seconds | None = None
    """Seconds: the last frame that is shown is the last one before. Without: to the end."""

    @property
    def given(self) -> bool:
        """Somebody asked for a part."""
        return self.start_time is not None or self.end_time is not None


class SomeRange(Range):
    """… of which one end at least is named."""

    @model_validator(mode="after")
    def _some_end(self) -> SomeRange:
        if not self.given:
            said = "say what is to be shown: start_time, end_time or both"
            raise PydanticCustomError("not_provided", said, {"field": "start_time"})
        return self


def _resolutions(value: object) -> object:
    """A list, or the reference's comma-separated string."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    return value


def _known(value: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in value if name not in RESOLUTIONS]
    if unknown:
        raise ValueError(f"unknown resolution {unknown[0]!r}; known are {', '.join(RESOLUTIONS)}")
    return tuple(dict.fromkeys(value))


Resolutions = Annotated[tuple[str, ...], BeforeValidator(_resolutions), AfterValidator(_known)]


class ProcessRequest(Range, Wish):
    """`asset.process`: make a streamable asset of a source; with times, what it shows first is that part of it."""

    type: Literal["asset.process"] = "asset.process"
    asset_id: AssetId = Field(default_factory=new_asset_id)
    priority: Priority = Priority.STANDARD
    expire_at: ExpireAt = 0
    url: str = ""
    """Where the source is: an http(s) URL, `s3://bucket/key`, or a file of the workers' machine where they allow it."""
    upload: RequestId | None = None
    """Instead of `url`: a complete upload, which was begun for this asset id and `orig_filename`."""
    in_place: bool = False
    """Make no copy of the source: it is read where it lies, an object of a bucket (or an absolute path), and must stay
    there as it is for as long as anything is to be made of it. Deleting the asset leaves it alone."""
    title: str | None = None
    resolutions: Resolutions = ()
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

    @model_validator(mode="after")
    def _one_source(self) -> ProcessRequest:
        if not self.url and self.upload is None:
            raise PydanticCustomError("not_provided", "say where the source is: either url or upload", {"field": "url"})
        if self.url and self.upload is not None:
            raise ValueError("say where the source is: either url or upload")
        if self.upload is not None and asset_of(self.upload) != self.asset_id:
            raise ValueError("upload was begun for another asset_id")
        return self

    @model_validator(mode="after")
    def _stays_somewhere(self) -> ProcessRequest:
        if self.in_place and not self.url.lower().startswith(("s3://", "/", "file:///")):
            raise ValueError("in_place needs a url that is s3://bucket/key, or an absolute path of the workers")
        return self

    @model_validator(mode="after")
    def _language_of_something(self) -> ProcessRequest:
        if self.language is not None and not self.generate_subtitle:
            raise ValueError("language says what is spoken in the captions: it needs generate_subtitle")
        return self

    @field_validator("url", "title", "external_id", "parent_id", "orig_filename")
    @classmethod
    def _unicode(cls, value: str | None) -> str | None:
        return _utf8(value)


class ReprocessRequest(JobWish):
    """`asset.reprocess`: make what is missing of a ready asset, or everything again with today's profile."""

    type: Literal["asset.reprocess"] = "asset.reprocess"
    resolutions: Resolutions = ()
    """Rungs that the asset shall have; empty: those of its profile. What it has already is not made again."""
    everything: bool = False
    """Every rung and sound again, with today's profile, as a new version that takes over when it is done."""
    stages: Annotated[tuple[Literal["transcode", "audio"], ...], AfterValidator(_once)] = ()
    """Only what these stages make, again and with today's profile."""
    profile: str | None = None
    """Another profile from now on; needs `everything`."""

    @property
    def again(self) -> tuple[Literal["transcode", "audio"], ...]:
        """Stages all of whose work is done anew; empty: only what is missing is made."""
        return ("transcode", "audio") if self.everything else self.stages

    @model_validator(mode="after")
    def _fits_together(self) -> ReprocessRequest:
        if self.profile is not None and not self.everything:
            raise ValueError("profile changes every rung and sound: it needs everything")
        if self.everything and self.stages:
            raise ValueError("everything includes every stage: leave out stages")
        return self


class RepackageRequest(JobWish):
    """`asset.repackage`: render the manifests of a ready asset again, as a new version; no media is touched."""

    type: Literal["asset.repackage"] = "asset.repackage"


class SubtitleRequest(JobWish):
    """`asset.make_subtitles`: captions of what is said in a ready asset."""

    type: Literal["asset.make_subtitles"] = "asset.make_subtitles"
    language: Annotated[str, Field(pattern=LANGUAGE)] | None = None
    """BCP 47 tag of what is spoken; the captions are in it. Without: in English, translated if need be."""


class TrimRequest(SomeRange, JobWish):
    """`asset.trim`: show a part of a ready asset; nothing of the rest goes away."""

    type: Literal["asset.trim"] = "asset.trim"
    preview: bool = False
    """Change nothing: only make a manifest of about this part, at once, cut where segments begin."""


class RevertTrimRequest(JobWish):
    """`asset.revert_trim`: show the whole asset again."""

    type: Literal["asset.revert_trim"] = "asset.revert_trim"


class RollBackRequest(JobWish):
    """`asset.roll_back`: make an earlier version of an asset the next one."""

    type: Literal["asset.roll_back"] = "asset.roll_back"
    version: Annotated[int, Field(ge=1)]
    """The presentation to go back to."""


class DuplicateRequest(JobWish):
    """`asset.duplicate`: a second asset that plays the segments of this one, all of its timeline."""

    type: Literal["asset.duplicate"] = "asset.duplicate"
    new_id: AssetId = Field(default_factory=new_asset_id)
    """Id of the new asset, to which the job belongs; `asset_id` is the one that is there."""
    title: str | None = None
    """Without: that of the asset that is there."""
    external_id: str | None = None
    expire_at: ExpireAt = 0

    @field_validator("title", "external_id")
    @classmethod
    def _unicode(cls, value: str | None) -> str | None:
        return _utf8(value)

    @model_validator(mode="after")
    def _another(self) -> DuplicateRequest:
        if self.new_id == self.asset_id:
            raise ValueError("new_id is the asset that is there: the new one needs an id of its own")
        return self


class ClipRequest(SomeRange, DuplicateRequest):
    """`asset.clip`: a new asset of a part of this one; it plays its segments, and lives on when that is deleted."""

    type: Literal["asset.clip"] = "asset.clip"  # type: ignore[assignment]


class ExportRequest(JobWish):
    """`asset.export`: one MP4 file of what an asset plays now."""

    type: Literal["asset.export"] = "asset.export"
    resolution: Annotated[str, Field(max_length=16)] | None = None
    """The rung; without: the best that there is."""
    audio: Annotated[tuple[TrackName, ...], Field(max_length=16), AfterValidator(_once)] = ()
    """Sounds by language or track id; empty: the one that players begin with."""
    captions: Annotated[tuple[TrackName, ...], Field(max_length=64), AfterValidator(_once)] = ()
    """Texts by language, track id or number; empty: none."""


class RetryRequest(AssetWish):
    """`asset.retry`: the asset's last job failed or was cancelled; ask for the same again, as a new job."""

    type: Literal["asset.retry"] = "asset.retry"


class DeleteRequest(Wish):
    """`asset.delete`: stop what runs and remove everything of these assets for good."""

    type: Literal["asset.delete"] = "asset.delete"
    ids: Annotated[tuple[AssetId, ...], Field(min_length=1, max_length=1000), AfterValidator(_once)]
    force: bool = False
    """Also what clips of it play: they stop playing then."""


class ExpireRequest(AssetWish):
    """`asset.expire`: delete the asset at this time, or never."""

    type: Literal["asset.expire"] = "asset.expire"
    expire_at: ExpireAt


class CancelRequest(AssetWish):
    """`asset.cancel`: stop the jobs of an asset that have not ended."""

    type: Literal["asset.cancel"] = "asset.cancel"
    job: RequestId | None = None
    """Only this one."""


class HoldRequest(AssetWish):
    """`asset.hold`: begin no further step of the asset's jobs until it is released; what runs goes on."""

    type: Literal["asset.hold"] = "asset.hold"


class ReleaseRequest(AssetWish):
    """`asset.release`: the opposite of `asset.hold`."""

    type: Literal["asset.release"] = "asset.release"


class PrioritizeRequest(AssetWish):
    """`asset.prioritize`: another priority for the jobs of an asset that have not ended."""

    type: Literal["asset.prioritize"] = "asset.prioritize"
    priority: Priority


class BatchRequest(Wish):
    """`asset.batch`: many sources at once, all of them or none, in this order."""

    type: Literal["asset.batch"] = "asset.batch"
    requests: Annotated[tuple[ProcessRequest, ...], Field(min_length=1, max_length=1000)]
    """Each with its own id, else `<id of the batch>-<n>`, n from 1; of the organization of the batch."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """Members without an id get one that follows from the batch's, so that a batch sent twice is the same jobs."""
        if not isinstance(value, Mapping) or not isinstance(value.get("requests"), list | tuple):
            return value
        batch = {"id": new_request_id(), **value}
        usual = {name: batch[name] for name in ("organization",) if name in batch}
        members = [
            {"id": f"{batch['id']}-{number}", **usual, **member} if isinstance(member, Mapping) else member
            for number, member in enumerate(batch["requests"], start=1)
        ]
        return {**batch, "requests": members}

    @model_validator(mode="after")
    def _apart(self) -> BatchRequest:
        for name in ("id", "asset_id"):
            values = [getattr(request, name) for request in self.requests]
            if len(set(values)) < len(values):
                raise ValueError(f"requests: two of them have the same {name}")
        if any(request.organization != self.organization for request in self.requests):
            raise ValueError("requests: all of them belong to the organization of the batch")
        return self


Request = Annotated[
    ProcessRequest
    | ReprocessRequest
    | RepackageRequest
    | SubtitleRequest
    | TrimRequest
    | RevertTrimRequest
    | RollBackRequest
    | ClipRequest
    | DuplicateRequest
    | ExportRequest
    | RetryRequest
    | DeleteRequest
    | ExpireRequest
    | CancelRequest
    | HoldRequest
    | ReleaseRequest
    | PrioritizeRequest
    | BatchRequest,
    Field(discriminator="type"),
]
"""Everything that can be asked for, by its `type`."""

JobRequest = (
    ProcessRequest
    | ReprocessRequest
    | RepackageRequest
    | SubtitleRequest
    | TrimRequest
    | RevertTrimRequest
    | RollBackRequest
    | ClipRequest
    | DuplicateRequest
    | ExportRequest
    | DeleteRequest
    | ExpireRequest
)
"""What becomes a job."""

_MODELS: tuple[type[Wish], ...] = get_args(get_args(Request)[0])
REQUESTS: Mapping[str, type[Wish]] = {str(model.model_fields["type"].default): model for model in _MODELS}
"""The model of every request, by its type."""

_REQUEST: TypeAdapter[Request] = TypeAdapter(Request, config=ConfigDict(hide_input_in_errors=True))


def parse_request(text: str | bytes) -> Request:
    """The request that stands as JSON in an entry of the requests stream. Raises `pydantic.ValidationError`."""
    return _REQUEST.validate_json(text)


def request_of(body: Mapping[str, Any]) -> JobRequest:
    """The request that a job was made of, as its record holds it."""
    request = _REQUEST.validate_python(body)
    assert isinstance(request, JobRequest), request.type
    return request


def jobs_of(request: Request) -> tuple[str, ...]:
    """Ids of the jobs that a request becomes: known to its sender before anybody has read it. None of them: it only
    changes jobs that are there."""
    if isinstance(request, BatchRequest):
        return tuple(each.id for each in request.requests)
    if isinstance(request, DeleteRequest) and len(request.ids) > 1:
        return tuple(f"{request.id}.{number}" for number in range(1, len(request.ids) + 1))
    if isinstance(request, CancelRequest | HoldRequest | ReleaseRequest | PrioritizeRequest):
        return ()
    return (request.id,)


def first_missing_field(error: ValidationError) -> str | None:
    """The field whose lack is the first thing that is wrong; None where something else is."""
    first = error.errors(include_url=False, include_input=False)[0]
    lacks = {"union_tag_not_found": ("type",), "not_provided": (first.get("ctx", {}).get("field"),), "missing": ()}
    if first["type"] not in lacks:
        return None
    return ".".join(str(part) for part in (*first["loc"], *lacks[first["type"]]) if part not in REQUESTS)


def first_wrong_field(error: ValidationError) -> str:
    """`<field>: <what is wrong with it>`, for one sentence instead of a report. Shows no value: it may be a secret."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    return f"{place}: {reason}" if place else reason
