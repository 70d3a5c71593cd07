"""The asset document, in the reference's shape, through the life of an asset. The golden files are written by us."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from builders import a_media, a_request

from pipeline import document as documents
from pipeline.document import AssetDocument, Rendition, public_url
from pipeline.errors import PipelineError

GOLDEN = Path(__file__).parent / "golden"
ACCEPTED_MS = 1_767_225_600_000

NULL = type(None)
REFERENCE: Mapping[str, tuple[type, ...]] = {
    "id": (str,),
    "title": (str, NULL),
    "bytes": (int, NULL),
    "type": (str,),
    "live_stream": (NULL,),
    "parent": (dict, NULL),
    "parent_id": (str, NULL),
    "created": (int,),
    "lastmod": (int,),
    "orig_filename": (str, NULL),
    "external_id": (str, NULL),
    "meta": (dict,),
}
"""Fields of an asset in the reference's samples, with the JSON types that they have there."""
REFERENCE_VIDEO: Mapping[str, tuple[type, ...]] = {
    "progress": (int,),
    "thumbnails": (list,),
    "status": (str,),
    "playback_url": (str,),
    "dash_url": (str, NULL),
    "preview_thumbnail_url": (str, NULL),
    "cover_thumbnail_url": (str, NULL),
    "format": (str,),
    "resolutions": (list,),
    "video_codec": (str, NULL),
    "audio_codec": (str, NULL),
    "enable_drm": (bool,),
    "tracks": (list,),
    "inputs": (list,),
    "transmux_only": (bool, NULL),
    "duration": (int, NULL),
    "content_protection_type": (str,),
    "generate_subtitle": (bool,),
    "video_codecs": (list,),
    "output_urls": (dict,),
    "mp4_url": (str, NULL),
    "ttml_url": (str, NULL),
}


def not_started(**changes: Any) -> AssetDocument:
    """A lecture that a caller sent with everything a request may say."""
    request = a_request(
        asset_id="k3v9x0q2m7a",
        url="https://reader:secret@files.example/lectures/week-1.mov?token=secret#t=1",
        title="Week 1",
        parent_id="f0lder00001",
        external_id="course-42/1",
        orig_filename="Week 1.mov",
        meta={"course": 42},
        **changes,
    )
    return documents.not_started(
        request, resolutions=("240p", "720p"), base_url="https://media.example/", now_ms=ACCEPTED_MS
    )


def ingested(**media: Any) -> AssetDocument:
    return documents.ingested(documents.queued(not_started()), a_media(**media), "private/k3v9x0q2m7a.mov")


def completed() -> AssetDocument:
    made = [
        Rendition(
            name="video-720p",
            kind="video",
            codec="avc1.64001f",
            width=1280,
            height=720,
            frame_rate=25.0,
            bandwidth=2_900_000,
            bytes=3_100_000,
        ),
        Rendition(name="audio-1-en", kind="audio", codec="mp4a.40.2", language="en", bandwidth=130_000, bytes=160_000),
    ]
    return documents.completed(documents.published(ingested(), made, duration_ms=10_040, segments=3))


LIFE: Mapping[str, Callable[[], AssetDocument]] = {
    "not_started": not_started,
    "queued": lambda: documents.queued(not_started()),
    "transcoding": ingested,
    "completed": lambda: documents.stamped(completed(), version=4, now_ms=ACCEPTED_MS + 9_000),
    "error": lambda: documents.failed(ingested(), PipelineError("video_file_broken").document()),
    "cancelled": lambda: documents.cancelled(ingested()),
    "audio_only": lambda: ingested(video=None),
}


@pytest.mark.parametrize("name", LIFE)
def test_a_document_is_as_its_golden_file_says(name: str) -> None:
    expected = json.loads((GOLDEN / f"document_{name}.json").read_text(encoding="utf-8"))
    assert LIFE[name]().model_dump(mode="json") == expected


@pytest.mark.parametrize("name", LIFE)
def test_every_field_of_the_reference_is_there_with_its_type(name: str) -> None:
    document = LIFE[name]().model_dump(mode="json")
    _check(document, REFERENCE)
    _check(document["video"], REFERENCE_VIDEO)
    assert all(set(urls) == {"hls_url", "dash_url"} for urls in document["video"]["output_urls"].values())
    assert all(set(source) == {"url"} for source in document["video"]["inputs"])


@pytest.mark.parametrize("name", LIFE)
def test_a_document_survives_the_record(name: str) -> None:
    document = LIFE[name]()
    assert documents.load(json.loads(document.model_dump_json())) == document


