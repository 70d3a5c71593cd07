"""Requests on the stream: every entry is answered, whatever it is, and nothing stops the line. On a real Redis."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis_server import running_server
from stories import Teller, all_events
from waiting import wait_until

from pipeline.errors import PipelineError
from pipeline.events import Event
from pipeline.requests import STREAM, BatchRequest, Request
from workers import intake as intake_module
from workers.intake import GROUP, MAX_BYTES, MAX_DELIVERIES, MEMBER, TRIES, Intake
from workers.redis_client import Client

ASSET = "k3v9x0q2m7a"
PATIENCE_S = 30
"""Ends a test that would hang; no test waits for it."""


class ToyDoor:
    """Accepts what asks for an asset; `trouble` is asked first, and may raise."""

    def __init__(self, teller: Teller) -> None:
        self.conductor = teller.conductor
        self.trouble: Callable[[Request], None] = lambda _request: None
        self.asked: Counter[str] = Counter()

    def handle(self, request: Request) -> tuple[str, ...]:
        self.asked[request.id] += 1
        self.trouble(request)
        requests = request.requests if isinstance(request, BatchRequest) else (request,)
        return tuple(self.conductor.accept(each).id for each in requests)  # type: ignore[arg-type]


class FrontDesk:
    """A Redis with one intake that goes on step by step."""

    def __init__(self, client: Client) -> None:
        self.client: Any = client
        self.teller = Teller(client)
        self.door = ToyDoor(self.teller)
        self.intake = self.another()

    def another(self) -> Intake:
        return Intake(self.client, self.door, self.teller.conductor)

    def send(self, body: str | bytes | None = None, **changes: object) -> bytes:
        """Put an entry on the stream; `changes` of a request in order, or whatever `body` is."""
        wish = {"type": "asset.process", "id": "one", "asset_id": ASSET, "url": "/clip.mp4", **changes}
        entry: bytes = self.client.xadd(STREAM, {"request": json.dumps(wish) if body is None else body})
        return entry

    def work(self) -> None:
        while self.intake.step():
            pass

    @property
    def events(self) -> list[Event]:
        return [event for event in all_events(self.client) if event.name in ("asset.accepted", "request.refused")]

    @property
    def refusals(self) -> list[dict[str, Any]]:
        return [event.data for event in self.events if event.name == "request.refused"]

    @property
    def accepted(self) -> list[str | None]:
        return [event.correlationid for event in self.events if event.name == "asset.accepted"]

    def assert_nothing_is_left(self) -> None:
        assert self.client.xlen(STREAM) == 0
        assert self.client.xpending(STREAM, GROUP)["pending"] == 0


@pytest.fixture
def desk(redis_server) -> Iterator[FrontDesk]:  # type: ignore[no-untyped-def]
    with redis_server.client() as client:
        yield FrontDesk(client)


@contextmanager
def running(*intakes: Intake) -> Iterator[None]:
    for intake in intakes:
        intake.start()
    try:
        yield
    finally:
        for intake in intakes:
            intake.stop()


# -- the door ---------------------------------------------------------------------------------------------------------


def test_any_language_can_ask_for_an_asset(desk: FrontDesk) -> None:
    wish = '{"type": "asset.process", "asset_id": "k3v9x0q2m7a", "url": "/videos/a.mp4", "meta": {"course": 42}}'
    desk.client.execute_command("XADD", "reelway:requests", "*", "request", wish)

    desk.work()

    (event,) = desk.events
    assert (event.name, event.subject, event.data["meta"]) == ("asset.accepted", ASSET, {"course": 42})
    desk.assert_nothing_is_left()


def test_a_running_intake_takes_what_comes(desk: FrontDesk) -> None:
    with running(desk.intake):
        desk.send()
        wait_until(lambda: desk.accepted == ["one"])
        desk.send(id="two", asset_id="asset000002")
        wait_until(lambda: desk.accepted == ["one", "two"])

    desk.assert_nothing_is_left()


def test_an_idle_intake_asks_redis_once_a_read(desk: FrontDesk) -> None:
    desk.intake.step(0.01)
    before = desk.client.info("stats")["total_commands_processed"]
    for _ in range(5):
        desk.intake.step(0.01)

    assert desk.client.info("stats")["total_commands_processed"] - before == 5 + 1  # and the second INFO


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param("", "parameter_invalid", id="nothing"),
        pytest.param("{", "parameter_invalid", id="half"),
        pytest.param("[1, 2]", "parameter_invalid", id="no object"),
        pytest.param(b"\xff\xfe\x00\x93", "parameter_invalid", id="binary"),
        pytest.param("[" * 50_000, "parameter_invalid", id="deep"),
        pytest.param("1" * 6000, "parameter_invalid", id="a number of 6000 digits"),
        pytest.param('{"type": "asset.process", "url": "/a", "title": "\\ud800"}', "parameter_invalid", id="surrogate"),
        pytest.param('{"url": "/a"}', "parameter_not_provided", id="no type"),
        pytest.param('{"type": "asset.melt"}', "parameter_invalid", id="unknown type"),
        pytest.param('{"type": "asset.process"}', "parameter_not_provided", id="no url"),
        pytest.param(json.dumps({"type": "asset.process", "x" * 5000: 1}), "parameter_invalid", id="a long name"),
        pytest.param('{"type": "asset.process", "url": "/a", "meta": {"n": NaN}}', "parameter_invalid", id="NaN"),
        pytest.param(
            json.dumps({"type": "asset.process", "url": "/a" * MAX_BYTES}), "parameter_invalid", id="too large"
        ),
        pytest.param("x" * 5_000_000, "parameter_invalid", id="huge"),
    ],
)
def test_what_is_no_request_is_refused_and_the_next_is_taken(desk: FrontDesk, body: str | bytes, code: str) -> None:
    entry = desk.send(body)
    desk.send()

    desk.work()

    (refusal,) = desk.refusals
    assert (refusal["error"]["code"], refusal["request"]) == (code, entry.decode())
    assert len(refusal["error"]["message"]) < 500
    assert desk.events[0].subject == "-"
    assert desk.accepted == ["one"]
    desk.assert_nothing_is_left()


@pytest.mark.raises_code("parameter_not_provided")
def test_an_entry_without_the_field_is_refused(desk: FrontDesk) -> None:
    desk.client.xadd(STREAM, {"reqest": "{}"})

    desk.work()

    assert desk.refusals[0]["error"]["params"] == {"parameter": "request"}
    desk.assert_nothing_is_left()


@pytest.mark.raises_code("parameter_invalid")
def test_a_refusal_finds_its_sender(desk: FrontDesk) -> None:
    desk.send(resolutions=["999p"], meta={"course": 42}, organization="acme")

    desk.work()

    (event,) = desk.events
    assert (event.subject, event.source) == (ASSET, "/reelway/acme")
    assert (event.data["request"], event.data["meta"]) == ("one", {"course": 42})
    assert event.data["error"]["params"] == {"detail": "asset.process.resolutions: unknown resolution '999p'; known"
                                             " are 240p, 360p, 480p, 540p, 720p, 1080p"}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "not an id", "meta": {"course": 42}},
        {"id": 7, "asset_id": "short", "organization": "…"},
        {"meta": {"much": "x" * 5000}},
        {"meta": [1]},
    ],
)
def test_what_cannot_be_read_of_a_request_is_left_out_of_the_refusal(desk: FrontDesk, changes: Any) -> None:
    entry = desk.send(**changes)

    desk.work()

    (event,) = desk.events
    assert event.subject == ("-" if "asset_id" in changes else ASSET)
    assert event.data["request"] == (entry.decode() if "id" in changes else "one")
    assert event.data["meta"] == (changes["meta"] if changes.get("meta") == {"course": 42} else {})
    assert event.source == "/reelway/default"


def refuse_with(code: str, **params: Any) -> Callable[[Request], None]:
    def refuse(_request: Request) -> None:
        raise PipelineError(code, **params)

    return refuse


def test_what_the_doorman_refuses_is_told_with_its_values(desk: FrontDesk) -> None:
    desk.door.trouble = refuse_with("profile_unknown", profile="x", available="default", retry_after_s=30)
    desk.send()

    desk.work()

    assert desk.refusals[0]["error"]["params"]["retry_after_s"] == 30


def test_the_same_request_sent_again_is_answered_again(desk: FrontDesk) -> None:
    desk.door.trouble = refuse_with("profile_unknown", profile="x", available="default")
    for _ in range(2):
        desk.send()

    desk.work()

    assert len(desk.refusals) == 2
    assert len({event.id for event in desk.events}) == 2


# -- bad days ---------------------------------------------------------------------------------------------------------


def test_a_request_that_comes_twice_is_accepted_once(desk: FrontDesk) -> None:
    for _ in range(3):
        desk.send()

    desk.work()

    assert desk.accepted == ["one"]
    desk.assert_nothing_is_left()


def test_a_request_without_ids_is_one_however_often_it_is_handled(
    desk: FrontDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reply was lost: it was accepted, and the intake does not know."""
    accept = desk.door.handle

    def lose_the_first_reply(request: Request) -> tuple[str, ...]:
        jobs = accept(request)
        if desk.door.asked[request.id] == 1:
            raise PipelineError("queue_unavailable", reason="timeout")
        return jobs

    monkeypatch.setattr(desk.door, "handle", lose_the_first_reply)
    entry = desk.send('{"type": "asset.process", "url": "/clip.mp4"}')
    with running(desk.intake):
        wait_until(lambda: desk.client.xlen(STREAM) == 0)

    assert desk.door.asked == {entry.decode(): 2}
    assert desk.accepted == [entry.decode()]
    assert desk.refusals == []


