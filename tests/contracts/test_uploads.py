"""Resumable uploads, told once and kept by the folder and by a real S3 server; callers have nothing but URLs."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from front import ASSET, Front
from s3_server import S3Server

from pipeline import keys, upload_record, upload_start
from pipeline.doorman import Doorman
from pipeline.errors import PipelineError
from pipeline.janitor import Janitor, Reason
from pipeline.memory import ManualClock
from pipeline.organizations import Organization, Organizations
from pipeline.ports import ObjectNotFound, Storage
from pipeline.requests import ProcessRequest
from pipeline.standing import standing
from pipeline.storage import folder_multipart, open_storage
from pipeline.upload_record import State
from pipeline.upload_start import MIB, Terms, part_bytes
from pipeline.upload_wire import UploadSaid
from pipeline.uploads import Uploads

PART = 5 * MIB
"""S3's smallest."""
CONTENT = os.urandom(2 * PART) + b"the end"
TERMS = Terms()
NAME = "Ferien am Meer.MP4"


class Place:
    """A fleet whose storage is a folder or a bucket, and a caller who uploads to it."""

    def __init__(self, root: Path, storage: Storage, terms: Terms = TERMS) -> None:
        # The storage dates its objects itself, so the fleet's clock begins with it.
        self.front = Front(root, clock=ManualClock(time.time_ns() // 1_000_000))
        self.front.storage = storage
        self.front.doorman = Doorman(
            self.front.conductor, storage, Organizations(organizations={"small": Organization(max_bytes=1000)})
        )
        self.storage = storage
        self.uploads = Uploads(self.front.doorman, self.front.clock, terms)

    def start(self, content: bytes = CONTENT, **fields: Any) -> UploadSaid:
        return self.uploads.start({"fileName": NAME, "fileSize": len(content), **fields})

    def send(self, upload: UploadSaid, *numbers: int, content: bytes = CONTENT) -> Mapping[int, str]:
        """Bring these parts, in this order; all of them if none is named. Returns what each PUT was answered."""
        parts = {part.part_number: part for part in upload.parts}
        etags: dict[int, str] = {}
        for number in numbers or tuple(parts):
            begin = sum(parts[each].size for each in parts if each < number)
            url = parts[number].upload_url
            assert url is not None
            etags[number] = put(url, content[begin : begin + parts[number].size])
        return etags

    def brought(self, content: bytes = CONTENT, **fields: Any) -> UploadSaid:
        upload = self.start(content, **fields)
        self.send(upload, content=content)
        return upload

    def refusal(self, act: Callable[[], object]) -> PipelineError:
        with pytest.raises(PipelineError) as refused:
            act()
        return refused.value

    def left(self) -> list[str]:
        """What there is of anything: objects, and parts that are none."""
        return [stored.key for stored in self.storage.list("")] + [each.key for each in self.storage.multipart.begun()]

    def janitor(self, **options: Any) -> Janitor:
        return Janitor(self.storage, self.front.store, lambda _: False, self.front.clock, **options)


def put(url: str, body: bytes) -> str:
    """As any caller does it. Returns the ETag; that of a file is not told."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        Path(unquote(parts.path)).write_bytes(body)
        return ""
    with urllib.request.urlopen(urllib.request.Request(url, data=body, method="PUT")) as reply:
        return str(reply.headers["ETag"])


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage(str(tmp_path / "root"))
    server: S3Server = request.getfixturevalue("shared_s3")
    return open_storage(server.url("".join(char if char.isalnum() else "-" for char in request.node.name)))


@pytest.fixture
def place(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(upload_start, "_PART_BYTES", PART)
    return Place(tmp_path / "front", storage)


# -- the way it goes --------------------------------------------------------------------------------------------------


def test_parts_in_any_order_become_the_source_of_a_job(place: Place) -> None:
    upload = place.start(title="Am Meer", contentType="video/mp4", meta={"a": 1})
    assert [part.size for part in upload.parts] == [PART, PART, 7]
    place.send(upload, 3, 1, 2)

    came = place.uploads.complete(upload.id)

    job = place.front.job(str(came.job))
    assert (job.asset, job.kind, job.source) == (upload.asset_id, "process", f"private/{upload.asset_id}.mp4")
    assert (job.request["title"], job.request["orig_filename"]) == ("Am Meer", NAME)
    assert place.storage.get(job.source) == CONTENT
    assert place.left() == [job.source, keys.upload(upload.asset_id, upload.id)]
    document = place.front.document(upload.asset_id)
    assert document["video"]["inputs"] == [{"url": job.source}]


def test_the_answer_has_the_references_names(place: Place) -> None:
    said = place.start().model_dump(mode="json", exclude_none=True)

    assert {"id", "assetId", "fileName", "fileSize", "contentType", "parts"} <= said.keys()
    assert set(said["parts"][0]) == {"partNumber", "size", "uploadUrl"}


def test_a_resume_is_told_which_parts_are_there_and_gets_fresh_urls_of_the_others(place: Place) -> None:
    upload = place.start()
    place.send(upload, 2)

    again = place.uploads.parts(upload.id)

    assert [part.etag is not None for part in again.parts] == [False, True, False]
    assert [part.upload_url is not None for part in again.parts] == [True, False, True]
    place.send(again, 3, 1)
    assert place.uploads.complete(upload.id).job


def test_a_part_is_confirmed_in_any_order_and_again(place: Place) -> None:
    upload = place.start()
    place.send(upload, 3, 1)
    etags = {part.part_number: part.etag or "" for part in place.uploads.parts(upload.id).parts}

    for number in (3, 1, 3):
        assert place.uploads.confirm(upload.id, number, f'"{etags[number]}"').size == upload.parts[number - 1].size


@pytest.mark.raises_code("upload_part_differs", "upload_incomplete")
def test_a_wrong_etag_is_refused_and_so_is_a_part_that_is_not_there(place: Place) -> None:
    upload = place.start()
    place.send(upload, 1)

    assert place.refusal(lambda: place.uploads.confirm(upload.id, 1, "0" * 32)).code == "upload_part_differs"
    assert place.refusal(lambda: place.uploads.confirm(upload.id, 2, "0" * 32)).code == "upload_incomplete"
    assert place.refusal(lambda: place.uploads.confirm(upload.id, 4, "0" * 32)).code == "parameter_invalid"
    wrong = place.brought()
    assert place.refusal(lambda: place.uploads.complete(wrong.id, {2: "0" * 32})).code == "upload_part_differs"
    assert place.refusal(lambda: place.uploads.complete(wrong.id, {4: "0" * 32})).code == "parameter_invalid"
    assert place.uploads.complete(wrong.id).job, "nothing was lost by it"


def test_uploads_under_way_are_listed(place: Place) -> None:
    first, second, third = place.start(), place.start(), place.brought()
    place.uploads.complete(third.id)
    place.uploads.cancel(second.id)

    assert [each.id for each in place.uploads.under_way()] == [first.id]


# -- completing -------------------------------------------------------------------------------------------------------


@pytest.mark.raises_code("upload_incomplete")
def test_a_missing_part_is_named_and_nothing_is_lost_by_asking(place: Place) -> None:
    upload = place.start()
    place.send(upload, 2)

    error = place.refusal(lambda: place.uploads.complete(upload.id))

    assert (error.code, error.params["missing"], error.params["parts"]) == ("upload_incomplete", 2, "1, 3")
    place.send(place.uploads.parts(upload.id), 1, 3)
    assert place.uploads.complete(upload.id).job


def test_another_size_is_refused(place: Place) -> None:
    """Where the storage is a folder; a bucket does not even take it."""
    upload = place.start()
    place.send(upload, 1, 2)
    url = upload.parts[2].upload_url or ""
    if not url.startswith("file:"):
        for wrong in (CONTENT[-6:], CONTENT[-8:]):
            with pytest.raises(urllib.error.HTTPError):
                put(url, wrong)
        return
    put(url, CONTENT[-6:])

    error = place.refusal(lambda: place.uploads.complete(upload.id))

    assert (error.code, error.params["part"]) == ("upload_part_differs", 3)
    again = place.uploads.parts(upload.id)
    assert again.parts[2].upload_url, "it counts as missing"


def test_of_a_part_that_was_sent_twice_the_one_that_is_meant_counts(place: Place) -> None:
    """A server may keep both and cannot say which came last: then it must be told."""
    upload = place.start()
    other = b"x" * PART + CONTENT[PART:]
    place.send(upload, 1, content=other)
    old = place.uploads.parts(upload.id).parts[0].etag or ""
    place.send(upload)
    listed = list(place.storage.multipart.parts(key_of(place, upload), handle_of(place, upload), 1))
    new = next(part.etag for part in listed if part.etag != old)

    if len(listed) == 1:
        assert place.refusal(lambda: place.uploads.confirm(upload.id, 1, old)).code == "upload_part_differs"
        assert place.refusal(lambda: place.uploads.complete(upload.id, {1: old})).code == "upload_part_differs"
    else:
        assert place.refusal(lambda: place.uploads.complete(upload.id)).code == "upload_part_differs"
    place.uploads.confirm(upload.id, 1, new)
    place.uploads.complete(upload.id, {1: new})
    assert place.storage.get(keys.source(upload.asset_id, NAME)) == CONTENT


def test_a_part_that_is_sent_again_as_it_was_is_one_part(place: Place) -> None:
    upload = place.start()
    place.send(upload)
    place.send(upload, 1, 3)
    there = place.uploads.parts(upload.id).parts

    assert place.uploads.confirm(upload.id, 1, there[0].etag or "").size == PART
    assert place.uploads.complete(upload.id, {part.part_number: part.etag or "" for part in there}).job
    assert place.storage.get(keys.source(upload.asset_id, NAME)) == CONTENT


def test_two_who_complete_at_once_get_one_object_and_one_job(place: Place) -> None:
    upload = place.brought()
    others = [Uploads(place.front.doorman, place.front.clock) for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        came = list(pool.map(lambda each: each.complete(upload.id), others))

    assert {each.job for each in came} == {upload.id}
    assert place.uploads.complete(upload.id) == came[0], "and so does who asks later"
    assert place.front.told().count("asset.accepted") == 1
    assert place.storage.get(keys.source(upload.asset_id, NAME)) == CONTENT


def test_parts_of_a_folder_that_go_while_they_are_listed_are_not_missing(tmp_path: Path) -> None:
    """Two complete at once: the parts went because they are an object, and nobody may be told to send them again."""
    place = Place(tmp_path / "front", open_storage(str(tmp_path / "root")))
    upload = place.start(b"x" * (40 * MIB))
    place.send(upload, content=b"x" * (40 * MIB))
    key, handle = key_of(place, upload), handle_of(place, upload)
    listed = place.storage.multipart.parts(key, handle)
    next(listed)

    place.storage.multipart.abort(key, handle)

    with pytest.raises(ObjectNotFound):
        next(listed)


class Crash(BaseException):
    """kill -9."""


def killed_at(moment: str, place: Place, upload: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A completion gets so far and no further."""
    handle = place.front.doorman.handle

    def dying(*_: Any, **__: Any) -> Any:
        raise Crash

    def done_and_dying(request: Any) -> Any:
        handle(request)
        raise Crash

    with monkeypatch.context() as patch:
        if moment == "the object is there":
            patch.setattr(upload_record, "save", dying)
        patch.setattr(place.front.doorman, "handle", done_and_dying if moment == "the job is there" else dying)
        with pytest.raises(Crash):
            place.uploads.complete(upload)


@pytest.mark.parametrize("moment", ["the object is there", "the record says so", "the job is there"])
def test_a_completion_that_is_killed_anywhere_is_completed_by_the_next(
    place: Place, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = place.brought()
    killed_at(moment, place, upload.id, monkeypatch)

    came = place.uploads.complete(upload.id)

    assert came.job == upload.id
    assert place.front.told().count("asset.accepted") == 1
    assert place.storage.get(keys.source(upload.asset_id, NAME)) == CONTENT
    list(place.janitor().sweep())
    assert place.left() == [keys.source(upload.asset_id, NAME), keys.upload(upload.asset_id, upload.id)]


def test_a_completion_is_answered_also_where_redis_has_lost_its_job(place: Place) -> None:
    upload = place.brought()
    place.uploads.complete(upload.id)
    place.front.forget()

    assert place.uploads.complete(upload.id).job == upload.id
    assert place.front.job(upload.id).source == keys.source(upload.asset_id, NAME)
    place.front.live(seconds=5)
    place.front.forget()
    assert place.uploads.complete(upload.id).job == upload.id, "its history knows it"


def test_a_job_that_was_made_of_the_upload_by_another_request_is_its_job(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = place.brought()
    killed_at("the record says so", place, upload.id, monkeypatch)
    (job,) = place.front.ask("process", id="mine", asset_id=upload.asset_id, upload=upload.id, orig_filename=NAME)

    assert place.uploads.complete(upload.id).job == job
    assert place.storage.get(place.front.job(job).source) == CONTENT


def test_what_a_living_job_reads_stays_whoever_gives_the_upload_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job of another request found the object where its own source belongs, and took it."""
    first, second = (place.brought(asset_id=asset) for asset in ("abcdefghijk", "abcdefghijl"))
    killed_at("the object is there", place, first.id, monkeypatch)
    killed_at("the record says so", place, second.id, monkeypatch)
    for asset in (first.asset_id, second.asset_id):
        place.front.ask("process", id=f"of-{asset}", asset_id=asset, url="https://x.example/a.mp4")

    place.uploads.cancel(first.id)
    assert place.refusal(lambda: place.uploads.complete(second.id)).code == "asset_exists"

    for asset in (first.asset_id, second.asset_id):
        assert place.storage.get(keys.source(asset, NAME)) == CONTENT


def test_the_source_of_an_asset_whose_jobs_nobody_knows_stays(place: Place) -> None:
    """Redis was lost before the history was written."""
    upload = place.brought()
    place.uploads.complete(upload.id)
    place.front.live()
    place.storage.delete(keys.histories(upload.asset_id))
    place.front.forget()

    assert place.refusal(lambda: place.uploads.complete(upload.id)).code == "asset_exists"
    assert place.storage.get(keys.source(upload.asset_id, NAME)) == CONTENT


def test_a_source_that_came_too_late_for_its_asset_goes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = place.brought(asset_id=ASSET, fileName="a.mov")
    killed_at("the record says so", place, upload.id, monkeypatch)
    place.front.process(url="https://x.example/a.mp4")

    assert place.refusal(lambda: place.uploads.complete(upload.id)).code == "asset_exists"
    assert place.left() == []


@pytest.mark.raises_code("upload_not_found")
def test_parts_that_somebody_else_removed_are_an_upload_that_is_gone(place: Place) -> None:
    """A rule of the bucket does."""
    upload = place.brought()
    place.storage.multipart.abort(key_of(place, upload), handle_of(place, upload))

    for act in (place.uploads.parts, place.uploads.complete):
        assert place.refusal(lambda act=act: act(upload.id)).code == "upload_not_found"  # type: ignore[misc]


def test_a_full_house_refuses_the_job_and_the_upload_waits(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = place.brought()
    with monkeypatch.context() as patch:
        patch.setattr(place.front.store, "pressure", lambda: 0.95)
        assert place.refusal(lambda: place.uploads.complete(upload.id)).code == "queue_full"
        assert place.refusal(place.start).code == "queue_full"

    assert place.uploads.complete(upload.id).job


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.raises_code("media_filesize_too_large")
def test_what_is_too_large_is_refused_before_anything_is_sent(place: Place) -> None:
    error = place.refusal(lambda: place.start(b"x" * 1001, organization="small"))

    assert (error.code, error.params["current_size"], error.params["maximum_size"]) == (
        "media_filesize_too_large",
        1001,
        1000,
    )
    assert place.left() == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"profile": "nosuch"}, "profile_unknown"),
        ({"url": "https://example.com/a.mp4"}, "parameter_invalid"),
        ({"fileSize": 0}, "parameter_invalid"),
        ({"fileName": ""}, "parameter_invalid"),
        ({"fileName": "a\n.mp4"}, "parameter_invalid"),
        ({"nosuch": 1}, "parameter_invalid"),
        ({"asset_id": "../../secret"}, "parameter_invalid"),
        ({"relationship": "subtitle"}, "parameter_invalid"),
        ({"parentAssetId": "abcdefghijk"}, "parameter_invalid"),
        ({"upload": "abcdefghijk_1"}, "parameter_invalid"),
        ({"assetId": "abcdefghijk", "asset_id": "abcdefghijl"}, "parameter_invalid"),
        ({"orig_filename": "another.mp4"}, "parameter_invalid"),
    ],
)
def test_a_wrong_start_leaves_nothing(place: Place, fields: dict[str, Any], code: str) -> None:
    assert place.refusal(lambda: place.start(**fields)).code == code
    assert place.left() == []


@pytest.mark.raises_code("asset_exists")
def test_an_asset_id_that_is_taken_is_refused_at_the_start_and_at_the_end(place: Place) -> None:
    upload = place.brought(asset_id="abcdefghijk")
    second = place.brought(asset_id="abcdefghijk")
    place.uploads.complete(upload.id)

    assert place.refusal(lambda: place.start(asset_id="abcdefghijk")).code == "asset_exists"
    assert place.refusal(lambda: place.uploads.complete(second.id)).code == "asset_exists"
    assert place.storage.get(keys.source("abcdefghijk", NAME)) == CONTENT


def test_of_an_upload_to_an_id_that_was_taken_meanwhile_nothing_becomes_a_source(place: Place) -> None:
    """Two sources of one asset, and nobody could tell which of them it was made of."""
    late = place.brought(b"late", asset_id="abcdefghijk", fileName="a.mov")
    place.uploads.complete(place.brought(asset_id="abcdefghijk").id)

    assert place.refusal(lambda: place.uploads.complete(late.id)).code == "asset_exists"
    assert [stored.key for stored in place.storage.list(keys.sources("abcdefghijk"))] == ["private/abcdefghijk.mp4"]
    assert place.uploads.parts(late.id).parts[0].etag, "its parts wait for their end"


@pytest.mark.raises_code("asset_deleted")
def test_nothing_is_uploaded_to_a_deleted_asset(place: Place) -> None:
    late = place.brought(asset_id="abcdefghijk")
    place.front.process(id="r-1", asset_id="abcdefghijk")
    place.front.ask("delete", ids=["abcdefghijk"])
    place.front.live()

    assert place.refusal(lambda: place.start(asset_id="abcdefghijk")).code == "asset_deleted"
    assert place.refusal(lambda: place.uploads.complete(late.id)).code == "upload_not_found", "it went with the asset"
    place.front.forget()
    assert place.refusal(lambda: place.start(asset_id="abcdefghijk")).code == "asset_deleted"


@pytest.mark.raises_code("upload_not_found")
def test_a_job_of_an_upload_that_is_not_complete_is_refused_at_every_door(place: Place) -> None:
    upload = place.start()
    wish = {"asset_id": upload.asset_id, "upload": upload.id, "orig_filename": NAME}

    assert place.front.refusal("process", **wish).code == "upload_not_found"
    assert place.front.refusal("batch", requests=[wish]).code == "upload_not_found"
    with pytest.raises(ValueError, match="another asset_id"):
        ProcessRequest(upload=upload.id)
    with pytest.raises(ValueError, match="either url or upload"):
        ProcessRequest(url="/a.mp4", asset_id=upload.asset_id, upload=upload.id)


def test_nobody_takes_what_another_organization_uploaded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = place.brought(organization="alpha")
    wish = {"asset_id": upload.asset_id, "upload": upload.id, "orig_filename": NAME}
    killed_at("the object is there", place, upload.id, monkeypatch)
    assert place.front.refusal("process", organization="alpha", **wish).code == "upload_not_found", "not complete yet"
    killed_at("the record says so", place, upload.id, monkeypatch)

    foreign = [
        {"organization": "beta", **wish},
        {"organization": "alpha", **wish, "upload": f"{upload.asset_id}_0123456789abcdef"},
        {"organization": "alpha", **wish, "orig_filename": "a.mov"},
    ]
    for each in foreign:
        assert place.front.refusal("process", **each).code == "upload_not_found"
        batch = {"organization": each["organization"], "requests": [each]}
        assert place.front.refusal("batch", **batch).code == "upload_not_found"
    assert place.uploads.complete(upload.id).job == upload.id


def test_a_source_whose_job_redis_lost_is_nobodys_upload(place: Place) -> None:
    place.front.process(id="a-1", organization="alpha", url="https://x.example/a.mp4")
    place.storage.put(keys.source(ASSET, "a.mp4"), b"alpha's film")
    place.front.forget()

    wish = {"asset_id": ASSET, "upload": f"{ASSET}_0123456789abcdef", "orig_filename": "x.mp4"}
    assert place.front.refusal("process", organization="beta", **wish).code == "upload_not_found"


def test_a_batch_that_was_accepted_is_accepted_also_when_its_upload_is_gone(place: Place) -> None:
    upload = place.brought()
    place.uploads.complete(upload.id)
    wish = {"id": upload.id, "asset_id": upload.asset_id, "upload": upload.id, "orig_filename": NAME}
    place.front.live(seconds=5)
    place.storage.delete(keys.upload(upload.asset_id, upload.id))

    assert place.front.ask("batch", requests=[wish]) == (upload.id,)
    assert place.front.ask("process", **wish) == (upload.id,)


def test_a_request_id_that_is_taken_is_refused_before_anything_is_sent(place: Place) -> None:
    place.front.process(id="mine")

    error = place.refusal(lambda: place.start(id="mine"))

    assert (error.code, "mine" in error.params["detail"]) == ("parameter_invalid", True)


def test_a_url_that_has_expired_does_nothing_and_a_fresh_one_does(storage: Storage, tmp_path: Path) -> None:
    place = Place(tmp_path / "front", storage, Terms(url_s=1))
    upload, later = place.start(b"content"), place.start(b"content")
    url = upload.parts[0].upload_url or ""
    if not url.startswith("file:"):
        assert refused(later.parts[0].upload_url or "", b"content") == 403, "and so has the earlier one"
        with pytest.raises(urllib.error.HTTPError):
            put(url, b"content")

    place.send(place.uploads.parts(upload.id), content=b"content")
    assert place.uploads.complete(upload.id).job


def refused(url: str, body: bytes) -> int:
    """Ask until the server refuses; before, it takes the same again."""
    deadline = time.monotonic() + 30
    while True:
        assert time.monotonic() < deadline
        try:
            put(url, body)
        except urllib.error.HTTPError as error:
            return error.code


# -- the end of what was not completed --------------------------------------------------------------------------------


@pytest.mark.raises_code("upload_not_found")
def test_a_cancel_in_the_middle_leaves_nothing(place: Place) -> None:
    upload = place.start()
    place.send(upload, 1)

    place.uploads.cancel(upload.id)

    assert place.left() == []
    for act in (place.uploads.parts, place.uploads.complete, place.uploads.cancel):
        assert place.refusal(lambda act=act: act(upload.id)).code == "upload_not_found"  # type: ignore[misc]


@pytest.mark.raises_code("upload_completed")
def test_a_cancel_after_the_completion_is_refused(place: Place) -> None:
    upload = place.brought()
    place.uploads.complete(upload.id)

    assert place.refusal(lambda: place.uploads.cancel(upload.id)).code == "upload_completed"
    assert place.refusal(lambda: place.uploads.confirm(upload.id, 1, "any")).code == "upload_completed"
    assert place.storage.get(keys.source(upload.asset_id, NAME)) == CONTENT


def test_a_cancel_between_the_object_and_its_record_wins(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = place.brought()
    save = upload_record.save

    def slow_save(storage: Storage, record: Any, *, match: str | None = None) -> Any:
        if record.state is State.COMPLETED:
            monkeypatch.setattr(upload_record, "save", save)
            place.uploads.cancel(upload.id)
        return save(storage, record, match=match)

    monkeypatch.setattr(upload_record, "save", slow_save)
    assert place.refusal(lambda: place.uploads.complete(upload.id)).code == "upload_not_found"
    assert place.left() == []
    assert place.front.told() == []


def test_an_upload_that_is_old_and_alive_survives_the_janitor_and_one_that_has_expired_goes(place: Place) -> None:
    upload = place.start()
    place.send(upload, 2)
    place.front.clock.advance(2.9 * 86_400)

    assert list(place.janitor(grace_s=-3600).sweep()) == [], "were everything in its bucket too old, this is not"
    assert place.uploads.parts(upload.id).parts[1].etag

    place.front.clock.advance(0.2 * 86_400)
    assert place.refusal(lambda: place.uploads.complete(upload.id)).code == "upload_not_found"
    assert {finding.reason for finding in place.janitor().sweep()} == {Reason.UPLOAD, Reason.ORPHAN}
    assert place.left() == []


@pytest.mark.raises_code("schema_newer")
def test_an_upload_of_a_later_version_is_left_alone_by_the_janitor(place: Place) -> None:
    newer, old = place.brought(), place.brought()
    record = keys.upload(newer.asset_id, newer.id)
    said = json.loads(place.storage.get(record)) | {"schema": 2, "state": "paused", "expires_ms": "soon"}
    place.storage.put(record, json.dumps(said).encode())
    place.front.clock.advance(30 * 86_400)

    findings = list(place.janitor(grace_s=-1e9).sweep())

    assert (Reason.UNREADABLE, newer.asset_id) in [(each.reason, each.asset) for each in findings]
    assert sorted(place.left()) == sorted([record, f"private/{newer.asset_id}.mp4"]), "nothing is left of the other"
    assert old.asset_id not in str(place.left())
    assert place.refusal(lambda: place.uploads.parts(newer.id)).code == "schema_newer"


@pytest.mark.parametrize("name", ["a.mkv", "a.mp"])
def test_the_source_of_an_asset_is_the_one_that_its_job_has_not_what_a_killed_completion_left(
    place: Place, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`a.mp` begins `a.mp4`: whoever removed the one must not remove the other."""
    upload = place.brought(asset_id=ASSET, fileName=name)
    killed_at("the object is there", place, upload.id, monkeypatch)
    place.front.ready(url="https://x.example/a.mp4")
    ours = keys.source(ASSET, "a.mp4")
    found = standing(place.storage, ASSET)
    assert found is not None
    assert found.source == ours

    place.front.clock.advance(5 * 86_400)
    list(place.janitor().sweep())

    left = [stored.key for stored in place.storage.list(keys.sources(ASSET))]
    assert left == ([ours] if name == "a.mkv" else [keys.source(ASSET, name), ours])


def test_an_upload_that_ends_while_a_folder_is_listed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    multipart = open_storage(str(tmp_path / "root")).multipart
    handle = multipart.begin("private/abcdefghijk.mp4", "it")
    touched = folder_multipart._touched

    def late(folder: Path) -> float:
        multipart.abort("private/abcdefghijk.mp4", handle)
        return touched(folder)

    monkeypatch.setattr(folder_multipart, "_touched", late)
    assert list(multipart.begun()) == []


def test_parts_that_belong_to_no_upload_go_when_they_are_old(place: Place) -> None:
    place.storage.multipart.begin("private/abcdefghijk.mp4", "nobody")

    assert list(place.janitor().sweep()) == []
    assert [finding.reason for finding in place.janitor(grace_s=-3600).sweep()] == [Reason.UPLOAD]
    assert place.left() == []


def test_another_process_that_writes_to_a_folder_leaves_old_parts_alone(tmp_path: Path) -> None:
    folder = open_storage(str(tmp_path / "root"))
    upload = Place(tmp_path / "front", folder).start()
    for path in (tmp_path / "root").rglob("*"):
        os.utime(path, (0, 0))

    open_storage(str(tmp_path / "root")).put("private/other", b"x")

    assert [begun.key for begun in folder.multipart.begun()] == [f"private/{upload.asset_id}.mp4"]


def test_what_was_completed_and_never_became_a_job_goes_with_its_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = place.brought()
    with monkeypatch.context() as patch:
        patch.setattr(place.front.doorman, "handle", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            place.uploads.complete(upload.id)
    place.front.clock.advance(2.9 * 86_400)
    assert list(place.janitor().sweep()) == []

    place.front.clock.advance(2 * 86_400)
    list(place.janitor().sweep())
    assert place.left() == []


# -- files that belong to an asset ------------------------------------------------------------------------------------

VTT = b"WEBVTT\n\n00:00.000 --> 00:01.000\nHallo\n"
SRT = b"\xef\xbb\xbf1\r\n00:00:00,000 --> 00:00:01,000\r\nHallo\r\n"
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 100
JPEG = b"\xff\xd8\xff\xe0" + b"0" * 100


def parent(place: Place) -> str:
    return place.front.process(id="r-1", asset_id=ASSET).asset


@pytest.mark.parametrize(
    ("relationship", "name", "content", "suffix"),
    [
        ("subtitle", "de.vtt", VTT, "vtt"),
        ("subtitle", "de.SRT", SRT, "srt"),
        ("thumbnail", "a.png", PNG, "png"),
        ("thumbnail", "a.jpeg", JPEG, "jpg"),
    ],
)
def test_a_related_file_ends_beside_its_asset_and_starts_no_job(
    place: Place, relationship: str, name: str, content: bytes, suffix: str
) -> None:
    asset = parent(place)
    upload = place.start(content, fileName=name, parentAssetId=asset, relationship=relationship)
    place.send(upload, content=content)

    came = place.uploads.complete(upload.id)

    assert (came.asset_id, came.job, came.key) == (asset, None, f"private/{asset}/uploads/{upload.id}.{suffix}")
    assert place.uploads.complete(upload.id) == came
    assert place.storage.get(came.key or "") == content
    assert place.front.told().count("asset.accepted") == 1


@pytest.mark.raises_code("upload_wrong_format")
@pytest.mark.parametrize(
    ("relationship", "name", "content"),
    [
        ("subtitle", "de.vtt", PNG),
        ("subtitle", "de.vtt", b"Hallo"),
        ("subtitle", "de.srt", "1\n00:00:00,000 --> 00:00:01,000\nÜ\n".encode("latin-1")),
        ("thumbnail", "a.png", VTT),
    ],
)
def test_a_related_file_that_is_something_else_is_refused_and_gone(
    place: Place, relationship: str, name: str, content: bytes
) -> None:
    asset = parent(place)
    before = place.left()
    upload = place.start(content, fileName=name, parentAssetId=asset, relationship=relationship)
    place.send(upload, content=content)

    assert place.refusal(lambda: place.uploads.complete(upload.id)).code == "upload_wrong_format"
    assert place.left() == before


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"fileName": "a.gif", "relationship": "thumbnail"}, "upload_wrong_format"),
        ({"fileName": "a.png", "relationship": "thumbnail", "fileSize": 2_000_000}, "media_filesize_too_large"),
        ({"fileName": "a.vtt", "relationship": "subtitle", "fileSize": 5_000_001}, "media_filesize_too_large"),
        ({"fileName": "a.png", "relationship": "thumbnail", "parentAssetId": "zzzzzzzzzzz"}, "asset_not_found"),
        ({"fileName": "a.png", "relationship": "thumbnail", "title": "A"}, "parameter_invalid"),
        ({"fileName": "a.png", "relationship": "proxy"}, "parameter_invalid"),
    ],
)
def test_a_wrong_related_file_is_refused_at_the_start(place: Place, fields: dict[str, Any], code: str) -> None:
    asset = parent(place)
    before = place.left()

    assert place.refusal(lambda: place.start(**{"fileSize": 9, "parentAssetId": asset, **fields})).code == code
    assert place.left() == before


def test_a_related_file_goes_with_its_asset_and_none_comes_after_it(place: Place) -> None:
    asset = parent(place)
    done, late = (place.start(PNG, fileName="a.png", parentAssetId=asset, relationship="thumbnail") for _ in range(2))
    for upload in (done, late):
        place.send(upload, content=PNG)
    place.uploads.complete(done.id)
    place.front.ask("delete", ids=[asset])
    place.front.live()

    assert place.refusal(lambda: place.uploads.complete(late.id)).code == "upload_not_found"
    assert [stored.key for stored in place.storage.list("")] == [keys.tombstone(asset)]


def test_a_related_upload_of_an_asset_that_lives_expires_alone(place: Place) -> None:
    asset = parent(place)
    before = place.left()
    upload = place.start(PNG, fileName="a.png", parentAssetId=asset, relationship="thumbnail")
    place.front.clock.advance(3.1 * 86_400)

    list(place.janitor().sweep())

    assert place.left() == before
    assert place.refusal(lambda: place.uploads.parts(upload.id)).code == "upload_not_found"


# -- what is kept of it -----------------------------------------------------------------------------------------------


def test_no_url_of_a_part_is_in_any_record_or_event(place: Place) -> None:
    upload = place.brought()
    place.uploads.complete(upload.id)

    job = place.front.job(upload.id)
    record = place.storage.get(keys.upload(upload.asset_id, upload.id)).decode()
    for text in (record, str(job.request), str(place.front.events)):
        for secret in ("X-Amz", "Signature", "http://", "file:"):
            assert secret not in text


def test_a_retry_finds_the_source_of_a_job_that_failed(place: Place) -> None:
    upload = place.brought()
    place.uploads.complete(upload.id)
    front = place.front
    front.conductor.fail(front.begin(upload.id, "ingest"), PipelineError("worker_lost", stage="ingest", losses=3))
    front.live(seconds=3)
    assert front.job(upload.id).status == "failed"

    (job,) = front.ask("retry", id="again", asset_id=upload.asset_id)

    assert front.job(job).source == keys.source(upload.asset_id, NAME)
    assert place.storage.get(front.job(job).source) == CONTENT
    assert place.uploads.complete(upload.id).job == upload.id, "and the completion is answered as before"
    front.live()
    assert front.job(job).status == "succeeded"


@pytest.mark.parametrize("size", [1, 5 * MIB, 16 * MIB + 1, 10**9, 50 * 10**9, 5 * 10**12, 5 * 1024**4])
def test_parts_are_within_the_limits_of_s3(size: int) -> None:
    each = part_bytes(size)
    count = -(-size // each)

    assert count <= 10_000
    assert 5 * MIB <= each <= 5 * 1024 * MIB
    assert each % MIB == 0
    assert count <= 1000 or each >= 512 * MIB


def key_of(place: Place, upload: UploadSaid) -> str:
    return upload_record.load(place.storage, upload.id)[0].key


def handle_of(place: Place, upload: UploadSaid) -> str:
    return upload_record.load(place.storage, upload.id)[0].handle
