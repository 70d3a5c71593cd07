"""`reelway corpus`: process every file of a folder and say what became of each.

Parallel on one private fleet, resumable (a file that the report has already is not done again), and nothing of the
assets is kept: the point is the outcomes. A report has a line of JSON a file, with its path inside of the folder.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from pipeline.job import Job
from pipeline.requests import ProcessRequest
from pipeline.tidy import remove_asset
from workers.private import PrivateFleet, private_fleet, worker_count
from workers.settings import Settings
from workers.wiring import Control, control

UNKNOWN = ("stage_failed", "request_failed")
"""Codes that say that we do not know: each is a bug."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one file."""

    path: str
    """Inside of the folder."""
    status: str
    """The job's."""
    code: str | None
    """Of the error, where there was one."""
    seconds: float
    """From its acceptance to its end, beside others."""
    duration_ms: int | None = None
    renditions: Sequence[str] = ()
    losses: int = 0
    """Workers that ended while they did a step of it."""

    @property
    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @property
    def line(self) -> str:
        """For a person."""
        made = ", ".join(self.renditions) if self.code is None else self.code
        return f"{self.status:10} {self.seconds:7.2f} s  {self.path}  {made}"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All of them."""

    outcomes: Sequence[Outcome]
    left: Sequence[str]
    """Keys of objects that are still in the storage, though every asset was removed."""

    @property
    def clean(self) -> bool:
        """No worker was lost, every error has its code, and nothing was left behind."""
        known = all(outcome.code not in UNKNOWN for outcome in self.outcomes)
        return known and not self.left and not any(outcome.losses for outcome in self.outcomes)

    def lines(self) -> Iterator[str]:
        counted = Counter(outcome.code or outcome.status for outcome in self.outcomes)
        yield f"{len(self.outcomes)} files: " + ", ".join(f"{count} {name}" for name, count in counted.most_common())
        yield f"{sum(outcome.losses for outcome in self.outcomes)} workers lost, {len(self.left)} objects left behind"


def run(folder: Path, report: Path | None, profile: str, *, as_json: bool = False, jobs: int | None = None) -> Summary:
    """Process what is not in the report yet, and print it; `jobs` files at once (none: two a worker)."""
    known = _reported(report)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    waiting = [path for path in paths if path.relative_to(folder).as_posix() not in known]
    made: list[Outcome] = []
    left: Sequence[str] = ()
    if waiting:
        with _fleet() as (fleet, wired), _appended(report) as lines:
            judge = _Judge(fleet, wired, folder, profile)
            for outcome in judge.outcomes(waiting, jobs or 2 * worker_count()):
                made.append(outcome)
                print(outcome.as_json if as_json else outcome.line, flush=True)
                if lines is not None:
                    print(outcome.as_json, file=lines, flush=True)
            left = judge.left()
    return Summary(outcomes=[*known.values(), *made], left=left)


class _Judge:
    """Has files processed, and looks at what comes of them."""

    def __init__(self, fleet: PrivateFleet, wired: Control, folder: Path, profile: str) -> None:
        self._fleet = fleet
        self._wired = wired
        self._folder = folder
        self._profile = profile
        self._refused: list[str] = []

    def outcomes(self, waiting: list[Path], at_once: int) -> Iterator[Outcome]:
        """One for each file, as they end."""
        running: dict[str, tuple[Path, float]] = {}
        while waiting or running:
            while waiting and len(running) < at_once:
                path = waiting.pop(0)
                running[self._accept(path)] = (path, time.monotonic())
            time.sleep(0.1)
            self._fleet.check()
            for job_id in list(running):
                job = self._wired.store.job(job_id)
                if job is not None and job.status.ended:
                    path, started = running.pop(job_id)
                    yield self._outcome(job, path, time.monotonic() - started)

    def left(self) -> list[str]:
        """What the product has left behind of the files that it refused, and of all of them on the scratch disk."""
        public = [stored.key for asset in self._refused for stored in self._wired.storage.list(f"transcoded/{asset}/")]
        scratch = Path(self._fleet.settings["scratch_dir"])
        return public + [path.name for path in scratch.rglob("step-*")]

    def _accept(self, path: Path) -> str:
        request = ProcessRequest(url=str(path.absolute()), profile=self._profile)
        self._wired.conductor.accept(request)
        return request.id

    def _outcome(self, job: Job, path: Path, seconds: float) -> Outcome:
        record = self._wired.store.asset(job.asset)
        video = record.document["video"] if record else {}
        if job.error is None:
            remove_asset(self._wired.storage, job.asset)
        else:
            self._refused.append(job.asset)
        return Outcome(
            path=path.relative_to(self._folder).as_posix(),
            status=job.status.value,
            code=str(job.error["code"]) if job.error else None,
            seconds=round(seconds, 2),
            duration_ms=video.get("duration_ms"),
            renditions=[_named(made) for made in video.get("renditions", [])],
            losses=sum(step.losses for step in job.steps.values()),
        )


def _named(made: Mapping[str, Any]) -> str:
    return f"{made['name']} {made['width']}x{made['height']}" if made["width"] else str(made["name"])


@contextmanager
def _fleet() -> Iterator[tuple[PrivateFleet, Control]]:
    with tempfile.TemporaryDirectory(prefix="reelway-corpus-") as kept, private_fleet(Path(kept).as_uri()) as fleet:
        yield fleet, control(Settings.read(**fleet.settings))


def _reported(report: Path | None) -> dict[str, Outcome]:
    """What the report has, by path; a line that was cut off counts as none."""
    if report is None or not report.exists():
        return {}
    found = {}
    for line in report.read_text(encoding="utf-8").splitlines():
        with suppress(json.JSONDecodeError):
            outcome = Outcome(**json.loads(line))
            found[outcome.path] = outcome
    return found


@contextmanager
def _appended(report: Path | None) -> Iterator[TextIO | None]:
    with report.open("a", encoding="utf-8") if report else nullcontext() as file:
        yield file


# -- a page ------------------------------------------------------------------------------------------------------------


def markdown(outcomes: Iterable[Outcome], folder: str) -> str:
    """The outcomes as a page for readers: no times, which every run has others of."""
    rows = [_row(outcome) for outcome in sorted(outcomes, key=lambda outcome: outcome.path)]
    counted = Counter(row[1] for row in rows)
    told = ", ".join(f"{count} {name}" for name, count in counted.most_common())
    head = f"# What becomes of {len(rows)} files\n\n{_ABOUT.format(folder=folder)}\n\n{told}.\n\n"
    table = "| file | outcome | duration | renditions |\n|---|---|---|---|\n"
    return head + table + "".join(f"| {' | '.join(row)} |\n" for row in rows)


_ABOUT = (
    "Media that no one here made, good and broken, as `reelway corpus {folder} --markdown PAGE` saw it. What the codes "
    "mean is in [errors.md](errors.md)."
)


def _row(outcome: Outcome) -> tuple[str, str, str, str]:
    duration = f"{outcome.duration_ms / 1000:.3f} s" if outcome.code is None and outcome.duration_ms else ""
    made = "" if outcome.code else ", ".join(outcome.renditions)
    path = outcome.path.replace("|", "\\|")
    return f"`{path}`", f"`{outcome.code}`" if outcome.code else "ready", duration, made
