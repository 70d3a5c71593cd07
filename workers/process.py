"""One worker process, from its start to its end.

It takes tickets of its stages, one step a slot; its dispatcher and sweeper do their share for the whole fleet. SIGTERM
stops taking at once, lets what runs finish within the grace time, and hands the rest back unharmed.
"""

from __future__ import annotations

import threading

import structlog
from dramatiq import Worker

from pipeline.job import Job
from pipeline.memory import SystemClock
from pipeline.sandbox import Nursery
from pipeline.tidy import tidy
from pipeline.workbench import BenchLimits, Workbench
from workers import actors, metrics
from workers.dispatcher import Dispatcher
from workers.settings import Settings
from workers.sweeper import Sweeper
from workers.switchboard import SLOT, Switchboard
from workers.tickets import RedisTickets, Slots, TicketBroker
from workers.wiring import Control, broker_url, child_limits, control, speech_model, worker_name

log = structlog.get_logger("reelway.worker")

SLOTS = 1
"""Steps at once: an encoder a core is what uses a machine best, so a machine runs a process a core."""
IDLE_MS = 100
"""How soon dramatiq's threads notice that they shall stop; Redis is asked by the consumer's own, slower clock."""


class WorkerProcess:
    """A worker, from its start to its end."""

    def __init__(self, settings: Settings, nursery: Nursery) -> None:
        self.settings = settings
        self.name = worker_name()
        self.control: Control = control(settings)
        clock = SystemClock()
        self.bench = Workbench(
            self.control.conductor,
            self.control.storage,
            self.control.progress,
            clock,
            nursery,
            limits=BenchLimits(
                child=child_limits(settings), wall_s=settings.wall_limit_s, local_sources=settings.local_sources
            ),
            speech=speech_model(settings),
        )
        self.switchboard = Switchboard(self.control.redis, ended=self._ended)
        self.slots = Slots(SLOTS, freed=lambda: self.switchboard.ring(SLOT))
        self.broker = TicketBroker(broker_url(settings.redis_url), slots=self.slots, switchboard=self.switchboard)
        self.metrics = metrics.WorkerMetrics(settings.stage_names)
        perform = actors.performer(
            self.control.conductor, self.bench, self.metrics, self.name, on_stop=self.switchboard.on_stop
        )
        actors.declare(self.broker, perform, settings.stage_names)
        self.dispatcher = Dispatcher(
            self.control.store,
            RedisTickets(self.broker, self.switchboard),
            self.switchboard,
            dict.fromkeys(settings.stage_names, SLOTS),
        )
        self.sweeper = Sweeper(self.control.conductor, self.switchboard, self._tidy)
        self.worker = Worker(self.broker, worker_timeout=IDLE_MS, worker_threads=SLOTS)
        self.stopping = threading.Event()

    def run(self) -> None:
        """Work until `stopping` is set, then drain."""
        if self.settings.metrics_port:
            metrics.serve(self.settings.metrics_port)
        self.switchboard.start()
        self.dispatcher.start()
        self.sweeper.start()
        self.worker.start()
        log.info("worker started", action="worker.started", worker=self.name, stages=list(self.settings.stage_names))
        self.stopping.wait()
        self._drain()

    def _drain(self) -> None:
        """In this order: take nothing new, let the running steps end, hand back the rest, end the nursery.

        The connections are left to the end of the process: nothing waits in them.
        """
        log.info("worker draining", action="worker.draining", worker=self.name)
        self.slots.close()
        self.dispatcher.stop()
        self._wait_for_steps(self.settings.grace_s)
        self.bench.hand_back_all()
        if not self.slots.idle:
            self.worker.stop(timeout=10_000)  # which waits for its threads to look up, even where nothing runs
        self.sweeper.stop()
        self.bench.close()
        log.info("worker stopped", action="worker.stopped", worker=self.name)

    def _wait_for_steps(self, seconds: float) -> None:
        done = threading.Event()
        waited = 0.0
        while self.slots.held and waited < seconds:
            done.wait(0.1)
            waited += 0.1

    def _ended(self, job_id: str) -> bool:
        job = self.control.store.job(job_id)
        return job is None or job.status.ended

    def _tidy(self, job: Job) -> None:
        record = self.control.store.asset(job.asset)
        tidy(self.control.storage, job, record.document if record else {})
