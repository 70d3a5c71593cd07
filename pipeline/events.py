"""The facts that the world may hear: CloudEvents 1.0 in structured JSON, on one stream.

An event exists if and only if its move happened, because the store writes both in one commit. Python drafts it; the
store adds `sequence` and `epoch`, which are per asset: 1..n without gap or repeat inside an epoch. Ids follow from the
move, so that a replayed move could only ever produce the same one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from pipeline.document import AssetDocument, SubtitleTrack
from pipeline.job import EventDraft, Job
from pipeline.tasks import AudioStream, MediaInfo, TextStream, VideoStream, as_data

S = TypeVar("S", VideoStream, AudioStream, TextStream)

STREAM = "reelway:events"
PROGRESS_STREAM = "reelway:progress"
MOST_LISTED = 8
"""Streams of a kind that an event tells of."""
LONGEST_TITLE = 64
"""Characters of a stream's title in an event."""
PREFIX = "dev.reelway"
"""Reverse-DNS prefix of the types; a setting may change it."""
VERSION = "v1"


class ErrorData(BaseModel):
    """An error of the catalogue, with its values."""

    code: str
    message: str
    params: dict[str, Any] = {}
    hint: str
    retryable: bool


Change = Literal["trim", "preview", "revert", "roll_back"]
"""How what is shown of an asset may change, or would."""


class TrimStatus(BaseModel):
    """How a trim stands, as the reference shows it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: int
    """Its number: no other trim of any asset has it."""
    start_time: float | None = None
    """Seconds of the asset's own timeline, as asked; none: its beginning."""
    end_time: float | None = None
    """… and its end."""
    status: Literal[1, 2, 3, 4]
    """1 as in the reference; 2 a worker is at it, 3 it plays, 4 it failed or was cancelled (ours)."""
    status_display: Literal["Pending", "Processing", "Completed", "Failed"]
    background_task_id: str
    """Id of the job."""
    created: datetime
    modified: datetime
    error: ErrorData | None = None


class AssetData(BaseModel):
    """Data of every `asset.*` event: the whole document, so that an API layer can store it as it is."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    job: str | None = None
    """Id of the job that caused it."""
    asset: AssetDocument
    meta: dict[str, Any] = {}
    error: ErrorData | None = None
    missing: list[str] = Field(default=[], description="Optional steps that failed, or were given up by a cancel.")
    trim: TrimStatus | None = None
    """Of `asset.accepted`, where what was accepted is a trim."""


class IngestedData(AssetData):
    """Data of `asset.ingested`: the document, and what was learned of the source."""

    media: MediaInfo | None = None
    """The short form of `private/<asset>/media.json`: no times of keyframes, short titles, few streams of a kind. Times
    are seconds, times and rates are fractions (`30000/1001`), `notes` and `standard` are words."""
    unlisted: int = 0
    """Streams that only the long form has."""


class StepData(BaseModel):
    """Data of every `step.*` event."""

    job: str
    step: str
    stage: str
    attempt: int
    worker: str | None = None
    meta: dict[str, Any] = {}
    error: ErrorData | None = None
    retry_in_s: float | None = None
    seconds: float | None = Field(default=None, description="Wall seconds of the attempt.")
    facts: dict[str, Any] = {}


class RefusalData(BaseModel):
    """Data of `request.refused`; its subject is `-` where no asset could be read."""

    request: str | None = Field(
        default=None, description="The request's id; where none could be read, that of its entry on the stream."
    )
    error: ErrorData
    meta: dict[str, Any] = {}


class TrackData(BaseModel):
    """Data of `track.ready`: a rendition or text that a player can choose from now on."""

    job: str
    track: str
    kind: Literal["video", "audio", "text"]
    version: int = Field(description="The presentation that has it first.")
    meta: dict[str, Any] = {}


class SubtitleData(BaseModel):
    """Data of `subtitle.*`: what became of the speech of an asset."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    job: str
    track: SubtitleTrack | None = None
    """As the document lists it; none where nobody speaks, and where it failed."""
    version: int | None = None
    """The presentation that has it first."""
    facts: dict[str, Any] = {}
    """What was heard: `speech`, `spoken` language, `words`, `cues`, `model`, what was `dropped`."""
    error: ErrorData | None = None
    meta: dict[str, Any] = {}


