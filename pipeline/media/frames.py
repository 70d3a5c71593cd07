"""From packets to the output grid: which decoded frame each output frame shows.

The law: it is a function of the source and the output frame's number alone, never of where decoding began, so a chunk
shows what the whole file would. Where nothing can be decoded, the last frame that could is held.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from heapq import heappop, heappush
from itertools import chain

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream as AvVideoStream

from pipeline.errors import PipelineError
from pipeline.media import sources
from pipeline.media.color import describe, source_color
from pipeline.media.skipping import Packets, skipped
from pipeline.media.sources import Source, open_source
from pipeline.media.timeline import Sampling
from pipeline.tasks import VideoStream

_LEAD_IN = 3
"""Source frames that a temporal filter wants to see before the first one that counts (DESIGN §8)."""

_REORDERED = 4
"""Frames over which timestamps can be shuffled: more than the B-frames in a row of any encoder that writes AVI."""

_STEPS_BACK = (Fraction(0), Fraction(2), Fraction(10), Fraction(60))
"""Seconds to seek back further, one after the other, where a seek landed behind its target; then the whole file."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A source frame and its time in seconds of the source's clock."""

    time: Fraction
    frame: VideoFrame


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A source frame and the output frames [first, end) that show it."""

    frame: VideoFrame
    first: int
    end: int


class FrameSource:
    """The picture of a source, opened anew for every attempt to read it from somewhere.

    Opening again is the one rewind that works for every container.
    """

    def __init__(self, source: Source, video: VideoStream) -> None:
        self._source = source
        self._video = video
        self._color = source_color(video)
        self._container, self._stream = _open(source, video)
        self._fresh = True
        self.time_base: Fraction = self._stream.time_base or Fraction(1, 1000)
        """Length of a tick of the timestamps, seconds."""

    def close(self) -> None:
        self._container.close()

    def frames_from(self, time: Fraction | None) -> Iterator[Decoded]:
        """Frames in order of time, from some frame at or before `time` on; from the first one for None.

        Raises `video_file_broken` where the source has no frame at all.
        """
        if time is not None:
            # Ever earlier: a demuxer's index may be wrong, and a keyframe may be damaged.
            for back in _STEPS_BACK:
                if time - back <= self._video.start:
                    break
                frames = self._decoded(time - back)
                first = next(frames, None)
                if first is not None and first.time <= time:
                    return chain((first,), frames)
        frames = self._decoded(None)
        first = next(frames, None)
        if first is None:
            raise PipelineError("video_file_broken", log="no frame could be decoded")
        return chain((first,), frames)

    def frames_after(self, time: Fraction, passed: Callable[[], None]) -> Iterator[Decoded]:
        """As `frames_from`, where seeking is not reliable: `passed` is called for all that is read on the way."""
        tick = math.floor(time / self.time_base)
        frames = self._decoded(None, chosen=lambda packets: skipped(packets, tick, passed))
        first = next(frames, None)
        # Else the keyframe was none, or could not be decoded.
        return chain((first,), frames) if first is not None and first.time <= time else self.frames_from(None)

    def _decoded(self, time: Fraction | None, chosen: Callable[[Packets], Packets] = iter) -> Iterator[Decoded]:
        """Frames in order of time from the keyframe before `time`; a frame out of order is dropped."""
        if not self._fresh:
            self.close()
            self._container, self._stream = _open(self._source, self._video)
        self._fresh = False
        if time is not None:
            with contextlib.suppress(av.FFmpegError):
                self._container.seek(round(time / self.time_base), stream=self._stream)
        step, last = 1 / self._video.rate, None
        frames: Iterator[VideoFrame] = sources.decoded(self._container, self._stream, chosen)
        shuffled = self._container.format.name == "avi"
        for frame, pts in _in_order(frames) if shuffled else ((frame, frame.pts) for frame in frames):
            # Only damaged streams and raw ones have no times.
            guess = self._video.start if last is None else last + step
            at = guess if pts is None else pts * self.time_base
            if last is None or at >= last:
                last = at
                describe(frame, self._color)
                yield Decoded(time=at, frame=frame)


def lead_in(video: VideoStream) -> Fraction:
    """Seconds before the first frame that counts at which decoding has to begin where frames are interlaced."""
    return _LEAD_IN / video.rate


def on_grid(frames: Iterator[Decoded], sampling: Sampling, first: int, end: int) -> Iterator[Shown]:
    """Which of `frames` the output frames [first, end) show, in order and without a gap.

    Stops reading as soon as the range is covered; what is missing at the end is the last frame, held.
    """
    held: VideoFrame | None = None
    for decoded in frames:
        shown = sampling.first_shown(decoded.time)
        if held is not None and shown > first:
            yield Shown(frame=held, first=first, end=min(shown, end))
            first = min(shown, end)
        held = decoded.frame
        if first >= end:
            return
    if held is not None and first < end:
        yield Shown(frame=held, first=first, end=end)


def _open(source: Source, video: VideoStream) -> tuple[InputContainer, AvVideoStream]:
    """The source and its picture, ready to decode; the other streams are not read. Raises `video_file_broken`."""
    container = open_source(source)
    stream = container.streams[video.index] if video.index < len(container.streams) else None
    if not isinstance(stream, AvVideoStream) or stream.codec_context is None:
        container.close()
        raise PipelineError("video_file_broken", log=f"stream {video.index} is no picture")
    sources.read_only(container, stream)
    # One thread: steps are the parallelism, and frame threads cost CPU and memory (a frame of delay for each).
    stream.codec_context.thread_count = 1
    return container, stream


def _in_order(frames: Iterator[VideoFrame]) -> Iterator[tuple[VideoFrame, int | None]]:
    """Frames with their timestamps put in order.

    AVI has no presentation times: libav numbers the packets in the order of decoding, so where there are B-frames the
    pictures come out in the right order with their numbers shuffled.
    """
    waiting: deque[VideoFrame] = deque()
    times: list[int] = []
    for frame in frames:
        waiting.append(frame)
        if frame.pts is not None:
            heappush(times, frame.pts)
        if len(waiting) > _REORDERED:
            yield waiting.popleft(), heappop(times) if times else None
    while waiting:
        yield waiting.popleft(), heappop(times) if times else None
