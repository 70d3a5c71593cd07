"""Objects that a sandboxed child reads by range: the parent's side of `pipeline.media.handle`.

Many objects may be read as if they were one (`Joined`): a whole track without a copy of it.

The child has no network and no keys. It has one end of a socket, over which it may read this object and nothing else;
what it asks for is not believed. A storage that fails ends the child, and is the error of the step, whatever the child
has said: a source that cannot be read is not a source that is broken.
"""

from __future__ import annotations

import socket
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from pipeline.errors import PipelineError
from pipeline.media.handle import BLOCK, LONGEST, REFUSED, REPLY, REQUEST, exactly
from pipeline.ports import Moved, ObjectNotFound, Storage, StoredObject
from pipeline.storage.side_by_side import SideBySide
from pipeline.tasks import Segment

_LONGEST_WAIT_S = 0.5
"""For a storage that still answers when nobody wants to know any more."""


class Readable(Protocol):
    """A storage, as far as it is needed here; or one object of another."""

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes: ...


class Served:
    """One object of a storage, read for a child by a thread of its own while the context is open.

    `moved` is told of every range that came, from that thread: a slow storage is not a stalled stage.
    """

    def __init__(self, storage: Readable, stored: StoredObject, moved: Moved, *, name: str = "") -> None:
        self.name = name or stored.key.rpartition("/")[2]
        self.size = stored.size
        self.requests = 0
        self.bytes_read = 0
        self.error: Exception | None = None
        """What the storage failed with."""
        self._storage = storage
        self._key = stored.key
        self._moved = moved
        self._thread = threading.Thread(target=self._serve, name=f"ranges-{self.name}", daemon=True)

    def __enter__(self) -> Served:
        self._ours, self._theirs = socket.socketpair()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.given()
        with suppress(OSError):  # the thread may have closed it
            self._ours.shutdown(socket.SHUT_RDWR)
        # A request to the storage cannot be interrupted; its answer finds nobody, and the thread ends then.
        self._thread.join(_LONGEST_WAIT_S)

    def fileno(self) -> int:
        """The child's end, to be sent to it."""
        return self._theirs.fileno()

    def given(self) -> None:
        """The child has its end: ours of it goes, so that the end of the child is the end of the connection."""
        self._theirs.close()

    def _serve(self) -> None:
        with self._ours, suppress(OSError):  # the child has gone, or nobody waits for it any more
            while True:
                offset, length = REQUEST.unpack(exactly(self._ours, REQUEST.size))
                try:
                    data = self._read(offset, length)
                except Exception as error:
                    self.error = error
                    self._ours.sendall(REFUSED)
                    return
                self._ours.sendall(REPLY.pack(length))
                self._ours.sendall(data)

    def _read(self, offset: int, length: int) -> bytes:
        if not 0 < length <= LONGEST * BLOCK or offset + length > self.size:
            raise PipelineError("stage_failed", stage="sandbox", reason="a read outside of its source")
        data = self._storage.get(self._key, offset, length)
        if len(data) != length:  # cut on its way, or another object than before
            raise PipelineError("storage_unavailable", reason=f"{len(data)} of {length} bytes came")
        self.requests += 1
        self.bytes_read += length
        self._moved()
        return data


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Bytes of one object."""

    key: str
    size: int
    offset: int = 0


class Joined:
    """Stretches of many objects, one behind the other, as one object of known size: a whole track as a file.

    Its keys mean nothing. Raises what the storage raises, and `PipelineError("storage_unavailable")` where an object is
    shorter than it was: what lies behind it would move.
    """

    def __init__(self, storage: Readable, stretches: Iterable[Stretch]) -> None:
        self._storage = storage
        self._stretches = [stretch for stretch in stretches if stretch.size]
        self._begins = list(accumulate((stretch.size for stretch in self._stretches), initial=0))

    @property
    def size(self) -> int:
        """Bytes."""
        return self._begins[-1]

    def served(self, moved: Moved, *, name: str) -> Served:
        """All of it, for a child."""
        return Served(self, StoredObject(key=name, size=self.size, etag="", modified_ms=0), moved)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        end = self.size if length is None else min(offset + length, self.size)
        wanted = list(self._within(offset, end))
        if len(wanted) == 1:  # no thread for the usual case: pieces are larger than what is asked for at once
            return self._read(wanted[0])
        found = [b""] * len(wanted)
        with SideBySide() as several:
            for number, stretch in enumerate(wanted):
                several.do(partial(self._put, found, number, stretch))
        return b"".join(found)

    def _put(self, found: list[bytes], number: int, stretch: Stretch) -> None:
        found[number] = self._read(stretch)

    def _read(self, wanted: Stretch) -> bytes:
        data = self._storage.get(wanted.key, wanted.offset, wanted.size)
        if len(data) != wanted.size:
            raise PipelineError("storage_unavailable", reason=f"{len(data)} of {wanted.size} bytes of a piece came")
        return data

    def _within(self, offset: int, end: int) -> Iterator[Stretch]:
        """What [offset, end) is made of."""
        number = bisect_right(self._begins, offset) - 1
        while offset < end:
            stretch, skipped = self._stretches[number], offset - self._begins[number]
            size = min(stretch.size - skipped, end - offset)
            yield Stretch(key=stretch.key, size=size, offset=stretch.offset + skipped)
            offset, number = offset + size, number + 1


def joined_track(storage: Storage, runs: Iterable[tuple[str, Sequence[Segment]]]) -> Joined:
    """A track as one file: the init segment of every run (its key), and the segments behind it.

    Raises `ObjectNotFound` where there is no such init segment.
    """
    stretches: list[Stretch] = []
    for init, segments in runs:
        stored = storage.stat(init)
        if stored is None:
            raise ObjectNotFound(init)
        stretches.append(Stretch(key=init, size=stored.size))
        stretches += (Stretch(key=segment.key, size=segment.size) for segment in segments)
    return Joined(storage, stretches)


Given = Path | Served
"""What a stage is given to read."""


@contextmanager
def serving(inputs: Iterable[Given]) -> Iterator[None]:
    """Read for the child that runs inside. Raises what the storage failed with in place of what the child said."""
    served = [given for given in inputs if isinstance(given, Served)]
    with ExitStack() as stack:
        for each in served:
            stack.enter_context(each)
        try:
            yield
        except PipelineError as said:
            for each in served:
                if each.error is not None:
                    raise each.error from said
            raise
