"""The output grid: everything that affects which frame lies where follows from these functions alone (DESIGN §8).

Frames, keyframes and segment boundaries are *absolute*: a function of rate, S and cuts, never of what was encoded
before. That is why every rung and every chunk of an asset agree, and why chunks can be appended byte for byte.

Which source frame an output frame shows is stateless too: the last one whose place on the grid is not after it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import count

from pipeline.tasks import Timeline, VideoStream

AAC_FRAME = 1024
"""Samples of one AAC-LC frame (ISO/IEC 14496-3)."""


def segment_starts(timeline: Timeline) -> tuple[int, ...]:
    """First output frame of every segment: strictly increasing, from 0, all < frames.

    Segment k starts at the first frame with time >= k·S, and every cut starts one more.
    """
    starts = set(_every(timeline.segment, timeline))
    starts.update(math.ceil(cut * timeline.rate) for cut in timeline.cuts)
    return tuple(sorted(start for start in starts if 0 <= start < timeline.frames))


def chunk_range(timeline: Timeline, first_segment: int, last_segment: int) -> tuple[int, int]:
    """(first frame, end frame) of the segments [first_segment, last_segment). Raises IndexError outside of the grid."""
    starts = segment_starts(timeline)
    if not 0 <= first_segment < last_segment <= len(starts):
        raise IndexError(f"segments {first_segment} to {last_segment} of {len(starts)}")
    return starts[first_segment], (*starts, timeline.frames)[last_segment]


def keyframes(timeline: Timeline) -> tuple[int, ...]:
    """Every frame where an IDR is forced: one in `timeline.keyframe` seconds, and every segment start."""
    return tuple(sorted({*_every(timeline.keyframe, timeline), *segment_starts(timeline)}))


def audio_segment_starts(timeline: Timeline, sample_rate: int) -> tuple[int, ...]:
    """First AAC frame of every sound segment: the first one not before the picture's segment start.

    A picture segment so short that no AAC frame begins in it has no sound segment of its own.
    """
    per_frame = Fraction(sample_rate, AAC_FRAME) / timeline.rate
    starts = {math.ceil(start * per_frame) for start in segment_starts(timeline)}
    return tuple(sorted(start for start in starts if start < audio_frames(timeline, sample_rate)))


def audio_frames(timeline: Timeline, sample_rate: int) -> int:
    """AAC frames that cover [0, D): D rounded up to whole ones."""
    return math.ceil(timeline.duration * sample_rate / AAC_FRAME)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Places the frames of one source on the output grid."""

    rate: Fraction
    """Output frames a second."""
    origin: Fraction
    """Source time (seconds) of the place `base`."""
    base: int
    tolerance: Fraction
    """How far after a grid place, in output frames, a timestamp still counts as on it."""

    def first_shown(self, pts: Fraction) -> int:
        """First output frame that may show a source frame with this time (seconds of the source's clock).

        Output frame n shows the last source frame, in order of time, with `first_shown <= n`; so a frame with the same
        value as the next one is never seen. Negative before t = 0.
        """
        return self.base + math.ceil((pts - self.origin) * self.rate - self.tolerance)

    def source_time(self, frame: int) -> Fraction:
        """Source time (seconds) of output frame `frame`: what to seek to, or before."""
        return self.origin + (frame - self.base) / self.rate


JITTER_S = Fraction(1, 1000)
"""Seconds by which a frame of a variable rate may come late and still be shown at its place."""


def sampling(video: VideoStream, timeline: Timeline, tick: Fraction) -> Sampling:
    """How the frames of `video`, whose timestamps are multiples of `tick` seconds, lie on the grid.

    A constant rate source has its own grid: the place of its first frame is rounded once, and the others follow at
    their distance from it, give or take half a source frame. So timestamps that a container rounded (milliseconds in
    Matroska) map one to one even where the sound starts half a frame before the picture. A variable rate has no grid to
    round to; there the rounding of one tick is forgiven, and a millisecond at least: the clocks of phones tremble by
    that much around a steady rate, and without it every other frame would miss its place and be lost.
    """
    if not video.constant:
        return Sampling(
            rate=timeline.rate, origin=timeline.start, base=0, tolerance=max(tick, JITTER_S) * timeline.rate
        )
    offset = (video.start - timeline.start) * timeline.rate
    return Sampling(
        rate=timeline.rate,
        origin=video.start,
        base=math.ceil(offset - Fraction(1, 2)),
        tolerance=timeline.rate / video.rate / 2,
    )


def _every(seconds: Fraction, timeline: Timeline) -> Iterator[int]:
    """The frames ceil(k · seconds · rate) of the timeline; less than a frame counts as one, so that it moves on."""
    distance = max(seconds * timeline.rate, Fraction(1))
    for k in count():
        frame = math.ceil(k * distance)
        if frame >= timeline.frames:
            return
        yield frame