def test_intakes_share_the_stream(desk: FrontDesk) -> None:
    ids = [f"request-{number}" for number in range(60)]
    with running(*(desk.another() for _ in range(4))):
        for number, id_ in enumerate(ids):
            desk.send(id=id_, asset_id=f"asset{number:06d}")
        wait_until(lambda: len(desk.accepted) >= len(ids))

    assert sorted(map(str, desk.accepted)) == sorted(ids)
    assert set(desk.door.asked.values()) == {1}
    desk.assert_nothing_is_left()


def test_a_request_that_only_meets_a_bug_is_refused_in_the_end(desk: FrontDesk) -> None:
    def bug(request: Request) -> None:
        if request.id == "one":
            raise RuntimeError("a bug")

    desk.door.trouble = bug
    desk.send()
    desk.send(id="two", asset_id="asset000002")

    desk.work()

    assert desk.door.asked["one"] == TRIES
    (refusal,) = desk.refusals
    assert (refusal["request"], refusal["error"]["code"]) == ("one", "request_failed")
    assert refusal["error"]["params"] == {"reason": "RuntimeError"}
    assert desk.accepted == ["two"]
    desk.assert_nothing_is_left()


def fall_into_dead_hands(desk: FrontDesk, *, deliveries: int = 1) -> None:
    """A worker took the next entry and was killed, half a minute ago."""
    desk.intake.step()
    desk.send()
    ((_, [(entry, _fields)]),) = desk.client.xreadgroup(GROUP, MEMBER, {STREAM: ">"})
    desk.client.xclaim(STREAM, GROUP, MEMBER, 0, [entry], idle=31_000, retrycount=deliveries)
    desk.intake = desk.another()


