"""SIGTERM under load, with real worker processes: nothing new is taken; what runs is finished, or begun elsewhere."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_server import RedisServer
from toy_worker import Fate, read_diary, toy_worker, write_source

from pipeline.events import STREAM, Event
from pipeline.job import Status, Step
from pipeline.requests import ProcessRequest
from regressions.world import until
from workers.embedded import end
from workers.settings import Settings
from workers.wiring import control

LONG = "long"


class Fleet:
    """Worker processes on one Redis and one folder."""

    def __init__(self, server: RedisServer, root: Path) -> None:
        self.root = root
        self.gate = root / "gate"
        """The long step goes on until this file is there."""
        self.settings = {"REELWAY_REDIS_URL": server.url(), "REELWAY_STORAGE_URL": f"file://{root}/storage"}
        self.control = control(Settings.read(redis_url=server.url(), storage_url=f"file://{root}/storage"))
        self.redis: Any = self.control.redis
        self._workers: list[subprocess.Popen[bytes]] = []

    def worker(self, *, grace_s: float, stuck: bool = False) -> subprocess.Popen[bytes]:
        """Returns when it listens; `stuck`: and when it keeps house, which never ends."""
        before = self._listeners()
        settings = {**self.settings, "REELWAY_SCRATCH_DIR": str(self.root), "REELWAY_GRACE_S": str(grace_s)}
        settings |= {"TOY_STUCK": "1"} if stuck else {}
        made = toy_worker(settings, log=self.root / "log")
        self._workers.append(made)
        assert until(lambda: self._listeners() > before), (self.root / "log").read_text()
        assert until(lambda: not stuck or self.redis.exists("reelway:turn:janitor"))
        return made

    def submit(self, name: str, fate: Fate = "fine", gate: Path | None = None) -> None:
        gates = {"ingest": gate} if gate else {}
        source = write_source(self.root / f"{name}.toy", seconds=4, sound=False, fates={"ingest": fate}, until=gates)
        self.control.conductor.accept(ProcessRequest(id=name, url=str(source)))

    def submit_long(self) -> None:
        """Returns when its first step has begun."""
        self.submit(LONG, gate=self.gate)
        assert until(lambda: self.begun() == 1)

    def begun(self) -> int:
        """How often the long step was begun."""
        return read_diary(self.root / f"{LONG}.toy").count(("start", "ingest"))

    def long_step(self) -> Step:
        job = self.control.store.job(LONG)
        assert job is not None
        return job.steps["ingest"]

    def ended(self, name: str) -> bool:
        job = self.control.store.job(name)
        return job is not None and job.status.ended

    def events(self, name: str) -> list[Event]:
        events = (Event.model_validate_json(fields[b"ce"]) for _, fields in self.redis.xrange(STREAM))
        return [event for event in events if event.name == name]

    def begun_by(self, worker: subprocess.Popen[bytes]) -> list[str]:
        """Jobs whose steps this process began."""
        return [
            str(event.correlationid)
            for event in self.events("step.started")
            if f"-{worker.pid}-" in event.data["worker"]
        ]

    def close(self) -> None:
        self.gate.touch()
        end(*self._workers, grace_s=10)
        self.redis.close()

    def _listeners(self) -> int:
        return int(self.redis.pubsub_numsub("reelway:wake")[0][1])


@pytest.fixture
def fleet(redis_server: RedisServer, tmp_path: Path) -> Iterator[Fleet]:
    with contextlib.closing(Fleet(redis_server, tmp_path)) as made:
        yield made


def test_a_draining_worker_takes_nothing_and_finishes_what_it_does(fleet: Fleet) -> None:
    ending = fleet.worker(grace_s=60)
    fleet.submit_long()
    fleet.worker(grace_s=60)
    jobs = [f"job-{number}" for number in range(20)]

    ending.terminate()
    for job in jobs:
        fleet.submit(job, "refuse")
    assert until(lambda: fleet.ended(jobs[0]))
    fleet.gate.touch()  # its slot is free now, and most of the jobs wait still

    assert ending.wait(20) == 0
    assert until(lambda: all(map(fleet.ended, [*jobs, LONG])), 60)
    assert fleet.begun_by(ending) == [LONG]
    assert (fleet.begun(), fleet.long_step().attempt) == (1, 1)


def test_what_outlasts_the_grace_is_begun_elsewhere_and_nothing_is_counted_against_it(fleet: Fleet) -> None:
    ending = fleet.worker(grace_s=0.5)
    fleet.submit_long()
    fleet.worker(grace_s=60)

    ending.terminate()
    assert ending.wait(20) == 0
    assert until(lambda: fleet.begun() == 2)
    fleet.gate.touch()

    assert until(lambda: fleet.ended(LONG))
    step = fleet.long_step()
    assert (step.attempt, step.losses, step.retries, step.suspicions) == (2, 0, 0, 0)
    assert fleet.events("step.retrying") == []


def test_housekeeping_that_hangs_keeps_no_step_from_going_back(fleet: Fleet) -> None:
    ending = fleet.worker(grace_s=0.5, stuck=True)
    fleet.submit_long()

    ending.terminate()

    assert ending.wait(20) == 0
    step = fleet.long_step()
    assert (step.status, step.attempt, step.losses, step.retries) == (Status.READY, 1, 0, 0)
