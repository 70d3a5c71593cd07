"""The consumer on a real Redis: every event is handled, and none twice that need not be."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from pydantic import ValidationError
from redis_server import LossyProxy, RedisServer, running_server
from stories import EVENTS_OF_A_STORY, Teller, all_events
from structlog.testing import capture_logs
from waiting import wait_until

from pipeline.errors import PipelineError
from pipeline.events import EVENTS, STREAM, AssetData, Event
from workers.consumer import EventConsumer, Handler

PATIENCE_S = 30
"""Ends a test that would hang; no test waits for it."""


class Ledger:
    """A handler that writes down what it gets, and raises where it is told to."""

    def __init__(self, *, broken_by: Callable[[Event], bool] = lambda _event: False) -> None:
        self.events: list[Event] = []
        self.broken_by = broken_by
        self._grown = threading.Condition()

    def __call__(self, event: Event) -> None:
        if self.broken_by(event):
            raise ZeroDivisionError(event.name)
        with self._grown:
            self.events.append(event)
            self._grown.notify_all()

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]

    def wait_for(self, count: int) -> None:
        with self._grown:
            assert self._grown.wait_for(lambda: len(self.events) >= count, PATIENCE_S), self.ids


def both(own: Ledger, common: Ledger) -> Handler:
    def handle(event: Event) -> None:
        own(event)
        common(event)

    return handle


def member(server: RedisServer | LossyProxy, name: str = "one", **changes: Any) -> EventConsumer:
    url = server.url if isinstance(server, LossyProxy) else server.url()
    return EventConsumer(url, "api", name, **changes)


@contextmanager
def at_work(consumer: EventConsumer, handler: Handler) -> Iterator[None]:
    """The consumer runs in a thread until the block ends; what it raised is raised here."""
    stop, raised = threading.Event(), []

    def live() -> None:
        try:
            consumer.run(handler, stop)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if raised:
        raise raised[0]


def ids(server: RedisServer) -> list[str]:
    """Every event on the stream, as it was written."""
    with server.client() as client:
        return [event.id for event in all_events(client)]


def pending(server: RedisServer) -> int:
    with server.client() as client:
        found: Any = client.xpending(STREAM, "api")
        return int(found["pending"])


@pytest.fixture
def teller(redis_server: RedisServer) -> Iterator[Teller]:
    with redis_server.client() as client:
        yield Teller(client)


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    return redis_server


def is_playable(event: Event) -> bool:
    return event.name == "asset.playable"


# -- the good days ----------------------------------------------------------------------------------------------------


def test_every_event_comes_once_in_order_and_with_its_model(server: RedisServer, teller: Teller) -> None:
    teller.tell(1)
    teller.break_(2)
    ledger = Ledger()

    member(server).poll(ledger)
    member(server).poll(ledger)  # nothing is left for a second look

    assert ledger.ids == ids(server)
    assert len(ledger.ids) > EVENTS_OF_A_STORY
    assert all(type(event.payload) is EVENTS[event.name][0] for event in ledger.events)
    last = ledger.events[-1].payload
    assert isinstance(last, AssetData)
    assert (last.asset.id, last.asset.video.status) == ("asset000002", "Error")
    assert pending(server) == 0


def test_members_share_the_work_and_groups_do_not(server: RedisServer, teller: Teller) -> None:
    first, second, together, other = Ledger(), Ledger(), Ledger(), Ledger()
    with (
        at_work(member(server, "one"), both(first, together)),
        at_work(member(server, "two"), both(second, together)),
    ):
        for number in range(8):
            teller.tell(number)
        together.wait_for(8 * EVENTS_OF_A_STORY)
    EventConsumer(server.url(), "billing", "one").poll(other)

    assert Counter(first.ids + second.ids) == Counter(ids(server))
    assert other.ids == ids(server)


def test_a_new_group_may_begin_now_or_after_an_id(server: RedisServer, teller: Teller) -> None:
    teller.tell(1)
    with server.client() as client:
        entries: Any = client.xrange(STREAM)
    from_now, from_middle = Ledger(), Ledger()
    late = EventConsumer(server.url(), "late", "one", start="$")
    late.poll(from_now)  # the group begins with its first use

    EventConsumer(server.url(), "middle", "one", start=entries[4][0].decode()).poll(from_middle)
    teller.break_(2)
    late.poll(from_now)

    assert from_middle.ids == ids(server)[5:EVENTS_OF_A_STORY]
    assert from_now.ids == ids(server)[EVENTS_OF_A_STORY:]


# -- handlers that fail -----------------------------------------------------------------------------------------------


def test_an_event_whose_handler_raised_comes_first_the_next_time(server: RedisServer, teller: Teller) -> None:
    teller.tell(1)
    ledger = Ledger(broken_by=is_playable)
    consumer = member(server)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            consumer.poll(ledger)
    before = len(ledger.ids)
    ledger.broken_by = lambda _event: False

    consumer.poll(ledger)

    assert ledger.events[before].name == "asset.playable"
    assert ledger.ids == ids(server)


def test_a_member_that_comes_back_goes_on_where_it_was(server: RedisServer, teller: Teller) -> None:
    """It need not wait for its own event to be taken over."""
    teller.tell(1)
    ledger = Ledger(broken_by=is_playable)
    with pytest.raises(ZeroDivisionError):
        member(server, "one").poll(ledger)
    ledger.broken_by = lambda _event: False

    member(server, "one", reclaim_s=3600).poll(ledger)

    assert ledger.ids == ids(server)


def test_what_a_dead_member_left_goes_to_another_after_a_while(server: RedisServer, teller: Teller) -> None:
    teller.tell(1)
    dead, patient, heir = Ledger(broken_by=is_playable), Ledger(), Ledger()
    with pytest.raises(ZeroDivisionError):
        member(server, "dead").poll(dead)

    member(server, "patient", reclaim_s=3600).poll(patient)
    assert "asset.playable" not in {event.name for event in patient.events}
    assert pending(server) == 1
    member(server, "heir", reclaim_s=0).poll(heir)

    assert [event.name for event in heir.events] == ["asset.playable"]
    assert Counter(dead.ids + patient.ids + heir.ids) == Counter(ids(server))
    assert pending(server) == 0


def test_a_poison_event_is_set_aside_and_not_lost(server: RedisServer, teller: Teller) -> None:
    teller.tell(1)
    ledger, later = Ledger(broken_by=is_playable), Ledger()
    consumer = member(server, set_aside_after=3)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            consumer.poll(ledger)

    with capture_logs() as logs:
        consumer.poll(ledger)
    EventConsumer(server.url(), "api", "mended", stream=consumer.set_aside).poll(later)

    assert [line["action"] for line in logs] == ["consumer.set_aside"]
    assert [event.name for event in later.events] == ["asset.playable"]
    assert ledger.ids == [event for event in ids(server) if event not in later.ids]
    assert pending(server) == 0


def test_what_is_no_event_stops_the_line_and_is_not_lost(server: RedisServer, teller: Teller) -> None:
    teller.tell(1)
    with server.client() as client:
        client.xadd(STREAM, {"ce": '{"specversion":"7"}'})
    teller.break_(2)
    ledger = Ledger()
    for _ in range(2):
        with pytest.raises(ValidationError):
            member(server).poll(ledger)

    member(server, set_aside_after=2).poll(ledger)

    with server.client() as client:
        aside: Any = client.xrange(f"{STREAM}:set-aside:api")
    assert [fields[b"ce"] for _, fields in aside] == [b'{"specversion":"7"}']
    assert [event.subject for event in ledger.events[EVENTS_OF_A_STORY:]] == ["asset000002"] * 6


def test_a_handler_that_misses_redis_ends_the_run(server: RedisServer, teller: Teller) -> None:
    """Only the consumer's own outages are waited for."""
    teller.tell(1)

    stop, tries = threading.Event(), []

    def submit(event: Event) -> None:
        tries.append(event.id)
        if len(tries) > 2:
            stop.set()
        raise PipelineError("queue_unavailable", reason="another Redis")

    with pytest.raises(PipelineError, match="another Redis"):
        member(server).run(submit, stop)
    assert len(tries) == 1
    assert pending(server) == 1


