"""A source that lies elsewhere is read by range: the same bytes come out, and few more than needed are read."""

from __future__ import annotations

import os
import subprocess
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from builders import a_profile, a_request
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import make_clip
from running import FFMPEG, Clip, Folder, ignored, opened
from s3_server import S3Server
from storages import Interrupted
from waiting import wait_until

from pipeline import keys, plan
from pipeline.conductor import Attempt, Conductor
from pipeline.errors import PipelineError
from pipeline.held import BenchLimits
from pipeline.job import Job, Ref, Status
from pipeline.media.handle import BLOCK, LONGEST, REQUEST, Handle, Reader
from pipeline.media.probe import probe
from pipeline.memory import ManualClock, MemoryJobStore, MemoryProgress
from pipeline.ports import ObjectNotFound, Storage, StoredObject
from pipeline.ranges import Served
from pipeline.sandbox import Nursery
from pipeline.stages.audio import audio
from pipeline.stages.transcode import transcode
from pipeline.storage import open_storage
from pipeline.storage.folder import FolderStorage
from pipeline.tasks import AudioRendition, AudioTask, Limits
from pipeline.workbench import Workbench

KEY = "private/asset000001.bin"
SMALL = Limits(max_pixels=10**6)


class Elsewhere(Interrupted):
    """A folder that has no paths, as a bucket has none."""

    def __init__(self, inner: Storage, before: Callable[[int, str, str], None] = lambda *_: None) -> None:
        super().__init__(inner, before)
        self.read: list[tuple[int, int]] = []
        """Offset and length of what was read of sources."""

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        data = super().get(key, offset, length)
        if key.startswith("private/asset000001."):
            self.read.append((offset, len(data)))
        return data

    def local_path(self, key: str) -> Path | None:
        return None


class Zeros(Interrupted):
    """An object of any size, and nothing else."""

    def __init__(self, size: int) -> None:
        self.size = size

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        assert length is not None
        return bytes(max(0, min(length, self.size - offset)))

    def stat(self, key: str) -> StoredObject:
        return StoredObject(key=key, size=self.size, etag="0", modified_ms=0)


@contextmanager
def handle(storage: Storage, key: str) -> Iterator[tuple[Handle, Served]]:
    """An object as a stage in this process may read it."""
    stored = storage.stat(key)
    assert stored is not None
    with Served(storage, stored, lambda: None) as served:
        yield Handle(served._theirs, name=served.name, size=served.size), served


def whole(reader: Reader) -> bytes:
    return b"".join(iter(lambda: reader.read(1 << 20), b""))


# -- reading -----------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 2_200_000), reads=st.lists(st.tuples(st.floats(0, 1.1), st.integers(1, 3 * BLOCK))))
def test_a_reader_reads_what_a_file_would(
    tmp_path_factory: pytest.TempPathFactory, size: int, reads: list[tuple[float, int]]
) -> None:
    """A read may be short, but it is empty at the end alone."""
    storage, content = FolderStorage(tmp_path_factory.mktemp("storage")), os.urandom(size)
    storage.put(KEY, content)
    with handle(storage, KEY) as (source, _):
        reader = source.open()
        for place, length in reads:
            offset = reader.seek(int(place * size))
            data = reader.read(length)
            assert data == content[offset : offset + len(data)]
            assert data or offset >= size
        assert [reader.seek(-1, os.SEEK_END), reader.read(9), reader.seek(-1, os.SEEK_CUR)] == [
            size - 1,
            content[-1:],
            size - 1,
        ]
        assert whole(source.open()) == content


def test_what_is_read_from_front_to_back_is_read_once_and_in_few_requests() -> None:
    size = 200 * 1024**2 + 1
    with handle(Zeros(size), KEY) as (source, served):
        reader = source.open()
        while reader.read(1 << 20):
            pass
    assert served.bytes_read == size
    assert served.requests < 150


def test_a_look_here_and_there_reads_little() -> None:
    with handle(Zeros(10**9), KEY) as (source, served):
        reader = source.open()
        for place in range(0, 10**9, 10**8):
            reader.seek(place)
            reader.read(100)
        assert served.bytes_read <= 10 * 2 * BLOCK


@pytest.mark.parametrize(("length", "most"), [(2 * 10**6, 1.7), (12 * 10**6, 1.15), (10**8, 1.13)])
def test_little_is_read_ahead_for_what_is_read(length: int, most: float) -> None:
    with handle(Zeros(10**9), KEY) as (source, served):
        reader = source.open()
        reader.seek(5 * 10**8)
        while reader.tell() < 5 * 10**8 + length:
            reader.read(1 << 16)
    assert length <= served.bytes_read < most * length


