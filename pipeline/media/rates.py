"""Frame rates: what a source's timestamps say, and which constant grid the output gets (DESIGN §8). Pure arithmetic.

A rate is what *explains the timestamps*, never what a header declares: headers of screen recordings say 1000 fps, and
Matroska rounds every timestamp to a millisecond. A standard rate is preferred to the measured one as long as it puts
every frame where the source has it, give or take half a frame; so the frames of a constant source map one to one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise

from pipeline.media.timeline import AAC_FRAME
from pipeline.tasks import MediaInfo, Timeline, VideoStream

STANDARD = tuple(
    Fraction(*rate)
    for rate in (
        *((10, 1), (12, 1), (25, 2), (15000, 1001), (15, 1), (20, 1), (24000, 1001), (24, 1), (25, 1)),
        *((30000, 1001), (30, 1), (48000, 1001), (48, 1), (50, 1), (60000, 1001), (60, 1)),
        *((90, 1), (100, 1), (120000, 1001), (120, 1), (240000, 1001), (240, 1)),
    )
)
"""The rates that cameras, broadcasters and phones mean."""

SNAP = Fraction(5, 1000)
"""How far, of itself, a rate may lie from a standard one to be taken for it."""
HIGHEST = Fraction(60)
"""Players and encoders are at home up to here; above, the rate is divided."""
FALLBACK = Fraction(25)
"""The rate of a single frame, whose timestamps say nothing."""
HOLD = Fraction(1, 2)
"""Seconds by which the sound may outlast the picture before the last frame is held for it."""
AUDIO_RATE = Fraction(48000, AAC_FRAME)
"""An asset without a picture counts AAC frames."""

_TYPICAL = (Fraction(10), Fraction(120))
"""The typical rate of a variable source is kept inside: below, a change of slide would show up to a second late; above
are bursts of a recorder, not motion."""
_DENOMINATORS = (1001, 100_000)
"""Fractions to describe an odd rate with, simplest first; the larger keeps half a frame's accuracy for twelve hours."""
_IRREGULAR = 200
"""One frame in so many may be off the grid (by less than a frame) in a source that still counts as constant."""


def snap(rate: Fraction) -> Fraction:
    """The nearest standard rate if it lies within 0.5 % of `rate`, else `rate` itself with a small denominator."""
    nearest = min(STANDARD, key=lambda standard: abs(standard - rate))
    return nearest if abs(nearest - rate) <= rate * SNAP else rate.limit_denominator(_DENOMINATORS[0])


def output_rate(rate: Fraction) -> Fraction:
    """The constant rate of the output: snapped, and above 60 divided by the smallest integer that fits."""
    return _halved(snap(rate))


def measure(pts: Sequence[int], time_base: Fraction, declared: Fraction | None = None) -> tuple[Fraction, bool]:
    """(frames a second, whether they are constant) of presentation timestamps, in order and without repeats.

    `time_base` is the length of a tick in seconds. `declared`, what the header says, only decides between standard
    rates that the timestamps cannot tell apart. Constant: the n-th frame lies at n/rate from the first, give or take
    half a frame; one frame in 200 may miss by more, yet less than a frame. Otherwise the rate is the standard one
    nearest to the typical distance, between 10 and 120: a variable source has no grid of its own to keep.
    """
    if len(pts) < 2:
        return (snap(declared) if declared and 1 <= declared <= STANDARD[-1] else FALLBACK), True
    mean = Fraction(len(pts) - 1) / ((pts[-1] - pts[0]) * time_base)
    for rate in _candidates(mean, pts, time_base, declared):
        if _explains(rate, pts, time_base):
            return rate, True
    typical, (lowest, highest) = _typical(pts, time_base), _TYPICAL
    return min((rate for rate in STANDARD if lowest <= rate <= highest), key=lambda rate: abs(rate - typical)), False


def timeline_of(media: MediaInfo, *, segment: Fraction, keyframe: Fraction, cuts: Sequence[Fraction] = ()) -> Timeline:
    """The output grid of a source. `segment`, `keyframe` and `cuts` are seconds, as `Timeline` has them.

    t = 0 is the earliest presented sample. Video that starts later holds its first frame; sound that outlasts the
    picture by more than half a second has the last frame held, else it is cut. Without a picture, AAC frames count.
    """
    rate = grid_rate(media.video, keyframe) if media.video else AUDIO_RATE
    frames = _picture_frames(media, media.video, rate) if media.video else 0
    sound = max((stream.end for stream in media.audio), default=media.start) - media.start
    if not media.video or sound > frames / rate + HOLD:
        frames = math.ceil(sound * rate)
    return Timeline(
        rate=rate,
        frames=max(frames, 1),
        start=media.start,
        segment=segment,
        keyframe=keyframe,
        cuts=tuple(cuts),
    )


