"""Peaks: how high a wave swings between its samples, and how to keep it below a ceiling without being heard.

The law: nothing that comes out swings higher than the ceiling, nothing comes out later than it went in, and where
nothing is too loud the samples stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.media.samples import Samples, joined

CEILING_DB = -1.0
"""dBTP: the most that EBU R128 allows. An encoder's own noise swings a little higher, and still below full level."""

_PHASES, _TAPS = 4, 12
"""Four times as many samples show a peak to within some tenths of a decibel (ITU-R BS.1770-5, annex 2)."""
_SURE = 0.5
"""Below so much of the ceiling no samples of sound have a peak above it between them."""
_BLOCK = 1 << 14
"""Samples that are looked at together."""

Curve = np.ndarray[Any, np.dtype[np.floating[Any]]]


def decibels(amplitude: float) -> float:
    """Of an amplitude above 0."""
    return float(20 * np.log10(amplitude))


def amplitude(decibels: float) -> float:
    return float(10 ** (decibels / 20))


class PeakMeter:
    """The highest peak of all that it was fed."""

    def __init__(self) -> None:
        self.highest = 0.0
        """As an amplitude: 1 is full level."""
        self._before: Samples | None = None

    def feed(self, samples: Samples) -> None:
        # A peak between two blocks has its samples in both.
        whole = samples if self._before is None else np.concatenate((self._before, samples), axis=1)
        if _loudest(whole) > self.highest * _SURE:
            self.highest = max(self.highest, float(_swings(whole).max(initial=0.0)))
        self._before = whole[:, -_TAPS:]


def limited(chunks: Iterator[Samples], *, ceiling: float, sample_rate: int) -> Iterator[Samples]:
    """The samples with every peak kept at or below `ceiling` (an amplitude), all channels by the same gain.

    The gain bends down in the ten milliseconds before a peak and back in the ten after it: too slow to be heard as
    distortion down to 25 Hz, too quick to be heard as pumping.
    """
    reach = sample_rate // 100
    margin = 2 * reach + _TAPS
    held: Samples | None = None
    for block in joined(chunks, _BLOCK):
        # `margin` samples that are out already, what is to come out, and `margin` samples that follow it.
        held = np.pad(block, ((0, 0), (margin, 0))) if held is None else np.concatenate((held, block), axis=1)
        if (ready := held.shape[1] - 2 * margin) > 0:
            yield _bent(held, margin, reach, ceiling)
            held = held[:, ready:]
    if held is not None:
        yield _bent(np.pad(held, ((0, 0), (0, margin))), margin, reach, ceiling)


def _bent(samples: Samples, margin: int, reach: int, ceiling: float) -> Samples:
    """The samples without the margin at both ends, turned down where they must be."""
    inside = samples[:, margin:-margin]
    if _loudest(samples) <= ceiling * _SURE:
        return inside
    swings = _swings(samples)
    if swings.max(initial=0.0) <= ceiling:
        return inside
    gain = _smooth(_lowest(np.minimum(1.0, ceiling / np.maximum(swings, ceiling)), 2 * reach + 1), reach + 1)
    # Both steps took `reach` values from either end.
    spare = margin - 2 * reach
    return (inside * gain[spare:-spare]).astype(np.float32)


def _loudest(samples: Samples) -> float:
    return float(np.abs(samples).max(initial=0.0))


def _swings(samples: Samples) -> Curve:
    """The highest that any channel swings at or beside each sample."""
    swings: Curve = np.abs(samples).max(axis=0)
    if swings.size < _TAPS:
        return swings
    between = np.zeros_like(swings)
    # Not at the ends, where the filter would see a cut that is not there; who cares brings neighbours along.
    inside = slice(_TAPS // 2, -_TAPS // 2)
    for channel in samples:
        for kernel in _KERNELS:
            np.maximum(between[inside], np.abs(_filtered(channel, kernel)), out=between[inside])
    # What swings between two samples counts for both.
    np.maximum(swings, between, out=swings)
    np.maximum(swings[:-1], between[1:], out=swings[:-1])
    return swings


def _filtered(channel: Samples, kernel: Samples) -> Samples:
    """The channel through the filter, but for its ends.

    Term by term and not by `np.convolve`, which adds in an order that depends on the processor: a gain that differs in
    its last digit makes other bytes.
    """
    count = channel.size - _TAPS
    total: Samples = channel[_TAPS - 1 : _TAPS - 1 + count] * kernel[0]
    for tap in range(1, _TAPS):
        total += channel[_TAPS - 1 - tap : _TAPS - 1 - tap + count] * kernel[tap]
    return total


def _kernels() -> list[Samples]:
    """Filters that give the wave at 1/4, 1/2 and 3/4 of the way from the sample before: windowed sinc functions."""
    kernels = []
    for phase in range(1, _PHASES):
        places = np.arange(_TAPS) - (_TAPS - 1) // 2 - phase / _PHASES
        kernel = np.sinc(places) * np.cos(np.pi * places / (_TAPS + 1)) ** 2
        kernels.append((kernel / kernel.sum()).astype(np.float32))
    return kernels


_KERNELS = _kernels()


def _lowest(curve: Curve, width: int) -> Curve:
    """The lowest of every `width` neighbours; as many values shorter, less one."""
    lowest, covered = curve, 1
    while covered * 2 <= width:
        lowest = np.minimum(lowest[:-covered], lowest[covered:])
        covered *= 2
    rest = width - covered
    shortest: Curve = np.minimum(lowest[: lowest.size - rest], lowest[rest:])
    return shortest


def _smooth(curve: Curve, width: int) -> Curve:
    """Bent without corners: the mean of `width` neighbours, twice; 2·width - 2 values shorter."""
    for _ in range(2):
        sums = np.cumsum(np.concatenate(([0.0], curve)))
        curve = (sums[width:] - sums[:-width]) / width
    return curve
