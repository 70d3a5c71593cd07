"""transcode: one chunk of the grid, every rung of it, in one decode.

Segments are handed over as they are complete. The chunk decides only *which* frames are made: what they are, where
keyframes lie and what the init segment says is the same however the asset is cut into chunks.
"""

from __future__ import annotations

from fractions import Fraction

from pipeline.media import timeline as grid
from pipeline.media.codecs import VideoEncoder, h264, output_color
from pipeline.stages.contract import Inputs, Outputs, Tick
from pipeline.stages.pictures import Picture, Rendition, encode
from pipeline.stages.pulse import Pulse
from pipeline.stages.track_files import TrackFiles
from pipeline.tasks import PartsFacts, Rung, TranscodeTask


def transcode(task: TranscodeTask, inputs: Inputs, out: Outputs, tick: Tick) -> PartsFacts:
    """Make the segments of the chunk for every rung of the task. `inputs["source"]` is the source.

    Raises `video_file_broken` where nothing of the picture can be decoded, and what `tick` raises.
    """
    first, end = grid.chunk_range(task.timeline, task.first_segment, task.last_segment)
    picture = Picture(source=inputs["source"], video=task.video, timeline=task.timeline, seekable=task.seekable)
    keyframes = frozenset(grid.keyframes(task.timeline))
    encoders = [VideoEncoder(h264(rung, task.timeline, output_color(task.video))) for rung in task.rungs]
    files = [_files(task, rung, encoder, out) for rung, encoder in zip(task.rungs, encoders, strict=True)]
    renditions = [
        Rendition(rung=rung, encoder=encoder, files=track, keyframes=keyframes)
        for rung, encoder, track in zip(task.rungs, encoders, files, strict=True)
    ]
    encode(picture, renditions, first, end, Pulse(tick))
    return PartsFacts(parts=tuple(track.part() for track in files), media_s=Fraction(end - first) / task.timeline.rate)


def _files(task: TranscodeTask, rung: Rung, encoder: VideoEncoder, out: Outputs) -> TrackFiles:
    return TrackFiles(
        out,
        track=rung.track,
        kind="video",
        template=encoder.template,
        timescale=task.timeline.timescale,
        boundaries=grid.segment_starts(task.timeline)[task.first_segment : task.last_segment],
    )
