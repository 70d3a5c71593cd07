"""Why a job is not further than it is: the record, the queues and the workers that are there, in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.job import Job, Status, Step
from workers.commands.moment import shown
from workers.commands.show import asked

if TYPE_CHECKING:
    from pipeline.ports import QueueFigures
    from workers.registry import WorkerRecord
    from workers.wiring import Control

_NAMED = 3
"""So many steps are named; of the others how many there are."""


def reasons(control: Control, job: Job) -> list[str]:
    """What the open job waits for, the most telling first."""
    workers = control.registry.workers()
    queues = {queue.stage: queue for queue in control.store.queues()}
    fractions = control.progress.fractions(job.id)
    steps: defaultdict[Status, list[Step]] = defaultdict(list)
    for step in job.steps.values():
        steps[step.status].append(step)
    done = sum(status.settled for status in job.statuses.values())
    what = asked(job.kind, job.number, job.request)
    said = [f"Job {job.id} ({what}) is {job.status}: {done} of {len(job.steps)} steps are done."]
    if job.held:
        said.append(f"It is held: none of its steps begins until `reelway release {job.asset}`.")
    before = _before(control, job)
    said += before
    if not job.steps:
        said.append("A sweeper in some worker carries it out." if workers else "No worker is there to carry it out.")
    said += [_running(step, fractions.get(step.id, 0.0)) for step in _first(steps, Status.RUNNING, Status.PUBLISHING)]
    # Of one that waits for another job nothing else is to be said, unless it failed before.
    retrying = [step for step in steps[Status.RETRYING] if step.error is not None or not before]
    said += [_retrying(step) for step in retrying[:_NAMED]]
    by_stage: defaultdict[str, list[Step]] = defaultdict(list)
    for step in steps[Status.READY]:
        by_stage[step.stage].append(step)
    for stage, ready in by_stage.items():
        said += _ready(control, job, stage, ready, queues.get(stage), workers)
    said += _waiting(job, steps[Status.WAITING])
    return said


def over(asset: str, document: Mapping[str, Any], last: Job | None) -> list[str]:
    """Where nothing of the asset is open: how it is, and what its last job came to, unless that ended well."""
    said = [f"Nothing of {asset} is open: it is {document['video']['status']}."]
    error = last.error if last is not None else document["video"].get("error")
    if error:
        what = f" ({asked(last.kind, last.number, last.request)})" if last is not None else ""
        said.append(f"Its last job{what} ended with {error['code']}: {error['message']} {error['hint']}")
    return said


def _before(control: Control, job: Job) -> list[str]:
    """What changes the part that is played is done one after the other: which is the first of those before it."""
    ids = control.store.jobs(job.asset, open_only=True) if job.exclusive else ()
    before = takewhile(lambda id_: id_ != job.id, reversed(list(ids)))
    others = (control.store.job(id_) for id_ in before)
    first = next((other for other in others if other is not None and other.exclusive), None)
    if first is None:
        return []
    what = asked(first.kind, first.number, first.request)
    return [f"It waits for {what} (job {first.id}), which was asked for before it."]


def _first(steps: defaultdict[Status, list[Step]], *statuses: Status) -> list[Step]:
    return [step for status in statuses for step in steps[status]][:_NAMED]


def _running(step: Step, fraction: float) -> str:
    since = shown(step.started_ms)
    return f"{step.id} runs on {step.worker} since {since} UTC and is {fraction:.0%} done (attempt {step.attempt})."


def _retrying(step: Step) -> str:
    if step.error is None:
        return f"{step.id} waits a little before it tries again."
    error = PipelineError.from_document(step.error)
    since = f" since {shown(step.troubled_ms)} UTC" if step.troubled_ms else ""
    return f"{step.id} tries again by itself{since}, because of {error.code}: {error.message}"


def _ready(
    control: Control,
    job: Job,
    stage: str,
    ready: Sequence[Step],
    queue: QueueFigures | None,
    workers: Sequence[WorkerRecord],
) -> Iterator[str]:
    """Why steps that may begin have not."""
    who = ready[0].id if len(ready) == 1 else f"{ready[0].id} and {len(ready) - 1} more"
    able = [worker for worker in workers if stage in worker.stages]
    if queue is not None and queue.paused:
        yield f"{who} may begin, but {stage} is paused: `reelway queues resume {stage}`."
    elif not able:
        yield f"{who} may begin, but no worker for {stage} is there: start `reelway worker --stages {stage}`."
    elif not job.held:
        yield f"{who} may begin; {_queue(job, queue)} {len(able)} workers do {stage}."
    refusals = {f"{job.id}/{step.id}" for step in ready}
    for worker in able:
        for ref, reason in worker.refused.items():
            if ref in refusals:
                yield f"{worker.name} found no room for it: {reason}."
    limit = control.organizations.of(job.organization).max_running_steps
    if limit is not None:
        yield f"Of {job.organization} at most {limit} steps run at once."


def _queue(job: Job, queue: QueueFigures | None) -> str:
    if queue is None:
        return "nothing stands before it."
    before = ", ".join(f"{count} {priority}" for priority, count in queue.ready.items() if count)
    return f"ready at this stage: {before or 'none'} (it is {job.priority}); taken: {queue.taken}."


def _waiting(job: Job, steps: Sequence[Step]) -> Iterator[str]:
    for step in steps[:_NAMED]:
        needs = job.unsettled_needs(step)
        named = ", ".join(needs[:_NAMED]) + (f" and {len(needs) - _NAMED} more" if len(needs) > _NAMED else "")
        yield f"{step.id} waits for {named or 'its turn'}."
