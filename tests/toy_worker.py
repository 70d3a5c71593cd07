"""A real worker process whose stages are toys: `python tests/toy_worker.py`, or `toy_worker(…)` in a test.

Only the media work is a toy. Queue, record, sandbox, storage, the real package stage and publishing are what they are.
A toy source is a script in JSON (`write_source`): how long the asset is, how long each stage takes, what becomes of it.
Stages see no request, so the source is where a test says what shall happen.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from pipeline import sandbox
from pipeline.media.timeline import AAC_FRAME, audio_frames, audio_segment_starts, keyframes, segment_starts
from pipeline.stages import STAGES
from pipeline.stages.contract import Outputs, Tick
from pipeline.tasks import (
    AudioStream,
    AudioTask,
    IngestFacts,
    IngestTask,
    Keyframe,
    MediaInfo,
    Part,
    PartsFacts,
    Segment,
    SubtitleFacts,
    SubtitleTask,
    TranscodeTask,
    VideoStream,
    to_json,
)

HERE = Path(__file__).resolve().parent
RATE = Fraction(25)
TICK_S = 0.05
"""How often a toy reports progress."""
TOYS = ("ingest", "transcode", "audio", "subtitle")
"""`package` is the real one: it opens no media."""

Fate = Literal["fine", "crash", "poison", "refuse", "full"]
"""`crash`: the stage's process dies of SIGSEGV. `poison`: it takes its worker with it (SIGKILL). `refuse`: it is told
that the file is broken. `full`: the scratch disk has no space left."""


def write_source(
    path: Path,
    *,
    seconds: int = 12,
    work_s: float | Mapping[str, float] = 0.0,
    fates: Mapping[str, Fate] | None = None,
    times: int = 10**9,
    until: Mapping[str, Path] | None = None,
    sound: bool = True,
    speaks: bool = False,
    encoder: str | None = None,
) -> Path:
    """A source of `seconds`, whose stages take `work_s` each (by stage, or all of them alike).

    A stage in `until` goes on until its file is there as well. Where the source `speaks`, the subtitle stage (asked
    for by the request) writes captions. `encoder`: the ingest stage says that the workers have this build of it.

    The fate of a stage befalls its first `times` attempts on this source; then it goes well. Each attempt that starts
    or ends is a line in the diary beside the source (`read_diary`), so give each source a path of its own.
    """
    work = dict.fromkeys(TOYS, work_s) if isinstance(work_s, (int, float)) else dict(work_s)
    gates = {stage: str(gate) for stage, gate in (until or {}).items()}
    script = {"seconds": seconds, "work_s": work, "until": gates, "fates": dict(fates or {}), "times": times}
    script |= {"sound": sound, "speaks": speaks, "encoder": encoder}
    path.write_text(json.dumps({**script, "diary": f"{path}.diary", "nonce": path.name}))
    return path


def read_diary(source: Path) -> list[tuple[str, str]]:
    """(what, of which part) in the order in which it happened: `("start", "transcode-0")`, `("end", …)`."""
    diary = Path(f"{source}.diary")
    lines = diary.read_text().splitlines() if diary.exists() else []
    return [(what, part) for what, _, part in (line.partition(" ") for line in lines)]


# -- the toys: they run in the sandbox --------------------------------------------------------------------------------


def ingest(task: IngestTask, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> IngestFacts:
    from pipeline.media.encoder import fingerprint

    script = _script(inputs)
    with _working(script, "ingest", "ingest", tick):
        end = Fraction(script["seconds"])
        video = VideoStream(
            index=0,
            codec="h264",
            width=426,
            height=240,
            rate=RATE,
            frames=round(end * RATE),
            start=Fraction(0),
            end=end,
        )
        sound = AudioStream(
            index=1, codec="aac", channels=2, layout="stereo", sample_rate=48000, start=Fraction(0), end=end
        )
        media = MediaInfo(
            format="mov,mp4,m4a,3gp,3g2,mj2",
            size=len(json.dumps(script)),
            duration=end,
            start=Fraction(0),
            video=video,
            audio=(sound,) if script["sound"] else (),
            sha256=task.sha256,
        )
        out.path("media.json").write_text(to_json(media))
        out.done("media.json")
    return IngestFacts(media=media, encoder=script["encoder"] or fingerprint())


def transcode(task: TranscodeTask, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> PartsFacts:
    grid = task.timeline
    ticks = int(grid.timescale / grid.rate)
    bounds = (*segment_starts(grid), grid.frames)[task.first_segment : task.last_segment + 1]
    forced = keyframes(grid)
    with _working(_script(inputs), "transcode", f"transcode-{task.first_segment}", tick):
        parts = tuple(
            _part(
                out,
                track=rung.track,
                kind="video",
                codec="avc1.64001f",
                timescale=grid.timescale,
                bounds=[bound * ticks for bound in bounds],
                forced=[frame * ticks for frame in forced],
            )
            for rung in task.rungs
        )
    return PartsFacts(parts=parts, media_s=(bounds[-1] - bounds[0]) / grid.rate)


def audio(task: AudioTask, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> PartsFacts:
    rendition, grid = task.rendition, task.timeline
    rate = rendition.sample_rate
    frames = [*audio_segment_starts(grid, rate), audio_frames(grid, rate)]
    with _working(_script(inputs), "audio", rendition.track, tick):
        part = _part(
            out,
            track=rendition.track,
            kind="audio",
            codec="mp4a.40.2",
            timescale=rate,
            bounds=[frame * AAC_FRAME for frame in frames],
        )
    return PartsFacts(parts=(part,), media_s=grid.duration)


def subtitle(task: SubtitleTask, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> SubtitleFacts:
    script = _script(inputs)
    with _working(script, "subtitle", "subtitle", tick):
        if not script["speaks"]:
            return SubtitleFacts(speech=False, language="und", spoken="und", model="toy")
        _write(out, "words.json", b"{}")
        _write(out, "captions.vtt", b"WEBVTT\n\n00:00:01.000 --> 00:00:02.000\nToys.\n")
    return SubtitleFacts(speech=True, language="en", spoken="en", model="toy", words=1, cues=1)


def body(track: str, start: int) -> bytes:
    """The bytes of a toy segment: they follow from its name alone, so that a test can tell a wrong one."""
    return f"{track}/{start}\n".encode() * 20


def _part(
    out: Outputs,
    *,
    track: str,
    kind: Literal["video", "audio"],
    codec: str,
    timescale: int,
    bounds: Sequence[int],
    forced: Sequence[int] = (),
) -> Part:
    init = f"{track}/init\n".encode()
    _write(out, f"{track}/init.mp4", init)
    segments: list[Segment] = []
    for start, end in itertools.pairwise(bounds):
        data = body(track, start)
        _write(out, f"{track}/{start}.m4s", data)
        inside = tuple(Keyframe(tick=at, offset=0, size=len(data)) for at in forced if start <= at < end)
        segments.append(
            Segment(start=start, duration=end - start, key=f"{start}.m4s", size=len(data), keyframes=inside)
        )
    return Part(
        track=track,
        kind=kind,
        codec=codec,
        timescale=timescale,
        init="init.mp4",
        init_digest=hashlib.sha256(init).hexdigest(),
        segments=tuple(segments),
    )


def _write(out: Outputs, name: str, data: bytes) -> None:
    out.path(name).write_bytes(data)
    out.done(name)


def _script(inputs: Mapping[str, Path]) -> dict[str, Any]:
    source: Any = inputs["source"]  # a file, or a handle where storage is no folder
    text = source.read_bytes() if isinstance(source, Path) else source.open().read(source.size)
    script: dict[str, Any] = json.loads(text)
    return script


@contextlib.contextmanager
def _working(script: Mapping[str, Any], stage: str, part: str, tick: Tick) -> Iterator[None]:
    """Take the stage's time and meet its fate, half way; what is inside happens at the end."""
    diary = Path(script["diary"])
    _note(diary, f"start {part}")
    earlier = diary.read_text().splitlines().count(f"start {part}") - 1
    seconds = script["work_s"].get(stage, 0.0)
    _work(seconds / 2, tick)
    if earlier < script["times"]:
        _meet(script["fates"].get(stage, "fine"))
    _work(seconds / 2, tick)
    _wait(script["until"].get(stage), tick)
    yield
    _note(diary, f"end {part}")


