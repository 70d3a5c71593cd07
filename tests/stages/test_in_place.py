"""Sources at the bench: those that stay where they lie, and URLs that were sealed by another key."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import a_profile, a_request
from makers import make_clip
from presentations import ASSET
from s3_server import BUCKET, S3Server
from storages import Interrupted

from pipeline import keys, plan
from pipeline.conductor import Conductor
from pipeline.doorman import Doorman
from pipeline.errors import PipelineError
from pipeline.held import BenchLimits, Held
from pipeline.janitor import Janitor
from pipeline.job import Job, JobStatus
from pipeline.memory import ManualClock, MemoryJobStore, MemoryProgress
from pipeline.organizations import Organizations
from pipeline.places import Places
from pipeline.ports import Storage
from pipeline.requests import parse_request
from pipeline.sandbox import Nursery
from pipeline.seal import Key, Seal
from pipeline.storage import open_storage
from pipeline.storage.buckets import Buckets
from pipeline.storage.folder import FolderStorage
from pipeline.storage.s3 import connect
from pipeline.tasks import USUAL_LIMITS, IngestTask
from pipeline.tidy import tidy_after
from pipeline.workbench import Workbench

STAGES = ("ingest", "transcode", "audio", "package")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=1).read_bytes()


class Fleet:
    """A doorman and a real workbench on a real storage; the records are in memory."""

    def __init__(self, storage: Storage, nursery: Nursery, limits: BenchLimits) -> None:
        self.clock = ManualClock()
        self.storage = storage
        self.conductor = Conductor(MemoryJobStore(self.clock), self.clock, plan, {"default": a_profile()})
        self.doorman = Doorman(self.conductor, storage, Organizations())
        self.bench = Workbench(self.conductor, storage, MemoryProgress(), self.clock, nursery, limits=limits)
        self.outcomes: list[str] = []

    def ask(self, **fields: Any) -> Job:
        """Ask, and let the fleet work until it has nothing to do now."""
        request = a_request(asset_id=ASSET, resolutions=("240p",), **fields) if "type" not in fields else None
        wish = request or parse_request(json.dumps({"asset_id": ASSET, **fields}))
        (id_,) = self.doorman.handle(wish)
        self.live()
        return self.job(id_)

    def live(self) -> None:
        while refs := self.conductor.store.take(dict.fromkeys(STAGES, 1)):
            for ref in refs:
                attempt = self.conductor.begin(ref, "w1")
                if attempt is not None:
                    self.outcomes.append(self.bench.run(attempt))
        for ref in self.conductor.store.due(100):
            job = self.conductor.sweep(ref)
            if job is not None:
                tidy_after(self.conductor.store, self.storage, job)
                self.conductor.tidied(job)

    def job(self, id_: str) -> Job:
        job = self.conductor.store.job(id_)
        assert job is not None
        return job

    def document(self) -> dict[str, Any]:
        record = self.conductor.store.asset(ASSET)
        assert record is not None
        return dict(record.document)

    def forget(self) -> None:
        """Redis is lost."""
        self.conductor.store = self.doorman.store = MemoryJobStore(self.clock)

    def sources(self) -> list[str]:
        """Copies of it that we keep."""
        return [stored.key for stored in self.storage.list(keys.sources(ASSET))]


class Bucket:
    """One object of a bucket that somebody else owns."""

    def __init__(self, server: S3Server, key: str) -> None:
        self.client = connect(endpoint=server.endpoint, region="us-east-1")
        self.key = key
        self.url = f"s3://{BUCKET}/{key}"

    def put(self, body: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=self.key, Body=body)

    def take_away(self) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=self.key)

    def body(self) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=self.key)["Body"].read()


@pytest.fixture
def film(shared_s3: S3Server, clip: bytes, tmp_path: Path) -> Bucket:
    bucket = Bucket(shared_s3, f"films-{tmp_path.name}/my film.mp4")
    bucket.url = bucket.url.replace(" ", "%20")
    bucket.put(clip)
    return bucket


@pytest.fixture
def fleet(shared_s3: S3Server, film: Bucket, nursery: Nursery, tmp_path: Path) -> Fleet:
    """Stores elsewhere in the same bucket."""
    storage = open_storage(shared_s3.url(f"ours-{tmp_path.name}"))
    return Fleet(storage, nursery, BenchLimits(buckets=Buckets.of(shared_s3.url(film.key.partition("/")[0]), "")))


def test_an_object_is_used_where_it_lies(fleet: Fleet, film: Bucket, clip: bytes) -> None:
    job = fleet.ask(url=film.url, in_place=True)

    assert (job.status, job.error) == (JobStatus.SUCCEEDED, None)
    assert fleet.sources() == [], "no copy is made"
    document = fleet.document()
    assert document["video"]["inputs"] == [{"url": film.url}]
    assert document["bytes"] == len(clip)
    assert job.blueprint is not None
    assert job.blueprint.media.sha256 == hashlib.sha256(clip).hexdigest()


@pytest.mark.parametrize("forgotten", [False, True])
def test_it_is_made_anew_from_there_for_as_long_as_it_lies_there(forgotten: bool, fleet: Fleet, film: Bucket) -> None:
    fleet.ask(url=film.url, in_place=True)
    if forgotten:
        fleet.forget()
    if forgotten:  # what was learned is lost as well: it is learned again, from the same content
        fleet.storage.delete(keys.media(ASSET))

    again = fleet.ask(type="asset.reprocess", id="again", everything=True)

    assert (again.status, again.error) == (JobStatus.SUCCEEDED, None)
    assert again.source == film.url
    assert fleet.document()["video"]["inputs"] == [{"url": film.url}]
    assert fleet.sources() == []


@pytest.mark.raises_code("source_changed")
def test_another_content_is_never_read_in_its_place(fleet: Fleet, film: Bucket, clip: bytes) -> None:
    fleet.ask(url=film.url, in_place=True)
    film.put(clip[::-1])

    fleet.ask(type="asset.reprocess", everything=True)

    assert set(fleet.outcomes[4:]) == {"succeeded", "source_changed"}, "what was learned is known; nothing more is made"
    assert fleet.document()["video"]["status"] == "Completed"


def test_what_was_taken_away_is_said_to_be_gone(fleet: Fleet, film: Bucket) -> None:
    fleet.ask(url=film.url, in_place=True)
    film.take_away()

    job = fleet.ask(type="asset.reprocess", everything=True)

    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error["code"] == "media_url_not_accessible"
    assert fleet.document()["video"]["status"] == "Completed", "what was made of it stays"


def test_nothing_of_ours_removes_it(fleet: Fleet, film: Bucket, clip: bytes) -> None:
    fleet.ask(url=film.url, in_place=True)
    list(Janitor(fleet.storage, fleet.conductor.store, lambda _: False, fleet.clock, grace_s=0, receipts_s=0).sweep())
    assert film.body() == clip

    fleet.doorman.handle(parse_request(f'{{"type": "asset.delete", "ids": ["{ASSET}"]}}'))
    fleet.live()
    fleet.clock.advance(60)
    fleet.live()

    assert fleet.document()["deleted"] is not None
    assert [stored.key for stored in fleet.storage.list("")] == [keys.tombstone(ASSET)]
    assert film.body() == clip


def test_what_is_no_film_is_refused_and_stays_where_it_is(fleet: Fleet, film: Bucket) -> None:
    film.put(b"<html>" * 1000)

    job = fleet.ask(url=film.url, in_place=True)

    assert (job.error or {})["code"] == "media_url_unsupported_format"
    assert list(fleet.storage.list("")) == []
    assert film.body() == b"<html>" * 1000


@pytest.mark.parametrize(
    ("body", "code"), [(b"", "media_url_file_broken"), (b"0" * 50, "media_filesize_too_large"), (None, None)]
)
def test_limits_hold_there_too(body: bytes | None, code: str | None, fleet: Fleet, film: Bucket) -> None:
    fleet.doorman.limits = replace(USUAL_LIMITS, max_bytes=49)
    film.take_away() if body is None else film.put(body)

    job = fleet.ask(url=film.url, in_place=True)

    assert (job.error or {})["code"] == (code or "media_url_not_accessible")


def test_a_bucket_that_was_not_named_is_no_place(fleet: Fleet) -> None:
    job = fleet.ask(url="s3://elsewhere/a.mp4", in_place=True)

    assert (job.error or {})["code"] == "source_forbidden"


def test_where_the_url_names_the_server_a_retry_finds_the_place_again(
    fleet: Fleet, film: Bucket, shared_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its query is sealed and erased; the place is remembered."""
    url = f"{film.url}?endpoint={shared_s3.endpoint}"
    attempts = iter(range(100))
    run = Held.run

    def refuse_once(held: Held[Any], *rest: Any) -> str:
        if held.attempt.step.stage == "transcode" and next(attempts) == 0:
            raise PipelineError("video_file_broken")
        return run(held, *rest)

    monkeypatch.setattr(Held, "run", refuse_once)
    job = fleet.ask(url=url, in_place=True)
    assert (job.status, job.sealed, job.source) == (JobStatus.FAILED, "", film.url)

    again = fleet.ask(type="asset.retry", id="again")

    assert (again.status, again.error) == (JobStatus.SUCCEEDED, None)
    assert fleet.sources() == []