# -- what Redis does --------------------------------------------------------------------------------------------------


def test_an_event_that_stands_twice_on_the_stream_is_handled_once(server: RedisServer, teller: Teller) -> None:
    """A failover may lose a commit that is then made again: the same id, and another entry."""
    teller.tell(1)
    with server.client() as client:
        entries: Any = client.xrange(STREAM)
        client.xadd(STREAM, entries[3][1])
    ledger = Ledger()

    member(server).poll(ledger)

    assert ledger.ids == ids(server)[:-1]
    assert pending(server) == 0


def test_a_rebuilt_record_may_say_the_same_again(server: RedisServer, teller: Teller) -> None:
    teller.tell(1)
    with server.client() as client:
        again = all_events(client)[0]
        client.xadd(STREAM, {"ce": again.model_copy(update={"epoch": again.epoch + 1}).model_dump_json()})
    ledger = Ledger()

    member(server).poll(ledger)

    assert ledger.ids == ids(server)


def test_a_run_outlives_an_outage() -> None:
    with running_server(appendonly=True) as server, server.client() as client:
        teller = Teller(client)
        teller.tell(1)
        ledger = Ledger()
        with capture_logs() as logs, at_work(member(server), ledger):
            ledger.wait_for(EVENTS_OF_A_STORY)
            server.kill()
            wait_until(lambda: "consumer.waiting" in [line["action"] for line in logs])
            server.start()
            teller.tell(2)
            ledger.wait_for(2 * EVENTS_OF_A_STORY)

        assert ledger.ids == ids(server)
        assert [line["action"] for line in logs] == ["consumer.waiting", "consumer.resumed"]


