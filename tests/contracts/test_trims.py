"""Trims and their kin at the door, on both stores: what is refused, what waits, what is told, what is remembered."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from books import Books, MemoryBooks
from front import ASSET, Front
from redis_server import RedisServer
from test_worlds_on_redis import RedisBooks, RedisClock

from pipeline import keys, plan
from pipeline.conductor import WhenBusy
from pipeline.errors import PipelineError
from pipeline.events import EVENTS, TrimStatus
from pipeline.job import JobStatus, Ref, Status
from pipeline.memory import ManualClock, MemoryJobStore
from pipeline.requests import parse_request
from pipeline.tasks import ExportTask, PackageTask, ReviseTask, TrimTask
from pipeline.trims import trims_of

OTHER = "cl1p0000001"
Open = Callable[..., Front]


@pytest.fixture(params=["memory", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens a front with an asset that plays, of ten seconds, on either store."""
    if request.param == "memory":
        yield lambda when="refuse": _ready(Front(tmp_path, books=_in_memory, when_busy=when))
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    with server.client() as client:

        def books(clock: ManualClock) -> Books:
            return RedisBooks(client, clock)

        yield lambda when="refuse": _ready(Front(tmp_path, clock=RedisClock(client), books=books, when_busy=when))


def _in_memory(clock: ManualClock) -> Books:
    return MemoryBooks(MemoryJobStore(clock))


def _ready(front: Front) -> Front:
    assert front.ready().status is JobStatus.SUCCEEDED
    return front


@pytest.fixture
def front(opened: Open) -> Front:
    return opened()


def data(front: Front, type_: str) -> dict[str, Any]:
    """Of the last event of this type, as its model has it."""
    (*_, event) = (event for event in front.events if event["type"] == f"dev.reelway.{type_}.v1")
    EVENTS[type_][0].model_validate(event["data"])
    return dict(event["data"])


def trims(front: Front) -> list[tuple[int, int]]:
    """Number and status of every trim, newest first."""
    return [(trim.id, trim.status) for trim in trims_of(front.store, front.storage, ASSET)]


def numbers(front: Front) -> list[str]:
    return [stored.key for stored in front.storage.list(f"{keys.NUMBERS}trim/")]


# -- a trim -----------------------------------------------------------------------------------------------------------


def test_a_trim_is_numbered_made_and_told_of_with_its_status(front: Front) -> None:
    front.ask("trim", id="t-1", asset_id=ASSET, start_time=2.04, end_time=7, meta={"course": 42})

    assert front.job("t-1").number == 1
    accepted = TrimStatus.model_validate(data(front, "asset.accepted")["trim"])
    assert (accepted.id, accepted.status, accepted.status_display) == (1, 1, "Pending")
    assert (accepted.start_time, accepted.end_time, accepted.background_task_id) == (2.04, 7.0, "t-1")
    attempt = front.begin("t-1", "trim")
    assert trims(front) == [(1, 2)]
    before = len(front.events)
    front.do(attempt)

    (task,) = front.done
    assert isinstance(task, TrimTask)
    assert (str(task.start), str(task.stop), task.of) == ("51/25", "7", "")
    assert task.timeline.frames == 250
    assert (task.video is not None, task.source) == (True, keys.source(ASSET, "clip.mp4"))
    told = data(front, "trim.completed")
    assert told.pop("trim")["status"] == 3
    assert told == {
        "job": "t-1",
        "change": "trim",
        "version": 2,
        "start_time": 2.04,
        "end_time": 7.0,
        "seconds": 4.96,
        "meta": {"course": 42},
    }
    # The end of the job comes in a move of its own, right after it.
    moves = ["step.finished", "trim.completed", "asset.updated"]
    assert front.told(before)[:3] == moves
    video = front.document()["video"]
    assert video["edit"] == {"start_time": 2.04, "end_time": 7.0, "trim_job_id": 1}
    assert (video["duration_ms"], video["duration"], video["status"]) == (4960, 5, "Completed")
    assert front.job("t-1").status is JobStatus.SUCCEEDED
    assert trims(front) == [(1, 3)]


