"""The contract of `pipeline.ports.Storage`, told once and kept by the folder and by a real S3 server."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from presentations import ASSET, NTSC, audio_track
from s3_server import S3Server, free_ports

from pipeline.errors import PipelineError
from pipeline.ports import ObjectNotFound, PreconditionFailed, Storage
from pipeline.presentation.compose import compose
from pipeline.presentation.hls import render_playlists
from pipeline.presentation.model import Effect, Presentation
from pipeline.presentation.publish import latest, publish, render_doors
from pipeline.storage import open_storage
from pipeline.storage import s3 as s3_module
from pipeline.storage.folder import FolderStorage
from pipeline.storage.naming import cache_control, content_type
from pipeline.storage.s3 import S3Storage, connect


@pytest.fixture(scope="session")
def s3_port(shared_s3: S3Server) -> int:
    return shared_s3.port


@pytest.fixture
def s3(s3_port: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """A part of the bucket of its own for every test."""
    monkeypatch.setattr(s3_module, "_SINGLE_BYTES", 1024**2)
    monkeypatch.setattr(s3_module, "_PART_BYTES", 5 * 1024**2)  # S3's smallest
    prefix = "".join(char if char.isalnum() else "-" for char in request.node.name)
    return open_storage(f"s3://reelway/{prefix}?endpoint=http://127.0.0.1:{s3_port}&region=us-east-1")


@pytest.fixture
def folder(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "root")


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
def begin_upload(storage: Storage) -> Callable[[str], None]:
    """Write a part of the object that is to have this key, as a process does that dies then."""

    def begin(key: str) -> None:
        if isinstance(storage, S3Storage):
            upload: Any = {"Bucket": "reelway", "Key": storage._name(key)}
            upload["UploadId"] = storage._client.create_multipart_upload(**upload)["UploadId"]
            storage._client.upload_part(**upload, PartNumber=1, Body=b"half of it")
        else:
            assert isinstance(storage, FolderStorage)
            (storage._root / ".reelway/tmp" / key.replace("/", "-")).write_bytes(b"half of it")

    return begin


# -- the contract -----------------------------------------------------------------------------------------------------


def test_what_was_put_can_be_read_whole_and_by_range(storage: Storage) -> None:
    stored = storage.put("a/b.bin", b"0123456789")

    assert (stored.key, stored.size) == ("a/b.bin", 10)
    assert storage.stat("a/b.bin") == stored
    assert storage.get("a/b.bin") == b"0123456789"
    assert storage.get("a/b.bin", 3) == b"3456789"
    assert storage.get("a/b.bin", 3, 4) == b"3456"
    assert storage.get("a/b.bin", 8, 100) == b"89"
    assert storage.get("a/b.bin", 10) == b""
    assert storage.get("a/b.bin", 50, 5) == b""
    assert storage.get("a/b.bin", 4, 0) == b""


def test_an_empty_object_is_an_object(storage: Storage) -> None:
    storage.put("empty", b"")

    assert storage.get("empty") == b""
    assert [stored.size for stored in storage.list("empty")] == [0]


def test_a_missing_object_is_told_from_an_empty_one(storage: Storage) -> None:
    storage.put("a/b", b"x")

    for key in ("nothing", "a", "a/b/c", "a/bb"):
        assert storage.stat(key) is None
        with pytest.raises(ObjectNotFound):
            storage.get(key)
    with pytest.raises(ObjectNotFound):
        storage.get("nothing", 0, 0)


@pytest.mark.parametrize("size", [0, 1000, 3 * 1024**2, 11 * 1024**2 + 7])
def test_a_file_is_stored_as_its_content(storage: Storage, tmp_path: Path, size: int) -> None:
    """The sizes: nothing, one request, and parts of which the last is short."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))

    stored = storage.put("source.mp4", source, absent=True)

    assert stored.size == size
    assert storage.stat("source.mp4") == stored
    assert storage.get("source.mp4") == source.read_bytes()
    with pytest.raises(PreconditionFailed):
        storage.put("source.mp4", source, absent=True)


