"""Ingest by way of the workbench: a source from the web or from a bucket, and what of its URL stays where."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import a_profile, a_request
from makers import make_clip
from presentations import ASSET
from s3_server import BUCKET, S3Server
from web_server import Request, Web, running_web

from pipeline import download, keys, plan
from pipeline.conductor import Conductor
from pipeline.errors import PipelineError
from pipeline.fetch import fetch
from pipeline.guard import Allowance, Guard
from pipeline.held import BenchLimits
from pipeline.job import Job, Ref
from pipeline.memory import ManualClock, MemoryJobStore, MemoryProgress
from pipeline.ports import ObjectNotFound, Storage
from pipeline.sandbox import Child, Nursery
from pipeline.storage import open_storage
from pipeline.storage.buckets import NO_BUCKETS, Buckets
from pipeline.storage.folder import FolderStorage
from pipeline.storage.s3 import connect
from pipeline.tasks import USUAL_LIMITS, IngestTask, Limits
from pipeline.tidy import history
from pipeline.workbench import Workbench

CANARY = "canary5ecret"
KEY = f"private/{ASSET}.mp4"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=1).read_bytes()


@pytest.fixture
def web(clip: bytes) -> Iterator[Web]:
    """Serves the clip to those who know the token."""

    def answer(request: Request) -> None:
        known = request.path.endswith(f"?token={CANARY}")
        request.reply(clip if known else b"", 200 if known else 403, etag='"v1"')

    with running_web(answer) as server:
        yield server


DOOR = download.Web(guard=Guard(allow=Allowance.of("127.0.0.1"), ports=None))


def ingested(url: str, storage: Storage, nursery: Nursery, limits: BenchLimits) -> tuple[str, Job, MemoryJobStore]:
    """(outcome, job, store) of the ingest step of a request."""
    clock = ManualClock()
    store = MemoryJobStore(clock)
    conductor = Conductor(store, clock, plan, {"default": a_profile()})
    bench = Workbench(conductor, storage, MemoryProgress(), clock, nursery, limits=limits)
    job_id = conductor.accept(a_request(asset_id=ASSET, url=url)).id
    attempt = conductor.begin(Ref(job=job_id, step="ingest"), "worker-1")
    assert attempt is not None
    outcome = bench.run(attempt)
    job = store.job(job_id)
    assert job is not None
    return outcome, job, store


# -- the web ----------------------------------------------------------------------------------------------------------


def test_a_url_is_ingested_and_its_secrets_stay_in_the_request(
    web: Web, clip: bytes, nursery: Nursery, tmp_path: Path
) -> None:
    storage = FolderStorage(tmp_path / "root")
    url = f"{web.url}/films/clip.mp4?token={CANARY}"

    outcome, job, store = ingested(url, storage, nursery, BenchLimits(web=DOOR))

    assert outcome == "succeeded"
    assert storage.get(KEY) == clip
    assert job.blueprint is not None
    assert job.blueprint.media.sha256 == hashlib.sha256(clip).hexdigest()
    [ready] = [event for event in store.events if event["type"].endswith("asset.ingested.v1")]
    assert ready["data"]["asset"]["bytes"] == len(clip)
    written = b"".join(path.read_bytes() for path in (tmp_path / "root").rglob("*") if path.is_file())
    told = [json.dumps(store.events), json.dumps(dict(store.asset(ASSET).document)), history(job, {})]  # type: ignore[union-attr]
    assert CANARY.encode() not in written
    assert not [text for text in told if CANARY in text]
    assert f"{web.url}/films/clip.mp4" in told[2]


def test_the_stage_never_sees_the_url(
    web: Web, nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    run = Child.run

    def watched(self: Child, *words: Any) -> Any:
        seen.append(repr(words))
        return run(self, *words)

    monkeypatch.setattr(Child, "run", watched)

    outcome, _, _ = ingested(
        f"{web.url}/clip.mp4?token={CANARY}", FolderStorage(tmp_path / "root"), nursery, BenchLimits(web=DOOR)
    )

    assert (outcome, len(seen)) == ("succeeded", 1)
    assert web.url not in seen[0]
    assert CANARY not in seen[0]


def test_a_refusal_tells_the_url_without_its_secrets(web: Web, nursery: Nursery, tmp_path: Path) -> None:
    url = f"{web.url}/clip.mp4?token={CANARY}x"

    outcome, job, store = ingested(url, FolderStorage(tmp_path / "root"), nursery, BenchLimits(web=DOOR))

    assert outcome == "media_url_not_accessible"
    assert job.error is not None
    assert job.error["params"] == {"url": f"{web.url}/clip.mp4", "reason": "HTTP 403", "status": 403}
    assert CANARY not in json.dumps(store.events)


@pytest.mark.parametrize(("asked_s", "waited_s"), [(120, 120.0), (3600, 600.0)])
def test_the_step_comes_back_when_the_server_asked_for_it_within_bounds(
    asked_s: int, waited_s: float, nursery: Nursery, tmp_path: Path
) -> None:
    with running_web(lambda request: request.reply(b"", 503, retry_after=asked_s)) as busy:
        outcome, job, store = ingested(busy.url, FolderStorage(tmp_path / "root"), nursery, BenchLimits(web=DOOR))

    assert (outcome, job.steps["ingest"].status.value) == ("source_unavailable", "retrying")
    [retrying] = [event["data"] for event in store.events if event["type"].endswith("step.retrying.v1")]
    assert retrying["retry_in_s"] == waited_s


@pytest.mark.raises_code("source_forbidden")
def test_without_a_setting_no_url_leads_to_this_machine(web: Web, nursery: Nursery, tmp_path: Path) -> None:
    outcome, _, _ = ingested(f"{web.url}/clip.mp4", FolderStorage(tmp_path / "root"), nursery, BenchLimits())

    assert outcome == "source_forbidden"
    assert web.connections == 0


def bring(storage: Storage, url: str, *, buckets: Buckets = NO_BUCKETS, limits: Limits = USUAL_LIMITS) -> str:
    task = IngestTask(asset=ASSET, url=url, source=KEY, limits=limits)
    return fetch(storage, task, local=False, moved=lambda: None, web=DOOR, buckets=buckets)


def test_what_an_earlier_attempt_brought_is_not_brought_again(web: Web, tmp_path: Path) -> None:
    """The URL may have expired meanwhile: here it leads nowhere any more."""
    storage = FolderStorage(tmp_path / "root")
    url = f"{web.url}/clip.mp4?token={CANARY}"
    first = bring(storage, url)

    assert bring(storage, url) == first
    assert web.connections == 1


def test_an_attempt_that_died_before_it_could_tell_is_compared(web: Web, clip: bytes, tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "root")
    url = f"{web.url}/clip.mp4?token={CANARY}"
    storage.put(KEY, clip)

    assert bring(storage, url) == hashlib.sha256(clip).hexdigest()
    assert web.connections >= 1


@pytest.mark.raises_code("source_differs")
@pytest.mark.parametrize("other", ["a song", "another URL"])
def test_another_file_under_the_same_id_is_refused_and_what_is_there_stays(
    other: str, web: Web, tmp_path: Path
) -> None:
    storage = FolderStorage(tmp_path / "root")
    if other == "another URL":
        storage.put(keys.brought(ASSET), json.dumps({"url": "x", "etag": "y", "sha256": "z"}).encode())
    storage.put(KEY, b"a song")

    with pytest.raises(PipelineError) as caught:
        bring(storage, f"{web.url}/clip.mp4?token={CANARY}")

    assert caught.value.code == "source_differs"
    assert storage.get(KEY) == b"a song"


def test_a_key_takes_nothing_from_a_query() -> None:
    assert keys.source(ASSET, f"https://films.example/clip.MP4?sig=a.{CANARY[:5]}") == KEY
    assert keys.source(ASSET, f"https://films.example/clip?file=x.{CANARY[:5]}") == f"private/{ASSET}.bin"
    assert keys.source(ASSET, f"https://films.example/clip#.{CANARY[:5]}") == f"private/{ASSET}.bin"


# -- buckets ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def put(shared_s3: S3Server) -> Callable[[str, bytes], str]:
    """Puts an object into the bucket; returns its URL."""

    def put(key: str, body: bytes) -> str:
        connect(endpoint=shared_s3.endpoint, region="us-east-1").put_object(Bucket=BUCKET, Key=key, Body=body)
        return f"s3://{BUCKET}/{key}"

    return put


def test_an_object_of_the_storages_own_bucket_is_ingested(
    put: Callable[[str, bytes], str],
    shared_s3: S3Server,
    clip: bytes,
    nursery: Nursery,
) -> None:
    storage_url = shared_s3.url("sources-store")
    storage = open_storage(storage_url)
    url = put("sources-in/my film's.mp4", clip)

    limits = BenchLimits(buckets=Buckets.of("", storage_url))
    outcome, job, _ = ingested(f"{url}?endpoint={shared_s3.endpoint}", storage, nursery, limits)

    assert outcome == "succeeded"
    assert storage.get(KEY) == clip
    assert job.blueprint is not None
    assert job.blueprint.media.sha256 == hashlib.sha256(clip).hexdigest()


@pytest.mark.parametrize(
    "url",
    [
        "s3://other/film.mp4",
        "s3://reelway/private/asset000002.mp4",
        "s3://reelway/transcoded/asset000002/video.m3u8",
        "s3://reelway//private/asset000002.mp4",
        "s3://reelway/x/../private/asset000002.mp4",
        "s3://reelway/%70rivate/asset000002.mp4",
        "s3://reelway/x/%2e%2e/private/asset000002.mp4",
        "s3://reelway/",
        "s3://reelway",
        "s3:///film.mp4",
        "s3://key:secret@reelway/film.mp4",
        "s3://reelway/film.mp4?endpoint=http://127.0.0.1:9",
        "s3://reelway/film.mp4?endpoint=",
        "s3://reelway/film.mp4?versionId=secret",
        "s3://reelway/film.mp4?region",
        "s3://reelway/film.mp4#secret",
        "s3://REELWAY/film.mp4",
    ],
)
def test_a_request_reads_only_what_the_owner_named(url: str, tmp_path: Path) -> None:
    buckets = Buckets.of("", "s3://reelway?endpoint=http://127.0.0.1:1")

    with pytest.raises(PipelineError) as caught:
        bring(FolderStorage(tmp_path / "root"), url, buckets=buckets)

    assert (caught.value.code, caught.value.retryable) == ("source_forbidden", False)
    assert "secret" not in str(caught.value.document())


def test_without_a_bucket_of_its_own_and_a_setting_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        bring(FolderStorage(tmp_path / "root"), "s3://films/film.mp4", buckets=Buckets.of("", "file:///x"))

    assert caught.value.code == "source_forbidden"


def test_a_named_bucket_is_read_below_its_prefix_and_never_where_we_store(
    put: Callable[[str, bytes], str],
    shared_s3: S3Server,
    tmp_path: Path,
) -> None:
    storage = FolderStorage(tmp_path / "root")
    buckets = Buckets.of(shared_s3.url("sources-in"), shared_s3.url("sources-in/ours"))

    assert bring(storage, put("sources-in/a.mp4", b"a film"), buckets=buckets) == hashlib.sha256(b"a film").hexdigest()
    for key in ("sources-in2/a.mp4", "sources-in/ours/private/a.mp4", "sources-in/ours/transcoded/a.mp4"):
        with pytest.raises(PipelineError) as caught:
            bring(storage, put(key, b"a film"), buckets=buckets)
        assert caught.value.code == "source_forbidden"


@pytest.mark.parametrize(
    ("named", "stored"),
    [
        ("s3://films?endpoint=http://localhost:9000", "s3://films/ours?endpoint=http://127.0.0.1:9000"),
        ("s3://films?endpoint=http://127.0.0.1:9000/", "s3://films/ours?endpoint=http://127.0.0.1:9000"),
        ("s3://films?endpoint=https://s3.eu-central-1.amazonaws.com", "s3://films/ours?region=eu-central-1"),
        ("s3://films", "s3://films/ours?endpoint=http://127.0.0.1:9000"),
    ],
)
def test_however_the_server_is_written_what_we_store_is_no_source(named: str, stored: str) -> None:
    buckets = Buckets.of(named, stored)

    assert not buckets.allow("s3://films/ours/private/seal.key")
    assert not buckets.allow("s3://films/ours/transcoded/asset000001/video.m3u8")
    assert buckets.allow("s3://films/ours/in/a.mp4")


def test_what_another_fleet_keeps_in_our_bucket_is_a_source_only_where_it_was_named() -> None:
    stored = "s3://films/staging"

    assert not Buckets.of("", stored).allow("s3://films/prod/private/seal.key")
    assert not Buckets.of("", stored).allow("s3://films/private/seal.key")
    assert Buckets.of("", stored).allow("s3://films/prod/in/private.mp4")
    assert Buckets.of("s3://films/prod", stored).allow("s3://films/prod/private/asset000001.mp4")


def test_an_object_that_is_missing_empty_or_too_large_is_told(
    put: Callable[[str, bytes], str],
    shared_s3: S3Server,
    tmp_path: Path,
) -> None:
    storage = FolderStorage(tmp_path / "root")
    buckets = Buckets.of(shared_s3.url(), "")
    wrong = {
        f"s3://{BUCKET}/sources-in/nothing.mp4": "media_url_not_accessible",
        put("sources-in/empty.mp4", b""): "media_url_file_broken",
        put("sources-in/large.mp4", b"0123456789"): "media_filesize_too_large",
    }

    for url, code in wrong.items():
        with pytest.raises(PipelineError) as caught:
            bring(storage, url, buckets=buckets, limits=Limits(max_bytes=9))
        assert caught.value.code == code
    with pytest.raises(ObjectNotFound):
        storage.get(KEY)


def test_an_object_that_changes_on_its_way_is_begun_anew(
    put: Callable[[str, bytes], str],
    shared_s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.blocks.BLOCK", 4)
    url = put("sources-in/changing.mp4", b"0123456789")
    blocks = Buckets.of(shared_s3.url(), "").blocks(url, max_bytes=None, moved=lambda: None)

    assert next(blocks) == b"0123"
    put("sources-in/changing.mp4", b"abcdefghij")
    with pytest.raises(PipelineError) as caught:
        next(blocks)

    assert (caught.value.code, caught.value.retryable) == ("source_changed", True)


@pytest.mark.parametrize("text", ["films", "https://films", "s3://", "s3://key:secret@films", "s3://a, b"])
def test_a_setting_that_is_wrong_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a bucket is"):
        Buckets.of(text, "")
