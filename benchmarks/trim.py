"""Trimming a ready asset: `python -m benchmarks.trim [--cuts 6] [--minutes 1 10 60] [--peer-seconds 20]`.

Twenty seconds of 1080p, looped to each length by copying, with sound, and their ladder of five rungs, preset veryfast
as in the default profile. Every cut is made at every length: *in* lies in the first loop, *out* in the last one, at the
same places of it, so that the same pictures are cut and only the length differs. The cuts of a length come one after
the other, each a version of the same asset, after one that is not counted: what a worker loads once is loaded. The last
of them is the worst: a frame behind a keyframe, and a frame before one.

Measured is the whole step, as the workbench does it: reading the presentation, cutting, the stage in its child,
storing the pieces, rendering and publishing the version, and the commits of all that. CPU is that of the worker, and
beside it of the nursery with its child (Linux only). Bytes and objects are what lies in storage then and did not
before, or has changed: media (pieces), `presentation.json`, media playlists, and the doors (the master playlist and
the MPD). The media does not depend on the length; the text does.

What is real: doorman, record, conductor, workbench, nursery, sandbox, stage, publication; ingest and sound at all
lengths; the loop's ladder. Storage is a folder of this machine, the record is in memory: a bucket and a Redis would
add their round trips, about as many as there are objects. Of a longer ladder the pictures' segments are those of the
loop, told to be later (their `tfdt`): it is not encoded for an hour, and in storage lie only those that a cut divides.
Left out is what comes when the step has ended: the history of the job.

The peers: `ffmpeg` with one decode and a split encodes a range of the ladder again (so many seconds of it are measured,
and scaled to ten minutes; 0: no peers); smartcut (PyPI, in a virtual environment of its own below `.tools/`) cuts each
rendition of the ladder at the same place, one run a rendition. CPU is user + system of the process and its children.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random

from benchmarks.ladder import FFMPEG, KEYFRAME, RUNGS, Measured, encode, run, scale, source_of
from benchmarks.long_assets import ASSET, LOOP, Long, ladder_of, long_asset, looped
from pipeline import keys
from pipeline.ports import Storage, StoredObject
from pipeline.presentation.cutting import cut, frames_of
from pipeline.presentation.publish import version
from pipeline.requests import TrimRequest
from pipeline.sandbox import Nursery

SMARTCUT = Path(__file__).parents[1] / ".tools" / "smartcut"
SCALED = 600
"""Seconds of the range that ffmpeg is told to encode again."""
CUT = tuple[Fraction, Fraction]
"""Seconds into the first loop at which it begins, and into the last one at which it ends."""
WARM: CUT = (2 * KEYFRAME + Fraction(1), 9 * KEYFRAME - Fraction(1))
TEXTS = ("presentation", "playlists", "doors")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An asset of some minutes, as the peers see it."""

    minutes: int
    source: Path
    ladder: Path


