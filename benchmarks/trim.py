"""Trimming a ready asset: `python -m benchmarks.trim [--cuts 6] [--minutes 1 10 60] [--peer-seconds 20]`.

Twenty seconds of 1080p, looped to each length by copying, with sound, and their ladder of five rungs, preset veryfast
as in the default profile. Every cut is made at every length: *in* lies in the first loop, *out* in the last one, at the
same places of it, so that the same pictures are cut and only the length differs. Each runs in a process of its own, and
CPU is counted from the stage's call to its answer: everything is loaded before, as in a worker's nursery. The last of
the cuts is the worst: a frame behind a keyframe, and a frame before one.

What is real: the loop's ladder, the sources and their sound at all lengths, the stage, and every byte that it reads
and writes. Of a longer ladder the pictures' segments are those of the loop, told to be later (their `tfdt`): it is not
encoded for an hour. Storage is left out; the segments that a cut divides lie on the disk.

The peers: `ffmpeg` with one decode and a split encodes a range of the ladder again (so many seconds of it are measured,
and scaled to ten minutes); smartcut (PyPI, in a virtual environment of its own below `.tools/`) cuts each rendition of
the ladder at the same place, one run a rendition. CPU is user + system of the process and its children.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from random import Random

from benchmarks.ladder import FFMPEG, KEYFRAME, MEDIA, RUNGS, SEGMENT, Measured, encode, ours, run, scale, source_of
from pipeline.media.boxes import boxes, find, scan_segment, timescale
from pipeline.media.probe import probe
from pipeline.media.rates import timeline_of
from pipeline.presentation.cutting import cut, frames_of
from pipeline.presentation.model import Track
from pipeline.stages.audio import audio
from pipeline.stages.trim import trim
from pipeline.tasks import (
    AudioRendition,
    AudioTask,
    Keyframe,
    Limits,
    MediaInfo,
    Segment,
    Timeline,
    TrimTask,
    from_json,
    to_json,
)

LOOP = 20
"""Seconds; whole segments, and a whole part of a minute."""
SOUND = "audio-1-und"
SMARTCUT = Path(__file__).parents[1] / ".tools" / "smartcut"
SCALED = 600
"""Seconds of the range that ffmpeg is told to encode again."""
CUT = tuple[Fraction, Fraction]
"""Seconds into the first loop at which it begins, and into the last one at which it ends."""


@dataclass(frozen=True, kw_only=True)
class Long:
    """An asset of some minutes."""

    minutes: int
    source: Path
    media: MediaInfo
    timeline: Timeline
    tracks: tuple[Track, ...]
    ladder: Path
    """The loop's folders, by track."""
    sound: Path


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
        _make(Path(options.make))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        loop = source_of(options.source, LOOP, folder)
        ladder = _ladder(loop, folder)
        assets = [_long(minutes, loop, ladder, folder) for minutes in options.minutes]
        cuts = _cuts(options.cuts)
        _head()
        ours_of = {asset.minutes: [_trimmed(asset, each, folder) for each in cuts] for asset in assets}
        for asset in assets:
            _print_ours(asset, ours_of[asset.minutes])
        _print_ffmpeg(_encoded(assets[0].source, options.peer_seconds, folder), options.peer_seconds)
        for asset in assets[:2]:
            _print_smartcut(asset, _smartcut(asset, cuts[0], folder), ours_of[asset.minutes][0])


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


# -- the assets --------------------------------------------------------------------------------------------------------


def _ladder(loop: Path, folder: Path) -> Path:
    """The loop's pictures in all rungs, made by two processes."""
    (folder / MEDIA).write_text(to_json(probe(loop, Limits(), lambda _: None)))
    out = folder / "ladder"
    run([ours(loop, out, [part], 2) for part in (0, 1)])
    return out


def _long(minutes: int, loop: Path, ladder: Path, folder: Path) -> Long:
    source = folder / f"{minutes}.mp4"
    seconds, repeated = minutes * 60, minutes * 60 // LOOP
    command = [FFMPEG, "-v", "error", "-stream_loop", str(repeated - 1), "-i", str(loop), "-f", "lavfi"]
    command += ["-i", "aevalsrc=0.3*sin(880*PI*t)*lt(mod(t\\,1)\\,0.1):s=48000", "-t", str(seconds), "-map", "0:v"]
    subprocess.run([*command, "-map", "1:a", "-c:v", "copy", "-c:a", "aac", str(source)], check=True)
    media = probe(source, Limits(), lambda _: None)
    timeline = timeline_of(media, segment=SEGMENT, keyframe=KEYFRAME)
    assert abs(timeline.duration - seconds) < 1, "the loop has a seam"
    sound = folder / f"sound-{minutes}"
    rendition = AudioRendition(track=SOUND, stream=media.audio[0], bitrate=128_000)
    task = AudioTask(asset="benchmark", source="source", rendition=rendition, timeline=timeline)
    audio(task, {"source": source}, _Folder(sound), lambda _: None)
    tracks = tuple(_track(ladder / rung.track, "video", repeated) for rung in RUNGS)
    return Long(
        minutes=minutes,
        source=source,
        media=media,
        timeline=timeline,
        tracks=(*tracks, _track(sound / SOUND, "audio", 1)),
        ladder=ladder,
        sound=sound,
    )


def _track(folder: Path, kind: str, repeated: int) -> Track:
    """A track by its files, again and again."""
    init = (folder / "init.mp4").read_bytes()
    scale = timescale(init)
    segments = sorted(_segments(folder, init), key=lambda segment: segment.start)
    return Track(
        id=folder.name,
        kind="video" if kind == "video" else "audio",
        codec="",
        timescale=scale,
        init="init.mp4",
        segments=tuple(_later(segment, n * LOOP * scale) for n in range(repeated) for segment in segments),
        sample_rate=scale if kind == "audio" else None,
    )


