"""Cores with one seeded fault each: the worlds must catch every one, or they test nothing.

A mutant is the real conductor or the real store with one method changed, as a tired programmer might have written it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from books import Books, MemoryBooks

from pipeline.conductor import Attempt, Conductor, Decision
from pipeline.document import load
from pipeline.errors import PipelineError
from pipeline.events import envelope, seal
from pipeline.job import (
    JOB_LEVEL,
    READY_DUE_S,
    AssetRecord,
    Commit,
    EventDraft,
    Guard,
    IllegalMove,
    Job,
    JobStatus,
    Move,
    Outcome,
    Priority,
    Ref,
    Status,
    Step,
)
from pipeline.memory import ManualClock, MemoryJobStore, _Asset
from pipeline.ports import Ledger, Quotas
from pipeline.ready import Place, ReadyIndex


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One fault; the other half is real."""

    conductor: type[Conductor] = Conductor
    store: type[MemoryJobStore] = MemoryJobStore

    def books(self, clock: ManualClock) -> Books:
        return MemoryBooks(self.store(clock))


# -- the conductor forgets --------------------------------------------------------------------------------------------


class ForgottenFence(Conductor):
    """A worker's last word counts while *anybody* works on the step."""

    @staticmethod
    def _ours(attempt: Attempt, decide: Decision) -> Decision:
        def guarded(job: Job, asset: AssetRecord) -> Commit | None:
            return decide(job, asset) if job.steps[attempt.ref.step].status.leased else None

        return guarded


class _Rewriting:
    """A store that changes every commit on its way."""

    def __init__(self, store: Ledger, rewrite: Any) -> None:
        self._store, self._rewrite = store, rewrite

    def commit(self, commit: Commit, *more: Commit) -> Outcome:
        return self._store.commit(self._rewrite(commit), *map(self._rewrite, more))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class _RewritingConductor(Conductor):
    def __init__(self, store: Ledger, *args: Any, **options: Any) -> None:
        super().__init__(_Rewriting(store, self._rewrite), *args, **options)

    def _rewrite(self, commit: Commit) -> Commit:
        raise NotImplementedError


class BlindBegin(_RewritingConductor):
    """Begin compares nothing: two workers with the same ticket both get the step."""

    def _rewrite(self, commit: Commit) -> Commit:
        begins = any(draft.type == "step.started" for draft in commit.events)
        return replace(commit, expect={}) if begins else commit


class DoubleEvent(Conductor):
    """Settling a step says so twice."""

    def _settle(self, job: Job, old: Step, new: Step, event: EventDraft) -> Commit:
        commit = super()._settle(job, old, new, event)
        return replace(commit, events=(*commit.events, event))


class NobodyReleases(Conductor):
    """Whoever settles a need decides from its own read whether the rest is settled: two last needs both look away."""

    def _settle(self, job: Job, old: Step, new: Step, event: EventDraft) -> Commit:
        commit = super()._settle(job, old, new, event)
        after = replace(job, steps={**job.steps, new.id: new})
        sure = tuple(guard for guard in commit.guards if not after.unsettled_needs(job.steps[guard.step]))
        return replace(commit, guards=sure)


class UnnoticedGrowth(Conductor):
    """A step that settles while the plan grows releases only whom it saw waiting."""

    def _settle(self, job: Job, old: Step, new: Step, event: EventDraft) -> Commit:
        return replace(super()._settle(job, old, new, event), revision=None)


class HastyClose(Conductor):
    """Every commit tries to close the job, and close does not look whether all is settled."""

    def _try(self, job_id: str, decide: Decision) -> Outcome | None:
        outcome = super()._try(job_id, decide)
        if outcome is not None and outcome.applied and getattr(self, "_closing", None) != job_id:
            self._closing = job_id
            self.close(job_id)
        return outcome

    def close(self, job_id: str) -> bool:
        def decide(job: Job, asset: AssetRecord) -> Commit | None:
            return self._ending(job, asset, JobStatus.SUCCEEDED, "asset.ready", load(asset.document))

        return super()._try(job_id, decide) is not None


