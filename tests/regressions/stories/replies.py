"""Replies and connections are lost, and messages cannot be read."""

from __future__ import annotations

from redis_server import LossyProxy

from regressions.world import Seen, World, until


def lost_reply_of_enqueue(world: World) -> Seen:
    """A job is sent, and the reply is lost: sent again, by the sender or its client, it is done twice."""
    world.submit("warm-up")  # the server knows the scripts now: the first command of their kind is refused
    gate, proxy = world.gate(), LossyProxy(world.server)
    unlucky = set(world.enqueuing)

    def lose(request: bytes) -> bool:
        found = {mark for mark in unlucky if mark in request}
        unlucky.difference_update(found)
        return bool(found)

    proxy.lose = lose
    world.submit("a", url=proxy.database)
    assert proxy.lost == len(world.enqueuing)
    world.acts["a"] = world.wait_at(gate)
    with world.worker(threads=3) as worker:
        assert until(lambda: world.starts("a") > 1 or world.diary.count("refused", "a") > 0)
        gate.set()
        assert until(lambda: world.over("a") and world.waiting() == worker.held() == 0)
    proxy.close()
    return {"times done": world.diary.count("end", "a")}


def lost_reply_of_fetch(world: World) -> Seen:
    """A job is fetched, and the reply is lost: it belongs to a worker that lives and knows nothing of it."""
    world.submit("a")
    proxy = LossyProxy(world.server)
    proxy.lose = lambda request: not proxy.lost and all(mark in request for mark in world.fetching)
    with world.worker(url=proxy.database) as worker:
        assert until(lambda: proxy.lost == 1)
        world.submit("b")
        assert until(lambda: bool(world.diary.count("end", "b")))
        worker.rest()
        until(lambda: world.starts("a") == 1, world.patience(0.0))
        seen = {"done": bool(world.starts("a"))}
    proxy.close()
    return seen


def fetched_twice_over(world: World) -> Seen:
    """A connection breaks: the new consumer counts from nought, and fetches all over again on top of what it holds."""
    gate, proxy = world.gate(), LossyProxy(world.server)
    names = [f"job-{number}" for number in range(20)]
    world.acts.update(dict.fromkeys(names, world.wait_at(gate)))
    with world.worker(threads=2, url=proxy.database) as worker:
        for name in names[:3]:
            world.submit(name)
        assert until(lambda: world.diary.count("start") == 2)
        worker.rest()
        proxy.lose = lambda request: not proxy.lost and all(mark in request for mark in world.fetching)
        worker.rest()
        for name in names[3:]:
            world.submit(name)
        worker.rest(5)
        seen = {"threads": 2, "held": worker.held()}
    proxy.close()
    return seen


def trash_in_the_queue(world: World) -> Seen:
    """One message cannot be read: what was fetched together with it is stranded."""
    names = [f"job-{number}" for number in range(6)]
    world.submit(names[0])
    world.trash()
    for name in names[1:]:
        world.submit(name)
    with world.worker(threads=8) as worker:
        assert until(lambda: world.waiting() == 0)
        worker.rest()
        until(lambda: world.diary.count("end") == 6, world.patience(0.0))
        return {"sent": len(names), "done": world.diary.count("end")}
