"""A progressive MP4 that is written once, from front to back: room for its index is left in front (faststart).

How large the index will be is known only at the end, but it can be said beforehand how large it may become. What is
left of the room is padding. Where the room was too small after all, the media is moved back.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.media.boxes import Sample
from pipeline.media.mp4_index import FILE_TYPE, MOST_32, IndexedTrack, box, index

_PADDING = 8
"""Bytes of the smallest box."""
_MEDIA_HEADER = 16
"""Bytes: an empty box and the header of `mdat`, or one header with a size of 64 bits."""
_COPIED = 8 * 1024**2
"""Bytes that are moved at once."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A sample as it is written."""

    sample: Sample
    data: bytes | memoryview


class ProgressiveFile:
    """Write chunks, then the index. `room`: bytes that the index may become."""

    def __init__(self, file: BinaryIO, room: int) -> None:
        self._file = file
        self._room = room
        self._begin = len(FILE_TYPE) + room + _PADDING
        """Of the media's header."""
        self._end = self._begin + _MEDIA_HEADER
        file.seek(self._end)

    def write(self, track: IndexedTrack, chunk: Sequence[Stored]) -> None:
        """Samples of a track that lie one behind the other."""
        table = track.table
        table.chunk(self._end)
        for stored in chunk:
            table.add(stored.sample, len(stored.data))
        self._end += self._file.write(b"".join(stored.data for stored in chunk))

    def finish(self, tracks: Sequence[IndexedTrack], timescale: int, pulse: Callable[[], None]) -> int:
        """Write the index. Returns the size of the file."""
        moved = 0
        while (missing := len(moov := index(tracks, timescale, moved)) - self._room - moved) > 0:
            moved += missing
        if moved:
            self._move(moved, pulse)
        padding = self._room + moved + _PADDING - len(moov)
        self._file.seek(0)
        self._file.write(FILE_TYPE + moov + box(b"free", bytes(padding - _PADDING)) + self._media_header())
        self._file.seek(self._end)
        return self._end

    def _media_header(self) -> bytes:
        size = self._end - self._begin
        if size < MOST_32:
            return box(b"free") + struct.pack(">I4s", size - 8, b"mdat")
        return struct.pack(">I4sQ", 1, b"mdat", size)

    def _move(self, by: int, pulse: Callable[[], None]) -> None:
        """The media, `by` bytes back; its end first, as it is moved over itself."""
        at = self._end
        while at > self._begin:
            size = min(_COPIED, at - self._begin)
            at -= size
            self._file.seek(at)
            data = self._file.read(size)
            self._file.seek(at + by)
            self._file.write(data)
            pulse()
        self._begin += by
        self._end += by
