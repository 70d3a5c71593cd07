"""One worker process, from its start to its end.

It takes tickets of its stages, one step a slot; its dispatcher, sweeper and intake do their share for the whole fleet.
SIGTERM stops taking at once, lets what runs finish within the grace time, and hands the rest back unharmed.
"""

from __future__ import annotations

import os
import socket
import threading
from importlib.metadata import version

import structlog
from dramatiq import Worker

from pipeline.doorman import Doorman
from pipeline.job import Job
from pipeline.memory import SystemClock
from pipeline.sandbox import Nursery
from pipeline.tidy import tidy_after
from pipeline.workbench import Workbench
from workers import actors, metrics
from workers.dispatcher import Dispatcher
from workers.drain import Remainder
from workers.intake import Intake
from workers.keeper import Keeper, chores
from workers.machine import Machine
from workers.promises import Promises
from workers.redis_client import connect
from workers.registry import Presence, WorkerRecord
from workers.room import Reserve, Room
from workers.settings import Settings
from workers.sweeper import Sweeper
from workers.switchboard import SLOT, Switchboard
from workers.tickets import RedisTickets, Slots, TicketBroker
from workers.wiring import (
    Control,
    bench_limits,
    broker_url,
    control,
    source_buckets,
    speech_model,
    worker_name,
)

log = structlog.get_logger("reelway.worker")

IDLE_MS = 100
"""How soon dramatiq's threads notice that they shall stop; Redis is asked by the consumer's own, slower clock."""
LOOK_S = 1.0
"""How often a worker that ends by itself looks whether anything is left."""
LOOKS = 3
"""… and how often in a row it must have seen nothing: between two steps of a job there may be a moment without any."""


