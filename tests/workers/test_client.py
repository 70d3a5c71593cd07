"""The Python client, on a real Redis with a real intake."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from redis_server import RedisServer, running_server
from stories import Teller, all_events

from pipeline.errors import PipelineError
from pipeline.events import STREAM as EVENTS
from pipeline.job import Ref
from pipeline.requests import STREAM, BatchRequest, CancelRequest, ProcessRequest, Request
from workers.client import Accepted, Client
from workers.intake import Intake

ASSET = "k3v9x0q2m7a"


class Door:
    """Accepts everything, or refuses it with `error`."""

    def __init__(self, teller: Teller) -> None:
        self.conductor = teller.conductor
        self.error: PipelineError | None = None

    def handle(self, request: Request) -> tuple[str, ...]:
        if self.error is not None:
            raise self.error
        requests: Sequence[Any] = request.requests if isinstance(request, BatchRequest) else (request,)
        return tuple(self.conductor.accept(each).id for each in requests)


class Fleet:
    """An intake without any worker."""

    def __init__(self, server: RedisServer) -> None:
        self.redis: Any = server.client()
        self.teller = Teller(self.redis)
        self.door = Door(self.teller)
        self.client = Client(server.url())

    @contextmanager
    def awake(self) -> Iterator[None]:
        intake = Intake(self.redis, self.door, self.teller.conductor)
        intake.start()
        try:
            yield
        finally:
            intake.stop()


@pytest.fixture
def fleet(redis_server: RedisServer) -> Iterator[Fleet]:
    made = Fleet(redis_server)
    yield made
    made.redis.close()


def a_wish(**changes: Any) -> dict[str, Any]:
    return {"type": "asset.process", "id": "one", "asset_id": ASSET, "url": "/clip.mp4", **changes}


def test_a_request_is_accepted(fleet: Fleet) -> None:
    with fleet.awake():
        accepted = fleet.client.submit(a_wish())

    assert accepted == Accepted(request="one", jobs=("one",))
    assert [event.subject for event in all_events(fleet.redis)] == [ASSET, ASSET]


def test_what_is_sent_is_small_and_says_what_was_said(fleet: Fleet) -> None:
    entry = fleet.client.send(ProcessRequest(id="one", asset_id=ASSET, url="/clip.mp4", title="Übung"))

    ((id_, fields),) = fleet.redis.xrange(STREAM)
    assert id_.decode() == entry
    assert json.loads(fields[b"request"]) == a_wish(title="Übung")


def test_the_same_request_is_accepted_again(fleet: Fleet) -> None:
    with fleet.awake():
        assert fleet.client.submit(a_wish()) == fleet.client.submit(a_wish())

    assert len(all_events(fleet.redis)) == 2


def test_a_batch_becomes_its_jobs_in_order(fleet: Fleet) -> None:
    members = [{"type": "asset.process", "url": f"/{number}.mp4"} for number in range(3)]
    with fleet.awake():
        accepted = fleet.client.submit({"type": "asset.batch", "id": "all", "requests": members})

    assert accepted.jobs == ("all-1", "all-2", "all-3")


def test_a_refusal_is_raised_as_it_was_told(fleet: Fleet) -> None:
    fleet.door.error = PipelineError("profile_unknown", profile="x", available="default", retry_after_s=30)
    with fleet.awake(), pytest.raises(PipelineError) as caught:
        fleet.client.submit(a_wish())

    assert caught.value.document() == fleet.door.error.document()


def test_a_second_refusal_of_the_same_request_is_heard_as_well(fleet: Fleet) -> None:
    with fleet.awake():
        for current in (1, 2):
            fleet.door.error = PipelineError("profile_unknown", profile=current, available="default")
            with pytest.raises(PipelineError) as caught:
                fleet.client.submit(a_wish())
            assert caught.value.params["profile"] == current


def test_the_refusal_of_another_request_is_not_ours(fleet: Fleet) -> None:
    fleet.redis.xadd(STREAM, {"request": json.dumps(a_wish(id="one-more", url=None, meta={"about": "one"}))})
    with fleet.awake():
        assert fleet.client.submit(a_wish()).jobs == ("one",)


@pytest.mark.raises_code("request_unanswered")
def test_without_workers_a_request_stays_unanswered_and_is_kept(fleet: Fleet) -> None:
    with pytest.raises(PipelineError) as caught:
        fleet.client.submit(a_wish(), wait_s=0.2)
    assert caught.value.code == "request_unanswered"

    with fleet.awake():
        assert fleet.client.submit(a_wish()).jobs == ("one",)


def test_what_is_no_request_is_not_sent(fleet: Fleet) -> None:
    with pytest.raises(PipelineError) as caught:
        fleet.client.send({"type": "asset.process"})

    assert caught.value.code == "parameter_not_provided"
    assert fleet.redis.xlen(STREAM) == 0


def test_what_becomes_no_job_is_sent_and_not_waited_for(fleet: Fleet) -> None:
    wish = CancelRequest(asset_id=ASSET)
    with pytest.raises(PipelineError):
        fleet.client.submit(wish)
    assert fleet.client.send(wish)


def test_the_end_of_a_job_is_waited_for(fleet: Fleet) -> None:
    job = fleet.teller.accept(1)
    heard: list[str] = []
    waiting = threading.Thread(target=lambda: heard.append(fleet.client.wait(job.id, timeout_s=30).name))
    waiting.start()
    attempt = fleet.teller.conductor.begin(Ref(job=job.id, step="ingest"), "worker")
    assert attempt is not None
    fleet.teller.conductor.fail(attempt, PipelineError("video_file_broken"))
    waiting.join()

    assert heard == ["asset.failed"]


def test_the_end_of_a_job_is_found_afterwards(fleet: Fleet) -> None:
    fleet.teller.tell(1)
    fleet.teller.break_(2)

    assert fleet.client.wait("job-1").name == "asset.ready"
    assert fleet.client.wait("job-2").name == "asset.failed"


def test_what_a_job_told_is_found_among_all_that_was_told(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.client._PAGE", 2)
    for number in range(3):
        fleet.teller.tell(number)

    assert fleet.client.told("job-1", "asset.ingested").correlationid == "job-1"
    with pytest.raises(PipelineError) as caught:
        fleet.client.told("job-1", "trim.completed")
    assert caught.value.code == "cursor_expired"


def test_an_end_that_the_stream_has_forgotten_is_an_error(fleet: Fleet) -> None:
    fleet.teller.tell(1)
    fleet.redis.xtrim(EVENTS, maxlen=0)

    with pytest.raises(PipelineError) as caught:
        fleet.client.wait("job-1")
    assert caught.value.code == "cursor_expired"


def test_a_job_that_does_not_end_is_not_waited_for_for_ever(fleet: Fleet) -> None:
    job = fleet.teller.accept(1)

    with pytest.raises(TimeoutError):
        fleet.client.wait(job.id, timeout_s=0.2)


def test_without_redis_it_is_one_coded_error() -> None:
    with running_server() as server:
        client = Client(server.url())
        server.kill()
        for ask in (client.send, client.submit):
            with pytest.raises(PipelineError) as caught:
                ask(a_wish())
            assert caught.value.code == "queue_unavailable"
