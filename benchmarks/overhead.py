"""What a fleet costs beside the work: `python -m benchmarks.overhead [--seconds 60] [--runs 3]`.

`reelway process` of a 1080p clip in five rungs, with its own Redis and workers: the CPU seconds of all its processes,
and of these what the steps' own processes used. The rest is everything else: starting and stopping, tickets, leases,
records and events, storing what was made, publishing (budget: 3 % of the job). A clip of a second tells how much of
that is only the start and the end of the command.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.job import with_sound
from benchmarks.ladder import source_of


@dataclass(frozen=True, kw_only=True)
class Measured:
    """CPU seconds of one run."""

    whole: float
    steps: float

    @property
    def rest(self) -> float:
        return self.whole - self.steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        clips = {seconds: _clip(seconds, Path(scratch)) for seconds in (1, options.seconds)}
        for seconds, clip in clips.items():
            runs = [_run(clip, Path(scratch) / f"out-{seconds}-{run}") for run in range(options.runs)]
            rest, steps = (statistics.median(values) for values in ([r.rest for r in runs], [r.steps for r in runs]))
            share = 100 * statistics.median(run.rest / run.whole for run in runs)
            print(
                f"{seconds:4} s: steps {steps:6.1f} s of CPU, everything else {rest:5.2f} s ({share:.1f} % of the job)"
            )


def _run(clip: Path, out: Path) -> Measured:
    events = out.with_suffix(".events")
    command = [sys.executable, "-m", "workers.cli", "process", str(clip), "--out", str(out), "--events", str(events)]
    command += ["--resolutions", "1080p,720p,480p,360p,240p"]
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    whole = after.children_user + after.children_system - before.children_user - before.children_system
    told = map(json.loads, events.read_text().splitlines())
    steps = sum(
        float(event["data"].get("facts", {}).get("cpu_s", 0)) for event in told if ".step.finished." in event["type"]
    )
    return Measured(whole=whole, steps=steps)


def _clip(seconds: int, folder: Path) -> Path:
    own = folder / f"{seconds}s"
    own.mkdir()
    return with_sound(source_of("", seconds, own), own)


if __name__ == "__main__":
    main()