def test_what_a_dead_worker_took_is_taken_over(desk: FrontDesk) -> None:
    fall_into_dead_hands(desk)

    desk.work()

    assert desk.accepted == ["one"]
    desk.assert_nothing_is_left()


def test_what_a_living_worker_has_in_hands_is_left_to_it(desk: FrontDesk) -> None:
    desk.intake.step()
    desk.send()
    desk.client.xreadgroup(GROUP, MEMBER, {STREAM: ">"})
    desk.intake = desk.another()

    desk.work()

    assert desk.events == []


@pytest.mark.raises_code("request_failed")
def test_a_request_that_no_worker_survives_is_refused(desk: FrontDesk) -> None:
    fall_into_dead_hands(desk, deliveries=MAX_DELIVERIES)

    desk.work()

    assert desk.refusals[0]["error"]["code"] == "request_failed"
    assert desk.door.asked == Counter()
    desk.assert_nothing_is_left()


@pytest.mark.parametrize("code", ["storage_unavailable", "queue_unavailable"])
def test_while_the_world_around_fails_a_request_waits_and_others_go_on(desk: FrontDesk, code: str) -> None:
    def trouble(request: Request) -> None:
        if request.id == "one" and desk.door.asked["one"] < 3:
            raise PipelineError(code, reason="timeout")

    desk.door.trouble = trouble
    desk.send()
    desk.send(id="two", asset_id="asset000002")
    with running(desk.intake):
        wait_until(lambda: len(desk.accepted) == 2)

    assert desk.accepted == ["two", "one"]
    assert desk.refusals == []
    desk.assert_nothing_is_left()


