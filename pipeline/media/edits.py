"""Edit lists of an MP4 or MOV file (ISO/IEC 14496-12 §8.6.6), from their boxes: libav does what they say, silently.

Only box headers and the lists themselves are read, and no more than a file for people has.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.media.sources import Source, size_of
from pipeline.media.tables import Readable, content, walked

_MOST_EDITS = 1024
_NORMAL_RATE = 1 << 16
_EMPTY = -1
"""Media time of an edit that shows nothing: what follows comes later."""


@dataclass(frozen=True, kw_only=True)
class EditList:
    """What one track's list does."""

    pieces: int
    """Ranges of the media that are shown, one after the other; 1 where nothing is cut out of the middle."""
    normal_rate: bool
    """False: a piece stands still, or plays at another speed. Nobody honours that."""


def edit_lists(source: Source) -> tuple[EditList, ...]:
    """The list of every track that has one, in the order of the file; what is damaged is left out."""
    with _opened(source) as file:
        lists = (box for box in walked(file, size_of(source)) if box[0] == b"elst")
        return tuple(edits for _, start, end in lists for edits in _list(file, start, end))


@contextmanager
def _opened(source: Source) -> Iterator[Readable]:
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
    else:
        yield source.open()


def _list(file: Readable, start: int, end: int) -> Iterator[EditList]:
    data = content(file, start, min(end - start, 8 + 20 * _MOST_EDITS))
    entry = struct.Struct(">Qqi" if data[:1] == b"\1" else ">Iii")
    count = min(int.from_bytes(data[4:8], "big"), (len(data) - 8) // entry.size)
    edits = [entry.unpack_from(data, 8 + n * entry.size) for n in range(count)]
    shown = [(media_time, rate) for _, media_time, rate in edits if media_time != _EMPTY]
    if shown:
        yield EditList(pieces=len(shown), normal_rate=all(rate == _NORMAL_RATE for _, rate in shown))