def test_the_same_range_again_is_a_trim_of_its_own(front: Front) -> None:
    for name in ("t-1", "t-2"):
        front.ask("trim", id=name, asset_id=ASSET, start_time=2)
        front.live(seconds=5)

    assert front.shown().version == 3
    assert trims(front) == [(2, 3), (1, 3)]
    assert front.document()["video"]["edit"]["trim_job_id"] == 2


def test_a_trim_of_a_trim_counts_on_the_whole_asset(front: Front) -> None:
    front.ask("trim", asset_id=ASSET, start_time=6)
    front.live(seconds=5)
    front.ask("trim", asset_id=ASSET, end_time=3)
    front.live(seconds=5)

    assert front.document()["video"]["edit"]["start_time"] == 0.0
    assert front.document()["video"]["duration_ms"] == 3000


def test_the_same_request_is_one_trim_with_one_number_also_when_the_store_has_forgotten_it(front: Front) -> None:
    wish = {"id": "t-1", "asset_id": ASSET, "start_time": 2}
    assert front.ask("trim", **wish) == front.ask("trim", **wish) == ("t-1",)
    front.live(seconds=5)
    front.forget()

    assert front.ask("trim", **wish) == ("t-1",)
    assert front.store.job("t-1") is None, "it need not be made again"
    assert numbers(front) == [keys.number("trim", 1)]
    assert trims(front) == [(1, 3)]


def test_numbers_go_on_where_they_were_when_redis_is_lost(front: Front) -> None:
    front.ask("trim", asset_id=ASSET, start_time=2)
    front.live(seconds=5)
    front.forget()
    front.ask("trim", asset_id=ASSET, start_time=3)
    front.live(seconds=5)

    assert trims(front) == [(2, 3), (1, 3)]


def test_a_request_id_that_another_asset_had_before_redis_was_lost_gets_another_number(front: Front) -> None:
    front.ask("trim", id="t-1", asset_id=ASSET, start_time=2)
    front.live(seconds=5)
    front.process(id="p-2", asset_id=OTHER)
    front.live(seconds=20)
    front.forget()

    front.ask("trim", id="t-1", asset_id=OTHER, start_time=2)

    assert front.job("t-1").number == 2


@pytest.mark.raises_code("trim_range_invalid")
@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ('"start_time":-1', "start_time"),
        ('"start_time":NaN', "start_time"),
        ('"start_time":1e999', "start_time"),
        ('"start_time":10', "start_time"),
        ('"start_time":5,"end_time":5', "end_time"),
        ('"start_time":5,"end_time":4', "end_time"),
        ('"start_time":5.01,"end_time":5.02', "end_time"),
        ('"end_time":10.05', "end_time"),
    ],
)
@pytest.mark.parametrize("type_", ["trim", "clip"])
def test_a_range_that_cannot_be_is_refused_with_what_can_and_uses_no_number(
    type_: str, asked: str, field: str, front: Front
) -> None:
    before = front.events
    with pytest.raises(PipelineError) as caught:
        front.doorman.handle(parse_request(f'{{"type":"asset.{type_}","asset_id":"{ASSET}",{asked}}}'))

    assert caught.value.code == "trim_range_invalid"
    assert caught.value.params["field"] == field
    assert 0 <= float(caught.value.params["minimum"]) < float(caught.value.params["maximum"]) <= 10
    json.dumps(caught.value.document(), allow_nan=False)
    assert (front.events, numbers(front)) == (before, [])


