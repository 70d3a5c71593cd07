"""What the fleet's commands show: as JSON for scripts, as tables for people."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from pipeline.errors import PipelineError
from pipeline.job import Job, Priority
from pipeline.ports import QueueFigures
from pipeline.stages import STAGES
from workers.commands.moment import shown
from workers.commands.times import shown as time
from workers.screen import clock

if TYPE_CHECKING:
    from workers.registry import WorkerRecord

Told = Mapping[str, Any]
"""A job as its history tells it: `pipeline.tidy.history`."""
Fractions = Mapping[str, float]
"""How far each running step is."""


def print_json(data: object) -> None:
    """One line of JSON on stdout."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False, default=str) + "\n")


@contextmanager
def refusals(*, as_json: bool) -> Iterator[None]:
    """What is refused inside is told on stdout too, where JSON was asked for; it ends the command either way."""
    try:
        yield
    except PipelineError as error:
        if as_json:
            print_json({"error": error.document()})
        raise


def paper() -> Console:
    """Where tables are printed: as wide as they are where nobody's terminal ends."""
    return Console(width=None if sys.stdout.isatty() else 240)


def table(*columns: str) -> Table:
    """An unframed table; a column whose name begins with `>` holds numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    return made


# -- jobs and steps ---------------------------------------------------------------------------------------------------


def asked(kind: str, number: int | None, request: Mapping[str, Any]) -> str:
    """What a job was asked for, in few words: `trim 58`, `revert to 2`, `clip of k3v9x0q2m7a`."""
    if request.get("preview"):
        return "preview of a trim"
    if kind == "roll_back":
        return f"revert to {request.get('version')}"
    if kind == "revert_trim":
        return "revert"
    if kind in ("clip", "duplicate"):
        return f"{kind} of {request.get('asset_id')}"
    return f"{kind} {number}" if number is not None else kind


def job(job: Job, fractions: Fractions) -> dict[str, Any]:
    """A job as JSON. Not its request: a source's URL may hold a secret."""
    return {
        "id": job.id,
        "asset_id": job.asset,
        "type": job.kind,
        "number": job.number,
        "status": str(job.status),
        "organization": job.organization,
        "priority": str(job.priority),
        "held": job.held,
        "progress": round(job.progress(fractions), 3),
        "created_ms": job.created_ms,
        "ended_ms": job.ended_ms,
        "error": job.error,
        "steps": dict(Counter(str(step.status) for step in job.steps.values())),
    }


def past(history: str | bytes) -> dict[str, Any]:
    """A job as its history tells it. Not its sealed URL, which is for the fleet alone."""
    told: dict[str, Any] = json.loads(history)
    told["job"].pop("sealed", None)
    return told


def running(job: Job, fractions: Fractions) -> list[dict[str, Any]]:
    """The steps of a job that workers are at."""
    return [
        {
            "job": job.id,
            "step": step.id,
            "stage": step.stage,
            "status": str(step.status),
            "attempt": step.attempt,
            "worker": step.worker,
            "started_ms": step.started_ms,
            "progress": fractions.get(step.id, 0.0),
        }
        for step in job.steps.values()
        if step.status.leased
    ]


def print_status(document: Told, jobs: Sequence[tuple[Job, Fractions]], now_ms: int) -> None:
    """The asset, its jobs and what runs, for a person."""
    console, video = paper(), document["video"]
    for name, value in (
        ("asset", f"{document['id']}  {'deleted' if document.get('deleted') else video['status']}"),
        ("title", document.get("title") or document.get("orig_filename")),
        ("plays", video["playback_url"] if video["renditions"] else None),
        ("made", " ".join(made["name"] for made in video["renditions"])),
        ("shows", _part(video)),
        ("mp4", video.get("mp4_url")),
        ("expires", shown(document.get("expire_at"))),
        ("deleted", shown(document.get("deleted"))),
        ("error", (video.get("error") or {}).get("code")),
    ):
        if value:
            console.print(f"{name:<9}{value}", highlight=False, markup=False, soft_wrap=True)
    if jobs:
        console.print()
        console.print(_jobs_table(jobs))
    steps = [step for each, fractions in jobs for step in running(each, fractions)]
    if steps:
        console.print()
        console.print(_running_table(steps, now_ms))


