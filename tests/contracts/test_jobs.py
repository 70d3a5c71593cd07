"""What a job store promises, asked of the one in memory and of the one on a real redis-server.

Time never passes by sleeping: a `World` moves what its store has written down into the past.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest
from builders import a_blueprint, a_profile, a_request, some_ingest_facts
from redis_server import LossyProxy, RedisServer, running_server
from stores import (
    ASSET,
    JOB,
    MemoryWorld,
    RedisWorld,
    World,
    a_step,
    an_event,
    changing,
    creating,
    live,
    settle_in,
    statuses,
    the_job,
)

from pipeline.conductor import LEASE_S, Answer, Attempt, Conductor
from pipeline.errors import PipelineError
from pipeline.job import (
    CONFLICT,
    JOB_LEVEL,
    READY_DUE_S,
    SCHEMA,
    AssetRecord,
    Guard,
    Job,
    JobStatus,
    Outcome,
    Ref,
    Status,
    Step,
)
from pipeline.memory import CLAIM_S, GRACE_S, OUTAGE_S
from pipeline.ports import Agenda
from pipeline.requests import JobRequest
from pipeline.tasks import Blueprint, IngestFacts
from workers.redis_client import connect
from workers.redis_jobs import RedisJobStore


@pytest.fixture(params=["memory", "redis"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    with server.client() as client:
        yield RedisWorld(client)


def test_nothing_is_known_at_first(world: World) -> None:
    assert world.store.job(JOB) is None
    assert world.store.asset(ASSET) is None
    assert world.store.take({"transcode": 5}) == []
    assert world.store.take({}) == []
    assert list(world.store.due(10)) == []


def test_what_was_committed_is_read_back(world: World) -> None:
    steps = [
        a_step("z", args={"range": [0, 4]}, weight=0.5, facts={"text": 'quote " and ü'}),
        a_step("a", status=Status.WAITING, needs=("z",), optional=True),
        a_step("m", status=Status.RETRYING, fence="3-abcd", retries=2, losses=1, worker="w", error={"code": "x"}),
    ]
    commit = creating(*steps, document={"id": ASSET, "title": "ü"}, asset_version=0)

    assert world.store.commit(commit) == Outcome(applied=True)

    assert commit.header is not None
    assert the_job(world) == replace(commit.header, revision=1)
    assert list(the_job(world).steps) == ["z", "a", "m"]
    asset = world.store.asset(ASSET)
    assert asset is not None
    assert (asset.document, asset.version, asset.sequence) == (commit.document, 1, 0)


def test_a_job_is_created_once(world: World) -> None:
    assert world.store.commit(creating(a_step("a"), events=(an_event(),))).applied
    assert world.store.commit(creating(a_step("b"), events=(an_event(),))) == CONFLICT
    assert list(the_job(world).steps) == ["a"]
    assert len(world.events()) == 1


RUNNING = a_step("a", status=Status.RUNNING, fence="2-good", worker="w")

EXPECTATIONS: Mapping[str, tuple[dict[str, Any], bool]] = {
    "status and fence are as expected": ({"expect": {"a": (Status.RUNNING, "2-good")}}, True),
    "another fence": ({"expect": {"a": (Status.RUNNING, "2-evil")}}, False),
    "a longer fence": ({"expect": {"a": (Status.RUNNING, "2-goo")}}, False),
    "another status": ({"expect": {"a": (Status.PUBLISHING, "2-good")}}, False),
    "one of two is wrong": ({"expect": {"a": (Status.RUNNING, "2-good"), "w": (Status.READY, "0")}}, False),
    "no such step, as expected": ({"expect": {"new": None}}, True),
    "there is such a step": ({"expect": {"a": None}}, False),
    "there is no such step": ({"expect": {"new": (Status.READY, "0")}}, False),
    "the job's status is one of several": ({"job_in": frozenset({JobStatus.ACTIVE, JobStatus.FAILED})}, True),
    "the job's status is another": ({"job_in": frozenset({JobStatus.PUBLISHING})}, False),
    "no status will do": ({"job_in": frozenset()}, False),
    "the revision": ({"revision": 1}, True),
    "an older revision": ({"revision": 0}, False),
    "a newer revision": ({"revision": 2}, False),
    "the asset's version": ({"asset_version": 1}, True),
    "an older version of the asset": ({"asset_version": 0}, False),
    "overdue": ({"overdue": "late"}, True),
    "not due yet": ({"overdue": "a"}, False),
    "never due": ({"overdue": "w"}, False),
    "not all is settled": ({"all_settled": True}, False),
    "another job": ({"job": "job-2"}, False),
}


@pytest.mark.parametrize("name", EXPECTATIONS)
def test_a_commit_applies_only_if_all_of_it_holds(world: World, name: str) -> None:
    late, waiting = a_step("late", status=Status.RETRYING), a_step("w", status=Status.WAITING)
    world.store.commit(creating(RUNNING, late, waiting, document={"v": 1}, due={"a": 60.0, "late": 1.0}))
    world.advance(2)
    before, asset = world.store.job(JOB), world.store.asset(ASSET)
    expected, applies = EXPECTATIONS[name]
    change = changing(
        steps={"late": replace(late, status=Status.READY)},
        document={"v": 2},
        events=(an_event(),),
        due={"w": 0.0},
        **expected,
    )

    assert world.store.commit(change).applied is applies

    if applies:
        assert statuses(world)["late"] == "ready"
        assert [ref.step for ref in world.store.take({"transcode": 9})] == ["late"]
        assert len(world.events()) == 1
    else:
        assert (world.store.job(JOB), world.store.asset(ASSET)) == (before, asset)
        assert world.store.take({"transcode": 9}) == []
        assert world.events() == []


def test_all_settled_is_asked_of_the_record(world: World) -> None:
    done = a_step("a", status=Status.SUCCEEDED)
    world.store.commit(creating(done, a_step("b", status=Status.RUNNING, fence="1-x")))
    assert not world.store.commit(changing(all_settled=True)).applied

    failed = a_step("b", status=Status.FAILED, fence="1-x")
    assert world.store.commit(changing(steps={"b": failed})) == Outcome(applied=True, settled=True)
    assert world.store.commit(changing(all_settled=True)).applied


def test_a_job_that_is_settled_and_open_stands_overdue(world: World) -> None:
    world.store.commit(creating(a_step("a")))
    world.store.commit(changing(steps={"a": a_step("a", status=Status.SUCCEEDED)}))
    assert Ref(job=JOB, step=JOB_LEVEL) in world.store.due(10)


def test_the_header_changes_with_its_revision_and_the_steps_alone_do_not(world: World) -> None:
    world.store.commit(creating(a_step("a")))
    world.store.commit(changing(steps={"a": a_step("a", status=Status.RUNNING, fence="1-x")}))
    assert the_job(world).revision == 1
    header = replace(the_job(world), status=JobStatus.PUBLISHING)
    assert world.store.commit(changing(header=header, revision=1)).applied
    assert (the_job(world).status, the_job(world).revision) == (JobStatus.PUBLISHING, 2)
    assert statuses(world) == {"a": "running"}


# -- guards -----------------------------------------------------------------------------------------------------------


def test_a_guard_releases_a_step_when_all_of_its_needs_are_settled(world: World) -> None:
    package = a_step("package", stage="package", status=Status.WAITING, needs=("a", "b"), facts={"k": 1})
    guard = Guard(step="package", stage="package", needs=package.needs)
    world.store.commit(creating(a_step("a"), a_step("b"), package))

    world.store.commit(changing(steps={"a": a_step("a", status=Status.FAILED)}, guards=(guard,)))
    assert statuses(world)["package"] == "waiting"
    world.store.commit(changing(steps={"b": a_step("b", status=Status.SUCCEEDED)}, guards=(guard,), rank=3))

    assert the_job(world).steps["package"] == replace(package, status=Status.READY)
    assert world.store.take({"package": 9}) == [Ref(job=JOB, step="package")]
    live(world, READY_DUE_S - 1)
    assert world.store.take({"package": 9}) == []
    live(world, 2)
    assert world.store.take({"package": 9}) == [Ref(job=JOB, step="package")], "its ticket was lost"


def test_a_guard_moves_nothing_that_has_moved_already(world: World) -> None:
    world.store.commit(creating(a_step("a", status=Status.SUCCEEDED), a_step("p", status=Status.RUNNING, fence="1-x")))
    world.store.commit(changing(guards=(Guard(step="p", stage="transcode", needs=("a",)),)))
    assert statuses(world)["p"] == "running"
    assert world.store.take({"transcode": 9}) == []


# -- the ready index --------------------------------------------------------------------------------------------------


def test_ready_steps_are_taken_best_first_and_once(world: World) -> None:
    world.store.commit(creating(a_step("c"), a_step("b"), a_step("x", stage="audio"), rank=20))
    other = replace(creating(a_step("a")), job="job-2", rank=10)
    assert other.header is not None
    world.store.commit(replace(other, header=replace(other.header, id="job-2")))

    assert list(map(str, world.store.take({"transcode": 2}))) == ["job-2/a", "job-1/b"]
    assert list(map(str, world.store.take({"transcode": 9, "audio": 9, "package": 9}))) == ["job-1/c", "job-1/x"]
    assert world.store.take({"transcode": 9, "audio": 9}) == []


def test_a_step_that_is_no_longer_ready_leaves_the_ready_index(world: World) -> None:
    world.store.commit(creating(a_step("a")))
    world.store.commit(changing(steps={"a": a_step("a", status=Status.RUNNING, fence="1-x")}))
    assert world.store.take({"transcode": 9}) == []


def test_takers_never_take_the_same_step(world: World) -> None:
    world.store.commit(creating(*[a_step(f"s{n:03d}") for n in range(200)]))
    with ThreadPoolExecutor(8) as pool:
        taken = [ref.step for refs in pool.map(lambda _: take_all(world.store), range(8)) for ref in refs]
    assert sorted(taken) == [f"s{n:03d}" for n in range(200)]


def take_all(store: Agenda) -> list[Ref]:
    taken: list[Ref] = []
    while found := store.take({"transcode": 3}):
        taken += found
    return taken


# -- leases and the due index -----------------------------------------------------------------------------------------


def waiting_step(name: str) -> Step:
    return a_step(name, status=Status.RETRYING)


def test_what_is_due_comes_oldest_first_and_within_the_limit(world: World) -> None:
    settle_in(world)
    due = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 60.0, JOB_LEVEL: 2.5}
    world.store.commit(creating(*map(waiting_step, "abcd"), due=due))
    assert list(world.store.due(10)) == []
    world.advance(4)
    assert [ref.step for ref in world.store.due(2)] == ["b", "c"]
    assert [ref.step for ref in world.store.due(10)] == [JOB_LEVEL, "a"]
    world.store.commit(changing(due={"b": None, "c": 15.0}))
    assert [ref.step for ref in live(world, CLAIM_S)] == [JOB_LEVEL, "a"]


def test_what_was_claimed_is_shown_to_nobody_for_a_while(world: World) -> None:
    """So sweepers share the work, and what nobody can decide holds up nobody."""
    settle_in(world)
    poison = {f"p{n:03d}": 1.0 for n in range(150)}
    world.store.commit(creating(*map(waiting_step, [*poison, "last"]), due={**poison, "last": 2.0}))
    world.advance(3)
    shown = [[ref.step for ref in world.store.due(100)] for _ in range(3)]
    assert [len(steps) for steps in shown] == [100, 51, 0]
    assert shown[1][-1] == "last"
    assert len(set(shown[0] + shown[1])) == 151
    assert live(world, CLAIM_S - 1) == []
    assert len(live(world, 2)) == 151, "nobody dealt with them"


def test_what_was_claimed_can_be_decided_until_its_due_time_is_set_again(world: World) -> None:
    settle_in(world)
    world.store.commit(creating(RUNNING, waiting_step("b"), due={"a": 1.0, "b": 1.0}))
    world.advance(2)
    assert [ref.step for ref in world.store.due(10)] == ["a", "b"]
    assert world.store.renew(Ref(job=JOB, step="a"), "2-good", LEASE_S)
    assert not world.store.commit(changing(overdue="a", due={"a": None})).applied, "renewed since"
    assert world.store.commit(changing(overdue="b", due={"b": 5.0})).applied
    assert not world.store.commit(changing(overdue="b", due={"b": 5.0})).applied, "decided by another"


def test_a_ready_step_whose_ticket_was_lost_is_ready_again_at_its_place(world: World) -> None:
    settle_in(world)
    other = creating(a_step("x", stage="audio"), rank=3, due={"x": READY_DUE_S})
    assert other.header is not None
    world.store.commit(replace(other, job="job-0", header=replace(other.header, id="job-0")))
    world.store.commit(creating(a_step("a"), a_step("b"), rank=20, due={"a": READY_DUE_S, "b": READY_DUE_S}))
    early = creating(a_step("c"), rank=10, due={"c": READY_DUE_S})
    assert early.header is not None
    world.store.commit(replace(early, job="job-2", header=replace(early.header, id="job-2")))
    assert len(world.store.take({"transcode": 9, "audio": 9})) == 4
    assert world.store.take({"transcode": 9, "audio": 9}) == []

    assert live(world, READY_DUE_S + 1) == [], "nothing for a sweeper to decide"

    assert list(map(str, world.store.take({"transcode": 9, "audio": 9}))) == [
        "job-2/c", "job-1/a", "job-1/b", "job-0/x",
    ]  # fmt: skip
    assert live(world, READY_DUE_S + 1) == []
    assert len(world.store.take({"transcode": 9})) == 3, "and again, if need be"


def test_what_belongs_to_no_record_goes_away(world: World) -> None:
    settle_in(world)
    world.store.commit(creating(waiting_step("a"), due={"a": 1.0}))
    ended = replace(the_job(world), status=JobStatus.FAILED)
    world.store.commit(changing(header=ended, due={"a": 1.0, JOB_LEVEL: 1.0}))
    world.advance(2)
    assert [ref.step for ref in world.store.due(9)] == [JOB_LEVEL]
    live(world, 1000)
    world.forget_job()
    assert live(world, CLAIM_S + 1) == []
    assert world.due_entries() == 0


def test_a_lease_is_renewed_by_its_fence_alone(world: World) -> None:
    settle_in(world)
    world.store.commit(creating(RUNNING, a_step("b"), due={"a": LEASE_S}))
    ref = Ref(job=JOB, step="a")
    assert not world.store.renew(ref, "2-evil", LEASE_S)
    assert not world.store.renew(Ref(job=JOB, step="b"), "0", LEASE_S)
    assert not world.store.renew(Ref(job=JOB, step="none"), "2-good", LEASE_S)
    assert not world.store.renew(Ref(job="none", step="a"), "2-good", LEASE_S)

    live(world, LEASE_S - 1)
    assert world.store.renew(ref, "2-good", LEASE_S)
    assert ref not in live(world, LEASE_S - 1)
    assert live(world, 2) == [ref]
    assert world.store.renew(ref, "2-good", LEASE_S), "an expired lease that nobody took, though a sweeper looks at it"

    job = replace(the_job(world), status=JobStatus.CANCELLED)
    world.store.commit(changing(header=job))
    assert not world.store.renew(ref, "2-good", LEASE_S), "the job has ended"


def test_a_renewed_lease_is_not_taken_away(world: World) -> None:
    world.store.commit(creating(RUNNING, due={"a": 1.0}))
    world.advance(2)
    assert world.store.renew(Ref(job=JOB, step="a"), "2-good", LEASE_S)
    lost = changing(overdue="a", expect={"a": (Status.RUNNING, "2-good")}, steps={"a": a_step("a")})
    assert world.store.commit(lost) == CONFLICT


def test_after_an_outage_no_lease_is_judged_for_a_while(world: World) -> None:
    settle_in(world)
    steps = [replace(RUNNING, id=f"r{n}") for n in range(7)]
    world.store.commit(creating(*steps, waiting_step("b"), due={**{s.id: 1.0 for s in steps}, "b": 2.0}))
    world.advance(OUTAGE_S + 1)
    assert [ref.step for ref in world.store.due(3)] == ["b"], "leases do not hide what is behind them"
    assert [ref.step for ref in live(world, GRACE_S - 2)] == ["b"]
    assert len(live(world, 4)) == 7


# -- endings ----------------------------------------------------------------------------------------------------------


def test_an_ended_job_is_forgotten_by_the_indexes(world: World) -> None:
    settle_in(world)
    world.store.commit(creating(a_step("a"), a_step("b", stage="audio"), due={"a": 1.0, "b": 1.0}))
    ended = replace(the_job(world), status=JobStatus.CANCELLED, ended_ms=18)
    assert world.store.commit(changing(header=ended, due={JOB_LEVEL: 0.0}, forget=True)).applied

    assert world.store.take({"transcode": 9, "audio": 9}) == []
    assert live(world, 4) == [Ref(job=JOB, step=JOB_LEVEL)]
    assert not world.store.commit(changing(steps={"a": a_step("a")})).applied, "it has ended"

    tidied = changing(job_in=frozenset({JobStatus.CANCELLED}), due={JOB_LEVEL: None}, forget=True)
    assert world.store.commit(tidied) == Outcome(applied=True)
    assert live(world, CLAIM_S + 4) == []
    assert the_job(world).status is JobStatus.CANCELLED


def test_nothing_of_an_ended_job_becomes_ready(world: World) -> None:
    world.store.commit(creating(RUNNING))
    ended = replace(the_job(world), status=JobStatus.FAILED)
    world.store.commit(changing(header=ended, steps={"a": a_step("a")}))
    assert world.store.take({"transcode": 9}) == []


# -- events -----------------------------------------------------------------------------------------------------------


def test_events_are_sealed_in_the_order_of_their_commits(world: World) -> None:
    world.store.commit(
        creating(a_step("a"), organization="org", events=(an_event("asset.accepted", n=1, text="ü\n"), an_event(n=2)))
    )
    world.store.append(ASSET, an_event("request.refused", n=3), organization="org")
    world.store.commit(changing(events=(an_event(n=4),), expect={"a": None}))
    world.store.commit(changing(events=(an_event(n=5),), organization="org"))

    events = world.events()
    assert [event["data"]["n"] for event in events] == [1, 2, 3, 5]
    assert [int(event["sequence"]) for event in events] == [1, 2, 3, 4]
    assert len({event["epoch"] for event in events}) == 1
    asset = world.store.asset(ASSET)
    assert asset is not None
    assert (asset.sequence, asset.epoch) == (4, events[0]["epoch"])
    assert events[0]["data"]["text"] == "ü\n"
    assert (events[0]["type"], events[0]["subject"]) == ("dev.reelway.asset.accepted.v1", ASSET)
    assert (events[0]["correlationid"], events[0]["source"]) == (JOB, "/reelway/org")
    assert "correlationid" not in events[2], "a refused request has no job"


def test_a_refused_request_leaves_its_asset_free(world: World) -> None:
    world.store.append(ASSET, an_event("request.refused"))
    assert world.store.commit(creating(a_step("a"), asset_version=0, events=(an_event(),))).applied
    assert [int(event["sequence"]) for event in world.events()] == [1, 2]


def test_sequences_have_no_gap_and_no_repeat_under_threads(world: World) -> None:
    world.store.commit(creating(*[a_step(f"s{n}") for n in range(16)]))

    def tell(n: int) -> None:
        for k in range(20):
            step = a_step(f"s{n}", status=Status.RUNNING, fence=f"{k}-x")
            assert world.store.commit(changing(steps={step.id: step}, events=(an_event(n=n, k=k), an_event()))).applied

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(tell, range(16)))
    assert [int(event["sequence"]) for event in world.events()] == list(range(1, 641))


# -- many at once -----------------------------------------------------------------------------------------------------


def at_once(*calls: Callable[[], object]) -> None:
    """Run the calls in threads that start together; raises what they raise."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        barrier.wait()
        call()

    with ThreadPoolExecutor(len(calls)) as pool:
        for future in [pool.submit(run, call) for call in calls]:
            future.result()


