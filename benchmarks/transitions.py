"""What the queue costs: `python -m benchmarks.transitions [--steps 300] [--workers 100] [--seconds 10]`.

Three figures, each on a real redis-server with its append-only file, all in one run:

- a job of 300 steps that 100 workers (threads of several processes) begin and finish at the same moment: how long one
  transition takes, from the read of the record to the answer of the commit (budget: p99 ≤ 0.25 s); none may be lost;
- how soon an idle fleet begins what was released: from the event of the last need to the event of the begin, by the
  clock of Redis (budget: p50 ≤ 50 ms);
- what an idle worker process says to Redis in a second, beside a stock dramatiq worker with as many queues (budget: not
  more). Commands that a script runs count as commands.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import dramatiq

from pipeline.conductor import Answer, Attempt, Conductor
from pipeline.job import Commit, Job, Ref, Status, Step
from pipeline.memory import SystemClock
from pipeline.profile import load_profiles
from pipeline.requests import JobRequest, ProcessRequest
from pipeline.stages import STAGES
from pipeline.tasks import Blueprint, IngestFacts, MediaInfo, Timeline, VideoStream
from workers.dispatcher import Dispatcher
from workers.embedded import EmbeddedRedis, end, leashed
from workers.redis_client import connect
from workers.redis_jobs import RedisJobStore
from workers.sweeper import Sweeper
from workers.switchboard import SLOT, Switchboard
from workers.tickets import RedisTickets, Slots, TicketBroker
from workers.wiring import broker_url

PROFILES = Path(__file__).parents[1] / "config" / "profiles"
PROCESSES = 4
ROUNDS = 40
"""Needs that are settled one after the other to see how soon somebody begins."""
PAUSE_S = 0.3
"""Between them: the fleet is idle again."""
WAIT_S = 60.0
_CONTEXT = multiprocessing.get_context("spawn")


class Toy:
    """A planner: parts that may begin at once, and a package that needs them all; or pairs of a need and a follower."""

    def __init__(self, parts: int, *, pairs: bool = False) -> None:
        self.parts = parts
        self.pairs = pairs

    def first_steps(self, request: JobRequest) -> tuple[Step, ...]:
        names = [f"transcode-{n:04d}" for n in range(self.parts)]
        args = {"first": 120, "last": 128, "rungs": ["240p", "360p", "540p", "720p", "1080p"]}
        parts = [Step(id=name, stage="transcode", args=args) for name in names]
        if self.pairs:
            return (*parts, *(Step(id=f"next-{name}", stage="package", needs=(name,)) for name in names))
        return (*parts, Step(id="package", stage="package", needs=tuple(names)))

    def grow(self, job: Job, facts: IngestFacts) -> tuple[Blueprint, tuple[Step, ...]]:
        raise NotImplementedError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the idle traffic is counted")
    parser.add_argument("--only", choices=("crowd", "wake", "idle"), default=None)
    options = parser.parse_args()
    if options.only in (None, "crowd"):
        with EmbeddedRedis() as server:
            crowd(server.url(), options.steps, options.workers)
    if options.only in (None, "wake"):
        with EmbeddedRedis() as server:
            wake(server.url())
    if options.only in (None, "idle"):
        idle(options.seconds)


def _conductor(url: str, toy: Toy) -> Conductor:
    return Conductor(RedisJobStore(connect(url)), SystemClock(), toy, load_profiles(PROFILES))


def _accept(conductor: Conductor, job: str) -> None:
    """A job whose record is as large as a real one's; what needs nothing may begin."""
    store = conductor.store
    conductor.accept(ProcessRequest(id=job, url="/videos/a-title.mp4"))
    known = store.job(job)
    assert known is not None
    waiting = [replace(step, status=Status.WAITING) for step in known.steps.values() if step.needs]
    video = VideoStream(
        index=0, codec="h264", width=1920, height=1080, rate=Fraction(25), frames=90_000, start=Fraction(0),
        end=Fraction(3600),
    )  # fmt: skip
    media = MediaInfo(format="mov", size=1 << 30, duration=Fraction(3600), start=Fraction(0), video=video, audio=())
    drawn = Blueprint(media=media, timeline=Timeline(rate=Fraction(25), frames=90_000))
    changed = Commit(
        job=job,
        asset=known.asset,
        header=replace(known, blueprint=drawn),
        steps={step.id: step for step in waiting},
        due=dict.fromkeys((step.id for step in waiting), 600.0),
    )
    assert store.commit(changed).applied


