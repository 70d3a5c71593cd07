"""The pieces of a sound: its frames as they are, in fragments of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from pipeline.media.boxes import Sample, scan_segment
from pipeline.media.fragments import sound
from pipeline.stages.pieces import PieceFiles, Stored
from pipeline.tasks import Patch


@dataclass(frozen=True, kw_only=True)
class _Divided:
    """A divided segment, read."""

    start: int
    end: int
    media: bytes
    samples: tuple[Sample, ...]


def sound_pieces(stored: Stored, files: PieceFiles, seams: Sequence[Fraction]) -> Patch:
    """Divide a sound at the cuts, and at the first frame that is not before each of the `seams` (seconds).

    A segment that turns out to be played whole stays the stored one.
    """
    cut, init = stored.cut, stored.init if stored.cut.divided else b""
    divided = [_read(stored, number, init) for number in range(len(cut.divided))]
    places = tuple(_frame_after(stored.ticks(seam), divided, stored) for seam in seams)
    first, last = _whole(divided, places, stored)
    for segment in divided:
        if not first <= segment.start < last:
            for samples in _runs(segment, (cut.start, *places, cut.end)):
                files.store(sound(segment.media, samples, init), init)
    return files.patch(seams=places, whole=(first, last))


def _read(stored: Stored, number: int, init: bytes) -> _Divided:
    segment = stored.cut.divided[number]
    media = stored.media(segment)
    samples = scan_segment(media, init).samples
    return _Divided(start=segment.start, end=segment.start + segment.duration, media=media, samples=samples)


def _frame_after(tick: Fraction, divided: Sequence[_Divided], stored: Stored) -> int:
    """Where the first frame begins that is not before `tick`; among whole segments only the first one's can be it.

    Where what follows is too short to have a frame of its own, the last one is it: a player finds sound in every
    stretch.
    """
    cut = stored.cut
    frames = [sample.tick for segment in divided for sample in segment.samples] + [cut.first]
    before = [frame for frame in frames if frame < cut.end]
    return min((frame for frame in before if frame >= tick), default=max(before))


def _whole(divided: Sequence[_Divided], places: Sequence[int], stored: Stored) -> tuple[int, int]:
    """The range of segments that are played as they are: those of the cut, and what no place divides beside them."""
    cut = stored.cut
    first, last = cut.first, cut.last
    spared = [
        segment
        for segment in divided
        if cut.start <= segment.start
        and segment.end <= cut.end
        and not any(segment.start < place < segment.end for place in places)
    ]
    for segment in reversed(spared):
        first = segment.start if segment.end == first else first
    for segment in spared:
        last = segment.end if segment.start == last else last
    return first, last


def _runs(segment: _Divided, places: Sequence[int]) -> Iterator[tuple[Sample, ...]]:
    """The frames between one place and the next that lie in this segment."""
    for start, end in pairwise(places):
        if samples := tuple(sample for sample in segment.samples if start <= sample.tick < end):
            yield samples
