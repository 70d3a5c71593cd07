"""One run of chaos on our own fleet: real Redis, real S3, real worker processes, and the verdict."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from crew import REAL, TOY, Crew
from figures import Attempt, Figures, completed_twice, noticed, recoveries, robbed
from fleet import Callers, Listener, Order, all_events, environment, left_over, process_of, unsettled
from history import TERMINAL
from makers import make_clip
from redis_server import RedisServer
from s3_server import CREDENTIALS, S3Server
from storm import Faults, Storm
from toy_worker import Fate, write_source
from verdict import gather, judge, orphans

from pipeline.events import Event
from pipeline.requests import ProcessRequest
from pipeline.storage import open_storage
from workers.embedded import find_server
from workers.settings import Settings

Form = Literal["toy", "real"]


@dataclass(frozen=True, kw_only=True)
class Chaos:
    """What one run is."""

    form: Form
    assets: int
    faults: Faults
    seed: int
    folder: Path
    """For sources, logs and servers; logs stay there."""
    workers: int = 4
    pace_s: float = 1.5
    """Mean seconds between two faults."""
    timeout_s: float = 900.0
    """After that it has failed, with a report."""

    def run(self) -> Figures:
        with servers(self.folder) as (redis, s3):
            return _Run(chaos=self, redis=redis, s3=s3).live()


@contextmanager
def servers(folder: Path) -> Iterator[tuple[RedisServer, S3Server]]:
    """A Redis that keeps its append-only file, and an S3 server."""
    os.environ.update(CREDENTIALS)
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    (folder / "s3").mkdir(parents=True)
    redis = RedisServer(find_server(), appendonly=True)
    try:
        s3 = S3Server(folder / "s3")
        try:
            yield redis, s3
        finally:
            s3.kill()
    finally:
        redis.close()


@dataclass(kw_only=True)
class _Run:
    chaos: Chaos
    redis: RedisServer
    s3: S3Server
    crew: Crew = field(init=False)
    storm: Storm = field(init=False)
    callers: Callers = field(init=False)
    listener: Listener = field(init=False)

    def __post_init__(self) -> None:
        chaos = self.chaos
        (chaos.folder / "scratch").mkdir()
        settings = {
            "redis_url": self.redis.url(),
            "storage_url": self.s3.url("chaos"),
            "scratch_dir": chaos.folder / "scratch",
            "workers_hint": chaos.workers,
            "local_sources": "true",
            "grace_s": "10",
        }
        self.crew = Crew(
            command=TOY if chaos.form == "toy" else REAL,
            environment=environment(settings),
            size=chaos.workers,
            log=chaos.folder / "workers.log",
        )
        self.listener = Listener(self.redis.url())
        self.storm = Storm(
            faults=chaos.faults,
            seed=chaos.seed,
            crew=self.crew,
            busy=self.listener.busy,
            redis=self.redis,
            s3=self.s3,
            pace_s=chaos.pace_s,
        )
        self.callers = Callers(
            orders=orders(chaos), settings=Settings.read(**settings), may=self._may, seed=chaos.seed + 1
        )

    def live(self) -> Figures:
        began = time.time()
        self.listener.start()
        self.callers.start()
        try:
            self._until(self._over)
            with self.redis.client() as client:
                self._until(lambda: not unsettled(client))
            seconds = time.time() - began
            self.crew.close()
        finally:
            self.storm.calm()
            self.callers.stop()
            self.listener.stop()
            self.crew.close(grace_s=0)
        return self._figures(seconds)

    def _may(self, number: int) -> bool:
        """Work comes as long as the storm lasts: neither waits for the other at the end."""
        window = 3 * self.chaos.workers
        sent = window + self.chaos.assets * self.storm.passed
        return number < sent and number - len(self.listener.ended) < window

    def _over(self) -> bool:
        if self.callers.failure is not None:
            raise self.callers.failure
        listener, everything = self.listener, len(self.callers.orders)
        return self.storm.over and not self.callers.is_alive() and len(listener.ended) == everything

    def _until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.chaos.timeout_s
        while not happened():
            assert time.monotonic() < deadline, self._report()
            self.crew.tend()
            self.storm.blow()
            time.sleep(0.05)

    def _report(self) -> str:
        """What is to be known of a run that did not end."""
        self.storm.calm()
        with self.redis.client() as client:
            open_, last = unsettled(client), all_events(client)[-20:]
        return "\n".join(
            [
                f"seed {self.chaos.seed}: not over; {len(self.listener.ended)} of {len(self.callers.orders)} ended",
                f"unsettled: {open_[:20]}",
                f"storm left: {self.storm.deck}, awake {len(self.crew.awake)}, uninvited {self.crew.uninvited}",
                *(f"{event['time']} {event['subject']} {event['id']}" for event in last),
                f"workers' log: {self.crew.log}",
                *self.crew.log.read_text(errors="replace").splitlines()[-20:],
            ]
        )

    def _figures(self, seconds: float) -> Figures:
        with self.redis.client() as client:
            events, left = all_events(client), left_over(client)
        (self.chaos.folder / "events.jsonl").write_text("\n".join(map(_line, events)))
        storage = open_storage(self.s3.url("chaos"))
        evidence = gather(events, storage, self.callers.promised)
        findings = [str(finding) for finding in judge(evidence)]
        findings += [f"uninvited: {end}" for end in self.crew.uninvited]
        findings += [f"left in Redis: {each}" for each in left]
        findings += [*self._unmet(), *self._unexpected(evidence.told)]
        attempts = list(attempts_of(evidence.told))
        everything, calm = recoveries(self.storm.blows("kills"), attempts, self.storm.away)
        return Figures(
            form=self.chaos.form,
            seed=self.chaos.seed,
            assets=self.chaos.assets,
            ended=dict(Counter(event.name.removeprefix("asset.") for event in evidence.told if event.name in TERMINAL)),
            faults=dict(Counter(what for _, what, _ in self.storm.struck)),
            deliveries=self.crew.tickets.total(),
            refused=self.crew.tickets["refused"],
            attempts=len(attempts),
            lost_leases=sum(_lost(event) for event in evidence.told),
            robbed=robbed(self.storm.blows("zombies"), attempts),
            lost=sum(finding.startswith("lost:") for finding in findings),
            published_twice=sum(finding.startswith(("published twice:", "told twice:")) for finding in findings),
            repeated=completed_twice(attempts),
            noticed_s=noticed(self.storm.blows("kills"), attempts, self.storm.away),
            recoveries_s=everything,
            recoveries_calm_s=calm,
            seconds=round(seconds, 1),
            orphans=[str(orphan) for orphan in orphans(evidence)],
            findings=findings,
        )

    def _unmet(self) -> Iterator[str]:
        """What the run itself did not do: a storm that never came proves nothing."""
        struck = Counter(what for _, what, _ in self.storm.struck)
        for each in fields(self.chaos.faults):
            if struck[each.name] != getattr(self.chaos.faults, each.name):
                yield f"storm: {struck[each.name]} {each.name}"

    def _unexpected(self, told: Sequence[Event]) -> Iterator[str]:
        """An asset may fail because its source is broken or three workers were lost: nothing else befell it."""
        orders_ = {order.request.id: order for order in self.callers.orders}
        for event in told:
            code = (event.data.get("error") or {}).get("code")
            order = orders_.get(event.correlationid or "")
            if order is None:
                yield f"unexpected: {event.id} of nobody's request"
            elif event.name == "asset.failed" and code != "worker_lost" and code != order.fails_with:
                yield f"unexpected: {order.request.id} failed with {code}"
            elif event.name == "asset.ready" and order.fails_with:
                yield f"unexpected: {order.request.id} is ready, and its source is broken"
            elif event.name == "asset.cancelled" and not order.regretted:
                yield f"unexpected: {order.request.id} was cancelled, and nobody asked"


def orders(chaos: Chaos) -> list[Order]:
    """The requests of a run: some are sent again and again, some are cancelled soon after."""
    luck = random.Random(chaos.seed + 2)
    (chaos.folder / "sources").mkdir()
    sources = _toy_sources(chaos, luck) if chaos.form == "toy" else _real_sources(chaos)
    return [
        Order(
            request=ProcessRequest(
                id=f"job-{number}",
                asset_id=f"chaos{number:06d}",
                url=str(source),
                profile="fast",
                resolutions=("240p", "360p"),
                generate_subtitle=chaos.form == "toy" and luck.random() < 0.5,
            ),
            again=luck.random() < 0.15,
            regretted=luck.random() < 0.05,
            fails_with=fails_with,
        )
        for number, (source, fails_with) in enumerate(sources)
    ]


FATES: Sequence[Mapping[str, Fate]] = (
    *({},) * 44,
    {"ingest": "refuse"},
    {"transcode": "refuse"},
    {"audio": "full"},
    {"transcode": "full"},
    {"subtitle": "full"},
    {"subtitle": "refuse"},
)
"""What befalls a toy source; a `full` disk has room again when the step is tried for the second time."""


def _toy_sources(chaos: Chaos, luck: random.Random) -> Iterator[tuple[Path, str | None]]:
    """Sources, each with the code with which it fails its asset."""
    for number in range(chaos.assets):
        fates = luck.choice(FATES)
        source = write_source(
            chaos.folder / "sources" / f"{number}.toy",
            seconds=luck.choice((4, 8, 12)),
            work_s={"ingest": 0.3, "transcode": luck.choice((0.4, 0.8, 1.2, 4.0)), "audio": 0.6, "subtitle": 0.5},
            fates=fates,
            times=1 if "full" in fates.values() else 10**9,
            speaks=True,
        )
        broken = any(fate == "refuse" and stage != "subtitle" for stage, fate in fates.items())
        yield source, "video_file_broken" if broken else None


def _real_sources(chaos: Chaos) -> Iterator[tuple[Path, None]]:
    """Four clips in turn: what is made of the same clip must be the same, byte for byte."""
    clips = [
        make_clip(chaos.folder / "sources" / f"{number}.mp4", seconds=seconds, rate=rate, size=(640, 360))
        for number, (seconds, rate) in enumerate(((4, 25), (5, 30), (6, 24), (8, 25)))
    ]
    yield from ((clips[number % len(clips)], None) for number in range(chaos.assets))


def attempts_of(told: Sequence[Event]) -> Iterator[Attempt]:
    """Every attempt that the log tells of."""
    ends: dict[tuple[str, str, int], Event] = {}
    losses: dict[tuple[str, str, int], Event] = {}
    for event in told:
        if _lost(event):
            losses[_attempt(event)] = event
        if event.name in ("step.finished", "step.failed", "step.retrying") and not _lost(event):
            ends[_attempt(event)] = event
    for event in told:
        if event.name == "step.started":
            end, loss = ends.get(_attempt(event)), losses.get(_attempt(event))
            yield Attempt(
                step=f"{event.data['job']}/{event.data['step']}",
                process=process_of(event.data["worker"]),
                begun=event.time.timestamp(),
                ended=end.time.timestamp() if end else None,
                missed=loss.time.timestamp() if loss else None,
                finished=end is not None and end.name == "step.finished",
            )


def _attempt(event: Event) -> tuple[str, str, int]:
    return event.data["job"], event.data["step"], event.data["attempt"]


def _lost(event: Event) -> bool:
    return event.name.startswith("step.") and (event.data.get("error") or {}).get("code") == "worker_lost"


def _line(event: Mapping[str, object]) -> str:
    return json.dumps(event, separators=(",", ":"))
