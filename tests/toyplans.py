"""Random small plans, every step of which has its fate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from builders import a_blueprint

from pipeline.job import Job, Step
from pipeline.requests import JobRequest
from pipeline.tasks import Blueprint, IngestFacts

Choose = Callable[[int], int]
"""`choose(n)` gives one of 0 … n-1: the only source of chance."""

PUBLISHERS = ("package", "sprite", "subtitle")
"""Steps that change what the public sees."""


Kind = Literal["fine", "flaky", "half", "stuck", "poison", "broken"]
"""`half` fails when the publishing has begun; `poison` kills its worker."""
ERRORS: Mapping[Kind, str] = {
    "flaky": "storage_unavailable",
    "stuck": "stalled",
    "broken": "video_file_broken",
}


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What happens to whoever does the step: for the first `times` attempts, then it goes well."""

    kind: Kind = "fine"
    times: int = 0


@dataclass(frozen=True, kw_only=True)
class ToyPlan:
    """A plan whose every step has its fate."""

    first: tuple[Step, ...]
    grown: tuple[Step, ...]
    fates: Mapping[str, Fate]

    @property
    def steps(self) -> dict[str, Step]:
        return {step.id: step for step in (*self.first, *self.grown)}


def a_plan(choose: Choose) -> ToyPlan:
    """Any small plan: ingest, sometimes more first steps, a random graph, package, sometimes something beside it."""
    early = (Step(id=f"early-{number}", stage="work", optional=True) for number in range(choose(3)))
    first = [Step(id="ingest", stage="ingest"), *early]
    grown: list[Step] = []
    for number in range(1 + choose(3)):
        earlier = [step.id for step in (*first[1:], *grown)]
        needs = tuple(name for name in earlier if choose(2))
        grown.append(Step(id=f"part-{number}", stage="work", needs=needs, optional=choose(3) == 0))
    package = Step(id="package", stage="work", needs=tuple(step.id for step in grown))
    if choose(3) == 0:
        grown.append(Step(id="sprite", stage="work", optional=True))
    if choose(2) == 0:
        grown.append(Step(id="subtitle", stage="subtitle", needs=("package",), optional=True))
    grown.append(package)
    fates = {step.id: _fate(choose) for step in (*first, *grown)}
    return ToyPlan(first=tuple(first), grown=tuple(grown), fates=fates)


def _fate(choose: Choose) -> Fate:
    kinds: Sequence[Kind] = ("fine",) * 13 + ("flaky", "half", "stuck", "poison", "broken")
    kind = kinds[choose(len(kinds))]
    times = {"fine": 0, "flaky": 1 + choose(12), "half": 1 + choose(2), "stuck": 1 + choose(8), "poison": 1 + choose(4)}
    return Fate(kind=kind, times=times.get(kind, 99))


class ToyPlanner:
    """Knows the plan of every request beforehand, by job id."""

    def __init__(self, plans: Mapping[str, ToyPlan]) -> None:
        self._plans = plans

    def first_steps(self, request: JobRequest) -> tuple[Step, ...]:
        return self._plans[request.id].first

    def grow(self, job: Job, facts: IngestFacts) -> tuple[Blueprint, tuple[Step, ...]]:
        return a_blueprint(), self._plans[job.id].grown