def grid_rate(video: VideoStream, keyframe: Fraction) -> Fraction:
    """The output rate of this picture: at most 60, and at least a frame every `keyframe` seconds.

    It is the standard one unless that would gain or lose a frame of a constant source until its end: 29.83 fps stays
    29.83, because at 29.97 forty seconds of it would need six frames more than there are.
    """
    rate = output_rate(video.rate)
    if video.constant and abs(video.frames * (_halved(video.rate) / rate - 1)) > Fraction(1, 2):
        rate = _halved(video.rate)
    return rate * math.ceil(1 / (rate * keyframe))


def _halved(rate: Fraction) -> Fraction:
    return rate / math.ceil(rate / HIGHEST)


def _picture_frames(media: MediaInfo, video: VideoStream, rate: Fraction) -> int:
    """Output frames from t = 0 to the end of the picture.

    A constant source has its own grid, whose first place is rounded once (as `timeline.sampling` does); a variable one
    lies where its timestamps say.
    """
    if not video.constant:
        return round((video.end - media.start) * rate)
    held = math.ceil((video.start - media.start) * rate - Fraction(1, 2))
    return held + round((video.end - video.start) * rate)


def _candidates(
    mean: Fraction, pts: Sequence[int], time_base: Fraction, declared: Fraction | None
) -> Iterator[Fraction]:
    """Rates that may explain the timestamps: standard ones, the best first, then fractions near the mean."""

    # A spread of two ticks may be rounding and says nothing more: then what the header declares is believed.
    rounding = min(Fraction(2), 1 / (mean * time_base) / 16)

    def unlikeliness(rate: Fraction) -> tuple[Fraction, Fraction]:
        return max(_spread(rate, pts, time_base), rounding), abs(rate - (declared or mean))

    yield from sorted((rate for rate in STANDARD if abs(rate - mean) <= mean * SNAP), key=unlikeliness)
    low, high = (mean * (pts[-1] - pts[0]) / (pts[-1] - pts[0] + error) for error in (1, Fraction(-1, 2)))
    yield _simplest(low, high)
    yield from (mean.limit_denominator(limit) for limit in _DENOMINATORS)


def _spread(rate: Fraction, pts: Sequence[int], time_base: Fraction) -> Fraction:
    """Ticks between the most late and the most early frame, against a grid of `rate`."""
    step = 1 / (rate * time_base)
    off = [(ticks - pts[0]) * step.denominator - n * step.numerator for n, ticks in enumerate(pts)]
    return Fraction(max(off) - min(off), step.denominator)


def _explains(rate: Fraction, pts: Sequence[int], time_base: Fraction) -> bool:
    """Whether the n-th frame lies at place n of the grid, for (almost) every n."""
    step = 1 / (rate * time_base)
    # In integers, because there may be millions of frames: a frame lasts step.numerator, a tick step.denominator.
    off = [abs((ticks - pts[0]) * step.denominator - n * step.numerator) for n, ticks in enumerate(pts)]
    misses = sum(2 * far > step.numerator for far in off)
    return max(off) < step.numerator and misses <= len(pts) // _IRREGULAR


def _typical(pts: Sequence[int], time_base: Fraction) -> Fraction:
    """One over the mean of the distances that are like the usual one (a mean, because single ones are rounded).

    The usual one is a little less than the median: film that is shown for three fields and two in turn has two of them,
    and a grid of the longer one would lose frames.
    """
    distances = [later - earlier for earlier, later in pairwise(pts)]
    usual = sorted(distances)[len(distances) * 2 // 5]
    # A tick may be a frame (AVI): two of them are a frame that was left out, not rounding.
    slack = min(1 + usual // 5, usual - 1)
    alike = [distance for distance in distances if abs(distance - usual) <= slack]
    return Fraction(len(alike)) / (sum(alike) * time_base)


def _simplest(low: Fraction, high: Fraction) -> Fraction:
    """The fraction with the smallest denominator in [low, high] (Stern-Brocot)."""
    whole = math.ceil(low)
    if whole <= high:
        return Fraction(whole)
    return whole - 1 + 1 / _simplest(1 / (high - whole + 1), 1 / (low - whole + 1))
