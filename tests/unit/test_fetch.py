"""A source is brought once, is always the one that was asked for, and shows that it is on its way."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from builders import a_sound
from storages import Interrupted

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.fetch import fetch
from pipeline.storage.folder import FolderStorage
from pipeline.tasks import AudioRendition, IngestTask, Limits, Rung, Timeline

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
    timeline = Timeline(rate=Fraction(25), frames=250)

    for rendition in (rung, sound):
        names = {
            keys.recipe(rendition, timeline, "x264", "aa"),
            keys.recipe(rendition, timeline, "x264", "bb"),
            keys.recipe(rendition, timeline, "x265", "aa"),
        }
        assert len(names) == 3
        assert keys.recipe(rendition, timeline, "x264", "aa") in names
