"""What may begin, and in whose turn: priorities, turns, quotas, held jobs, paused stages.

Asked of the store in memory, of the one on a real redis-server, and of that one on fakeredis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from redis_server import RedisServer, running_server
from stores import JOB, RedisWorld, World, a_step, another, changing, creating, live, settle_in

from pipeline.conductor import LEASE_S
from pipeline.job import JOB_LEVEL, READY_DUE_S, Guard, JobStatus, Priority, Ref, Status, Step
from pipeline.ports import Quotas


def steps(count: int, **changes: Any) -> list[Step]:
    return [a_step(f"s{n:04d}", **changes) for n in range(count)]


def taken(world: World, count: int = 1, quota: int | None = None, stage: str = "transcode") -> list[str]:
    return list(map(str, world.store.take({stage: count}, Quotas(default=quota))))


def jobs_of(refs: list[str]) -> list[str]:
    return [ref.partition("/")[0] for ref in refs]


def out(world: World, stage: str = "transcode") -> int:
    """How many steps count as taken."""
    return next((queue.taken for queue in world.store.queues() if queue.stage == stage), 0)


def move(world: World, step: Step, **changes: Any) -> None:
    assert world.store.commit(changing(steps={step.id: step}, **changes)).applied


def header(world: World, job: str = JOB, **changes: Any) -> None:
    known = world.store.job(job)
    assert known is not None
    assert world.store.commit(changing(job=job, header=replace(known, **changes), revision=known.revision)).applied


# -- priorities -------------------------------------------------------------------------------------------------------


def test_nothing_of_a_lower_priority_goes_before_a_higher_one(world: World) -> None:
    world.store.commit(another("bulk", *steps(3), rank=1, priority=Priority.BULK))
    world.store.commit(another("standard", *steps(3), rank=2))
    world.store.commit(another("high", *steps(3), rank=3, priority=Priority.HIGH, organization="other"))
    assert jobs_of(taken(world, 7)) == ["high"] * 3 + ["standard"] * 3 + ["bulk"]
    world.store.commit(another("late", *steps(1), rank=4, priority=Priority.HIGH))
    assert jobs_of(taken(world, 9)) == ["late", "bulk", "bulk"]


def test_a_quota_is_given_to_the_higher_priority_of_any_stage(world: World) -> None:
    world.store.commit(another("bulk", a_step("a", stage="audio"), priority=Priority.BULK))
    world.store.commit(another("high", a_step("a"), priority=Priority.HIGH))
    refs = world.store.take({"audio": 1, "transcode": 1}, Quotas(default=1))
    assert [(str(ref), ref.stage) for ref in refs] == [("high/a", "transcode")]


def test_a_change_of_priority_moves_what_is_ready_and_leaves_what_is_out(world: World) -> None:
    world.store.commit(another(JOB, *steps(3), rank=1, priority=Priority.BULK))
    world.store.commit(another("standard", *steps(2), rank=2))
    assert jobs_of(taken(world, 3)) == ["standard", "standard", JOB]

    header(world, priority=Priority.HIGH)
    world.store.commit(another("later", *steps(1), rank=0))

    assert taken(world, 9) == [f"{JOB}/s0001", f"{JOB}/s0002", "later/s0000"]
    assert out(world) == 6
    world.store.commit(changing(steps={"s0000": a_step("s0000")}, rank=1))
    assert [queue.ready for queue in world.store.queues()] == [{Priority.HIGH: 1}], "what comes later has it as well"


# -- turns ------------------------------------------------------------------------------------------------------------


def test_a_customer_with_a_thousand_ready_steps_does_not_stop_anothers_one(world: World) -> None:
    world.store.commit(another("many", *steps(1000), rank=1, organization="large"))
    assert jobs_of(taken(world, 3)) == ["many"] * 3
    world.store.commit(another("one", *steps(1), rank=2, organization="small"))
    assert "one" in jobs_of(taken(world, 2)), "within the first round"


def test_organizations_take_turns_whatever_their_ranks(world: World) -> None:
    for name, rank in (("a", 1), ("b", 3), ("c", 2)):
        world.store.commit(another(f"of-{name}", *steps(4), rank=rank, organization=name))
    one_by_one = [jobs_of(taken(world))[0] for _ in range(4)]
    assert one_by_one == ["of-a", "of-b", "of-c", "of-a"], "in the order in which they came"
    assert jobs_of(taken(world, 5)) == ["of-b", "of-c", "of-a", "of-b", "of-c"], "in one call as in many"
    world.store.commit(another("more-of-c", *steps(1), rank=9, organization="c"))
    world.store.commit(another("of-d", *steps(1), rank=0, organization="d"))
    assert jobs_of(taken(world, 4)) == ["of-a", "of-b", "of-c", "of-d"], "who comes later comes last"


def test_inside_an_organization_the_oldest_job_goes_first(world: World) -> None:
    world.store.commit(another("young", *steps(2), rank=9))
    world.store.commit(another("old", *steps(2), rank=3))
    assert taken(world, 3) == ["old/s0000", "old/s0001", "young/s0000"]


def test_who_was_at_its_quota_keeps_its_turn(world: World) -> None:
    world.store.commit(another("of-a", *steps(3), organization="a"))
    world.store.commit(another("of-b", *steps(3), organization="b"))
    limits = Quotas(by_organization={"a": 1})
    assert list(map(str, world.store.take({"transcode": 3}, limits))) == ["of-a/s0000", "of-b/s0000", "of-b/s0001"]
    world.store.commit(changing(job="of-a", steps={"s0000": a_step("s0000", status=Status.SUCCEEDED)}))
    assert list(map(str, world.store.take({"transcode": 1}, limits))) == ["of-a/s0001"]


# -- quotas -----------------------------------------------------------------------------------------------------------


def test_quotas_count_over_all_stages_and_each_organization_has_its_own(world: World) -> None:
    mixed = [a_step("a0"), a_step("a1"), a_step("b0", stage="audio"), a_step("b1", stage="audio")]
    world.store.commit(another("of-a", *mixed, organization="a"))
    world.store.commit(another("of-b", *mixed, organization="b"))
    world.store.commit(another("of-c", *mixed, organization="c"))
    limits = Quotas(default=1, by_organization={"b": 3, "c": None})

    refs = world.store.take({"transcode": 9, "audio": 9}, limits)

    counts = [jobs_of(list(map(str, refs))).count(job) for job in ("of-a", "of-b", "of-c")]
    assert counts == [1, 3, 4]
    assert world.store.take({"transcode": 9, "audio": 9}, limits) == []


RUNNING = a_step("s0000", status=Status.RUNNING, fence="1-x", worker="w")

ENDS: Mapping[str, tuple[Step, bool]] = {
    "begun": (RUNNING, False),
    "publishing": (replace(RUNNING, status=Status.PUBLISHING), False),
    "finished": (replace(RUNNING, status=Status.SUCCEEDED), True),
    "failed": (replace(RUNNING, status=Status.FAILED), True),
    "waits for a retry": (replace(RUNNING, status=Status.RETRYING), True),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_was_taken_counts_until_it_is_over(world: World, name: str) -> None:
    world.store.commit(creating(*steps(2)))
    assert taken(world, 2, quota=1) == [f"{JOB}/s0000"]
    move(world, RUNNING)
    assert taken(world, 2, quota=1) == []
    step, free = ENDS[name]
    for _ in range(2):  # said twice, it counts once
        move(world, step)
        assert out(world) == (not free)
    assert taken(world, 2, quota=1) == ([f"{JOB}/s0001"] if free else [])


@pytest.mark.parametrize("back", ["handed back", "lost", "woken"])
def test_what_is_ready_again_counts_when_it_is_taken_again(world: World, back: str) -> None:
    world.store.commit(creating(*steps(2)))
    taken(world, 1, quota=1)
    move(world, RUNNING)
    if back == "woken":
        move(world, replace(RUNNING, status=Status.RETRYING))
    move(world, replace(RUNNING, status=Status.READY, worker=None), rank=17)
    assert out(world) == 0
    assert taken(world, 9, quota=1) == [f"{JOB}/s0000"]
    assert out(world) == 1


def test_a_lost_ticket_does_not_count_for_ever(world: World) -> None:
    settle_in(world)
    world.store.commit(creating(*steps(2), due={"s0000": READY_DUE_S}))
    assert taken(world, 9, quota=1) == [f"{JOB}/s0000"]
    live(world, READY_DUE_S + 1)
    assert out(world) == 0
    assert taken(world, 9, quota=1) == [f"{JOB}/s0000"], "at its old place"
    assert taken(world, 9, quota=1) == []


def test_a_step_that_begins_by_a_ticket_given_up_as_lost_counts(world: World) -> None:
    settle_in(world)
    world.store.commit(creating(*steps(2), due={"s0000": READY_DUE_S}))
    taken(world, 1)
    live(world, READY_DUE_S + 1)
    move(world, RUNNING)
    assert out(world) == 1
    assert taken(world, 9, quota=1) == []


def test_a_released_step_that_was_never_taken_counts_from_its_begin(world: World) -> None:
    world.store.commit(creating(a_step("a", status=Status.SUCCEEDED), a_step("p", status=Status.WAITING)))
    world.store.commit(changing(guards=(Guard(step="p", stage="transcode", needs=("a",)),)))
    assert out(world) == 0
    move(world, a_step("p", status=Status.RUNNING, fence="1-x"))
    assert out(world) == 1


@pytest.mark.parametrize("status", [JobStatus.CANCELLED, JobStatus.FAILED, JobStatus.SUCCEEDED])
def test_the_end_of_a_job_frees_its_quota(world: World, status: JobStatus) -> None:
    world.store.commit(creating(*steps(3), a_step("x", stage="audio")))
    world.store.commit(another("next", *steps(2), rank=99))
    assert len(taken(world, 2)) == 2
    move(world, RUNNING)
    known = world.store.job(JOB)
    assert known is not None
    world.store.commit(changing(header=replace(known, status=status), due={JOB_LEVEL: 0.0}, forget=True))
    assert [(queue.stage, queue.taken) for queue in world.store.queues()] == [("transcode", 0)]
    assert jobs_of(taken(world, 9, quota=1)) == ["next"]


def test_a_record_that_is_gone_frees_its_quota(world: World) -> None:
    settle_in(world)
    world.store.commit(creating(RUNNING, due={"s0000": LEASE_S}))
    assert out(world) == 1
    world.forget_job()
    live(world, LEASE_S + 1)
    assert out(world) == 0


def test_quotas_survive_the_kill_of_redis() -> None:
    with running_server(appendonly=True) as server:
        with server.client() as before:
            world = RedisWorld(before)
            world.store.commit(creating(*steps(5)))
            assert len(taken(world, 9, quota=2)) == 2
        server.kill()
        server.start()
        with server.client() as after:
            world = RedisWorld(after)
            assert taken(world, 9, quota=2) == []
            move(world, replace(RUNNING, status=Status.SUCCEEDED))
            assert taken(world, 9, quota=2) == [f"{JOB}/s0002"]


# -- held jobs --------------------------------------------------------------------------------------------------------


def test_no_step_of_a_held_job_is_given_out_until_it_is_released(world: World) -> None:
    settle_in(world)
    package = a_step("package", stage="package", status=Status.WAITING, needs=("s0000",))
    world.store.commit(creating(*steps(3), package, due=dict.fromkeys(("s0000", "s0001", "s0002"), READY_DUE_S)))
    taken(world, 2)
    move(world, RUNNING, due={"s0000": None})

    header(world, held=True)

    assert taken(world, 9) == []
    assert out(world) == 1, "what runs goes on; a ticket that is out begins nothing"
    guard = Guard(step="package", stage="package", needs=("s0000",))
    move(world, replace(RUNNING, status=Status.SUCCEEDED), guards=(guard,))
    assert live(world, 2 * READY_DUE_S + 2) == [], "and nobody revives them"
    assert world.store.take({"transcode": 9, "package": 9}) == []
    header(world, priority=Priority.HIGH)
    assert world.store.take({"transcode": 9, "package": 9}) == []

    header(world, held=False)

    assert taken(world, 9) == [f"{JOB}/s0001", f"{JOB}/s0002"]
    assert taken(world, 9, stage="package") == [f"{JOB}/package"]
    assert live(world, READY_DUE_S - 1) == []
    assert taken(world, 9) == [], "their due times begin anew"
    live(world, 2)
    assert len(taken(world, 9)) == 2, "and they are looked after again"


def test_what_becomes_ready_while_its_job_is_held_waits(world: World) -> None:
    world.store.commit(another(JOB, a_step("s0000", status=Status.RETRYING), held=True))
    move(world, a_step("s0000"))
    assert world.store.queues() == []
    header(world, held=False)
    assert taken(world, 9) == [f"{JOB}/s0000"]


# -- paused stages ----------------------------------------------------------------------------------------------------


def test_a_paused_stage_gives_out_nothing_and_the_others_go_on(world: World) -> None:
    world.store.commit(creating(*steps(2), a_step("x", stage="audio")))
    world.store.pause("transcode", True)
    world.store.pause("transcode", True)
    assert list(map(str, world.store.take({"transcode": 9, "audio": 9}))) == [f"{JOB}/x"]
    assert [queue.stage for queue in world.store.queues() if queue.paused] == ["transcode"]
    world.store.pause("transcode", False)
    assert len(taken(world, 9)) == 2
    world.store.pause("sprite", True)
    assert [queue.stage for queue in world.store.queues()] == ["audio", "sprite", "transcode"]


# -- figures ----------------------------------------------------------------------------------------------------------


def test_the_queues_in_figures(world: World) -> None:
    assert world.store.queues() == []
    world.store.commit(another("of-a", *steps(5), organization="a", priority=Priority.HIGH))
    world.store.commit(another("of-b", *steps(2), a_step("x", stage="audio"), organization="b"))
    taken(world, 2)

    audio, transcode = world.store.queues()

    assert (audio.stage, audio.ready, audio.taken) == ("audio", {Priority.STANDARD: 1}, 0)
    assert (transcode.ready, transcode.taken) == ({Priority.HIGH: 3, Priority.STANDARD: 2}, 2)
    assert transcode.organizations == {"a": 3, "b": 2}


def test_a_reference_that_was_taken_knows_its_stage(world: World) -> None:
    world.store.commit(creating(a_step("a"), a_step("x", stage="audio")))
    refs = world.store.take({"transcode": 1, "audio": 1})
    assert [ref.stage for ref in refs] == ["transcode", "audio"]
    assert refs[0] == Ref(job=JOB, step="a")


# -- Redis alone ------------------------------------------------------------------------------------------------------


def test_a_fleet_at_rest_leaves_nothing_in_the_ready_index(redis_server: RedisServer) -> None:
    """Every key of the index that can be empty is gone when it is."""
    with redis_server.client() as client:
        world = RedisWorld(client)
        world.store.commit(another("of-a", *steps(3), organization="a", priority=Priority.HIGH))
        world.store.commit(another("of-b", *steps(3), organization="b"))
        taken(world, 3)
        for job in ("of-a", "of-b"):
            known = world.store.job(job)
            assert known is not None
            ended = replace(known, status=JobStatus.CANCELLED)
            world.store.commit(changing(job=job, header=ended, due={JOB_LEVEL: None}, forget=True))
        left = {key.decode().split(":")[1] for key in world.client.keys("reelway:*")}
        assert left == {"job", "asset", "turn", "commit"}


def test_a_queue_that_somebody_removed_by_hand_stops_nobody_else(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        world = RedisWorld(client)
        world.store.commit(another("of-a", *steps(1), organization="a"))
        world.store.commit(another("of-b", *steps(1), organization="b"))
        (queue,) = client.keys("reelway:ready:*|a")
        client.delete(queue)

        assert jobs_of(taken(world, 2)) == ["of-b"]
