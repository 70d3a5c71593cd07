"""transcode: one chunk of the grid, every rung of it, in one decode.

Decode from the keyframe before, put frames on the output grid, scale each shown frame once to every rung, encode every
rung with one thread, and hand segments over as they are complete. The chunk decides only *which* frames are made: what
they are, where keyframes lie and what the init segment says is the same however the asset is cut into chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

from pipeline.media import timeline as grid
from pipeline.media.codecs import VideoEncoder, h264, output_color
from pipeline.media.frames import Decoded, FrameSource, Shown, lead_in, on_grid
from pipeline.media.scaling import Ladder, deinterlaced
from pipeline.stages.contract import Input, Inputs, Outputs, Tick
from pipeline.stages.pulse import Pulse
from pipeline.stages.track_files import TrackFiles
from pipeline.tasks import PartsFacts, Rung, TranscodeTask


@dataclass(frozen=True, kw_only=True)
class _Rendition:
    encoder: VideoEncoder
    files: TrackFiles


def transcode(task: TranscodeTask, inputs: Inputs, out: Outputs, tick: Tick) -> PartsFacts:
    """Make the segments of the chunk for every rung of the task. `inputs["source"]` is the source.

    Raises `video_file_broken` where nothing of the picture can be decoded, and what `tick` raises.
    """
    first, end = grid.chunk_range(task.timeline, task.first_segment, task.last_segment)
    pulse = Pulse(tick)
    keyframes = frozenset(grid.keyframes(task.timeline))
    color = output_color(task.video)
    ladder = Ladder(task.video, [(rung.width, rung.height) for rung in task.rungs], color)
    renditions = [_rendition(task, rung, out) for rung in task.rungs]
    for shown in _shown(task, inputs["source"], first, end, pulse):
        pictures = ladder.scale(shown.frame)
        for number in range(shown.first, shown.end):
            for rendition, picture in zip(renditions, pictures, strict=True):
                rendition.files.write(rendition.encoder.encode(picture, number, key=number in keyframes))
            pulse((number - first) / (end - first))
    for rendition in renditions:
        for packet in rendition.encoder.flush():
            rendition.files.write([packet])
            pulse(1.0)
        rendition.files.write([], last=True)
    return PartsFacts(
        parts=tuple(rendition.files.part() for rendition in renditions),
        media_s=Fraction(end - first) / task.timeline.rate,
    )


def _rendition(task: TranscodeTask, rung: Rung, out: Outputs) -> _Rendition:
    encoder = VideoEncoder(h264(rung, task.timeline, output_color(task.video)))
    files = TrackFiles(
        out,
        track=rung.track,
        kind="video",
        template=encoder.template,
        timescale=task.timeline.timescale,
        boundaries=grid.segment_starts(task.timeline)[task.first_segment : task.last_segment],
    )
    return _Rendition(encoder=encoder, files=files)


def _shown(task: TranscodeTask, source: Input, first: int, end: int, pulse: Pulse) -> Iterator[Shown]:
    """What each output frame of the chunk shows."""
    video = task.video
    with closing(FrameSource(source, video)) as opened:
        sampling = grid.sampling(video, task.timeline, opened.time_base)
        frames = _frames_from(sampling.source_time(first), opened, task)
        yield from on_grid(deinterlaced(_pulsed(frames, pulse), opened.time_base), sampling, first, end)


def _frames_from(time: Fraction, opened: FrameSource, task: TranscodeTask) -> Iterator[Decoded]:
    """Frames from some one at or before `time` on, with the lead-in that fields need."""
    early = time - lead_in(task.video)
    begin = early if task.video.interlaced else time
    if not task.seekable or begin <= task.video.start:
        return opened.frames_from(None)
    frames = opened.frames_from(begin)
    first = next(frames)
    if first.frame.interlaced_frame and first.time > early:
        # Fields between progressive scenes, which nobody had seen until here.
        return opened.frames_from(early)
    return chain((first,), frames)


def _pulsed(frames: Iterator[Decoded], pulse: Pulse) -> Iterator[Decoded]:
    """Decoding towards the chunk is progress too, though none that can be counted."""
    for decoded in frames:
        pulse()
        yield decoded
