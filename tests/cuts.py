"""What a player sees of a cut asset, frame by frame: the bytes that it appends, decoded and compared.

A `Stream` is one track as a player gets it, wherever it came from: the pieces of a stage, or what a manifest names.
"""

from __future__ import annotations

import io
import math
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby, pairwise
from typing import Any

import av
import numpy as np
from makers import BEEP, beep_starts, read_frame_number
from running import FFMPEG

from pipeline.media.boxes import Sample, scan_segment, timescale
from pipeline.tasks import Timeline

AAC_FRAME = 1024
IN_SYNC = 0.023
"""Seconds by which a beep may lie beside its second."""


@dataclass(frozen=True, kw_only=True)
class Appended:
    """One media segment, and the init segment that is in force for it."""

    init: bytes
    media: bytes


Stream = Sequence[Appended]


def wanted_frames(start: Fraction | None, stop: Fraction | None, timeline: Timeline) -> range:
    """The output frames with start <= pts < stop, found by asking every one of them."""
    low, high = start or Fraction(0), timeline.duration if stop is None else stop
    shown = [n for n in range(timeline.frames) if low <= n / timeline.rate < high]
    return range(shown[0], shown[-1] + 1) if shown else range(0)


def assert_exact(
    pictures: Iterable[Stream],
    sounds: Iterable[Stream],
    whole: Sequence[int],
    shown: range,
    timeline: Timeline,
    *,
    zero: Fraction = Fraction(0),
) -> None:
    """Every rung shows the output frames `shown` and no others, and every sound fits them.

    `whole` are the numbers that all frames of the uncut asset show, and `zero` is where (seconds) the first of the
    clip's own seconds begins, each of which beeps.
    """
    start, end = shown.start / timeline.rate, shown.stop / timeline.rate
    for picture in pictures:
        assert_contiguous(picture, start, end)
        assert numbers(picture) == list(whole[shown.start : shown.stop])
    for sound in sounds:
        assert_covers(sound, start, end)
        assert_beeps(sound, start, end, zero)


def assert_contiguous(picture: Stream, start: Fraction, end: Fraction) -> None:
    """By the boxes alone: frames follow each other without a gap, in decoding and on the screen, from start to end."""
    scale, samples = timescale(picture[0].init), _samples(picture)
    assert all(a.decode + a.duration == b.decode for a, b in pairwise(samples))
    ordered = sorted(samples, key=lambda sample: sample.tick)
    assert all(a.tick + a.duration == b.tick for a, b in pairwise(ordered))
    assert (ordered[0].tick, ordered[-1].tick + ordered[-1].duration) == (start * scale, end * scale)
    for appended in picture:
        scan = scan_segment(appended.media, appended.init)
        assert scan.samples[0].sync
        assert scan.samples[0].tick == scan.start


def assert_covers(sound: Stream, start: Fraction, end: Fraction) -> None:
    """By the boxes alone: sound without a gap, that begins and ends within one AAC frame of the picture."""
    scale, samples = timescale(sound[0].init), _samples(sound)
    assert all(a.decode + a.duration == b.decode for a, b in pairwise(samples))
    assert all(sample.tick == sample.decode for sample in samples)
    assert start * scale - AAC_FRAME < samples[0].tick <= start * scale
    assert end * scale <= samples[-1].tick + samples[-1].duration < end * scale + AAC_FRAME


def assert_beeps(sound: Stream, start: Fraction, end: Fraction, zero: Fraction = Fraction(0)) -> None:
    """Every second between the cuts beeps, where the picture flashes, and nothing else does."""
    begin = scan_segment(sound[0].media, sound[0].init).start / timescale(sound[0].init)
    heard = [begin + place - zero for place in beep_starts(heard_of(sound), timescale(sound[0].init))]
    low, high = float(start - zero), float(end - zero)
    for second in range(math.ceil(low + 0.06), math.ceil(high - 0.06)):
        assert min((abs(place - second) for place in heard), default=math.inf) <= IN_SYNC
    # A cut through a beep is heard as one that begins there.
    assert all(abs(place - round(place)) <= IN_SYNC for place in heard if place > low + float(BEEP) + 0.02)


def numbers(picture: Stream) -> list[int]:
    """The number of every frame, in the order of the screen; a player begins anew with each init segment."""
    return [number for run in _runs(picture) for number in _numbers(run)]


def heard_of(sound: Stream) -> np.ndarray[Any, Any]:
    """Mono samples of the whole stream."""
    samples = []
    for run in _runs(sound):
        with av.open(io.BytesIO(run)) as container:
            samples += [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    return np.concatenate(samples)


def warnings(stream: Stream) -> str:
    """What ffmpeg, an independent build, has to say against it; empty is good."""
    said = ""
    for run in _runs(stream):
        command = [FFMPEG, "-v", "warning", "-xerror", "-i", "-", "-f", "null", "-"]
        ended = subprocess.run(command, input=run, capture_output=True, check=False)
        said += ended.stderr.decode() + (f"exit {ended.returncode}" if ended.returncode else "")
    return said


def _runs(stream: Stream) -> list[bytes]:
    """A file for each run of segments with the same init segment."""
    groups = groupby(stream, key=lambda appended: appended.init)
    return [init + b"".join(appended.media for appended in group) for init, group in groups]


def _numbers(run: bytes) -> list[int]:
    with av.open(io.BytesIO(run)) as container:
        return [read_frame_number(frame) for frame in container.decode(video=0)]


def _samples(stream: Stream) -> list[Sample]:
    return [sample for appended in stream for sample in scan_segment(appended.media, appended.init).samples]