def test_two_places_that_are_read_in_turn_are_both_read_ahead() -> None:
    """The picture and the sound of a file that is badly interleaved."""
    with handle(Zeros(10**9), KEY) as (source, served):
        picture, sound = source.open(), source.open()
        sound.seek(9 * 10**8)
        while picture.tell() < 5 * 10**7:
            picture.read(BLOCK)
            sound.read(BLOCK // 8)
        assert served.requests < 120
        assert served.bytes_read < 1.2 * (5 * 10**7 * 9 / 8)


def test_what_is_needed_again_and_again_is_kept() -> None:
    with handle(Zeros(10**8), KEY) as (source, served):
        index, picture = source.open(), source.open()
        while picture.read(BLOCK):
            index.seek(100)
            index.read(100)
    assert served.bytes_read == 10**8


def test_what_was_dropped_before_it_was_read_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.media.handle._KEPT", 16)
    monkeypatch.setattr("pipeline.media.handle.LONGEST", 8)
    storage, content = FolderStorage(tmp_path), os.urandom(8 * 10**6)
    storage.put(KEY, content)
    with handle(storage, KEY) as (source, served):
        readers = [source.open() for _ in range(4)]
        for number, reader in enumerate(readers):
            reader.seek(number * 2 * 10**6)
        read = [b""] * 4
        for _ in range(2 * 10**6 // BLOCK):
            read = [data + reader.read(BLOCK) for data, reader in zip(read, readers, strict=True)]
    for number, data in enumerate(read):
        assert data == content[number * 2 * 10**6 :][: len(data)]
    assert served.bytes_read > sum(map(len, read)) * 1.2, "else this test would test nothing"


def test_memory_is_bounded_however_long_the_source_is() -> None:
    """Both ends of the socket are in this process."""
    with handle(Zeros(512 * 1024**2), KEY) as (source, _):
        tracemalloc.start()
        try:
            readers = [source.open() for _ in range(4)]
            for number, reader in enumerate(readers):
                reader.seek(number * 128 * 1024**2)
            for _ in range(128 * 16):
                for reader in readers:
                    assert reader.read(BLOCK)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 48 * 1024**2


def test_every_range_that_came_is_progress() -> None:
    moved: list[int] = []
    with Served(
        Zeros(10**7), StoredObject(key=KEY, size=10**7, etag="0", modified_ms=0), lambda: moved.append(1)
    ) as served:
        whole(Handle(served._theirs, name="", size=served.size).open())
    assert len(moved) == served.requests


# -- the same out of it ------------------------------------------------------------------------------------------------


def a_clip(path: Path, how: str) -> Path:
    """One clip in many coats; three seconds of picture with B-frames, and sound."""
    many: dict[str, Any] = {"seconds": 3, "options": {"bf": "3", "preset": "fast"}, "gop": 25}
    if how == "moov in front":
        return ffmpeg(make_clip(path / "plain.mp4", **many), path / "clip.mp4", "-movflags", "+faststart")
    if how == "fragmented":
        flags = "frag_keyframe+empty_moov+default_base_moof"
        return ffmpeg(make_clip(path / "plain.mp4", **many), path / "clip.mp4", "-movflags", flags)
    if how == "live matroska":
        return ffmpeg(make_clip(path / "plain.mkv", **many), path / "clip.mkv", "-live", "1")
    if how == "variable rate":
        times = [n / 25 + (n % 7) * 0.003 + (0.4 if n > 40 else 0) for n in range(75)]
        return make_clip(path / "clip.mp4", **many, pts=times)
    suffix = {"moov at the end": "mp4", "matroska": "mkv", "transport stream": "ts", "flash": "flv"}[how]
    return make_clip(path / f"clip.{suffix}", **many)


def ffmpeg(source: Path, target: Path, *options: str) -> Path:
    command = [FFMPEG, "-v", "error", "-i", str(source), "-map", "0", "-c", "copy", *options, str(target)]
    subprocess.run(command, check=True)
    return target


COATS = ("moov at the end", "moov in front", "fragmented", "matroska", "live matroska", "transport stream", "flash")


@pytest.mark.parametrize("how", [*COATS, "variable rate"])
def test_a_handle_gives_what_the_path_gives_byte_for_byte(tmp_path: Path, how: str) -> None:
    clip = opened(a_clip(tmp_path, how), segment=1, keyframe=1)
    storage = FolderStorage(tmp_path / "storage")
    key = f"private/asset000001{clip.path.suffix}"
    storage.put(key, clip.path)

    with handle(storage, key) as (source, _):
        assert probe(source, Limits(), ignored) == clip.media
    middle = clip.task(clip.rungs("240p"), 1, 2)
    sound = a_sound_task(clip)
    for name, stage, task in (("middle", transcode, middle), ("sound", audio, sound)):
        stage(task, {"source": clip.path}, Folder(root=tmp_path / name / "path"), ignored)  # type: ignore[operator]
        with handle(storage, key) as (source, _):
            stage(task, {"source": source}, Folder(root=tmp_path / name / "handle"), ignored)  # type: ignore[operator]
        made = contents(tmp_path / name / "path")
        assert made
        assert contents(tmp_path / name / "handle") == made


def a_sound_task(clip: Clip) -> AudioTask:
    rendition = AudioRendition(track="audio-1-en", stream=clip.media.audio[0], bitrate=128_000)
    return AudioTask(asset="testasset01", source="source", rendition=rendition, timeline=clip.timeline)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["front.mp4", "end.mp4", "clip.mkv"])
def test_a_chunk_in_the_middle_reads_a_small_part_of_the_file(tmp_path: Path, name: str, big: Path) -> None:
    path = ffmpeg(big, tmp_path / name, *(("-movflags", "+faststart") if name.startswith("front") else ()))
    clip = opened(path)
    storage = FolderStorage(tmp_path)

    with handle(storage, name) as (source, served):
        transcode(clip.task(clip.rungs("240p"), 3, 4), {"source": source}, Folder(root=tmp_path / "out"), ignored)

    share = Fraction(4, 32)
    assert path.stat().st_size > 30 * 10**6
    assert served.bytes_read < path.stat().st_size * share * 2
    assert served.requests < 40


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 seconds of 8 Mbit/s, most of it padding."""
    rate = {"b": "8000000", "maxrate": "8000000", "bufsize": "8000000", "x264-params": "nal-hrd=cbr:filler=1"}
    return make_clip(tmp_path_factory.mktemp("big") / "big.mp4", seconds=32, options={**rate, "preset": "ultrafast"})


@pytest.mark.parametrize(
    "content", [b"ffconcat version 1.0\nfile other.mp4\n", b"#EXTM3U\nother.ts\n", b"v=0\no=- 0 0 IN IP4 127.0.0.1\n"]
)
def test_a_handle_opens_nothing_else_either(tmp_path: Path, content: bytes) -> None:
    storage = FolderStorage(tmp_path)
    storage.put("private/asset000001.mp4", content)
    with handle(storage, "private/asset000001.mp4") as (source, _), pytest.raises(PipelineError) as caught:
        probe(source, Limits(), ignored)
    assert caught.value.code == "media_url_unsupported_format"


# -- what goes wrong ---------------------------------------------------------------------------------------------------


class Bench:
    """A worker on a storage without paths, with a job whose ingest is done."""

    def __init__(self, storage: Storage, nursery: Nursery, clip: Path) -> None:
        self.clock = ManualClock()
        self.store = MemoryJobStore(self.clock)
        self.conductor = Conductor(self.store, self.clock, plan, {"default": a_profile(resolutions=("240p",))})
        self.storage = storage
        limits = BenchLimits(local_sources=True)
        self.bench = Workbench(self.conductor, storage, MemoryProgress(), self.clock, nursery, limits=limits)
        self.id = self.conductor.accept(a_request(url=str(clip))).id
        assert self.run("ingest") == "succeeded"
        self.transcode = next(name for name, step in self.job.steps.items() if step.stage == "transcode")

    @property
    def job(self) -> Job:
        job = self.store.job(self.id)
        assert job is not None
        return job

    def begin(self, step: str) -> Attempt:
        attempt = self.conductor.begin(Ref(job=self.id, step=step), "worker-1")
        assert attempt is not None
        return attempt

    def run(self, step: str) -> str:
        return self.bench.run(self.begin(step))

    def wait_for_retry(self, step: str) -> None:
        """Until its pause is over, and a sweeper has seen it."""
        for _ in range(200):
            if self.job.steps[step].status is Status.READY:
                return
            self.clock.advance(1)
            for ref in self.store.due(10):
                self.conductor.sweep(ref)
        raise AssertionError(self.job.steps[step])

    def segments(self) -> dict[str, bytes]:
        stored = self.storage.list("transcoded/asset000001/240p/")
        return {each.key: self.storage.get(each.key) for each in stored}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds with the index at the end, in some tens of blocks."""
    rate = {"b": "2000000", "maxrate": "2000000", "bufsize": "2000000", "x264-params": "nal-hrd=cbr:filler=1"}
    options = {**rate, "preset": "ultrafast"}
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=12, options=options)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery, clip: Path) -> dict[str, bytes]:
    """The segments that a worker makes of the clip where storage is a folder."""
    bench = Bench(FolderStorage(tmp_path_factory.mktemp("folder")), nursery, clip)
    assert bench.run(bench.transcode) == "succeeded"
    return bench.segments()


