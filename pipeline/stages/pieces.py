"""The pieces that an edit plays of one track, beside the segments that are there.

A piece never goes beyond the segment that a cut divides, so no piece outlasts what players were promised of segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from pipeline.media.boxes import SegmentScan, scan_segment
from pipeline.stages.contract import Inputs, Outputs
from pipeline.stages.track_files import INIT
from pipeline.tasks import Patch, Piece, Segment, TrackCut


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What storage has of a track that is cut."""

    cut: TrackCut
    inputs: Inputs

    @property
    def init(self) -> bytes:
        return self._read(INIT)

    def media(self, segment: Segment) -> bytes:
        return self._read(f"{segment.start}.m4s")

    def played(self, segment: Segment) -> tuple[int, int]:
        """From which to which tick a divided segment is played."""
        return max(segment.start, self.cut.start), min(segment.start + segment.duration, self.cut.end)

    def ticks(self, time: Fraction) -> Fraction:
        """A time in seconds; where it is no frame of the track, with a fraction."""
        return time * self.cut.timescale

    def _read(self, name: str) -> bytes:
        path = self.inputs[f"{self.cut.track}/{name}"]
        assert isinstance(path, Path)  # what is small always is
        return path.read_bytes()


class PieceFiles:
    """Hands over `<track>/<start tick>.m4s` as soon as a piece is complete."""

    def __init__(self, out: Outputs, cut: TrackCut) -> None:
        self._out = out
        self._cut = cut
        self._pieces: list[Piece] = []

    def store(self, data: bytes, init: bytes, *, own: bool = False) -> SegmentScan:
        """A piece in the order of time; `own` where `init` is not the track's. What it is follows from its bytes."""
        scan = scan_segment(data, init)
        name = f"{self._cut.track}/{scan.start}.m4s"
        self._put(name, data)
        self._pieces.append(
            Piece(
                start=scan.start,
                duration=scan.duration,
                key=name,
                size=len(data),
                keyframes=scan.keyframes if self._cut.kind == "video" else (),
                init=f"{self._cut.track}/{INIT}" if own else "",
            )
        )
        return scan

    def store_init(self, init: bytes) -> None:
        self._put(f"{self._cut.track}/{INIT}", init)

    def patch(self, *, seams: Sequence[int] = (), whole: tuple[int, int] | None = None) -> Patch:
        """What was made. Between the pieces are the track's own segments that lie `whole` (ticks) in the range."""
        first, last = whole or (self._cut.first, self._cut.last)
        return Patch(
            track=self._cut.track,
            first=first,
            last=last,
            head=tuple(piece for piece in self._pieces if piece.start < first),
            tail=tuple(piece for piece in self._pieces if piece.start >= first),
            seams=tuple(seams),
        )

    def _put(self, name: str, data: bytes) -> None:
        self._out.path(name).write_bytes(data)
        self._out.done(name)


def size(patch: Patch) -> int:
    """Bytes of all pieces."""
    return sum(piece.size for piece in (*patch.head, *patch.tail))