def test_a_file_that_is_not_there_is_the_callers_error(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        storage.put("key", tmp_path / "nothing")

    assert storage.stat("key") is None


@pytest.mark.parametrize("sizes", [(), (3,), (70_000,) * 10, (1024**2,) * 12, (12 * 1024**2, 1)])
def test_blocks_become_one_object_as_they_come(sizes: tuple[int, ...], storage: Storage) -> None:
    blocks = [bytes([number % 251]) * size for number, size in enumerate(sizes)]

    stored = storage.put("private/a.bin", iter(blocks), absent=True)

    assert storage.get("private/a.bin") == b"".join(blocks)
    found = storage.stat("private/a.bin")
    assert found is not None
    assert (found.size, found.etag) == (stored.size, stored.etag) == (sum(sizes), stored.etag)
    with pytest.raises(PreconditionFailed):
        storage.put("private/a.bin", iter([b"other"]), absent=True)
    assert storage.get("private/a.bin") == b"".join(blocks)


@pytest.mark.parametrize("size", [1000, 12 * 1024**2])
def test_blocks_that_break_off_leave_nothing(size: int, storage: Storage) -> None:
    def blocks() -> Iterator[bytes]:
        for _ in range(0, size, 1000):
            yield bytes(1000)
        raise PipelineError("source_changed", url="https://films.example/")

    with pytest.raises(PipelineError) as caught:
        storage.put("private/a.bin", blocks(), absent=True)

    assert caught.value.code == "source_changed"
    assert storage.stat("private/a.bin") is None
    assert storage.sweep_uploads(-1, dry_run=True) == 0


@pytest.mark.parametrize("size", [900_000, 33 * 1024**2], ids=["in one request", "in parts"])
def test_a_file_on_its_way_shows_that_it_moves_and_can_be_stopped(storage: Storage, tmp_path: Path, size: int) -> None:
    class Enough(Exception):
        pass

    def enough_after(calls: int) -> Callable[[], None]:
        left = iter(range(calls - 1))

        def moved() -> None:
            if next(left, None) is None:
                raise Enough

        return moved

    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    moves: list[int] = []
    storage.put("whole", source, moved=lambda: moves.append(1))
    assert len(moves) >= max(1, size // (16 * 1024**2))
    assert storage.get("whole") == source.read_bytes()

    for calls in (1, len(moves)):
        with pytest.raises(Enough):
            storage.put("broken", source, moved=enough_after(calls))
        assert storage.stat("broken") is None


def test_create_only_never_replaces(storage: Storage) -> None:
    storage.put("key", b"first", absent=True)

    with pytest.raises(PreconditionFailed):
        storage.put("key", b"second", absent=True)

    assert storage.get("key") == b"first"


def test_of_eight_creators_one_wins(storage: Storage) -> None:
    def create(number: int) -> bool:
        try:
            storage.put("race/key", b"%d" % number, absent=True)
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))

    assert won.count(True) == 1
    assert storage.get("race/key") == b"%d" % won.index(True)


def test_match_replaces_what_was_seen_and_nothing_else(storage: Storage) -> None:
    seen = storage.put("door", b"one").etag
    changed = storage.put("door", b"two", match=seen).etag

    assert changed != seen
    with pytest.raises(PreconditionFailed):
        storage.put("door", b"three", match=seen)
    with pytest.raises(PreconditionFailed):
        storage.put("no-door", b"three", match=seen)

    assert storage.get("door") == b"two"
    assert storage.stat("no-door") is None


def test_match_holds_for_a_file_in_parts(storage: Storage, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(6 * 1024**2))
    seen = storage.put("big", b"small").etag

    storage.put("big", big, match=seen)

    with pytest.raises(PreconditionFailed):
        storage.put("big", big, match=seen)
    assert storage.get("big") == big.read_bytes()


def test_compare_and_swap_loses_no_increment(storage: Storage) -> None:
    """Eight threads count to 40 together; a swap that looked away would lose some."""
    storage.put("counter", b"0")

    def increment(_: int) -> None:
        while True:
            stored = storage.stat("counter")
            assert stored is not None
            value = int(storage.get("counter"))
            try:
                storage.put("counter", b"%d" % (value + 1), match=stored.etag)
            except PreconditionFailed:
                continue
            return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(increment, range(40)))

    assert storage.get("counter") == b"40"


