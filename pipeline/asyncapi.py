"""The AsyncAPI 3.0 document: what goes over the streams, generated from the models that make and read it.

Schemas come from `pipeline.events` and `pipeline.requests`, and every example of an event is made by the functions that
make the real thing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from pipeline import document as documents
from pipeline import requests
from pipeline.document import AssetDocument, Rendition, SubtitleTrack
from pipeline.errors import PipelineError
from pipeline.events import (
    EVENTS,
    PREFIX,
    PROGRESS_STREAM,
    STREAM,
    VERSION,
    Event,
    Progress,
    TrimStatus,
    envelope,
    media_facts,
    seal,
)
from pipeline.job import EventDraft
from pipeline.requests import REQUESTS, ProcessRequest
from pipeline.tasks import AudioStream, MediaInfo, VideoStream

_CLOUDEVENT = "application/cloudevents+json"
_SCHEMAS = "#/components/schemas/{model}"
_STATE = "step.progress"
_NOW_MS = 1_767_225_600_000

Document = dict[str, Any]


def document() -> Document:
    """The whole document as JSON-like data."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Reelway",
            "version": VERSION,
            "description": "Requests go in and facts come out on three Redis Streams. Facts are CloudEvents 1.0: per "
            "asset and epoch their `sequence` is 1..n without gap or repeat, and delivery is at least once.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "servers": {
            "redis": {"host": "localhost:6379", "protocol": "redis", "description": "The Redis of the installation."}
        },
        "defaultContentType": _CLOUDEVENT,
        "channels": {
            "events": _channel(
                STREAM,
                "Facts. An entry's field `ce` holds the event; `type`, `subject` and `sequence` stand beside it.",
                EVENTS,
            ),
            "requests": _channel(
                requests.STREAM,
                "Wishes. An entry's field `request` holds the JSON; its `type` says which. What is refused is answered "
                "by `request.refused` on the stream of facts.",
                REQUESTS,
            ),
            "progress": _channel(PROGRESS_STREAM, "How far each step is; an entry's fields are the message.", [_STATE]),
        },
        "operations": {
            "tellFacts": _operation("send", "events", "Reelway tells what happened."),
            "takeRequests": _operation("receive", "requests", "Reelway takes requests. A repeated id is one request."),
            "tellProgress": _operation("send", "progress", "Reelway tells how far it is."),
        },
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


def _channel(address: str, description: str, names: Iterable[str]) -> Document:
    messages = {name: {"$ref": f"#/components/messages/{name}"} for name in names}
    return {"address": address, "description": description, "messages": messages}


def _operation(action: str, channel: str, summary: str) -> Document:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}


def _messages() -> Document:
    events = {name: _event_message(name, model, said) for name, (model, said) in EVENTS.items()}
    return {
        **events,
        **{name: _request_message(name, model) for name, model in REQUESTS.items()},
        _STATE: _message(_example_progress(), "How far a step is."),
    }


def _message(example: BaseModel, summary: str) -> Document:
    return {
        "name": type(example).__name__,
        "summary": summary,
        "contentType": "application/json",
        "payload": _ref(type(example)),
        "examples": [{"payload": example.model_dump(mode="json", exclude_unset=True)}],
    }


def _request_message(name: str, model: type[BaseModel]) -> Document:
    """A request, as its model tells it in the first line: "`asset.process`: make …"."""
    said = (model.__doc__ or "").partition("\n")[0].partition(": ")[2]
    return _message(_example_request(name), said[:1].upper() + said[1:])


def _event_message(name: str, model: type[BaseModel], said: str) -> Document:
    kind = {"properties": {"type": {"const": f"{PREFIX}.{name}.{VERSION}"}, "data": _ref(model)}}
    return {
        "name": f"{PREFIX}.{name}.{VERSION}",
        "title": name,
        "summary": said,
        "contentType": _CLOUDEVENT,
        "payload": {"allOf": [_ref(Event), kind]},
        "examples": [{"payload": _example_event(name)}],
    }


def _schemas() -> Document:
    models: set[type[BaseModel]] = {Event, Progress, *REQUESTS.values(), *(model for model, _ in EVENTS.values())}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schema = models_json_schema([(model, "validation") for model in ordered], ref_template=_SCHEMAS)
    return dict(schema["$defs"])


def _ref(model: type[BaseModel]) -> Document:
    return {"$ref": _SCHEMAS.format(model=model.__name__)}


# -- examples ---------------------------------------------------------------------------------------------------------


def _example_event(name: str) -> Any:
    draft = EventDraft(id=f"example.{name}", type=name, data=_example_data(name))
    body = envelope(draft, asset="k3v9x0q2m7a", job="example", organization="default", now_ms=_NOW_MS, prefix=PREFIX)
    return json.loads(seal(body, sequence=1, epoch=1))


