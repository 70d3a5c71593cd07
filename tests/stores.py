"""A job store with everything around it, in memory and on Redis, and commits made by hand.

Time never passes by sleeping: a `World` moves what its store has written down into the past.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Protocol

from builders import a_blueprint

from pipeline.job import Commit, EventDraft, Job, Ref, Status, Step
from pipeline.memory import GRACE_S, OUTAGE_S, ManualClock, MemoryJobStore, SystemClock
from pipeline.ports import Clock, Ledger
from workers.redis_client import Client
from workers.redis_jobs import RedisJobStore

ASSET = "asset000001"
JOB = "job-1"


class World(Protocol):
    """A store with everything around it that a test may want to see or turn."""

    @property
    def store(self) -> Ledger: ...

    @property
    def clock(self) -> Clock: ...

    def advance(self, seconds: float) -> None: ...

    def events(self) -> list[dict[str, Any]]: ...

    def due_entries(self) -> int: ...

    def forget_job(self) -> None:
        """As if the record of `JOB` had expired."""


class MemoryWorld:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryJobStore(self.clock)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def events(self) -> list[dict[str, Any]]:
        return list(self.store.events)

    def due_entries(self) -> int:
        return len(self.store._due)

    def forget_job(self) -> None:
        del self.store._jobs[JOB]


class RedisWorld:
    def __init__(self, client: Client) -> None:
        self.clock = SystemClock()
        self.client: Any = client
        self.store = RedisJobStore(client)

    def advance(self, seconds: float) -> None:
        for member in self.client.zrange("reelway:due", 0, -1):
            self.client.zincrby("reelway:due", -seconds * 1000, member)
        for name in self.client.hkeys("reelway:pulse"):
            self.client.hincrbyfloat("reelway:pulse", name, -seconds * 1000)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(fields[b"ce"]) for _, fields in self.client.xrange("reelway:events")]

    def due_entries(self) -> int:
        return int(self.client.zcard("reelway:due"))

    def forget_job(self) -> None:
        self.client.delete(f"reelway:job:{JOB}")


def live(world: World, seconds: float) -> list[Ref]:
    """Time passes while sweepers look; what was due at the end."""
    while seconds > 0:
        world.store.due(0)
        world.advance(min(seconds, OUTAGE_S - 1))
        seconds -= OUTAGE_S - 1
    return list(world.store.due(1000))


def settle_in(world: World) -> None:
    """Let the first grace pass: a store that nobody has swept yet may have been away."""
    live(world, GRACE_S + 1)


# -- commits made by hand ---------------------------------------------------------------------------------------------


def a_step(name: str, **changes: Any) -> Step:
    return Step(**{"id": name, "stage": "transcode", "status": Status.READY, **changes})


def creating(*steps: Step, **changes: Any) -> Commit:
    """A commit that makes `JOB` with these steps."""
    by_id = {step.id: step for step in steps}
    job = Job(id=JOB, asset=ASSET, created_ms=17, steps=by_id, blueprint=a_blueprint(), request={"meta": {"a": "ü/…"}})
    made = Commit(job=JOB, asset=ASSET, new=True, header=job, steps=by_id, rank=17)
    return replace(made, **changes)


def another(
    job: str, *steps: Step, asset: str = ASSET, rank: float = 17, organization: str = "default", **changes: Any
) -> Commit:
    """A commit that makes another job; what is not a field of the commit is one of the job."""
    of_commit = {name: changes.pop(name) for name in list(changes) if name in Commit.__dataclass_fields__}
    made = creating(*steps, rank=rank, organization=organization, **of_commit)
    assert made.header is not None
    header = replace(made.header, id=job, asset=asset, organization=organization, **changes)
    return replace(made, job=job, asset=asset, header=header)


def changing(**changes: Any) -> Commit:
    return replace(Commit(job=JOB, asset=ASSET), **changes)


def an_event(name: str = "step.started", **data: Any) -> EventDraft:
    return EventDraft(id=f"{name}.{data}", type=name, data=data)


def the_job(world: World) -> Job:
    job = world.store.job(JOB)
    assert job is not None
    return job


def statuses(world: World) -> dict[str, str]:
    return {step.id: str(step.status) for step in the_job(world).steps.values()}