class GreedySweep(_RewritingConductor):
    """A sweep takes a step even if its lease was renewed since it looked."""

    def _rewrite(self, commit: Commit) -> Commit:
        return replace(commit, overdue=None)


class StubbornSweep(Conductor):
    """A sweep that comes second tries again and again, though there is nothing to do."""

    def _try(self, job_id: str, decide: Decision) -> Outcome | None:
        outcome = super()._try(job_id, decide)
        if outcome is not None and not outcome.applied and not getattr(self, "_again", False):
            self._again = True
            try:
                return self._carry_out(job_id, decide)
            finally:
                self._again = False
        return outcome


class UncountedLosses(Conductor):
    """A lost worker is not counted: a poison file loops for ever."""

    def _swept(self, job: Job, asset: AssetRecord, step_id: str) -> Commit | None:
        step = job.steps.get(step_id)
        if step is None or not step.status.leased:
            return super()._swept(job, asset, step_id)
        ready = step.after(Move.LOSE, worker=None)
        error = PipelineError("worker_lost", losses=1, step=step.id)
        event = self._step_event(job, step, "step.retrying", error=error)
        return replace(self._move(job, step, ready, due=READY_DUE_S, events=(event,)), overdue=step_id)


class EndlessRetries(Conductor):
    """Transient failures are not counted."""

    def _retry(self, job: Job, step: Step, error: PipelineError) -> Commit:
        commit = super()._retry(job, step, error)
        return replace(commit, steps={name: _untroubled(new) for name, new in commit.steps.items()})


def _untroubled(step: Step) -> Step:
    return replace(step, retries=0, suspicions=0, troubled_ms=None)


class ImpatientRetries(Conductor):
    """Every retry is counted, as if an outage ended after a few."""

    def _worth_a_retry(self, step: Step, error: PipelineError) -> bool:
        return step.retries < 5


class PatientStalls(Conductor):
    """A file that stalls is tried as long as a storage that does not answer."""

    def _worth_a_retry(self, step: Step, error: PipelineError) -> bool:
        return super()._worth_a_retry(step, PipelineError("storage_unavailable"))


class ForgottenRetry(Conductor):
    """A step that waits for its retry stands in no index."""

    def _retry(self, job: Job, step: Step, error: PipelineError) -> Commit:
        return replace(super()._retry(job, step, error), due={step.id: None})


class SaidOnce(Conductor):
    """Announcing the publishing again is an illegal move, though the first reply may have been lost."""

    def publishing(self, attempt: Attempt) -> bool:
        job = self.store.job(attempt.ref.job)
        if job is not None and job.steps[attempt.ref.step].status is Status.PUBLISHING:
            raise IllegalMove(attempt.ref)
        return super().publishing(attempt)


class LateCancel(Conductor):
    """Cancel does not ask whether publishing has begun."""

    def cancel(self, job_id: str) -> bool:
        def decide(job: Job, asset: AssetRecord) -> Commit | None:
            error = PipelineError("cancelled").document()
            return self._ending(job, asset, JobStatus.CANCELLED, "asset.cancelled", load(asset.document), error=error)

        return self._carry_out(job_id, decide) is not None


class RacingCancel(_RewritingConductor):
    """Cancel asks whether publishing has begun, but not whether that was still true when it committed."""

    def _rewrite(self, commit: Commit) -> Commit:
        cancels = any(draft.type == "asset.cancelled" for draft in commit.events)
        return replace(commit, revision=None) if cancels else commit