class TrimData(BaseModel):
    """Data of `trim.*`: what became of a wish to show another part of an asset."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    job: str
    change: Change
    """What was asked."""
    trim: TrimStatus | None = None
    """Of a trim: how it stands now."""
    version: int | None = None
    """The presentation that shows it first."""
    start_time: float | None = None
    """Seconds of the asset's own timeline: the first frame that is shown; none where all of it is."""
    end_time: float | None = None
    """… where the first frame would be that is not."""
    seconds: float | None = None
    """How long what is shown lasts."""
    hls_url: str | None = None
    """Of a preview, which is cut where segments begin."""
    dash_url: str | None = None
    error: ErrorData | None = None
    meta: dict[str, Any] = {}


class ClipData(BaseModel):
    """Data of `clip.*`; the subject is the new asset."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    job: str
    of: str
    """The asset that it is a part of."""
    start_time: float | None = None
    """Seconds of that asset's timeline, as asked; none: its beginning."""
    end_time: float | None = None
    """… and its end."""
    seconds: float | None = None
    """How long the clip lasts."""
    version: int | None = None
    error: ErrorData | None = None
    meta: dict[str, Any] = {}


class ExportData(BaseModel):
    """Data of `export.*`: one file of what an asset plays."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    job: str
    mp4_url: str | None = None
    bytes: int | None = None
    seconds: float | None = None
    version: int | None = None
    """The presentation that it was made of."""
    resolution: str | None = None
    """Its rung; none where there is no picture."""
    audio: list[str] = []
    """Ids of the tracks in it."""
    captions: list[str] = []
    error: ErrorData | None = None
    meta: dict[str, Any] = {}


class Progress(BaseModel):
    """One entry of the progress stream, its fields as they stand: state, not history; at most one a second and job."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    job: str
    asset: str
    step: str
    fraction: float = Field(ge=0, le=1)
    """How much of the step is done."""
    at: int
    """Milliseconds since 1970."""


EVENTS: Mapping[str, tuple[type[BaseModel], str]] = {
    "asset.accepted": (AssetData, "A request was accepted as a job; the asset's URLs are known."),
    "asset.ingested": (IngestedData, "The source lies in private storage and can be served."),
    "asset.playable": (AssetData, "The doors lead to a complete presentation."),
    "asset.ready": (AssetData, "The job has ended well; `missing` names optional parts that failed."),
    "asset.updated": (AssetData, "The document changed; it comes whole, with its version."),
    "asset.failed": (AssetData, "The job has failed for good."),
    "asset.cancelled": (AssetData, "The job was cancelled."),
    "asset.deleted": (AssetData, "Nothing is left of the asset; its document says since when."),
    "request.refused": (RefusalData, "A request was not accepted."),
    "step.started": (StepData, "A worker has begun a step."),
    "step.finished": (StepData, "A step is done."),
    "step.failed": (StepData, "A step has failed for good."),
    "step.retrying": (StepData, "A step failed and will be tried again."),
    "track.ready": (TrackData, "A rendition or text was published."),
    "subtitle.completed": (SubtitleData, "The speech was heard; `track` holds its captions, none where nobody speaks."),
    "subtitle.failed": (SubtitleData, "There will be no captions; the asset plays without."),
    "trim.completed": (TrimData, "Only the asked part of the asset is played from now on."),
    "trim.reverted": (TrimData, "The asset is played as it was before: whole, or as its `version` of before was."),
    "trim.previewed": (TrimData, "A manifest shows about what a trim would; the asset plays as before."),
    "trim.failed": (TrimData, "A trim, revert, roll back or preview came to nothing; the asset plays as before."),
    "clip.completed": (ClipData, "A new asset plays a part of another, or all of it."),
    "clip.failed": (ClipData, "The clip came to nothing."),
    "export.completed": (ExportData, "There is one file of what the asset plays."),
    "export.failed": (ExportData, "There will be no such file."),
}
"""Every event type: the model of its data, and what it says."""