def main() -> None:
    options = _options()
    if options.make:
        _make(Path(options.make), options.minutes[0], _cuts(options.cuts))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        loop = source_of(options.source, LOOP, folder)
        ladder = ladder_of(loop, folder)
        samples = [Sample(minutes=n, source=looped(loop, n, folder), ladder=ladder) for n in options.minutes]
        _head()
        ours_of = {sample.minutes: _trimmed(sample, options.cuts, folder) for sample in samples}
        for sample in samples:
            _print_ours(sample, ours_of[sample.minutes])
        if not options.peer_seconds:
            return
        _print_ffmpeg(_encoded(samples[0].source, options.peer_seconds, folder), options.peer_seconds)
        for sample in samples[:2]:
            measured = _smartcut(sample, _cuts(options.cuts)[0], folder)
            _print_smartcut(sample, measured, ours_of[sample.minutes][0])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="", help="20 s of 1080p; by default Big Buck Bunny, looped and enlarged")
    parser.add_argument("--minutes", type=int, nargs="+", default=[1, 10, 60])
    parser.add_argument("--cuts", type=int, default=6)
    parser.add_argument("--peer-seconds", type=int, default=20)
    parser.add_argument("--make", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def _cuts(count: int) -> list[CUT]:
    """Random places, and the worst ones."""
    random = Random(5)
    usual = [
        (Fraction(random.randrange(10_000), 1000), Fraction(random.randrange(10_000, 20_000), 1000))
        for _ in range(count - 1)
    ]
    frame = Fraction(1, 25)
    return [*usual, (2 * KEYFRAME + frame, 9 * KEYFRAME - frame)]


# -- ours --------------------------------------------------------------------------------------------------------------


def _times(minutes: int, each: CUT) -> CUT:
    return each[0], minutes * 60 - LOOP + each[1]


def _trimmed(sample: Sample, cuts: int, folder: Path) -> list[dict[str, float]]:
    """All cuts of one length, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.trim", "--make", str(folder), "--minutes", str(sample.minutes)]
    made = subprocess.run([*command, "--cuts", str(cuts)], check=True, stdout=subprocess.PIPE, text=True)
    answer: list[dict[str, float]] = json.loads(made.stdout)
    return answer


def _make(folder: Path, minutes: int, cuts: Sequence[CUT]) -> None:
    """Our side, in a process of its own."""
    (scratch := folder / f"scratch-{minutes}").mkdir()
    nursery = Nursery(scratch)
    nursery.start()
    try:
        root = folder / f"storage-{minutes}"
        asset = long_asset(minutes, folder / f"{minutes}.mp4", folder / "ladder", root, nursery)
        made = [_measured(asset, minutes, each, nursery) for each in (WARM, *cuts)]
    finally:
        nursery.close()
    print(json.dumps(made[1:]))


def _measured(asset: Long, minutes: int, each: CUT, nursery: Nursery) -> dict[str, float]:
    """One cut."""
    shop, (start, end) = asset.shop, _times(minutes, each)
    _lay(asset, start, end)
    shop.ask(TrimRequest(asset_id=ASSET, start_time=float(start), end_time=float(end)))
    (attempt,) = shop.begun("trim")
    before, nursed = _objects(shop.storage), _nursed_s(nursery)
    began, cpu = time.monotonic(), time.process_time()
    assert shop.bench.run(attempt) == "succeeded"
    spent = {"worker_s": time.process_time() - cpu, "wall_s": time.monotonic() - began}
    written = [stored for key, stored in _objects(shop.storage).items() if before.get(key) != stored]
    facts = shop.job(attempt.ref.job).steps["trim"].facts
    shown = version(shop.storage, ASSET, int(facts["version"]))
    assert shown is not None
    assert shown.edit is not None
    assert not any(patch.seams for patch in shown.edit.patches)
    shop.work()  # its history
    child = _nursed_s(nursery) - nursed
    return {**spent, "child_s": child, "frames": facts["encoded_frames"], "objects": len(written), **_bytes(written)}


def _lay(asset: Long, start: Fraction, end: Fraction) -> None:
    """The segments of pictures that are about to be divided come into storage."""
    divided = cut(asset.tracks, asset.timeline, *frames_of(start, end, asset.timeline))
    for each in divided.cuts:
        for segment in each.divided if each.kind == "video" else ():
            asset.lay(segment)


def _objects(storage: Storage) -> Mapping[str, StoredObject]:
    return {stored.key: stored for stored in storage.list("")}


def _bytes(written: Sequence[StoredObject]) -> dict[str, int]:
    sizes = dict.fromkeys(("media", *TEXTS), 0)
    for stored in written:
        sizes[_kind(stored.key)] += stored.size
    return sizes


def _kind(key: str) -> str:
    if key.endswith((".m4s", ".mp4")):
        return "media"
    if key in (keys.hls_door(ASSET), keys.dash_door(ASSET)):
        return "doors"
    return "presentation" if key.endswith("presentation.json") else "playlists"


def _nursed_s(nursery: Nursery) -> float:
    """CPU seconds of the nursery and of all children that have ended."""
    assert nursery._process is not None
    fields = Path(f"/proc/{nursery._process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


# -- the peers ---------------------------------------------------------------------------------------------------------


def _encoded(source: Path, seconds: int, folder: Path) -> Measured:
    """ffmpeg makes the ladder of a range again: one decode and a split."""
    outputs = "".join(f"[s{index}]" for index in range(len(RUNGS)))
    scales = [f"[s{index}]{scale(rung)}[v{index}]" for index, rung in enumerate(RUNGS)]
    command = [FFMPEG, "-v", "error", "-y", "-ss", "10.04", "-t", str(seconds), "-i", str(source)]
    command += ["-filter_complex", ";".join([f"[0:v]split={len(RUNGS)}{outputs}", *scales])]
    for index, rung in enumerate(RUNGS):
        command += ["-map", f"[v{index}]", *encode(rung), str(folder / f"again-{rung.track}.mp4")]
    return run([command])


def _smartcut(asset: Sample, each: CUT, folder: Path) -> Measured:
    """One run for every rendition, one after the other."""
    start, stop = _times(asset.minutes, each)
    program, sources = _smartcut_program(), [_rendition(asset, rung.track, folder) for rung in RUNGS]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    for source in sources:
        command = [str(program), str(source), str(folder / f"smart-{source.name}")]
        kept = f"{float(start):.3f},{float(stop):.3f}"
        subprocess.run([*command, "--keep", kept], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(cpu_s=cpu, wall_s=time.monotonic() - began, rss_mb=after.ru_maxrss / 1024)


def _rendition(asset: Sample, track: str, folder: Path) -> Path:
    """A rung of the ladder as the file that smartcut reads, as long as the asset."""
    whole, once = folder / f"{track}-{asset.minutes}.mp4", folder / f"{track}-once.mp4"
    if not whole.exists():
        files = sorted((asset.ladder / track).glob("*.m4s"), key=lambda path: int(path.stem))
        once.write_bytes(b"".join(path.read_bytes() for path in [asset.ladder / track / "init.mp4", *files]))
        looped = [
            FFMPEG,
            "-v",
            "error",
            "-stream_loop",
            str(asset.minutes * 60 // LOOP - 1),
            "-i",
            str(once),
            "-c",
            "copy",
        ]
        subprocess.run([*looped, str(whole)], check=True)
    return whole


def _smartcut_program() -> Path:
    program = SMARTCUT / "bin" / "smartcut"
    if not program.exists():
        venv.create(SMARTCUT, with_pip=True)
        subprocess.run(
            [str(SMARTCUT / "bin" / "pip"), "install", "--quiet", "smartcut"], check=True, stderr=subprocess.DEVNULL
        )
    return program


# -- the table ---------------------------------------------------------------------------------------------------------


def _head() -> None:
    print(f"five rungs of 1080p, {LOOP} s looped; CPU seconds, the step of a trim")
    print(f"{'':34}{'CPU s':>7}{'worst':>7}{'worker':>8}{'child':>7}{'wall s':>8}{'frames':>8}", flush=True)


def _print_ours(asset: Sample, runs: Sequence[dict[str, float]]) -> None:
    *usual, worst = runs
    mean = {name: statistics.mean(each[name] for each in usual) for name in worst}
    print(
        f"{f'reelway, {asset.minutes} min, {len(usual)} cuts':34}{_cpu(mean):7.2f}{_cpu(worst):7.2f}"
        f"{mean['worker_s']:8.2f}{mean['child_s']:7.2f}{mean['wall_s']:8.2f}{mean['frames']:8.0f}"
    )
    texts = " + ".join(f"{mean[name] / 1e3:.0f} {name}" for name in TEXTS)
    text = sum(mean[name] for name in TEXTS) / 1e3
    print(f"{'':6}{mean['objects']:.0f} objects, {mean['media'] / 1e3:.0f} kB media, {text:.0f} kB text: {texts}")


def _cpu(measured: Mapping[str, float]) -> float:
    return measured["worker_s"] + measured["child_s"]


def _print_ffmpeg(measured: Measured, seconds: int) -> None:
    cpu = measured.cpu_s * SCALED / seconds
    print(f"{f'ffmpeg split, 10 min ({seconds} s × {SCALED / seconds:g})':34}{cpu:8.2f}", flush=True)


def _print_smartcut(asset: Sample, measured: Measured, same: dict[str, float]) -> None:
    for name, cpu_s, wall_s in (
        (f"smartcut × {len(RUNGS)}", measured.cpu_s, measured.wall_s),
        ("reelway", _cpu(same), same["wall_s"]),
    ):
        print(f"{f'{name}, {asset.minutes} min, the first cut':34}{cpu_s:8.2f}{'':8}{wall_s:8.2f}", flush=True)


if __name__ == "__main__":
    main()