def test_a_run_may_begin_and_end_while_redis_is_away() -> None:
    with running_server() as server:
        server.kill()
        with capture_logs() as logs, at_work(member(server), Ledger()):
            wait_until(lambda: bool(logs))

        assert [line["action"] for line in logs] == ["consumer.waiting"]
        with pytest.raises(PipelineError) as raised:
            member(server).poll(Ledger())
        assert raised.value.code == "queue_unavailable"


@pytest.mark.parametrize("lost", [b"XREADGROUP", b"XACK", b"XAUTOCLAIM", b"XGROUP"])
def test_a_lost_reply_loses_and_repeats_nothing(server: RedisServer, teller: Teller, lost: bytes) -> None:
    """Redis did what it was asked, and the connection broke before it could say so."""
    teller.tell(1)
    proxy = LossyProxy(server)
    budget = iter([True, True, True])
    proxy.lose = lambda asked: lost in asked and next(budget, False)
    ledger = Ledger()
    try:
        with at_work(member(proxy, reclaim_s=0), ledger):
            ledger.wait_for(EVENTS_OF_A_STORY)
    finally:
        proxy.close()

    assert proxy.lost == 3
    assert ledger.ids == ids(server)
    assert pending(server) == 0


def test_a_full_redis_is_waited_for(server: RedisServer, teller: Teller) -> None:
    """What was handled is not handled again only because it could not be acknowledged."""
    teller.tell(1)
    ledger = Ledger()
    with server.client() as client:
        try:
            client.config_set("maxmemory", 1)
            with capture_logs() as logs, at_work(member(server), ledger):
                wait_until(lambda: bool(logs))
                assert len(ledger.ids) <= 1
                client.config_set("maxmemory", 0)
                ledger.wait_for(EVENTS_OF_A_STORY)
        finally:
            client.config_set("maxmemory", 0)

    assert ledger.ids == ids(server)


def test_what_was_trimmed_off_the_stream_does_not_stop_the_line(server: RedisServer, teller: Teller) -> None:
    teller.tell(1)
    broken, ledger, heir = Ledger(broken_by=lambda _event: True), Ledger(), Ledger()
    for name in ("one", "two"):
        with pytest.raises(ZeroDivisionError):
            member(server, name).poll(broken)
    with server.client() as client:
        client.xtrim(STREAM, maxlen=0)
    teller.break_(2)

    with capture_logs() as logs:
        member(server, "one").poll(ledger)
        for _ in range(2):  # Redis 6.2 hands over an entry without its id first
            member(server, "two", reclaim_s=0).poll(heir)

    assert [event.subject for event in ledger.events] == ["asset000002"] * 6
    assert heir.ids == []
    assert {line["action"] for line in logs} == {"consumer.missed"}
    assert pending(server) == 0


def test_a_group_that_redis_forgot_begins_again(server: RedisServer, teller: Teller) -> None:
    teller.tell(1)
    ledger = Ledger()
    consumer = member(server, start="$")
    consumer.poll(ledger)
    with server.client() as client:
        client.flushall()
    teller.tell(2)

    consumer.poll(ledger)

    assert {event.subject for event in ledger.events} == {"asset000002"}
    assert ledger.ids == ids(server)


def test_a_replay_handles_everything_again(server: RedisServer, teller: Teller) -> None:
    teller.tell(1)
    ledger = Ledger()
    consumer = member(server)
    consumer.poll(ledger)

    consumer.replay()
    consumer.poll(ledger)

    assert ledger.ids == ids(server) * 2


def test_a_wrong_password_is_not_waited_for(server: RedisServer) -> None:
    stop = threading.Event()
    with server.client() as client:
        client.config_set("requirepass", "secret")
        client.execute_command("AUTH", "secret")
        with capture_logs() as logs:
            too_late = threading.Timer(PATIENCE_S, stop.set)
            too_late.start()
            try:
                with pytest.raises(redis.AuthenticationError):
                    member(server).run(Ledger(), stop)
            finally:
                too_late.cancel()
                client.config_set("requirepass", "")
    assert logs == []