def test_an_etag_changes_with_the_content(storage: Storage) -> None:
    """Fifty replacements of one size, faster than a file system's clock ticks."""
    etags = [storage.put("key", b"%03d" % number).etag for number in range(50)]

    assert len(set(etags)) == 50


def test_an_object_tells_when_it_was_last_written(storage: Storage) -> None:
    """In whole seconds on S3, and by its own clock: here that is this machine's."""
    before = time.time_ns() // 1_000_000
    put = storage.put("key", b"x")
    stated = storage.stat("key")
    listed = next(iter(storage.list("key")))
    after = time.time_ns() // 1_000_000

    assert stated is not None
    for stored in (put, stated, listed):
        assert before - 1000 <= stored.modified_ms <= after
    assert stated.modified_ms == listed.modified_ms


def test_absent_and_match_cannot_both_be_meant(storage: Storage) -> None:
    with pytest.raises(ValueError, match="absent"):
        storage.put("key", b"", absent=True, match="x")


def test_objects_are_listed_in_the_order_of_their_keys(storage: Storage) -> None:
    """The characters around `/` are where an order by folders would differ."""
    keys = ["b-a", "b.a", "b/a", "b/c-d", "b/c.d", "b/c/d", "b0", "c"]
    for key in reversed(keys):
        storage.put(key, b"x")

    assert [stored.key for stored in storage.list("")] == keys
    assert [stored.key for stored in storage.list("b/")] == ["b/a", "b/c-d", "b/c.d", "b/c/d"]
    assert [stored.key for stored in storage.list("b/c")] == ["b/c-d", "b/c.d", "b/c/d"]
    assert [stored.key for stored in storage.list("b/c.d")] == ["b/c.d"]
    assert list(storage.list("d")) == []
    assert list(storage.list("b/a/")) == []
    assert all(storage.stat(stored.key) == stored for stored in storage.list(""))


def test_more_objects_than_one_page_are_listed_and_deleted(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "_BATCH", 100)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: storage.put(f"many/{number:04d}", b""), range(1001)))

    assert [stored.key for stored in storage.list("many/")] == [f"many/{number:04d}" for number in range(1001)]
    assert storage.delete("many/") == 1001
    assert list(storage.list("")) == []


def test_deleting_a_prefix_leaves_its_neighbours(storage: Storage) -> None:
    for key in ("a/x/1", "a/x/2", "a/xy", "a/y", "ab"):
        storage.put(key, b"x")

    assert storage.delete("a/x/") == 2
    assert storage.delete("a/x/") == 0

    assert [stored.key for stored in storage.list("")] == ["a/xy", "a/y", "ab"]


def test_a_deletion_asks_before_its_first_object_and_can_be_stopped(storage: Storage) -> None:
    storage.put("a/1", b"x")

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        storage.delete("a/", moved=stop)
    assert storage.stat("a/1")
    assert storage.delete("a/", moved=lambda: None) == 1


def test_everything_is_never_deleted(storage: Storage) -> None:
    storage.put("a", b"x")

    with pytest.raises(ValueError, match="everything"):
        storage.delete("")

    assert storage.get("a") == b"x"


def test_a_presigned_url_reads_without_credentials(storage: Storage) -> None:
    storage.put("private/x.mp4", b"the source")

    with urllib.request.urlopen(storage.presign("private/x.mp4", 60)) as reply:
        assert reply.read() == b"the source"


def test_uploads_that_nobody_completed_are_thrown_away_when_they_are_old(
    storage: Storage, begin_upload: Callable[[str], None]
) -> None:
    storage.put("private/done", b"x")
    for name in ("private/one", "transcoded/two"):
        begin_upload(name)

    assert storage.sweep_uploads(3600) == 0
    assert storage.sweep_uploads(-3600, dry_run=True) == 2
    assert storage.sweep_uploads(-3600) == 2
    assert storage.sweep_uploads(-3600) == 0
    assert [stored.key for stored in storage.list("")] == ["private/done"]


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", ".a", "a/.b", "a b", "ä", "a\\b", "a\n", "x" * 256]
)
def test_what_is_not_a_key_is_refused_everywhere(storage: Storage, key: str) -> None:
    for use in (storage.get, storage.stat, storage.local_path):
        with pytest.raises(ValueError, match="not a storage key"):
            use(key)
    for use_with_argument in (lambda: storage.put(key, b""), lambda: storage.presign(key, 1)):
        with pytest.raises(ValueError, match="not a storage key"):
            use_with_argument()