class WorkerProcess:
    """A worker, from its start to its end."""

    def __init__(self, settings: Settings, nursery: Nursery) -> None:
        self.settings = settings
        self.name = worker_name()
        self.control: Control = control(settings)
        self.nursery = nursery
        self.started_ms = SystemClock().now_ms()
        self.bench = self._bench()
        self.switchboard = Switchboard(self.control.redis, ended=self._ended)
        self.slots = Slots(settings.slots, freed=lambda: self.switchboard.ring(SLOT))
        self.broker = TicketBroker(broker_url(settings.redis_url), slots=self.slots, switchboard=self.switchboard)
        self.metrics = metrics.WorkerMetrics(settings.stage_names)
        self._stopping = threading.Event()
        self._hurry = threading.Event()
        self.room = self._room() if settings.admission else None
        self.tickets = RedisTickets(self.broker, self.switchboard)
        self._declare_actors()
        self.dispatcher = Dispatcher(
            self.control.store,
            self.tickets,
            self.switchboard,
            dict.fromkeys(settings.stage_names, settings.slots),
            self.control.organizations.quotas,
        )
        self.doorman = Doorman(
            self.control.conductor,
            self.control.storage,
            self.control.organizations,
            fleet_size=self.control.fleet_size,
            limits=settings.source_limits,
        )
        self.sweeper = Sweeper(self.control.conductor, self.switchboard, self._tidy, self.doorman.expire)
        self.presence = Presence(self.control.registry, self._describe)
        self.worker = Worker(self.broker, worker_timeout=IDLE_MS, worker_threads=settings.slots)
        self.intake = self._intake() if settings.intake else None
        self.keeper = self._keeper() if settings.housekeeping else None

    def run(self) -> None:
        """Work until `stop` is called (or, where the settings say so, until nothing is left), then drain.

        Raises `storage_differs`.
        """
        self.control.registry.check_storage(self.settings.storage_url)
        if self.settings.metrics_port:
            metrics.serve(self.settings.metrics_port)
        self.switchboard.start()
        self.presence.start()
        self.dispatcher.start()
        self.sweeper.start()
        self.worker.start()
        if self.intake is not None:
            self.intake.start()
        if self.keeper is not None:
            self.keeper.start()
        log.info("worker started", action="worker.started", worker=self.name, stages=list(self.settings.stage_names))
        self._wait()
        self._drain()

    def stop(self) -> None:
        """Take nothing more, let what runs finish within the grace time. Called again: hand it back at once."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    def _wait(self) -> None:
        if not self.settings.drain:
            self._stopping.wait()
            return
        remainder = Remainder(self.control.store, self.settings.stage_names, requests=self.settings.intake)
        idle = 0
        while idle < LOOKS and not self._stopping.wait(LOOK_S):
            idle = idle + 1 if not self.slots.held and remainder.none() else 0
        if idle:
            log.info("nothing is left", action="worker.done", worker=self.name)

    def _drain(self) -> None:
        """In this order: take nothing new (no ticket, no step, no request), let the running steps end, hand back the
        rest, end the nursery. What else the worker does for the fleet may hang: nothing here waits for it for long.

        The connections are left to the end of the process: nothing waits in them.
        """
        log.info("worker draining", action="worker.draining", worker=self.name)
        self._stopping.set()
        self.slots.close()
        self.dispatcher.stop()
        if self.intake is not None:
            self.intake.stop()
        if self.keeper is not None:
            self.keeper.stop()
        self.presence.changed()
        self._wait_for_steps(self.settings.grace_s)
        self.bench.hand_back_all()
        if not self.slots.idle:
            self.worker.stop(timeout=10_000)  # which waits for its threads to look up, even where nothing runs
        self.sweeper.stop()
        self.presence.stop()
        self.bench.close()
        log.info("worker stopped", action="worker.stopped", worker=self.name)

    def _wait_for_steps(self, seconds: float) -> None:
        waited = 0.0
        while self.slots.held and waited < seconds and not self._hurry.wait(0.1):
            waited += 0.1

    # -- what it is made of -------------------------------------------------------------------------------------------

    def _bench(self) -> Workbench:
        return Workbench(
            self.control.conductor,
            self.control.storage,
            self.control.progress,
            SystemClock(),
            self.nursery,
            limits=bench_limits(self.settings),
            speech=speech_model(self.settings),
        )

    def _room(self) -> Room:
        scratch = self.nursery.scratch
        return Room(
            Machine(scratch=scratch),
            Promises(scratch),
            self.control.registry,
            build=self.nursery.build,
            reserve=Reserve(memory=self.settings.memory_reserve_bytes, scratch=self.settings.scratch_reserve_bytes),
            speech=speech_model(self.settings),
            encoder_patience_s=self.settings.encoder_patience_s,
            pause=self._stopping.wait,
        )

    def _intake(self) -> Intake:
        # A connection of its own: it waits on the stream.
        return Intake(
            connect(self.settings.redis_url),
            self.doorman,
            self.control.conductor,
            rules=self.control.organizations.sources,
            allow=source_buckets(self.settings).allow,
        )

    def _keeper(self) -> Keeper:
        done = chores(
            self.control.store,
            self.control.storage,
            SystemClock(),
            keep_events_s=self.settings.event_days * 86_400,
        )
        return Keeper(self.control.redis, self.name, done)

    def _declare_actors(self) -> None:
        perform = actors.performer(
            self.control.conductor,
            self.bench,
            self.metrics,
            self.name,
            on_stop=self.switchboard.on_stop,
            room=self.room,
            others=actors.Others(self.control.store, self.tickets, self._stopping.wait),
        )
        actors.declare(self.broker, perform, self.settings.stage_names)

    def _describe(self) -> WorkerRecord:
        most = self.room.most if self.room else None
        return WorkerRecord(
            name=self.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            stages=self.settings.stage_names,
            slots=self.settings.slots,
            build=self.nursery.build(),
            version=version("reelway"),
            storage_url=self.settings.storage_url,
            public_base_url=self.settings.public_base_url,
            started_ms=self.started_ms,
            draining=self._stopping.is_set(),
            memory_bytes=most.memory if most else None,
            scratch_bytes=most.scratch if most else None,
            refused=self.room.refused if self.room else {},
        )

    def _ended(self, job_id: str) -> bool:
        job = self.control.store.job(job_id)
        return job is None or job.status.ended

    def _tidy(self, job: Job) -> None:
        tidy_after(self.control.store, self.control.storage, job)