def _segments(folder: Path, init: bytes) -> Iterator[Segment]:
    for path in folder.glob("*.m4s"):
        scan = scan_segment(path.read_bytes(), init)
        size = path.stat().st_size
        yield Segment(start=scan.start, duration=scan.duration, key=path.name, size=size, keyframes=scan.keyframes)


def _later(segment: Segment, ticks: int) -> Segment:
    moved: list[Keyframe] = [replace(keyframe, tick=keyframe.tick + ticks) for keyframe in segment.keyframes]
    return replace(segment, start=segment.start + ticks, keyframes=tuple(moved))


def _stored(path: Path, ticks: int) -> bytes:
    """The bytes of a segment that begins so much later."""
    data = bytearray(path.read_bytes())
    for moof in boxes(bytes(data)):
        if moof.kind == b"moof":
            tfdt = find(bytes(data), b"traf", b"tfdt", within=moof)
            struct.pack_into(">Q", data, tfdt.body + 4, struct.unpack_from(">Q", data, tfdt.body + 4)[0] + ticks)
    return bytes(data)


# -- ours --------------------------------------------------------------------------------------------------------------


def _times(asset: Long, each: CUT) -> CUT:
    return each[0], asset.minutes * 60 - LOOP + each[1]


def _trimmed(asset: Long, each: CUT, folder: Path) -> dict[str, float]:
    """One cut, in a process of its own."""
    task, place = _task(asset, each), folder / "trim"
    inputs = {"source": str(asset.source)}
    for divided in task.cuts:
        root = (asset.sound if divided.kind == "audio" else asset.ladder) / divided.track
        inputs[f"{divided.track}/init.mp4"] = str(root / "init.mp4")
        for segment in divided.divided:
            path = place / "in" / divided.track / f"{segment.start}.m4s"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_stored(root / segment.key, segment.start - int(Path(segment.key).stem)))
            inputs[f"{divided.track}/{segment.start}.m4s"] = str(path)
    (place / "task.json").write_text(json.dumps({"task": to_json(task), "inputs": inputs}))
    command = [sys.executable, "-m", "benchmarks.trim", "--make", str(place)]
    answer: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer


def _task(asset: Long, each: CUT) -> TrimTask:
    start, stop = _times(asset, each)
    first, end = frames_of(start, stop, asset.timeline)
    made, rungs = cut(asset.tracks, asset.timeline, first, end), {rung.track: rung for rung in RUNGS}
    return TrimTask(
        asset="benchmark",
        source="source",
        start=start,
        stop=stop,
        timeline=asset.timeline,
        video=asset.media.video,
        seekable=asset.media.seekable,
        first=first,
        end=end,
        kept=made.kept,
        cuts=tuple(replace(divided, rung=rungs.get(divided.track)) for divided in made.cuts),
    )


def _make(place: Path) -> None:
    """Our side, in a process of its own."""
    order = json.loads((place / "task.json").read_text())
    task, inputs = from_json(TrimTask, order["task"]), {name: Path(path) for name, path in order["inputs"].items()}
    began, cpu = time.monotonic(), time.process_time()
    facts = trim(task, inputs, _Folder(place / "out"), lambda _: None)
    spent = {"cpu_s": time.process_time() - cpu, "wall_s": time.monotonic() - began}
    assert not any(patch.seams for patch in facts.patches)
    print(json.dumps({**spent, "bytes": facts.bytes, "frames": facts.encoded}))


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


def _smartcut(asset: Long, each: CUT, folder: Path) -> Measured:
    """One run for every rendition, one after the other."""
    start, stop = _times(asset, each)
    program, sources = _smartcut_program(), [_rendition(asset, rung.track, folder) for rung in RUNGS]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    for source in sources:
        command = [str(program), str(source), str(folder / f"smart-{source.name}")]
        kept = f"{float(start):.3f},{float(stop):.3f}"
        subprocess.run([*command, "--keep", kept], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(cpu_s=cpu, wall_s=time.monotonic() - began, rss_mb=after.ru_maxrss / 1024)


def _rendition(asset: Long, track: str, folder: Path) -> Path:
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
    print(f"five rungs of 1080p, {LOOP} s looped")
    print(f"{'':34}{'CPU s':>8}{'worst':>8}{'wall s':>8}{'MB':>8}{'frames':>8}", flush=True)


def _print_ours(asset: Long, runs: Sequence[dict[str, float]]) -> None:
    *usual, worst = runs
    mean = {name: statistics.mean(each[name] for each in usual) for name in worst}
    print(
        f"{f'reelway, {asset.minutes} min, {len(usual)} cuts':34}{mean['cpu_s']:8.2f}{worst['cpu_s']:8.2f}"
        f"{mean['wall_s']:8.2f}{mean['bytes'] / 1e6:8.2f}{mean['frames']:8.0f}",
        flush=True,
    )


def _print_ffmpeg(measured: Measured, seconds: int) -> None:
    cpu = measured.cpu_s * SCALED / seconds
    print(f"{f'ffmpeg split, 10 min ({seconds} s × {SCALED / seconds:g})':34}{cpu:8.2f}", flush=True)


def _print_smartcut(asset: Long, measured: Measured, same: dict[str, float]) -> None:
    for name, cpu_s, wall_s in (
        (f"smartcut × {len(RUNGS)}", measured.cpu_s, measured.wall_s),
        ("reelway", same["cpu_s"], same["wall_s"]),
    ):
        print(f"{f'{name}, {asset.minutes} min, the first cut':34}{cpu_s:8.2f}{'':8}{wall_s:8.2f}", flush=True)


if __name__ == "__main__":
    main()
