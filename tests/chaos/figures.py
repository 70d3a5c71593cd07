"""What a run of chaos has to say for itself: a table for people, JSON for the record."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt at one step of one asset, by wall clock."""

    step: str
    process: int
    begun: float
    ended: float | None = None
    """None: it never said so."""
    finished: bool = False
    """It ended well."""
    missed: float | None = None
    """When its loss was noticed, and the step was ready again."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One run."""

    form: str
    """`toy`, `real`, or `stock` (plain dramatiq with the toy work)."""
    seed: int
    assets: int
    ended: Mapping[str, int]
    """How the assets ended."""
    faults: Mapping[str, int]
    deliveries: int
    """Tickets (messages) that a worker received."""
    refused: int
    """… of them refused: the step had been begun, or settled, by another."""
    attempts: int
    """Steps that were begun, all attempts counted."""
    lost_leases: int
    robbed: int
    """Zombies that woke to find their step taken over."""
    lost: int
    """Accepted requests without an end."""
    published_twice: int
    """Assets whose publication was made or told more than once."""
    repeated: int
    """Steps that were *completed* more than once."""
    noticed_s: Sequence[float]
    """After each kill -9 of a worker with a step, no server being away: seconds until that step was ready again."""
    recoveries_s: Sequence[float]
    """After each kill -9 of a worker with a step: seconds until that step was begun again."""
    recoveries_calm_s: Sequence[float]
    """… of them those in which no server was away."""
    seconds: float
    orphans: Sequence[str] = ()
    """Objects without an owner, left for the janitor."""
    findings: Sequence[str] = ()

    @property
    def clean(self) -> bool:
        return not self.findings and not self.lost and not self.published_twice

    def rows(self) -> dict[str, str]:
        """What each line of the table says."""
        ended = ", ".join(f"{count} {name}" for name, count in sorted(self.ended.items()))
        return {
            "seed": str(self.seed),
            "assets": f"{self.assets} ({ended})",
            **{name.replace("_", " "): str(count) for name, count in self.faults.items()},
            "deliveries": f"{self.deliveries} ({self.refused} refused)",
            "attempts": str(self.attempts),
            "lost leases": str(self.lost_leases),
            "zombies robbed": str(self.robbed),
            "loss noticed p50 / max": _spread(self.noticed_s),
            "begun again p50 / max": _spread(self.recoveries_s),
            "… no server away": _spread(self.recoveries_calm_s),
            "lost": str(self.lost),
            "published twice": str(self.published_twice),
            "steps completed twice": str(self.repeated),
            "broken invariants": "not asked" if self.form == "stock" else str(len(self.findings)),
            "left for the janitor": f"{len(self.orphans)} objects",
            "duration": f"{self.seconds:.0f} s",
            "verdict": "clean" if self.clean else "NOT CLEAN",
        }

    def json(self) -> str:
        return json.dumps({**asdict(self), "clean": self.clean})


def show(runs: Sequence[Figures]) -> None:
    """The runs side by side."""
    table = Table("", *(run.form for run in runs))
    names = list(dict.fromkeys(name for run in runs for name in run.rows()))
    for name in names:
        table.add_row(name, *(run.rows().get(name, "") for run in runs))
    Console().print(table)


def recoveries(
    kills: Sequence[tuple[float, int]], attempts: Sequence[Attempt], away: Sequence[tuple[float, float]] = ()
) -> tuple[list[float], list[float]]:
    """Seconds from each kill (time, process) to the next begin of what that process held: all, and the calm ones.

    `away`: spans in which a server did not answer.
    """
    everything, calm = [], []
    for at, process in kills:
        for held in attempts:
            if not _held(held, process, at):
                continue
            later = [each.begun for each in attempts if each.step == held.step and each.begun > at]
            if later:
                everything.append(round(min(later) - at, 2))
                if not any(begin < min(later) and end > at for begin, end in away):
                    calm.append(everything[-1])
    return everything, calm


def noticed(
    kills: Sequence[tuple[float, int]], attempts: Sequence[Attempt], away: Sequence[tuple[float, float]] = ()
) -> list[float]:
    """Seconds from each kill (time, process) to the moment when the loss was noticed, where no server was away."""
    return [
        round(held.missed - at, 2)
        for at, process in kills
        for held in attempts
        if _held(held, process, at) and held.missed is not None
        if not any(begin < held.missed and end > at for begin, end in away)
    ]


def _held(attempt: Attempt, process: int, at: float) -> bool:
    """Whether this process held it at that time: begun by it, neither ended nor given up as lost."""
    over = [moment for moment in (attempt.ended, attempt.missed) if moment is not None]
    return attempt.process == process and attempt.begun <= at and all(moment > at for moment in over)


def robbed(zombies: Sequence[tuple[float, int]], attempts: Sequence[Attempt]) -> int:
    """How many of these (time, process) held a step that somebody else began later."""
    return sum(
        any(other.step == held.step and other.begun > at for other in attempts)
        for at, process in zombies
        for held in attempts
        if _held(held, process, at) and held.ended is None
    )


def completed_twice(attempts: Sequence[Attempt]) -> int:
    """How many steps came to an end more than once."""
    ends = Counter(attempt.step for attempt in attempts if attempt.finished)
    return sum(count > 1 for count in ends.values())


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "–"
    return f"{statistics.median(seconds):.1f} / {max(seconds):.1f} s ({len(seconds)})"
