"""What must be true of a world, told from its event log alone.

Nothing here looks into a store: the checks know the plans, and read the events as an API layer would.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline.conductor import MAX_LOSSES, MAX_SUSPICIONS, MIN_RETRIES
from pipeline.events import EVENTS, Event
from pipeline.job import Step

TERMINAL = ("asset.ready", "asset.failed", "asset.cancelled")


@dataclass(kw_only=True)
class _Tale:
    """One job, as its events tell it."""

    plan: Mapping[str, Step]
    retry_for_s: float
    settled: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    attempts: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    suspicions: Counter[str] = field(default_factory=Counter)
    troubled: dict[str, datetime] = field(default_factory=dict)
    """When each step's first transient failure was."""
    holder: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    subtitles: list[str] = field(default_factory=list)
    terminal: str | None = None

    def hear(self, name: str, data: Mapping[str, Any], when: datetime) -> None:
        assert self.terminal is None, f"{name} after {self.terminal}"
        if name.startswith("step."):
            self._step(name, data, data["step"], when)
        elif name.startswith("subtitle."):
            self.subtitles.append(name)
        elif name in TERMINAL:
            self._end(name, data)

    def _step(self, name: str, data: Mapping[str, Any], step: str, when: datetime) -> None:
        attempt = (data["attempt"], data["worker"])
        assert step not in self.settled, f"{name} of {step}, which is settled"
        if name == "step.started":
            assert self.settled.issuperset(self.plan[step].needs), f"{step} began before its needs were settled"
            self.attempts[step] += 1
            assert attempt[0] == self.attempts[step], f"{step}: attempt {attempt[0]} after {self.attempts[step] - 1}"
            self.holder[step] = attempt
            return
        code = (data.get("error") or {}).get("code", "")
        if code == "cancelled":
            assert self.plan[step].optional, f"{step} was given up"
            self.holder.pop(step, None)
        else:
            assert self.holder.pop(step, None) == attempt, f"{name} of {step} by {attempt}, who did not hold it"
        if name == "step.retrying":
            assert not self._exhausted(step, code, when), f"{step} was tried again after too much {code}"
            self._count(step, code, when)
        else:
            self.settled.add(step)
        if name == "step.failed":
            self.failed.add(step)
            assert self._exhausted(step, code, when), f"{step} was given up too early: {code}"

    def _exhausted(self, step: str, code: str, when: datetime) -> bool:
        """Another retry would be one too many."""
        if code == "worker_lost":
            return self.losses[step] >= MAX_LOSSES - 1
        if code == "stalled":
            return self.suspicions[step] >= MAX_SUSPICIONS
        if code == "storage_unavailable":
            long = (when - self.troubled.get(step, when)).total_seconds() >= self.retry_for_s
            return long and self.retries[step] >= MIN_RETRIES
        return True

    def _count(self, step: str, code: str, when: datetime) -> None:
        if code == "worker_lost":
            self.losses[step] += 1
            return
        self.retries[step] += 1
        self.suspicions[step] += code == "stalled"
        self.troubled.setdefault(step, when)

    def _end(self, name: str, data: Mapping[str, Any]) -> None:
        self.terminal = name
        broken = [step for step in self.failed if not self.plan[step].optional]
        assert bool(broken) == (name == "asset.failed"), f"{name}, while {broken} failed"
        if name == "asset.ready":
            assert self.settled == set(self.plan), f"ready without {set(self.plan) - self.settled}"
            assert data.get("missing", []) == sorted(self.failed)
            wished = [step for step in self.plan.values() if step.stage == "subtitle"]
            ends = ["subtitle.failed" if step.id in self.failed else "subtitle.completed" for step in wished]
            assert self.subtitles == ends, f"{self.subtitles} instead of {ends}"
        if name == "asset.failed":
            assert data["error"]["code"] == data["asset"]["video"]["error"]["code"]


def check(
    events: Iterable[Mapping[str, Any]], plans: Mapping[str, Mapping[str, Step]], retry_for_s: float
) -> dict[str, str]:
    """Check a whole log against the plans (steps by id, by job id). Returns the terminal event of each accepted job."""
    told = [Event.model_validate(event) for event in events]
    check_envelopes(told)
    by_asset: dict[str, list[Event]] = defaultdict(list)
    tales: dict[str, _Tale] = {}
    for event in told:
        by_asset[event.subject].append(event)
        job = event.correlationid
        assert job is not None
        if event.name == "asset.accepted":
            assert job not in tales, f"{job} was accepted twice"
            tales[job] = _Tale(plan=plans[job], retry_for_s=retry_for_s)
        if event.name != "asset.updated":
            tales[job].hear(event.name, event.data, event.time)
    for asset_events in by_asset.values():
        check_asset(asset_events)
    for job, tale in tales.items():
        assert tale.terminal is not None, f"{job} never ended"
    return {job: str(tale.terminal) for job, tale in tales.items()}


def check_envelopes(told: list[Event]) -> None:
    repeated = [id_ for id_, count in Counter(event.id for event in told).items() if count > 1]
    assert not repeated, f"said twice: {repeated}"
    for event in told:
        model = EVENTS[event.name][0]
        assert set(event.data) <= set(model.model_fields), f"{event.name} says more than its model"
        assert isinstance(event.payload, model)


def check_asset(events: list[Event]) -> None:
    """Sequences without gap; versions one by one; a document with each of its changes; Completed for ever."""
    assert [int(event.sequence) for event in events] == list(range(1, len(events) + 1)), "gap or repeat in sequence"
    version, status, lastmod = 0, "", 0
    for number, event in enumerate(events):
        if not event.name.startswith("asset."):
            continue
        document = event.data["asset"]
        if event.name != "asset.updated":
            update = events[number + 1]
            assert update.name == "asset.updated", f"{event.id} without its update"
            assert update.data["asset"] == document, f"{event.id}: the update has another document"
            continue
        assert document["version"] == version + 1, f"version {document['version']} after {version}"
        assert document["lastmod"] >= lastmod
        assert status != "Completed" or document["video"]["status"] == "Completed", "status left Completed"
        version, status, lastmod = document["version"], document["video"]["status"], document["lastmod"]