def _part(video: Told) -> str | None:
    """Which part of an asset is played; None: all of it."""
    edit = video.get("edit")
    if not edit:
        return None
    trim = f" (trim {edit['trim_job_id']})" if edit.get("trim_job_id") else ""
    return f"{time(edit['start_time'])} to {time(edit['end_time'])}{trim}"


def _jobs_table(jobs: Iterable[tuple[Job, Fractions]]) -> Table:
    made = table("job", "type", "status", "priority", ">done", "since", "ended", "error")
    for each, fractions in jobs:
        made.add_row(
            each.id,
            asked(each.kind, each.number, each.request),
            "held" if each.held and not each.status.ended else str(each.status),
            str(each.priority),
            f"{each.progress(fractions):.0%}" if each.steps else "",
            shown(each.created_ms),
            shown(each.ended_ms),
            str((each.error or {}).get("code", "")),
        )
    return made


def _running_table(steps: Iterable[Mapping[str, Any]], now_ms: int) -> Table:
    made = table("step", "stage", "worker", ">try", ">done", ">for")
    for step in steps:
        seconds = max(0, now_ms - (step["started_ms"] or now_ms)) / 1000
        progress = f"{step['progress']:.0%}"
        made.add_row(step["step"], step["stage"], step["worker"], str(step["attempt"]), progress, clock(seconds))
    return made


# -- history ----------------------------------------------------------------------------------------------------------


def history_table(told: Iterable[Told]) -> Table:
    """A row a job."""
    made = table("job", "type", "status", ">steps", ">tries", ">waited", "start", "end", "error")
    for each in told:
        said, steps = each["job"], each["steps"]
        made.add_row(
            said["id"],
            asked(said["kind"], said.get("number"), said["request"]),
            said["status"],
            str(len(steps)),
            str(sum(step.get("attempts") or 0 for step in steps)),
            clock(max((step.get("waited_s") or 0.0 for step in steps), default=0.0)),  # of one step, the longest
            shown(said["created_ms"]),
            shown(said["ended_ms"]),
            str((said["error"] or {}).get("code", "")),
        )
    return made


def steps_table(told: Told) -> Table:
    """A row a step of one job."""
    made = table("step", "stage", "status", ">tries", ">lost", ">waited", "worker", "error")
    for step in told["steps"]:
        made.add_row(
            step["id"],
            step["stage"],
            step["status"],
            str(step.get("attempts") or 0),
            str(step["losses"]),
            clock(step.get("waited_s") or 0.0),
            step["worker"] or "",
            str((step["error"] or {}).get("code", "")),
        )
    return made


def dead_table(failed: Iterable[Job]) -> Table:
    """A row a failed job."""
    made = table("job", "asset", "type", "organization", "ended", "error")
    for each in failed:
        code = str((each.error or {}).get("code", ""))
        what = asked(each.kind, each.number, each.request)
        made.add_row(each.id, each.asset, what, each.organization, shown(each.ended_ms), code)
    return made


# -- queues -----------------------------------------------------------------------------------------------------------


def queues(figures: Iterable[QueueFigures], workers: Sequence[WorkerRecord]) -> list[dict[str, Any]]:
    """Every stage with what waits, what is taken, and how many workers there are for it."""
    known = {each.stage: each for each in figures}
    stages = [*STAGES, *(stage for stage in known if stage not in STAGES)]
    return [
        {
            **asdict(known.get(stage) or QueueFigures(stage=stage)),
            "workers": sum(stage in worker.stages for worker in workers),
            "slots": sum(worker.slots for worker in workers if stage in worker.stages),
        }
        for stage in stages
    ]


def queues_table(queues: Iterable[Mapping[str, Any]]) -> Table:
    made = table("stage", ">high", ">standard", ">bulk", ">taken", ">workers", ">slots", "state")
    for each in queues:
        ready = [str(each["ready"].get(priority, 0)) for priority in Priority]
        state = "paused" if each["paused"] else "" if each["workers"] else "no worker"
        made.add_row(each["stage"], *ready, str(each["taken"]), str(each["workers"]), str(each["slots"]), state)
    return made
