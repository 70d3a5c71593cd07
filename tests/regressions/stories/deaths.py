"""Workers die, or seem to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from unittest.mock import patch

from redis_server import LossyProxy

from regressions.world import Seen, World, clocks, until

HURRY = 25
"""What takes a minute in production takes so much less here, in both worlds."""
LEASE_S = 15.0


@contextlib.contextmanager
def short_leases() -> Iterator[None]:
    with (
        patch("pipeline.conductor.LEASE_S", LEASE_S / HURRY),
        patch("pipeline.watch.LEASE_S", LEASE_S / HURRY),
    ):
        yield


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """Leases are judged at once, also on a Redis that nobody has asked yet."""
    with patch("workers.redis_jobs.GRACE_S", 0.0), patch("workers.sweeper.LOOK_S", 0.1):
        yield


def killed_worker(world: World) -> Seen:
    """A worker is killed: what it held comes back after a minute (here 25 times faster), and then only by lottery."""
    with short_leases(), impatient():
        world.submit("a")
        world.die_at_work()
        with world.worker() as worker:
            worker.broker.heartbeat_timeout //= HURRY
            until(lambda: world.starts("a") == 2, world.patience(1.5 * LEASE_S / HURRY))
            return {"begun again by then": world.starts("a") == 2}


def killed_worker_and_a_busy_one(world: World) -> Seen:
    """A worker is killed while the others are busy: who is full fetches nothing, and so never looks for the dead."""
    gate = world.gate()
    world.acts["long"] = world.wait_at(gate)
    with short_leases(), impatient(), patch("dramatiq.worker.QUEUE_PREFETCH", 1), world.worker() as worker:
        worker.hurry(heartbeat_s=0.05)
        world.submit("long")
        assert until(lambda: world.starts("long") == 1)
        world.submit("a")
        world.die_at_work()
        worker.rest()
        until(lambda: world.waiting() > 0, world.patience(0.0))
        return {"put back": world.waiting() > 0}


def poison(world: World) -> Seen:
    """A file kills its worker: delivered again and again, and no death is counted."""
    deaths = 6
    with short_leases(), impatient():
        world.submit("a")
        while deaths and world.die_at_work():
            world.find_the_dead()
            deaths -= 1
        return {"workers killed": world.starts("a"), "ended": world.over("a")}


def zombie(world: World) -> Seen:
    """A worker is cut off, given up and comes back while another one does its job: what it made counts as well."""
    first, second, proxy = world.gate(), world.gate(), LossyProxy(world.server)
    turns = iter([first])

    def act(check: Callable[[], None]) -> None:
        world.wait_at(next(turns, second))(check)

    world.acts["a"] = act
    with impatient(), world.worker(url=proxy.database, timeout_s=0.2), contextlib.ExitStack() as silence:
        with short_leases():
            world.submit("a")
            assert until(lambda: world.starts("a") == 1)
            silence.enter_context(proxy.stalled())
        with world.worker() as other:
            other.hurry(heartbeat_s=0.5)
            assert until(lambda: world.starts("a") == 2)
            first.set()
            assert until(lambda: world.diary.count("end", "a") == 1)
            silence.close()
            assert until(lambda: world.diary.count("over", "a") == 1)
            by_the_zombie = world.diary.count("effect", "a")
            second.set()
            assert until(lambda: world.diary.count("over", "a") == 2)
    proxy.close()
    return {"effects by the zombie": by_the_zombie, "in all": world.diary.count("effect", "a")}


def starved_heart(world: World) -> Seen:
    """A worker that is full and holds a retry never fetches, so it seems dead: its job is begun beside it."""
    gate = world.gate()
    world.acts["long"] = world.wait_at(gate)
    world.fail_once("retried")
    with (
        patch("dramatiq.worker.QUEUE_PREFETCH", 1),
        patch("dramatiq.worker.DELAY_QUEUE_PREFETCH", 1),
        patch("workers.tickets.HEARTBEAT_TIMEOUT_MS", 600),
        patch("regressions.stock.RETRY_MS", 60_000),
        patch("pipeline.conductor.backoff_s", lambda *_: 60.0),
        world.worker() as worker,
    ):
        world.submit("retried")
        assert until(lambda: world.diary.count("over", "retried") == 1 and worker.waits_with_retry())
        world.submit("long")
        assert until(lambda: world.starts("long") == 1)
        with world.worker() as other:
            other.hurry(heartbeat_s=0.6)
            until(lambda: world.starts("long") > 1, world.patience(2.0, bad=True))
            return {"begun beside itself": world.starts("long") > 1}


def clock_ahead(world: World) -> Seen:
    """A worker's clock is 90 s ahead: to it everybody is dead, and it takes what others are doing."""
    gate = world.gate()
    world.acts["a"] = world.wait_at(gate)
    with clocks(), world.worker():
        world.submit("a")
        assert until(lambda: world.starts("a") == 1)
        with world.worker() as ahead:
            ahead.skew(90)
            ahead.hurry()
            assert until(lambda: world.starts("a") > 1 or world.diary.count("refused", "a") > 0)
            return {"begun beside itself": world.starts("a") > 1}
