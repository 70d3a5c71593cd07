"""Numbers that the world calls things by: 1, 2, 3 …, each given out once, for all assets, whatever becomes of Redis.

A number is taken by creating its object; storage lets one of several do that. Taken numbers stand in a row, because
everybody tries the first one that is free: so the end of the row is found in a few looks, from anywhere.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from pipeline import keys
from pipeline.ports import ObjectNotFound, PreconditionFailed, Storage

TRIM = "trim"
TRACK = "track"
_REMEMBERED = 1024
"""Owners whose numbers an instance still knows, should they ask again."""


class Numbers:
    """Gives out numbers. Remembers where the row ended, so that the next one is found with two looks; belongs to any
    threads."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._last: dict[str, int] = {}
        self._given: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._lock = threading.Lock()

    def claim(self, kind: str, owner: str) -> int:
        """A number of this kind that nobody had before. The same owner, asking this instance again, gets the same."""
        with self._lock:
            known = self._given.get((kind, owner))
            if known is not None:
                return known
            number = claim(self.storage, kind, owner, hint=self._last.get(kind, 0))
            self._last[kind] = number
            self._given[kind, owner] = number
            if len(self._given) > _REMEMBERED:
                self._given.popitem(last=False)
            return number


def claim(storage: Storage, kind: str, owner: str, *, hint: int = 0) -> int:
    """A number of this kind that nobody had before; `owner` is written down beside it. `hint`: one that was taken.

    Where the last one is the owner's already, that is the answer: whoever claimed it for him did not come to say so.
    """
    last = _end(storage, kind, hint)
    if last and _owner(storage, kind, last) == owner:
        return last
    number = last + 1
    while not _taken(storage, kind, number, owner):
        number += 1
    return number


def _taken(storage: Storage, kind: str, number: int, owner: str) -> bool:
    """Whether it is ours now."""
    try:
        storage.put(keys.number(kind, number), owner.encode(), absent=True)
    except PreconditionFailed as error:
        # Sent twice, because the first reply was lost: what stands there may be our own.
        return error.resent and _owner(storage, kind, number) == owner
    return True


def _owner(storage: Storage, kind: str, number: int) -> str:
    try:
        return storage.get(keys.number(kind, number)).decode()
    except ObjectNotFound:
        return ""


def _end(storage: Storage, kind: str, hint: int) -> int:
    """The last number that is taken; 0 where none is. Steps that double, then halves."""
    low = hint if hint and _there(storage, kind, hint) else 0
    step = 1
    while _there(storage, kind, low + step):
        low, step = low + step, step * 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _there(storage, kind, middle) else (low, middle)
    return low


def _there(storage: Storage, kind: str, number: int) -> bool:
    return storage.stat(keys.number(kind, number)) is not None