def _example_data(name: str) -> Mapping[str, Any]:
    if name.startswith("asset."):
        return _asset_data(name)
    if name.startswith("step."):
        return _step_data(name)
    error = PipelineError("parameter_invalid", detail="resolutions: unknown resolution '999p'").document()
    refusal: Mapping[str, Any] = {"request": "example", "error": error, "meta": {"course": 42}}
    track = {"job": "example", "track": "video-720p", "kind": "video", "version": 1, "meta": {"course": 42}}
    return {
        **_edit_data(),
        "request.refused": refusal,
        "track.ready": track,
        "subtitle.completed": _subtitle_data(),
        "subtitle.failed": {
            "job": "example",
            "error": PipelineError("speech_model_missing", model="small").document(),
            "meta": {"course": 42},
        },
    }[name]


def _subtitle_data() -> Mapping[str, Any]:
    track = SubtitleTrack(
        id=4095,
        track="text-en-auto",
        name="English (auto-generated)",
        language="en",
        url="https://media.example/transcoded/k3v9x0q2m7a/subtitles/text-en-auto/5c1f0a9e77b2.vtt",
        auto_generated=True,
    )
    facts = {"speech": True, "spoken": "en", "language": "en", "words": 24, "cues": 2, "model": "small", "dropped": {}}
    return {
        "job": "example",
        "track": track.model_dump(mode="json"),
        "version": 2,
        "facts": facts,
        "meta": {"course": 42},
    }


def _edit_data() -> Mapping[str, Mapping[str, Any]]:
    """Of trims, clips and exports."""
    meta = {"meta": {"course": 42}}
    lost = {
        "error": PipelineError("source_archived", key="private/k3v9x0q2m7a.mp4", storage_class="GLACIER").document()
    }
    shown = {"version": 2, "start_time": 1.0, "end_time": 7.5, "seconds": 6.5}
    preview = "https://media.example/transcoded/k3v9x0q2m7a/previews/9b1f04c2d7ae"
    seen = {"hls_url": f"{preview}/video.m3u8", "dash_url": f"{preview}/video.mpd"}
    file = "https://media.example/transcoded/k3v9x0q2m7a/video.mp4"
    made = {"mp4_url": file, "bytes": 2_100_000, "seconds": 6.5, "version": 2, "resolution": "720p"}
    trim, of = {"job": "example", "change": "trim"}, {"job": "example", "of": "8x7k2m9qpza"}
    return {
        "trim.completed": {**trim, "trim": _trim_status(3), **shown, **meta},
        "trim.reverted": {"job": "example", "change": "revert", "version": 3, "seconds": 10.0, **meta},
        "trim.previewed": {"job": "example", "change": "preview", **seen, "start_time": 0.0, "end_time": 8.0, **meta},
        "trim.failed": {**trim, "trim": _trim_status(4), **lost, **meta},
        "clip.completed": {**of, **shown, "version": 1, **meta},
        "clip.failed": {**of, **lost, **meta},
        "export.completed": {"job": "example", **made, "audio": ["audio-1-en"], "captions": [], **meta},
        "export.failed": {"job": "example", **lost, **meta},
    }


def _trim_status(code: Literal[3, 4]) -> Document:
    status = TrimStatus(
        id=58,
        start_time=1.0,
        end_time=7.5,
        status=code,
        status_display="Completed" if code == 3 else "Failed",
        background_task_id="example",
        created=datetime.fromtimestamp(_NOW_MS / 1000, UTC),
        modified=datetime.fromtimestamp(_NOW_MS / 1000 + 4, UTC),
    )
    return status.model_dump(mode="json", exclude_none=True)


def _asset_data(name: str) -> Mapping[str, Any]:
    accepted, ingested, playable, completed = _life_of_an_asset()
    error = PipelineError("video_file_broken").document()
    cancelled = PipelineError("cancelled").document()
    asset, extra = {
        "asset.accepted": (accepted, {}),
        "asset.ingested": (ingested, media_facts(_EXAMPLE_MEDIA)),
        "asset.playable": (playable, {}),
        "asset.ready": (completed, {}),
        "asset.updated": (completed, {}),
        "asset.failed": (documents.failed(ingested, error), {"error": error}),
        "asset.cancelled": (documents.cancelled(ingested), {"error": cancelled}),
        "asset.deleted": (documents.deleted(completed, _NOW_MS), {}),
    }[name]
    return {"job": "example", "asset": asset.model_dump(mode="json"), "meta": {"course": 42}, **extra}