@pytest.mark.parametrize("prefix", ["/", "a//", "../", "a/../", ".", "a/."])
def test_what_no_key_begins_with_is_refused(storage: Storage, prefix: str) -> None:
    with pytest.raises(ValueError, match="no storage key begins"):
        list(storage.list(prefix))
    with pytest.raises(ValueError, match="no storage key begins"):
        storage.delete(prefix)


def test_publishers_that_race_lose_nothing(storage: Storage) -> None:
    """What the conditions are for: four jobs bring a track each to one asset, at once."""

    def bring(number: int) -> int:
        effect = Effect(job="job", step=str(number))
        track = audio_track(f"audio-{number}-en", default=False)

        def composer(previous: Presentation | None) -> Presentation:
            return compose(previous, asset=ASSET, tracks=[track], effect=effect, duration=NTSC.duration)

        return publish(storage, ASSET, effect, composer).version

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(bring, range(4))) == [1, 2, 3, 4]

    last = latest(storage, ASSET)
    assert last is not None
    assert {track.id for track in last.tracks} == {f"audio-{number}-en" for number in range(4)}
    for key, text in {**render_playlists(last), **render_doors(last)}.items():
        assert storage.get(key).decode() == text


# -- the folder alone -------------------------------------------------------------------------------------------------


def test_a_folder_object_has_a_path_and_shares_nothing_with_the_file_it_came_from(
    folder: FolderStorage, tmp_path: Path
) -> None:
    source = tmp_path / "holiday.mov"
    source.write_bytes(b"original")

    folder.put("private/abc.mov", source)
    source.write_bytes(b"changed!")

    path = folder.local_path("private/abc.mov")
    assert path is not None
    assert path.read_bytes() == b"original"
    assert path.stat().st_nlink == 1