def test_what_waits_is_kept_from_others_and_counts_no_delivery(desk: FrontDesk) -> None:
    desk.door.trouble = refuse_with("storage_unavailable", reason="timeout")
    entry = desk.send()
    with running(desk.intake):
        wait_until(lambda: desk.door.asked["one"] == 3)
    (pending,) = desk.client.xpending_range(STREAM, GROUP, "-", "+", 10)

    assert (pending["message_id"], pending["times_delivered"]) == (entry, 1)
    assert pending["time_since_delivered"] < 10_000


def silent_for_half_a_minute(desk: FrontDesk, entry: bytes) -> None:
    """Nobody has said that the entry is in hands."""
    desk.client.xclaim(STREAM, GROUP, MEMBER, 0, [entry], idle=31_000, justid=True)


def idle_ms(desk: FrontDesk) -> int:
    (pending,) = desk.client.xpending_range(STREAM, GROUP, "-", "+", 10)
    return int(pending["time_since_delivered"])


def test_what_another_worker_has_answered_meanwhile_is_not_answered_again(desk: FrontDesk) -> None:
    """The machine slept while the request waited."""
    desk.door.trouble = refuse_with("storage_unavailable", reason="timeout")
    entry = desk.send()
    desk.intake.step()
    silent_for_half_a_minute(desk, entry)
    desk.door.trouble = lambda _request: None
    desk.another().step()
    asked = desk.door.asked["one"]

    wait_until(lambda: desk.intake.step() == 1)
    desk.work()

    assert desk.door.asked["one"] == asked
    assert desk.accepted == ["one"]
    desk.assert_nothing_is_left()


def test_a_request_that_takes_long_stays_in_hands(desk: FrontDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage that is silent is not a dead worker: nobody takes it over and counts a delivery."""
    monkeypatch.setattr(intake_module, "HOLD_S", 0.01)
    storage_speaks = threading.Event()

    def wait_for_the_storage(_request: Request) -> None:
        storage_speaks.wait(2 * PATIENCE_S)

    desk.door.trouble = wait_for_the_storage
    entry = desk.send()
    with running(desk.intake):
        try:
            wait_until(lambda: desk.door.asked["one"] == 1)
            silent_for_half_a_minute(desk, entry)
            wait_until(lambda: idle_ms(desk) < 10_000)
        finally:
            storage_speaks.set()
        wait_until(lambda: desk.accepted == ["one"])

    desk.assert_nothing_is_left()


def test_a_newer_record_is_left_to_a_newer_worker(desk: FrontDesk) -> None:
    desk.door.trouble = refuse_with("schema_newer", what="job", found=9, known=1)
    desk.send()

    desk.work()

    assert desk.events == []
    assert desk.client.xpending(STREAM, GROUP)["pending"] == 1


def test_a_group_that_redis_lost_is_made_again(desk: FrontDesk) -> None:
    with running(desk.intake):
        desk.send()
        wait_until(lambda: desk.accepted == ["one"])
        desk.client.flushdb()
        desk.send(id="two")
        wait_until(lambda: desk.accepted == ["two"])

    desk.assert_nothing_is_left()


def test_requests_outlive_a_redis_that_is_killed() -> None:
    with running_server(appendonly=True) as server, server.client() as client:
        desk = FrontDesk(client)
        with running(desk.intake):
            desk.send()
            wait_until(lambda: desk.accepted == ["one"])
            server.kill()
            server.start()
            desk.send(id="two", asset_id="asset000002")
            wait_until(lambda: desk.accepted == ["one", "two"])

        desk.assert_nothing_is_left()
