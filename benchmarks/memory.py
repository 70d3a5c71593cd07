"""The memory of one transcode step: `python -m benchmarks.memory [--seconds 20] [--profile default]`.

A chunk of 1080p with the whole ladder of the profile, in its sandbox, as a worker runs it. Counted is the peak of the
resident memory of the stage's process (budget: 400 MB), with the pages that it shares with its nursery. Linux only.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.ladder import source_of
from pipeline import plan
from pipeline.media.encoder import fingerprint
from pipeline.media.probe import probe
from pipeline.media.timeline import segment_starts
from pipeline.profile import load_profiles
from pipeline.requests import ProcessRequest
from pipeline.sandbox import ChildLimits, Nursery
from pipeline.tasks import Blueprint, IngestFacts, Limits, TranscodeTask, to_json

PROFILES = Path(__file__).parents[1] / "config" / "profiles"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="", help="a 1080p file; by default Big Buck Bunny, looped and enlarged")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--profile", default="default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = source_of(options.source, options.seconds, folder)
        media = probe(source, Limits(), lambda _: None)
        request = ProcessRequest(url=str(source), profile=options.profile)
        profile = load_profiles(PROFILES)[options.profile]
        drawn = plan.blueprint(IngestFacts(media=media, encoder=fingerprint()), profile, request)
        peak = peak_bytes(_first_chunk(drawn), source, folder)
    rungs = ", ".join(rung.name for rung in drawn.rungs)
    print(f"transcode of {float(media.duration):.1f} s of 1080p, profile {options.profile} ({rungs}):")
    print(f"peak of {peak / 1e6:.0f} MB in the sandbox")


def _first_chunk(drawn: Blueprint) -> TranscodeTask:
    assert drawn.media.video is not None
    return TranscodeTask(
        asset="benchmark",
        source="source",
        video=drawn.media.video,
        timeline=drawn.timeline,
        rungs=drawn.rungs,
        first_segment=0,
        last_segment=min(plan.CHUNK_SEGMENTS, len(segment_starts(drawn.timeline))),
        encoder=drawn.encoder,
    )


def peak_bytes(task: TranscodeTask, source: Path, folder: Path) -> int:
    """Run the step in a sandbox; the most resident memory that it ever had."""
    (folder / "out").mkdir()
    nursery = Nursery(folder)
    nursery.start()
    peak = 0
    try:
        child = nursery.child()
        for _ in child.run("transcode", to_json(task), {"source": source}, folder / "out", ChildLimits()):
            peak = max(peak, _high_water(child.pid))
        child.close()
    finally:
        nursery.close()
    return peak


def _high_water(pid: int) -> int:
    """The kernel's own mark, so that nothing between two looks is missed; 0 once the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


if __name__ == "__main__":
    main()
