"""The conductor's promises one by one, as stories. The random worlds mix them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from builders import a_profile, a_request, some_ingest_facts
from toyplans import ToyPlan, ToyPlanner

from pipeline.conductor import (
    LEASE_S,
    MAX_LOSSES,
    MAX_SUSPICIONS,
    MIN_RETRIES,
    RETRY_FOR_S,
    Answer,
    Attempt,
    Caption,
    Conductor,
    Published,
    Subtitled,
    backoff_s,
)
from pipeline.document import Rendition, load
from pipeline.errors import PipelineError
from pipeline.events import ErrorData, Event, RefusalData
from pipeline.job import JOB_LEVEL, READY_DUE_S, SCHEMA, Job, JobStatus, Priority, Ref, Status, Step
from pipeline.memory import CLAIM_S, GRACE_S, ManualClock, MemoryJobStore
from pipeline.requests import DeleteRequest

PLAN = ToyPlan(
    first=(Step(id="ingest", stage="ingest"),),
    grown=(
        Step(id="picture", stage="work"),
        Step(id="caption", stage="work", optional=True),
        Step(id="package", stage="work", needs=("picture", "caption")),
    ),
    fates={},
)
INGEST = Ref(job="request-1", step="ingest")


class Desk:
    """A conductor over a store in memory, with a clock that the test moves."""

    def __init__(self, plan: ToyPlan = PLAN) -> None:
        self.clock = ManualClock()
        self.store = MemoryJobStore(self.clock)
        planner = ToyPlanner({"request-1": plan, "request-2": plan})
        self.conductor = Conductor(self.store, self.clock, planner, {"default": a_profile()}, jitter=lambda: 0.0)

    def accept(self) -> None:
        self.conductor.accept(a_request())

    def begin(self, step: str, worker: str = "w1") -> Attempt:
        attempt = self.conductor.begin(Ref(job="request-1", step=step), worker)
        assert attempt is not None
        return attempt

    def ingest(self) -> None:
        answer = Answer(ingest=some_ingest_facts(), source="private/asset000001.mp4")
        assert self.conductor.finish(self.begin("ingest"), answer)

    def step(self, step: str) -> Step:
        job = self.store.job("request-1")
        assert job is not None
        return job.steps[step]

    def status(self) -> JobStatus:
        job = self.store.job("request-1")
        assert job is not None
        return job.status

    def watch(self, seconds: float) -> Sequence[Ref]:
        """Time passes under the eyes of a sweeper; returns what is due at the end."""
        while seconds > 0:
            self.store.due(0)
            self.clock.advance(min(1, seconds))
            seconds -= 1
        return self.store.due(100)

    def fail(self, code: str, step: str = "ingest") -> None:
        assert self.conductor.fail(self.begin(step), PipelineError(code))

    def wake(self) -> None:
        """The time of the retry comes."""
        assert INGEST in self.watch((self.step("ingest").retries and 60) + 1)
        self.conductor.sweep(INGEST)

    def told(self) -> list[str]:
        return [event["type"].removeprefix("dev.reelway.").removesuffix(".v1") for event in self.store.events]


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.accept()
    return desk


def test_accepting_a_request_twice_is_accepting_it_once(desk: Desk) -> None:
    assert desk.conductor.accept(a_request()).id == "request-1"
    assert desk.told() == ["asset.accepted", "asset.updated"]


def test_another_request_cannot_take_an_asset_id(desk: Desk) -> None:
    with pytest.raises(PipelineError, match="asset_exists"):
        desk.conductor.accept(a_request(id="request-2"))
    assert desk.store.job("request-2") is None


def test_an_unknown_profile_is_refused_with_those_there_are() -> None:
    desk = Desk()
    with pytest.raises(PipelineError) as caught:
        desk.conductor.accept(a_request(profile="cinema"))
    assert caught.value.code == "profile_unknown"
    assert caught.value.hint == "Use one of: default."
    assert desk.store.job("request-1") is None


def test_the_profile_is_frozen_at_acceptance(desk: Desk) -> None:
    desk.conductor.profiles = {"default": a_profile(description="Changed afterwards.")}
    job = desk.store.job("request-1")
    assert job is not None
    assert job.profile["description"] == "For tests."


def test_the_plan_grows_in_the_commit_that_settles_ingest(desk: Desk) -> None:
    desk.ingest()
    assert [desk.step(name).status for name in ("ingest", "picture", "caption", "package")] == [
        Status.SUCCEEDED,
        Status.READY,
        Status.READY,
        Status.WAITING,
    ]
    assert desk.told()[-3:] == ["step.finished", "asset.ingested", "asset.updated"]


def test_the_last_of_two_needs_releases_what_waited_for_both(desk: Desk) -> None:
    desk.ingest()
    picture, caption = desk.begin("picture"), desk.begin("caption", "w2")
    assert desk.conductor.finish(caption, Answer())
    assert desk.step("package").status is Status.WAITING
    assert desk.conductor.finish(picture, Answer())
    assert desk.step("package").status is Status.READY


def test_an_optional_step_that_fails_is_missing_and_nothing_more(desk: Desk) -> None:
    desk.ingest()
    desk.conductor.fail(desk.begin("caption"), PipelineError("audio_file_broken"))
    desk.conductor.finish(desk.begin("picture"), Answer())
    desk.conductor.finish(desk.begin("package"), Answer())
    assert desk.status() is JobStatus.SUCCEEDED
    ready = next(event for event in desk.store.events if event["type"] == "dev.reelway.asset.ready.v1")
    assert ready["data"]["missing"] == ["caption"]


def test_a_required_step_that_fails_ends_the_job_at_once(desk: Desk) -> None:
    desk.ingest()
    caption = desk.begin("caption", "w2")
    desk.conductor.fail(desk.begin("picture"), PipelineError("video_file_broken"))
    assert desk.status() is JobStatus.FAILED
    assert not desk.conductor.renew(caption), "the others are told with their next renewal"
    assert not desk.conductor.finish(caption, Answer())
    assert desk.told()[-3:] == ["step.failed", "asset.failed", "asset.updated"]


def test_a_transient_failure_backs_off_and_tries_again(desk: Desk) -> None:
    for tried in range(MIN_RETRIES):
        desk.fail("storage_unavailable")
        assert desk.step("ingest").status is Status.RETRYING
        assert INGEST not in desk.watch(backoff_s(tried) - 0.5)
        assert INGEST in desk.watch(0.5)
        desk.conductor.sweep(INGEST)
        assert desk.step("ingest").status is Status.READY


@pytest.mark.parametrize(
    "code", ["storage_unavailable", "storage_full", "queue_unavailable", "schema_newer", "edit_changed"]
)
def test_an_outage_around_us_is_waited_for_almost_an_hour_and_not_for_ever(code: str, desk: Desk) -> None:
    start = desk.clock.now_ms()
    while desk.status() is JobStatus.ACTIVE:
        desk.fail(code)
        if desk.step("ingest").status is Status.RETRYING:
            desk.wake()
    waited_s = (desk.clock.now_ms() - start) / 1000
    assert RETRY_FOR_S <= waited_s <= RETRY_FOR_S + 62
    assert desk.step("ingest").error == PipelineError(code).document()


def test_attempts_that_take_an_hour_each_are_tried_a_few_times_all_the_same(desk: Desk) -> None:
    for _ in range(MIN_RETRIES):
        attempt = desk.begin("ingest")
        desk.clock.advance(RETRY_FOR_S)
        assert desk.conductor.fail(attempt, PipelineError("storage_unavailable"))
        desk.wake()
    desk.fail("storage_unavailable")
    assert desk.status() is JobStatus.FAILED


@pytest.mark.parametrize("code", ["stalled", "stage_interrupted"])
def test_what_may_be_the_file_s_fault_is_counted_and_an_outage_is_not_added(code: str, desk: Desk) -> None:
    for _ in range(2 * MAX_SUSPICIONS):
        desk.fail("storage_unavailable")
        desk.wake()
    for _ in range(MAX_SUSPICIONS):
        desk.fail(code)
        desk.wake()
    desk.fail(code)
    assert desk.status() is JobStatus.FAILED


def test_backing_off_doubles_up_to_a_minute_and_jitter_shortens_it() -> None:
    assert [backoff_s(retries) for retries in (0, 1, 2, 5, 6, 60, 5000)] == [1, 2, 4, 32, 60, 60, 60]
    assert [backoff_s(6, jitter) for jitter in (0.5, 1.0)] == [45, 30]


def test_steps_that_failed_together_come_back_one_by_one(desk: Desk) -> None:
    desk.ingest()
    desk.conductor.jitter = iter((0.0, 1.0)).__next__
    for step in ("picture", "caption"):
        desk.fail("storage_unavailable", step)
    waits = [event["data"]["retry_in_s"] for event in desk.store.events if "retry_in_s" in event["data"]]
    assert waits == [1.0, 0.5]
    assert [ref.step for ref in desk.watch(0.5)] == ["caption"]


def test_a_file_that_kills_its_workers_is_given_up(desk: Desk) -> None:
    for _ in range(MAX_LOSSES):
        desk.begin("ingest")
        assert INGEST in desk.watch(GRACE_S + LEASE_S)
        desk.conductor.sweep(INGEST)
    assert desk.status() is JobStatus.FAILED
    assert desk.step("ingest").error == PipelineError("worker_lost", losses=3, step="ingest").document()


def test_a_step_that_is_handed_back_is_ready_and_nothing_is_counted(desk: Desk) -> None:
    for _ in range(MAX_LOSSES + MIN_RETRIES):
        assert desk.conductor.hand_back(desk.begin("ingest"))
    step = desk.step("ingest")
    assert (step.status, step.losses, step.retries) == (Status.READY, 0, 0)
    assert desk.store.take({"ingest": 1}) == [INGEST]


def test_an_outage_of_the_store_is_not_a_loss(desk: Desk) -> None:
    """Nobody could renew a lease while the store was away, so none is judged until everybody had time to."""
    desk.watch(GRACE_S)
    attempt = desk.begin("ingest")
    desk.clock.advance(600)
    assert INGEST not in desk.store.due(10)
    assert INGEST not in desk.watch(GRACE_S - 1)
    assert desk.conductor.renew(attempt), "an expired lease that nobody took may be renewed"
    assert INGEST not in desk.watch(2)


def test_a_step_whose_ticket_was_lost_is_ready_again_and_no_sweeper_has_to_look(desk: Desk) -> None:
    desk.store.take({"ingest": 1})
    assert desk.watch(READY_DUE_S - 1) == []
    assert desk.store.take({"ingest": 9}) == []
    assert desk.watch(2) == []
    assert desk.store.take({"ingest": 9}) == [INGEST]


def test_a_sweep_that_comes_second_changes_nothing(desk: Desk) -> None:
    """Two sweepers hold a claim on the same step: the first was too slow. One of them wakes it."""
    desk.fail("storage_unavailable")
    assert desk.watch(1) == [INGEST]
    assert desk.watch(CLAIM_S - 1) == [], "it is in hand"
    assert desk.watch(1) == [INGEST], "it was not done"
    desk.conductor.sweep(INGEST)
    assert desk.begin("ingest").step.attempt == 2
    desk.conductor.sweep(INGEST)
    assert desk.step("ingest").status is Status.RUNNING


def test_a_sweep_does_not_take_a_lease_that_was_renewed_meanwhile(desk: Desk) -> None:
    attempt = desk.begin("ingest")
    assert INGEST in desk.watch(GRACE_S + LEASE_S)
    assert desk.conductor.renew(attempt)
    desk.conductor.sweep(INGEST)
    assert desk.step("ingest").status is Status.RUNNING


def test_a_worker_that_lost_its_lease_finishes_nothing_and_publishes_nothing(desk: Desk) -> None:
    zombie = desk.begin("ingest")
    desk.watch(GRACE_S + LEASE_S)
    desk.conductor.sweep(INGEST)
    winner = desk.begin("ingest", "w2")
    told = len(desk.store.events)
    assert not desk.conductor.renew(zombie)
    assert not desk.conductor.publishing(zombie)
    assert not desk.conductor.finish(zombie, Answer())
    assert not desk.conductor.fail(zombie, PipelineError("video_file_broken"))
    assert not desk.conductor.hand_back(zombie)
    assert len(desk.store.events) == told
    assert desk.conductor.renew(winner)


def test_a_job_cannot_be_cancelled_while_it_changes_what_the_public_sees(desk: Desk) -> None:
    desk.ingest()
    attempt = desk.begin("picture")
    assert desk.conductor.publishing(attempt)
    assert desk.conductor.publishing(attempt), "the reply may have been lost: saying it again is fine"
    with pytest.raises(PipelineError, match="asset_busy"):
        desk.conductor.cancel("request-1")
    assert desk.conductor.hand_back(attempt)
    with pytest.raises(PipelineError, match="asset_busy"):  # what the public sees may be half changed
        desk.conductor.cancel("request-1")


def test_a_job_that_published_before_all_is_done_cannot_be_cancelled(desk: Desk) -> None:
    """Nothing public goes away by a cancel, and nothing public belongs to a cancelled job."""
    desk.ingest()
    attempt = desk.begin("caption")
    assert desk.conductor.publishing(attempt)
    assert desk.conductor.finish(attempt, Answer())
    assert desk.status() is JobStatus.ACTIVE
    with pytest.raises(PipelineError, match="asset_busy"):
        desk.conductor.cancel("request-1")


def test_a_cancelled_job_ends_once(desk: Desk) -> None:
    assert desk.conductor.cancel("request-1")
    assert not desk.conductor.cancel("request-1")
    assert desk.conductor.begin(INGEST, "w1") is None
    assert desk.told() == ["asset.accepted", "asset.updated", "asset.cancelled", "asset.updated"]


def test_an_ended_job_is_tidied_by_one_sweeper_and_again_if_that_one_dies(desk: Desk) -> None:
    end = Ref(job="request-1", step=JOB_LEVEL)
    desk.conductor.cancel("request-1")
    assert desk.store.due(10) == [end]
    job = desk.conductor.sweep(end)
    assert job is not None
    assert desk.conductor.sweep(end) is None, "it is in hand"
    assert end in desk.watch(60), "it was not tidied"
    job = desk.conductor.sweep(end)
    assert job is not None
    desk.conductor.tidied(job)
    assert desk.watch(600) == []


def test_storage_is_tidied_when_the_last_worker_has_stopped(desk: Desk) -> None:
    """One that is told to stop may be in the middle of storing."""
    end = Ref(job="request-1", step=JOB_LEVEL)
    desk.ingest()
    desk.begin("caption", "w2")
    desk.conductor.fail(desk.begin("picture"), PipelineError("video_file_broken"))
    assert desk.watch(LEASE_S - 1) == []
    assert desk.watch(1) == [end]


def test_storage_is_tidied_at_once_where_nobody_works_any_more(desk: Desk) -> None:
    desk.ingest()
    desk.conductor.fail(desk.begin("picture"), PipelineError("video_file_broken"))
    assert desk.store.due(10) == [Ref(job="request-1", step=JOB_LEVEL)]


def test_a_record_of_a_newer_version_is_left_alone(desk: Desk) -> None:
    job = desk.store.job("request-1")
    assert job is not None
    desk.store._jobs["request-1"] = replace(job, schema=SCHEMA + 1)
    assert desk.conductor.begin(INGEST, "w1") is None
    assert not desk.conductor.cancel("request-1")
    assert desk.step("ingest").status is Status.READY
    desk.store._jobs["request-1"] = replace(job, schema=SCHEMA + 1, status=JobStatus.CANCELLED, steps={})
    assert desk.conductor.sweep(Ref(job="request-1", step=JOB_LEVEL)) is None, "its storage is not ours to tidy"


def test_the_world_hears_of_a_request_that_was_refused() -> None:
    desk = Desk()
    error = PipelineError("profile_unknown", profile="cinema", available="default")
    desk.conductor.refuse("asset000001", error, request="request-9", organization="acme", meta={"order": 7})
    (event,) = map(Event.model_validate, desk.store.events)
    assert (event.name, event.id, event.subject) == ("request.refused", "request-9.request.refused", "asset000001")
    assert event.source == "/reelway/acme"
    assert event.payload == RefusalData(
        request="request-9", error=ErrorData.model_validate(error.document()), meta={"order": 7}
    )
    assert desk.conductor.accept(a_request()).asset == "asset000001", "the asset is as free as before"


# -- captions ---------------------------------------------------------------------------------------------------------

SPOKEN = ToyPlan(
    first=(Step(id="ingest", stage="ingest"),),
    grown=(
        Step(id="package", stage="package"),
        Step(id="subtitle", stage="subtitle", needs=("package",), optional=True),
    ),
    fates={},
)
PICTURE = Rendition(name="video-720p", kind="video", codec="avc1.64001f", bandwidth=1, bytes=1)
CAPTION = Caption(
    id="text-en-auto",
    name="English (auto-generated)",
    language="en",
    key="transcoded/asset000001/subtitles/text-en-auto/5c1f0a9e77b2.vtt",
    auto_generated=True,
)


def published(version: int, *captions: Caption) -> Published:
    return Published(version=version, duration_ms=10_000, segments=3, renditions=(PICTURE,), captions=captions)


def spoken_desk() -> Desk:
    """An asset that plays, and whose speech is still to be heard."""
    desk = Desk(SPOKEN)
    desk.accept()
    desk.ingest()
    assert desk.conductor.finish(desk.begin("package"), Answer(published=published(1)))
    return desk


def data_of(desk: Desk, name: str) -> dict[str, Any]:
    return next(event["data"] for event in desk.store.events if event["type"] == f"dev.reelway.{name}.v1")


def test_captions_come_to_an_asset_that_plays_and_it_is_ready_with_them() -> None:
    desk = spoken_desk()
    assert desk.told()[-3:] == ["track.ready", "asset.playable", "asset.updated"]

    answer = Answer(facts={"words": 24}, published=published(2, CAPTION), subtitled=Subtitled(track=CAPTION.id))
    assert desk.conductor.finish(desk.begin("subtitle"), answer)

    track = {
        "id": "text-en-auto",
        "track": "text-en-auto",
        "type": "Subtitle",
        "name": "English (auto-generated)",
        "language": "en",
        "url": f"/{CAPTION.key}",
        "auto_generated": True,
    }
    assert desk.told()[-6:] == [
        "step.finished", "track.ready", "subtitle.completed", "asset.updated", "asset.ready", "asset.updated",
    ]  # fmt: skip
    assert data_of(desk, "subtitle.completed") == {
        "job": "request-1", "facts": {"words": 24}, "track": track, "version": 2, "meta": {},
    }  # fmt: skip
    assert data_of(desk, "asset.ready")["asset"]["video"]["tracks"] == [track]
    assert desk.told().count("asset.playable") == 1


def test_where_nobody_speaks_nothing_changes_and_it_is_said() -> None:
    desk = spoken_desk()
    before = data_of(desk, "asset.playable")["asset"]["version"]

    assert desk.conductor.finish(desk.begin("subtitle"), Answer(facts={"speech": False}, subtitled=Subtitled()))

    assert desk.told()[-4:] == ["step.finished", "subtitle.completed", "asset.ready", "asset.updated"]
    assert data_of(desk, "subtitle.completed") == {"job": "request-1", "facts": {"speech": False}, "meta": {}}
    ready = data_of(desk, "asset.ready")
    assert (ready["asset"]["video"]["tracks"], ready["asset"]["version"]) == ([], before + 1)
    assert "missing" not in ready


def test_an_asset_without_the_captions_that_failed_is_ready_and_says_so() -> None:
    desk = spoken_desk()
    error = PipelineError("speech_model_missing", model="small")

    assert desk.conductor.fail(desk.begin("subtitle"), error)

    assert desk.told()[-4:] == ["step.failed", "subtitle.failed", "asset.ready", "asset.updated"]
    assert data_of(desk, "subtitle.failed")["error"] == error.document()
    assert data_of(desk, "asset.ready")["missing"] == ["subtitle"]
    assert desk.status() is JobStatus.SUCCEEDED


# -- an asset that plays is cancelled ---------------------------------------------------------------------------------


def test_a_cancel_of_an_asset_that_plays_gives_up_what_is_optional() -> None:
    """Captions take as long as the film: nobody has to wait for them, and what plays goes on playing."""
    desk = spoken_desk()
    attempt = desk.begin("subtitle")
    desk.clock.advance(5)
    told, plays = len(desk.told()), data_of(desk, "asset.playable")["asset"]["video"]

    assert desk.conductor.cancel("request-1")

    assert desk.told()[told:] == ["step.failed", "subtitle.failed", "asset.ready", "asset.updated"]
    cancelled = PipelineError("cancelled").document()
    assert data_of(desk, "subtitle.failed")["error"] == data_of(desk, "step.failed")["error"] == cancelled
    assert data_of(desk, "step.failed")["seconds"] == 5
    ready = data_of(desk, "asset.ready")
    assert ready["missing"] == ["subtitle"]
    assert ready["asset"]["video"] == {**plays, "status": "Completed", "progress": 100}
    assert (desk.status(), desk.step("subtitle").status) == (JobStatus.SUCCEEDED, Status.FAILED)
    assert not desk.conductor.renew(attempt), "its worker is told"
    assert not desk.conductor.publishing(attempt), "and can publish nothing any more"
    assert not desk.conductor.cancel("request-1")
    assert desk.watch(LEASE_S - 1) == [], "it may be storing still"
    assert desk.watch(1) == [Ref(job="request-1", step=JOB_LEVEL)]


def test_what_was_never_begun_is_given_up_as_well() -> None:
    desk = spoken_desk()
    assert desk.conductor.cancel("request-1")
    failed = data_of(desk, "step.failed")
    assert (failed["step"], failed["attempt"], failed["worker"]) == ("subtitle", 0, None)
    assert "seconds" not in failed
    assert desk.store.take({"subtitle": 9}) == []


def test_a_job_that_published_can_be_cancelled_again_and_while_captions_are_published_it_cannot() -> None:
    desk = Desk(SPOKEN)
    desk.accept()
    desk.ingest()
    package = desk.begin("package")
    assert desk.conductor.publishing(package)
    assert desk.status() is JobStatus.PUBLISHING
    assert desk.conductor.finish(package, Answer(published=published(1)))
    assert desk.status() is JobStatus.ACTIVE

    subtitle = desk.begin("subtitle")
    assert desk.conductor.publishing(subtitle)
    with pytest.raises(PipelineError, match="asset_busy"):
        desk.conductor.cancel("request-1")
    answer = Answer(published=published(2, CAPTION), subtitled=Subtitled(track=CAPTION.id))
    assert desk.conductor.finish(subtitle, answer)
    assert "missing" not in data_of(desk, "asset.ready")


# -- a worker that has no room ----------------------------------------------------------------------------------------


def test_a_step_that_does_not_fit_waits_and_is_anybodys_again(desk: Desk) -> None:
    desk.conductor.jitter = lambda: 0.5
    asked: list[tuple[str, str]] = []

    def full(job: Job, step: Step) -> float | None:
        asked.append((job.id, step.id))
        return 8.0

    told = len(desk.told())
    assert desk.conductor.begin(INGEST, "small", fits=full) is None

    step = desk.step("ingest")
    assert asked == [("request-1", "ingest")]
    assert (step.status, step.attempt, step.retries, step.losses, step.begun_ms) == (Status.RETRYING, 0, 0, 0, None)
    assert len(desk.told()) == told, "nobody hears of it"
    assert desk.store.take({"ingest": 9}) == []
    assert desk.watch(7) == []
    assert desk.watch(1) == [INGEST]
    desk.conductor.sweep(INGEST)
    assert desk.conductor.begin(INGEST, "large", fits=lambda job, step: None) is not None


def test_for_want_of_room_a_step_waits_as_long_as_it_takes(desk: Desk) -> None:
    for _ in range(3 * MAX_SUSPICIONS + MIN_RETRIES):
        assert desk.conductor.begin(INGEST, "small", fits=lambda job, step: 600.0) is None
        desk.watch(1000)
        desk.conductor.sweep(INGEST)
    assert desk.status() is JobStatus.ACTIVE
    assert desk.begin("ingest").step.attempt == 1


def test_those_that_found_no_room_together_do_not_come_back_together(desk: Desk) -> None:
    desk.ingest()
    desk.conductor.jitter = iter((0.0, 1.0)).__next__
    for step in ("picture", "caption"):
        desk.conductor.begin(Ref(job="request-1", step=step), "small", fits=lambda job, step: 8.0)
    assert [ref.step for ref in desk.watch(6)] == ["picture"]
    assert [ref.step for ref in desk.watch(4)] == ["caption"]


# -- held -------------------------------------------------------------------------------------------------------------


def test_what_runs_goes_on_while_its_job_is_held_and_nothing_follows(desk: Desk) -> None:
    attempt = desk.begin("ingest")
    assert desk.conductor.hold("request-1")
    assert desk.conductor.renew(attempt)
    assert desk.conductor.finish(attempt, Answer(ingest=some_ingest_facts(), source="private/asset000001.mp4"))

    assert desk.store.take({"work": 9}) == []
    assert desk.conductor.begin(Ref(job="request-1", step="picture"), "w1") is None

    assert desk.conductor.release("request-1")
    assert len(desk.store.take({"work": 9})) == 2


def test_an_ended_job_is_neither_held_nor_hurried(desk: Desk) -> None:
    desk.conductor.cancel("request-1")
    assert not desk.conductor.hold("request-1")
    assert not desk.conductor.prioritize("request-1", Priority.HIGH)


# -- what is shown ----------------------------------------------------------------------------------------------------


def test_what_was_published_earlier_and_is_told_later_changes_nothing() -> None:
    """Two jobs published version 2 and 3, and the worker of the first was slow to say so."""
    desk = spoken_desk()
    newer = replace(published(3, CAPTION), renditions=(PICTURE, replace_name(PICTURE, "video-1080p")))
    before = desk.store.asset("asset000001")
    assert before is not None
    shown = desk.conductor.shown(load(before.document), newer)

    assert desk.conductor.shown(shown, published(2)) == shown
    assert shown.presentation == 3
    assert [made.name for made in shown.video.renditions] == ["video-720p", "video-1080p"]


def test_captions_that_were_overtaken_are_completed_all_the_same() -> None:
    desk = spoken_desk()
    answer = Answer(
        published=replace(published(2, CAPTION), shown=4), subtitled=Subtitled(track=CAPTION.id), facts={"words": 24}
    )
    assert desk.conductor.finish(desk.begin("subtitle"), answer)
    assert data_of(desk, "subtitle.completed")["version"] == 2, "the one that brought them"
    assert data_of(desk, "asset.ready")["asset"]["presentation"] == 4, "the one that is described"


def replace_name(made: Rendition, name: str) -> Rendition:
    return made.model_copy(update={"name": name})


# -- a deletion -------------------------------------------------------------------------------------------------------


def test_a_deletion_waits_for_a_job_that_only_a_newer_worker_can_cancel(desk: Desk) -> None:
    end = Ref(job="delete-1", step=JOB_LEVEL)
    desk.conductor.accept(DeleteRequest(id="delete-1", ids=("asset000001",)))
    old = desk.store._jobs["request-1"]
    desk.store._jobs["request-1"] = replace(old, schema=SCHEMA + 1)
    assert end in desk.store.due(10)
    assert desk.conductor.sweep(end) is None
    assert desk.store.due(10) == [], "it is looked at again a little later"

    desk.store._jobs["request-1"] = old
    assert end in desk.watch(2)
    assert desk.conductor.sweep(end) is not None
    assert desk.status() is JobStatus.CANCELLED


def test_two_sweepers_do_not_delete_at_once_and_the_end_is_told_once(desk: Desk) -> None:
    end = Ref(job="delete-1", step=JOB_LEVEL)
    desk.conductor.cancel("request-1")
    desk.conductor.accept(DeleteRequest(id="delete-1", ids=("asset000001",)))
    desk.store.due(10)
    job = desk.conductor.sweep(end)
    assert job is not None
    assert desk.conductor.sweep(end) is None, "it is in hand"

    desk.conductor.tidied(job)
    desk.conductor.tidied(job)

    assert desk.told().count("asset.deleted") == 1
    assert end not in desk.watch(120)


def test_a_deletion_is_not_over_because_it_has_no_steps(desk: Desk) -> None:
    desk.conductor.accept(DeleteRequest(id="delete-1", ids=("asset000001",)))
    assert not desk.conductor.close("delete-1")
    assert "asset.ready" not in desk.told()
