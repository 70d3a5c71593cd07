"""Notifications of object storages as requests: whatever is put into a bucket becomes an asset, by rule.

Pure. A storage tells of an object that was written in one of several forms, bare or in the envelope of whoever carried
it: Amazon's notification (which MinIO and Ceph send as well), alone or inside a message of SNS or SQS; an event of
EventBridge; SeaweedFS's webhook. All of them become the same `Arrival`. Its request's id and asset id follow from the
object and its content: the same notification again is the same asset, and another content is another asset.

Which arrivals are wished for, and how, an organization's file says in its `sources`. What no rule names is ignored, and
so is whatever is no new file: deletions, tests of the connection, folders, empty objects.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote, unquote_plus

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.errors import PipelineError
from pipeline.job import Priority
from pipeline.requests import ProcessRequest, Resolutions, first_wrong_field

_DEPTH = 4
"""Envelopes around a notification, at most: EventBridge or SNS in SQS in whatever passed it on."""
_CREATED = re.compile(r"(s3:)?ObjectCreated(:|$)")
_BUCKETS = "/buckets/"
"""SeaweedFS's folder of buckets."""
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


class SourceRule(BaseModel):
    """What is made of the objects that come into a part of a bucket."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefix: Annotated[
        str,
        Field(
            pattern=r"^s3://[A-Za-z0-9][A-Za-z0-9._-]*/[^?#]*$",
            description="What their URLs begin with, `s3://bucket/uploads/`; of several rules the longest one holds.",
        ),
    ]
    profile: Annotated[str, Field(description="How they are encoded.")] = "default"
    resolutions: Annotated[Resolutions, Field(description="Asked rungs; empty: those of the profile.")] = ()
    priority: Annotated[Priority, Field(description="How soon.")] = Priority.STANDARD
    generate_subtitle: Annotated[bool, Field(description="Write captions of what is said.")] = False
    in_place: Annotated[bool, Field(description="Make no copy: they stay there for as long as they are used.")] = False


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """An object that was written."""

    bucket: str
    key: str
    mark: str
    """What tells this content from another: version, etag and sequence, as far as they were said."""

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{quote(self.key)}"

    @property
    def request(self) -> str:
        """Id of the request that it becomes."""
        return f"s3-{self._digest.hex()[:32]}"

    @property
    def asset(self) -> str:
        """Id of the asset that it becomes."""
        number = int.from_bytes(self._digest)
        return "".join(_ALPHABET[number // 36**place % 36] for place in range(11))

    @property
    def _digest(self) -> bytes:
        return hashlib.sha256("\n".join((self.bucket, self.key, self.mark)).encode()).digest()


def wish(arrival: Arrival, rules: Mapping[str, Sequence[SourceRule]]) -> ProcessRequest | None:
    """What is asked for, by the rules of each organization; None where no rule names it.

    Raises `parameter_invalid` where no request can be made of it.
    """
    place = f"s3://{arrival.bucket}/{arrival.key}"
    meant = [
        (len(rule.prefix), name, rule)
        for name, several in sorted(rules.items())
        for rule in several
        if place.startswith(rule.prefix)
    ]
    if not meant:
        return None
    _, organization, rule = max(meant, key=lambda each: each[0])
    try:
        return ProcessRequest(
            id=arrival.request,
            asset_id=arrival.asset,
            organization=organization,
            url=arrival.url,
            orig_filename=arrival.key.rpartition("/")[2],
            **rule.model_dump(exclude={"prefix"}),
        )
    except ValidationError as error:
        raise PipelineError("parameter_invalid", detail=first_wrong_field(error)) from error


# -- reading ----------------------------------------------------------------------------------------------------------


class _Object(BaseModel):
    """An object as Amazon's forms tell of it. In a notification the key is encoded, in an event it is not."""

    model_config = ConfigDict(hide_input_in_errors=True)

    key: Annotated[str, Field(min_length=1, max_length=3072)]
    size: int | None = None
    etag: Annotated[str, Field(validation_alias=AliasChoices("eTag", "etag", "ETag"))] = ""
    version: Annotated[str | None, Field(validation_alias=AliasChoices("versionId", "version-id"))] = None
    sequencer: str = ""

    @field_validator("key")
    @classmethod
    def _unicode(cls, value: str) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("not valid Unicode text") from None
        return value


class _Bucket(BaseModel):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$")]


class _Written(BaseModel):
    """Where something was written."""

    model_config = ConfigDict(hide_input_in_errors=True)

    bucket: _Bucket
    object: _Object


@dataclass(frozen=True, kw_only=True)
class News:
    """What a notification tells of, record by record."""

    arrivals: tuple[Arrival, ...]
    """Objects that were written, each once."""
    unreadable: PipelineError | None
    """What is wrong with the first record that cannot be read: `parameter_invalid`."""


