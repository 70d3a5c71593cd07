"""What the world hears of trims, clips and exports: each fact beside the move that it tells of, in the same commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from pydantic import BaseModel

from pipeline.answers import Answer, Edited, Exported, Previewed, Published, Reverted, Trimmed
from pipeline.document import VideoEdit
from pipeline.events import JOB_FAILURES, Change, ClipData, ExportData, TrimData, meta_of
from pipeline.job import EventDraft, Job, JobStatus
from pipeline.trims import status_of

CLIPS = ("clip", "duplicate")
"""Kinds of jobs that make a new asset of another."""
_CHANGES: Mapping[str, Change] = {"trim": "trim", "revert_trim": "revert", "roll_back": "roll_back"}


def told(job: Job, answer: Answer, *, key: str, base_url: str) -> Iterator[EventDraft]:
    """The facts of a step that is done; `job` has it as done. `key` tells the moves of the job apart."""
    if answer.trimmed is not None and job.kind in CLIPS:
        yield _draft(job, "clip.completed", key, _clipped(job, answer.trimmed))
    elif answer.trimmed is not None:
        yield _draft(job, "trim.completed", key, _trimmed(job, answer.trimmed))
    if answer.reverted is not None:
        yield _draft(job, "trim.reverted", key, _reverted(job, answer.reverted, answer.published))
    if answer.previewed is not None:
        yield _draft(job, "trim.previewed", key, _previewed(job, answer.previewed, base_url))
    if answer.exported is not None:
        yield _draft(job, "export.completed", key, _exported(job, answer.exported, base_url))


def came_to_nothing(job: Job) -> Iterator[EventDraft]:
    """What the end of a job that failed or was cancelled means to those who wait for what it was to make."""
    type_ = JOB_FAILURES.get(job.kind)
    if type_ is not None and job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
        yield _draft(job, type_, "end", _nothing(job), error=job.error)


def video_edit(edit: Edited | None) -> VideoEdit | None:
    """As the document shows it."""
    if edit is None:
        return None
    return VideoEdit(start_time=_seconds(edit.start), end_time=_seconds(edit.end), trim_job_id=edit.trim)


def url_of(base_url: str, key: str) -> str:
    """Where the public reads an object."""
    return f"{base_url.rstrip('/')}/{key}"


def _nothing(job: Job) -> BaseModel:
    if job.kind in CLIPS:
        return _clip(job)
    if job.kind == "export":
        return ExportData(job=job.id)
    return TrimData(job=job.id, change=_change(job), trim=status_of(job))


def _trimmed(job: Job, trimmed: Trimmed) -> TrimData:
    return TrimData(
        job=job.id, change="trim", trim=status_of(job), version=trimmed.version, **_range(trimmed.start, trimmed.end)
    )


def _clipped(job: Job, clip: Trimmed) -> ClipData:
    return _clip(job, version=clip.version, seconds=_seconds(clip.end - clip.start))


def _clip(job: Job, *, version: int | None = None, seconds: float | None = None) -> ClipData:
    asked = job.request
    return ClipData(
        job=job.id,
        of=str(asked["asset_id"]),
        start_time=asked.get("start_time"),
        end_time=asked.get("end_time"),
        version=version,
        seconds=seconds,
    )


def _reverted(job: Job, reverted: Reverted, published: Published | None) -> TrimData:
    edit = published.edit if published else None
    shown: dict[str, Any] = _range(edit.start, edit.end) if edit else {}
    if published is not None:
        shown["seconds"] = published.duration_ms / 1000
    return TrimData(job=job.id, change=_change(job), version=reverted.version, **shown)


def _previewed(job: Job, preview: Previewed, base_url: str) -> TrimData:
    urls = {"hls_url": url_of(base_url, preview.hls_key), "dash_url": url_of(base_url, preview.dash_key)}
    return TrimData(job=job.id, change="preview", **_range(preview.start, preview.end), **urls)


def _exported(job: Job, file: Exported, base_url: str) -> ExportData:
    return ExportData(
        job=job.id,
        mp4_url=url_of(base_url, file.key),
        bytes=file.size,
        seconds=file.duration_ms / 1000,
        version=file.version,
        resolution=file.rung,
        audio=list(file.audio),
        captions=list(file.captions),
    )


def _draft(job: Job, type_: str, key: str, data: BaseModel, *, error: Mapping[str, Any] | None = None) -> EventDraft:
    said = data.model_dump(mode="json", exclude_none=True) | {"meta": meta_of(job)}
    return EventDraft(id=f"{job.id}.{key}.{type_}", type=type_, data=said | ({"error": dict(error)} if error else {}))


def _change(job: Job) -> Change:
    return "preview" if job.request.get("preview") else _CHANGES[job.kind]


def _range(start: Fraction, end: Fraction) -> dict[str, float]:
    return {"start_time": _seconds(start), "end_time": _seconds(end), "seconds": _seconds(end - start)}


def _seconds(value: Fraction) -> float:
    return round(float(value), 6)