def test_an_etag_changes_although_the_clock_stands_still(
    folder: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two machines one is always behind, and a freed inode is soon used again."""
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)

    etags = [folder.put("key", b"%03d" % number).etag for number in range(50)]

    assert len({etag.split("-")[1] for etag in etags}) == 50


def test_nothing_but_objects_is_left_behind(folder: FolderStorage, tmp_path: Path) -> None:
    folder.put("a/b/c", b"x")
    folder.put("a/b/c", b"y")
    with pytest.raises(PreconditionFailed):
        folder.put("a/b/c", b"z", absent=True)
    with pytest.raises(PreconditionFailed):
        folder.put("a/b/c", b"z", match="other")
    folder.delete("a/")

    assert list((tmp_path / "root").iterdir()) == [tmp_path / "root" / ".reelway"]
    assert list((tmp_path / "root" / ".reelway" / "tmp").iterdir()) == []


def test_a_dead_writers_file_is_never_an_object_and_is_removed_by_the_next_process(tmp_path: Path) -> None:
    FolderStorage(tmp_path).put("a", b"x")
    old, young = tmp_path / ".reelway/tmp/old", tmp_path / ".reelway/tmp/young"
    old.write_bytes(b"half of it")
    young.write_bytes(b"half of it")
    os.utime(old, (0, 0))

    storage = FolderStorage(tmp_path)
    assert [stored.key for stored in storage.list("")] == ["a"]
    storage.put("b", b"y")

    assert not old.exists()
    assert young.exists()


def test_creating_in_a_folder_that_is_being_deleted_works(folder: FolderStorage) -> None:
    """`delete` removes folders that became empty while other threads put into them."""
    stop = threading.Event()

    def delete() -> None:
        while not stop.is_set():
            folder.delete("a/")

    with ThreadPoolExecutor(3) as pool:
        deleting = [pool.submit(delete) for _ in range(2)]
        try:
            for number in range(200):
                folder.put(f"a/b/c/{number}", b"", absent=True)
        finally:
            stop.set()
        for each in deleting:
            each.result()


def test_where_there_are_no_hard_links_create_only_still_holds(
    folder: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    folder.put("a", b"first", absent=True)

    with pytest.raises(PreconditionFailed):
        folder.put("a", b"second", absent=True)
    assert folder.get("a") == b"first"


def test_where_the_kernel_cannot_copy_a_file_we_can(
    folder: FolderStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    source = tmp_path / "source"
    source.write_bytes(os.urandom(100_000))

    folder.put("a", source)

    assert folder.get("a") == source.read_bytes()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(errno.ENOSPC, "storage_full", marks=pytest.mark.raises_code("storage_full")),
        (errno.EDQUOT, "storage_full"),
        (errno.EACCES, "storage_forbidden"),
        (errno.EROFS, "storage_forbidden"),
        (errno.EIO, "storage_unavailable"),
    ],
)
def test_an_error_of_the_disk_has_a_code_and_leaves_nothing(
    folder: FolderStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    folder.put("before", b"x")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(PipelineError) as caught:
        folder.put("a", b"x")
    assert caught.value.code == code
    assert folder.stat("a") is None
    assert list((tmp_path / "root/.reelway/tmp").iterdir()) == []


@pytest.mark.raises_code("storage_forbidden")
def test_a_folder_that_may_not_be_written_is_forbidden(folder: FolderStorage, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    user = os.geteuid()
    try:
        if user == 0:  # who may write everywhere; `nobody` may not
            os.seteuid(65534)
        with pytest.raises(PipelineError) as caught:
            folder.put("a", b"x")
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)
    assert caught.value.code == "storage_forbidden"


def test_a_key_below_another_object_is_refused_by_a_folder(folder: FolderStorage) -> None:
    """S3 could; our keys never need it."""
    folder.put("a", b"x")

    with pytest.raises(PipelineError) as caught:
        folder.put("a/b", b"y")
    assert caught.value.code == "storage_forbidden"


def test_a_root_that_is_a_file_is_no_storage(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"a file of the user's")

    with pytest.raises(PipelineError) as caught:
        FolderStorage(tmp_path / "out").put("a", b"y")

    assert (caught.value.code, caught.value.retryable) == ("storage_forbidden", False)


# -- S3 alone ---------------------------------------------------------------------------------------------------------


class _LossyRoad:
    """A TCP proxy that delivers every request, and cuts the first connection before the reply to a PUT comes back."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.lost = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            lossy = False
            sockets = {client: server, server: client}
            while True:
                for each in select.select(list(sockets), [], [])[0]:
                    data = each.recv(65536)
                    if each is client and data.startswith(b"PUT ") and not self.lost:
                        lossy = True
                    if not data:
                        return
                    # `100 Continue` is passed on; the reply after it is not.
                    if each is server and lossy and b" 100 " not in data[:20]:
                        self.lost += 1
                        return
                    sockets[each].sendall(data)


def test_a_write_whose_reply_was_lost_can_be_told_from_a_lost_race(s3_port: int) -> None:
    """The client sends it again by itself and meets its own object."""
    road = _LossyRoad(s3_port)
    try:
        storage = S3Storage(connect(endpoint=f"http://127.0.0.1:{road.port}", region="us-east-1"), "reelway")
        with pytest.raises(PreconditionFailed) as caught:
            storage.put("lost/reply", b"mine", absent=True)
        assert road.lost == 1
        assert caught.value.resent
        assert storage.get("lost/reply") == b"mine"

        with pytest.raises(PreconditionFailed) as caught:
            storage.put("lost/reply", b"other", absent=True)
        assert not caught.value.resent
    finally:
        road.close()


def test_an_upload_that_fails_leaves_no_parts(s3: S3Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(11 * 1024**2))
    client = s3._client

    def lose(**_: object) -> None:
        raise ConnectionError("the worker lost its network")

    monkeypatch.setattr(client, "complete_multipart_upload", lose)
    with pytest.raises(ConnectionError):
        s3.put("big", big)

    assert client.list_multipart_uploads(Bucket="reelway").get("Uploads", []) == []
    assert s3.stat("big") is None


def test_uploads_of_others_in_the_same_bucket_are_left_alone(s3: S3Storage) -> None:
    upload: Any = {"Bucket": "reelway", "Key": "somebody-elses/archive.zip"}
    upload["UploadId"] = s3._client.create_multipart_upload(**upload)["UploadId"]

    assert s3.sweep_uploads(-3600) == 0
    assert S3Storage(s3._client, "reelway").sweep_uploads(-3600) == 0

    s3._client.abort_multipart_upload(**upload)


def test_objects_are_served_with_their_type_and_cache_header(s3: S3Storage) -> None:
    s3.put("transcoded/abc/video.m3u8", b"#EXTM3U")

    with urllib.request.urlopen(s3.presign("transcoded/abc/video.m3u8", 60)) as reply:
        assert reply.headers["content-type"] == "application/vnd.apple.mpegurl"
        assert reply.headers["cache-control"] == "public, max-age=5, must-revalidate"


def test_wrong_credentials_are_forbidden(s3_port: int, s3: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    stranger = open_storage(f"s3://reelway?endpoint=http://127.0.0.1:{s3_port}&region=us-east-1")

    for use in (lambda: stranger.get("a"), lambda: stranger.stat("a"), lambda: stranger.put("a", b"")):
        with pytest.raises(PipelineError) as caught:
            use()
        assert caught.value.code == "storage_forbidden"
        assert "wrong" not in str(caught.value.document())


def test_no_credentials_are_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")

    with pytest.raises(PipelineError) as caught:
        open_storage("s3://reelway?endpoint=http://127.0.0.1:9&region=us-east-1").get("a")

    assert caught.value.code == "storage_forbidden"


def test_a_server_that_does_not_answer_is_unavailable_and_worth_another_try(
    s3_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    port = free_ports(1)[0]

    with pytest.raises(PipelineError) as caught:
        open_storage(f"s3://reelway?endpoint=http://127.0.0.1:{port}&region=us-east-1").get("a")

    assert (caught.value.code, caught.value.retryable) == ("storage_unavailable", True)


# -- what follows from a key, and URLs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "header"),
    [
        ("private/abc.mp4", "private, no-store"),
        ("private/abc/media.json", "private, no-store"),
        ("transcoded/abc/video.m3u8", "public, max-age=5, must-revalidate"),
        ("transcoded/abc/thumbnails/thumbnail_1.png", "public, max-age=5, must-revalidate"),
        ("transcoded/abc/subtitles/en/3.vtt", "public, max-age=5, must-revalidate"),
        ("transcoded/abc/video-720p/0a1b2c/0.m4s", "public, max-age=31536000, immutable"),
        ("transcoded/abc/presentations/0001/presentation.json", "public, max-age=31536000, immutable"),
        ("transcoded/abc/presentations/0001/5f2e/video-720p.m3u8", "public, max-age=31536000, immutable"),
    ],
)
def test_doors_are_cached_shortly_and_everything_else_for_ever(key: str, header: str) -> None:
    assert cache_control(key) == header


def test_types_follow_from_the_name() -> None:
    assert content_type("a/video.mpd") == "application/dash+xml"
    assert content_type("a/b") == "application/octet-stream"


def test_a_storage_is_named_by_a_url(tmp_path: Path) -> None:
    for url in (str(tmp_path), tmp_path.as_uri()):
        assert open_storage(url).local_path("a/b") == tmp_path / "a/b"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host/path",
        "file://host/path",
        "s3://",
        "s3://user:secret@bucket/",
        "s3://bucket?colour=red",
        "s3://bucket?checksums=no",
        "s3://bucket/../x?region=us-east-1",
        "s3://bucket?endpoint=nothing&region=us-east-1",
    ],
)
def test_a_url_that_names_no_storage_is_refused(url: str) -> None:
    with pytest.raises(PipelineError) as caught:
        open_storage(url)

    assert caught.value.code == "parameter_invalid"
    assert "secret" not in str(caught.value.document())