# -- many workers on one job ------------------------------------------------------------------------------------------


def crowd(url: str, steps: int, workers: int) -> None:
    """Begin and finish together, wave after wave, until no step is left."""
    conductor = _conductor(url, Toy(steps))
    _accept(conductor, "job")
    for wave in range(0, steps, workers):
        refs = list(conductor.store.take({"transcode": min(workers, steps - wave)}))
        before = _redis_cpu(url)
        begins, ends, cpu = _together(url, steps, refs)
        ours, redis = (1000 * seconds / (2 * len(refs)) for seconds in (cpu, _redis_cpu(url) - before))
        print(f"{len(refs)} workers at once: begin {_spread(begins)}, finish {_spread(ends)}", end="")
        print(f"; CPU of a transition: {ours:.1f} ms of the worker, {redis:.1f} ms of Redis")
    job = conductor.store.job("job")
    assert job is not None
    done = sum(step.status is Status.SUCCEEDED for step in job.steps.values())
    released = [str(ref) for ref in conductor.store.take({"package": 9})]
    events = [json.loads(fields[b"ce"]) for _, fields in _raw(url).xrange("reelway:events")]
    sequences = [int(event["sequence"]) for event in events]
    assert sequences == list(range(1, len(events) + 1)), "gaps"
    print(f"{done} of {steps} steps finished, {len(events)} events in sequence; released: {released}")


def _together(url: str, steps: int, refs: Sequence[Ref]) -> tuple[list[float], list[float], float]:
    """Seconds of every begin, of every finish, and of the processors in all."""
    shares = [list(refs[n::PROCESSES]) for n in range(PROCESSES)]
    barrier = _CONTEXT.Barrier(len(refs))
    answers: Any = _CONTEXT.Queue()
    processes = [_CONTEXT.Process(target=_workers, args=(url, steps, share, barrier, answers)) for share in shares]
    for process in processes:
        process.start()
    found = [answers.get(timeout=WAIT_S) for _ in processes]
    for process in processes:
        process.join(WAIT_S)
    begins, ends = ([seconds for each in found for seconds in each[n]] for n in (0, 1))
    return begins, ends, sum(each[2] for each in found)


def _workers(url: str, steps: int, refs: Sequence[Ref], barrier: Any, answers: Any) -> None:
    """So many workers in one process."""
    conductor = _conductor(url, Toy(steps))
    conductor.store.job("job")

    def work(ref: Ref) -> tuple[float, float]:
        barrier.wait(WAIT_S)
        began, attempt = _timed(lambda: conductor.begin(ref, "w"))
        barrier.wait(WAIT_S)
        ended, finished = _timed(lambda: attempt is not None and conductor.finish(attempt, Answer(facts={"bytes": 1})))
        assert finished, f"{ref} was lost"
        return began, ended

    cpu = time.process_time()
    with ThreadPoolExecutor(len(refs)) as pool:
        seconds = list(pool.map(work, refs))
    cpu = time.process_time() - cpu
    answers.put(([began for began, _ in seconds], [ended for _, ended in seconds], cpu))


def _redis_cpu(url: str) -> float:
    used = _raw(url).info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = call()
    return time.perf_counter() - start, answer


