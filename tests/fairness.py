"""Who goes before whom: the rules of the agenda, told a second time, about what was given out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

from pipeline.job import Priority, Ref
from pipeline.ready import Place

Queue = tuple[str, Priority]
_RANKS = {priority: rank for rank, priority in enumerate(Priority)}


class Fairness:
    """Watches what is given out; `quota_of` says how many steps an organization may have under way."""

    def __init__(self, quota_of: Callable[[str], int]) -> None:
        self._quota_of = quota_of
        self._waiting: defaultdict[Queue, dict[str, set[str]]] = defaultdict(dict)
        """Who waits, and who was served since."""

    def look(self, ready: Mapping[Ref, Place]) -> None:
        """After every operation: who waits now. Who has nothing ready loses its turn."""
        now: defaultdict[Queue, set[str]] = defaultdict(set)
        for place in ready.values():
            now[place.stage, place.priority].add(place.organization)
        for queue in {*now, *self._waiting}:
            before = self._waiting[queue]
            self._waiting[queue] = {name: before.get(name, set()) for name in now[queue]}

    def served(self, ref: Ref, ready: Mapping[Ref, Place], out: Mapping[Ref, Place]) -> None:
        """`ref` is given out, while these are ready and those are under way."""
        place = ready[ref]
        busy = [other.organization for other in out.values()]
        able = [
            other for other in ready.values() if busy.count(other.organization) < self._quota_of(other.organization)
        ]
        assert place in able, f"{ref} is beyond the quota of {place.organization}"
        higher = [other for other in able if _goes_before(other, place)]
        assert not higher, f"{ref} went before {higher[0]}"
        waiting = self._waiting[place.stage, place.priority]
        for name in waiting.keys() & {other.organization for other in able} - {place.organization}:
            assert place.organization not in waiting[name], f"{place.organization} was served twice, and {name} waited"
        for since in waiting.values():
            since.add(place.organization)
        waiting[place.organization] = set()


def _goes_before(place: Place, other: Place) -> bool:
    return place.stage == other.stage and _RANKS[place.priority] < _RANKS[other.priority]
