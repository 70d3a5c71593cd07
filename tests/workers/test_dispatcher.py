"""Dispatcher and switchboard: the threads of a worker that keep everybody else's work moving."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from builders import a_profile, a_request
from memory_fleet import NOWHERE, MemoryFleet, Wide
from redis_server import RedisServer, running_server

from pipeline.conductor import Conductor
from pipeline.errors import PipelineError
from pipeline.job import Ref
from pipeline.memory import MemoryTickets, SystemClock
from pipeline.ports import Quotas
from workers.dispatcher import AHEAD, Dispatcher
from workers.progress import RedisProgress
from workers.redis_client import connect
from workers.redis_jobs import DUE, RedisJobStore
from workers.switchboard import SLOT, Switchboard

PATIENCE_S = 20.0


def until(condition: Callable[[], bool], changed: threading.Condition) -> None:
    with changed:
        assert changed.wait_for(condition, PATIENCE_S)


# -- dispatcher -------------------------------------------------------------------------------------------------------


def test_it_moves_no_more_than_the_workers_can_take_soon() -> None:
    world = MemoryFleet(steps=10)
    world.conductor.accept(a_request())
    dispatcher = Dispatcher(world.store, world.tickets, world.switchboard, {"transcode": 2, "audio": 2})
    assert dispatcher.dispatch() == AHEAD * 2
    assert dispatcher.dispatch() == 0, "nobody has fetched any"
    world.tickets.sent["transcode"].pop()
    assert dispatcher.dispatch() == 1


def test_what_was_taken_is_sent_when_the_transport_is_back() -> None:
    """Taken out of the ready index and not sent: without its memory it would wait for the due index."""

    class Broken(MemoryTickets):
        broken = True

        def send(self, ref: Ref, stage: str) -> None:
            if self.broken:
                raise PipelineError("queue_unavailable", reason="test")
            super().send(ref, stage)

    world = MemoryFleet(steps=2)
    tickets = Broken()
    world.conductor.accept(a_request())
    dispatcher = Dispatcher(world.store, tickets, world.switchboard, {"transcode": 1})
    for _ in range(3):
        with pytest.raises(PipelineError):
            dispatcher.dispatch()
    tickets.broken = False
    assert dispatcher.dispatch() == 2
    assert sorted(ref.step for ref in tickets.sent["transcode"]) == ["s0", "s1"]


class Heard(MemoryTickets):
    """Tickets whose arrival can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()

    def send(self, ref: Ref, stage: str) -> None:
        with self.changed:
            super().send(ref, stage)
            self.changed.notify_all()