def server_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ranges-")]


def test_a_source_that_was_a_file_is_not_read_back_to_learn_what_it_is(
    tmp_path: Path, nursery: Nursery, clip: Path
) -> None:
    storage = Elsewhere(FolderStorage(tmp_path))
    bench = Bench(storage, nursery, clip)

    assert storage.read == []
    assert bench.job.blueprint is not None


def test_a_step_without_paths_makes_the_same_segments(
    tmp_path: Path, nursery: Nursery, clip: Path, expected: dict[str, bytes]
) -> None:
    storage = Elsewhere(FolderStorage(tmp_path))
    bench = Bench(storage, nursery, clip)

    assert bench.run(bench.transcode) == "succeeded"

    assert bench.segments() == expected
    assert len(storage.read) > 5
    assert server_threads() == []


def test_a_whole_job_without_paths_succeeds(tmp_path: Path, nursery: Nursery, clip: Path) -> None:
    bench = Bench(Elsewhere(FolderStorage(tmp_path)), nursery, clip)
    for stage in ("transcode", "audio", "package"):
        for name, step in bench.job.steps.items():
            if step.stage == stage:
                assert bench.run(name) == "succeeded"
    assert bench.job.status.ended
    assert bench.storage.stat(keys.hls_door("asset000001"))


def test_a_step_on_s3_makes_the_same_segments(
    shared_s3: S3Server,
    tmp_path: Path,
    nursery: Nursery,
    clip: Path,
    expected: dict[str, bytes],
) -> None:
    bench = Bench(open_storage(shared_s3.url("ranges")), nursery, clip)

    assert bench.run(bench.transcode) == "succeeded"

    assert bench.segments() == expected


