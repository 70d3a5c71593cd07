"""A source is brought once, is always the one that was asked for, and shows that it is on its way."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from builders import a_sound, a_video
from storages import Interrupted

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.fetch import fetch
from pipeline.storage.folder import FolderStorage
from pipeline.tasks import (
    AudioRendition,
    AudioTask,
    Color,
    DolbyVision,
    IngestTask,
    Light,
    Limits,
    Rung,
    Timeline,
    TranscodeTask,
)

KEY = "private/asset000001.mp4"
MIB = 1024**2


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "root")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "holiday.mp4"
    path.write_bytes(b"a film")
    return path


def bring(storage: Any, source: Path | str, moved: Any = lambda: None, **task: Any) -> str:
    ingest = IngestTask(asset="asset000001", url=str(source), source=KEY, **task)
    return fetch(storage, ingest, local=True, moved=moved)


def refused(storage: Any, source: Path | str, **task: Any) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        bring(storage, source, **task)
    return caught.value


def test_the_source_is_stored_and_its_checksum_told(storage: FolderStorage, source: Path) -> None:
    assert bring(storage, source) == hashlib.sha256(b"a film").hexdigest()
    assert storage.get(KEY) == b"a film"


def test_a_second_attempt_finds_what_the_first_brought(storage: FolderStorage, source: Path) -> None:
    first = bring(storage, source)
    stored = storage.stat(KEY)

    assert bring(storage, source) == first
    assert storage.stat(KEY) == stored


@pytest.mark.parametrize("other", [b"a song", b"a longer film"])
def test_another_file_under_the_same_id_is_refused_and_what_is_there_stays(
    other: bytes, storage: FolderStorage, source: Path
) -> None:
    storage.put(KEY, other)

    error = refused(storage, source)

    assert (error.code, error.retryable) == ("source_differs", False)
    assert error.params["asset"] == "asset000001"
    assert storage.get(KEY) == other


def test_a_source_that_is_removed_at_that_moment_is_tried_again(storage: FolderStorage, source: Path) -> None:
    bring(storage, source)

    def remove(_: int, operation: str, key: str) -> None:
        if operation == "stat":
            storage.delete(KEY)

    error = refused(Interrupted(storage, remove), source)

    assert (error.code, error.retryable) == ("storage_unavailable", True)
    bring(storage, source)


def a_large_file(folder: Path) -> Path:
    """64 MiB that take no space."""
    path = folder / "large.mp4"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    return path


def test_a_copy_that_takes_long_shows_that_it_moves(storage: FolderStorage, tmp_path: Path) -> None:
    """At least once for every sixteen megabytes that are copied, and for every eight that are read."""
    moves: list[int] = []

    bring(storage, a_large_file(tmp_path), lambda: moves.append(1))

    assert len(moves) == 64 // 16 + 64 // 8


@pytest.mark.parametrize("at", [1, 3])
def test_a_copy_can_be_stopped_in_the_middle_and_leaves_nothing(
    at: int, storage: FolderStorage, tmp_path: Path
) -> None:
    class Enough(Exception):
        pass

    moves: list[int] = []

    def moved() -> None:
        moves.append(1)
        if len(moves) == at:
            raise Enough

    with pytest.raises(Enough):
        bring(storage, a_large_file(tmp_path), moved)

    assert list(storage.list("")) == []
    assert [path for path in (tmp_path / "root").rglob("*") if path.is_file() and path.name != "lock"] == []


def test_a_file_that_vanishes_while_it_is_read_is_not_accessible(storage: FolderStorage, source: Path) -> None:
    def vanish(_: int, operation: str, key: str) -> None:
        if operation == "put":
            source.unlink()

    assert refused(Interrupted(storage, vanish), source).code == "media_url_not_accessible"


class Afar(Interrupted):
    """A storage whose objects are no files of this machine."""

    def local_path(self, key: str) -> Path | None:
        return None


@pytest.mark.raises_code("source_changed")
@pytest.mark.parametrize("storage_of", [lambda storage: storage, Afar], ids=["folder", "afar"])
@pytest.mark.parametrize("change", ["grows", "is another one"])
def test_a_file_that_changes_while_it_is_copied_is_begun_anew(
    change: str, storage_of: Any, storage: FolderStorage, tmp_path: Path
) -> None:
    source = a_large_file(tmp_path)
    writes = iter([b"more of it"])

    def moved() -> None:
        with source.open("ab" if change == "grows" else "r+b") as file:
            file.write(next(writes, b""))

    with pytest.raises(PipelineError) as caught:
        bring(storage_of(storage), source, moved)

    assert (caught.value.code, caught.value.retryable) == ("source_changed", True)
    assert list(storage.list("")) == [], "a film and a half is no source"


@pytest.mark.parametrize("storage_of", [lambda storage: storage, Afar], ids=["folder", "afar"])
def test_the_checksum_is_that_of_what_is_stored(storage_of: Any, storage: FolderStorage, source: Path) -> None:
    """The file changes as soon as it is copied."""

    class ThenAnother(Afar):
        def put(self, *args: Any, **options: Any) -> Any:
            stored = super().put(*args, **options)
            source.write_bytes(b"a song")
            return stored

        def local_path(self, key: str) -> Path | None:
            return self.inner.local_path(key)

    checksum = bring(ThenAnother(storage_of(storage)), source)

    assert storage.get(KEY) == b"a film"
    assert checksum == hashlib.sha256(b"a film").hexdigest()


@pytest.mark.parametrize("area", ["private", "transcoded", ".reelway/uploads"])
@pytest.mark.parametrize("way", ["straight", "dots", "a link to it", "a link to its folder"])
def test_what_we_store_ourselves_is_no_source(area: str, way: str, storage: FolderStorage, tmp_path: Path) -> None:
    """It belongs to another asset, perhaps of another organization."""
    folder = tmp_path / "root" / area
    folder.mkdir(parents=True)
    ours = folder / "asset000002.mp4"
    ours.write_bytes(b"of another asset")
    (tmp_path / "link.mp4").symlink_to(ours)
    (tmp_path / "films").symlink_to(folder)
    written = {
        "straight": ours,
        "dots": f"file://{tmp_path}/root/in/../{area}/asset000002.mp4",
        "a link to it": tmp_path / "link.mp4",
        "a link to its folder": tmp_path / "films" / "asset000002.mp4",
    }

    error = refused(storage, written[way])

    assert (error.code, error.retryable) == ("source_forbidden", False)
    assert storage.stat(KEY) is None


def test_beside_what_we_store_there_may_be_sources(storage: FolderStorage, tmp_path: Path) -> None:
    """`reelway process film.mp4 --out .`"""
    storage.put("private/asset000002.mp4", b"of another asset")
    source = tmp_path / "root" / "film.mp4"
    source.write_bytes(b"a film")

    assert bring(storage, source) == hashlib.sha256(b"a film").hexdigest()


def test_what_cannot_be_a_source_is_refused_before_anything_is_stored(
    storage: FolderStorage, source: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()

    assert refused(storage, tmp_path / "nowhere.mp4").code == "media_url_not_accessible"
    assert refused(storage, tmp_path).code == "media_url_not_accessible"
    assert refused(storage, "\0").code == "media_url_not_accessible"
    assert refused(storage, empty).code == "media_url_file_broken"
    too_large = refused(storage, source, limits=Limits(max_bytes=5))
    assert (too_large.code, too_large.params["current_size"]) == ("media_filesize_too_large", 6)
    with pytest.raises(PipelineError):
        fetch(storage, IngestTask(asset="asset000001", url=str(source), source=KEY), local=False, moved=lambda: None)
    assert list(storage.list("")) == []


def test_another_source_never_meets_the_segments_of_this_one() -> None:
    """Whatever decides the bytes of a track is part of its folder's name."""
    rung = Rung(name="240p", width=426, height=240, crf=23, maxrate=1, bufsize=2, preset="fast")
    sound = AudioRendition(track="audio-1-en", stream=a_sound(), bitrate=128_000)
    shared: Any = {
        "asset": "asset000001",
        "source": KEY,
        "timeline": Timeline(rate=Fraction(25), frames=250),
        "encoder": "x264",
        "source_sha256": "aa",
    }
    picture = TranscodeTask(**shared, video=a_video(), rungs=(rung,), first_segment=0, last_segment=1)

    for rendition, task in ((rung, picture), (sound, AudioTask(**shared, rendition=sound))):
        others = (task, replace(task, source_sha256="bb"), replace(task, encoder="x265"))
        assert len({keys.recipe(rendition, other) for other in others}) == 3
        assert keys.recipe(rendition, task) == keys.recipe(rendition, replace(task, asset="asset000002"))


@pytest.mark.parametrize(
    "otherwise",
    [
        {"color": Color(transfer="smpte2084")},
        {"light": Light(max_content=4000)},
        {"dolby_vision": DolbyVision(profile=8, level=1, compatibility=4)},
        {"mirrored": True},
        {"rotation": 90},
        {"interlaced": True},
        {"sample_aspect_ratio": Fraction(4, 3)},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_picture_that_is_known_otherwise_is_another_one(otherwise: dict[str, Any]) -> None:
    """What an older ingest did not see decided the pixels that it made: they never stand beside newer ones."""
    rung = Rung(name="240p", width=426, height=240, crf=23, maxrate=1, bufsize=2, preset="fast")
    chunk = TranscodeTask(
        asset="asset000001",
        source=KEY,
        video=a_video(),
        timeline=Timeline(rate=Fraction(25), frames=250),
        rungs=(rung,),
        first_segment=0,
        last_segment=1,
    )

    seen = replace(chunk, video=a_video(**otherwise))

    assert keys.recipe(rung, seen) != keys.recipe(rung, chunk)
    assert keys.recipe(rung, replace(chunk, first_segment=1, last_segment=2)) == keys.recipe(rung, chunk)