def test_two_last_needs_that_finish_together_release_once(world: World) -> None:
    for round_ in range(20):
        job = f"job-{round_}"
        package = a_step("package", stage="package", status=Status.WAITING, needs=("a", "b"))
        guard = Guard(step="package", stage="package", needs=package.needs)
        made = creating(a_step("a"), a_step("b"), package)
        assert made.header is not None
        world.store.commit(replace(made, job=job, header=replace(made.header, id=job)))

        def finish(name: str, job: str = job, guard: Guard = guard) -> None:
            done = {name: a_step(name, status=Status.SUCCEEDED)}
            world.store.commit(changing(job=job, expect={name: (Status.READY, "0")}, steps=done, guards=(guard,)))

        at_once(lambda: finish("a"), lambda: finish("b"))
        assert world.store.take({"package": 9}) == [Ref(job=job, step="package")]


@dataclass
class Toy:
    """A planner: ingest, then so many parts (the last may be optional), then package, which needs them all."""

    parts: int = 2
    optional: int = 0

    def first_steps(self, request: JobRequest) -> tuple[Step, ...]:
        return (Step(id="ingest", stage="ingest"),)

    def grow(self, job: Job, facts: IngestFacts) -> tuple[Blueprint, tuple[Step, ...]]:
        names = [f"part-{n:03d}" for n in range(self.parts)]
        parts = [Step(id=name, stage="transcode", optional=n < self.optional) for n, name in enumerate(names)]
        return a_blueprint(), (*parts, Step(id="package", stage="package", needs=tuple(names)))