@pytest.mark.parametrize(
    ("type_", "fields"),
    [
        ("trim", {"start_time": 1}),
        ("trim", {"start_time": 1, "preview": True}),
        ("revert_trim", {}),
        ("roll_back", {"version": 1}),
        ("clip", {"start_time": 1}),
        ("duplicate", {}),
        ("export", {}),
    ],
)
def test_what_needs_an_asset_that_plays_is_refused_without(type_: str, fields: dict[str, Any], front: Front) -> None:
    young = "y0ung000001"
    assert front.refusal(type_, asset_id=young, **fields).code == "asset_not_found"
    front.process(id="young", asset_id=young)
    assert front.refusal(type_, asset_id=young, **fields).code == "asset_not_ready"
    front.conductor.fail(front.begin("young", "ingest"), PipelineError("video_file_broken"))
    front.live(seconds=5)
    assert front.refusal(type_, asset_id=young, **fields).code == "asset_not_ready"

    front.ask("delete", ids=[ASSET])
    front.live()
    assert front.refusal(type_, asset_id=ASSET, **fields).code == "asset_deleted"
    assert numbers(front) == []


def test_what_plays_can_be_trimmed_while_its_first_job_still_listens_to_it(opened: Open) -> None:
    front = opened()
    young = "y0ung000001"
    front.process(id="young", asset_id=young, generate_subtitle=True)
    front.work({"ingest", "transcode", "audio", "package"})
    listening = front.begin("young", "subtitle")

    front.ask("trim", id="t-1", asset_id=young, start_time=2)
    front.work({"trim"})
    assert front.job("t-1").status is JobStatus.SUCCEEDED
    front.do(listening)

    assert front.document(young)["video"]["edit"]["start_time"] == 2.0
    assert len(front.document(young)["video"]["tracks"]) == 1


@pytest.mark.parametrize("becomes", ["completed", "failed", "cancelled"])
def test_what_becomes_of_a_trim_says_nothing_of_a_first_job_that_goes_on(becomes: str, opened: Open) -> None:
    front = opened()
    young = "y0ung000001"
    front.process(id="young", asset_id=young, generate_subtitle=True)
    front.work({"ingest", "transcode", "audio", "package"})
    listening = front.begin("young", "subtitle")

    front.ask("trim", id="t-1", asset_id=young, start_time=2)
    asked = front.document(young)["video"]["status"]
    if becomes == "completed":
        front.work({"trim"})
    elif becomes == "failed":
        front.conductor.fail(front.begin("t-1", "trim"), PipelineError("video_file_broken"))
    else:
        front.ask("cancel", asset_id=young, job="t-1")
    ended = front.document(young)["video"]["status"]
    front.do(listening)

    assert front.job("t-1").status.ended
    assert (asked, ended) == ("Transcoding", "Transcoding")
    assert front.document(young)["video"]["status"] == "Completed"


@pytest.mark.parametrize(
    ("type_", "fields"), [("trim", {"start_time": 3}), ("clip", {"end_time": 3}), ("export", {}), ("revert_trim", {})]
)
def test_who_is_told_that_an_asset_is_ready_may_go_on_at_once(type_: str, fields: dict[str, Any], opened: Open) -> None:
    """… though nobody has written the history of its first job yet."""
    front = opened()
    young = "y0ung000001"
    front.process(id="young", asset_id=young, start_time=2)
    front.work()
    assert data(front, "asset.ready")["job"] == "young"

    (job,) = front.ask(type_, asset_id=young, **fields)
    front.work()

    assert front.job(job).status is JobStatus.SUCCEEDED


# -- one at a time ----------------------------------------------------------------------------------------------------


@pytest.mark.raises_code("asset_busy")
def test_a_second_one_is_refused_while_one_is_under_way_and_uses_no_number(front: Front) -> None:
    front.ask("trim", id="t-1", asset_id=ASSET, start_time=2)

    for type_, fields in (("trim", {"end_time": 3}), ("revert_trim", {}), ("roll_back", {"version": 1})):
        error = front.refusal(type_, asset_id=ASSET, **fields)
        assert (error.code, error.params["detail"]) == ("asset_busy", "trim 1 has not ended")
    assert len(numbers(front)) == 1
    assert front.ask("trim", asset_id=ASSET, start_time=1, preview=True), "a preview changes nothing"
    assert front.ask("clip", asset_id=ASSET, start_time=1), "and a clip is another asset"
    assert front.ask("export", asset_id=ASSET)

    front.live(seconds=5)
    assert front.ask("revert_trim", asset_id=ASSET)