def test_a_job_beside_the_first_one_says_nothing_of_what_becomes_of_that() -> None:
    error = PipelineError("video_file_broken").document()
    plays = documents.published(ingested(), [], duration_ms=10_040, segments=3)
    after = (
        documents.queued(plays, aside=True),
        documents.completed(plays, aside=True),
        documents.failed(plays, error, aside=True),
        documents.cancelled(plays, aside=True),
    )

    assert {(each.video.status, each.video.progress) for each in after} == {("Transcoding", 0)}
    assert after[2].video.error == error
    assert documents.failed(ingested(), error, aside=True).video.status == "Error", "nothing of it plays"


def test_urls_are_known_before_anything_is_made_and_never_change() -> None:
    before, after = not_started().video, completed().video
    assert before.playback_url == after.playback_url == "https://media.example/transcoded/k3v9x0q2m7a/video.m3u8"
    assert before.dash_url == after.dash_url == "https://media.example/transcoded/k3v9x0q2m7a/video.mpd"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pw@host.example:8443/a/b.mp4?sig=1#t", "https://host.example:8443/a/b.mp4"),
        ("https://us@er:pw@host.example/b.mp4", "https://host.example/b.mp4"),
        ("s3://bucket/key.mp4", "s3://bucket/key.mp4"),
        ("file:///videos/a.mp4", "file:///videos/a.mp4"),
        ("/videos/a.mp4", "/videos/a.mp4"),
        ("https://host.example?sig=1", "https://host.example"),
    ],
)
def test_a_source_url_is_shown_without_what_may_be_a_secret(url: str, shown: str) -> None:
    assert public_url(url) == shown


def test_ingest_puts_the_private_key_in_the_place_of_the_url() -> None:
    assert [source.url for source in not_started().video.inputs] == ["https://files.example/lectures/week-1.mov"]
    assert [source.url for source in ingested().video.inputs] == ["private/k3v9x0q2m7a.mov"]


def test_a_complete_asset_stays_complete_whatever_a_later_job_does() -> None:
    done = completed()
    error = PipelineError("video_file_broken").document()
    later = [
        documents.queued(done),
        documents.ingested(done, a_media(), "private/k3v9x0q2m7a.mov"),
        documents.failed(done, error),
        documents.cancelled(done),
    ]
    assert {document.video.status for document in later} == {"Completed"}
    assert documents.failed(done, error).video.error == error


def test_an_older_presentation_does_not_overwrite_a_newer_one() -> None:
    newer = [Rendition(name="video-1080p", kind="video", codec="avc1.640028", bandwidth=1, bytes=1)]
    shown = documents.published(completed(), newer, duration_ms=10_040, segments=3, version=3)

    assert documents.published(shown, [], duration_ms=1, segments=1, version=2) == shown
    again = documents.published(shown, [], duration_ms=10_040, segments=3, version=3)
    assert (again.presentation, again.video.renditions) == (3, [])


@pytest.mark.parametrize("end", ["error", "cancelled"])
def test_what_is_asked_again_waits_again_and_shows_no_old_error(end: str) -> None:
    again = documents.queued(LIFE[end]())
    assert (again.video.status, again.video.progress, again.video.error) == ("Queued", 0, None)


def test_a_new_job_of_a_complete_asset_clears_the_error_of_the_last() -> None:
    failed = documents.failed(completed(), PipelineError("video_file_broken").document())
    assert (documents.queued(failed).video.error, documents.queued(failed).video.status) == (None, "Completed")


def test_a_deleted_asset_keeps_its_document_and_shows_nothing_that_is_gone() -> None:
    alive = documents.expiring(completed(), ACCEPTED_MS + 5)
    dead = documents.deleted(alive, ACCEPTED_MS + 7)

    assert (alive.expire_at, alive.deleted) == (ACCEPTED_MS + 5, None)
    assert (dead.expire_at, dead.deleted, dead.presentation) == (0, ACCEPTED_MS + 7, 0)
    assert (dead.video.renditions, dead.video.tracks) == ([], [])
    assert (dead.title, dead.meta, dead.video.playback_url) == (alive.title, alive.meta, alive.video.playback_url)


def test_lastmod_never_goes_back() -> None:
    document = documents.stamped(not_started(), version=1, now_ms=ACCEPTED_MS + 50)
    earlier = documents.stamped(document, version=2, now_ms=ACCEPTED_MS)
    assert (earlier.lastmod, earlier.version) == (ACCEPTED_MS + 50, 2)
    assert earlier.created == ACCEPTED_MS


def _check(document: Mapping[str, Any], reference: Mapping[str, tuple[type, ...]]) -> None:
    for field, types in reference.items():
        assert type(document[field]) in types, f"{field} is {document[field]!r}"