def a_conductor(world: World, toy: Toy | None = None) -> Conductor:
    return Conductor(world.store, world.clock, toy or Toy(), {"default": a_profile()})


def began(conductor: Conductor, step: str, worker: str = "w") -> Attempt:
    attempt = conductor.begin(Ref(job="request-1", step=step), worker)
    assert attempt is not None
    return attempt


def ingested(conductor: Conductor) -> None:
    conductor.accept(a_request())
    assert conductor.finish(began(conductor, "ingest"), Answer(ingest=some_ingest_facts(), source="private/x.mp4"))


def names(world: World) -> list[str]:
    return [".".join(event["type"].split(".")[2:4]) for event in world.events()]


def sequences_are_whole(world: World) -> bool:
    return [int(event["sequence"]) for event in world.events()] == list(range(1, len(world.events()) + 1))


def test_a_job_of_300_steps_that_100_workers_finish_at_once(world: World) -> None:
    conductor = a_conductor(world, Toy(parts=300))
    ingested(conductor)
    work = iter(world.store.take({"transcode": 1000}))
    lock = threading.Lock()

    def worker() -> None:
        while True:
            with lock:
                ref = next(work, None)
            if ref is None:
                return
            attempt = conductor.begin(ref, "w")
            assert attempt is not None
            assert conductor.finish(attempt, Answer(facts={"n": 1}))

    at_once(*[worker] * 100)

    job = world.store.job("request-1")
    assert job is not None
    assert [step.id for step in job.steps.values() if step.status is not Status.SUCCEEDED] == ["package"]
    assert world.store.take({"package": 9}) == [Ref(job="request-1", step="package")]
    assert names(world).count("step.started") == names(world).count("step.finished") == 301
    assert sequences_are_whole(world)


