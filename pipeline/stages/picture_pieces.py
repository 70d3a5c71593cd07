"""The pieces of a picture: frames that were encoded again, and GOPs that are copied as bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from av.packet import Packet

from pipeline.errors import PipelineError
from pipeline.media.cmaf import SegmentMuxer, segments
from pipeline.media.fragments import gops
from pipeline.stages.pieces import PieceFiles, Stored
from pipeline.tasks import Patch, Segment


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A part of a divided segment that comes from one place; times are ticks."""

    segment: Segment
    start: int
    end: int
    encoded: bool
    """False: its GOPs are copied."""


def stretches(stored: Stored, kept: tuple[int, int]) -> Iterator[tuple[Stretch, ...]]:
    """For every divided segment, what is played of it; between the ticks of `kept` its GOPs are copied."""
    for segment in stored.cut.divided:
        start, end = stored.played(segment)
        middle = max(start, min(kept[0], end)), min(end, max(kept[1], start))
        parts = ((start, middle[0], True), (*middle, False), (max(middle), end, True))
        yield tuple(
            Stretch(segment=segment, start=begin, end=stop, encoded=encoded)
            for begin, stop, encoded in parts
            if begin < stop
        )


class PicturePieces:
    """Puts the packets of one rung and the stored GOPs beside them into pieces.

    `own` is the encoder's init segment where that is not the track's; then what is encoded and what is copied are
    pieces of their own, as they are with `apart` because another picture of the edit needs it.
    """

    def __init__(
        self, stored: Stored, files: PieceFiles, kept: tuple[int, int], *, own: bytes | None, apart: bool
    ) -> None:
        self.cut = stored.cut
        self.own = own
        self._stored = stored
        self._files = files
        parts = stretches(stored, kept)
        self._pending = deque(((part,) for piece in parts for part in piece) if apart else parts)
        self.encoded = tuple(part.start for piece in self._pending for part in piece if part.encoded)
        """Ticks at which encoded stretches begin: a keyframe has to be there, and a segment of the muxer."""
        self._made: dict[int, bytes] = {}
        self._muxer: SegmentMuxer | None = None
        if own is not None:
            files.store_init(own)

    def expect(self, muxer: SegmentMuxer) -> None:
        """The packets that come from here on are of a new encoder."""
        self._muxer = muxer

    def write(self, packets: Sequence[Packet[Any]], *, last: bool = False) -> None:
        assert self._muxer is not None
        for made in segments(self._muxer, packets, last=last):
            self._made[made.scan.start] = made.media
            self._settle()

    def patch(self, seams: Iterable[Fraction]) -> Patch:
        """What was made; `seams` in seconds. Call it after the last packet."""
        self._settle()
        if self._pending:
            raise PipelineError("stage_failed", stage="trim", reason=f"no frames at {self._pending[0][0].start}")
        return self._files.patch(seams=[round(self._stored.ticks(seam)) for seam in seams])

    def _settle(self) -> None:
        """Hand over the pieces whose frames are all there, in order."""
        while self._pending and all(part.start in self._made for part in self._pending[0] if part.encoded):
            self._store(self._pending.popleft())

    def _store(self, piece: tuple[Stretch, ...]) -> None:
        own = self.own if piece[0].encoded else None
        data = b"".join(self._bytes(part) for part in piece)
        scan = self._files.store(data, own or self._stored.init, own=own is not None)
        if (scan.start, scan.start + scan.duration) != (piece[0].start, piece[-1].end):
            raise PipelineError("stage_failed", stage="trim", reason=f"the piece at {piece[0].start} has gaps")

    def _bytes(self, part: Stretch) -> bytes:
        if part.encoded:
            return self._made.pop(part.start)
        return gops(self._stored.media(part.segment), part.segment.keyframes, part.start, part.end)
