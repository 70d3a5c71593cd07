"""The store of a world: unreliable, and watched at every single operation.

It fails before a call or after it (a lost reply) as luck has it, and compares what each commit did with what
may happen to a job at all: legal moves only, nobody but its worker or a sweeper in time touches a step that somebody
works on, and whatever is not settled stands in the due index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from pipeline.errors import PipelineError
from pipeline.job import (
    JOB_LEVEL,
    TRANSITIONS,
    AssetRecord,
    Commit,
    EventDraft,
    Job,
    JobStatus,
    Outcome,
    Ref,
    Status,
    Step,
)
from pipeline.memory import MemoryJobStore

if TYPE_CHECKING:
    from worlds import World

T = TypeVar("T")

_LEGAL = {(before, after) for (before, _), after in TRANSITIONS.items()}
_LEGAL_JOB: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.ACTIVE: frozenset(JobStatus),
    JobStatus.PUBLISHING: frozenset({JobStatus.PUBLISHING, JobStatus.SUCCEEDED, JobStatus.FAILED}),
    **{status: frozenset({status}) for status in JobStatus if status.ended},
}


class Witness:
    """The store as everybody sees it: unreliable, and watched."""

    def __init__(self, world: World) -> None:
        self._world = world

    def job(self, job_id: str) -> Job | None:
        return self._call(lambda store: store.job(job_id))

    def asset(self, asset_id: str) -> AssetRecord | None:
        return self._call(lambda store: store.asset(asset_id))

    def due(self, limit: int) -> Sequence[Ref]:
        return self._call(lambda store: store.due(limit))

    def take(self, stages: Mapping[str, int]) -> Sequence[Ref]:
        return self._call(lambda store: store.take(stages))

    def renew(self, ref: Ref, fence: str, lease_s: float) -> bool:
        def renew(store: MemoryJobStore) -> bool:
            renewed = store.renew(ref, fence, lease_s)
            job = store.job(ref.job)
            assert job is not None
            holds = not job.status.ended and job.steps[ref.step].fence == fence and job.steps[ref.step].status.leased
            assert renewed == holds, f"the lease of {ref} was renewed for somebody else"
            return renewed

        return self._call(renew)

    def commit(self, commit: Commit) -> Outcome:
        return self._call(lambda store: self._commit(store, commit))

    def append(self, asset: str, draft: EventDraft, *, organization: str = "default", job: str | None = None) -> None:
        self._call(lambda store: store.append(asset, draft, organization=organization, job=job))

    def _call(self, operation: Callable[[MemoryJobStore], T]) -> T:
        world = self._world
        me = world.now_running
        assert me is not None
        luck = me.pause()
        if world.peaceful:
            luck = 50
        away = world.outage > 0
        world.outage -= away
        if (away and luck % 2) or luck < 2:
            raise PipelineError("queue_unavailable", reason="injected")
        answer = operation(world.store)
        if away or luck < 4:
            raise PipelineError("queue_unavailable", reason="injected")
        return answer

    def _commit(self, store: MemoryJobStore, commit: Commit) -> Outcome:
        before, due, told = store.job(commit.job), dict(store._due), len(store.events)
        outcome = store.commit(commit)
        after = store.job(commit.job)
        if not outcome.applied:
            assert after is before, "a commit that did not apply changed something"
            assert len(store.events) == told, "a commit that did not apply said something"
            return outcome
        assert after is not None
        self._check_moves(before, after, due)
        self._check_standing(store, after)
        return outcome

    def _check_moves(self, before: Job | None, after: Job, due: Mapping[Ref, float]) -> None:
        if before is not None:
            assert after.status in _LEGAL_JOB[before.status], f"the job went from {before.status} to {after.status}"
        for step in after.steps.values():
            old = before.steps.get(step.id) if before else None
            if old is not None and old != step:
                self._check_move(Ref(job=after.id, step=step.id), old, step, due)

    def _check_move(self, ref: Ref, old: Step, new: Step, due: Mapping[Ref, float]) -> None:
        assert not old.status.settled, f"{ref} was settled and changed"
        assert old.status is new.status or (old.status, new.status) in _LEGAL, f"{ref}: {old.status} to {new.status}"
        if new.fence != old.fence:
            assert (old.status, new.status) == (Status.READY, Status.RUNNING), f"{ref} was begun as {old.status}"
            assert new.attempt == old.attempt + 1
        elif old.status.leased:
            self._check_right(ref, old, new, due)

    def _check_right(self, ref: Ref, old: Step, new: Step, due: Mapping[Ref, float]) -> None:
        """Only two may touch a step that somebody works on: its worker, and a sweeper once the lease ran out."""
        me = self._world.now_running
        assert me is not None
        if me.attempt is not None and me.attempt.ref == ref:
            assert me.attempt.fence == old.fence, f"{me.name} moved {ref}, which it had lost"
        else:
            assert due[ref] <= self._world.clock.now_ms() / 1000, f"{me.name} took {ref} from a living worker"
            assert new.losses == old.losses + 1, f"the loss of {ref} was not counted"

    @staticmethod
    def _check_standing(store: MemoryJobStore, job: Job) -> None:
        """Nothing can be forgotten, and nothing that is over is remembered."""
        for step in job.steps.values():
            ref = Ref(job=job.id, step=step.id)
            is_due, is_ready = ref in store._due, ref in store._ready[step.stage]
            if job.status.ended:
                assert not is_due, f"{ref} of an ended job is still due"
                assert not is_ready, f"{ref} of an ended job is still in the ready index"
            elif not step.status.settled:
                assert is_due, f"{ref} is {step.status} and nobody will ever look at it"
                assert step.status is Status.READY or not is_ready, f"{ref} is {step.status} and in the ready index"
                assert step.status is not Status.WAITING or job.unsettled_needs(step), f"nobody released {ref}"
        if job.settled and not job.status.ended:
            assert Ref(job=job.id, step=JOB_LEVEL) in store._due, f"nobody will ever close {job.id}"