# -- whole lives ------------------------------------------------------------------------------------------------------


def test_a_job_from_acceptance_to_ready(world: World) -> None:
    conductor = a_conductor(world)
    ingested(conductor)
    assert conductor.accept(a_request()).id == "request-1"
    for name in ("part-000", "part-001", "package"):
        assert name == "package" or conductor.begin(Ref(job="request-1", step="package"), "w") is None
        attempt = began(conductor, name)
        assert conductor.begin(attempt.ref, "other") is None, "it has begun"
        assert conductor.renew(attempt)
        assert conductor.finish(attempt, Answer())
        assert not conductor.finish(attempt, Answer()), "once"

    job = world.store.job("request-1")
    assert job is not None
    assert job.status is JobStatus.SUCCEEDED
    assert names(world)[0] == "asset.accepted"
    assert names(world)[-2:] == ["asset.ready", "asset.updated"]
    assert sequences_are_whole(world)
    ended = conductor.sweep(Ref(job="request-1", step=JOB_LEVEL))
    assert ended is not None
    conductor.tidied(ended)
    assert live(world, 60) == []


def test_cancel_ends_a_job_once_and_until_publishing(world: World) -> None:
    conductor = a_conductor(world)
    ingested(conductor)
    attempt = began(conductor, "part-000")
    assert conductor.cancel("request-1")
    assert not conductor.cancel("request-1")
    assert not conductor.renew(attempt)
    assert not conductor.finish(attempt, Answer())
    assert names(world).count("asset.cancelled") == 1
    assert world.store.take({"transcode": 9}) == []

    conductor.accept(a_request(id="request-2", asset_id="asset000002"))
    other = conductor.begin(Ref(job="request-2", step="ingest"), "w")
    assert other is not None
    assert conductor.publishing(other)
    with pytest.raises(PipelineError, match="asset_busy"):
        conductor.cancel("request-2")