FAILURES: Mapping[str, str] = {"subtitle": "subtitle.failed"}
"""Stage → the event that says, beside `step.failed`, that what it should have added will not come."""


JOB_FAILURES: Mapping[str, str] = {
    "trim": "trim.failed",
    "revert_trim": "trim.failed",
    "roll_back": "trim.failed",
    "clip": "clip.failed",
    "duplicate": "clip.failed",
    "export": "export.failed",
}
"""Kind of job → the event that says, beside `asset.failed` or `asset.cancelled`, that it came to nothing."""


class Event(BaseModel):
    """The CloudEvents envelope (CloudEvents 1.0, structured mode, with its `sequence` and `correlation` extensions)."""

    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True)

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: str
    subject: str
    """The asset's id."""
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"
    correlationid: str | None = None
    """The job's id."""
    sequence: str
    """Zero-padded, per asset and epoch: 1..n without gap or repeat."""
    epoch: int
    data: dict[str, Any]

    @property
    def name(self) -> str:
        """The type without prefix and version: `asset.ready`."""
        return ".".join(self.type.split(".")[-3:-1])

    @property
    def payload(self) -> BaseModel:
        """The data as its model."""
        return EVENTS[self.name][0].model_validate(self.data)


def asset_facts(
    job: Job,
    type_: str | None,
    document: AssetDocument,
    *,
    key: str,
    error: Mapping[str, Any] | None = None,
    missing: list[str] | None = None,
    media: MediaInfo | None = None,
    trim: TrimStatus | None = None,
) -> tuple[EventDraft, ...]:
    """The fact itself, if it has a name of its own, and `asset.updated` with the same document.

    `key` tells the moves of one job apart.
    """
    data: dict[str, Any] = {"job": job.id, "asset": document.model_dump(mode="json"), "meta": meta_of(job)}
    fact = {**data, **({"error": error} if error else {}), **({"missing": missing} if missing else {})}
    fact |= media_facts(media) if media else {}
    fact |= {"trim": trim.model_dump(mode="json")} if trim else {}
    updated = EventDraft(id=f"{job.id}.{key}.asset.updated", type="asset.updated", data=data)
    return (EventDraft(id=f"{job.id}.{key}.{type_}", type=type_, data=fact), updated) if type_ else (updated,)


def media_facts(media: MediaInfo) -> dict[str, Any]:
    """What `asset.ingested` says of the source: a few kilobytes, whatever it is."""
    short = replace(
        media,
        keyframes=(),
        video=_briefly(media.video) if media.video else None,
        audio=tuple(_briefly(stream) for stream in media.audio[:MOST_LISTED]),
        text=tuple(_briefly(stream) for stream in media.text[:MOST_LISTED]),
        pictures=media.pictures[:MOST_LISTED],
    )
    unlisted = sum(max(len(streams) - MOST_LISTED, 0) for streams in (media.audio, media.text, media.pictures))
    return {"media": as_data(short), "unlisted": unlisted}


def _briefly(stream: S) -> S:
    return replace(stream, title=stream.title and stream.title[:LONGEST_TITLE])


def meta_of(job: Job) -> Any:
    """What the caller wants to hear with every event of its job."""
    return job.request.get("meta", {})


def envelope(draft: EventDraft, *, asset: str, job: str | None, organization: str, now_ms: int, prefix: str) -> str:
    """The event as JSON that lacks only `sequence` and `epoch`; the store puts these at its beginning."""
    body = {
        "specversion": "1.0",
        "id": draft.id,
        "source": f"/reelway/{organization}",
        "type": f"{prefix}.{draft.type}.{VERSION}",
        "subject": asset,
        "time": datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "correlationid": job,
        "data": draft.data,
    }
    return json.dumps({k: v for k, v in body.items() if v is not None}, separators=(",", ":"), ensure_ascii=False)


def seal(body: str, *, sequence: int, epoch: int) -> str:
    """What the store does to an envelope: put sequence and epoch at its beginning."""
    return f'{{"sequence":"{sequence:020d}","epoch":{epoch},{body[1:]}'