class UnpublishingCancel(Conductor):
    """Cancel asks whether somebody is publishing, but not whether somebody has."""

    def cancel(self, job_id: str) -> bool:
        def decide(job: Job, asset: AssetRecord) -> Commit | None:
            if job.publishing:
                raise PipelineError("asset_busy", asset=job.asset)
            error = PipelineError("cancelled").document()
            return self._ending(job, asset, JobStatus.CANCELLED, "asset.cancelled", load(asset.document), error=error)

        return self._carry_out(job_id, decide) is not None


class BlindCut(Conductor):
    """What is left is given up without a look at where it stands."""

    def _cut_short(self, job: Job, asset: AssetRecord) -> Commit:
        return replace(super()._cut_short(job, asset), expect={})


class SilentCut(Conductor):
    """What is left is given up, and nobody hears of it."""

    def _cut_short(self, job: Job, asset: AssetRecord) -> Commit:
        commit = super()._cut_short(job, asset)
        return replace(commit, events=tuple(draft for draft in commit.events if draft.type.startswith("asset.")))


class PublishingForEver(Conductor):
    """A job that published once stays busy to its end."""

    def _settle(self, job: Job, old: Step, new: Step, event: EventDraft) -> Commit:
        return replace(super()._settle(job, old, new, event), header=None)


class ForgottenExposure(Conductor):
    """A step that lost its worker while it published counts as one that never did."""

    def _swept(self, job: Job, asset: AssetRecord, step_id: str) -> Commit | None:
        commit = super()._swept(job, asset, step_id)
        if commit is None:
            return None
        return replace(commit, steps={name: replace(new, exposed=False) for name, new in commit.steps.items()})


class FatalOptional(Conductor):
    """An optional step's failure fails the job."""

    def _failed(self, job: Job, asset: AssetRecord, step: Step, error: PipelineError) -> Commit:
        commit = super()._failed(job, asset, replace(step, optional=False), error)
        return replace(commit, steps={step.id: replace(commit.steps[step.id], optional=step.optional)})


class SharedVersion(_RewritingConductor):
    """Two changes of the document do not see each other: both become the same version."""

    def _rewrite(self, commit: Commit) -> Commit:
        return replace(commit, asset_version=None)


class StaleHold(_RewritingConductor):
    """Begin asks whether the job is held, but not whether that was still so when it committed."""

    def _rewrite(self, commit: Commit) -> Commit:
        begins = any(draft.type == "step.started" for draft in commit.events)
        return replace(commit, revision=None) if begins else commit


class CountedRoom(Conductor):
    """A step that finds no room has failed once more."""

    def _move(
        self, job: Job, old: Step, new: Step, *, due: float | None, events: tuple[EventDraft, ...] = ()
    ) -> Commit:
        if (old.status, new.status) == (Status.READY, Status.RETRYING):
            new = replace(new, retries=new.retries + 1)
        return super()._move(job, old, new, due=due, events=events)


class TwoCommits(Conductor):
    """The step and its events go one after the other: between them, the worker may die."""

    def _move(
        self, job: Job, old: Step, new: Step, *, due: float | None, events: tuple[EventDraft, ...] = ()
    ) -> Commit:
        commit = super()._move(job, old, new, due=due)
        if events and new.status is Status.RUNNING:
            if self.store.commit(commit).applied:
                self.store.commit(Commit(job=job.id, asset=job.asset, events=events))
            return replace(commit, expect={new.id: (new.status, new.fence)})
        return replace(commit, events=events)


# -- the store forgets ------------------------------------------------------------------------------------------------


class LooksTooEarly(MemoryJobStore):
    """Guards are evaluated before the change: the last need never counts."""

    def _apply(self, commit: Commit) -> Outcome:
        before = self._jobs.get(commit.job)
        self._old = dict(before.steps) if before else {}
        return super()._apply(commit)

    def _released(self, steps: Mapping[str, Step], guard: Guard) -> bool:  # type: ignore[override]
        return MemoryJobStore._released({**steps, **self._old}, guard)