def test_a_required_failure_ends_the_job_and_an_optional_one_does_not(world: World) -> None:
    conductor = a_conductor(world, Toy(optional=1))
    ingested(conductor)
    assert conductor.fail(began(conductor, "part-000"), PipelineError("video_file_broken"))
    assert conductor.finish(began(conductor, "part-001"), Answer())
    assert conductor.fail(began(conductor, "package"), PipelineError("parts_incomplete", track="v", detail="x"))

    job = world.store.job("request-1")
    assert job is not None
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error["code"] == "parts_incomplete"
    assert names(world).count("asset.failed") == 1
    assert sequences_are_whole(world)


def test_a_transient_failure_waits_in_the_due_index_and_is_tried_again(world: World) -> None:
    settle_in(world)
    conductor = a_conductor(world)
    conductor.accept(a_request())
    assert world.store.take({"ingest": 9})
    attempt = began(conductor, "ingest")
    ref = attempt.ref
    assert conductor.fail(attempt, PipelineError("storage_unavailable", reason="x"))
    assert world.store.take({"ingest": 9}) == []
    assert live(world, 2) == [ref]
    conductor.sweep(ref)
    assert world.store.take({"ingest": 9}) == [ref]
    assert began(conductor, "ingest").fence.startswith("2-")


def test_a_lost_ticket_is_sent_again(world: World) -> None:
    settle_in(world)
    a_conductor(world).accept(a_request())
    (ref,) = world.store.take({"ingest": 9})
    live(world, READY_DUE_S - 2)
    assert world.store.take({"ingest": 9}) == []
    live(world, 4)
    assert world.store.take({"ingest": 9}) == [ref]


