"""A fleet's control side with everything in memory, and a switchboard that rings in this process alone."""

from __future__ import annotations

from dataclasses import dataclass

from builders import a_blueprint, a_profile

from pipeline.conductor import Conductor
from pipeline.job import Job, Step
from pipeline.memory import OUTAGE_S, ManualClock, MemoryJobStore, MemoryTickets
from pipeline.requests import JobRequest
from pipeline.tasks import Blueprint, IngestFacts
from workers.redis_client import connect
from workers.switchboard import Switchboard

NOWHERE = "unix:///nowhere/redis.sock"


@dataclass
class Wide:
    """A planner whose job begins with so many steps of one stage."""

    steps: int = 1

    def first_steps(self, request: JobRequest) -> tuple[Step, ...]:
        return tuple(Step(id=f"s{n}", stage="transcode") for n in range(self.steps))

    def grow(self, job: Job, facts: IngestFacts) -> tuple[Blueprint, tuple[Step, ...]]:
        return a_blueprint(), ()


class MemoryFleet:
    """Store, tickets, switchboard and conductor; each job has so many steps."""

    def __init__(self, steps: int = 1) -> None:
        self.clock = ManualClock()
        self.store = MemoryJobStore(self.clock)
        self.tickets = MemoryTickets()
        self.switchboard = Switchboard(connect(NOWHERE))
        self.conductor = Conductor(self.store, self.clock, Wide(steps), {"default": a_profile()})

    def live(self, seconds: float) -> None:
        """Time passes while somebody looks: no outage of the store."""
        while seconds > 0:
            self.store.due(0)
            self.clock.advance(min(seconds, OUTAGE_S - 1))
            seconds -= OUTAGE_S - 1