class RepeatedSequence(MemoryJobStore):
    """Events of one commit share a sequence number."""

    def _announce(self, commit: Commit) -> None:
        asset = self._assets.setdefault(commit.asset, _Asset(document={}))
        if commit.document is not None:
            asset.document, asset.version = commit.document, asset.version + 1
        asset.sequence += bool(commit.events)
        for draft in commit.events:
            body = envelope(
                draft,
                asset=commit.asset,
                job=commit.job,
                organization=commit.organization,
                now_ms=self.clock.now_ms(),
                prefix=self.prefix,
            )
            self.events.append(json.loads(seal(body, sequence=asset.sequence, epoch=asset.epoch)))


class EventWithoutMove(MemoryJobStore):
    """Events are written first, and stay when the commit does not apply."""

    def commit(self, commit: Commit, *more: Commit) -> Outcome:
        if commit.job in self._jobs and not self._holds(commit):
            self._announce(replace(commit, document=None))
        return super().commit(commit, *more)


class LastingReady(MemoryJobStore):
    """The end of a job leaves its steps in the ready index."""

    def _forget(self, job_id: str, steps: Mapping[str, Step]) -> None:
        for step in steps.values():
            self._drop(Ref(job=job_id, step=step.id))


class LostTicket(MemoryJobStore):
    """A ready step comes into the ready index once; when its ticket is lost, that was it."""

    def _revive(self, ref: Ref, step: Step) -> None:
        self._look_in(ref, READY_DUE_S)


class ZombieRenewal(MemoryJobStore):
    """Renewing does not compare the fence."""

    def renew(self, ref: Ref, fence: str, lease_s: float) -> bool:
        step = self._jobs[ref.job].steps[ref.step]
        return super().renew(ref, step.fence, lease_s)


class RenewsTheEnded(MemoryJobStore):
    """Renewing does not ask whether the job has ended: a cancelled encode goes on, and its step is due for ever."""

    def renew(self, ref: Ref, fence: str, lease_s: float) -> bool:
        if self._jobs[ref.job].steps[ref.step].fence != fence:
            return False
        self._look_in(ref, lease_s)
        return True


class LastingClaim(MemoryJobStore):
    """A claim outlives the renewal of the lease: the sweeper that was too slow takes the step from a living worker."""

    def renew(self, ref: Ref, fence: str, lease_s: float) -> bool:
        claimed = ref in self._claimed
        renewed = super().renew(ref, fence, lease_s)
        if claimed:
            self._claimed.add(ref)
        return renewed


class UnwatchedEnd(MemoryJobStore):
    """A job whose last step settled is left to the worker that settled it, which may die before it closes the job."""

    def _apply(self, commit: Commit) -> Outcome:
        outcome = super()._apply(commit)
        if outcome.settled:
            self._drop(Ref(job=commit.job, step=JOB_LEVEL))
        return outcome


class EndedIsOpen(MemoryJobStore):
    """Commits on ended jobs apply."""

    def _holds(self, commit: Commit) -> bool:
        return super()._holds(replace(commit, job_in=frozenset(JobStatus), revision=None))


class HalfDue(MemoryJobStore):
    """What the guards release is not put into the due index."""

    def _schedule(self, commit: Commit, released: list[str]) -> None:
        super()._schedule(commit, [])
        for name in released:
            self._drop(Ref(job=commit.job, step=name))


# -- the agenda forgets -----------------------------------------------------------------------------------------------


class QuotaForEver(MemoryJobStore):
    """A step that waits for its retry counts for its organization still."""

    def _index(self, commit: Commit, step: Step) -> None:
        if step.status is not Status.RETRYING:
            super()._index(commit, step)


class QuotaForLostTickets(MemoryJobStore):
    """A step whose ticket was lost is ready again, and counts as taken."""

    def _revive(self, ref: Ref, step: Step) -> None:
        place = self.queue.out.get(ref)
        super()._revive(ref, step)
        if place is not None:
            self.queue.out[ref] = place


