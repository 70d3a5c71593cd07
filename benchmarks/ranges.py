"""What steps read of a source in a bucket: `python -m benchmarks.ranges [--seconds 64] [--delay-ms 0]`.

The same minute of 1080p in many containers, on a real S3 server; each chunk of 16 s is made in its sandbox, as a worker
makes it. Counted are the bytes and the requests of each chunk, beside its share of the file (chunk / duration), which
nobody can read less than; the index, the look at the head that libav takes at every file, and what was read ahead in
vain come on top. A container that cannot be seeked is one chunk. Sound is read by a step for the whole file: where
it lies between the pictures, so is the file.

`--delay-ms` makes every request take so much longer, as a bucket far away does; the seconds then show what reading
ahead hides. Linux only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean

from benchmarks.ladder import FFMPEG, KEYFRAME, SEGMENT, source_of
from pipeline.media.probe import probe
from pipeline.media.rates import timeline_of
from pipeline.media.timeline import chunk_range, segment_starts
from pipeline.ports import Storage
from pipeline.ranges import Served, serving
from pipeline.sandbox import ChildLimits, Nursery
from pipeline.storage import open_storage
from pipeline.tasks import AudioRendition, AudioTask, Limits, Rung, TranscodeTask, to_json

CONTAINERS = {
    "MP4, index in front": ("front.mp4", "-movflags", "+faststart"),
    "MP4, index at the end": ("end.mp4",),
    "Matroska": ("plain.mkv",),
    "MPEG-TS (one chunk)": ("plain.ts",),
    "MP4 in fragments": ("fragments.mp4", "-movflags", "frag_keyframe+empty_moov+default_base_moof"),
    "Matroska without cues": ("live.mkv", "-live", "1"),
}
SMALL = Rung(name="240p", width=426, height=240, crf=30, maxrate=400_000, bufsize=800_000, preset="ultrafast")
CHUNK_SEGMENTS = 4


@dataclass(frozen=True, kw_only=True)
class Read:
    """What one step read."""

    bytes: int
    requests: int
    wall_s: float
    share: float
    """The step's share of the file, bytes."""


class Delayed:
    """A storage whose reads take longer."""

    def __init__(self, inner: Storage, delay_s: float) -> None:
        self._inner, self._delay_s = inner, delay_s

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        time.sleep(self._delay_s)
        return self._inner.get(key, offset, length)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="", help="a 1080p file; by default Big Buck Bunny, looped and enlarged")
    parser.add_argument("--seconds", type=int, default=64)
    parser.add_argument("--delay-ms", type=float, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, _bucket(Path(scratch)) as storage:
        folder = Path(scratch)
        nursery = Nursery(folder)
        nursery.start()
        try:
            source = _with_sound(source_of(options.source, options.seconds, folder), folder, options.seconds)
            print(_HEAD)
            for name, (file, *how) in CONTAINERS.items():
                path = folder / file
                subprocess.run([FFMPEG, "-v", "error", "-i", str(source), "-c", "copy", *how, str(path)], check=True)
                storage.put(f"private/{file}", path)
                _measure(name, path, storage, nursery, options.delay_ms / 1000)
        finally:
            nursery.close()


def _measure(name: str, path: Path, storage: Storage, nursery: Nursery, delay_s: float) -> None:
    media = probe(path, Limits(), lambda _: None)
    timeline = timeline_of(media, segment=SEGMENT, keyframe=KEYFRAME)
    count, size = len(segment_starts(timeline)), path.stat().st_size
    assert media.video is not None
    chunks = []
    cuts = range(0, count - CHUNK_SEGMENTS + 1, CHUNK_SEGMENTS) if media.seekable else range(1)
    for first, last in pairwise([*cuts, count]):  # the last one takes what is left
        task = TranscodeTask(
            asset="benchmark",
            source="source",
            video=media.video,
            timeline=timeline,
            rungs=(SMALL,),
            first_segment=first,
            last_segment=last,
            seekable=media.seekable,
        )
        begin, end = chunk_range(timeline, first, last)
        share = size * (end - begin) / timeline.frames
        chunks.append(_run("transcode", to_json(task), path.name, storage, nursery, delay_s, share))
    rendition = AudioRendition(track="audio-1", stream=media.audio[0], bitrate=128_000)
    sound = AudioTask(asset="benchmark", source="source", rendition=rendition, timeline=timeline)
    heard = _run("audio", to_json(sound), path.name, storage, nursery, delay_s, size)
    _print(name, size, chunks, heard)


def _run(stage: str, task: str, name: str, storage: Storage, nursery: Nursery, delay_s: float, share: float) -> Read:
    stored = storage.stat(f"private/{name}")
    assert stored is not None
    served = Served(Delayed(storage, delay_s), stored, lambda: None)  # type: ignore[arg-type]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(dir=nursery.scratch) as out, serving([served]):
        child = nursery.child([served])
        try:
            for _ in child.run(stage, task, {"source": served}, Path(out), ChildLimits()):
                pass
        finally:
            child.close()
    wall_s = time.monotonic() - begin
    return Read(bytes=served.bytes_read, requests=served.requests, wall_s=wall_s, share=share)


_HEAD = f"{'':24}{'MB':>6}{'MB of each chunk':>40}{'× share':>9}{'worst':>7}{'requests':>10}{'s':>7}{'sound reads':>20}"


def _print(name: str, size: int, chunks: list[Read], heard: Read) -> None:
    each = " ".join(f"{chunk.bytes / 1e6:.1f}" for chunk in chunks)
    ratios = [chunk.bytes / chunk.share for chunk in chunks]
    print(
        f"{name:24}{size / 1e6:6.1f}{each:>40}{mean(ratios):9.2f}{max(ratios):7.2f}"
        f"{mean(chunk.requests for chunk in chunks):10.0f}{mean(chunk.wall_s for chunk in chunks):7.1f}"
        f"{heard.bytes / size:9.0%} in {heard.requests:4} {heard.wall_s:.1f} s",
        flush=True,
    )


def _with_sound(source: Path, folder: Path, seconds: int) -> Path:
    path = folder / "with-sound.mp4"
    command = [FFMPEG, "-v", "error", "-i", str(source), "-f", "lavfi", "-i", "sine=r=48000", "-t", str(seconds)]
    subprocess.run([*command, "-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac", str(path)], check=True)
    return path


@contextmanager
def _bucket(folder: Path) -> Iterator[Storage]:
    """A bucket of a server that lives as long as the context: the one of the tests."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from s3_server import CREDENTIALS, S3Server

    os.environ.update(CREDENTIALS)
    place = folder / "s3"
    place.mkdir()
    server = S3Server(place)
    try:
        yield open_storage(server.url())
    finally:
        server.kill()


if __name__ == "__main__":
    main()
