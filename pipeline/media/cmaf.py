"""CMAF segments from encoded packets (ISO/IEC 23000-19): one muxer a segment, one `moof` a GOP.

Every segment is written by a muxer of its own, which knows nothing of the others: the times alone place it. So a
segment is the same whether its neighbours were made before it, after it or on another machine, and all muxers of one
encoder recipe write the same init segment.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import av
from av.packet import Packet

from pipeline.errors import PipelineError
from pipeline.media.boxes import SegmentScan, scan_segment, split

_MOVFLAGS = {
    # cmaf: signed composition offsets, so that the first sample has offset 0 and `tfdt` is the true start.
    # frag_keyframe: one fragment a GOP, which trims and I-frame playlists address by bytes.
    # empty_moov: the init segment describes the track and holds no sample.
    # frag_discont: `tfdt` is the packets' own time and not counted from 0.
    # skip_trailer: no index behind the last fragment.
    "video": "cmaf+frag_keyframe+empty_moov+frag_discont+skip_trailer",
    # Every packet of sound is a keyframe: without frag_keyframe the whole segment is one fragment.
    "audio": "cmaf+empty_moov+frag_discont+skip_trailer",
}


@dataclass(frozen=True, kw_only=True)
class MadeSegment:
    """One finished media segment and what its bytes say."""

    init: bytes
    media: bytes
    scan: SegmentScan


class SegmentMuxer:
    """Cuts the packets of one encoder into segments.

    `boundaries` are the packet times (in the encoder's time base) at which segments start; the first packet has to be
    at one of them. Video segments start with a keyframe; its packets come in decode order, and because GOPs are closed
    all packets of a segment come before the next one's keyframe.
    """

    def __init__(
        self, *, kind: Literal["video", "audio"], template: Any, timescale: int, boundaries: Sequence[int]
    ) -> None:
        self._kind = kind
        self._template = template
        self._timescale = timescale
        self._boundaries = frozenset(boundaries)
        self._current: tuple[io.BytesIO, Any, Any] | None = None
        self._init: bytes | None = None

    def add(self, packet: Packet[Any]) -> MadeSegment | None:
        """Take the next packet; returns the segment that it ended, if it started another."""
        ended = None
        if packet.is_keyframe and packet.pts in self._boundaries:
            ended = self.finish()
            self._current = self._open()
        if self._current is None:
            raise PipelineError("stage_failed", stage="mux", reason=f"packet at {packet.pts} before any segment")
        _, container, stream = self._current
        packet.stream = stream
        container.mux(packet)
        return ended

    def finish(self) -> MadeSegment | None:
        """Close the segment that is open, if there is one."""
        if self._current is None:
            return None
        buffer, container, _ = self._current
        container.close()
        self._current = None
        init, media = split(buffer.getvalue())
        if self._init not in (None, init):
            raise PipelineError("stage_failed", stage="mux", reason="the init segment changed between two segments")
        self._init = init
        return MadeSegment(init=init, media=media, scan=scan_segment(media, init))

    def init(self) -> bytes:
        """The init segment, which follows from the encoder alone: no packet is needed for it."""
        buffer, container, _ = self._open()
        container.start_encoding()
        container.close()
        return split(buffer.getvalue())[0]

    def _open(self) -> tuple[io.BytesIO, Any, Any]:
        buffer = io.BytesIO()
        container = av.open(
            buffer,
            "w",
            format="mp4",
            options={
                "movflags": _MOVFLAGS[self._kind],
                "video_track_timescale": str(self._timescale),
                # No names or dates of the muxer: the init segment depends on the encoder alone.
                "fflags": "+bitexact",
            },
        )
        return buffer, container, container.add_stream_from_template(self._template)


def segments(muxer: SegmentMuxer, packets: Sequence[Packet[Any]], *, last: bool = False) -> Iterator[MadeSegment]:
    """The segments that these packets complete; with `last` also the one that they leave open."""
    for packet in packets:
        if made := muxer.add(packet):
            yield made
    if last and (made := muxer.finish()):
        yield made


def digest(init: bytes) -> str:
    """SHA-256 of an init segment: the parts of one track must agree."""
    return hashlib.sha256(init).hexdigest()
