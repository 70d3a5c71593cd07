"""Redis is away, silent or full."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from redis_server import LossyProxy, RedisServer

from regressions.world import Process, Seen, World, until


def lost_retry(world: World) -> Seen:
    """A job fails while Redis is down: the message of its retry is never sent, and the job is acknowledged."""
    gate = world.gate()
    world.fail_once("a", gate)
    with world.worker() as worker:
        world.submit("a")
        assert until(lambda: world.starts("a") == 1)
        world.server.kill()
        gate.set()
        assert until(lambda: worker.stumbles > 0)
        world.server.start()
        assert until(lambda: world.over("a") or world.starts("a") == 2)
    return {"tries": world.starts("a"), "done": bool(world.diary.count("effect", "a"))}


def retry_held_through_a_restart(world: World) -> Seen:
    """Redis restarts while a failed job waits for its next try: what was held in memory is dropped, and stays taken."""
    with world.worker() as worker:
        _failed_once(world, worker)
        world.server.kill()
        assert until(lambda: worker.falls > 1)
        world.server.start()
        return _tried_again(world, worker)


def retry_held_through_a_stall(world: World) -> Seen:
    """Redis is silent while a failed job waits for its next try: the thread that holds it dies for good."""
    with world.worker(timeout_s=0.2) as worker:
        _failed_once(world, worker)
        with world.server.paused():
            assert until(lambda: worker.falls > 5)
        seen = _tried_again(world, worker)
        return {**seen, "all threads live": all(thread.is_alive() for thread in worker.worker.consumers.values())}


def _failed_once(world: World, worker: Process) -> None:
    """A job failed, and the worker has its retry (in ours it is in the record)."""
    world.fail_once("a")
    world.submit("a")
    assert until(lambda: world.diary.count("over", "a") == 1 and worker.waits_with_retry())


def _tried_again(world: World, worker: Process) -> Seen:
    assert until(lambda: world.starts("a") == 2 or world.retry_passed("a"))
    if world.starts("a") < 2:
        worker.rest()
        until(lambda: world.starts("a") == 2, world.patience(0.0))
    return {"tries": world.starts("a")}


def unacknowledged_in_a_stall(world: World) -> Seen:
    """Redis is silent when a job ends: it is never acknowledged, and done again after the next restart."""
    proxy = LossyProxy(world.server)
    with contextlib.closing(proxy):
        return _unacknowledged(world, lambda: _silent(proxy), url=proxy.database)


def unacknowledged_when_full(world: World) -> Seen:
    """Redis is full when a job ends: even the acknowledgement is refused, and the job is done again."""
    return _unacknowledged(world, lambda: _full(world.server), url=world.server.url)


@contextlib.contextmanager
def _silent(proxy: LossyProxy) -> Iterator[None]:
    """What was asked meanwhile is never heard: a paused server would still do it afterwards."""
    with proxy.stalled():
        yield
        proxy.cut()


@contextlib.contextmanager
def _full(server: RedisServer) -> Iterator[None]:
    with server.client() as client:
        client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)


def _unacknowledged(
    world: World, fault: Callable[[], contextlib.AbstractContextManager[None]], *, url: Callable[[int], str]
) -> Seen:
    gate = world.gate()
    world.acts["a"] = world.wait_at(gate)
    with world.worker(url=url, timeout_s=0.2) as worker:
        world.submit("a")
        assert until(lambda: world.starts("a") == 1)
        with fault():
            gate.set()
            assert until(lambda: worker.stumbles > 0)
        assert until(lambda: world.diary.count("over", "a") == 1)
        worker.rest()
    with world.worker() as worker:
        worker.hurry(heartbeat_s=0.001)
        worker.rest()
        assert until(lambda: world.over("a"))
    return {"times done": world.diary.count("end", "a")}


def kept_through_a_kill(world: World) -> Seen:
    """Redis is killed: with its own defaults it has forgotten what it accepted since its last snapshot."""
    names = [f"job-{number}" for number in range(50)]
    for name in names:
        world.submit(name)
    world.server.kill()
    world.server.start()
    return {"accepted": len(names), "kept": sum(not world.over(name) for name in names)}