@pytest.mark.parametrize("when", ["refuse", "queue"])
def test_of_two_at_the_same_moment_one_is_let_in_or_one_comes_after_the_other(when: WhenBusy, opened: Open) -> None:
    front = opened(when)
    front.clock.advance(60)

    def ask(number: int) -> str:
        try:
            (job,) = front.ask("trim", id=f"t-{number}", asset_id=ASSET, start_time=number)
        except PipelineError as error:
            return error.code
        return job

    with ThreadPoolExecutor(max_workers=4) as pool:
        answers = list(pool.map(ask, range(4)))

    let_in = [answer for answer in answers if answer != "asset_busy"]
    assert len(let_in) == (1 if when == "refuse" else 4)
    order = sorted(let_in, key=lambda name: front.job(name).created_ms)
    assert len({front.job(name).created_ms for name in order}) == len(order), "which is first is never in doubt"
    front.live(seconds=20)
    assert [effect.job for effect in front.shown().effects if effect.job in let_in] == order


def test_who_is_let_in_between_our_look_and_our_move_is_seen(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other trim is accepted when ours has just been found to be alone."""
    claim, jobs = front.doorman.numbers.claim, front.store.jobs

    def found_alone(asset: str, **which: bool) -> Iterator[str]:
        found = list(jobs(asset, **which))
        monkeypatch.undo()
        assert front.ask("trim", id="rival", asset_id=asset, start_time=1) == ("rival",)
        return iter(found)

    def claimed(kind: str, owner: str) -> int:
        number = claim(kind, owner)
        monkeypatch.setattr(front.store, "jobs", found_alone)
        return number

    monkeypatch.setattr(front.doorman.numbers, "claim", claimed)
    with pytest.raises(PipelineError) as caught:
        front.ask("trim", id="t-1", asset_id=ASSET, start_time=2)

    assert (caught.value.code, caught.value.params["detail"]) == ("asset_busy", "trim 2 has not ended")
    assert front.store.job("t-1") is None


def test_one_that_waits_is_begun_by_nobody_before_those_before_it_have_ended(opened: Open) -> None:
    front = opened("queue")
    front.ask("trim", id="t-1", asset_id=ASSET, start_time=2)
    front.clock.advance(-60_000)  # another machine, whose clock is behind
    front.ask("revert_trim", id="r-1", asset_id=ASSET)
    front.ask("trim", id="t-2", asset_id=ASSET, start_time=4)
    first = front.begin("t-1", "trim")

    assert front.conductor.begin(Ref(job="r-1", step="package"), "w1") is None
    assert front.job("r-1").steps["package"].status is Status.RETRYING
    assert front.conductor.begin(Ref(job="t-2", step="trim"), "w1") is None
    assert "r-1" not in [event["data"].get("job") for event in front.events if "step.started" in event["type"]]
    front.do(first)
    front.live(seconds=20)

    assert [effect.job for effect in front.shown().effects][1:] == ["t-1", "r-1", "t-2"]
    assert front.document()["video"]["edit"]["trim_job_id"] == 2


def test_one_that_waits_goes_on_when_the_one_before_is_cancelled_or_fails(opened: Open) -> None:
    front = opened("queue")
    for name in ("t-1", "t-2", "t-3"):
        front.ask("trim", id=name, asset_id=ASSET, start_time=2)
    front.conductor.fail(front.begin("t-1", "trim"), PipelineError("video_file_broken"))
    front.ask("cancel", asset_id=ASSET, job="t-2")
    front.live(seconds=20)

    assert trims(front) == [(3, 3), (2, 4), (1, 4)]


def test_those_that_wait_ask_for_little_and_the_more_rarely_the_more_are_before_them(opened: Open) -> None:
    """However many wait, a look reads one other job: else a few hundred of them would keep the store busy."""
    front = opened("queue")
    for number in range(40):
        front.ask("trim", id=f"t-{number}", asset_id=ASSET, start_time=2)
    front.begin("t-0", "trim")

    looked = reads(front, lambda: front.conductor.begin(Ref(job="t-39", step="trim"), "w1"))
    assert front.job("t-39").steps["trim"].status is Status.RETRYING
    assert looked == {"t-39": 1, "t-0": 1}
    asked = reads(front, lambda: front.ask("trim", id="t-40", asset_id=ASSET, start_time=2))
    assert set(asked) <= {"t-40", "t-39"}

    front.conductor.begin(Ref(job="t-1", step="trim"), "w1")
    front.clock.advance(1.5)
    assert [ref.job for ref in front.store.due(100) if ref.job in ("t-1", "t-39")] == ["t-1"]


def reads(front: Front, happens: Callable[[], object]) -> Counter[str]:
    """How often which job is read meanwhile."""
    read, count = front.store.job, Counter[str]()

    def counted(id_: str) -> Any:
        count[id_] += 1
        return read(id_)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(front.store, "job", counted)
        happens()
    return count


# -- what comes to nothing --------------------------------------------------------------------------------------------


def test_a_trim_that_fails_says_so_and_the_asset_plays_as_before(front: Front) -> None:
    front.ask("trim", id="t-1", asset_id=ASSET, start_time=2)
    front.conductor.fail(front.begin("t-1", "trim"), PipelineError("video_file_broken"))
    front.live(seconds=5)

    told = data(front, "trim.failed")
    assert (told["error"]["code"], told["change"]) == ("video_file_broken", "trim")
    assert (told["trim"]["status"], told["trim"]["error"]["code"]) == (4, "video_file_broken")
    assert front.document()["video"]["status"] == "Completed"
    assert front.document()["video"]["edit"] is None
    assert trims(front) == [(1, 4)]

    front.ask("retry", id="again", asset_id=ASSET)
    front.live(seconds=5)
    assert front.document()["video"]["edit"]["trim_job_id"] == 2


def test_a_trim_that_is_cancelled_says_so_in_the_same_move(front: Front) -> None:
    front.ask("trim", id="t-1", asset_id=ASSET, start_time=2)
    before = len(front.events)
    front.ask("cancel", asset_id=ASSET)

    assert front.told(before) == ["trim.failed", "asset.cancelled", "asset.updated"]
    assert data(front, "trim.failed")["error"]["code"] == "cancelled"
    assert data(front, "trim.failed")["trim"]["status_display"] == "Failed"


# -- revert, roll back, preview ---------------------------------------------------------------------------------------


@pytest.mark.raises_code("not_trimmed", "version_not_found")
def test_a_revert_and_a_roll_back_need_something_to_go_back_to(front: Front) -> None:
    assert front.refusal("revert_trim", asset_id=ASSET).code == "not_trimmed"
    error = front.refusal("roll_back", asset_id=ASSET, version=2)
    assert (error.code, error.params["latest"]) == ("version_not_found", 1)


def test_a_revert_and_a_roll_back_are_told_of_and_shown(front: Front) -> None:
    front.ask("trim", asset_id=ASSET, start_time=2)
    front.live(seconds=5)
    front.done.clear()
    before = len(front.events)
    front.ask("revert_trim", asset_id=ASSET)
    front.live(seconds=5)

    (task,) = front.done
    assert isinstance(task, ReviseTask)
    assert task.change == "revert"
    assert "trim.reverted" in front.told(before)
    assert data(front, "trim.reverted")["change"] == "revert"
    assert data(front, "trim.reverted")["seconds"] == 10.0
    assert front.document()["video"]["edit"] is None
    assert front.document()["video"]["duration_ms"] == 10_000

    front.ask("roll_back", asset_id=ASSET, version=2)
    front.live(seconds=5)
    told = data(front, "trim.reverted")
    assert (told["change"], told["version"], told["start_time"], told["seconds"]) == ("roll_back", 4, 2.0, 8.0)
    assert front.document()["video"]["edit"]["trim_job_id"] == 1


def test_a_preview_has_no_number_and_changes_nothing(front: Front) -> None:
    document = front.document()["video"]
    front.ask("trim", asset_id=ASSET, start_time=2, end_time=6.02, preview=True)
    front.live(seconds=5)

    (task,) = front.done
    assert isinstance(task, ReviseTask)
    assert (task.change, str(task.start), str(task.stop)) == ("preview", "2", "301/50")
    assert data(front, "trim.previewed")["hls_url"].endswith("previews/p/video.hls")
    assert (trims(front), numbers(front)) == ([], [])
    assert front.document()["video"] == document
    assert front.shown().version == 1


# -- clips ------------------------------------------------------------------------------------------------------------


def test_a_clip_is_an_asset_of_its_own_that_names_its_parent(front: Front) -> None:
    parent = front.document()
    wish = {"id": "c-1", "asset_id": ASSET, "new_id": OTHER, "start_time": 2, "end_time": 6, "meta": {"a": 1}}
    assert front.ask("clip", **wish) == front.ask("clip", **wish) == ("c-1",)
    asked = front.document(OTHER)
    front.live(seconds=5)

    (task,) = front.done
    assert isinstance(task, TrimTask)
    assert (task.asset, task.of, str(task.start), str(task.stop)) == (OTHER, ASSET, "2", "6")
    assert task.source == keys.source(ASSET, "clip.mp4")
    assert (asked["video"]["status"], asked["meta"], asked["version"]) == ("Queued", {"a": 1}, 1)
    assert (asked["parent"], asked["parent_id"]) == ({"title": parent["title"], "uuid": ASSET}, ASSET)
    assert (asked["video"]["inputs"], asked["bytes"]) == (parent["video"]["inputs"], parent["bytes"])
    clip = front.document(OTHER)
    assert (clip["video"]["status"], clip["video"]["duration_ms"], clip["video"]["edit"]) == ("Completed", 4000, None)
    told = data(front, "clip.completed")
    assert told == {
        "job": "c-1",
        "of": ASSET,
        "start_time": 2.0,
        "end_time": 6.0,
        "seconds": 4.0,
        "version": 1,
        "meta": {"a": 1},
    }
    assert front.document()["version"] == parent["version"], "the other asset hears nothing of it"
    front.forget()
    assert front.ask("clip", **wish) == ("c-1",)
    assert front.store.job("c-1") is None


def test_a_clip_is_trimmed_on_its_own_timeline_and_clipped_again(front: Front) -> None:
    front.ask("clip", asset_id=ASSET, new_id=OTHER, start_time=2, end_time=6)
    front.live(seconds=5)
    error = front.refusal("trim", asset_id=OTHER, end_time=4.05)
    assert error.params["maximum"] == 4.0

    front.done.clear()
    front.ask("trim", asset_id=OTHER, start_time=1)
    front.live(seconds=5)
    (task,) = front.done
    assert isinstance(task, TrimTask)
    assert (str(task.start), str(task.stop)) == ("3", "6")
    edit = front.document(OTHER)["video"]["edit"]
    assert (edit["start_time"], edit["end_time"]) == (1.0, 4.0)

    front.ask("duplicate", asset_id=OTHER, new_id="cl1p0000002", title="Again")
    front.live(seconds=5)
    assert front.document("cl1p0000002")["video"]["duration_ms"] == 4000, "all of it, whatever a trim shows"
    assert front.document("cl1p0000002")["title"] == "Again"


def test_a_new_id_is_used_once_and_a_request_id_means_one_clip(front: Front) -> None:
    front.ask("clip", id="c-1", asset_id=ASSET, new_id=OTHER, start_time=2)
    assert front.refusal("clip", id="c-2", asset_id=ASSET, new_id=OTHER, start_time=2).code == "asset_exists"
    assert front.refusal("duplicate", id="c-1", asset_id=ASSET, new_id=OTHER).code == "parameter_invalid"

    first = front.ask("duplicate", id="d-1", asset_id=ASSET)
    assert front.ask("duplicate", id="d-1", asset_id=ASSET) == first, "also where each reading makes another id"
    assert front.accepted().count("d-1") == 1


def test_a_clip_that_fails_says_so_and_can_be_tried_again(front: Front) -> None:
    front.ask("clip", id="c-1", asset_id=ASSET, new_id=OTHER, start_time=2)
    front.conductor.fail(front.begin("c-1", "trim"), PipelineError("video_file_broken"))
    assert data(front, "clip.failed")["error"]["code"] == "video_file_broken"
    assert front.document(OTHER)["video"]["status"] == "Error"

    front.ask("retry", asset_id=OTHER)
    front.live(seconds=5)
    assert front.document(OTHER)["video"]["status"] == "Completed"


# -- export -----------------------------------------------------------------------------------------------------------


@pytest.mark.raises_code("export_track_not_found")
def test_an_export_is_named_by_the_document_as_long_as_that_part_is_played(front: Front) -> None:
    for fields, field in (
        ({"resolution": "1080p"}, "resolution"),
        ({"audio": ["ta"]}, "audio"),
        ({"captions": ["en"]}, "captions"),
    ):
        error = front.refusal("export", asset_id=ASSET, **fields)
        assert (error.code, error.params["field"]) == ("export_track_not_found", field)

    front.ask("export", asset_id=ASSET, resolution="240p", audio=["EN"])
    front.live(seconds=5)
    (task,) = front.done
    assert isinstance(task, ExportTask)
    assert (task.rung, task.audio, task.captions) == ("240p", ("EN",), ())
    told = data(front, "export.completed")
    assert told["mp4_url"] == front.document()["video"]["mp4_url"]
    assert (told["seconds"], told["version"], told["resolution"], told["bytes"]) == (10.0, 1, "240p", 4096)

    front.ask("trim", asset_id=ASSET, start_time=2)
    front.live(seconds=5)
    assert front.document()["video"]["mp4_url"] is None


def test_an_export_that_comes_after_a_trim_does_not_pass_for_what_is_played(front: Front) -> None:
    front.ask("export", id="e-1", asset_id=ASSET)
    exporting = front.begin("e-1", "export")
    answer = front._answer(exporting, plan.task(exporting.job, exporting.step))
    front.ask("trim", asset_id=ASSET, start_time=2)
    front.work({"trim"})
    assert front.conductor.finish(exporting, answer)

    assert data(front, "export.completed")["version"] == 1
    assert front.document()["video"]["mp4_url"] is None


# -- process with a range ---------------------------------------------------------------------------------------------


def test_an_asset_may_be_trimmed_before_it_is_shown_first(front: Front) -> None:
    front.process(id="p-1", asset_id=OTHER, start_time=2, end_time=8)
    front.live()

    (task,) = (task for task in front.done if isinstance(task, PackageTask))
    assert task.trimmed == (2, 8)
    video = front.document(OTHER)["video"]
    assert (video["duration_ms"], video["edit"]) == (6000, {"start_time": 2.0, "end_time": 8.0, "trim_job_id": None})
    assert front.shown(OTHER).version == 1


def test_a_range_that_the_source_does_not_have_fails_the_job_once_it_is_known(front: Front) -> None:
    error = front.refusal("process", asset_id=OTHER, url="/a.mp4", start_time=5, end_time=4)
    assert (error.code, error.params["field"]) == ("trim_range_invalid", "end_time")

    front.process(id="p-1", asset_id=OTHER, start_time=12)
    attempt = front.begin("p-1", "ingest")
    front.do(attempt)

    job = front.job("p-1")
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert (job.error["code"], job.error["params"]["maximum"]) == ("trim_range_invalid", 9.96)
    front.live(seconds=5)
    assert not [key for key in front.left() if OTHER in key and "private/" not in key]
