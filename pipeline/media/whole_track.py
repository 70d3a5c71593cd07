"""A whole track as one file, an init segment and all its media segments in a row, read from front to back.

It may be as long as a day: no more than one fragment of it, a GOP of the picture or a segment of sound, is in memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from pipeline.media.boxes import BoxError, Sample, find, scan_segment

_LONGEST = 512 * 1024**2
"""Bytes of a box that is read: many times a GOP of anything, and less than a machine has."""
_READ = frozenset((b"moov", b"moof", b"mdat"))


class Readable(Protocol):
    """A file that is read in order; a read may give less than was asked for, but at the end alone nothing."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """One `moof` with its data."""

    init: bytes
    """The `moov` that came last before it."""
    data: bytes
    samples: tuple[Sample, ...]
    """In decode order; their offsets count in `data`."""


def fragments(file: Readable) -> Iterator[Fragment]:
    """The fragments of a file that holds one track. Raises `BoxError` where it is something else."""
    init, moof = b"", b""
    for kind, content in _boxes(file):
        if kind == b"moov":
            init = content
        elif kind == b"moof":
            moof = content
        elif not (init and moof):
            raise BoxError("data without a description")
        else:
            data = moof + content
            yield Fragment(init=init, data=data, samples=scan_segment(data, init).samples)
            moof = b""


def description(init: bytes) -> bytes:
    """The `stsd` box of the first track of a `moov`: how its samples are decoded."""
    box = find(init, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
    return init[box.start : box.end]


def _boxes(file: Readable) -> Iterator[tuple[bytes, bytes]]:
    """(kind, the whole box) of those that matter, one after the other."""
    while header := _some(file, 8):
        if len(header) < 8:
            raise BoxError("the file ends within a box")
        size, kind = struct.unpack(">I4s", header)
        if size == 1:
            header += _exactly(file, 8)
            size = int.from_bytes(header[8:], "big")
        if not len(header) <= size <= _LONGEST:
            raise BoxError(f"box {kind!r} has {size} bytes")
        content = header + _exactly(file, size - len(header))
        if kind in _READ:
            yield kind, content


def _exactly(file: Readable, size: int) -> bytes:
    data = _some(file, size)
    if len(data) != size:
        raise BoxError(f"the file ends {size - len(data)} bytes too early")
    return data


def _some(file: Readable, size: int) -> bytes:
    """The next `size` bytes; less where the file ends."""
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
