"""Housekeeping: each chore is done by one worker at a time, and what Redis forgets stands in the archive."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path

import pytest
from redis_server import RedisServer

from pipeline import archive
from pipeline.errors import PipelineError
from pipeline.job import EventDraft
from pipeline.memory import SystemClock
from pipeline.storage.folder import FolderStorage
from workers.keeper import Chore, Keeper, archive_events, chores, trim_events
from workers.redis_jobs import RedisJobStore

PATIENCE_S = 10.0


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "root")


@pytest.fixture
def store(redis_server: RedisServer) -> RedisJobStore:
    return RedisJobStore(redis_server.client())


def happen(store: RedisJobStore, count: int) -> None:
    for _ in range(count):
        store.append("8x7k2m9qpza", EventDraft(id=secrets.token_hex(4), type="request.refused", data={}))


def on_stream(store: RedisJobStore) -> list[str]:
    return [entry.decode() for entry, _ in store.client.xrange(store.events)]  # type: ignore[union-attr]


def archived(storage: FolderStorage) -> list[str]:
    return [entry for entry, _ in archive.read(storage, 0)]


def test_one_of_many_workers_does_a_chore(store: RedisJobStore) -> None:
    done: list[str] = []

    def chore(worker: str) -> Chore:
        return Chore(every_s=3600, do=lambda: done.append(worker) or 1)  # type: ignore[func-returns-value]

    keepers = [Keeper(store.client, name, {"sweep": chore(name)}) for name in ("a", "b", "c")]

    for keeper in (*keepers, *keepers):
        keeper.keep()

    assert done == ["a"]


def test_the_turn_comes_round_again(store: RedisJobStore) -> None:
    """Also where the worker that had it died in the middle of it."""
    done: list[str] = []
    chore = Chore(every_s=3600, do=lambda: done.append("again") or 1)  # type: ignore[func-returns-value]
    Keeper(store.client, "a", {"sweep": chore}).keep()

    store.client.delete("reelway:turn:sweep")
    Keeper(store.client, "b", {"sweep": chore}).keep()

    assert done == ["again", "again"]


@pytest.mark.parametrize("error", [PipelineError("storage_unavailable", reason="?"), RuntimeError("a bug")])
def test_a_chore_that_fails_keeps_no_other_from_being_done(store: RedisJobStore, error: Exception) -> None:
    done: list[str] = []

    def fail() -> int:
        raise error

    other = Chore(every_s=60, do=lambda: done.append("other") or 1)  # type: ignore[func-returns-value]
    Keeper(store.client, "a", {"broken": Chore(every_s=60, do=fail), "other": other}).keep()

    assert done == ["other"]


def test_nobody_waits_for_a_chore_under_way(store: RedisJobStore) -> None:
    begun, end = threading.Event(), threading.Event()
    done: list[str] = []

    def hang() -> int:
        begun.set()
        end.wait(PATIENCE_S)
        done.append("long")
        return 1

    other = Chore(every_s=60, do=lambda: done.append("other") or 1)  # type: ignore[func-returns-value]
    keeper = Keeper(store.client, "a", {"long": Chore(every_s=60, do=hang), "other": other})
    keeper.start()
    assert begun.wait(PATIENCE_S)

    keeper.stop()

    assert done == []
    end.set()
    for thread in threading.enumerate():
        if thread.name == "keeper":
            thread.join(PATIENCE_S)
    assert done == ["long"], "it begins no further one"


def test_events_come_to_the_archive_in_their_order_and_once(store: RedisJobStore, storage: FolderStorage) -> None:
    happen(store, 5)
    assert archive_events(store, storage) == 5
    happen(store, 3)

    assert archive_events(store, storage) == 3
    assert archive_events(store, storage) == 0
    assert archived(storage) == on_stream(store)


def test_two_that_archive_at_once_lose_and_double_nothing(store: RedisJobStore, storage: FolderStorage) -> None:
    happen(store, 4)
    archive_events(store, storage)
    store.client.delete("reelway:archived")  # the second one has not heard of the first
    happen(store, 4)

    archive_events(store, storage)

    assert archived(storage) == on_stream(store)


def test_a_lost_redis_goes_on_behind_what_stands_in_the_archive(store: RedisJobStore, storage: FolderStorage) -> None:
    happen(store, 3)
    archive_events(store, storage)
    before = on_stream(store)
    store.client.flushall()
    happen(store, 2)

    archive_events(store, storage)

    assert archived(storage) == [*before, *on_stream(store)]


def test_only_what_is_old_and_archived_leaves_the_stream(store: RedisJobStore, storage: FolderStorage) -> None:
    happen(store, 3)
    happened = on_stream(store)[-1].partition("-")[0]
    while on_stream(store)[-1].startswith(happened):
        happen(store, 1)  # what is as young as the last archived one stays
    later = SystemClock().now_ms() + 10_000
    assert trim_events(store, 1_000, later) == 0, "nothing of it is archived"
    archive_events(store, storage)
    assert trim_events(store, 3_600_000, later) == 0, "it is young"
    entries = on_stream(store)

    assert trim_events(store, 1_000, later) == len(entries) - 1

    assert on_stream(store) == entries[-1:]
    assert archived(storage) == entries


def test_a_full_redis_keeps_only_the_last_hour(store: RedisJobStore, storage: FolderStorage) -> None:
    """It refuses new jobs, and what is older stands in the archive."""
    happen(store, 200)
    archive_events(store, storage)
    in_two_hours = SystemClock().now_ms() + 2 * 3_600_000
    assert trim_events(store, 24 * 3_600_000, in_two_hours) == 0
    used = store.client.info("memory")["used_memory"]  # type: ignore[index]
    store.client.config_set("maxmemory", round(used * 1.2))

    try:
        trimmed = trim_events(store, 24 * 3_600_000, in_two_hours)
    finally:
        store.client.config_set("maxmemory", 0)

    assert trimmed > 0
    assert len(archived(storage)) == 200


def test_an_entry_that_nobody_can_read_does_not_stop_the_archive(store: RedisJobStore, storage: FolderStorage) -> None:
    store.client.xadd(store.events, {"ce": b"\xff\xfe"})
    store.client.xadd(store.events, {"something": b"else"})
    happen(store, 1)

    assert archive_events(store, storage) == 3
    assert archived(storage) == on_stream(store)


def test_every_chore_of_the_fleet_can_be_done(store: RedisJobStore, storage: FolderStorage) -> None:
    happen(store, 1)

    for chore in chores(store, storage, SystemClock(), keep_events_s=3600).values():
        chore.do()

    assert len(archived(storage)) == 1
