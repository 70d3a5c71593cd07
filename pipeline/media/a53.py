"""Captions inside the picture: where they lie in its packets (ATSC A/53 Part 4 §6.2.3, SCTE 128-1 §8.2).

H.264 and HEVC carry them in SEI messages, MPEG-2 in user data of its pictures; in all of them the identifier `GA94`
comes before the same structure, so it is looked for in the bytes, and no picture is decoded. Packets come in the order
of decoding and captions in the order of showing, so everything is kept until the end: two bytes a field.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice

from av.packet import Packet
from av.stream import Stream

from pipeline.media.line21 import Pair

CODECS = ("h264", "hevc", "mpeg2video")
_MARK = b"GA94\x03"
_HEAD, _KEY_HEAD = 512, 4096
"""Bytes of a packet that are looked at while none had captions: they lie before the picture's own data, and only
keyframes have more than a little before them (parameter sets, descriptions of light, the encoder's own word)."""
_LONGEST = 4 + 3 * 31 + 64
"""Bytes after the identifier, with room for those that keep start codes apart."""
_STRUCTURES = 8
"""Most that one packet has: one a field, and there are two."""
_MOST = 1 << 21
"""Pairs that are kept: nine hours of both fields without a pause."""
_GUARD = re.compile(rb"\x00\x00\x03")


class PictureCaptions:
    """Takes the packets of one picture, or of a track of its own (`eia_608`), and gives its CEA-608 pairs in order."""

    def __init__(self, stream: Stream) -> None:
        self.time_base = stream.time_base or Fraction(1)
        self.overflowed = False
        self.only_708 = False
        """There are captions of CEA-708 and none of CEA-608."""
        self._bare = stream.codec_context.name in ("cc_dec", "eia_608")
        self._guarded = stream.codec_context.codec.canonical_name != "mpeg2video"
        self._ticks = array("q")
        self._pairs = bytearray()
        """Three bytes each, as cc_data has them: type, first, second."""
        self._found = False

    def feed(self, packet: Packet[Stream]) -> None:
        if self._bare:
            self._take(bytes(packet), packet)
            return
        # This line is all that an hour of pictures without captions costs: 0.1 s.
        data = bytes(packet) if self._found else bytes(memoryview(packet)[: _KEY_HEAD if packet.is_keyframe else _HEAD])
        if _MARK in data:
            if not self._found:
                self._found, data = True, bytes(packet)
            for triplets in islice(self._structures(data), _STRUCTURES):
                self._take(triplets, packet)

    def pairs(self) -> Iterator[Pair]:
        """In the order of showing; those of one picture in the order of the file."""
        for number in sorted(range(len(self._ticks)), key=self._ticks.__getitem__):
            kind, first, second = self._pairs[3 * number : 3 * number + 3]
            yield Pair(at=self._ticks[number] * self.time_base, field=(kind & 1) + 1, first=first, second=second)

    def _structures(self, data: bytes) -> Iterator[bytes]:
        """The caption data of each `cc_data()` in a packet."""
        at = data.find(_MARK)
        while at >= 0:
            body = data[at + len(_MARK) : at + len(_MARK) + _LONGEST]
            body = _GUARD.sub(b"\x00\x00", body) if self._guarded else body
            if len(body) > 2 and body[0] & 0x40:  # process_cc_data_flag
                yield body[2 : 2 + 3 * (body[0] & 0x1F)]
            at = data.find(_MARK, at + 1)

    def _take(self, triplets: bytes, packet: Packet[Stream]) -> None:
        ticks = next((t for t in (packet.pts, packet.dts) if t is not None), None)
        for at in range(0, len(triplets) - 2, 3):
            kind, first, second = triplets[at : at + 3]
            if not kind & 0x04:  # cc_valid
                continue
            if kind & 0x02:
                self.only_708 = not self._ticks
            elif ticks is not None and (first | second) & 0x7F:  # else it says nothing
                self._keep(ticks, kind, first, second)

    def _keep(self, ticks: int, kind: int, first: int, second: int) -> None:
        self.only_708 = False
        if len(self._ticks) >= _MOST:
            self.overflowed = True
            return
        self._ticks.append(ticks)
        self._pairs += bytes((kind, first, second))