class UncountedBegin(MemoryJobStore):
    """Who begins by a ticket that was given up as lost does not count."""

    def _index(self, commit: Commit, step: Step) -> None:
        ref = Ref(job=commit.job, step=step.id)
        if step.status.leased and ref not in self.queue.out:
            self.queue.leave(ref)
        else:
            super()._index(commit, step)


class RevivedHeld(MemoryJobStore):
    """The ready steps of a held job come back when they are due."""

    def _revive(self, ref: Ref, step: Step) -> None:
        self.queue.stand(ref, self._place(ref.job, step), self._ranks[ref.job])
        self._look_in(ref, READY_DUE_S)


class LateHold(MemoryJobStore):
    """What is ready when its job is held is given out still."""

    def _rearrange(self, before: Job, after: Job) -> None:
        if not after.held:
            super()._rearrange(before, after)


class LazyRelease(MemoryJobStore):
    """Released is released, and nobody puts the steps back."""

    def _rearrange(self, before: Job, after: Job) -> None:
        if after.held or not before.held:
            super()._rearrange(before, after)


class _Index(MemoryJobStore):
    """A store with another ready index."""

    Index: type[ReadyIndex]

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.queue = self.Index()


class FirstServed(_Index):
    """The organization that came first is served until it has nothing left."""

    class Index(ReadyIndex):
        def _give_turn(self, place: Place) -> None:
            if place.organization not in self._turns[place.stage, place.priority]:
                super()._give_turn(place)


class HumbleTurns(_Index):
    """Low priorities go first."""

    class Index(ReadyIndex):
        def take(self, stages: Mapping[str, int], quotas: Quotas) -> list[Ref]:
            taken: list[Ref] = []
            for priority in reversed(Priority):
                for stage, room in stages.items():
                    left = room - sum(ref.stage == stage for ref in taken)
                    taken += list(self._serve(stage, priority, left, quotas))
            return taken


class QuotaOfAStage(_Index):
    """What an organization has under way is counted before a call, not within."""

    class Index(ReadyIndex):
        def take(self, stages: Mapping[str, int], quotas: Quotas) -> list[Ref]:
            self._before = {place.organization: self.taken_by(place.organization) for place in self.ready.values()}
            return super().take(stages, quotas)

        def _under(self, organization: str, quotas: Quotas) -> bool:
            quota = quotas.by_organization.get(organization, quotas.default)
            return quota is None or self._before[organization] < quota


_CONDUCTORS = (
    ForgottenFence,
    BlindBegin,
    DoubleEvent,
    NobodyReleases,
    UnnoticedGrowth,
    HastyClose,
    GreedySweep,
    StubbornSweep,
    UncountedLosses,
    EndlessRetries,
    ImpatientRetries,
    PatientStalls,
    ForgottenRetry,
    SaidOnce,
    LateCancel,
    RacingCancel,
    UnpublishingCancel,
    BlindCut,
    SilentCut,
    PublishingForEver,
    ForgottenExposure,
    FatalOptional,
    SharedVersion,
    StaleHold,
    CountedRoom,
    TwoCommits,
)
_STORES = (
    LooksTooEarly,
    RepeatedSequence,
    EventWithoutMove,
    LastingReady,
    LostTicket,
    ZombieRenewal,
    RenewsTheEnded,
    LastingClaim,
    UnwatchedEnd,
    EndedIsOpen,
    HalfDue,
    QuotaForEver,
    QuotaForLostTickets,
    UncountedBegin,
    RevivedHeld,
    LateHold,
    LazyRelease,
    FirstServed,
    HumbleTurns,
    QuotaOfAStage,
)

MUTANTS: Mapping[str, Mutant] = {
    **{kind.__name__: Mutant(conductor=kind) for kind in _CONDUCTORS},
    **{kind.__name__: Mutant(store=kind) for kind in _STORES},
}