def test_a_step_whose_worker_is_lost_three_times_fails(world: World) -> None:
    settle_in(world)
    conductor = a_conductor(world)
    conductor.accept(a_request())
    lost: list[Attempt] = []
    for _ in range(3):
        lost.append(began(conductor, "ingest"))
        assert live(world, LEASE_S + 1) == [lost[-1].ref]
        at_once(*[lambda: conductor.sweep(lost[-1].ref)] * 4)

    job = world.store.job("request-1")
    assert job is not None
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert names(world).count("step.retrying") == 2
    assert names(world).count("step.failed") == names(world).count("asset.failed") == 1
    assert not any(conductor.finish(attempt, Answer()) for attempt in lost)
    assert sequences_are_whole(world)


# -- Redis alone ------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with redis_server.client() as client:
        yield client


def test_the_record_of_an_ended_job_expires_and_leaves_nothing_due(client: Any) -> None:
    world = RedisWorld(client)
    world.store = RedisJobStore(client, keep_s=100)
    conductor = a_conductor(world)
    conductor.accept(a_request())
    assert client.ttl("reelway:job:request-1") == -1
    conductor.cancel("request-1")
    assert 0 < client.ttl("reelway:job:request-1") <= 100

    client.delete("reelway:job:request-1")  # as if it had expired before it was tidied
    assert live(world, 4) == []
    assert client.zcard("reelway:due") == 0


