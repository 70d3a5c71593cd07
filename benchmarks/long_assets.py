"""Assets of any length, of a loop of twenty seconds: for benchmarks that ask what a length costs.

Ingest and the sound are real. Of the pictures only the loop is encoded: the tracks of a longer asset name the loop's
segments, told to be later, under the keys that their recipe gives them; only those that are asked for lie in storage.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.ladder import FFMPEG, MEDIA, RUNGS, ours, run
from pipeline import keys, plan
from pipeline.answers import Answer
from pipeline.media.boxes import boxes, find, scan_segment, timescale
from pipeline.media.probe import probe
from pipeline.presentation.compose import compose
from pipeline.presentation.model import Effect, Track
from pipeline.presentation.publish import publish
from pipeline.profile import RungProfile, VideoProfile
from pipeline.publishing import published
from pipeline.sandbox import Nursery
from pipeline.storage.folder import FolderStorage
from pipeline.tasks import Blueprint, Keyframe, Limits, PackageTask, Rung, Segment, Timeline, TranscodeTask, to_json

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from builders import a_profile, a_request
from shop import Shop

LOOP = 20
"""Seconds; whole segments, and a whole part of a minute."""
ASSET = "l0ngl0ngl0n"
PROFILE = a_profile(
    resolutions=tuple(rung.name for rung in RUNGS),
    video=VideoProfile(preset=RUNGS[0].preset, crf=RUNGS[0].crf),
    ladder=dict(a_profile().ladder) | {rung.name: RungProfile(maxrate=rung.maxrate) for rung in RUNGS},
)


@dataclass(frozen=True, kw_only=True)
class Long:
    """An asset of some minutes, which plays, as far as anybody can tell who reads no segment."""

    shop: Shop
    timeline: Timeline
    tracks: tuple[Track, ...]
    ladder: Path

    def lay(self, segment: Segment) -> None:
        """Put a segment of a picture where its key says."""
        track = next(track for track in self.tracks if track.id == segment.key.split("/")[2])
        loop = LOOP * track.timescale
        once = self.ladder / track.id / f"{segment.start % loop}.m4s"
        self.shop.storage.put(segment.key, _later(once, segment.start - segment.start % loop))


def ladder_of(loop: Path, folder: Path) -> Path:
    """The loop's pictures in all rungs, made by two processes."""
    (folder / MEDIA).write_text(to_json(probe(loop, Limits(), lambda _: None)))
    out = folder / "ladder"
    run([ours(loop, out, [part], 2) for part in (0, 1)])
    return out