def _step_data(name: str) -> Mapping[str, Any]:
    data = {"job": "example", "step": "transcode-000", "stage": "transcode", "attempt": 1, "worker": "box-7:4242"}
    broken = {"error": PipelineError("video_file_broken").document(), "seconds": 3.2, "facts": {}}
    later = {"error": PipelineError("storage_unavailable", reason="timeout").document(), "retry_in_s": 1.0}
    extra: Mapping[str, Any] = {
        "step.started": {},
        "step.finished": {"seconds": 12.5, "facts": {"receipt": "private/k3v9x0q2m7a/receipts/example.json"}},
        "step.failed": broken,
        "step.retrying": later,
    }[name]
    return {**data, "meta": {"course": 42}, **extra}


def _life_of_an_asset() -> tuple[AssetDocument, ...]:
    """An asset as accepted, ingested, playable and complete."""
    request = _PROCESS
    draft = documents.not_started(
        request, resolutions=request.resolutions, base_url="https://media.example", now_ms=_NOW_MS
    )
    accepted = documents.queued(draft)
    ingested = documents.ingested(accepted, _EXAMPLE_MEDIA, "private/k3v9x0q2m7a.mp4")
    made = Rendition(name="video-720p", kind="video", codec="avc1.64001f", bandwidth=2_900_000, bytes=3_100_000)
    playable = documents.published(ingested, [made], duration_ms=10_000, segments=3)
    stages = (accepted, ingested, playable, documents.completed(playable))
    return tuple(documents.stamped(stage, version=number, now_ms=_NOW_MS) for number, stage in enumerate(stages, 1))


_PROCESS = ProcessRequest(
    type="asset.process",
    id="example",
    asset_id="k3v9x0q2m7a",
    url="/videos/lecture-1.mp4",
    title="Lecture 1",
    resolutions=("240p", "720p"),
    meta={"course": 42},
)
_WISHES: Mapping[str, Mapping[str, Any]] = {
    "asset.process": _PROCESS.model_dump(exclude_unset=True),
    "asset.reprocess": {"asset_id": "k3v9x0q2m7a", "resolutions": ["240p", "720p", "1080p"]},
    "asset.repackage": {"asset_id": "k3v9x0q2m7a"},
    "asset.make_subtitles": {"asset_id": "k3v9x0q2m7a", "language": "en"},
    "asset.trim": {"asset_id": "k3v9x0q2m7a", "start_time": 1.0, "end_time": 7.5},
    "asset.revert_trim": {"asset_id": "k3v9x0q2m7a"},
    "asset.roll_back": {"asset_id": "k3v9x0q2m7a", "version": 2},
    "asset.clip": {"asset_id": "8x7k2m9qpza", "new_id": "k3v9x0q2m7a", "start_time": 1.0, "end_time": 7.5},
    "asset.duplicate": {"asset_id": "8x7k2m9qpza", "new_id": "k3v9x0q2m7a"},
    "asset.export": {"asset_id": "k3v9x0q2m7a", "resolution": "720p", "audio": ["en"]},
    "asset.retry": {"asset_id": "k3v9x0q2m7a"},
    "asset.delete": {"ids": ["k3v9x0q2m7a"]},
    "asset.expire": {"asset_id": "k3v9x0q2m7a", "expire_at": _NOW_MS},
    "asset.cancel": {"asset_id": "k3v9x0q2m7a"},
    "asset.hold": {"asset_id": "k3v9x0q2m7a"},
    "asset.release": {"asset_id": "k3v9x0q2m7a"},
    "asset.prioritize": {"asset_id": "k3v9x0q2m7a", "priority": "high"},
    "asset.batch": {"requests": [{"url": "/videos/lecture-2.mp4"}, {"url": "/videos/lecture-3.mp4"}]},
}
"""What the example of each request says, beside its type and its id."""


def _example_request(name: str) -> BaseModel:
    return REQUESTS[name].model_validate({"type": name, "id": "example", **_WISHES[name]})


def _example_progress() -> Progress:
    return Progress(job="example", asset="k3v9x0q2m7a", step="transcode-000", fraction=0.5, at=_NOW_MS)


_EXAMPLE_MEDIA = MediaInfo(
    format="mov,mp4,m4a,3gp,3g2,mj2",
    size=4_194_304,
    duration=Fraction(10),
    start=Fraction(0),
    video=VideoStream(
        index=0,
        codec="h264",
        width=1280,
        height=720,
        rate=Fraction(25),
        frames=250,
        start=Fraction(0),
        end=Fraction(10),
    ),
    audio=(
        AudioStream(
            index=1,
            codec="aac",
            channels=2,
            layout="stereo",
            sample_rate=48_000,
            start=Fraction(0),
            end=Fraction(10),
        ),
    ),
)
