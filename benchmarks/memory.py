"""The memory of the steps: `python -m benchmarks.memory [--seconds 20] [--profile default] [--minutes 1 60]`.

A chunk of 1080p with the whole ladder of the profile, in its sandbox, as a worker runs it. Counted is the peak of the
resident memory of the stage's process (budget: 400 MB), with the pages that it shares with its nursery. Then every step
of a small clip that is repeated to last for some minutes: what it takes must not grow with that, but for the index of
the file, which libav holds. Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

from benchmarks.ladder import FFMPEG, source_of
from pipeline import plan
from pipeline.media.encoder import fingerprint
from pipeline.media.probe import probe
from pipeline.media.timeline import AAC_FRAME, audio_frames, audio_segment_starts, keyframes, segment_starts
from pipeline.profile import load_profiles
from pipeline.requests import ProcessRequest
from pipeline.sandbox import ChildLimits, Nursery
from pipeline.split import CHUNK_SEGMENTS
from pipeline.tasks import (
    AudioTask,
    Blueprint,
    IngestFacts,
    IngestTask,
    Keyframe,
    Limits,
    MediaInfo,
    PackageTask,
    Part,
    PartsFacts,
    Segment,
    Task,
    TranscodeTask,
    from_json,
    to_json,
)

PROFILES = Path(__file__).parents[1] / "config" / "profiles"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="", help="a 1080p file; by default Big Buck Bunny, looped and enlarged")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--profile", default="default")
    parser.add_argument("--minutes", type=int, nargs="*", default=[1, 60], help="lengths of the source of every step")
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
    lengthen(options.minutes)


def lengthen(minutes: Sequence[int]) -> None:
    """Every step at every length."""
    for length in minutes:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            source = _repeated(folder, length)
            drawn, ingested = _learned(source, folder)
            peaks = {"ingest": ingested, "transcode": _peak(folder, "transcode", _first_chunk(drawn), source)}
            peaks["audio"] = _peak(folder, "audio", _sound(drawn), source)
            package, receipt = _package(drawn, folder)
            peaks["package"] = _peak(folder, "package", package, receipt, name="0")
            told = "   ".join(f"{stage} {peak / 1e6:.0f} MB" for stage, peak in peaks.items())
            print(f"{length:3} min of 180p: {told}")


def _repeated(folder: Path, minutes: int) -> Path:
    """A minute with picture and sound, some times in a row."""
    minute, whole = folder / "minute.mp4", folder / "whole.mp4"
    picture = ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-f", "lavfi", "-i", "sine=sample_rate=48000"]
    command = [FFMPEG, "-v", "error", *picture, "-t", "60", "-c:v", "libx264", "-preset", "ultrafast", "-g", "50"]
    subprocess.run([*command, "-c:a", "aac", "-shortest", str(minute)], check=True)
    again = ["-stream_loop", str(minutes - 1), "-i", str(minute), "-c", "copy", str(whole)]
    subprocess.run([FFMPEG, "-v", "error", *again], check=True)
    return whole


def _learned(source: Path, folder: Path) -> tuple[Blueprint, int]:
    """The blueprint of the source, and what it took to learn it."""
    peak = _peak(folder, "ingest", IngestTask(asset="benchmark", url="source", source="source"), source)
    media = from_json(MediaInfo, (folder / "ingest" / "media.json").read_text())
    profile = load_profiles(PROFILES)["default"]
    request = ProcessRequest(url="source", resolutions=("240p",))
    return plan.blueprint(IngestFacts(media=media, encoder=fingerprint()), profile, request), peak


def _sound(drawn: Blueprint) -> AudioTask:
    return AudioTask(asset="benchmark", source="source", rendition=drawn.audio[0], timeline=drawn.timeline)


def _package(drawn: Blueprint, folder: Path) -> tuple[PackageTask, Path]:
    """Packaging of parts that nobody made, as many as there would be."""
    parts = (_part(drawn, drawn.rungs[0].track, "video"), _part(drawn, drawn.audio[0].track, "audio"))
    receipt = folder / "receipt.json"
    receipt.write_text(to_json(PartsFacts(parts=parts, media_s=drawn.timeline.duration)))
    return PackageTask(asset="benchmark", blueprint=drawn, receipts=("receipt",)), receipt


def _part(drawn: Blueprint, track: str, kind: Literal["video", "audio"]) -> Part:
    grid = drawn.timeline
    if kind == "video":
        scale, bounds = grid.timescale, [*segment_starts(grid), grid.frames]
        ticks = [round(frame * scale / grid.rate) for frame in bounds]
    else:
        scale, bounds = 48_000, [*audio_segment_starts(grid, 48_000), audio_frames(grid, 48_000)]
        ticks = [frame * AAC_FRAME for frame in bounds]
    forced = [round(frame * scale / grid.rate) for frame in keyframes(grid)] if kind == "video" else []

    def at(start: int, end: int) -> tuple[Keyframe, ...]:
        return tuple(Keyframe(tick=tick, offset=0, size=100) for tick in forced if start <= tick < end)

    segments = tuple(
        Segment(start=start, duration=end - start, key=f"{track}/{start}.m4s", size=1000, keyframes=at(start, end))
        for start, end in pairwise(ticks)
    )
    codec = "avc1.64001f" if kind == "video" else "mp4a.40.2"
    return Part(
        track=track,
        kind=kind,
        codec=codec,
        timescale=scale,
        init=f"{track}/init.mp4",
        init_digest="0",
        segments=segments,
    )


def _first_chunk(drawn: Blueprint) -> TranscodeTask:
    assert drawn.media.video is not None
    return TranscodeTask(
        asset="benchmark",
        source="source",
        video=drawn.media.video,
        timeline=drawn.timeline,
        rungs=drawn.rungs,
        first_segment=0,
        last_segment=min(CHUNK_SEGMENTS, len(segment_starts(drawn.timeline))),
        encoder=drawn.encoder,
    )


def peak_bytes(task: TranscodeTask, source: Path, folder: Path) -> int:
    """Run the step in a sandbox; the most resident memory that it ever had."""
    return _peak(folder, "transcode", task, source)


def _peak(folder: Path, stage: str, task: Task, source: Path, *, name: str = "source") -> int:
    out = folder / stage
    out.mkdir()
    nursery = Nursery(folder)
    nursery.start()
    peak = 0
    try:
        child = nursery.child()
        for message in child.run(stage, to_json(task), {name: source}, out, ChildLimits()):
            peak = max(peak, _high_water(child.pid))
            if str(message.get("done", "")).endswith(".m4s"):  # as a worker does that has stored it
                (out / message["done"]).unlink()
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
