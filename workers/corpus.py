"""`reelway corpus`: process every file of a folder and say what became of each, a line of JSON a file.

Parallel on one private fleet, resumable (a file that the report has already is not done again), and nothing of the
assets is kept: the point is the outcomes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TextIO

from pipeline.job import Job
from pipeline.requests import ProcessRequest
from pipeline.tidy import remove_asset
from workers.private import private_fleet
from workers.settings import Settings
from workers.wiring import Control, control

AHEAD = 8
"""Jobs under way at once."""


def run(folder: Path, report: Path | None, profile: str) -> None:
    """Process what is not in the report yet."""
    done = _reported(report)
    waiting = [path for path in sorted(folder.rglob("*")) if path.is_file() and str(path) not in done]
    with (
        tempfile.TemporaryDirectory(prefix="reelway-corpus-") as kept,
        private_fleet(Path(kept).as_uri()) as fleet,
        _lines(report) as lines,
    ):
        for outcome in _outcomes(control(Settings.read(**fleet.settings)), waiting, profile):
            for line in lines:
                line.write(json.dumps(outcome) + "\n")
                line.flush()


def _outcomes(wired: Control, waiting: list[Path], profile: str) -> Iterator[dict[str, Any]]:
    running: dict[str, tuple[Path, float]] = {}
    while waiting or running:
        while waiting and len(running) < AHEAD:
            path = waiting.pop(0)
            request = ProcessRequest(url=str(path.absolute()), profile=profile, orig_filename=path.name)
            wired.conductor.accept(request)
            running[request.id] = (path, time.monotonic())
        time.sleep(0.1)
        for job_id in list(running):
            job = wired.store.job(job_id)
            if job is not None and job.status.ended:
                path, started = running.pop(job_id)
                yield _outcome(wired, job, path, time.monotonic() - started)


def _outcome(wired: Control, job: Job, path: Path, seconds: float) -> dict[str, Any]:
    record = wired.store.asset(job.asset)
    video = record.document["video"] if record else {}
    remove_asset(wired.storage, job.asset)
    return {
        "path": str(path),
        "status": job.status.value,
        "code": (job.error or {}).get("code"),
        "seconds": round(seconds, 2),
        "duration_ms": video.get("duration_ms"),
        "renditions": [f"{made['name']} {made['width']}x{made['height']}" for made in video.get("renditions", [])],
        "losses": sum(step.losses for step in job.steps.values()),
    }


def _reported(report: Path | None) -> set[str]:
    if report is None or not report.exists():
        return set()
    return {json.loads(line)["path"] for line in report.read_text(encoding="utf-8").splitlines()}


@contextmanager
def _lines(report: Path | None) -> Iterator[list[TextIO]]:
    """Standard output, and the report where there is one."""
    with report.open("a", encoding="utf-8") if report else nullcontext() as file:
        yield [sys.stdout, *([file] if file else [])]