@pytest.mark.parametrize("topic", ["transcode", SLOT])
def test_a_ring_is_enough(topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dispatcher that never looks by itself hears of ready steps and of free slots."""
    monkeypatch.setattr("workers.dispatcher.LOOK_S", 1e6)
    world, tickets = MemoryFleet(), Heard()
    dispatcher = Dispatcher(world.store, tickets, world.switchboard, {"transcode": 1})
    dispatcher.start()
    world.conductor.accept(a_request())
    world.switchboard.ring(topic)
    until(lambda: tickets.waiting("transcode") == 1, tickets.changed)
    dispatcher.stop()


def test_it_asks_once_for_all_stages_and_heeds_the_quotas() -> None:
    world = MemoryFleet(steps=10)
    world.conductor.accept(a_request())
    world.conductor.accept(a_request(id="request-2", asset_id="asset000002", organization="other"))
    quotas = Quotas(default=3, by_organization={"other": 1})
    dispatcher = Dispatcher(world.store, world.tickets, world.switchboard, {"audio": 8, "transcode": 8}, quotas)
    assert dispatcher.dispatch() == 4
    assert [ref.job for ref in world.tickets.sent["transcode"]].count("request-2") == 1
    world.store.pause("transcode", True)
    assert dispatcher.dispatch() == 0


def test_what_nobody_rang_for_is_found_a_moment_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ring was lost. While nothing is ready, that costs one look and no question to any queue."""
    monkeypatch.setattr("workers.dispatcher.LOOK_S", 0.01)

    class Counted(Heard):
        asked = 0

        def waiting(self, stage: str) -> int:
            self.asked += 1
            return super().waiting(stage)

    world, tickets = MemoryFleet(), Counted()
    looked = threading.Semaphore(0)
    figures = world.store.queues

    def watched() -> Any:
        looked.release()
        return figures()

    monkeypatch.setattr(world.store, "queues", watched)
    dispatcher = Dispatcher(world.store, tickets, world.switchboard, {"transcode": 1})
    dispatcher.start()
    for _ in range(3):
        assert looked.acquire(timeout=PATIENCE_S)
    assert tickets.asked == 1, "when it began"
    world.conductor.accept(a_request())
    until(lambda: bool(tickets.sent["transcode"]), tickets.changed)
    dispatcher.stop()


def test_it_survives_a_redis_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.dispatcher._BACK_OFF_S", 0.01)
    with running_server(appendonly=True) as server, server.client() as client:
        store = RedisJobStore(client)
        switchboard, tickets = Switchboard(client), Heard()
        failed = threading.Event()
        take = store.take

        def watched(*args: Any) -> Any:
            try:
                return take(*args)
            except PipelineError:
                failed.set()
                raise

        monkeypatch.setattr(store, "take", watched)
        dispatcher = Dispatcher(store, tickets, switchboard, {"transcode": 1})
        server.kill()
        dispatcher.start()
        assert failed.wait(PATIENCE_S)
        server.start()
        Conductor(store, SystemClock(), Wide(), {"default": a_profile()}).accept(a_request())
        until(lambda: tickets.waiting("transcode") == 1, tickets.changed)
        dispatcher.stop()


# -- switchboard ------------------------------------------------------------------------------------------------------


@pytest.fixture
def switchboard(redis_server: RedisServer) -> Iterator[Switchboard]:
    with redis_server.client() as client:
        made = Switchboard(client)
        made.start()
        assert made.connected.wait(PATIENCE_S)
        yield made
        made.stop()


def test_a_ring_that_came_before_the_wait_is_not_lost() -> None:
    board = Switchboard(connect(NOWHERE))
    seen = board.heard("a", "b")
    board.ring("b")
    assert board.wait(seen, 0.0, "a", "b")
    assert not board.wait(board.heard("a", "b"), 0.0, "a", "b")
    board.ring("c")
    assert not board.wait(board.heard("a"), 0.0, "a")
    board.ring_all()
    assert board.wait(seen, 0.0, "a")


def test_commits_of_another_process_ring_here(switchboard: Switchboard, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        seen, due = switchboard.heard("transcode"), switchboard.heard(DUE)
        conductor = Conductor(RedisJobStore(client), SystemClock(), Wide(), {"default": a_profile()})
        conductor.accept(a_request())
        assert switchboard.wait(seen, PATIENCE_S, "transcode")

        stopped, other = threading.Event(), threading.Event()
        with switchboard.on_stop("request-1", stopped.set), switchboard.on_stop("request-2", other.set):
            conductor.cancel("request-1")
            assert stopped.wait(PATIENCE_S)
            assert switchboard.wait(due, PATIENCE_S, DUE)
        assert not other.is_set()


def test_a_stop_that_fails_does_not_silence_the_others(switchboard: Switchboard) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    stopped = threading.Event()
    with switchboard.on_stop("job", fail), switchboard.on_stop("job", stopped.set):
        switchboard.client.publish("reelway:stop", "job")
        assert stopped.wait(PATIENCE_S)


def test_after_a_reconnect_everybody_is_woken_and_missed_stops_are_found() -> None:
    with running_server() as server, server.client() as client:
        asked: list[str] = []

        def ended(job: str) -> bool:
            asked.append(job)
            return job == "ended" and len(asked) > 2

        board = Switchboard(client, ended=ended)
        ended_stop, running_stop = threading.Event(), threading.Event()
        with board.on_stop("ended", ended_stop.set), board.on_stop("running", running_stop.set):
            board.start()
            assert board.connected.wait(PATIENCE_S)
            seen = board.heard("anything")
            server.kill()
            server.start()
            assert board.wait(seen, PATIENCE_S, "anything")
            assert ended_stop.wait(PATIENCE_S)
            assert not running_stop.is_set()
        board.stop()


# -- progress ---------------------------------------------------------------------------------------------------------


def test_progress_is_state_and_one_entry_a_second_and_job(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        a, b = Ref(job="request-1", step="a"), Ref(job="request-1", step="b")
        Conductor(RedisJobStore(client), SystemClock(), Wide(), {"default": a_profile()}).accept(a_request())
        boards = [RedisProgress(client), RedisProgress(client)]  # two workers of one job
        boards[0].report(a, 0.25)
        boards[1].report(b, 0.5)
        assert boards[0].fractions("request-1") == {"a": 0.25, "b": 0.5}
        raw: Any = client
        assert raw.xlen("reelway:progress") == 1
        raw.delete("reelway:progress:request-1:told")  # a second later
        boards[0].report(b, 1.0)
        entries = [fields for _, fields in raw.xrange("reelway:progress")]
        assert [(entry[b"step"], entry[b"fraction"]) for entry in entries] == [(b"a", b"0.2500"), (b"b", b"1.0000")]
        assert {(entry[b"job"], entry[b"asset"]) for entry in entries} == {(b"request-1", b"asset000001")}
        assert raw.ttl("reelway:progress:request-1") > 0
        assert boards[0].fractions("other") == {}


def test_progress_never_makes_the_work_wait() -> None:
    board = RedisProgress(connect(NOWHERE))
    board.report(Ref(job="j", step="s"), 0.5)
    with pytest.raises(PipelineError, match="queue_unavailable"):
        board.fractions("j")
