"""Notifications of storages on the stream: what a rule names is accepted, once; the rest leaves no trace but a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import a_profile
from redis_server import RedisServer
from stories import all_events

from pipeline import plan
from pipeline.conductor import Conductor
from pipeline.doorman import Doorman
from pipeline.errors import PipelineError
from pipeline.memory import SystemClock
from pipeline.notifications import Arrival, SourceRule
from pipeline.organizations import Organization, Organizations
from pipeline.requests import STREAM
from pipeline.storage.buckets import Buckets
from pipeline.storage.folder import FolderStorage
from workers.intake import GROUP, MAX_DELIVERIES, MAX_LATER, MEMBER, Intake
from workers.redis_jobs import RedisJobStore

STORAGE = "s3://films/ours?endpoint=http://127.0.0.1:1"
RULES = Organizations(
    default=Organization(sources=(SourceRule(prefix="s3://films/uploads/"), SourceRule(prefix="s3://films/ours/"))),
    organizations={
        "newsroom": Organization(
            sources=(
                SourceRule(prefix="s3://films/uploads/news/", in_place=True),
                SourceRule(prefix="s3://films/uploads/wrong/", profile="none"),
                SourceRule(prefix="s3://elsewhere/uploads/"),
            )
        )
    },
)


class Desk:
    """An intake on a real Redis, with a real doorman."""

    def __init__(self, client: Any, root: Path) -> None:
        self.client = client
        clock = SystemClock()
        self.conductor = Conductor(RedisJobStore(client, clock=clock), clock, plan, {"default": a_profile()})
        self.doorman = Doorman(self.conductor, FolderStorage(root), RULES)
        allow = Buckets.of("", STORAGE).allow
        self.intake = Intake(client, self.doorman, self.conductor, rules=RULES.sources, allow=allow)

    def tell(self, *keys: str, bucket: str = "films", **changes: Any) -> bytes:
        """A notification that these objects were written."""
        records = [
            {
                "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": 9, "eTag": "e"}},
            }
            for key in keys
        ]
        entry: bytes = self.client.xadd(STREAM, {"request": json.dumps({"Records": records, **changes})})
        while self.intake.step():
            pass
        return entry

    def told(self, name: str) -> list[Any]:
        return [event for event in all_events(self.client) if event.name == name]

    def job(self, id_: str) -> Any:
        return self.conductor.store.job(id_)


@pytest.fixture
def desk(redis_server: RedisServer, tmp_path: Path) -> Iterator[Desk]:
    with redis_server.client() as client:
        yield Desk(client, tmp_path)


def arrival(key: str) -> Arrival:
    return Arrival(bucket="films", key=key, mark="|e|")


def test_an_object_that_a_rule_names_becomes_an_asset(desk: Desk) -> None:
    desk.tell("uploads/news/evening+edition.mp4")

    meant = arrival("uploads/news/evening edition.mp4")
    job = desk.job(meant.request)
    assert (job.asset, job.organization, job.request["in_place"]) == (meant.asset, "newsroom", True)
    assert job.source == "s3://films/uploads/news/evening%20edition.mp4"
    assert desk.client.xlen(STREAM) == 0
    (accepted,) = desk.told("asset.accepted")
    assert accepted.data["asset"]["video"]["inputs"] == [{"url": job.source}]


def test_told_twice_it_is_one_asset(desk: Desk) -> None:
    desk.tell("uploads/a.mp4")
    desk.tell("uploads/a.mp4")

    assert len(desk.told("asset.accepted")) == 1
    assert desk.told("request.refused") == []


@pytest.mark.parametrize(
    ("key", "bucket"),
    [
        ("other/a.mp4", "films"),
        ("uploads/a.mp4", "elsewhere"),
        ("ours/transcoded/asset000001/video-240p/abc/0.m4s", "films"),
        ("ours/private/asset000001.mp4", "films"),
        ("uploads/../ours/private/asset000001.mp4", "films"),
        ("uploads//a.mp4", "films"),
        ("uploads/folder/", "films"),
    ],
)
def test_what_no_rule_names_and_what_may_not_be_read_is_ignored(key: str, bucket: str, desk: Desk) -> None:
    """What we store ourselves above all: it would be made again and again."""
    desk.tell(key, bucket=bucket)

    assert all_events(desk.client) == []
    assert desk.client.xlen(STREAM) == 0


def test_each_object_is_answered_for_itself(desk: Desk) -> None:
    desk.tell("uploads/a.mp4", "uploads/wrong/b.mp4", "uploads/c.mp4")

    assert {event.correlationid for event in desk.told("asset.accepted")} == {
        arrival("uploads/a.mp4").request,
        arrival("uploads/c.mp4").request,
    }
    (refused,) = desk.told("request.refused")
    meant = arrival("uploads/wrong/b.mp4")
    assert refused.data["error"]["code"] == "profile_unknown"
    assert (refused.subject, refused.data["request"]) == (meant.asset, meant.request)
    assert refused.source == "/reelway/newsroom"


def test_what_cannot_be_read_is_refused_and_the_stream_goes_on(desk: Desk) -> None:
    entry = desk.tell(Records=[{"eventName": "ObjectCreated:Put", "s3": {}}])

    (refused,) = desk.told("request.refused")
    assert refused.data["error"]["code"] == "parameter_invalid"
    assert (refused.subject, refused.data["request"]) == ("-", entry.decode())
    assert desk.client.xlen(STREAM) == 0


def test_a_record_that_cannot_be_read_takes_no_other_with_it(desk: Desk) -> None:
    good = {"bucket": {"name": "films"}, "object": {"key": "uploads/a.mp4", "size": 9, "eTag": "e"}}
    desk.tell(Records=[{"eventName": "ObjectCreated:Put", "s3": said} for said in ({}, good)])

    (accepted,) = desk.told("asset.accepted")
    assert accepted.subject == arrival("uploads/a.mp4").asset
    (refused,) = desk.told("request.refused")
    assert refused.data["error"]["code"] == "parameter_invalid"


# -- no room ----------------------------------------------------------------------------------------------------------


def half_a_minute_later(desk: Desk) -> None:
    """Nobody has said that what is left is in hands: it is taken over."""
    pending = [each["message_id"] for each in desk.client.xpending_range(STREAM, GROUP, "-", "+", 1000)]
    desk.client.xclaim(STREAM, GROUP, MEMBER, 0, pending, idle=31_000, justid=True)
    desk.intake._reclaim_at = 0.0
    while desk.intake.step():
        pass


def let_in(desk: Desk, jobs: int) -> None:
    """So many open jobs the newsroom may have."""
    newsroom = RULES.organizations["newsroom"].model_copy(update={"max_open_jobs": jobs})
    desk.doorman.organizations = RULES.model_copy(update={"organizations": {"newsroom": newsroom}})


def deliveries(desk: Desk) -> list[int]:
    return [each["times_delivered"] for each in desk.client.xpending_range(STREAM, GROUP, "-", "+", 1000)]


def test_while_the_house_is_full_a_notification_waits_and_is_not_lost(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(desk.conductor.store, "pressure", lambda: 0.99)
        desk.tell("uploads/a.mp4")
        for _ in range(MAX_DELIVERIES + 1):
            half_a_minute_later(desk)

    assert desk.told("request.refused") == []
    assert max(deliveries(desk)) <= 1, "nobody died of it"
    half_a_minute_later(desk)
    (accepted,) = desk.told("asset.accepted")
    assert accepted.subject == arrival("uploads/a.mp4").asset
    assert desk.client.xlen(STREAM) == 0


def test_an_organization_without_room_keeps_nobody_from_getting_in(desk: Desk) -> None:
    """However many of its objects wait; what is refused for good is told once."""
    let_in(desk, 1)
    many = [f"uploads/news/{number}.mp4" for number in range(MAX_LATER + 50)]
    for key in many:
        desk.tell(key)
    desk.tell("uploads/news/last.mp4", "uploads/wrong/b.mp4", "uploads/theirs.mp4")
    half_a_minute_later(desk)

    inside = [event.subject for event in desk.told("asset.accepted")]
    assert inside == [arrival(many[0]).asset, arrival("uploads/theirs.mp4").asset]
    assert desk.told("request.refused") == []

    let_in(desk, 1000)
    half_a_minute_later(desk)

    assert len(desk.told("asset.accepted")) == len(many) + 2
    assert [event.data["error"]["code"] for event in desk.told("request.refused")] == ["profile_unknown"]
    assert desk.client.xlen(STREAM) == 0


def test_what_a_dead_worker_took_is_found_behind_all_that_waits_for_room(desk: Desk) -> None:
    let_in(desk, 1)
    for number in range(150):  # more than Redis looks through at once
        desk.tell(f"uploads/news/{number}.mp4")
    entry = desk.client.xadd(STREAM, {"request": '{"type": "asset.process", "id": "one", "url": "/a.mp4"}'})
    desk.client.xreadgroup(GROUP, MEMBER, {STREAM: ">"}, count=1)
    desk.client.xclaim(STREAM, GROUP, MEMBER, 0, [entry], idle=31_000, justid=True)

    desk.intake._reclaim_at = 0.0
    for _ in range(10):
        desk.intake.step()

    assert desk.job("one") is not None


def test_what_found_no_room_for_a_day_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk.conductor.store, "pressure", lambda: 0.99)
    monkeypatch.setattr("workers.intake.ROOM_S", 0.0)
    desk.tell("uploads/a.mp4")

    (refused,) = desk.told("request.refused")
    assert refused.data["error"]["code"] == "queue_full"
    assert desk.client.xlen(STREAM) == 0


def test_while_the_world_fails_all_of_it_waits_and_nothing_is_accepted_twice(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle, troubles = desk.doorman.handle, iter([False, True])

    def troubled(request: Any) -> tuple[str, ...]:
        if next(troubles, False):
            raise PipelineError("storage_unavailable", reason="away")
        return handle(request)

    monkeypatch.setattr(desk.doorman, "handle", troubled)
    monkeypatch.setattr("workers.intake.backoff_s", lambda *_: 0.0)
    desk.tell("uploads/a.mp4", "uploads/b.mp4")
    while desk.intake.step():
        pass

    assert len(desk.told("asset.accepted")) == 2
    assert desk.told("request.refused") == []
    assert desk.client.xlen(STREAM) == 0