def test_a_storage_that_fails_at_any_read_is_that_error_and_never_a_broken_file(
    tmp_path: Path, nursery: Nursery, clip: Path, expected: dict[str, bytes]
) -> None:
    """What was stored before it failed is right, and the next attempt makes the rest."""
    moment, failed = 0, True
    while failed:
        moment, failed = moment + 1, False
        storage = Elsewhere(FolderStorage(tmp_path / str(moment)))
        bench = Bench(storage, nursery, clip)

        def fail(_: int, operation: str, key: str, storage: Elsewhere = storage, moment: int = moment) -> None:
            if operation == "get" and key.startswith("private/asset000001.") and len(storage.read) + 1 == moment:
                raise PipelineError("storage_unavailable", reason="for a moment")

        storage.before = fail
        outcome = bench.run(bench.transcode)
        assert outcome in ("storage_unavailable", "succeeded")
        if failed := outcome != "succeeded":
            assert bench.job.steps[bench.transcode].status is Status.RETRYING
            assert bench.segments().items() <= expected.items(), moment
            storage.before = lambda *_: None
            bench.wait_for_retry(bench.transcode)
            assert bench.run(bench.transcode) == "succeeded"
        assert bench.segments() == expected, moment
        assert server_threads() == []
    assert moment > 5


def test_an_object_that_is_cut_on_its_way_is_an_unavailable_storage(
    tmp_path: Path, nursery: Nursery, clip: Path, expected: dict[str, bytes]
) -> None:
    class Cutting(Elsewhere):
        def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
            data = super().get(key, offset, length)
            return data[:-1] if len(self.read) == 4 else data

    bench = Bench(Cutting(FolderStorage(tmp_path)), nursery, clip)

    assert bench.run(bench.transcode) == "storage_unavailable"

    assert bench.segments().items() <= expected.items()