def news(said: object) -> News | None:
    """What a notification tells of, as far as it can be read. None: it is no notification."""
    if not _is_notification(said):
        return None
    found = list(_by_itself(_read(said, _DEPTH)))
    came = dict.fromkeys(each for each in found if isinstance(each, Arrival))
    wrong = (each for each in found if isinstance(each, PipelineError))
    return News(arrivals=tuple(came), unreadable=next(wrong, None))


def arrivals(said: object) -> tuple[Arrival, ...] | None:
    """The objects that a notification tells of, each once; none where nothing came. None: it is no notification.

    Raises `parameter_invalid` where it looks like one and a part of it cannot be read.
    """
    told = news(said)
    if told is not None and told.unreadable is not None:
        raise told.unreadable
    return None if told is None else told.arrivals


def _is_notification(said: object) -> bool:
    """By what its outermost envelope is called; none of these is a field of a request, which has a `type`."""
    if not isinstance(said, Mapping) or "type" in said:
        return False
    known = ("Records", "Messages", "Message", "Body", "body", "detail-type", "event_type")
    return any(name in said for name in known) or str(said.get("Event", "")).startswith("s3:")


_Found = Iterator[Arrival | PipelineError]
"""Objects, and what is wrong with records that tell of none."""


def _by_itself(read: _Found) -> _Found:
    """What is read; where it cannot be read on, that is the last of it."""
    try:
        yield from read
    except ValidationError as error:
        yield _unreadable(first_wrong_field(error))
    except PipelineError as error:
        yield error


def _read(said: Any, depth: int) -> _Found:
    """Whatever is inside; envelopes and their contents as they come."""
    if isinstance(said, str):
        said = _json(said)
    if depth == 0 or not isinstance(said, Mapping):
        raise _unreadable("there is none in its envelope")
    if "detail-type" in said:
        yield from _event(said)
    elif "event_type" in said:
        yield from _entry(said)
    elif "Message" in said:  # SNS; its other messages ask for a confirmation, and tell of no object
        yield from _read(said["Message"], depth - 1) if said.get("Type", "Notification") == "Notification" else ()
    elif "Body" in said or "body" in said:  # SQS, as it is received, and as a function gets it
        yield from _read(said.get("Body") or said.get("body"), depth - 1)
    elif not str(said.get("Event", "")).startswith("s3:"):  # `s3:TestEvent`
        for record in _records(said):
            yield from _by_itself(_record(record, depth))


def _records(said: Mapping[str, Any]) -> Sequence[Any]:
    records = said.get("Records", said.get("Messages"))
    if not isinstance(records, list):
        raise _unreadable("it has no list of records")
    return records


def _record(record: Any, depth: int) -> _Found:
    """One record: of a storage, or an envelope among others."""
    if not isinstance(record, Mapping):
        raise _unreadable("a record is no object")
    if "s3" not in record:
        yield from _read(record.get("Sns", record), depth - 1)
    elif _CREATED.match(str(record.get("eventName", ""))):
        written = _Written.model_validate(record["s3"])
        key = unquote_plus(written.object.key)
        yield from _arrived(written, key)


def _event(said: Mapping[str, Any]) -> Iterator[Arrival]:
    """An event of EventBridge."""
    if (said.get("source"), said["detail-type"]) == ("aws.s3", "Object Created"):
        written = _Written.model_validate(said.get("detail"))
        yield from _arrived(written, written.object.key)


def _arrived(written: _Written, key: str) -> Iterator[Arrival]:
    found = written.object
    if found.size != 0 and not key.endswith("/"):
        mark = "|".join((found.version or "", found.etag.strip('"'), found.sequencer))
        yield Arrival(bucket=written.bucket.name, key=key, mark=mark)


def _entry(said: Mapping[str, Any]) -> Iterator[Arrival]:
    """SeaweedFS's webhook: an entry of its filer. Those of buckets are objects, but for parts on their way."""
    path, message = said.get("key"), said.get("message")
    if not isinstance(path, str) or not isinstance(message, Mapping):
        raise _unreadable("its key or its message is missing")
    bucket, _, key = path.removeprefix(_BUCKETS).partition("/")
    new = message.get("new_entry")
    if not isinstance(new, Mapping) or new.get("is_directory") or said["event_type"] not in ("create", "update"):
        return
    if not path.startswith(_BUCKETS) or not key or key.startswith(".uploads/"):
        return
    attributes = new.get("attributes")
    about = attributes if isinstance(attributes, Mapping) else {}
    mark = "|".join(str(about.get(name, "")) for name in ("md5", "mtime", "file_size"))
    found = {"key": key, "size": about.get("file_size"), "etag": mark}
    yield from _arrived(_Written.model_validate({"bucket": {"name": bucket}, "object": found}), key)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _unreadable("its envelope holds no JSON") from None


def _unreadable(reason: str) -> PipelineError:
    return PipelineError("parameter_invalid", detail=f"it looks like a storage's notification, but {reason}")
