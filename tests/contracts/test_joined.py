"""Many objects read as one: a whole track for a stage, without a copy of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_server import S3Server
from storages import Interrupted

from pipeline.errors import PipelineError
from pipeline.media.handle import Handle
from pipeline.ports import ObjectNotFound, Storage
from pipeline.ranges import Joined, Served, Stretch, joined_track
from pipeline.storage import open_storage
from pipeline.storage.folder import FolderStorage
from pipeline.tasks import Segment

INIT = "transcoded/asset000001/video-240p/abc/init.mp4"


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return FolderStorage(tmp_path / "storage")
    server: S3Server = request.getfixturevalue("shared_s3")
    return open_storage(server.url(f"joined-{os.urandom(4).hex()}"))


def segments(storage: Storage, sizes: Sequence[int]) -> tuple[list[Segment], bytes]:
    """Stored segments of these sizes, and all their bytes."""
    made, content = [], b""
    for number, size in enumerate(sizes):
        body, key = os.urandom(size), INIT.replace("init.mp4", f"{number}.m4s")
        storage.put(key, body)
        made.append(Segment(start=number, duration=1, key=key, size=size))
        content += body
    return made, content


@contextmanager
def read_by_a_child(joined: Joined) -> Iterator[tuple[Handle, Served]]:
    with joined.served(lambda: None, name="video.mp4") as served:
        yield Handle(served._theirs, name=served.name, size=served.size), served


def whole(handle: Handle) -> bytes:
    reader = handle.open()
    return b"".join(iter(lambda: reader.read(1 << 20), b""))


def test_a_track_is_one_file_with_its_init_segments(storage: Storage) -> None:
    storage.put(INIT, b"init")
    storage.put(INIT.replace("abc", "def"), b"another")
    made, _ = segments(storage, [700_000, 1, 900_000])
    bodies = [storage.get(segment.key) for segment in made]
    joined = joined_track(storage, [(INIT, made[:2]), (INIT.replace("abc", "def"), made[2:])])

    with read_by_a_child(joined) as (handle, served):
        assert whole(handle) == b"init" + bodies[0] + bodies[1] + b"another" + bodies[2]
        assert (served.name, served.size, served.error) == ("video.mp4", 1_600_001 + 11, None)


def test_an_init_segment_that_is_gone_is_told_at_once(storage: Storage) -> None:
    with pytest.raises(ObjectNotFound):
        joined_track(storage, [(INIT, [])])


@pytest.mark.parametrize("harm", ["gone", "shorter"])
def test_a_piece_that_is_not_what_it_was_is_an_error_of_the_storage(storage: Storage, harm: str) -> None:
    made, _ = segments(storage, [50_000, 60_000, 70_000])
    joined = Joined(storage, [Stretch(key=segment.key, size=segment.size) for segment in made])
    storage.delete(made[1].key)
    if harm == "shorter":
        storage.put(made[1].key, bytes(59_999))

    with pytest.raises((ObjectNotFound, PipelineError)):
        joined.get("")
    with read_by_a_child(joined) as (handle, served), pytest.raises(ConnectionError):
        whole(handle)

    if harm == "gone":
        assert isinstance(served.error, ObjectNotFound)
    else:
        assert isinstance(served.error, PipelineError)
        assert served.error.code == "storage_unavailable"


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    reads=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 200)), max_size=20),
)
def test_any_range_is_that_of_all_bytes_in_a_row(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], reads: list[tuple[int, int]]
) -> None:
    storage = FolderStorage(tmp_path_factory.mktemp("storage"))
    made, content = segments(storage, sizes)
    joined = Joined(storage, [Stretch(key=segment.key, size=segment.size) for segment in made])

    assert joined.size == len(content)
    assert joined.get("") == content
    for offset, length in reads:
        assert joined.get("", offset, length) == content[offset : offset + length]


def test_a_stretch_may_be_a_part_of_an_object(storage: Storage) -> None:
    storage.put("transcoded/asset000001/x", b"0123456789")
    joined = Joined(
        storage,
        [
            Stretch(key="transcoded/asset000001/x", offset=7, size=3),
            Stretch(key="transcoded/asset000001/x", offset=0, size=2),
        ],
    )
    assert joined.get("", 1, 3) == b"890"


class Counted(Interrupted):
    """Objects of any size; counts what is asked for."""

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        self._step("get", key)
        return bytes(length or 0)


def test_large_pieces_take_few_requests(tmp_path: Path) -> None:
    """An hour of pieces of four megabytes: one and a bit for each, however they lie to the blocks."""
    storage = Counted(FolderStorage(tmp_path))
    joined = Joined(storage, [Stretch(key=f"transcoded/{n}", size=4_000_000 + n) for n in range(100)])

    with read_by_a_child(joined) as (handle, _):
        reader = handle.open()
        while reader.read(1 << 20):
            pass

    assert storage.count < 330


class InPairs(Interrupted):
    """Answers as soon as two are waiting for it."""

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self._two = threading.Barrier(2, timeout=30)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        self._two.wait()
        return bytes(length or 0)


def test_small_pieces_are_read_side_by_side(tmp_path: Path) -> None:
    """Sound: many are needed at once, and each waits for the storage."""
    storage = InPairs(FolderStorage(tmp_path))
    joined = Joined(storage, [Stretch(key=f"transcoded/{n}", size=1000) for n in range(40)])

    assert joined.get("") == bytes(40_000)