def test_an_asset_expires_with_the_record_of_its_last_job(client: Any) -> None:
    store = RedisJobStore(client, keep_s=100)

    def lasts() -> bool:
        left = client.ttl(f"reelway:asset:{ASSET}")
        assert left == -1 or 0 < left <= 100
        return bool(left == -1)

    def run(job: str) -> None:
        made = creating(a_step("a"), events=(an_event(),))
        assert made.header is not None
        assert store.commit(replace(made, job=job, header=replace(made.header, id=job))).applied

    def end(job: str) -> None:
        found = store.job(job)
        assert found is not None
        ended = replace(found, status=JobStatus.SUCCEEDED)
        assert store.commit(changing(job=job, header=ended)).applied

    store.append(ASSET, an_event("request.refused"))
    assert not lasts(), "a refused request leaves nothing for ever"
    run("job-1")
    assert lasts()
    run("job-2")
    end("job-1")
    assert lasts(), "another job is at work"
    store.append(ASSET, an_event("request.refused"))
    assert lasts()
    end("job-2")
    assert not lasts()
    tidied = changing(job="job-2", job_in=frozenset({JobStatus.SUCCEEDED}), due={JOB_LEVEL: None}, forget=True)
    assert store.commit(tidied).applied
    assert not lasts()
    run("job-3")
    assert lasts(), "a new life"
    end("job-3")
    assert not lasts()


def test_a_record_of_a_newer_worker_is_left_alone(client: Any) -> None:
    """Whatever its form: only `schema` is read of its header, and nothing of its steps."""
    world = RedisWorld(client)
    settle_in(world)
    conductor = a_conductor(world)
    ingested(conductor)
    ref = Ref(job="request-1", step="part-000")
    client.hset("reelway:job:request-1", "header", json.dumps({"schema": SCHEMA + 1, "steps": "elsewhere"}))
    client.hset("reelway:job:request-1", "step:part-001", b"another form")
    before = client.hgetall("reelway:job:request-1")

    job = world.store.job("request-1")
    assert job is not None
    assert (job.id, job.asset, job.schema, job.status) == ("request-1", "asset000001", SCHEMA + 1, JobStatus.ACTIVE)
    assert conductor.begin(ref, "w") is None
    assert not conductor.cancel("request-1")
    assert conductor.accept(a_request()).schema == SCHEMA + 1, "accepting it again is accepting it once"
    assert conductor.sweep(ref) is None
    assert conductor.sweep(Ref(job="request-1", step=JOB_LEVEL)) is None
    assert client.hgetall("reelway:job:request-1") == before
    client.hset("reelway:job:request-1", "status", "postponed")
    assert conductor.sweep(Ref(job="request-1", step=JOB_LEVEL)) is None


def test_wakes_and_stops_are_published_with_the_commit(client: Any) -> None:
    with client.pubsub() as heard:
        heard.subscribe("reelway:wake", "reelway:stop")
        assert [heard.get_message(timeout=5)["type"] for _ in range(2)] == ["subscribe"] * 2
        conductor = a_conductor(RedisWorld(client))
        ingested(conductor)
        conductor.cancel("request-1")
        said: list[tuple[str, set[str]]] = []
        for _ in range(4):
            message = heard.get_message(timeout=5)
            said.append((message["channel"].decode(), set(message["data"].decode().split())))
    assert said == [
        ("reelway:wake", {"ingest"}),
        ("reelway:wake", {"transcode"}),
        ("reelway:stop", {"request-1"}),
        ("reelway:wake", {"@due"}),
    ]


def test_an_asset_that_redis_forgot_goes_on_in_a_later_epoch(client: Any) -> None:
    store = RedisJobStore(client)
    store.append(ASSET, an_event())
    first = store.asset(ASSET)
    assert first is not None
    now, _ = client.time()
    assert 0 <= now - first.epoch <= 60


def test_a_full_redis_refuses_a_commit_as_a_whole(client: Any) -> None:
    store = RedisJobStore(client)
    store.commit(creating(a_step("a"), due={"a": 5.0}))
    before = store.job(JOB)
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(PipelineError, match=r"queue_unavailable.*(OOM|OutOfMemory)"):
            store.commit(changing(steps={"a": RUNNING}, due={"a": None}, events=(an_event(),)))
    finally:
        client.config_set("maxmemory", 0)
    assert store.job(JOB) == before
    assert client.zcard("reelway:due") == 1
    assert client.xlen("reelway:events") == 0


