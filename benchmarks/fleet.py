"""How soon an asset is ready on a fleet of any size: `python -m benchmarks.fleet [--seconds 60] [--runs 3]`.

A simulator of the plan: the real planner cuts the job, and each of W workers takes the next ready step, as the ready
index gives them out. What a step costs is measured on a short clip; the simulator then says how long a longer clip
takes on one and on two workers of this machine, and is checked against real runs (budget: within 10 %). The table
afterwards, for 1 to 10,000 workers, each with a core as here and storage that keeps up, is as good as that.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from benchmarks.job import with_sound
from benchmarks.ladder import source_of
from pipeline import plan
from pipeline.job import Job
from pipeline.media.probe import probe
from pipeline.profile import load_profiles
from pipeline.requests import ProcessRequest
from pipeline.split import STEP_S
from pipeline.tasks import IngestFacts, Limits, MediaInfo
from workers.settings import Settings

WORKERS = (1, 2, 4, 10, 100, 1000, 10_000)
LENGTHS_S = (10, 60, 600, 3600, 36_000)
TINY_S = 2


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What the steps of a job take, in wall seconds of one worker among as many as were at work."""

    ingest_s: float
    """Of a source without length."""
    ingest_a_second: float
    """More of it for every second of a source whose bytes are there."""
    transcode: float
    """Measured seconds for one that the planner assumed."""
    audio: float
    """Measured seconds for one that the planner assumed."""
    package_s: float
    hop_s: float
    """From one step's end to the begin of what waited for it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="length of the clip that is predicted")
    parser.add_argument("--sample", type=int, default=24, help="length of the clip that is measured")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="how many there are in the real runs")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tiny, sample, clip = (_clip(seconds, folder) for seconds in (TINY_S, options.sample, options.seconds))
        media = probe(clip, Limits(), lambda _: None)
        known = probe(sample, Limits(), lambda _: None)
        for workers in options.workers:
            short = _events(tiny, workers, folder, "tiny")
            costs = measured(short, _events(sample, workers, folder, "sample"), known, workers)
            predicted = time_to_ready(media, workers, costs)
            runs = [_ready_s(_events(clip, workers, folder, str(run))) for run in range(options.runs)]
            real = statistics.median(runs)
            print(f"{options.seconds} s on {workers} workers: {real:6.1f} s, predicted {predicted:6.1f} s", end="")
            print(f" ({100 * (predicted / real - 1):+.1f} %; runs {min(runs):.1f} to {max(runs):.1f} s)")
    table(media, costs)


def table(media: MediaInfo, costs: Costs) -> None:
    """Time to ready and steps of 1080p of some lengths on fleets of some sizes."""
    print("\nseconds to ready (steps) of 1080p by workers")
    print(f"{'':>8}" + "".join(f"{workers:>16,}" for workers in WORKERS))
    for seconds in LENGTHS_S:
        cells = []
        for workers in WORKERS:
            longer = _lasting(media, seconds)
            cells.append(f"{time_to_ready(longer, workers, costs):9.1f} ({len(planned(longer, workers).steps):>4})")
        print(f"{seconds:>6} s " + "".join(f"{cell:>16}" for cell in cells))


# -- the simulator ----------------------------------------------------------------------------------------------------


def time_to_ready(media: MediaInfo, workers: int, costs: Costs) -> float:
    """Seconds from the acceptance to the end of the job on a fleet that does nothing else."""
    job = planned(media, workers)
    takes = {
        "ingest": costs.ingest_s + costs.ingest_a_second * float(media.duration),
        "package": costs.package_s,
        **{step.id: _seconds(job, step.id, costs) for step in job.steps.values() if step.stage in _PARTS},
    }
    begun = costs.hop_s + takes["ingest"] + costs.hop_s
    free = [begun] * min(workers, len(job.steps))
    for name in sorted(name for name in takes if name not in ("ingest", "package")):
        heapq.heappushpop(free, free[0] + takes[name] + costs.hop_s)
    return max(free) + takes["package"]


def planned(media: MediaInfo, workers: int) -> Job:
    """The job as the real planner cuts it."""
    profile = load_profiles(Settings().profiles_dir)["default"]
    request = ProcessRequest(url="/films/a.mp4", resolutions=("1080p", "720p", "480p", "360p", "240p"))
    job = Job(
        id=request.id,
        asset=request.asset_id,
        workers=workers,
        request=request.model_dump(mode="json"),
        profile=profile.model_dump(mode="json"),
    )
    blueprint, steps = plan.grow(job, IngestFacts(media=media, encoder="x"))
    return replace(job, blueprint=blueprint, steps={step.id: step for step in steps})


_PARTS = ("transcode", "audio")


def _seconds(job: Job, step_id: str, costs: Costs) -> float:
    assumed = _assumed(job, step_id)
    return assumed * (costs.audio if job.steps[step_id].stage == "audio" else costs.transcode)


def _assumed(job: Job, step_id: str) -> float:
    """What the planner assumed for the step: weights are shares of the sum of these."""
    parts = [step for step in job.steps.values() if step.stage in _PARTS]
    sound = next(step for step in parts if step.stage == "audio")
    assert job.blueprint is not None
    seconds = float(job.blueprint.timeline.duration) * plan.ADDED_S + STEP_S
    return seconds * job.steps[step_id].weight / sound.weight


# -- measuring --------------------------------------------------------------------------------------------------------


def measured(tiny: list[dict[str, Any]], events: list[dict[str, Any]], media: MediaInfo, workers: int) -> Costs:
    """What the steps of a real run cost, beside one of a tiny clip."""
    job = planned(media, workers)
    finished = {event["data"]["step"]: event for event in events if _ended(event)}
    took = {name: float(event["data"]["seconds"]) for name, event in finished.items()}
    pictures = [name for name in took if name.startswith("transcode")]
    sounds = [name for name in took if name.startswith("audio")]
    begun = {event["data"]["step"]: _at(event) for event in events if ".step.started." in event["type"]}
    least = next(
        float(each["data"]["seconds"]) for each in tiny if each["data"].get("step") == "ingest" and _ended(each)
    )
    slope = max(0.0, (took["ingest"] - least) / (float(media.duration) - TINY_S))
    return Costs(
        ingest_s=least - slope * TINY_S,
        ingest_a_second=slope,
        transcode=sum(took[name] for name in pictures) / sum(_assumed(job, name) for name in pictures),
        audio=sum(took[name] for name in sounds) / sum(_assumed(job, name) for name in sounds),
        package_s=took["package"],
        hop_s=max(0.0, min(begun[name] for name in pictures) - _at(finished["ingest"])),
    )


def _ended(event: dict[str, Any]) -> bool:
    return ".step.finished." in event["type"]


def _ready_s(events: list[dict[str, Any]]) -> float:
    """From the acceptance to the end, without what the command itself takes to start."""
    started = min(_at(event) for event in events if ".step.started." in event["type"])
    return max(_at(event) for event in events if ".asset.ready." in event["type"]) - started


def _at(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"].replace("Z", "+00:00")).timestamp()


def _events(clip: Path, workers: int, folder: Path, name: str) -> list[dict[str, Any]]:
    out = folder / f"{clip.parent.name}-{workers}-{name}"
    events = out.with_suffix(".events")
    command = [sys.executable, "-m", "workers.cli", "process", str(clip), "--out", str(out), "--events", str(events)]
    command += ["--resolutions", "1080p,720p,480p,360p,240p"]
    environment = {**os.environ, "REELWAY_WORKERS_HINT": str(workers)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr}")
    return [json.loads(line) for line in events.read_text().splitlines()]


def _clip(seconds: int, folder: Path) -> Path:
    own = folder / f"{seconds}s"
    own.mkdir()
    return with_sound(source_of("", seconds, own), own)


def _lasting(media: MediaInfo, seconds: int) -> MediaInfo:
    """The same kind of source, of another length."""
    end = Fraction(seconds)
    assert media.video is not None
    video = replace(media.video, start=Fraction(0), end=end, frames=round(end * media.video.rate))
    audio = tuple(replace(sound, start=Fraction(0), end=end) for sound in media.audio)
    return replace(media, duration=end, start=Fraction(0), video=video, audio=audio)


if __name__ == "__main__":
    main()
