"""One clock for a recording whose own starts anew in the middle: parts that were joined, a device that was reset.

Transport and program streams carry a clock of 33 bits that wraps around after a day, and recorders join files end to
end, each with its clock from anywhere; so do those who record a live stream to FLV. Where all streams jump, the parts
are laid end to end: one offset for picture and sound, so that they stay together. What is a gap stays a gap. One
damaged time begins no part: where its stream goes on as if it had not been, the packet follows the one before it.

The law: it depends on the packets of picture and sound in the order of the file, and on nothing else. Whoever reads the
file from its beginning, for whichever of its streams, gets the same times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain
from typing import Any

from av.container import InputContainer
from av.packet import Packet

_WRAPS = {"mpegts": 33, "mpeg": 33, "flv": None}
"""The formats, and the bits of their clock where it wraps around."""
_UNIT = 90_000
"""Ticks a second of everything here. The clocks of these formats are whole parts of it (90000 and 1000 a second), and
whole numbers cost a tenth of fractions, packet by packet."""
_BACK = _UNIT
"""Ticks that decoding times of a stream may go back without being a new clock: disorder."""
_AHEAD = 3600 * _UNIT
"""Ticks by which a stream may jump ahead of all others and still be a gap: a lost signal, a slide that stands."""
_CUT = _UNIT // 10
"""Ticks of a stream that may be lost where parts are joined: they seldom end with all streams at once."""
_REMEMBERED = 8
"""Parts in which a packet may still belong. Streams are interleaved, so a few packets of one come after the next began;
and a few damaged times are a part of their own, after which the old one goes on."""
_AHEAD_PACKETS, _AHEAD_BYTES = 128, 16 << 20
"""What is read ahead, of picture and sound, to find how a stream goes on after a jump; where that does not tell, it is
a jump. Streams are interleaved by a second or so."""


def joined_clock(container: InputContainer) -> JoinedClock | None:
    """A clock for the packets of this source, from its beginning on; None where the format needs none."""
    name = container.format.name
    return JoinedClock(_WRAPS[name]) if name in _WRAPS else None


@dataclass(kw_only=True)
class _Stream:
    """Where one stream is."""

    each: int
    """How long one tick of its own time base is."""
    part: int = 0
    raw: int | None = None
    """Decoding time of its last packet as the file says it, without wraps."""
    at: int | None = None
    """The same on the joined clock."""
    end: int | None = None
    """Where that packet ends, on the joined clock."""
    before: int | None = None
    """Where it was before it last jumped ahead, on the joined clock."""

    def goes_on(self, at: int) -> bool:
        """Whether a packet there follows the last one; or the last one before a gap, so that the gap was none."""
        return any(near is not None and abs(at - near) <= _BACK for near in (self.at, self.before))


class JoinedClock:
    """Gives the packets of picture and sound, in the order of the file, times of one clock.

    All times are in ticks of `_UNIT`.
    """

    def __init__(self, bits: int | None) -> None:
        self._wrap = 1 << bits if bits else None
        self._offsets = [0]
        self._streams: dict[int, _Stream] = {}
        self._raw: int | None = None
        """Of the last packet of any stream."""
        self._latest: int | None = None
        self._end = 0
        """Where the latest packet of all ends."""

    @property
    def cuts(self) -> int:
        """How often a part was joined to the one before it, so far."""
        return len(self._offsets) - 1

    def mended(self, packets: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
        """The packets on the joined clock: all those of picture and sound, in the order of the file, and any others."""
        ahead: deque[Packet[Any]] = deque()
        while (packet := ahead.popleft() if ahead else next(packets, None)) is not None:
            self._mend(packet, ahead, packets)
            yield packet

    def _mend(self, packet: Packet[Any], ahead: deque[Packet[Any]], packets: Iterator[Packet[Any]]) -> None:
        ticks = packet.dts if packet.dts is not None else packet.pts
        stream = self._streams.get(packet.stream_index)
        if stream is None:
            each = round((packet.time_base or Fraction(0)) * _UNIT)
            stream = self._streams[packet.stream_index] = _Stream(each=each)
        if ticks is None or not stream.each:
            return
        raw = self._unwrapped(ticks * stream.each, stream)
        leading = _leads(packet)
        if leading and stream.raw is not None and abs(raw - stream.raw) > _BACK:
            following = _following(packet, ahead, packets)
            if following is not None and abs(self._unwrapped(following * stream.each, stream) - stream.raw) <= _BACK:
                raw = self._next(stream)
        self._place(stream, raw, leading)
        at = raw + self._offsets[stream.part]
        if leading:
            self._keep(stream, raw, at, (packet.duration or 0) * stream.each)
        if shift := at // stream.each - ticks:
            packet.pts = packet.pts + shift if packet.pts is not None else None
            packet.dts = packet.dts + shift if packet.dts is not None else None

    def _keep(self, stream: _Stream, raw: int, at: int, lasts: int) -> None:
        if stream.at is not None and at - stream.at > _BACK:
            stream.before = stream.at
        stream.raw, stream.at, stream.end, self._raw = raw, at, at + lasts, raw
        self._latest = at if self._latest is None else max(self._latest, at)
        self._end = max(self._end, stream.end)

    def _next(self, stream: _Stream) -> int:
        """The time that the file should have said: where the last packet of the stream ends."""
        assert stream.raw is not None
        assert stream.at is not None
        assert stream.end is not None
        return stream.raw + min(stream.end - stream.at, _BACK)

    def _unwrapped(self, raw: int, stream: _Stream) -> int:
        """The time on the side of the wrap where the packets before it are."""
        before = stream.raw if stream.raw is not None else self._raw
        if self._wrap is None or before is None or abs(raw - before) * 2 <= self._wrap:
            return raw
        return raw + round((before - raw) / self._wrap) * self._wrap

    def _place(self, stream: _Stream, raw: int, leading: bool) -> None:
        """Find the part that the packet belongs to; where it fits into none, the next part begins with it."""
        if stream.at is not None and abs(raw + self._offsets[stream.part] - stream.at) <= _BACK:
            return  # as nearly always
        if self._latest is None:
            self._end = raw
            return
        if not leading:
            stream.part = min(self._parts(stream), key=lambda part: abs(raw + self._offsets[part] - self._end))
            return
        # Where it goes on without a jump is better than where it might be: a part of damaged times ends like this.
        for fits in (stream.goes_on, partial(self._fits, stream)):
            for part in self._parts(stream):
                if fits(raw + self._offsets[part]):
                    stream.part = part
                    return
        # The stream goes on without a gap; only where another lasted much longer, that one is not cut.
        end = stream.end if stream.end is not None and self._end - stream.end <= _CUT else self._end
        self._offsets.append(end - raw)
        stream.part = len(self._offsets) - 1

    def _parts(self, stream: _Stream) -> Iterator[int]:
        """The part where the stream is, then the others from the last one back."""
        yield stream.part
        newest = len(self._offsets) - 1
        yield from (part for part in range(newest, max(newest - _REMEMBERED, -1), -1) if part != stream.part)

    def _fits(self, stream: _Stream, at: int) -> bool:
        assert self._latest is not None
        earliest = stream.at - _BACK if stream.at is not None else self._latest - _AHEAD
        return earliest <= at <= self._latest + _AHEAD


def _leads(packet: Packet[Any]) -> bool:
    return packet.stream.type in ("video", "audio")


def _following(packet: Packet[Any], ahead: deque[Packet[Any]], packets: Iterator[Packet[Any]]) -> int | None:
    """Ticks of the next packet of the same stream; what has to be read for it is added to `ahead`."""
    count = size = 0
    for other in chain(tuple(ahead), _added(ahead, packets)):
        if other.stream_index == packet.stream_index:
            return other.dts if other.dts is not None else other.pts
        # Others than picture and sound do not count: not everyone reads them.
        count, size = count + _leads(other), size + other.size * _leads(other)
        if count >= _AHEAD_PACKETS or size >= _AHEAD_BYTES:
            return None
    return None


def _added(ahead: deque[Packet[Any]], packets: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
    for packet in packets:
        ahead.append(packet)
        yield packet
