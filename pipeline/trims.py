"""How the trims of an asset stand: the reference's trim job, told of our jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from pipeline.events import ErrorData, TrimStatus
from pipeline.job import Job, JobStatus, Status
from pipeline.ports import JobStore, Storage
from pipeline.standing import Past, jobs_of

Code = Literal[1, 2, 3, 4]
_DISPLAYS: Mapping[Code, Literal["Pending", "Processing", "Completed", "Failed"]] = {
    1: "Pending",
    2: "Processing",
    3: "Completed",
    4: "Failed",
}


def trims_of(store: JobStore, storage: Storage, asset: str) -> Sequence[TrimStatus]:
    """The trims of an asset, newest first: those that the store knows, and those that only storage remembers.

    Of a deleted asset, or none, there are none; previews are no trims.
    """
    return list(_told(jobs_of(store, storage, asset)))


def status_of(job: Job | Past) -> TrimStatus | None:
    """How the trim stands that is this job; None where it is none."""
    if job.kind != "trim" or job.number is None:
        return None
    code = _code(job)
    return TrimStatus(
        id=job.number,
        start_time=job.request.get("start_time"),
        end_time=job.request.get("end_time"),
        status=code,
        status_display=_DISPLAYS[code],
        background_task_id=job.id,
        created=_moment(job.created_ms),
        modified=_moment(_modified_ms(job)),
        error=ErrorData.model_validate(job.error) if job.error else None,
    )


def _told(jobs: Sequence[Job | Past]) -> Iterator[TrimStatus]:
    seen: set[str] = set()
    for job in jobs:  # those of the store first: they know more
        status = status_of(job) if job.id not in seen else None
        seen.add(job.id)
        if status is not None:
            yield status


def _code(job: Job | Past) -> Code:
    if job.status.ended:
        return 3 if job.status is JobStatus.SUCCEEDED else 4
    assert isinstance(job, Job), "a history is written at the end"
    steps = list(job.steps.values())
    if steps and all(step.status is Status.SUCCEEDED for step in steps):
        return 3  # it plays; the end of the job is a moment away
    return 2 if any(step.begun_ms for step in steps) else 1


def _modified_ms(job: Job | Past) -> int:
    steps = job.steps.values() if isinstance(job, Job) else ()
    moments = [moment for step in steps for moment in (step.started_ms, step.ended_ms) if moment]
    return job.ended_ms or max(moments, default=job.created_ms)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
