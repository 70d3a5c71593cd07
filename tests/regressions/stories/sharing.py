"""Who gets what, and when: several workers, several jobs."""

from __future__ import annotations

from regressions.world import Seen, World, until


def hoarded_by_a_drain(world: World) -> Seen:
    """A worker that was told to end goes on fetching while it finishes, though others are idle."""
    gate = world.gate()
    world.acts["long"] = world.wait_at(gate)
    names = [f"job-{number}" for number in range(20)]
    with world.worker(threads=8) as ending:
        world.submit("long")
        assert until(lambda: world.starts("long") == 1)
        ending.drain(grace_s=60)
        ending.rest(5)
        held = ending.taken
        for name in names:
            world.submit(name)
        ending.rest()
        with world.worker(threads=8) as idle:
            assert until(lambda: world.waiting() == 0 and idle.held() == 0)
            return {"sent": len(names), "taken by the one that ends": ending.taken - held}


def head_of_line(world: World) -> Seen:
    """A short job is fetched ahead by a worker that is busy with a long one, while another one idles."""
    gate = world.gate()
    world.acts["long"] = world.wait_at(gate)
    with world.worker() as busy:
        world.submit("long")
        assert until(lambda: world.starts("long") == 1)
        world.submit("short")
        busy.rest()
        with world.worker() as idle:
            assert until(lambda: world.waiting() == 0)
            idle.rest()
            return {"waited behind the long one": not world.diary.count("end", "short")}


def longer_than_the_grace(world: World) -> Seen:
    """A job takes longer than a worker has to end: the worker leaves and keeps it, for a heartbeat and a lottery."""
    gate = world.gate()
    world.acts["a"] = world.wait_at(gate)
    with world.worker() as ending, world.worker() as other:
        world.submit("a")
        assert until(lambda: world.starts("a") == 1)
        holder = ending if ending.held() else other
        holder.drain(grace_s=0.1)
        assert until(holder.ended)
        until(lambda: world.starts("a") == 2, world.patience(1.0))
        return {"begun elsewhere": world.starts("a") == 2}


def joined_too_early(world: World) -> Seen:
    """One part of a group is delivered twice: it counts twice, so the end comes before the other part, and again."""
    first, second = world.gate(), world.gate()
    world.acts["a"], world.acts["b"] = world.wait_at(first), world.wait_at(second)
    with world.worker(threads=3) as worker:
        world.submit_join(("a", "b"), "join")
        assert until(lambda: world.starts("a") == world.starts("b") == 1)
        world.double("a")
        assert until(lambda: world.starts("a") == 2 or world.diary.count("refused", "a") > 0)
        first.set()
        assert until(lambda: world.diary.count("over", "a") == world.starts("a"))
        worker.rest()
        early = world.starts("join")
        second.set()
        assert until(lambda: world.diary.count("over", "b") == 1)
        worker.rest()
        assert until(lambda: world.starts("join") > 0 and world.over("join"))
        return {"too early": early, "in all": world.starts("join")}
