"""The whole job against ffmpeg: `python -m benchmarks.job [--seconds 60] [--runs 3]`.

`reelway process` (its own Redis, workers, sandbox, storage and manifests included, started and stopped with the
command) beside one ffmpeg 8 that decodes once, splits, encodes the same five rungs and the sound with the same recipe,
and writes HLS with fMP4 segments. Interleaved in one run. A short clip shows the fixed overhead: what is left of the
command's wall time when the time from the first step's start to the last step's end is taken off.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.ladder import FFMPEG, KEYFRAME, RUNGS, SEGMENT, encode, scale, source_of


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run of one contender."""

    wall_s: float
    cpu_s: float
    steps_s: float = 0.0
    """From the first step's start to the last step's end; 0 for the peer."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--short", type=int, default=5, help="length of the clip that shows the fixed overhead")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for seconds in (options.seconds, options.short):
            folder = Path(scratch) / str(seconds)
            folder.mkdir()
            _compare(with_sound(source_of("", seconds, folder), folder), folder, options.runs, seconds)


def _compare(source: Path, folder: Path, runs: int, seconds: int) -> None:
    contenders: dict[str, Callable[[Path], Measured]] = {
        "reelway process": lambda out: _ours(source, out),
        "ffmpeg split + HLS": lambda out: _peer(source, out),
    }
    results: dict[str, list[Measured]] = {name: [] for name in contenders}
    for index in range(runs):
        for name, contend in contenders.items():
            out = folder / f"{name.replace(' ', '-')}-{index}"
            results[name].append(contend(out))
    _print(results, seconds)


def with_sound(source: Path, folder: Path) -> Path:
    """The clip with a tone of the same length."""
    path = folder / "with-sound.mp4"
    command = [FFMPEG, "-v", "error", "-i", str(source), "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"]
    command += ["-map", "0:v", "-map", "1:a", "-shortest", "-c:v", "copy", "-c:a", "aac", "-ac", "2", str(path)]
    subprocess.run(command, check=True)
    return path


def _ours(source: Path, out: Path) -> Measured:
    events = out.with_suffix(".events")
    command = [sys.executable, "-m", "workers.cli", "process", str(source), "--out", str(out), "--events", str(events)]
    measured = _timed(command)
    times = [
        (entry["type"], datetime.fromisoformat(entry["time"].replace("Z", "+00:00")).timestamp())
        for entry in map(json.loads, events.read_text().splitlines())
    ]
    begun = min(at for name, at in times if "step.started" in name)
    ended = max(at for name, at in times if "step.finished" in name)
    return Measured(wall_s=measured.wall_s, cpu_s=measured.cpu_s, steps_s=ended - begun)


def _peer(source: Path, out: Path) -> Measured:
    out.mkdir()
    outputs = "".join(f"[s{index}]" for index in range(len(RUNGS)))
    scales = [f"[s{index}]{scale(rung)}[v{index}]" for index, rung in enumerate(RUNGS)]
    command = [FFMPEG, "-v", "error", "-y", "-i", str(source)]
    command += ["-filter_complex", ";".join([f"[0:v]split={len(RUNGS)}{outputs}", *scales])]
    hls = ["-f", "hls", "-hls_time", str(SEGMENT), "-hls_playlist_type", "vod", "-hls_segment_type", "fmp4"]
    for index, rung in enumerate(RUNGS):
        recipe = encode(rung)[: -len(["-movflags", ""])]
        files = ["-hls_fmp4_init_filename", f"{rung.name}.mp4", str(out / f"{rung.name}.m3u8")]
        command += ["-map", f"[v{index}]", *recipe, *hls, *files]
    sound = ["-map", "0:a", "-c:a", "aac", "-b:a", "128k", "-ac", "2", "-ar", "48000"]
    command += [*sound, *hls, "-hls_fmp4_init_filename", "audio.mp4", str(out / "audio.m3u8")]
    return _timed(command)


def _timed(command: Sequence[str]) -> Measured:
    """Wall and CPU seconds of a command and everything it started and reaped."""
    before, began = os.times(), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Measured(wall_s=time.monotonic() - began, cpu_s=cpu)


def _print(results: dict[str, list[Measured]], seconds: int) -> None:
    print(f"\n{seconds} s of 1080p25 with sound, {len(RUNGS)} rungs, keyframe {KEYFRAME} s, medians")
    for name, runs in results.items():
        wall, cpu = (statistics.median(values) for values in ([r.wall_s for r in runs], [r.cpu_s for r in runs]))
        steps = statistics.median([run.steps_s for run in runs])
        overhead = f"  around the steps {wall - steps:.2f} s" if steps else ""
        print(f"{name:20} wall {wall:7.2f} s   cpu {cpu:7.2f} s{overhead}")
    ours, peer = results.values()
    pairs = [(a.wall_s / b.wall_s, a.cpu_s / b.cpu_s) for a, b in zip(ours, peer, strict=True)]
    wall, cpu = (statistics.median(values) for values in zip(*pairs, strict=True))
    print(f"ratio, pair by pair: wall {wall:.2f}, cpu {cpu:.2f}")


if __name__ == "__main__":
    main()
