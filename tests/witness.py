"""The store of a world: unreliable, and watched at every single operation.

It fails before a call or after it (a lost reply) as luck has it, and compares what each commit did with what
may happen to a job at all: legal moves only, nobody but its worker or a sweeper in time touches a step that somebody
works on, what is public stays, and whatever is not settled stands in the due index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from fairness import Fairness

from pipeline.conductor import LEASE_S
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
from pipeline.ports import NO_QUOTAS, Ledger, Quotas

if TYPE_CHECKING:
    from worlds import World

T = TypeVar("T")

_LEGAL = {(before, after) for (before, _), after in TRANSITIONS.items()}
_WAITED_FOR = {(Status.WAITING, Status.READY), (Status.RETRYING, Status.READY)}
_LEGAL_JOB: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.ACTIVE: frozenset(JobStatus),
    JobStatus.PUBLISHING: frozenset({JobStatus.ACTIVE, JobStatus.PUBLISHING, JobStatus.FAILED}),
    **{status: frozenset({status}) for status in JobStatus if status.ended},
}


class Witness:
    """The store as everybody sees it: unreliable, and watched."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._alive: dict[Ref, int] = {}
        """When the worker of a step was last heard of, in ms."""
        self._fairness = Fairness(world.quota_of)

    def job(self, job_id: str) -> Job | None:
        return self._call(lambda store: store.job(job_id))

    def asset(self, asset_id: str) -> AssetRecord | None:
        return self._call(lambda store: store.asset(asset_id))

    def due(self, limit: int) -> Sequence[Ref]:
        return self._call(lambda store: store.due(limit))

    def take(self, stages: Mapping[str, int], quotas: Quotas = NO_QUOTAS) -> Sequence[Ref]:
        return self._call(lambda store: self._take(store, stages, quotas))

    def renew(self, ref: Ref, fence: str, lease_s: float) -> bool:
        def renew(store: Ledger) -> bool:
            renewed = store.renew(ref, fence, lease_s)
            job = store.job(ref.job)
            assert job is not None
            holds = not job.status.ended and job.steps[ref.step].fence == fence and job.steps[ref.step].status.leased
            assert renewed == holds, f"the lease of {ref} was renewed for somebody else"
            if renewed:
                self._alive[ref] = self._world.clock.now_ms()
            return renewed

        return self._call(renew)

    def commit(self, commit: Commit, *more: Commit) -> Outcome:
        return self._call(lambda store: self._commit(store, commit, *more))

    def append(self, asset: str, draft: EventDraft, *, organization: str = "default", job: str | None = None) -> None:
        self._call(lambda store: store.append(asset, draft, organization=organization, job=job))

    def _call(self, operation: Callable[[Ledger], T]) -> T:
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
        self._fairness.look(world.books.ready())
        if away or luck < 4:
            raise PipelineError("queue_unavailable", reason="injected")
        return answer

    def _commit(self, store: Ledger, commit: Commit, *more: Commit) -> Outcome:
        before, told = store.job(commit.job), len(self._world.books.events())
        outcome = store.commit(commit, *more)
        after = store.job(commit.job)
        if not outcome.applied:
            assert after == before, "a commit that did not apply changed something"
            assert len(self._world.books.events()) == told, "a commit that did not apply said something"
            return outcome
        assert after is not None
        self._check_moves(before, after)
        self._check_publishing(after)
        self._check_standing(after)
        return outcome

    def _check_moves(self, before: Job | None, after: Job) -> None:
        if before is not None:
            assert after.status in _LEGAL_JOB[before.status], f"the job went from {before.status} to {after.status}"
        for step in after.steps.values():
            old = before.steps.get(step.id) if before else None
            if old is not None and old != step:
                self._check_move(after, Ref(job=after.id, step=step.id), old, step)

    def _check_move(self, job: Job, ref: Ref, old: Step, new: Step) -> None:
        assert not old.status.settled, f"{ref} was settled and changed"
        assert old.status is new.status or (old.status, new.status) in _LEGAL, f"{ref}: {old.status} to {new.status}"
        if new.fence != old.fence:
            assert not job.held, f"{ref} was begun while its job was held"
            assert (old.status, new.status) == (Status.READY, Status.RUNNING), f"{ref} was begun as {old.status}"
            assert new.attempt == old.attempt + 1
        elif new.error is not None and new.error["code"] == "cancelled":
            assert job.status is JobStatus.SUCCEEDED, f"{ref} was given up, and its job is {job.status}"
            assert old.optional, f"{ref} was given up"
            assert not old.exposed, f"{ref} was given up while it published"
        elif old.status.leased:
            self._check_right(ref, old, new)
        elif (old.status, new.status) == (Status.READY, Status.RETRYING):
            assert replace(new, status=old.status) == old, f"{ref} found no room, and something was counted"
        else:
            assert (old.status, new.status) in _WAITED_FOR, f"{ref}: {old.status} to {new.status}, by nobody"
        if new.status.leased:
            self._alive[ref] = self._world.clock.now_ms()

    def _check_right(self, ref: Ref, old: Step, new: Step) -> None:
        """Only two may touch a step that somebody works on: its worker, and a sweeper once the lease ran out."""
        me = self._world.now_running
        assert me is not None
        if me.attempt is not None and me.attempt.ref == ref:
            assert me.attempt.fence == old.fence, f"{me.name} moved {ref}, which it had lost"
        else:
            silent_ms = self._world.clock.now_ms() - self._alive[ref]
            assert silent_ms >= LEASE_S * 1000, f"{me.name} took {ref} from a living worker"
            assert new.losses == old.losses + 1, f"the loss of {ref} was not counted"

    @staticmethod
    def _check_publishing(job: Job) -> None:
        """What is public stays: a job that has begun to publish is not cancelled, but it does not stay so for ever."""
        if job.status is JobStatus.CANCELLED:
            assert not any(step.exposed for step in job.steps.values()), f"{job.id} had published, and was cancelled"
        if job.status is JobStatus.SUCCEEDED:
            assert job.delivered, f"{job.id} succeeded, and something required is missing"
        if not job.status.ended:
            assert (job.status is JobStatus.PUBLISHING) == job.publishing, f"{job.id} is {job.status}"

    def _check_standing(self, job: Job) -> None:
        """Nothing can be forgotten, and nothing that is over is remembered."""
        due, ready, out = self._world.books.due(), self._world.books.ready(), self._world.books.out()
        for step in job.steps.values():
            ref = Ref(job=job.id, step=step.id)
            is_due, is_ready = ref in due, ref in ready
            is_out = ref in out
            assert not (is_ready and is_out), f"{ref} stands in two places"
            if job.status.ended:
                assert not is_out, f"{ref} of an ended job counts for its organization"
                assert not is_due, f"{ref} of an ended job is still due"
                assert not is_ready, f"{ref} of an ended job is still in the ready index"
            elif not step.status.settled:
                assert is_due, f"{ref} is {step.status} and nobody will ever look at it"
                assert step.status is Status.READY or not is_ready, f"{ref} is {step.status} and in the ready index"
                self._check_place(job, step, is_ready=is_ready, is_out=is_out)
                assert step.status is not Status.WAITING or job.unsettled_needs(step), f"nobody released {ref}"
                assert not (job.held and is_ready), f"{ref} is given out, though its job is held"
        if job.settled and not job.status.ended:
            assert Ref(job=job.id, step=JOB_LEVEL) in due, f"nobody will ever close {job.id}"

    @staticmethod
    def _check_place(job: Job, step: Step, *, is_ready: bool, is_out: bool) -> None:
        """Whoever is at work counts for its organization, and nobody else does."""
        if step.status is Status.READY and job.held:
            assert not is_ready, f"{step.id} may begin, and {job.id} is held"
        elif step.status is Status.READY:
            assert is_ready or is_out, f"{step.id} is ready, and nobody will take it"
        else:
            assert is_out == step.status.leased, f"{step.id} is {step.status}, and that it counts is {is_out}"

    def _take(self, store: Ledger, stages: Mapping[str, int], quotas: Quotas) -> Sequence[Ref]:
        ready, out = dict(self._world.books.ready()), dict(self._world.books.out())
        taken = store.take(stages, quotas)
        for ref in taken:
            assert not self._job(store, ref).held, f"{ref} was given out, and its job is held"
            self._fairness.served(ref, ready, out)
            out[ref] = ready.pop(ref)
        assert out == self._world.books.out()
        return taken

    @staticmethod
    def _job(store: Ledger, ref: Ref) -> Job:
        job = store.job(ref.job)
        assert job is not None
        return job