# -- files of the workers' machine ------------------------------------------------------------------------------------


@pytest.fixture
def home(nursery: Nursery, tmp_path: Path) -> Fleet:
    """A private fleet whose storage is a folder."""
    return Fleet(FolderStorage(tmp_path / "root"), nursery, BenchLimits(local_sources=True))


@pytest.fixture
def file(clip: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "my film.mp4"
    path.write_bytes(clip)
    return path


def test_a_file_is_used_where_it_lies(home: Fleet, file: Path) -> None:
    job = home.ask(url=str(file), in_place=True)

    assert (job.status, job.error) == (JobStatus.SUCCEEDED, None)
    assert home.sources() == []
    assert home.document()["video"]["inputs"] == [{"url": str(file)}]


def change(path: Path) -> None:
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize(
    ("happens", "code"), [(change, "source_changed"), (Path.unlink, "media_url_not_accessible")], ids=["change", "gone"]
)
def test_a_file_that_is_another_one_is_not_read(
    happens: Callable[[Path], None], code: str, home: Fleet, file: Path
) -> None:
    home.ask(url=str(file), in_place=True)
    happens(file)

    home.ask(type="asset.reprocess", everything=True)

    assert home.outcomes[-1] == code
    assert home.document()["video"]["status"] == "Completed"


def pinning(url: Path | str) -> tuple[Places, IngestTask]:
    task = IngestTask(asset=ASSET, url=str(url), source=str(url), in_place=True)
    return Places(buckets=Buckets(), local=True), task


@pytest.mark.raises_code("source_changed")
@pytest.mark.parametrize("pinned_before", [False, True])
def test_an_attempt_that_was_thought_dead_pins_nothing_over_a_later_one(
    pinned_before: bool, home: Fleet, file: Path
) -> None:
    """Its put comes last, with what it saw first."""
    places, task = pinning(file)
    if pinned_before:
        places.register(home.storage, task, lambda: None)
        file.write_bytes(b"one film")

    def the_later_one(_: int, operation: str, key: str) -> None:
        if operation == "put":
            file.write_bytes(b"another film")
            places.register(home.storage, task, lambda: None)

    with pytest.raises(PipelineError) as caught:
        places.register(Interrupted(home.storage, the_later_one), task, lambda: None)

    assert (caught.value.code, caught.value.retryable) == ("source_changed", True)
    assert places.source(home.storage, ASSET) == file, "the later one's pin stands"


def test_what_an_attempt_pinned_before_it_died_is_pinned_anew(home: Fleet, file: Path) -> None:
    places, task = pinning(file)
    places.register(home.storage, task, lambda: None)
    file.write_bytes(b"another film")

    checksum = places.register(home.storage, task, lambda: None)

    assert checksum == hashlib.sha256(b"another film").hexdigest()
    assert places.source(home.storage, ASSET) == file


def test_two_attempts_that_see_the_same_pin_the_same(home: Fleet, file: Path) -> None:
    places, task = pinning(file)

    def the_other_one(_: int, operation: str, key: str) -> None:
        if operation == "put":
            places.register(home.storage, task, lambda: None)

    places.register(Interrupted(home.storage, the_other_one), task, lambda: None)

    assert places.source(home.storage, ASSET) == file


@pytest.mark.raises_code("source_forbidden")
def test_what_we_store_ourselves_is_no_place(home: Fleet, tmp_path: Path) -> None:
    home.storage.put("private/asset000002.mp4", b"of another asset")
    link = tmp_path / "holiday.mp4"
    link.symlink_to(tmp_path / "root" / "private" / "asset000002.mp4")

    job = home.ask(url=str(link), in_place=True)

    assert (job.error or {})["code"] == "source_forbidden"


def test_where_files_are_no_sources_none_is_a_place(film: Bucket, fleet: Fleet, file: Path) -> None:
    job = fleet.ask(url=str(file), in_place=True)

    assert (job.error or {})["code"] == "media_url_not_accessible"


@pytest.mark.parametrize("url", ["https://a.example/a.mp4", "films/a.mp4", "private/a.mp4", "file://host/a.mp4"])
def test_what_lies_on_the_web_has_no_place(url: str, home: Fleet) -> None:
    with pytest.raises(ValueError, match="in_place needs"):
        home.ask(url=url, in_place=True)


# -- seals ------------------------------------------------------------------------------------------------------------


@pytest.mark.raises_code("source_seal_broken")
def test_a_url_that_was_sealed_by_another_key_is_an_error_that_names_the_setting(home: Fleet) -> None:
    home.conductor.seal = Seal([Key.new()])
    (id_,) = home.doorman.handle(a_request(asset_id=ASSET, url="https://a.example/a.mp4?token=canary5ecret"))
    home.conductor.seal = Seal([Key.new()])

    home.live()

    assert home.outcomes == ["source_seal_broken"]
    error = home.job(id_).steps["ingest"].error
    assert error is not None
    assert "REELWAY_SEAL_KEY" in error["hint"]
    assert error["retryable"], "another worker may have the key"
    assert "canary" not in str(error)
