"""Whether the sample tables of a movie (ISO/IEC 14496-12 §8.7) can be true, before libav builds an index of them.

A track whose samples all have one size says only how many there are: ten bytes in the file, and 24 bytes of memory for
every sample that libav then believes in. QuickTime's old compressed sound counts otherwise: its samples are those that
one hears, many in a byte, and libav keeps one entry for a packet of them. Looked at by seeking from box to box; what
makes no sense here is left to libav.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

_HANDLERS = (b"soun", b"vide", b"subp", b"clcp", b"m1a ")
"""Kinds of a track. There is a second handler, for references to data, which is none."""
_INSIDE = frozenset((b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"moof", b"traf"))
_MOST_BOXES = 20_000
"""Boxes that are looked at; a movie of a thousand tracks has fewer."""
_WRITTEN = 0xF00
"""Flags of a run of samples in a fragment: something is written of each of them, four bytes or more (§8.8.8)."""
_MOST_A_BYTE = 160
"""Samples of old compressed sound; the best of its codecs has some twenty. libav's entries have no fewer each."""


class Readable(Protocol):
    """A file, or what reads like one: `read` may give less than was asked for."""

    def seek(self, offset: int, /) -> int: ...
    def read(self, size: int, /) -> bytes: ...


def more_samples_than_bytes(file: Readable, size: int) -> bool:
    """Whether a track has more samples than a file of so many bytes can hold."""
    return any(track.needs > size for track in _tracks(file, size))


@dataclass(kw_only=True)
class _Track:
    """What the tables of one track say."""

    each: int = 0
    """Bytes of every sample; 0 where they differ."""
    count: int = 0
    packet: int = 0
    """Samples in a packet of old compressed sound; 0: it is none."""
    packet_bytes: int = 0
    sound: bool = False
    ticks: set[tuple[int, int]] = field(default_factory=set)
    """How many times are listed, and how long the first sample lasts. Where it is one tick for all, libav takes packets
    of a sound."""

    @property
    def needs(self) -> int:
        """Bytes that the file must have at least."""
        if not (self.packet and self.sound and self.ticks == {(1, 1)}):
            return self.each * self.count
        return max(self.count // self.packet * self.packet_bytes, self.count // _MOST_A_BYTE)


def _tracks(file: Readable, size: int) -> Iterator[_Track]:
    """Every track once its boxes have passed, which may come in any order; last, all fragments as one."""
    track, fragments = _Track(), _Track(each=1)
    for kind, body, _end in walked(file, size):
        if kind == b"trak":
            yield track
            track = _Track()
        elif kind == b"stsz" and len(table := content(file, body, 12)) == 12:
            _, track.each, track.count = struct.unpack(">III", table)
        elif kind == b"stts" and len(table := content(file, body, 16)) == 16:
            track.ticks.add(struct.unpack(">4xI4xI", table))
        elif kind == b"stsd" and len(entry := content(file, body, 56)) == 56:
            track.packet, track.packet_bytes = _old_sound(entry)
        elif kind == b"hdlr" and (handler := content(file, body, 12)[8:]) in _HANDLERS:
            track.sound = handler == b"soun"
        elif kind == b"trun" and len(run := content(file, body, 8)) == 8:
            flags, count = struct.unpack(">II", run)
            fragments.count += count if not flags & _WRITTEN else 0
    yield track
    yield fragments


def _old_sound(descriptions: bytes) -> tuple[int, int]:
    """(samples, bytes) of a packet by a sound description of version 1 (QuickTime File Format); zeros for any other."""
    count, version, packet, packet_bytes = struct.unpack_from(">4xI16xH18xI4xI", descriptions)
    return (packet, packet_bytes) if (count, version) == (1, 1) else (0, 0)


def walked(file: Readable, size: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, begin and end of its content) of every box on the way to the tables, and of the tables themselves.

    As libav takes them: a box is no longer than the one that it is in, and one that is shorter than its own header ends
    the one that it is in.
    """
    ends, at = [size], 0
    for _ in range(_MOST_BOXES):
        while ends and at >= ends[-1]:
            ends.pop()
        header = content(file, at, 16) if ends else b""
        if len(header) < 8:
            return
        length, kind = struct.unpack_from(">I4s", header)
        begin = at + 8
        if length == 1 and len(header) == 16:
            length, begin = struct.unpack_from(">Q", header, 8)[0], at + 16
        end = min(at + length, ends[-1]) if length else ends[-1]
        if end < begin:
            at = ends.pop()
            continue
        yield kind, begin, end
        at = begin if kind in _INSIDE else end
        if kind in _INSIDE:
            ends.append(end)


def content(file: Readable, offset: int, size: int) -> bytes:
    """So many bytes from there on, or what there is."""
    file.seek(offset)
    data = b""
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data
