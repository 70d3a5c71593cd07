"""How loud a programme is, and the one gain that brings it to a target (EBU R128, ITU-R BS.1770).

The law: the whole programme is measured first, and then turned up or down by one constant gain; it is never ridden.
Only peaks that the gain would push above the ceiling are bent down, each for some milliseconds; where that happens the
programme is measured again, because it takes loudness away, until it is as loud as was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.filter import Graph

from pipeline.media.limiter import CEILING_DB, PeakMeter, amplitude, decibels, limited
from pipeline.media.samples import Samples, joined
from pipeline.tasks import Loudness

MOST_GAIN = 20.0
"""dB up: a programme at -36 LUFS still reaches -16. More would make the noise of an empty room as loud as speech."""
LEAST_GAIN = -40.0
"""dB down: full-scale noise comes to the lowest target that a profile may ask for."""
MOST_LIMITED = 8.0
"""dB by which the highest peak may be bent down. Speech and music need up to six to reach -16; a film with explosions
would need more, and is left softer than the target instead of being flattened."""

_CLOSE = 0.2
"""LU from the target that need no correction: R128 allows 0.5, and an encoder takes its part of that."""
_CORRECTIONS = 3
"""Each reads the whole programme once more; mostly one is enough."""

_SILENT = -70.0
"""LUFS: the absolute gate (BS.1770-5 §3). What the filter says of a programme without a block above it."""
_RANGE_S = 60
"""Seconds of programme that a loudness range needs to mean anything (EBU Tech 3342 §3)."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How loud a programme is."""

    integrated: float | None
    """LUFS, gated; None where nothing of it is above -70 LUFS, or it is shorter than a block of the measure (0.4 s)."""
    range: float | None
    """LU between its soft and its loud parts (LRA); None for silence, and for less than a minute."""
    true_peak: float | None
    """dBTP; None for nothing but zeros."""


def measured(chunks: Iterator[Samples], *, sample_rate: int) -> Measured:
    """How loud this stereo sound is. Reads all of it."""
    peaks, meter, seconds = PeakMeter(), None, Fraction(0)
    # The meter answers every tenth of a second; twice as much at once halves the calls.
    for block in joined(chunks, sample_rate // 5):
        meter = meter or _Meter(sample_rate)
        meter.feed(block)
        peaks.feed(block)
        seconds += Fraction(block.shape[1], sample_rate)
    said = meter.finish() if meter else {}
    integrated = said.get("lavfi.r128.I", _SILENT)
    return Measured(
        integrated=round(integrated, 2) if integrated > _SILENT else None,
        range=round(said["lavfi.r128.LRA"], 2) if integrated > _SILENT and seconds >= _RANGE_S else None,
        true_peak=round(decibels(peaks.highest), 2) if peaks.highest else None,
    )


def loudness_of(sound: Measured, target: float) -> Loudness:
    """What was measured, and the gain that brings it to `target` (LUFS), or as near as the bounds above let it."""
    gain, reached = 0.0, None
    if sound.integrated is not None and sound.true_peak is not None:
        gain = _bounded(target - sound.integrated, sound.true_peak)
        reached = round(sound.integrated + gain, 2)
    return Loudness(
        integrated=sound.integrated, range=sound.range, true_peak=sound.true_peak, gain=gain, reached=reached
    )


def bends(loudness: Loudness) -> bool:
    """Whether the gain pushes peaks above the ceiling. Bending them takes loudness away, how much only shows."""
    return loudness.true_peak is not None and loudness.true_peak + loudness.gain > CEILING_DB


def settled(loudness: Loudness, target: float, again: Callable[[Loudness], Measured]) -> Loudness:
    """The gain with which the programme comes out near the target; `again` measures it with a gain, peaks bent down."""
    for _ in range(_CORRECTIONS):
        loudness = replace(loudness, reached=again(loudness).integrated)
        better = _corrected(loudness, target)
        if better == loudness:
            return loudness
        loudness = better
    return replace(loudness, reached=again(loudness).integrated)


def _corrected(loudness: Loudness, target: float) -> Loudness:
    """The same where it is near enough, or nothing more can be done."""
    if loudness.reached is None or loudness.true_peak is None or abs(target - loudness.reached) <= _CLOSE:
        return loudness
    return replace(loudness, gain=_bounded(loudness.gain + target - loudness.reached, loudness.true_peak))


def _bounded(gain: float, true_peak: float) -> float:
    reachable = max(CEILING_DB + MOST_LIMITED - true_peak, 0.0)
    return round(max(LEAST_GAIN, min(gain, MOST_GAIN, reachable)), 2)


def leveled(chunks: Iterator[Samples], loudness: Loudness, *, sample_rate: int) -> Iterator[Samples]:
    """The sound with its gain, and every peak below the ceiling."""
    gain = np.float32(amplitude(loudness.gain))
    return limited((chunk * gain for chunk in chunks), ceiling=amplitude(CEILING_DB), sample_rate=sample_rate)


class _Meter:
    """libavfilter's `ebur128`."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._graph = Graph()
        self._graph.threads = 1
        self._source = self._graph.add(
            "abuffer",
            f"time_base=1/{sample_rate}:sample_rate={sample_rate}:sample_fmt=fltp:channel_layout=stereo",
        )
        meter = self._graph.add("ebur128", "metadata=1:framelog=quiet")
        self._sink = self._graph.add("abuffersink")
        self._source.link_to(meter)
        meter.link_to(self._sink)
        self._graph.configure()
        self._at = 0
        self._said: dict[str, str] = {}

    def feed(self, samples: Samples) -> None:
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self._at, Fraction(1, self._rate)
        self._at += samples.shape[1]
        self._source.push(frame)
        self._pull()

    def finish(self) -> dict[str, float]:
        """What it says of all that it was fed, by its own names."""
        self._source.push(None)
        self._pull()
        return {name: float(value) for name, value in self._said.items() if math.isfinite(float(value))}

    def _pull(self) -> None:
        while True:
            try:
                frame: Any = self._sink.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            self._said = frame.metadata or self._said