@pytest.mark.raises_code("queue_unavailable")
def test_a_redis_that_is_away_is_a_coded_error() -> None:
    store = RedisJobStore(connect("unix:///nowhere/redis.sock"), patience_s=0.0)
    ref = Ref(job=JOB, step="a")
    calls: list[Callable[[], object]] = [
        lambda: store.job(JOB),
        lambda: store.asset(ASSET),
        lambda: store.commit(creating(a_step("a"))),
        lambda: store.renew(ref, "1-x", 15),
        lambda: store.due(1),
        lambda: store.take({"transcode": 1}),
        lambda: store.append(ASSET, an_event()),
        lambda: list(store.jobs(ASSET)),
        lambda: list(store.jobs(ASSET, open_only=True)),
        lambda: store.restore(AssetRecord(id=ASSET, document={}, version=1, epoch=1, sequence=0)),
        lambda: store.pause("transcode", True),
        store.queues,
        lambda: store.failed(1),
        lambda: store.expired(1),
        store.pressure,
    ]
    for call in calls:
        with pytest.raises(PipelineError, match="queue_unavailable"):
            call()


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[LossyProxy]:
    proxy = LossyProxy(redis_server)
    yield proxy
    proxy.close()


def commits_of(store: RedisJobStore, times: int) -> Callable[[bytes], bool]:
    """Lose the replies of the next so many commits."""
    left = [times]

    def lose(request: bytes) -> bool:
        if store._commit.sha.encode() not in request or not left[0]:
            return False
        left[0] -= 1
        return True

    return lose


def test_a_commit_whose_reply_was_lost_is_recognised(proxy: LossyProxy, client: Any) -> None:
    """Begun, published, finished, ended through a line that loses two replies in a row: each move happens once."""
    world = RedisWorld(connect(proxy.url))
    conductor = a_conductor(world, Toy(parts=1))
    with world.client:
        ingested(conductor)  # the scripts are known from here on
        for step in ("part-000", "package"):
            proxy.lose = commits_of(world.store, 2)
            attempt = began(conductor, step)
            proxy.lose = commits_of(world.store, 2)
            assert conductor.publishing(attempt)
            proxy.lose = commits_of(world.store, 2)
            assert conductor.finish(attempt, Answer())

    assert proxy.lost == 12
    job = world.store.job("request-1")
    assert job is not None
    assert job.status is JobStatus.SUCCEEDED
    assert names(RedisWorld(client)).count("step.started") == names(RedisWorld(client)).count("step.finished") == 3
    assert names(RedisWorld(client)).count("asset.ready") == 1
    assert sequences_are_whole(RedisWorld(client))


def test_an_event_whose_reply_was_lost_is_appended_once(proxy: LossyProxy, client: Any) -> None:
    with connect(proxy.url) as far:
        store = RedisJobStore(far)
        store.append(ASSET, an_event(n=1))
        lost = iter([True])
        proxy.lose = lambda request: store._append.sha.encode() in request and next(lost, False)
        store.append(ASSET, an_event(n=2))
    assert proxy.lost == 1
    assert [event["data"]["n"] for event in RedisWorld(client).events()] == [1, 2]


def test_a_commit_whose_fate_stays_unknown_is_an_error_and_applied_at_most_once(proxy: LossyProxy, client: Any) -> None:
    with connect(proxy.url) as far:
        store = RedisJobStore(far, patience_s=0.2)
        store.commit(creating(a_step("a")))
        proxy.lose = commits_of(store, 1_000_000)
        with pytest.raises(PipelineError, match="queue_unavailable"):
            store.commit(changing(events=(an_event(),)))
    assert proxy.lost > 1
    assert len(RedisWorld(client).events()) == 1


def test_jobs_survive_the_kill_of_redis() -> None:
    """With the append-only file nothing that was answered is lost, and no lease is judged right after."""
    with running_server(appendonly=True) as server:
        with server.client() as before:
            world = RedisWorld(before)
            settle_in(world)
            conductor = a_conductor(world)
            ingested(conductor)
            attempt = began(conductor, "part-000")
            job, events = world.store.job("request-1"), world.events()
        server.kill()
        server.start()
        with server.client() as after:
            world = RedisWorld(after)
            assert (world.store.job("request-1"), world.events()) == (job, events)
            world.advance(LEASE_S + 1)
            assert attempt.ref not in world.store.due(100)
            assert a_conductor(world).renew(attempt)
