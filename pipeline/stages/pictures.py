"""Pictures of a run of output frames in every rung, in one decode: what transcode and trim share.

Decode from the keyframe before, put frames on the output grid, scale each shown frame once to every rung, and encode
every rung with one thread. The run decides only *which* frames are made; what they are is the same wherever it begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain
from typing import Any, Protocol

from av.packet import Packet

from pipeline.media import timeline as grid
from pipeline.media.codecs import VideoEncoder, output_color
from pipeline.media.frames import Decoded, FrameSource, Shown, lead_in, on_grid
from pipeline.media.scaling import Ladder, deinterlaced
from pipeline.stages.contract import Input
from pipeline.stages.pulse import Pulse
from pipeline.tasks import Rung, Timeline, VideoStream


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The picture of a source, and the grid that it is put on."""

    source: Input
    video: VideoStream
    timeline: Timeline
    seekable: bool


class Packets(Protocol):
    """Where the packets of one rung go."""

    def write(self, packets: Sequence[Packet[Any]], *, last: bool = False) -> None:
        """Take packets in the order of coding; after the `last` there are no more."""


@dataclass(frozen=True, kw_only=True)
class Rendition:
    """One rung of the run."""

    rung: Rung
    encoder: VideoEncoder
    files: Packets
    keyframes: frozenset[int]
    """Output frames that are encoded as IDR pictures."""


def encode(picture: Picture, renditions: Sequence[Rendition], first: int, end: int, pulse: Pulse) -> None:
    """Make the output frames [first, end) in every rendition.

    Raises `video_file_broken` where nothing of the picture can be decoded, and what the pulse raises.
    """
    sizes = [(rendition.rung.width, rendition.rung.height) for rendition in renditions]
    ladder = Ladder(picture.video, sizes, output_color(picture.video))
    for shown in _shown(picture, first, end, pulse):
        scaled = ladder.scale(shown.frame)
        for number in range(shown.first, shown.end):
            for rendition, frame in zip(renditions, scaled, strict=True):
                packets = rendition.encoder.encode(frame, number, key=number in rendition.keyframes)
                rendition.files.write(packets)
            pulse((number - first) / (end - first))
    for rendition in renditions:
        for packet in rendition.encoder.flush():
            rendition.files.write([packet])
            pulse(1.0)
        rendition.files.write([], last=True)


def _shown(picture: Picture, first: int, end: int, pulse: Pulse) -> Iterator[Shown]:
    """What each output frame of the run shows."""
    with closing(FrameSource(picture.source, picture.video)) as opened:
        sampling = grid.sampling(picture.video, picture.timeline, opened.time_base)
        frames = _frames_from(sampling.source_time(first), opened, picture, pulse)
        yield from on_grid(deinterlaced(_pulsed(frames, pulse), opened.time_base), sampling, first, end)


def _frames_from(time: Fraction, opened: FrameSource, picture: Picture, pulse: Pulse) -> Iterator[Decoded]:
    """Frames from some one at or before `time` on, with the lead-in that fields need."""
    early = time - lead_in(picture.video)
    begin = early if picture.video.interlaced else time
    if begin <= picture.video.start:
        return opened.frames_from(None)
    frames_from = opened.frames_from if picture.seekable else partial(opened.frames_after, passed=pulse)
    frames = frames_from(begin)
    first = next(frames)
    if first.frame.interlaced_frame and first.time > early:
        # Fields between progressive scenes, which nobody had seen until here.
        return frames_from(early)
    return chain((first,), frames)


def _pulsed(frames: Iterator[Decoded], pulse: Pulse) -> Iterator[Decoded]:
    """Decoding towards the run is progress too, though none that can be counted."""
    for decoded in frames:
        pulse()
        yield decoded
