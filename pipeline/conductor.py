"""The conductor moves jobs forward: accept · begin · finish · fail · cancel · hold · sweep.

Each method reads the record, decides by the table in `pipeline.job`, and asks the store for one atomic commit that
compares what the decision was based on. A commit that does not apply changed nothing: the decision is made again from a
fresh read, or dropped when the record says that it is no longer ours to make. No method waits for media or storage,
but for the first URL that is sealed: its key may lie there.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Literal, Protocol

from pydantic import ValidationError

from pipeline import document as documents
from pipeline import edit_facts
from pipeline.acceptance import DELETE, Office, Wanted, blaming, is_exclusive, same, wanted
from pipeline.answers import (
    Answer,
    Caption,
    Edited,
    Exported,
    Previewed,
    Published,
    Reverted,
    Subtitled,
    Trimmed,
)
from pipeline.document import AssetDocument, SubtitleTrack
from pipeline.errors import PipelineError
from pipeline.events import FAILURES, asset_facts, meta_of
from pipeline.job import (
    JOB_LEVEL,
    READY_DUE_S,
    SCHEMA,
    AssetRecord,
    Commit,
    EventDraft,
    Guard,
    Job,
    JobStatus,
    Move,
    Outcome,
    Priority,
    Ref,
    Refusal,
    Status,
    Step,
)
from pipeline.ports import Clock, Ledger
from pipeline.profile import Profile
from pipeline.requests import JobRequest, first_missing_field, first_wrong_field
from pipeline.seal import Seal
from pipeline.standing import Standing
from pipeline.tasks import USUAL_LIMITS, Blueprint, IngestFacts, Limits, MediaInfo

LEASE_S = 15.0
"""A running step's lease; renewed every third of it."""
MAX_LOSSES = 3
"""A step whose worker was lost this often fails: a poison file cannot loop."""
RETRY_FOR_S = 3600.0
MAX_RETRY_AFTER_S = 600.0
"""A step goes on trying for so long after its first transient failure: an outage of that length fails nothing."""
MIN_RETRIES = 5
"""… and so often at least, however long each attempt takes."""
MAX_SUSPICIONS = 5
"""Transient failures that may be the file's own fault (`stalled` …) before the step fails with the last of them."""
WAITING_DUE_S = 120.0
"""How often the needs of a waiting step are asked again, should a release ever be missed."""
QUOTA_RETRY_S = 30
"""An organization that has too many open jobs is told to come back after so long."""
TURN_S = 1.0
"""How soon a trim that waits for an earlier one looks again whether that has ended; half as long again for every one
that is before it, because none of those takes less."""
MAX_TURN_S = 30.0
BUSY_DUE_S = 1.0
"""How soon a deletion looks again whether what is being published has become public."""
TIDY_DUE_S = 30.0
"""How long a sweeper may take to tidy an ended job before another one tries."""
_AROUND = frozenset(
    {
        "storage_unavailable",
        "storage_full",
        "queue_unavailable",
        "schema_newer",
        "source_unavailable",
        "edit_changed",
    }
)
"""Transient errors that no file can cause: what matters is how long they last, not how often they are met."""
_ATTEMPTS = 50
"""Fresh reads before a contended decision is given up (and left to the sweeper)."""


WhenBusy = Literal["refuse", "queue"]
"""What becomes of a trim, a revert or a roll back while another of the asset has not ended."""


class Planner(Protocol):
    """Where plans come from: `pipeline.plan`, or a test's toy plan."""

    def first_steps(self, request: JobRequest) -> tuple[Step, ...]:
        """The steps that are known at acceptance."""

    def grow(self, job: Job, facts: IngestFacts) -> tuple[Blueprint, tuple[Step, ...]]:
        """The rest of the plan, once the source is known."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One worker's right to do one step, proven by its fence."""

    ref: Ref
    fence: str
    worker: str
    job: Job
    """The job as it was at the begin commit."""

    @property
    def step(self) -> Step:
        return self.job.steps[self.ref.step]


Fits = Callable[[Job, Step], float | None]
"""Whether a step fits into a worker: None, or for how many seconds it should wait before anybody tries again."""
Decision = Callable[[Job, AssetRecord], Commit | None]