def looped(loop: Path, minutes: int, folder: Path) -> Path:
    """The loop for so long, by copying, with a beep a second."""
    source = folder / f"{minutes}.mp4"
    command = [FFMPEG, "-v", "error", "-stream_loop", str(minutes * 60 // LOOP - 1), "-i", str(loop), "-f", "lavfi"]
    command += ["-i", "aevalsrc=0.3*sin(880*PI*t)*lt(mod(t\\,1)\\,0.1):s=48000", "-t", str(minutes * 60)]
    command += ["-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac", str(source)]
    subprocess.run(command, check=True)
    return source


def long_asset(minutes: int, source: Path, ladder: Path, root: Path, nursery: Nursery) -> Long:
    """The asset of this source, in a storage of its own."""
    shop = Shop(FolderStorage(root), nursery)
    shop.conductor.profiles = {"default": PROFILE}
    shop.ask(a_request(asset_id=ASSET, url=str(source), in_place=True))
    pictures: dict[str, Track] = {}
    tracks: tuple[Track, ...] = ()
    for attempt in shop.begun():
        task = plan.task(attempt.job, attempt.step)
        if isinstance(task, TranscodeTask):
            pictures |= {rung.track: _picture(shop, rung, task, ladder, minutes) for rung in task.rungs}
            assert shop.conductor.finish(attempt, Answer(facts={"receipt": "none"}))
        elif isinstance(task, PackageTask):
            _insist_on_the_ladder(task.blueprint, minutes)
            tracks = (*(pictures[rung.track] for rung in RUNGS), _sound(root))
            effect, timeline = Effect(job=attempt.ref.job, step=attempt.ref.step), task.blueprint.timeline
            assert shop.conductor.publishing(attempt)
            first = compose(
                None, asset=ASSET, tracks=tracks, effect=effect, duration=timeline.duration, segment=timeline.segment
            )
            shown = publish(shop.storage, ASSET, effect, lambda _, first=first: first)
            assert shop.conductor.finish(attempt, Answer(facts={"version": 1}, published=published(shown)))
        else:
            assert shop.bench.run(attempt) == "succeeded"
    shop.work()
    return Long(shop=shop, timeline=timeline, tracks=tracks, ladder=ladder)


def _insist_on_the_ladder(drawn: Blueprint, minutes: int) -> None:
    assert drawn.rungs == RUNGS, "the loop was encoded by another recipe"
    assert abs(drawn.timeline.duration - minutes * 60) < 1, "the loop has a seam"


# -- tracks ------------------------------------------------------------------------------------------------------------


def _picture(shop: Shop, rung: Rung, task: TranscodeTask, ladder: Path, minutes: int) -> Track:
    """The loop's track again and again, its init segment in storage."""
    folder = keys.track(ASSET, rung.track, keys.recipe(rung, task))
    init = (ladder / rung.track / "init.mp4").read_bytes()
    if shop.storage.stat(f"{folder}init.mp4") is None:
        shop.storage.put(f"{folder}init.mp4", init)
    scale, once = timescale(init), list(_segments(ladder / rung.track, init))
    moved = [_moved(segment, n * LOOP * scale, folder) for n in range(minutes * 60 // LOOP) for segment in once]
    return Track(
        id=rung.track,
        kind="video",
        codec="avc1.640028",
        timescale=scale,
        init=f"{folder}init.mp4",
        segments=tuple(moved),
        name=rung.name,
        rung=rung.name,
        width=rung.width,
        height=rung.height,
        frame_rate=task.timeline.rate,
    )


def _sound(root: Path) -> Track:
    (folder,) = (root / keys.public(ASSET)).glob("audio-*/*/")
    init = (folder / "init.mp4").read_bytes()
    inside = f"{folder.relative_to(root).as_posix()}/"
    return Track(
        id=folder.parent.name,
        kind="audio",
        codec="mp4a.40.2",
        timescale=timescale(init),
        init=f"{inside}init.mp4",
        # The keyframes of a sound are all its frames, and are not named.
        segments=tuple(replace(_moved(segment, 0, inside), keyframes=()) for segment in _segments(folder, init)),
        channels=1,
        sample_rate=timescale(init),
    )


def _segments(folder: Path, init: bytes) -> Iterator[Segment]:
    for path in sorted(folder.glob("*.m4s"), key=lambda path: int(path.stem)):
        scan = scan_segment(path.read_bytes(), init)
        size = path.stat().st_size
        yield Segment(start=scan.start, duration=scan.duration, key=path.name, size=size, keyframes=scan.keyframes)


def _moved(segment: Segment, ticks: int, folder: str) -> Segment:
    """The same so much later, under the key that it has there."""
    keyframes: list[Keyframe] = [replace(keyframe, tick=keyframe.tick + ticks) for keyframe in segment.keyframes]
    start = segment.start + ticks
    return replace(segment, start=start, key=f"{folder}{start}.m4s", keyframes=tuple(keyframes))


def _later(path: Path, ticks: int) -> bytes:
    """The bytes of a segment that begins so much later."""
    data = bytearray(path.read_bytes())
    for moof in boxes(bytes(data)):
        if moof.kind == b"moof":
            tfdt = find(bytes(data), b"traf", b"tfdt", within=moof)
            struct.pack_into(">Q", data, tfdt.body + 4, struct.unpack_from(">Q", data, tfdt.body + 4)[0] + ticks)
    return bytes(data)