def _spread(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    return f"p50 {statistics.median(ordered) * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms"


# -- an idle fleet wakes up -------------------------------------------------------------------------------------------


def wake(url: str) -> None:
    """Finish one need after the other, each while everybody rests."""
    conductor = _conductor(url, Toy(ROUNDS, pairs=True))
    _accept(conductor, "job")
    started = _CONTEXT.Barrier(3)
    fleet = [_CONTEXT.Process(target=_idle_worker, args=(url, started), daemon=True) for _ in range(2)]
    for process in fleet:
        process.start()
    refs = conductor.store.take({"transcode": ROUNDS})
    started.wait(WAIT_S)
    time.sleep(2.0)  # so that they rest
    for ref in refs:
        attempt = conductor.begin(ref, "by hand")
        time.sleep(PAUSE_S)
        assert attempt is not None
        assert conductor.finish(attempt, Answer())
    _wait(lambda: len(_begun(url)) == len(refs))
    for process in fleet:
        process.terminate()
        process.join(WAIT_S)
    print(f"settled to begun on an idle fleet of 2: {_spread([began - at for at, began in _begun(url).values()])}")


def _begun(url: str) -> Mapping[str, tuple[float, float]]:
    """By follower: when its need was settled, and when it began, in seconds of Redis's clock."""
    settled: dict[str, float] = {}
    found: dict[str, tuple[float, float]] = {}
    for entry, fields in _raw(url).xrange("reelway:events"):
        event = json.loads(fields[b"ce"])
        at, step = int(entry.partition(b"-")[0]) / 1000, event["data"].get("step", "")
        if ".step.finished." in event["type"]:
            settled[step] = at
        elif ".step.started." in event["type"] and step.startswith("next-"):
            found[step] = (settled[step.removeprefix("next-")], at)
    return found


def _idle_worker(url: str, started: Any) -> None:
    """What a worker process has of threads around its one slot; its steps are done when they are begun."""
    conductor = _conductor(url, Toy(ROUNDS, pairs=True))
    switchboard = Switchboard(connect(url))
    slots = Slots(1, freed=lambda: switchboard.ring(SLOT))
    broker = TicketBroker(broker_url(url), slots=slots, switchboard=switchboard)

    def perform(stage: str, job: str, step: str) -> None:
        attempt: Attempt | None = conductor.begin(Ref(job=job, step=step), f"worker-{os.getpid()}")
        if attempt is not None:
            conductor.finish(attempt, Answer())

    stages = [stage for stage in STAGES if stage != "transcode"]
    for stage in stages:
        dramatiq.actor(actor_name=stage, queue_name=stage, broker=broker)(partial(perform, stage))
    switchboard.start()
    Dispatcher(conductor.store, RedisTickets(broker, switchboard), switchboard, dict.fromkeys(stages, 1)).start()
    Sweeper(conductor, switchboard, lambda job: None).start()
    dramatiq.Worker(broker, worker_timeout=100, worker_threads=1).start()  # type: ignore[no-untyped-call]
    assert switchboard.connected.wait(WAIT_S)
    started.wait(WAIT_S)
    threading.Event().wait()


# -- an idle worker ---------------------------------------------------------------------------------------------------


def idle(seconds: float) -> None:
    """Our worker process and a stock one, each alone with a Redis of its own."""
    for name, command in (("reelway", [sys.executable, "-m", "workers.main"]), ("stock dramatiq", _stock())):
        with EmbeddedRedis() as server, _running(command, server.url()):
            time.sleep(10.0)  # so that it has started, and rests
            before = _commands(server.url())
            time.sleep(seconds)
            after = _commands(server.url())
        counts = {word: count - before.get(word, 0) for word, count in after.items()}
        rates = {word: count / seconds for word, count in counts.items() if count and word != "info"}
        most = ", ".join(f"{word} {rate:.1f}" for word, rate in sorted(rates.items(), key=lambda item: -item[1])[:6])
        print(f"idle {name} with {len(STAGES)} queues: {sum(rates.values()):.1f} commands a second ({most})")


def _stock() -> list[str]:
    return [sys.executable, "-m", "benchmarks.transitions", "stock"]


def stock(url: str) -> None:
    """A dramatiq worker as it comes, with an actor for each of our stages."""
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=url)  # type: ignore[no-untyped-call]
    for stage in STAGES:
        dramatiq.actor(actor_name=stage, queue_name=stage, broker=broker)(lambda: None)
    dramatiq.Worker(broker, worker_threads=1).start()  # type: ignore[no-untyped-call]
    threading.Event().wait()


@contextlib.contextmanager
def _running(command: Sequence[str], url: str) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("REELWAY_")},
            "REELWAY_REDIS_URL": url,
            "REELWAY_STORAGE_URL": f"file://{folder}",
            "REELWAY_SCRATCH_DIR": folder,
            "REELWAY_METRICS_PORT": "0",
        }
        process = leashed(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            yield
            assert process.poll() is None, "the worker has ended"
        finally:
            end(process, grace_s=10.0)


def _commands(url: str) -> dict[str, int]:
    """How often each command was run so far."""
    return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in _raw(url).info("commandstats").items()}


def _raw(url: str) -> Any:
    return connect(url)


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


if __name__ == "__main__":
    if sys.argv[1:] == ["stock"]:
        stock(os.environ["REELWAY_REDIS_URL"])
    else:
        main()