class Conductor:
    """Decides every move of every job; holds no state of its own."""

    def __init__(
        self,
        store: Ledger,
        clock: Clock,
        planner: Planner,
        profiles: Mapping[str, Profile],
        *,
        base_url: str = "",
        seal: Seal | None = None,
        when_busy: WhenBusy = "refuse",
        retry_for_s: float = RETRY_FOR_S,
        nonce: Callable[[], str] = lambda: secrets.token_hex(4),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.store = store
        self.clock = clock
        self.planner = planner
        self.profiles = profiles
        self.base_url = base_url
        self.seal = seal or Seal()
        self.when_busy = when_busy
        self.retry_for_s = retry_for_s
        self.nonce = nonce
        self.jitter = jitter

    # -- requests -----------------------------------------------------------------------------------------------------

    def accept(
        self,
        request: JobRequest,
        *,
        workers: int = 1,
        standing: Standing | None = None,
        limits: Limits = USUAL_LIMITS,
        max_open: int | None = None,
    ) -> Job:
        """Save a job for the request, with its first steps. Accepting the same request again returns the same job.

        `workers` is the fleet's size as far as it is known, `standing` what storage says of an asset that is there
        already. Raises `PipelineError` when the request cannot be accepted; nothing is saved then.
        """
        terms = wanted(request, workers=workers, standing=standing, limits=limits, max_open=max_open)
        return self.accept_all(terms)[0]

    def accept_all(self, asked: Sequence[Wanted]) -> list[Job]:
        """Save a job for each, in one commit: all of them or none. What was accepted before is not accepted again.

        The error of a refusal has the `index` of the one that is to blame, where there are several.
        """
        for _ in range(_ATTEMPTS):
            known = {each.id: job for each in asked if (job := self._accepted(each)) is not None}
            new = {index: each for index, each in enumerate(asked) if each.id not in known}
            if not new:
                return [known[each.id] for each in asked]
            jobs = self._accept_new(new, several=len(asked) > 1)
            if jobs is not None:
                return [(known | jobs)[each.id] for each in asked]
        raise PipelineError("queue_unavailable", reason="the assets are changed by too many at once")

    def foresee(self, asked: Wanted) -> None:
        """Raise what its acceptance would raise now. Nothing is saved."""
        self._accepted(asked)  # its id may be another's
        self._acceptance(asked)

    def _accept_new(self, asked: Mapping[int, Wanted], *, several: bool) -> dict[str, Job] | None:
        """Try once. None: somebody was faster, so there is something new to see."""
        try:
            commits = []
            for index, each in asked.items():
                with blaming(index if several else None):
                    commits.append(self._acceptance(each))
        except PipelineError:
            if any(self._accepted(each) for each in asked.values()):
                return None
            raise
        outcome = self.store.commit(commits[0], *commits[1:])
        if not outcome.applied:
            index = list(asked)[outcome.index]
            with blaming(index if several else None):
                _raise_refusal(outcome, asked[index])
            return None
        return {commit.job: commit.header for commit in commits if commit.header is not None}

    def _acceptance(self, asked: Wanted) -> Commit:
        office = Office(
            first_steps=self.planner.first_steps,
            profiles=self.profiles,
            base_url=self.base_url,
            close=self.seal.close,
        )
        record = self.store.asset(asked.asset)
        # After the record: whoever comes between changes it, so that of two at once one has to look again.
        rival = self._rival(asked) if is_exclusive(asked.request) else None
        if rival is not None and self.when_busy == "refuse":
            raise PipelineError("asset_busy", asset=asked.asset, detail=_not_ended(rival))
        return office.accept(asked, record, self.clock.now_ms(), rival=rival)

    def _rival(self, asked: Wanted) -> Job | None:
        """The newest of the asset's other open jobs that changes what part of it is played."""
        others = (id_ for id_ in self.store.jobs(asked.asset, open_only=True) if id_ != asked.id)
        return next(self._exclusive(others), None)

    def _exclusive(self, ids: Iterable[str]) -> Iterator[Job]:
        """Those that take turns and have not ended. Hundreds may wait: take no more than you need."""
        jobs = (self.store.job(id_) for id_ in ids)
        return (job for job in jobs if job is not None and job.exclusive and not job.status.ended)

    def _accepted(self, asked: Wanted) -> Job | None:
        """The job that the same request became before."""
        job = self.store.job(asked.id)
        if job is not None and not same(asked, job):
            raise PipelineError("parameter_invalid", detail=f"the request id {asked.id} is taken")
        return job

    def refuse(
        self,
        asset: str,
        error: PipelineError,
        *,
        request: str | None = None,
        entry: str | None = None,
        organization: str = "default",
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell the world that a request for `asset` was not accepted, and why. Nothing else is kept of it.

        `entry` names this sending of the request: told twice it is one event; sent again it is answered again.
        """
        named = [name for name in (request, entry) if name] or [self.nonce()]
        id_ = ".".join([*named, "request.refused"])
        data = {"request": request, "error": error.document(), "meta": dict(meta or {})}
        self.store.append(asset, EventDraft(id=id_, type="request.refused", data=data), organization=organization)

    def cancel(self, job_id: str) -> bool:
        """Stop a job. False when it has ended already.

        Nothing that is public goes away by it. Once everything required is done, a cancel gives up what is left: the
        job ends well, and `asset.ready` names the rest as missing. Raises `asset_busy` while a step changes what the
        public sees, and from then on until everything required is done.
        """

        def decide(job: Job, asset: AssetRecord) -> Commit | None:
            if job.kind == DELETE:
                raise PipelineError("asset_deleted", asset=job.asset)
            if job.delivered and not job.publishing:
                return self._cut_short(job, asset)
            if any(step.exposed for step in job.steps.values()):
                detail = "what is being published can no longer be cancelled"
                raise PipelineError("asset_busy", asset=job.asset, detail=detail)
            error = PipelineError("cancelled").document()
            document = documents.cancelled(documents.load(asset.document), aside=job.aside)
            return self._ending(job, asset, JobStatus.CANCELLED, "asset.cancelled", document, error=error)

        return self._carry_out(job_id, decide) is not None

    def hold(self, job_id: str) -> bool:
        """Let none of its steps begin until it is released; what runs goes on. False when it has ended already."""
        return self._change(job_id, held=True)

    def release(self, job_id: str) -> bool:
        """The opposite of `hold`."""
        return self._change(job_id, held=False)

    def prioritize(self, job_id: str, priority: Priority) -> bool:
        """Another priority for what has not begun. False when the job has ended already."""
        return self._change(job_id, priority=priority)

    def _change(self, job_id: str, **changes: Any) -> bool:
        def decide(job: Job, _asset: AssetRecord) -> Commit | None:
            return Commit(
                job=job.id,
                asset=job.asset,
                revision=job.revision,
                header=replace(job, **changes),
                rank=job.created_ms,
                organization=job.organization,
            )

        return self._carry_out(job_id, decide) is not None

    # -- the life of a step -------------------------------------------------------------------------------------------

    def begin(self, ref: Ref, worker: str, *, fits: Fits | None = None) -> Attempt | None:
        """Take a ready step for `worker`. None when it is not to be had: begun by another, held, settled, or gone.

        Where it does not fit into this worker, it waits for as long as `fits` says, and is anybody's again: that is no
        attempt, counts for nothing, and nobody hears of it.
        """
        begun: list[Job] = []

        def decide(job: Job, _asset: AssetRecord) -> Commit | None:
            begun.clear()
            step = job.steps.get(ref.step)
            if step is None or job.held or step.status is not Status.READY or job.unsettled_needs(step):
                return None
            wait = self._turn_s(job) or (fits(job, step) if fits is not None else None)
            if wait is not None:
                return self._move(job, step, step.after(Move.POSTPONE), due=wait * (0.75 + self.jitter() / 2))
            now = self.clock.now_ms()
            fence = f"{step.attempt + 1}-{self.nonce()}"
            taken = step.after(
                Move.BEGIN, fence=fence, worker=worker, begun_ms=step.begun_ms or now, started_ms=now, ended_ms=None
            )
            begun.append(job.with_steps(taken))
            event = self._step_event(job, taken, "step.started")
            # The revision: had the job been held since our read, nothing of it might begin.
            return replace(self._move(job, step, taken, due=LEASE_S, events=(event,)), revision=job.revision)

        if self._carry_out(ref.job, decide) is None or not begun:
            return None
        return Attempt(ref=ref, fence=begun[0].steps[ref.step].fence, worker=worker, job=begun[0])

    def _turn_s(self, job: Job) -> float | None:
        """For how long a trim should wait before it asks again whether its turn has come; None: it has.

        A later one is never older by its time, see `Office`; and one that has ended never begins again. So where
        several are before it, the oldest alone tells, and whoever comes next looks most often.
        """
        if not job.exclusive:
            return None
        oldest_first = reversed(list(self.store.jobs(job.asset, open_only=True)))
        before = list(takewhile(lambda id_: id_ != job.id, oldest_first))
        if next(self._exclusive(before), None) is None:
            return None
        return min(MAX_TURN_S, TURN_S * max(1.0, len(before) / 2))

    def renew(self, attempt: Attempt) -> bool:
        """Keep the lease. False: the step is no longer ours, stop at once."""
        return self.store.renew(attempt.ref, attempt.fence, LEASE_S)

    def publishing(self, attempt: Attempt) -> bool:
        """Announce that the attempt is about to change what the public sees. False: it must not."""

        def decide(job: Job, _asset: AssetRecord) -> Commit | None:
            step = job.steps[attempt.ref.step]
            return replace(
                self._move(job, step, step.after(Move.PUBLISH, exposed=True), due=LEASE_S),
                revision=job.revision,
                header=replace(job, status=JobStatus.PUBLISHING),
            )

        return self._carry_out(attempt.ref.job, self._ours(attempt, decide)) is not None

    def finish(self, attempt: Attempt, answer: Answer) -> bool:
        """The step is done. False: it was no longer ours, and nothing changed."""

        def decide(job: Job, asset: AssetRecord) -> Commit | None:
            step = job.steps[attempt.ref.step]
            done = step.after(Move.FINISH, facts=answer.facts, error=None, ended_ms=self.clock.now_ms())
            commit = self._settle(job, step, done, self._step_event(job, done, "step.finished"))
            if answer.ingest is not None:
                try:
                    return self._grown(commit, job, asset, answer.ingest, source=answer.source or "", done=done)
                except PipelineError as error:  # what was asked for cannot be made of this source
                    return self._failed(job, asset, step, error)
            if answer.subtitled is not None:
                return self._subtitled(commit, job, asset, answer, done)
            if answer.edits:
                return self._edited(commit, job, asset, answer, done)
            if answer.published is not None:
                return self._published(commit, job, asset, answer.published, done)
            return commit

        return self._carry_out(attempt.ref.job, self._ours(attempt, decide)) is not None

    def fail(self, attempt: Attempt, error: PipelineError) -> bool:
        """The step failed: it tries again later, or fails for good and (if required) its job with it."""

        def decide(job: Job, asset: AssetRecord) -> Commit | None:
            step = job.steps[attempt.ref.step]
            if error.retryable and self._worth_a_retry(step, error):
                retry = self._retry(job, step, error)
                # What an earlier attempt had begun to write may still come.
                return _withdrawn(retry, job, step.id) if error.unwritten and not attempt.step.exposed else retry
            return self._failed(job, asset, step, error)

        return self._carry_out(attempt.ref.job, self._ours(attempt, decide)) is not None

    def hand_back(self, attempt: Attempt) -> bool:
        """Give the step back unharmed (a drain): it is ready at once, and nothing is counted against it."""

        def decide(job: Job, _asset: AssetRecord) -> Commit | None:
            step = job.steps[attempt.ref.step]
            return self._move(job, step, step.after(Move.HAND_BACK, worker=None), due=READY_DUE_S)

        return self._carry_out(attempt.ref.job, self._ours(attempt, decide)) is not None

    # -- what nobody else looks after ---------------------------------------------------------------------------------

    def sweep(self, ref: Ref) -> Job | None:
        """Look after one overdue step or job.

        Returns the job when it has ended and its storage wants tidying; the caller does that and calls `tidied`.
        """
        if ref.step == JOB_LEVEL:
            return self._swept_job(ref.job)
        # Tried once: a conflict means that the step was renewed, taken or swept meanwhile, and is not overdue any more.
        self._try(ref.job, lambda job, asset: self._swept(job, asset, ref.step))
        return None

    def _swept_job(self, job_id: str) -> Job | None:
        job = self.store.job(job_id)
        if job is None or job.schema > SCHEMA:
            return None
        if not job.status.ended and job.kind != DELETE:
            self.close(job_id)
            return None
        # Claimed for a while: one sweeper tidies, and a storage that refuses does not fill the head of the due index.
        if not self._look_again(job, TIDY_DUE_S, overdue=True):
            return None
        if not job.status.ended and not self._emptied(job):
            self._look_again(job, BUSY_DUE_S)
            return None
        return job

    def _look_again(self, job: Job, seconds: float, *, overdue: bool = False) -> bool:
        commit = Commit(
            job=job.id,
            asset=job.asset,
            job_in=frozenset({job.status}),
            overdue=JOB_LEVEL if overdue else None,
            due={JOB_LEVEL: seconds},
        )
        return self.store.commit(commit).applied

    def _emptied(self, deletion: Job) -> bool:
        """Cancel whatever else goes on with an asset that is to be deleted. False: something is being published."""
        busy = False
        for other in self._others(deletion, open_only=True):
            if other.status.ended:
                continue
            if other.schema > SCHEMA:
                busy = True  # only a newer worker can cancel it
                continue
            try:
                self.cancel(other.id)
            except PipelineError as error:
                if error.code != "asset_busy":
                    raise
                busy = True
                if other.held:  # it must become public first, which it never would
                    self.release(other.id)
        return not busy

    def _others(self, job: Job, *, open_only: bool = False) -> list[Job]:
        ids = self.store.jobs(job.asset, open_only=open_only)
        jobs = (self.store.job(id_) for id_ in ids if id_ != job.id)
        return [other for other in jobs if other is not None]

    def close(self, job_id: str) -> bool:
        """End a job all of whose steps are settled, with its one terminal event."""

        def decide(job: Job, asset: AssetRecord) -> Commit | None:
            if not job.settled:
                return None  # which a deletion never is: it has no steps
            missing = sorted(step.id for step in job.steps.values() if step.status is Status.FAILED)
            document = documents.completed(documents.load(asset.document), aside=job.aside)
            ending = self._ending(job, asset, JobStatus.SUCCEEDED, "asset.ready", document, missing=missing)
            return replace(ending, all_settled=True)

        return self._carry_out(job_id, decide) is not None

    def tidied(self, job: Job) -> None:
        """What `sweep` returned the job for is done: nobody needs to look at it any more.

        Of a deletion: everything was removed. Its job ends with that, unless a worker may have been storing still: then
        somebody looks again when the last of them has stopped, or lost its lease.
        """
        if not job.status.ended:
            self._deleted(job.id)
            return
        self.store.commit(
            Commit(job=job.id, asset=job.asset, job_in=frozenset({job.status}), due={JOB_LEVEL: None}, forget=True)
        )

    def _deleted(self, job_id: str) -> None:
        def decide(job: Job, asset: AssetRecord) -> Commit | None:
            left_s = self._lease_left_s(job)
            if left_s > 0:
                return Commit(job=job.id, asset=job.asset, due={JOB_LEVEL: left_s})
            document = documents.deleted(documents.load(asset.document), job.created_ms)
            ending = self._ending(job, asset, JobStatus.SUCCEEDED, "asset.deleted", document)
            return replace(ending, due={JOB_LEVEL: None}, expire_at_ms=0)

        self._carry_out(job_id, decide)

    def _lease_left_s(self, deletion: Job) -> float:
        """How long a worker of another job, which has been told to stop, may go on storing."""
        # Another machine may have ended that job, by a clock that is ahead of ours: more than a lease it never is.
        now = self.clock.now_ms()
        ends = [
            (other.ended_ms or now) + LEASE_S * 1000
            for other in self._others(deletion)
            if any(status.leased for status in other.statuses.values())
        ]
        return min(LEASE_S, max(0.0, (max(ends, default=0.0) - now) / 1000))

    # -- decisions ----------------------------------------------------------------------------------------------------

    def _try(self, job_id: str, decide: Decision) -> Outcome | None:
        """Decide once, from a fresh read. None: there was nothing to decide."""
        job = self.store.job(job_id)
        if job is None or job.status.ended or job.schema > SCHEMA:
            return None
        asset = self.store.asset(job.asset)
        commit = decide(job, asset) if asset is not None else None
        if commit is None:
            return None
        outcome = self.store.commit(commit)
        if outcome.settled:
            self.close(job_id)
        return outcome

    def _carry_out(self, job_id: str, decide: Decision) -> Outcome | None:
        """Decide from a fresh read until a commit applies. None: there was nothing (more) to decide."""
        for _ in range(_ATTEMPTS):
            outcome = self._try(job_id, decide)
            if outcome is None or outcome.applied:
                return outcome
        raise PipelineError("queue_unavailable", reason=f"job {job_id} is changed by too many at once")

    @staticmethod
    def _ours(attempt: Attempt, decide: Decision) -> Decision:
        """The decision, as long as the attempt's fence still runs the step."""

        def guarded(job: Job, asset: AssetRecord) -> Commit | None:
            step = job.steps.get(attempt.ref.step)
            if step is None or step.fence != attempt.fence or not step.status.leased:
                return None
            return decide(job, asset)

        return guarded

    def _swept(self, job: Job, asset: AssetRecord, step_id: str) -> Commit | None:
        step = job.steps.get(step_id)
        if step is None or step.status.settled:
            return Commit(job=job.id, asset=job.asset, overdue=step_id, due={step_id: None})
        if step.status is Status.WAITING:
            return Commit(
                job=job.id,
                asset=job.asset,
                overdue=step_id,
                due={step_id: WAITING_DUE_S},
                guards=_guards([step]),
                rank=job.created_ms,
                organization=job.organization,
            )
        if step.status is Status.READY:
            return None  # made ready since it was due; the store itself looks after lost tickets
        if step.status is Status.RETRYING:
            return replace(self._move(job, step, step.after(Move.WAKE), due=READY_DUE_S), overdue=step_id)
        lost = replace(step, losses=step.losses + 1)
        if lost.losses >= MAX_LOSSES:
            error = PipelineError("worker_lost", losses=lost.losses, step=step.id)
            return replace(self._failed(job, asset, lost, error), overdue=step_id)
        event = self._step_event(
            job, lost, "step.retrying", error=PipelineError("worker_lost", losses=lost.losses, step=step.id)
        )
        ready = lost.after(Move.LOSE, worker=None)
        return replace(self._move(job, step, ready, due=READY_DUE_S, events=(event,)), overdue=step_id)

    def _worth_a_retry(self, step: Step, error: PipelineError) -> bool:
        """What may be the file's own fault is tried so often; what lies in the world around, for so long."""
        if error.code not in _AROUND:
            return step.suspicions < MAX_SUSPICIONS
        now = self.clock.now_ms()
        return step.retries < MIN_RETRIES or now - (step.troubled_ms or now) < self.retry_for_s * 1000

    def _retry(self, job: Job, step: Step, error: PipelineError) -> Commit:
        wait = max(backoff_s(step.retries, self.jitter()), _asked_for_s(error))
        later = step.after(
            Move.RETRY,
            retries=step.retries + 1,
            suspicions=step.suspicions + (error.code not in _AROUND),
            troubled_ms=step.troubled_ms or self.clock.now_ms(),
            error=error.document(),
            worker=None,
        )
        event = self._step_event(job, step, "step.retrying", error=error, retry_in_s=wait)
        return self._move(job, step, later, due=wait, events=(event,))

    def _failed(self, job: Job, asset: AssetRecord, step: Step, error: PipelineError) -> Commit:
        failed = step.after(Move.FAIL, error=error.document(), ended_ms=self.clock.now_ms())
        event = self._step_event(job, failed, "step.failed", error=error)
        if step.optional:
            settled = self._settle(job, step, failed, event)
            return replace(settled, events=(*settled.events, *self._missing(job, failed)))
        document = documents.failed(documents.load(asset.document), error.document(), aside=job.aside)
        without = replace(job, steps={**job.steps, step.id: failed})
        ending = self._ending(without, asset, JobStatus.FAILED, "asset.failed", document, error=error.document())
        return replace(
            ending,
            expect={step.id: (step.status, step.fence)},
            steps={step.id: failed},
            events=(event, *self._missing(job, failed), *ending.events),
        )

    def _cut_short(self, job: Job, asset: AssetRecord) -> Commit:
        """Everything required is done: give up the rest, and end well without it."""
        error = PipelineError("cancelled")
        left = [step for step in job.steps.values() if not step.status.settled]
        given_up = {step.id: self._given_up(step, error) for step in left}
        failed = [step.id for step in job.steps.values() if step.status is Status.FAILED]
        document = documents.completed(documents.load(asset.document))
        ending = self._ending(
            job, asset, JobStatus.SUCCEEDED, "asset.ready", document, missing=sorted([*failed, *given_up])
        )
        events: list[EventDraft] = []
        for step in given_up.values():
            events += (self._step_event(job, step, "step.failed", error=error), *self._missing(job, step))
        return replace(
            ending,
            expect={step.id: (step.status, step.fence) for step in left},
            steps=given_up,
            events=(*events, *ending.events),
        )

    def _given_up(self, step: Step, error: PipelineError) -> Step:
        ended_ms = self.clock.now_ms() if step.status.leased else step.ended_ms
        return step.after(Move.GIVE_UP, error=error.document(), ended_ms=ended_ms)

    def _grown(
        self, commit: Commit, job: Job, asset: AssetRecord, facts: IngestFacts, *, source: str, done: Step
    ) -> Commit:
        blueprint, steps = self.planner.grow(job, facts)
        settled = {done.id, *(step.id for step in job.steps.values() if step.status.settled)}
        new = {
            step.id: replace(step, status=Status.READY if settled.issuperset(step.needs) else Status.WAITING)
            for step in steps
        }
        document = documents.ingested(documents.load(asset.document), facts.media, source)
        return self._with_document(
            replace(
                commit,
                revision=job.revision,
                header=replace(_without_url(commit.header or job), blueprint=blueprint),
                expect={**commit.expect, **dict.fromkeys(new)},
                steps={**commit.steps, **new},
                due={**commit.due, **{step.id: _due_s(step) for step in new.values()}},
                # An older step that they need may settle between our read and this commit: the store looks again.
                guards=(*commit.guards, *_guards(step for step in new.values() if step.status is Status.WAITING)),
            ),
            job,
            asset,
            "asset.ingested",
            document,
            key=f"{done.id}.{done.attempt}",
            media=facts.media,
        )

    def _published(self, commit: Commit, job: Job, asset: AssetRecord, published: Published, done: Step) -> Commit:
        made: list[tuple[str, str]] = [(rendition.name, rendition.kind) for rendition in published.renditions]
        if published.version == 1:  # with it comes the text that the source brought
            made += [(caption.id, "text") for caption in published.captions if not caption.auto_generated]
        tracks = tuple(_track_ready(job, done, name, kind, published) for name, kind in made)
        return self._with_document(
            replace(commit, events=(*commit.events, *tracks)),
            job,
            asset,
            "asset.playable",
            self.shown(documents.load(asset.document), published),
            key=f"{done.id}.{done.attempt}",
        )

    def _subtitled(self, commit: Commit, job: Job, asset: AssetRecord, answer: Answer, done: Step) -> Commit:
        """Captions came to an asset that plays already; or nobody speaks in it, and nothing changes."""
        published, subtitled = answer.published, answer.subtitled
        data: dict[str, Any] = {"job": job.id, "facts": dict(answer.facts), "meta": meta_of(job)}
        id_ = f"{job.id}.{done.id}.{done.attempt}.subtitle.completed"
        if published is None or subtitled is None or subtitled.track is None:
            said = EventDraft(id=id_, type="subtitle.completed", data=data)
            return replace(commit, events=(*commit.events, said))
        document = self.shown(documents.load(asset.document), published)
        track = next(track for track in self._tracks(published) if track.track == subtitled.track)
        data |= {"track": track.model_dump(mode="json"), "version": published.version}
        events = (
            _track_ready(job, done, subtitled.track, "text", published),
            EventDraft(id=id_, type="subtitle.completed", data=data),
        )
        return self._with_document(
            replace(commit, events=(*commit.events, *events)),
            job,
            asset,
            None,
            document,
            key=f"{done.id}.{done.attempt}",
        )

    def _edited(self, commit: Commit, job: Job, asset: AssetRecord, answer: Answer, done: Step) -> Commit:
        """Another part of the asset is played, or a clip has come to be; or a file or a preview was made of it."""
        published, exported = answer.published, answer.exported
        key = f"{done.id}.{done.attempt}"
        facts = tuple(edit_facts.told(job.with_steps(done), answer, key=key, base_url=self.base_url))
        commit = replace(commit, events=(*commit.events, *facts))
        document = documents.load(asset.document)
        if exported is not None:
            url = edit_facts.url_of(self.base_url, exported.key)
            document = documents.exported(document, url, edit_facts.video_edit(exported.edit))
        elif published is None:
            return commit
        elif job.kind in edit_facts.CLIPS:
            return self._published(commit, job, asset, published, done)
        if published is not None:
            document = self.shown(document, published)
        return self._with_document(commit, job, asset, None, document, key=key)

    def shown(self, document: AssetDocument, published: Published) -> AssetDocument:
        """The document with what a presentation holds."""
        return documents.published(
            document,
            list(published.renditions),
            duration_ms=published.duration_ms,
            segments=published.segments,
            tracks=self._tracks(published),
            version=published.shown or published.version,
            edit=edit_facts.video_edit(published.edit),
        )

    def _tracks(self, published: Published) -> list[SubtitleTrack]:
        return [
            SubtitleTrack(
                id=caption.id if caption.number is None else caption.number,
                track=caption.id,
                name=caption.name,
                language=caption.language,
                url=edit_facts.url_of(self.base_url, caption.key),
                auto_generated=caption.auto_generated,
            )
            for caption in published.captions
        ]

    @staticmethod
    def _missing(job: Job, failed: Step) -> tuple[EventDraft, ...]:
        """What the failure of an optional step means to those who wait for what it adds."""
        type_ = FAILURES.get(failed.stage)
        if type_ is None:
            return ()
        data = {"job": job.id, "error": failed.error, "meta": meta_of(job)}
        return (EventDraft(id=f"{job.id}.{failed.id}.{failed.attempt}.{type_}", type=type_, data=data),)

    # -- commits ------------------------------------------------------------------------------------------------------

    def _move(
        self, job: Job, old: Step, new: Step, *, due: float | None, events: tuple[EventDraft, ...] = ()
    ) -> Commit:
        return Commit(
            job=job.id,
            asset=job.asset,
            expect={old.id: (old.status, old.fence)},
            steps={new.id: new},
            due={new.id: due},
            rank=job.created_ms,
            organization=job.organization,
            events=events,
        )

    def _settle(self, job: Job, old: Step, new: Step, event: EventDraft) -> Commit:
        """The step is settled: what waited for it alone becomes ready, by the store's own look at the record."""
        # The revision: had the plan grown since our read, somebody new might wait for this step.
        commit = replace(
            self._move(job, old, new, due=None, events=(event,)),
            guards=_guards(job.dependants(new.id)),
            revision=job.revision,
        )
        if not old.exposed:
            return commit
        return replace(commit, header=_as_exposed(job, new))

    def _ending(
        self,
        job: Job,
        asset: AssetRecord,
        status: JobStatus,
        type_: str,
        document: AssetDocument,
        *,
        error: Mapping[str, Any] | None = None,
        missing: list[str] | None = None,
    ) -> Commit:
        """The job's one terminal move. The job then stands overdue until its storage is tidied.

        Where workers are at their steps still, it is tidied when the last of them has stopped, or lost its lease.
        """
        busy = any(step.status.leased for step in job.steps.values())
        ended = replace(job, status=status, error=error, ended_ms=self.clock.now_ms())
        commit = Commit(
            job=job.id,
            asset=job.asset,
            revision=job.revision,
            header=ended,
            due={JOB_LEVEL: LEASE_S if busy else 0.0},
            forget=True,
            organization=job.organization,
            events=tuple(edit_facts.came_to_nothing(ended)),
        )
        return self._with_document(commit, job, asset, type_, document, key="end", error=error, missing=missing)

    def _with_document(
        self,
        commit: Commit,
        job: Job,
        asset: AssetRecord,
        type_: str | None,
        document: AssetDocument,
        *,
        key: str,
        error: Mapping[str, Any] | None = None,
        missing: list[str] | None = None,
        media: MediaInfo | None = None,
    ) -> Commit:
        stamped = documents.stamped(document, version=asset.version + 1, now_ms=self.clock.now_ms())
        events = asset_facts(job, type_, stamped, key=key, error=error, missing=missing, media=media)
        return replace(
            commit,
            asset_version=asset.version,
            document=stamped.model_dump(mode="json"),
            events=(*commit.events, *events),
        )

    # -- events -------------------------------------------------------------------------------------------------------

    def _step_event(
        self, job: Job, step: Step, type_: str, *, error: PipelineError | None = None, **extra: Any
    ) -> EventDraft:
        data: dict[str, Any] = {
            "job": job.id,
            "step": step.id,
            "stage": step.stage,
            "attempt": step.attempt,
            "worker": step.worker,
            "meta": meta_of(job),
            **extra,
        }
        if error is not None:
            data["error"] = error.document()
        if step.ended_ms is not None and step.started_ms is not None:
            data["seconds"] = (step.ended_ms - step.started_ms) / 1000
            data["facts"] = dict(step.facts)
        return EventDraft(id=f"{job.id}.{step.id}.{step.attempt}.{type_}", type=type_, data=data)


def _raise_refusal(outcome: Outcome, refused: Wanted) -> None:
    """Raise what no fresh read can change."""
    if outcome.refusal is Refusal.QUOTA:
        raise PipelineError(
            "quota_exceeded",
            organization=refused.request.organization,
            maximum=refused.max_open or 0,
            retry_after_s=QUOTA_RETRY_S,
        )
    if outcome.refusal is Refusal.CLOSED:
        raise PipelineError("asset_deleted", asset=refused.asset)


def _not_ended(job: Job) -> str:
    named = f"trim {job.number}" if job.number is not None else f"the job {job.id}"
    return f"{named} has not ended"


def backoff_s(retries: int, jitter: float = 0.0) -> float:
    """Seconds before the next try: 1, 2, 4 … at most 60; up to half less by `jitter` (0 to 1), so that steps that
    failed together do not come back together."""
    return round(min(60.0, 2.0 ** min(retries, 6)) * (1 - jitter / 2), 3)


def _asked_for_s(error: PipelineError) -> float:
    """Seconds that a server asked us to wait, as far as we heed it."""
    asked = error.params.get("retry_after_s", 0)
    return min(float(asked), MAX_RETRY_AFTER_S) if isinstance(asked, int | float) else 0.0


def refusal(error: ValidationError) -> PipelineError:
    """A request that does not validate, as an error of the catalogue that names the first wrong field."""
    missing = first_missing_field(error)
    if missing is not None:
        return PipelineError("parameter_not_provided", parameter=missing)
    return PipelineError("parameter_invalid", detail=first_wrong_field(error))


def _without_url(job: Job) -> Job:
    """Its source lies where it shall: what was secret in its URL is of no use any more."""
    url = str(job.request.get("url", ""))
    if job.sealed is None and not documents.holds_secret(url):  # the second: a job of before URLs were sealed
        return job
    return replace(job, sealed="", request={**job.request, "url": documents.public_url(url)})


def _guards(steps: Iterable[Step]) -> tuple[Guard, ...]:
    return tuple(Guard(step=step.id, stage=step.stage, needs=step.needs) for step in steps)


def _withdrawn(commit: Commit, job: Job, step_id: str) -> Commit:
    """The same, and the step is not exposed any more: it can be cancelled again."""
    step = replace(commit.steps[step_id], exposed=False)
    return replace(commit, revision=job.revision, header=_as_exposed(job, step), steps={**commit.steps, step_id: step})


def _as_exposed(job: Job, changed: Step) -> Job:
    """The job as it is with this step: is anything of it being published still?"""
    status = JobStatus.PUBLISHING if job.with_steps(changed).publishing else JobStatus.ACTIVE
    return replace(job, status=status)


def _due_s(step: Step) -> float:
    return READY_DUE_S if step.status is Status.READY else WAITING_DUE_S


def _track_ready(job: Job, done: Step, track: str, kind: str, published: Published) -> EventDraft:
    return EventDraft(
        id=f"{job.id}.{done.id}.{done.attempt}.track.ready.{track}",
        type="track.ready",
        data={"job": job.id, "track": track, "kind": kind, "version": published.version, "meta": meta_of(job)},
    )


__all__ = [
    "Answer",
    "Attempt",
    "Caption",
    "Conductor",
    "Edited",
    "Exported",
    "Fits",
    "Planner",
    "Previewed",
    "Published",
    "Reverted",
    "Subtitled",
    "Trimmed",
    "Wanted",
    "WhenBusy",
    "backoff_s",
    "refusal",
]
