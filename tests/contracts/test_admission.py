"""What a store lets in, and what it still knows afterwards: several commits as one, limits, closed assets, lists.

Asked of the store in memory, of the one on a real redis-server, and of that one on fakeredis.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from redis_server import LossyProxy, RedisServer
from stores import ASSET, MemoryWorld, RedisWorld, World, a_step, an_event, another, changing, creating, live

from pipeline.job import (
    CONFLICT,
    JOB_LEVEL,
    AssetRecord,
    Commit,
    EventDraft,
    JobStatus,
    Outcome,
    Ref,
    Refusal,
    Status,
)
from workers.redis_client import connect
from workers.redis_jobs import PAGE, RedisJobStore


def request(number: int, **changes: Any) -> Commit:
    """A new job for an asset of its own."""
    asset = f"asset{number:06d}"
    fields: dict[str, Any] = {
        "asset": asset,
        "asset_version": 0,
        "document": {"n": number},
        "events": (an_event("asset.accepted", n=number),),
        "rank": number,
        **changes,
    }
    return another(f"job-{number}", a_step("a"), **fields)


def end(world: World, job: str, status: JobStatus = JobStatus.SUCCEEDED) -> None:
    known = world.store.job(job)
    assert known is not None
    commit = Commit(job=job, asset=known.asset, header=replace(known, status=status), forget=True)
    assert world.store.commit(commit).applied


def refused(refusal: Refusal, index: int = 0) -> Outcome:
    return Outcome(applied=False, refusal=refusal, index=index)


def known_jobs(world: World, count: int) -> list[int]:
    return [n for n in range(count) if world.store.job(f"job-{n}") is not None]


# -- several commits as one -------------------------------------------------------------------------------------------


def test_commits_that_go_together_are_all_applied_in_their_order(world: World) -> None:
    assert world.store.commit(*[request(n) for n in range(20)]).applied
    assert known_jobs(world, 20) == list(range(20))
    assert [event["data"]["n"] for event in world.events()] == list(range(20))
    assert len(world.store.take({"transcode": 99})) == 20


@pytest.mark.parametrize("wrong", [0, 3, 9])
def test_one_that_does_not_hold_stops_all_of_them_and_is_named(world: World, wrong: int) -> None:
    world.store.commit(request(wrong, document={"taken": True}, events=()))
    end(world, f"job-{wrong}")

    outcome = world.store.commit(*[replace(request(n), job=f"new-{n}") for n in range(10)])

    assert outcome == refused(Refusal.CONFLICT, wrong)
    assert [world.store.job(f"new-{n}") for n in range(10)] == [None] * 10
    assert world.events() == []
    assert world.store.take({"transcode": 99}) == []


def test_what_goes_together_does_not_expect_what_it_changes_itself(world: World) -> None:
    assert world.store.commit(request(1), replace(request(1), job="job-2")) == refused(Refusal.CONFLICT, 1)
    assert world.store.commit(request(1), request(2, asset="asset000003"), request(1)) == refused(Refusal.CONFLICT, 2)
    assert known_jobs(world, 4) == []
    assert world.store.commit(request(1), request(2, asset="asset000001", asset_version=None)).applied
    asset = world.store.asset("asset000001")
    assert asset is not None
    assert (asset.version, asset.document) == (2, {"n": 2})


def test_a_change_of_several_jobs_is_one_change(world: World) -> None:
    world.store.commit(request(1), request(2))
    done = {"a": a_step("a", status=Status.SUCCEEDED)}
    first, second = (changing(job=f"job-{n}", asset=f"asset00000{n}", steps=done) for n in (1, 2))
    assert world.store.commit(first, replace(second, revision=7)) == refused(Refusal.CONFLICT, 1)
    assert world.store.take({"transcode": 9}) == [Ref(job="job-1", step="a"), Ref(job="job-2", step="a")]
    assert world.store.commit(first, second) == Outcome(applied=True, settled=True)


def test_commits_whose_reply_was_lost_are_applied_once(redis_server: RedisServer) -> None:
    proxy = LossyProxy(redis_server)
    try:
        with connect(proxy.url) as far:
            store = RedisJobStore(far)
            assert store.commit(request(1), request(2)).applied
            said = [changing(job=f"job-{n}", asset=f"asset00000{n}", events=(an_event(n=n),)) for n in (1, 2)]
            lost = iter([True, True])
            proxy.lose = lambda sent: store._commit.sha.encode() in sent and next(lost, False)
            assert store.commit(*said).applied
    finally:
        proxy.close()
    assert proxy.lost == 2
    with redis_server.client() as client:
        assert len(RedisWorld(client).events()) == 4


# -- limits -----------------------------------------------------------------------------------------------------------


def test_an_organization_has_no_more_open_jobs_than_it_may(world: World) -> None:
    for number in range(3):
        assert world.store.commit(request(number, organization="a", max_open=3)).applied
    assert world.store.commit(request(3, organization="a", max_open=3)) == refused(Refusal.QUOTA)
    assert world.store.commit(request(0, organization="a", max_open=3)) == CONFLICT, "the same request once more"
    assert world.store.commit(request(4, organization="b", max_open=1)).applied, "another one"
    end(world, "job-1", JobStatus.CANCELLED)
    assert world.store.commit(request(3, organization="a", max_open=3)).applied
    assert world.store.commit(request(5, organization="a", max_open=3)) == refused(Refusal.QUOTA)
    assert world.store.commit(request(6, organization="a")).applied, "who does not ask is not limited"


def test_a_batch_that_does_not_fit_is_refused_as_a_whole_at_its_first_that_does_not(world: World) -> None:
    world.store.commit(request(0, organization="a"))
    batch = [request(n, organization="a" if n % 2 else "b", max_open=3) for n in range(1, 10)]
    assert world.store.commit(*batch) == refused(Refusal.QUOTA, 4), "the third of a: the fourth that is open"
    assert known_jobs(world, 10) == [0]
    assert world.store.commit(*batch[:4]).applied
    assert world.store.commit(batch[4]) == refused(Refusal.QUOTA)


def test_a_job_that_ends_at_once_is_not_open(world: World) -> None:
    def commit(number: int) -> Commit:
        made = request(number, organization="a", max_open=1)
        assert made.header is not None
        header = replace(made.header, steps={}, status=JobStatus.SUCCEEDED)
        return replace(made, header=header, steps={}, forget=True)

    for number in range(3):
        assert world.store.commit(commit(number)) == Outcome(applied=True)


def test_the_limit_holds_however_many_ask_at_once(world: World) -> None:
    barrier = threading.Barrier(8)

    def ask(number: int) -> bool:
        barrier.wait()
        return world.store.commit(request(number, organization="a", max_open=3)).applied

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 3


# -- assets that are removed ------------------------------------------------------------------------------------------


def removal(job: str = "delete-1", **changes: Any) -> Commit:
    return another(job, **{"closes": True, "due": {JOB_LEVEL: 0.0}, "kind": "delete", **changes})


def test_a_closed_asset_takes_no_new_job_and_what_runs_goes_on(world: World) -> None:
    world.store.commit(creating(a_step("a"), document={"v": 1}))
    assert world.store.commit(removal(document={"v": 2}, asset_version=1)).applied
    assert world.store.commit(another("late", a_step("a"), asset_version=2)) == refused(Refusal.CLOSED)
    assert world.store.commit(removal("delete-2")) == refused(Refusal.CLOSED)
    assert world.store.commit(removal()) == CONFLICT, "the same request once more"
    assert world.store.commit(changing(steps={"a": a_step("a", status=Status.RUNNING, fence="1-x")})).applied
    assert world.store.commit(request(5)).applied, "another asset"


def test_what_goes_together_with_a_removal_is_refused_as_well(world: World) -> None:
    assert world.store.commit(removal(), another("late", a_step("a"))) == refused(Refusal.CLOSED, 1)
    assert world.store.commit(another("late", a_step("a")), removal()).applied


def test_a_job_without_steps_is_looked_at_when_it_says(world: World) -> None:
    world.store.commit(removal())
    ref = Ref(job="delete-1", step=JOB_LEVEL)
    assert live(world, 1) == [ref]
    assert world.store.commit(Commit(job="delete-1", asset=ASSET, overdue=JOB_LEVEL, due={JOB_LEVEL: 20.0})).applied
    assert live(world, 18) == [], "not overwritten by its being settled"
    assert live(world, 3) == [ref]


# -- assets that expire -----------------------------------------------------------------------------------------------


def test_assets_expire_at_their_time_earliest_first(world: World) -> None:
    now = world.clock.now_ms()
    for number, at in ((1, now - 1000), (2, now - 5000), (3, now + 60_000), (4, now - 3000), (5, now - 4000)):
        world.store.commit(request(number, expire_at_ms=at))
    assert list(world.store.expired(2)) == [("asset000002", now - 5000), ("asset000005", now - 4000)]

    world.store.commit(request(6, asset="asset000002", asset_version=None, expire_at_ms=0))
    world.store.commit(request(7, asset="asset000005", asset_version=None, closes=True))
    world.store.commit(request(8, asset="asset000004", asset_version=None, expire_at_ms=now - 500))
    world.store.commit(request(9, asset="asset000004", asset_version=None))

    assert [asset for asset, _ in world.store.expired(9)] == ["asset000001", "asset000004"]


def test_an_asset_that_never_came_to_be_need_not_expire_unless_its_time_was_changed(world: World) -> None:
    now = world.clock.now_ms()
    for number in (1, 2):
        world.store.commit(request(number, expire_at_ms=now - 1000))
        world.store.commit(request(number + 5, asset=f"asset00000{number}", asset_version=None, expire_at_ms=now - 500))

    world.store.unexpire("asset000001", now - 1000)
    world.store.unexpire("asset000002", now - 500)
    world.store.unexpire("asset000003", now)

    assert list(world.store.expired(9)) == [("asset000001", now - 500)]


# -- what storage says of a forgotten asset ---------------------------------------------------------------------------


def record(version: int, sequence: int = 40) -> AssetRecord:
    return AssetRecord(id=ASSET, document={"v": version}, version=version, epoch=1, sequence=sequence)


def test_a_forgotten_asset_comes_back_and_goes_on_above_what_is_known(world: World) -> None:
    assert world.store.restore(record(7))
    asset = world.store.asset(ASSET)
    assert asset is not None
    assert (asset.document, asset.version, asset.sequence) == ({"v": 7}, 7, 40)
    assert world.store.commit(creating(a_step("a"), asset_version=7, document={"v": 8}, events=(an_event(),))).applied
    assert [int(event["sequence"]) for event in world.events()] == [41]


def test_an_asset_that_is_known_in_an_older_state_gets_a_new_epoch(world: World) -> None:
    world.store.commit(creating(a_step("a"), document={"v": 1}, events=tuple(an_event(n=n) for n in range(60))))
    before = world.store.asset(ASSET)
    assert before is not None
    assert world.store.restore(record(2))
    after = world.store.asset(ASSET)
    assert after is not None
    assert after.epoch > before.epoch
    assert (after.document, after.version, after.sequence) == ({"v": 2}, 2, 60)
    world.store.append(ASSET, an_event(n=60))
    assert (world.events()[-1]["epoch"], int(world.events()[-1]["sequence"])) == (after.epoch, 61)


def test_what_storage_says_does_not_replace_what_is_newer(world: World) -> None:
    assert world.store.restore(record(7))
    before = world.store.asset(ASSET)
    assert not world.store.restore(record(7, sequence=99))
    assert not world.store.restore(record(6, sequence=99))
    assert world.store.asset(ASSET) == before
    assert world.store.restore(record(8))
    newer = world.store.asset(ASSET)
    assert before is not None
    assert newer is not None
    assert newer.epoch > before.epoch, "also within the same second"


# -- lists ------------------------------------------------------------------------------------------------------------


def test_the_jobs_of_an_asset_newest_first(world: World) -> None:
    assert list(world.store.jobs(ASSET)) == []
    for name, rank in (("job-b", 2), ("job-a", 1), ("job-c", 3), ("job-d", 3)):
        world.store.commit(another(name, a_step("a"), rank=rank))
    world.store.commit(request(2))
    assert list(world.store.jobs(ASSET)) == ["job-d", "job-c", "job-b", "job-a"]


def test_the_open_jobs_of_an_asset_are_known_apart(world: World) -> None:
    """However many have ended: a request asks for them at the door."""
    for number in range(PAGE + 2):
        world.store.commit(another(f"job-{number}", a_step("a"), rank=number))
        end(world, f"job-{number}", list(JobStatus)[-1 - number % 3]) if number % 30 else None
    assert list(world.store.jobs(ASSET, open_only=True)) == ["job-30", "job-0"]
    assert list(world.store.jobs(ASSET)) == [f"job-{number}" for number in reversed(range(PAGE + 2))]

    end(world, "job-30", JobStatus.SUCCEEDED)
    assert list(world.store.jobs(ASSET, open_only=True)) == ["job-0"]


def test_the_failed_jobs_newest_first(world: World) -> None:
    assert world.store.failed(9) == []
    world.store.commit(*[request(n) for n in range(5)])
    for number, status in (
        (2, JobStatus.FAILED),
        (1, JobStatus.CANCELLED),
        (3, JobStatus.FAILED),
        (0, JobStatus.FAILED),
    ):
        end(world, f"job-{number}", status)
        if isinstance(world, MemoryWorld):
            world.advance(1)
        else:
            threading.Event().wait(0.002)  # the store's own clock gives the order
    assert list(world.store.failed(9)) == ["job-0", "job-3", "job-2"]
    assert list(world.store.failed(2)) == ["job-0", "job-3"]
    assert world.store.failed(0) == []


def test_jobs_that_were_open_before_there_was_a_list_of_them_are_found(client: Any) -> None:
    """A rolling upgrade: an older worker let them in."""
    store = RedisJobStore(client)
    for name in ("job-1", "job-2"):
        store.commit(another(name, a_step("a"), rank=int(name[-1])))
    client.zrem(f"reelway:asset:{ASSET}:open", "job-1")

    assert list(store.jobs(ASSET, open_only=True)) == ["job-2", "job-1"]


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with redis_server.client() as client:
        yield client


def test_the_lists_forget_with_the_records(client: Any) -> None:
    store = RedisJobStore(client, keep_s=100)
    world = RedisWorld(client)
    world.store = store
    for name in ("job-1", "job-2"):
        store.commit(another(name, a_step("a")))
        end(world, name, JobStatus.FAILED)
    client.delete("reelway:job:job-1")  # as if it had expired
    assert list(store.jobs(ASSET)) == ["job-2"]
    assert list(store.failed(9)) == ["job-2"]
    assert 0 < client.ttl(f"reelway:asset:{ASSET}:jobs") <= 100
    store.commit(another("job-3", a_step("a")))
    assert client.ttl(f"reelway:asset:{ASSET}:jobs") == -1
    assert client.zrange(f"reelway:asset:{ASSET}:jobs", 0, -1) == [b"job-2", b"job-3"], "and what is gone is struck off"
    client.zadd("reelway:failed", {"job-1": 1.0, "job-2": 2.0})  # as if it were long ago
    end(world, "job-3", JobStatus.FAILED)
    assert client.zrange("reelway:failed", 0, -1) == [b"job-3"]


# -- events without a job ---------------------------------------------------------------------------------------------


def test_the_same_event_appended_again_is_appended_once(world: World) -> None:
    draft = EventDraft(id="request-9.request.refused", type="request.refused", data={"n": 1})
    for _ in range(3):
        world.store.append(ASSET, draft)
    world.store.append(ASSET, replace(draft, id="request-10.request.refused"))
    assert [int(event["sequence"]) for event in world.events()] == [1, 2]


# -- memory -----------------------------------------------------------------------------------------------------------


def test_a_store_without_a_limit_is_never_full(world: World) -> None:
    assert world.store.pressure() == 0.0


def test_how_full_redis_is(client: Any) -> None:
    store = RedisJobStore(client)
    used = int(client.info("memory")["used_memory"])
    client.config_set("maxmemory", used * 4)
    try:
        assert 0.1 < store.pressure() < 0.6
        client.config_set("maxmemory", 1)
        assert store.pressure() == 1.0
    finally:
        client.config_set("maxmemory", 0)