def _work(seconds: float, tick: Tick) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        tick(0.5)
        time.sleep(min(TICK_S, left))


def _wait(gate: str | None, tick: Tick) -> None:
    while gate and not Path(gate).exists():
        _work(TICK_S, tick)


def _note(diary: Path, line: str) -> None:
    with diary.open("a") as file:
        file.write(f"{line}\n")


def _meet(fate: Fate) -> None:
    from pipeline.errors import PipelineError

    if fate == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif fate == "poison":
        os.kill(_parent_of(os.getppid()), signal.SIGKILL)  # the nursery's parent is the worker
        time.sleep(60)
    elif fate == "refuse":
        raise PipelineError("video_file_broken")
    elif fate == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


# -- the process ------------------------------------------------------------------------------------------------------


def toy_worker(environment: Mapping[str, str], *, log: Path | None = None) -> subprocess.Popen[bytes]:
    """Start one with these settings (`REELWAY_…`); on a leash: it ends with the thread that started it at the latest.

    End it with `workers.embedded.end`.
    """
    from workers.embedded import leashed

    inherited = {name: value for name, value in os.environ.items() if not name.startswith("REELWAY_")}
    output = log.open("ab") if log else subprocess.DEVNULL
    try:
        return leashed(
            [sys.executable, str(HERE / "toy_worker.py")],
            env={**inherited, "REELWAY_LOCAL_SOURCES": "true", **environment},
            stdout=output,
            stderr=output,
        )
    finally:
        if not isinstance(output, int):
            output.close()


def play() -> None:
    """Put the toys in the index of the stages, for this process and the children of its nursery."""
    index: Any = STAGES
    for name in TOYS:
        index[name] = replace(STAGES[name], function=f"toy_worker:{name}")
    sandbox.PROGRAM = ("-P", str(HERE / "toy_nursery.py"))
    places = [str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(places)


def skew(seconds: float) -> None:
    """Let this process's clock be wrong by so much."""
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + seconds
    time.time_ns = lambda: right_ns() + round(seconds * 10**9)


def stick() -> None:
    """Let this process's janitor never come to an end."""
    from workers import keeper

    keeper.sweep_storage = lambda *_: int(threading.Event().wait())


if __name__ == "__main__":
    from workers.main import main

    play()
    if os.environ.pop("TOY_STUCK", ""):
        stick()
    skew(float(os.environ.pop("TOY_CLOCK_S", "0")))
    sys.exit(main())
