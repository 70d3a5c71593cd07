"""What the doorman's promises rest on holds on the real store as well: a life of requests, told by both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from books import Books, MemoryBooks
from front import ASSET, Front
from redis_server import RedisServer
from test_worlds_on_redis import RedisBooks, RedisClock

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.job import JobStatus, Priority, Ref
from pipeline.memory import ManualClock, MemoryJobStore
from pipeline.organizations import Organization

Open = Callable[[Path], Front]
ACME = Organization(max_open_jobs=2, priorities=(Priority.HIGH, Priority.STANDARD))


@pytest.fixture
def redis_front(redis_server: RedisServer, tmp_path: Path) -> Iterator[Front]:
    with redis_server.client() as client:

        def books(clock: ManualClock) -> Books:
            return RedisBooks(client, clock)

        yield Front(tmp_path / "redis", clock=RedisClock(client), books=books, acme=ACME)


@pytest.fixture
def memory_front(tmp_path: Path) -> Front:
    return Front(tmp_path / "memory", books=lambda clock: MemoryBooks(MemoryJobStore(clock)), acme=ACME)


@pytest.mark.raises_code("asset_deleted")
def test_an_asset_lives_and_dies_on_redis_as_in_memory(redis_front: Front, memory_front: Front) -> None:
    told = [_life(front) for front in (redis_front, memory_front)]
    assert told[0] == told[1]
    assert [event["data"] for event in redis_front.events] == [event["data"] for event in memory_front.events]


def _life(front: Front) -> list[str]:
    front.process(meta={"course": 42}, expire_at=front.clock.now_ms() + 86_400_000)
    front.conductor.fail(front.begin("request-1", "ingest"), PipelineError("video_file_broken"))
    front.ask("retry", id="retried", asset_id=ASSET)
    front.ask("hold", asset_id=ASSET)
    front.live(seconds=5)
    assert front.done == []
    front.ask("prioritize", asset_id=ASSET, priority="high")
    front.ask("release", asset_id=ASSET)
    front.live()
    assert front.job("retried").status is JobStatus.SUCCEEDED
    for number, (wish, fields) in enumerate(
        [
            ("reprocess", {"resolutions": ["240p", "480p"]}),
            ("reprocess", {"everything": True}),
            ("reprocess", {"stages": ["audio"]}),
            ("repackage", {}),
            ("make_subtitles", {}),
            ("expire", {"expire_at": front.clock.now_ms() + 1000}),
        ]
    ):
        front.ask(wish, id=f"w-{number}", asset_id=ASSET, **fields)
        front.ask(wish, id=f"w-{number}", asset_id=ASSET, **fields)
        front.live()
        assert front.job(f"w-{number}").status is JobStatus.SUCCEEDED
    ((asset, at_ms),) = front.store.expired(9)
    front.doorman.expire(asset, at_ms)
    assert front.refusal("repackage", asset_id=ASSET).code == "asset_deleted"
    front.live()
    assert front.left() == [keys.tombstone(ASSET)]
    assert front.store.expired(9) == []
    return front.told()


@pytest.mark.raises_code("quota_exceeded")
def test_a_batch_on_redis_is_all_or_nothing(redis_front: Front) -> None:
    requests = [{"url": f"/{number}.mp4"} for number in range(3)]

    error = redis_front.refusal("batch", id="b", organization="acme", requests=requests)
    assert (error.code, error.params["index"]) == ("quota_exceeded", 2)
    assert redis_front.store.job("b-1") is None

    ids = redis_front.ask("batch", id="b", organization="acme", requests=requests[:2])
    assert redis_front.ask("batch", id="b", organization="acme", requests=requests[:2]) == ids
    assert redis_front.store.take({"ingest": 9}) == [Ref(job=id_, step="ingest") for id_ in ids]


@pytest.mark.raises_code("asset_exists", "asset_not_ready", "nothing_to_retry", "asset_busy")
def test_what_an_asset_is_too_young_too_old_or_too_busy_for_is_refused(redis_front: Front) -> None:
    redis_front.process()
    assert redis_front.refusal("repackage", asset_id=ASSET).code == "asset_not_ready"
    assert redis_front.refusal("retry", asset_id=ASSET).params["status"] == "active"

    redis_front.live()
    assert redis_front.refusal("process", url="/other.mp4", asset_id=ASSET).code == "asset_exists"
    assert redis_front.refusal("retry", asset_id=ASSET).params["status"] == "succeeded"

    redis_front.ask("repackage", id="again", asset_id=ASSET)
    assert redis_front.conductor.publishing(redis_front.begin("again", "package"))
    assert redis_front.refusal("cancel", asset_id=ASSET).code == "asset_busy"


@pytest.mark.raises_code("priority_not_allowed")
def test_an_organization_has_the_priorities_that_its_file_says(redis_front: Front) -> None:
    error = redis_front.refusal("process", url="/a.mp4", organization="acme", priority="bulk")

    assert (error.code, error.params["allowed"]) == ("priority_not_allowed", "high, standard")


@pytest.mark.raises_code("queue_full")
def test_a_redis_that_is_nearly_full_takes_no_new_job_and_goes_on_with_the_others(
    redis_front: Front,
    redis_server: RedisServer,
) -> None:
    redis_front.process()
    with redis_server.client() as client:
        client.config_set("maxmemory", round(client.info("memory")["used_memory"] * 1.05))
        try:
            error = redis_front.refusal("process", url="/b.mp4")
        finally:
            client.config_set("maxmemory", 0)

    assert error.code == "queue_full"
    assert int(error.params["percent"]) > 90
    redis_front.live()
    assert redis_front.job("request-1").status is JobStatus.SUCCEEDED
