"""A source that lies elsewhere: what a stage has instead of a path, where storage is no folder.

The law: a read gives the bytes of the object or does not come back. libav takes a read that failed for the end of the
file, and what is made after it would be wrong and look right; so whatever fails here goes to `lost`, which ends the
process.

Bytes come by blocks from the parent (`pipeline.ranges`) over a socket, and the latest of them are kept. Where blocks
are read in a row, the next ones are asked for while these are decoded: a sixteenth of what was read so far, twice, so
that a short chunk reads little in vain and a whole file needs few requests. Several places may be read in turn, as the
picture and the sound of a file that is badly interleaved are.
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from socket import socket
from threading import Lock
from typing import NoReturn

BLOCK = 64 * 1024
"""Bytes that are asked for at least."""
LONGEST = 64
"""Blocks that are asked for at once, at most."""
_SHORTEST = 8
"""Blocks that are asked for at once where they are read in a row, at least: a round trip is worth more than so few."""
_KEPT = 256
"""Blocks: for two places that are read at full speed, what is being read and what comes next."""
_AHEAD = 16
"""The part of what was read in a row that is asked for ahead is one of so many."""
_GAP = 8
"""Blocks that may be left out, and it is still reading on: they would have come in the time of a round trip."""
_PLACES = 4
"""Places of a file that are read in turn."""

REQUEST = struct.Struct("!QI")
"""To the parent: offset and length in bytes, which lie inside of the object."""
REPLY = struct.Struct("!I")
"""From the parent: the length, and the bytes after it. Requests are answered in their order."""
REFUSED = REPLY.pack(0)
"""There will be no bytes any more; the parent knows why."""

Lost = Callable[[Exception], NoReturn]


def raised(error: Exception) -> NoReturn:
    """A `lost` for where nothing is made of what was read."""
    raise error


@dataclass
class _Place:
    """Where blocks are being read one after the other."""

    at: int
    """The block that was read last."""
    end: int
    """The block after the last that was asked for."""
    read: int = 0
    """Blocks that were read in a row, before this one."""

    def leads_to(self, number: int) -> bool:
        return self.at <= number <= self.end + _GAP

    def move(self, number: int) -> None:
        self.read += number != self.at
        self.at = number

    @property
    def run(self) -> int:
        """Blocks to ask for at once."""
        return min(max(self.read // _AHEAD, _SHORTEST), LONGEST) if self.read else 1


class Handle:
    """An object of `size` bytes. `name` is what its key ends with: libav looks at the suffix.

    `lost` gets what a read fails with, and does not return.
    """

    def __init__(self, channel: socket, *, name: str, size: int, lost: Lost = raised) -> None:
        self.name = name
        self.size = size
        self._channel = channel
        self._lost = lost
        self._lock = Lock()
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._asked: deque[range] = deque()
        """Runs of blocks whose reply is on its way, oldest first."""
        self._places: list[_Place] = []
        """The latest last."""

    def open(self) -> Reader:
        """The object as a file. Any number of them may be open: they share what is kept."""
        return Reader(self)

    def block(self, number: int) -> bytes:
        """Block `number`, which is not beyond the end."""
        try:
            with self._lock:
                return self._read(number)
        except Exception as error:
            self._lost(error)

    def _read(self, number: int) -> bytes:
        self._read_on(self._place(number))
        if number not in self._kept and not any(number in run for run in self._asked):
            self._ask(number, number + 1)  # it was dropped before it was read
        while number not in self._kept:
            self._receive()
        self._kept.move_to_end(number)
        return self._kept[number]

    def _place(self, number: int) -> _Place:
        """The place that is being read, moved on to this block."""
        place = next((place for place in reversed(self._places) if place.leads_to(number)), None)
        if place is None:
            place = _Place(at=number, end=number)
        else:
            self._places.remove(place)
            place.move(number)
        self._places = [*self._places[1 - _PLACES :], place]
        return place

    def _read_on(self, place: _Place) -> None:
        """Ask for the block that is read now, and ahead for the next ones."""
        if place.end <= place.at or (place.read and place.end - place.at <= place.run):
            begin = max(place.at, place.end)
            place.end = begin + place.run
            self._ask(begin, place.end)

    def _ask(self, first: int, end: int) -> None:
        """Ask for the blocks [first, end), but for those that are here, on their way, or beyond the end."""
        here = {number for run in self._asked for number in run} | self._kept.keys()
        for run in _runs(number for number in range(first, min(end, self._end)) if number not in here):
            self._channel.sendall(REQUEST.pack(run.start * BLOCK, self._bytes_of(run)))
            self._asked.append(run)

    @property
    def _end(self) -> int:
        return -(-self.size // BLOCK)

    def _bytes_of(self, run: range) -> int:
        return min(run.stop * BLOCK, self.size) - run.start * BLOCK

    def _receive(self) -> None:
        """Take the oldest reply."""
        run = self._asked.popleft()
        (length,) = REPLY.unpack(exactly(self._channel, REPLY.size))
        if length != self._bytes_of(run):
            raise ConnectionError("the source cannot be read any more")
        for number in run:
            self._kept[number] = exactly(self._channel, self._bytes_of(range(number, number + 1)))
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)


class Reader:
    """A file object for PyAV, which gives it to libav. May give less than was asked for, as a pipe does."""

    def __init__(self, handle: Handle) -> None:
        self.name = handle.name
        self._handle = handle
        self._at = 0

    def read(self, size: int) -> bytes:
        if self._at >= self._handle.size:
            return b""
        number, begin = divmod(self._at, BLOCK)
        data = self._handle.block(number)[begin : begin + size]
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._handle.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at


def _runs(numbers: Iterable[int]) -> Iterator[range]:
    """Rising numbers as ranges of neighbours."""
    for _, pairs in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in pairs]
        yield range(run[0], run[-1] + 1)


def exactly(channel: socket, size: int) -> bytes:
    """The next `size` bytes. Raises `ConnectionError` where the other side has gone."""
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        count = channel.recv_into(rest)
        if not count:
            raise ConnectionError("the other side has gone")
        rest = rest[count:]
    return bytes(data)
