"""The ports in memory: they ship with the product, run the tests, and pass the same contract tests as Redis.

The store here is the readable form of what the Lua of `workers/redis_jobs.py` does; when the two disagree, a contract
test is missing.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.events import PREFIX, envelope, seal
from pipeline.job import (
    JOB_LEVEL,
    READY_DUE_S,
    AssetRecord,
    Commit,
    EventDraft,
    Guard,
    Job,
    JobStatus,
    Outcome,
    Ref,
    Refusal,
    Status,
    Step,
)
from pipeline.ports import NO_QUOTAS, QueueFigures, Quotas
from pipeline.ready import Place, ReadyIndex

GRACE_S = 15.0
"""After an outage of the store no lease is judged for so long: nobody could renew one."""
OUTAGE_S = 5.0
"""The store counts as having been away when nobody asked what is due for so long."""
CLAIM_S = 10.0
"""What a sweeper was shown is not shown again for so long: time to decide, and what cannot be decided stands aside."""
AGAIN_S = 600.0
"""The same event appended again, or the same commit asked again, within so long is recognised."""


class ManualClock:
    """A clock that moves when it is told to."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.time_ms = now_ms

    def now_ms(self) -> int:
        return self.time_ms

    def monotonic(self) -> float:
        return self.time_ms / 1000

    def advance(self, seconds: float) -> None:
        self.time_ms += round(seconds * 1000)


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass
class _Asset:
    document: Mapping[str, Any]
    version: int = 0
    epoch: int = 1
    sequence: int = 0
    closed: bool = False


