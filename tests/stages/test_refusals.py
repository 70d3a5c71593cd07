"""What a source may be, told of real files; and what becomes of one that was refused, wherever it is stored."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from builders import a_profile, a_request
from makers import make_clip
from presentations import ASSET
from s3_server import S3Server

from pipeline import keys, plan
from pipeline.conductor import Conductor
from pipeline.errors import PipelineError
from pipeline.held import BenchLimits
from pipeline.janitor import Janitor
from pipeline.job import Job, JobStatus, Ref
from pipeline.media.probe import probe
from pipeline.memory import ManualClock, MemoryJobStore, MemoryProgress
from pipeline.ports import Storage
from pipeline.sandbox import Nursery
from pipeline.storage import open_storage
from pipeline.tasks import Limits
from pipeline.tidy import tidy_after
from pipeline.workbench import Workbench


def refusal(path: Path, **limits: Any) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        probe(path, Limits(**limits), lambda _fraction: None)
    return caught.value


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=3, audio=None)


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("song") / "song.m4a", codec=None, seconds=3)


# -- files that are too much or too little ----------------------------------------------------------------------------


@pytest.mark.raises_code(
    "video_resolution_too_low",
    "video_resolution_too_high",
    "video_resolution_invalid_aspect_ratio",
    "video_duration_too_short",
    "video_duration_too_long",
    "video_filesize_too_large",
)
def test_a_film_is_measured_against_every_limit(clip: Path) -> None:
    size = clip.stat().st_size
    said = [
        refusal(clip, min_resolution=(640, 360)),
        refusal(clip, max_resolution=(160, 90)),
        refusal(clip, max_aspect_ratio=1.5),
        refusal(clip, min_duration_s=3.5),
        refusal(clip, max_duration_s=2.5),
        refusal(clip, max_video_bytes=size - 1),
    ]

    assert [(error.code.removeprefix("video_"), error.params) for error in said] == [
        (
            "resolution_too_low",
            {"current_resolution": "320x180", "minimum_resolution": "640x360", "maximum_resolution": "8192x8192"},
        ),
        (
            "resolution_too_high",
            {"current_resolution": "320x180", "minimum_resolution": "1x1", "maximum_resolution": "160x90"},
        ),
        ("resolution_invalid_aspect_ratio", {"current_resolution": "320x180", "maximum_aspect_ratio": 1.5}),
        ("duration_too_short", {"current_duration": 3, "minimum_duration": 3.5}),
        ("duration_too_long", {"current_duration": 3, "minimum_duration": 0, "maximum_duration": 2.5}),
        ("filesize_too_large", {"current_size": size, "maximum_size": size - 1}),
    ]
    probe(clip, Limits(max_audio_bytes=1, max_video_bytes=size, formats=("mp4",)), lambda _fraction: None)


@pytest.mark.raises_code(
    "audio_duration_too_short", "audio_duration_too_long", "audio_filesize_too_large", "audio_format_unsupported"
)
def test_so_is_a_song(song: Path) -> None:
    size = song.stat().st_size
    said = [
        refusal(song, min_audio_duration_s=30),
        refusal(song, max_audio_duration_s=2),
        refusal(song, max_audio_bytes=size - 1),
        refusal(song, audio_formats=("mp3", "flac")),
    ]

    assert [error.code.removeprefix("audio_") for error in said] == [
        "duration_too_short",
        "duration_too_long",
        "filesize_too_large",
        "format_unsupported",
    ]
    assert said[3].params == {"format": "aac", "supported_formats": "mp3, flac"}
    assert refusal(song, formats=("matroska",)).code == "media_url_unsupported_format"


@pytest.mark.raises_code("audio_format_unsupported")
def test_sound_in_a_format_that_nobody_knows_is_refused_with_those_that_we_know(song: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange.m4a"
    strange.write_bytes(song.read_bytes().replace(b"mp4a", b"ac-9").replace(b"esds", b"none"))

    error = refusal(strange)

    assert (error.code, error.params["format"]) == ("audio_format_unsupported", "unknown")
    assert "aac" in str(error.params["supported_formats"])


def test_what_is_encrypted_is_wanted_as_it_was(clip: Path, tmp_path: Path) -> None:
    """Another format would not help."""
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "01" * 16, "encryption_kid": "02" * 16}
    closed = tmp_path / "closed.mp4"
    with av.open(str(clip)) as source, av.open(str(closed), "w", options=key) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)

    error = refusal(closed)

    assert (error.code, error.params["detected_format"]) == ("media_url_unsupported_format", "encrypted media")
    assert error.hint == "Send it as it was before it was encrypted: no key opens it here."


def test_what_is_no_media_is_told_what_this_operator_takes(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_text("Dear diary, this is no film.\n" * 100)

    assert "mov, mp4, m4a" in refusal(tmp_path / "film.mp4").hint
    assert refusal(tmp_path / "film.mp4", formats=("matroska",)).hint.startswith("Send one of: matroska (whoever")


@pytest.mark.raises_code("media_url_file_broken")
def test_what_is_broken_says_how(clip: Path, tmp_path: Path) -> None:
    def said(content: bytes) -> str:
        (tmp_path / "film.mp4").write_bytes(content)
        return str(refusal(tmp_path / "film.mp4").params["reason"])

    whole = clip.read_bytes()
    assert said(b"") == "it is empty"
    assert said(whole.replace(b"moov", b"moo?")) == "its headers cannot be read"


@pytest.mark.parametrize("size", [(2, 2), (16, 16), (4000, 16), (16, 4000)])
def test_every_picture_that_can_be_encoded_is_accepted_where_nobody_says_otherwise(
    size: tuple[int, int], tmp_path: Path
) -> None:
    media = probe(make_clip(tmp_path / "a.mp4", size=size, seconds=Fraction(1, 5)), Limits(), lambda _fraction: None)

    assert media.video is not None
    assert media.video.display_size == size


@pytest.mark.raises_code("video_file_live")
@pytest.mark.parametrize("name", ["live.m3u8", "film.mp4"])
def test_the_playlist_of_a_live_stream_is_live_whatever_its_name(name: str, tmp_path: Path) -> None:
    playlist = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:4,\n7.ts\n"
    (tmp_path / name).write_text(playlist)
    (tmp_path / f"ended-{name}").write_text(playlist + "#EXT-X-ENDLIST\n")

    assert refusal(tmp_path / name).code == "video_file_live"
    ended = refusal(tmp_path / f"ended-{name}")
    assert (ended.code, ended.params["detected_format"]) == ("media_url_unsupported_format", "playlist")


# -- what becomes of a refused source ---------------------------------------------------------------------------------


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage((tmp_path / "root").as_uri())
    server: S3Server = request.getfixturevalue("shared_s3")
    return open_storage(server.url(f"refused-{tmp_path.name}"))


class Desk:
    """One request after the other, from its acceptance to the tidying behind it."""

    def __init__(self, storage: Storage, nursery: Nursery) -> None:
        self.clock = ManualClock()
        self.storage = storage
        self.store = MemoryJobStore(self.clock)
        self.conductor = Conductor(self.store, self.clock, plan, {"default": a_profile()})
        limits = BenchLimits(local_sources=True)
        self.bench = Workbench(self.conductor, storage, MemoryProgress(), self.clock, nursery, limits=limits)

    def refuse(self, source: Path, limits: Limits) -> Job:
        request = a_request(asset_id=ASSET, url=str(source))
        self.conductor.accept(request, limits=limits)
        attempt = self.conductor.begin(Ref(job=request.id, step="ingest"), "worker-1")
        assert attempt is not None
        self.bench.run(attempt)
        job = self.store.job(request.id)
        assert job is not None
        tidy_after(self.store, self.storage, job)
        return job

    def left(self) -> list[str]:
        return sorted(stored.key for stored in self.storage.list(""))


@pytest.mark.parametrize("keep", [False, True])
def test_a_refused_source_is_tried_once_and_nothing_of_it_is_public(
    keep: bool, clip: Path, storage: Storage, nursery: Nursery
) -> None:
    desk = Desk(storage, nursery)

    job = desk.refuse(clip, Limits(max_duration_s=2, keep_refused=keep))

    assert (job.status, job.steps["ingest"].attempt) == (JobStatus.FAILED, 1)
    told = [event["data"] for event in desk.store.events if event["type"].endswith("asset.failed.v1")]
    assert [data["error"] for data in told] == [job.error]
    assert job.error == {
        "code": "video_duration_too_long",
        "message": "The video lasts 3 s; 0 to 2 s are accepted.",
        "params": {"current_duration": 3, "minimum_duration": 0, "maximum_duration": 2},
        "hint": "Send a shorter video or raise the limit.",
        "retryable": False,
    }
    assert not [key for key in desk.left() if key.startswith(keys.PUBLIC)]
    kept = [keys.source(ASSET, "a.mp4"), keys.history(ASSET, job.id), keys.digest(ASSET)]
    assert desk.left() == (kept if keep else [])
    if keep:
        assert storage.get(keys.source(ASSET, "a.mp4")) == clip.read_bytes()
        assert json.loads(storage.get(keys.history(ASSET, job.id)))["job"]["error"]["code"] == "video_duration_too_long"


def test_what_was_kept_goes_with_its_record(clip: Path, storage: Storage, nursery: Nursery) -> None:
    desk = Desk(storage, nursery)
    desk.refuse(clip, Limits(max_duration_s=2, keep_refused=True))
    kept = desk.left()
    newest = max(stored.modified_ms for stored in storage.list(""))
    desk.clock.advance(newest / 1000 + 30 * 24 * 3600 - desk.clock.now_ms() / 1000)

    def swept(store: MemoryJobStore) -> list[str]:
        list(Janitor(storage, store, lambda _asset: False, desk.clock).sweep())
        return desk.left()

    assert swept(desk.store) == kept, "its record is there"
    assert swept(MemoryJobStore(desk.clock)) == []
