"""What may begin, and in whose turn: the ready index in memory.

The readable form of `workers/lua/agenda.lua`. A step stands in one place at most: it is *ready* (in the queue of its
stage, priority and organization), or *out* (taken: its ticket is under way, or it runs), or nowhere. Every rule about
priorities, turns, quotas and paused stages is here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.job import Priority, Ref
from pipeline.ports import QueueFigures, Quotas


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a step stands, and with whom it takes turns."""

    stage: str
    priority: Priority
    organization: str


class ReadyIndex:
    """Queues by stage, priority and organization, and what was taken from them."""

    def __init__(self) -> None:
        self.ready: dict[Ref, Place] = {}
        self.out: dict[Ref, Place] = {}
        self.paused: set[str] = set()
        self._queues: defaultdict[Place, dict[Ref, float]] = defaultdict(dict)
        """Each with its ranks."""
        self._turns: defaultdict[tuple[str, Priority], dict[str, int]] = defaultdict(dict)
        """Organizations that have something ready, by when their turn comes."""
        self._last_turn = 0

    # -- moves --------------------------------------------------------------------------------------------------------

    def stand(self, ref: Ref, place: Place, rank: float) -> None:
        """It may begin. An organization that had nothing ready comes last."""
        if self.ready.get(ref) != place:
            self.leave(ref)
            if place not in self._queues:
                self._give_turn(place)
        self._queues[place][ref] = rank
        self.ready[ref] = place

    def begin(self, ref: Ref, place: Place) -> None:
        """It is out: it was taken, or began by a ticket that had been given up as lost."""
        self.leave(ref)
        self.out[ref] = place

    def leave(self, ref: Ref) -> None:
        """It stands nowhere any more."""
        self.out.pop(ref, None)
        place = self.ready.pop(ref, None)
        if place is None:
            return
        del self._queues[place][ref]
        if not self._queues[place]:
            del self._queues[place]
            del self._turns[place.stage, place.priority][place.organization]

    def promote(self, ref: Ref, priority: Priority, rank: float) -> None:
        """Another priority for a step that is ready; one that is out is out."""
        if ref in self.ready and self.ready[ref].priority is not priority:
            self.stand(ref, replace(self.ready[ref], priority=priority), rank)

    # -- taking -------------------------------------------------------------------------------------------------------

    def take(self, stages: Mapping[str, int], quotas: Quotas) -> list[Ref]:
        """High priorities of all stages before low ones of any, because a quota is for all stages."""
        taken: list[Ref] = []
        room = {stage: count for stage, count in stages.items() if stage not in self.paused}
        for priority in Priority:
            for stage, left in room.items():
                served = list(self._serve(stage, priority, left, quotas))
                room[stage] = left - len(served)
                taken += served
        return taken

    def _serve(self, stage: str, priority: Priority, room: int, quotas: Quotas) -> Iterator[Ref]:
        """Round after round, one step for each organization that has one and is under its quota."""
        turns = self._turns[stage, priority]
        waiting = sorted(turns, key=lambda name: turns[name])
        while waiting:
            again = []
            for name in waiting:
                if room <= 0:
                    return
                if self._under(name, quotas):
                    yield self._first(Place(stage=stage, priority=priority, organization=name))
                    room -= 1
                    again += [name] if name in turns else []
            waiting = again

    def _first(self, place: Place) -> Ref:
        """Take the organization's step of the lowest rank; the organization goes to the end of the line."""
        queue = self._queues[place]
        ref = min(queue, key=lambda ref: (queue[ref], str(ref)))
        self.begin(ref, place)
        if place in self._queues:
            self._give_turn(place)
        return replace(ref, stage=place.stage)

    def _give_turn(self, place: Place) -> None:
        self._last_turn += 1
        self._turns[place.stage, place.priority][place.organization] = self._last_turn

    def _under(self, organization: str, quotas: Quotas) -> bool:
        quota = quotas.by_organization.get(organization, quotas.default)
        return quota is None or self.taken_by(organization) < quota

    # -- figures ------------------------------------------------------------------------------------------------------

    def taken_by(self, organization: str) -> int:
        return sum(place.organization == organization for place in self.out.values())

    def figures(self) -> Sequence[QueueFigures]:
        places = [*self.ready.values(), *self.out.values()]
        names = sorted({place.stage for place in places} | self.paused)
        return [self._figures(name) for name in names]

    def _figures(self, stage: str) -> QueueFigures:
        ready = [place for place in self.ready.values() if place.stage == stage]
        return QueueFigures(
            stage=stage,
            ready=Counter(place.priority for place in ready),
            taken=sum(place.stage == stage for place in self.out.values()),
            organizations=Counter(place.organization for place in ready),
            paused=stage in self.paused,
        )