class MemoryJobStore:
    """`JobStore` and `Agenda` in one process. Thread-safe; `clock` is the store's own; nothing expires."""

    def __init__(self, clock: ManualClock | SystemClock, *, prefix: str = PREFIX) -> None:
        self.clock = clock
        self.prefix = prefix
        self.events: list[dict[str, Any]] = []
        """Every event in the order of the commits."""
        self.fullness = 0.0
        """What `pressure` says."""
        self.queue = ReadyIndex()
        self._jobs: dict[str, Job] = {}
        self._assets: dict[str, _Asset] = {}
        self._due: dict[Ref, int] = {}
        self._claimed: set[Ref] = set()
        """Of what is due: whose time was set by a claim."""
        self._ranks: dict[str, float] = {}
        self._failed: dict[str, int] = {}
        """Jobs that failed, and when, in ms."""
        self._expiries: dict[str, int] = {}
        self._appended: dict[str, int] = {}
        """Events without a job by their ids, and when they were appended."""
        self._epoch = 1
        self._swept: int | None = None
        self._judge_after = 0
        self._lock = threading.RLock()

    # -- records ------------------------------------------------------------------------------------------------------

    def job(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    def asset(self, asset_id: str) -> AssetRecord | None:
        held = self._assets.get(asset_id)
        if held is None:
            return None
        return AssetRecord(
            id=asset_id, document=held.document, version=held.version, epoch=held.epoch, sequence=held.sequence
        )

    def jobs(self, asset_id: str, *, open_only: bool = False) -> Iterator[str]:
        with self._lock:
            jobs = [job for job in self._jobs.values() if job.asset == asset_id]
            known = [job.id for job in jobs if not (open_only and job.status.ended)]
            return iter(sorted(known, key=lambda name: (self._ranks[name], name), reverse=True))

    def commit(self, commit: Commit, *more: Commit) -> Outcome:
        with self._lock:
            commits = (commit, *more)
            for index, each in enumerate(commits):
                refusal = self._refusal(each, commits[:index])
                if refusal is not None:
                    return Outcome(applied=False, refusal=refusal, index=index)
            outcomes = [self._apply(each) for each in commits]
            return outcomes[0]

    def renew(self, ref: Ref, fence: str, lease_s: float) -> bool:
        with self._lock:
            job = self._jobs.get(ref.job)
            step = job.steps.get(ref.step) if job and not job.status.ended else None
            if step is None or step.fence != fence or not step.status.leased:
                return False
            self._look_in(ref, lease_s)
            return True

    def append(self, asset: str, draft: EventDraft, *, organization: str = "default", job: str | None = None) -> None:
        with self._lock:
            if self._now() - self._appended.get(draft.id, -_ms(AGAIN_S)) >= _ms(AGAIN_S):
                self._appended[draft.id] = self._now()
                self._emit(asset, draft, organization, job)

    def restore(self, record: AssetRecord) -> bool:
        with self._lock:
            known = self._assets.get(record.id)
            if known is not None and known.version >= record.version:
                return False
            self._epoch += 1
            self._assets[record.id] = replace(
                known or _Asset(document={}),
                document=record.document,
                version=record.version,
                epoch=self._epoch,
                sequence=max(record.sequence, known.sequence if known else 0),
            )
            return True

    # -- the agenda ---------------------------------------------------------------------------------------------------

    def due(self, limit: int) -> Sequence[Ref]:
        with self._lock:
            now = self._now()
            if self._swept is None or now - self._swept > _ms(OUTAGE_S):
                self._judge_after = now + _ms(GRACE_S)
            self._swept = now
            found: list[Ref] = []
            for _, _, ref in sorted((at, str(ref), ref) for ref, at in self._due.items() if at <= now):
                if len(found) >= limit:
                    break
                self._show(ref, found)
            return found

    def _show(self, ref: Ref, found: list[Ref]) -> None:
        """Claim an overdue entry, unless the store can deal with it itself."""
        job = self._jobs.get(ref.job)
        step = job.steps.get(ref.step) if job else None
        if job is None or (job.status.ended and ref.step != JOB_LEVEL):
            self._drop(ref)
            self.queue.leave(ref)
        elif step is not None and step.status is Status.READY:
            self._revive(ref, step)
        elif self._now() >= self._judge_after or step is None or not step.status.leased:
            self._look_in(ref, CLAIM_S)
            self._claimed.add(ref)
            found.append(ref)

    def _revive(self, ref: Ref, step: Step) -> None:
        """The ticket of a ready step was lost; unless its job is held, and it has none."""
        if not self._jobs[ref.job].held:
            self.queue.stand(ref, self._place(ref.job, step), self._ranks[ref.job])
        self._look_in(ref, READY_DUE_S)

    def take(self, stages: Mapping[str, int], quotas: Quotas = NO_QUOTAS) -> Sequence[Ref]:
        with self._lock:
            return self.queue.take(stages, quotas)

    def pause(self, stage: str, paused: bool) -> None:
        with self._lock:
            (self.queue.paused.add if paused else self.queue.paused.discard)(stage)

    def queues(self) -> Sequence[QueueFigures]:
        with self._lock:
            return self.queue.figures()

    def failed(self, limit: int) -> Sequence[str]:
        with self._lock:
            return sorted(self._failed, key=lambda name: (self._failed[name], name), reverse=True)[:limit]

    def expired(self, limit: int) -> Sequence[tuple[str, int]]:
        with self._lock:
            over = [(at, asset) for asset, at in self._expiries.items() if at <= self._now()]
            return [(asset, at) for at, asset in sorted(over)[:limit]]

    def unexpire(self, asset: str, at_ms: int) -> None:
        with self._lock:
            if self._expiries.get(asset) == at_ms:
                del self._expiries[asset]

    def pressure(self) -> float:
        return self.fullness

    # -- one commit: what must hold -----------------------------------------------------------------------------------

    def _refusal(self, commit: Commit, earlier: Sequence[Commit]) -> Refusal | None:
        """Why it cannot be applied; `earlier` are those that would be applied before it."""
        if commit.new and commit.job in self._jobs:
            return Refusal.CONFLICT
        if commit.new and self._closed(commit.asset, earlier):
            return Refusal.CLOSED
        if not self._holds(commit) or not self._beside(commit, earlier):
            return Refusal.CONFLICT
        if commit.new and commit.max_open is not None and self._open_with(commit, earlier) > commit.max_open:
            return Refusal.QUOTA
        return None

    def _holds(self, commit: Commit) -> bool:
        job, asset = self._jobs.get(commit.job), self._assets.get(commit.asset)
        return all(
            (
                job is None if commit.new else job is not None and job.status in commit.job_in,
                commit.revision is None or (job is not None and job.revision == commit.revision),
                commit.asset_version is None or (asset.version if asset else 0) == commit.asset_version,
                commit.overdue is None or self._overdue(Ref(job=commit.job, step=commit.overdue)),
                not commit.all_settled or (job is not None and job.settled),
                *(self._step_is(job, step_id, expected) for step_id, expected in commit.expect.items()),
            )
        )

    @staticmethod
    def _beside(commit: Commit, earlier: Sequence[Commit]) -> bool:
        """It does not expect what an earlier one of the same call changes."""
        changed = {other.asset for other in earlier if other.document is not None}
        unknown = commit.asset_version is not None and commit.asset in changed
        return not unknown and commit.job not in {other.job for other in earlier}

    def _closed(self, asset_id: str, earlier: Sequence[Commit]) -> bool:
        asset = self._assets.get(asset_id)
        return (asset is not None and asset.closed) or any(c.closes for c in earlier if c.asset == asset_id)

    def _open_with(self, commit: Commit, earlier: Sequence[Commit]) -> int:
        """Open jobs of the commit's organization once it is applied."""
        new = [other for other in (*earlier, commit) if other.new and _organization(other) == _organization(commit)]
        mine = (job for job in self._jobs.values() if job.organization == _organization(commit))
        return len(new) + sum(not job.status.ended for job in mine)

    def _overdue(self, ref: Ref) -> bool:
        return ref in self._due and (self._due[ref] <= self._now() or ref in self._claimed)

    @staticmethod
    def _step_is(job: Job | None, step_id: str, expected: tuple[Status, str] | None) -> bool:
        step = job.steps.get(step_id) if job else None
        return (None if step is None else (step.status, step.fence)) == expected

    # -- one commit: what changes -------------------------------------------------------------------------------------

    def _apply(self, commit: Commit) -> Outcome:
        before = self._jobs.get(commit.job)
        steps = {**(before.steps if before else {}), **commit.steps}
        released = [guard for guard in commit.guards if self._released(steps, guard)]
        for guard in released:
            steps[guard.step] = replace(steps[guard.step], status=Status.READY)
        job = self._jobs[commit.job] = self._header(commit, before, steps)
        if commit.new:
            self._ranks[commit.job] = commit.rank
        if commit.forget:
            self._forget(commit.job, steps)
        elif before is not None:
            self._rearrange(before, job)
        for step_id in [*commit.steps, *(guard.step for guard in released)]:
            self._index(commit, steps[step_id])
        self._schedule(commit, [guard.step for guard in released])
        self._remember(commit, before, job)
        self._announce(commit)
        settled = job.settled and not job.status.ended
        if settled and JOB_LEVEL not in commit.due:
            self._look_in(Ref(job=commit.job, step=JOB_LEVEL), 0)
        return Outcome(applied=True, settled=settled)

    @staticmethod
    def _released(steps: Mapping[str, Step], guard: Guard) -> bool:
        waiting = steps[guard.step].status is Status.WAITING
        return waiting and all(steps[need].status.settled for need in guard.needs)

    @staticmethod
    def _header(commit: Commit, before: Job | None, steps: Mapping[str, Step]) -> Job:
        if commit.header is not None:
            revision = before.revision + 1 if before else 1
            return replace(commit.header, steps=steps, revision=revision)
        assert before is not None
        return replace(before, steps=steps)

    def _index(self, commit: Commit, step: Step) -> None:
        ref, job = Ref(job=commit.job, step=step.id), self._jobs[commit.job]
        if step.status is Status.READY and not job.status.ended and not job.held:
            self.queue.stand(ref, self._place(job.id, step), commit.rank)
        elif step.status.leased and not job.status.ended:
            self.queue.begin(ref, self._place(job.id, step))
        else:
            self.queue.leave(ref)

    def _rearrange(self, before: Job, after: Job) -> None:
        """The job is held, released, or has another priority: its ready steps go with it."""
        if (before.held, before.priority) == (after.held, after.priority):
            return
        for step in before.steps.values():
            ref = Ref(job=after.id, step=step.id)
            if step.status is not Status.READY:
                continue
            if after.held:
                self.queue.leave(ref)
            elif before.held:
                self.queue.stand(ref, self._place(after.id, step), self._ranks[after.id])
                self._look_in(ref, READY_DUE_S)
            else:
                self.queue.promote(ref, after.priority, self._ranks[after.id])

    def _place(self, job_id: str, step: Step) -> Place:
        job = self._jobs[job_id]
        return Place(stage=step.stage, priority=job.priority, organization=job.organization)

    def _schedule(self, commit: Commit, released: list[str]) -> None:
        for step_id, seconds in commit.due.items():
            ref = Ref(job=commit.job, step=step_id)
            if seconds is None:
                self._drop(ref)
            else:
                self._look_in(ref, seconds)
        for step_id in released:
            self._look_in(Ref(job=commit.job, step=step_id), READY_DUE_S)

    def _look_in(self, ref: Ref, seconds: float) -> None:
        self._due[ref] = self._now() + _ms(seconds)
        self._claimed.discard(ref)

    def _drop(self, ref: Ref) -> None:
        self._due.pop(ref, None)
        self._claimed.discard(ref)

    def _forget(self, job_id: str, steps: Mapping[str, Step]) -> None:
        for step in steps.values():
            ref = Ref(job=job_id, step=step.id)
            self._drop(ref)
            self.queue.leave(ref)

    def _remember(self, commit: Commit, before: Job | None, after: Job) -> None:
        """What is known of assets and of ended jobs besides."""
        if after.status is JobStatus.FAILED and (before is None or not before.status.ended):
            self._failed[after.id] = self._now()
        if commit.closes:
            self._assets.setdefault(commit.asset, self._new_asset()).closed = True
        if commit.closes or commit.expire_at_ms == 0:
            self._expiries.pop(commit.asset, None)
        elif commit.expire_at_ms is not None:
            self._expiries[commit.asset] = commit.expire_at_ms

    def _announce(self, commit: Commit) -> None:
        if commit.document is None and not commit.events:
            return
        asset = self._assets.setdefault(commit.asset, self._new_asset())
        if commit.document is not None:
            asset.document = commit.document
            asset.version += 1
        for draft in commit.events:
            self._emit(commit.asset, draft, commit.organization, commit.job)

    def _emit(self, asset_id: str, draft: EventDraft, organization: str, job: str | None) -> None:
        asset = self._assets.setdefault(asset_id, self._new_asset())
        asset.sequence += 1
        now_ms = self.clock.now_ms()
        body = envelope(draft, asset=asset_id, job=job, organization=organization, now_ms=now_ms, prefix=self.prefix)
        self.events.append(json.loads(seal(body, sequence=asset.sequence, epoch=asset.epoch)))

    def _new_asset(self) -> _Asset:
        return _Asset(document={}, epoch=self._epoch)

    def _now(self) -> int:
        return self.clock.now_ms()


def _organization(commit: Commit) -> str:
    return commit.header.organization if commit.header is not None else commit.organization


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


class MemoryTickets:
    """`Tickets` in one process: a list a stage, which a test may shuffle, double or empty."""

    def __init__(self) -> None:
        self.sent: dict[str, list[Ref]] = defaultdict(list)

    def send(self, ref: Ref, stage: str) -> None:
        self.sent[stage].append(ref)

    def waiting(self, stage: str) -> int:
        return len(self.sent[stage])


class MemoryProgress:
    """`ProgressBoard` in one process."""

    def __init__(self) -> None:
        self._fractions: dict[str, dict[str, float]] = defaultdict(dict)

    def report(self, ref: Ref, fraction: float) -> None:
        self._fractions[ref.job][ref.step] = fraction

    def fractions(self, job_id: str) -> Mapping[str, float]:
        return dict(self._fractions[job_id])