def test_a_source_that_is_gone_is_an_unavailable_storage(tmp_path: Path, nursery: Nursery, clip: Path) -> None:
    def vanish(_: int, operation: str, key: str) -> None:
        if operation == "get" and key.startswith("private/asset000001."):
            raise ObjectNotFound(key)

    for before in (vanish, lambda *_: None):
        storage = Elsewhere(FolderStorage(tmp_path))
        bench = Bench(storage, nursery, clip)
        storage.before = before
        if before is not vanish:
            storage.delete("private/asset000001.mp4")
        assert bench.run(bench.transcode) == "storage_unavailable"


def test_a_source_that_is_broken_is_still_broken(tmp_path: Path, nursery: Nursery, clip: Path) -> None:
    """The picture's bytes are gone, the index is not."""
    storage = Elsewhere(FolderStorage(tmp_path))
    bench = Bench(storage, nursery, clip)
    content = bytearray(storage.get("private/asset000001.mp4"))
    content[64 : content.index(b"moov") - 4] = bytes(len(content[64 : content.index(b"moov") - 4]))
    storage.put("private/asset000001.mp4", bytes(content))

    assert bench.run(bench.transcode) == "video_file_broken"


@pytest.mark.parametrize("function", ["die_reading", "busy"])
def test_a_child_that_dies_leaves_no_thread_behind(
    function: str, tmp_path: Path, nursery: Nursery, clip: Path, turn: Callable[[str, str], None]
) -> None:
    """In the middle of a request too, while the storage takes its time."""
    asked, answer = threading.Event(), threading.Event()

    def wait(_: int, operation: str, key: str) -> None:
        if operation == "get" and key.startswith("private/asset000001."):
            asked.set()
            assert answer.wait(60)

    storage = Elsewhere(FolderStorage(tmp_path))
    bench = Bench(storage, nursery, clip)
    turn("transcode", function)
    storage.before = wait
    outcome: list[str] = []
    thread = threading.Thread(target=lambda: outcome.append(bench.run(bench.transcode)))
    thread.start()
    if function == "die_reading":
        assert asked.wait(30)
    while thread.is_alive() and function == "busy":
        bench.bench.stop_job(bench.id)
        thread.join(0.05)
    thread.join(30)

    assert outcome == (["stage_interrupted"] if function == "die_reading" else ["lost"])
    answer.set()
    wait_until(lambda: not server_threads())


def test_a_cancelled_step_does_not_wait_for_its_storage(tmp_path: Path, nursery: Nursery, clip: Path) -> None:
    asked, answer = threading.Event(), threading.Event()

    def wait(_: int, operation: str, key: str) -> None:
        if operation == "get" and key.startswith("private/asset000001."):
            asked.set()
            assert answer.wait(60)

    storage = Elsewhere(FolderStorage(tmp_path))
    bench = Bench(storage, nursery, clip)
    storage.before = wait
    outcome: list[str] = []
    thread = threading.Thread(target=lambda: outcome.append(bench.run(bench.transcode)))
    thread.start()
    assert asked.wait(30)
    bench.bench.stop_job(bench.id)
    thread.join(30)

    assert outcome == ["lost"], "though the storage has not answered"
    answer.set()
    wait_until(lambda: not server_threads())


def test_a_child_reads_nothing_but_its_source(
    tmp_path: Path, nursery: Nursery, clip: Path, turn: Callable[[str, str], None]
) -> None:
    turn("transcode", "read_beyond")
    storage = Elsewhere(FolderStorage(tmp_path))
    bench = Bench(storage, nursery, clip)

    assert bench.run(bench.transcode) == "stage_failed"

    assert storage.read == []


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (0, LONGEST * BLOCK + 1), (2**63, 1), (10**8 - 1, 2)])
def test_what_a_child_asks_for_is_not_believed(offset: int, length: int) -> None:
    with handle(Zeros(10**8), KEY) as (source, served):
        source._channel.sendall(REQUEST.pack(offset, length))
        assert source._channel.recv(4) == bytes(4)
        assert source._channel.recv(1) == b""
    assert isinstance(served.error, PipelineError)
    assert served.bytes_read == 0


def test_a_child_without_memory_for_its_source_makes_nothing_of_it(
    tmp_path: Path, nursery: Nursery, clip: Path, turn: Callable[[str, str], None]
) -> None:
    turn("transcode", "run_short")
    bench = Bench(Elsewhere(FolderStorage(tmp_path)), nursery, clip)

    assert bench.run(bench.transcode) == "stage_out_of_memory"


def test_a_handle_whose_parent_has_gone_is_lost() -> None:
    with handle(Zeros(10**6), KEY) as (source, served):
        served._ours.shutdown(2)
        with pytest.raises(OSError, match=r"gone|pipe"):
            source.open().read(1)
