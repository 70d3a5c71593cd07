"""The S3 storage under faults: whatever happens, a result is right and whole, or an error with a code of ours."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from needs import Require
from s3_faults import Body, Faults, at_once, broken, inject, reply
from s3_server import CREDENTIALS, S3Server, running_s3

from pipeline.errors import PipelineError
from pipeline.ports import ObjectNotFound, PreconditionFailed, Storage
from pipeline.storage import open_storage
from pipeline.storage import s3 as s3_module
from pipeline.storage.s3 import S3Storage, connect
from pipeline.storage.s3_errors import coded


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(monkeypatch)


@pytest.fixture
def s3(
    request: pytest.FixtureRequest,
    shared_s3: S3Server,
    patience: None,
) -> S3Storage:
    """A part of the bucket of its own, with a client of its own."""
    storage = open_storage(shared_s3.url("".join(char if char.isalnum() else "-" for char in request.node.name)))
    assert isinstance(storage, S3Storage)
    return storage


@pytest.fixture
def nowhere(patience: None, monkeypatch: pytest.MonkeyPatch) -> S3Storage:
    """A storage without a server: every reply is injected."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return S3Storage(connect(endpoint="http://127.0.0.1:9", region="us-east-1"), "bucket")


# -- every reply has a code of ours -----------------------------------------------------------------------------------

TABLE = [
    ("SlowDown", 503, "storage_unavailable"),
    ("ServiceUnavailable", 503, "storage_unavailable"),
    ("InternalError", 500, "storage_unavailable"),
    ("BadGateway", 502, "storage_unavailable"),
    ("RequestTimeout", 400, "storage_unavailable"),
    ("NoSuchUpload", 404, "storage_unavailable"),
    ("ConditionalRequestConflict", 409, "storage_unavailable"),
    ("OperationAborted", 409, "storage_unavailable"),
    ("TooManyRequests", 429, "storage_unavailable"),
    ("AccessDenied", 403, "storage_forbidden"),
    ("AllAccessDisabled", 403, "storage_forbidden"),
    ("InvalidAccessKeyId", 403, "storage_forbidden"),
    ("SignatureDoesNotMatch", 403, "storage_forbidden"),
    ("RequestTimeTooSkewed", 403, "storage_forbidden"),
    ("ExpiredToken", 400, "storage_forbidden"),
    ("NoSuchBucket", 404, "storage_forbidden"),
    ("AuthorizationHeaderMalformed", 400, "storage_forbidden"),
    ("NotImplemented", 501, "storage_forbidden"),
    ("InvalidRequest", 400, "storage_forbidden"),
    ("QuotaExceeded", 403, "storage_full"),
    ("XMinioStorageFull", 507, "storage_full"),
    ("InsufficientStorage", 507, "storage_full"),
]


@pytest.mark.parametrize(("code", "status", "ours"), TABLE)
def test_every_reply_has_a_code_of_ours(nowhere: S3Storage, code: str, status: int, ours: str) -> None:
    inject(nowhere, lambda _: reply(status, code))
    uses: list[Callable[[], object]] = [
        lambda: nowhere.put("key", b"body"),
        lambda: nowhere.get("key"),
        lambda: list(nowhere.list("key")),
        lambda: nowhere.delete("key"),
        lambda: nowhere.sweep_uploads(0),
    ]
    for use in uses:
        with pytest.raises(PipelineError) as caught:
            use()
        assert caught.value.code == ours
        assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in str(caught.value.document()) + str(caught.value.log)


def test_of_a_batch_one_that_cannot_be_deleted_is_an_error() -> None:
    assert coded("AccessDenied", 0, "DeleteObjects").code == "storage_forbidden"
    assert coded("InternalError", 0, "DeleteObjects").code == "storage_unavailable"


def test_a_bucket_of_another_region_is_not_tried_again() -> None:
    """The client follows such a redirect by itself where it can; injected, it would for ever."""
    assert coded("PermanentRedirect", 301, "HeadBucket").code == "storage_forbidden"


@pytest.mark.parametrize("method", ["get", "a range", "stat"])
def test_a_missing_object_is_no_error_of_the_storage(nowhere: S3Storage, method: str) -> None:
    missing = reply(404, "NoSuchKey")
    inject(nowhere, lambda _: AWSResponse("http://injected", 404, {}, Body(b"")) if method == "stat" else missing)

    if method == "stat":  # the answer to HEAD has no body
        assert nowhere.stat("key") is None
        return
    with pytest.raises(ObjectNotFound):
        nowhere.get("key", *((3, 5) if method == "a range" else ()))


# -- cold storage classes ---------------------------------------------------------------------------------------------


@pytest.mark.raises_code("source_archived")
@pytest.mark.parametrize("code", ["InvalidObjectState", "ObjectNotInActiveTierError"])
@pytest.mark.parametrize("extra", ["<StorageClass>GLACIER</StorageClass><AccessTier>x</AccessTier>", ""])
def test_an_archived_object_is_not_to_be_had_and_not_to_be_tried_again(
    nowhere: S3Storage, code: str, extra: str
) -> None:
    inject(nowhere, lambda _: reply(403, code, extra=extra))

    for use in (lambda: nowhere.get("private/a.mp4"), lambda: nowhere.get("private/a.mp4", 10, 20)):
        with pytest.raises(PipelineError) as caught:
            use()
        assert (caught.value.code, caught.value.retryable) == ("source_archived", False)
        assert caught.value.params == {"key": "private/a.mp4", "storage_class": "GLACIER" if extra else "not told"}
        assert "Restore" in caught.value.hint


# -- bodies that break off --------------------------------------------------------------------------------------------


class _Breaking:
    """The first `times` bodies of a real server break off."""

    def __init__(self, storage: S3Storage, kind: str, times: int, keep: float = 0.5) -> None:
        self._session = storage._client._endpoint.http_session  # type: ignore[attr-defined]
        self._kind = kind
        self._left = times
        self._keep = keep
        inject(storage, self._hook)

    def _hook(self, request: Any) -> AWSResponse | None:
        if request.method != "GET" or not self._left:
            return None
        self._left -= 1
        return broken(self._session.send(request), self._kind, self._keep)


@pytest.mark.parametrize("kind", ["truncated", "reset", "stall"])
@pytest.mark.parametrize("keep", [0, 0.5, 0.999])
def test_a_body_that_breaks_off_is_fetched_again(s3: S3Storage, kind: str, keep: float) -> None:
    body = os.urandom(3000)
    s3.put("key", body)

    _Breaking(s3, kind, 3, keep)
    assert s3.get("key") == body

    _Breaking(s3, kind, 3, keep)
    assert s3.get("key", 100, 2000) == body[100:2100]


@pytest.mark.parametrize("kind", ["truncated", "reset", "stall"])
def test_a_body_that_always_breaks_off_never_passes_for_a_whole_one(s3: S3Storage, kind: str) -> None:
    s3.put("key", os.urandom(3000))
    _Breaking(s3, kind, 1000)

    for arguments in ((), (100, 2000), (2990,)):
        with pytest.raises(PipelineError) as caught:
            s3.get("key", *arguments)
        assert caught.value.code == "storage_unavailable"


def test_a_body_of_unknown_length_is_not_believed(nowhere: S3Storage) -> None:
    """Neither a length nor chunks: where it ends, the connection may have broken."""
    inject(nowhere, lambda _: AWSResponse("http://injected", 200, {"etag": '"e"'}, Body(b"half")))
    with pytest.raises(PipelineError) as caught:
        nowhere.get("key")
    assert caught.value.code == "storage_unavailable"


_LISTING = (
    b"<?xml version='1.0'?><ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>key</Key><ETag>e</ETag>"
    b"<LastModified>2025-01-01T00:00:00Z</LastModified><Size>1</Size></Contents></ListBucketResult>"
)


@contextmanager
def cutting(content: bytes, keep: int) -> Iterator[tuple[S3Storage, list[int]]]:
    """A server that promises all of `content`, sends `keep` bytes and hangs up; and a note of each request."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[int] = []
    head = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: %d\r\n\r\n' % len(content)

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                while b"\r\n\r\n" not in client.recv(65536):
                    pass
                asked.append(1)
                client.sendall(head + content[:keep])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with closing(listener):
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield S3Storage(connect(endpoint=endpoint, region="us-east-1"), "bucket"), asked
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("keep", [0, 10, 99])
def test_a_connection_that_closes_in_the_middle_of_an_object_is_noticed(keep: int) -> None:
    with cutting(bytes(100), keep) as (storage, asked):
        with pytest.raises(PipelineError) as caught:
            storage.get("key")

        assert caught.value.code == "storage_unavailable"
        assert len(asked) == s3_module._BODY_TRIES


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("keep", [0, 1, 100, len(_LISTING) - 1])
def test_a_listing_that_breaks_off_is_no_short_listing(keep: int) -> None:
    """The client would take a reply without a body for an empty one: for the janitor, an asset without versions."""
    with cutting(_LISTING, keep) as (storage, asked):
        with pytest.raises(PipelineError) as caught:
            list(storage.list(""))

        assert caught.value.code == "storage_unavailable"
        assert len(asked) == 4

    with cutting(_LISTING, len(_LISTING)) as (storage, _):
        assert [stored.key for stored in storage.list("")] == ["key"]


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("operation", ["put", "stat", "list", "get"])
def test_what_is_no_s3_at_all_is_told(operation: str) -> None:
    """A proxy's login page, say."""
    page = b"<html><body>Please log in</body></html>"
    inject_headers: dict[str, str] = {"content-length": str(len(page)), "content-type": "text/html"}
    storage = S3Storage(connect(endpoint="http://127.0.0.1:9", region="us-east-1"), "bucket")
    inject(storage, lambda _: AWSResponse("http://injected", 200, inject_headers, Body(page)))
    uses: dict[str, Callable[[], object]] = {
        "put": lambda: storage.put("key", b"x"),
        "stat": lambda: storage.stat("key"),
        "list": lambda: list(storage.list("")),
        "get": lambda: storage.get("key"),
    }
    with pytest.raises(PipelineError) as caught:
        uses[operation]()

    assert caught.value.code == "storage_unavailable"


# -- a share of everything fails --------------------------------------------------------------------------------------


class _Witness:
    """What each object may hold after operations of which some failed: a failed write may have taken place."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._held: dict[str, set[bytes | None]] = {}
        self.refused = 0

    def _of(self, key: str) -> set[bytes | None]:
        return self._held.setdefault(key, {None})

    def do(self, chance: Random, number: int) -> None:
        key = f"objects/{chance.randrange(8)}"
        operation = chance.choice((self._put, self._put, self._create, self._get, self._get, self._list, self._delete))
        try:
            operation(key, b"%06d" % number * chance.randint(1, 500))
        except PipelineError as error:
            if error.code != "storage_unavailable":
                raise
            self.refused += 1

    def _put(self, key: str, body: bytes) -> None:
        before, self._held[key] = self._of(key), {*self._of(key), body}
        assert self._storage.put(key, body).size == len(body)
        assert before
        self._held[key] = {body}

    def _create(self, key: str, body: bytes) -> None:
        before, self._held[key] = self._of(key), {*self._of(key), body} if None in self._of(key) else self._of(key)
        try:
            self._storage.put(key, body, absent=True)
        except PreconditionFailed as failed:
            if not failed.resent:
                assert before != {None}
                self._held[key] = before - {None}
        else:
            assert None in before
            self._held[key] = {body}

    def _get(self, key: str, _: bytes) -> None:
        try:
            found: bytes | None = self._storage.get(key)
        except ObjectNotFound:
            found = None
        assert found in self._of(key)
        self._held[key] = {found}
        if found:
            assert self._storage.get(key, 3, 40) == found[3:43]

    def _list(self, _: str, __: bytes) -> None:
        found = {stored.key: stored.size for stored in self._storage.list("objects/")}
        for key, bodies in self._held.items():
            assert found.get(key) in {None if body is None else len(body) for body in bodies}

    def _delete(self, key: str, _: bytes) -> None:
        self._held[key] = {*self._of(key), None}
        self._storage.delete(key)
        self._held[key] = {None}

    def check(self, healthy: Storage) -> None:
        for key, bodies in self._held.items():
            assert (healthy.get(key) if healthy.stat(key) else None) in bodies


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_no_result_is_wrong_or_partial_however_much_fails(
    s3: S3Storage,
    shared_s3: S3Server,
    share: float,
) -> None:
    healthy = S3Storage(connect(endpoint=shared_s3.endpoint, region="us-east-1"), "reelway", s3._base.rstrip("/"))
    witness, chance = _Witness(s3), Random(7)
    faults = Faults(s3, share, seed=11)

    for number in range(200):
        witness.do(chance, number)

    witness.check(healthy)
    assert sum(faults.met.values()) > 200 * share / 2
    assert len(faults.met) >= 6
    assert witness.refused <= 200 * share / 4, "the client should have tried again"


def test_a_storage_that_is_away_for_a_while_is_fine_afterwards(s3: S3Storage) -> None:
    away = [True]
    inject(s3, lambda _: reply(503, "ServiceUnavailable") if away[0] else None)
    for number in range(5):
        with pytest.raises(PipelineError) as caught:
            s3.put(f"key/{number}", b"x", absent=True)
        assert (caught.value.code, caught.value.retryable) == ("storage_unavailable", True)

    away[0] = False

    for number in range(5):
        s3.put(f"key/{number}", b"x", absent=True)
    assert len(list(s3.list("key/"))) == 5


# -- the server dies, and large objects -------------------------------------------------------------------------------


@pytest.mark.raises_code("storage_unavailable")
def test_a_server_that_dies_in_the_middle_of_an_upload_has_nothing_half(
    tmp_path: Path, require: Require, monkeypatch: pytest.MonkeyPatch, patience: None
) -> None:
    monkeypatch.setattr(s3_module, "_SINGLE_BYTES", 1024**2)
    monkeypatch.setattr(s3_module, "_PART_BYTES", 5 * 1024**2)
    source = tmp_path / "source"
    source.write_bytes(os.urandom(1024**2) * 40)
    (tmp_path / "s3").mkdir()
    with running_s3(tmp_path / "s3", require) as server:
        storage = open_storage(server.url())
        storage.put("private/before", b"x")
        moves: list[int] = []

        def moved() -> None:
            moves.append(1)
            if len(moves) == 8:
                server.kill()

        with pytest.raises(PipelineError) as caught:
            storage.put("private/source.mp4", source, absent=True, moved=moved)
        assert caught.value.code == "storage_unavailable"

        server.start()
        assert [stored.key for stored in storage.list("")] == ["private/before"]
        assert storage.get("private/before") == b"x"
        assert storage.sweep_uploads(-3600) == 1
        assert storage.put("private/source.mp4", source, absent=True).size == source.stat().st_size
        assert all(
            storage.get("private/source.mp4", offset, 1024**2) == source.read_bytes()[: 1024**2]
            for offset in range(0, 40 * 1024**2, 13 * 1024**2)
        )


_CARRY = """
import resource, sys
from pathlib import Path
from pipeline.storage import open_storage

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

url, source = sys.argv[1], Path(sys.argv[2])
storage = open_storage(url)
storage.put("private/small", b"x")
storage.get("private/small")
before = peak()
storage.put("private/large.mp4", source)
put = peak()
for offset in range(0, source.stat().st_size, 8 * 1024**2):
    assert len(storage.get("private/large.mp4", offset, 8 * 1024**2)) in (8 * 1024**2, source.stat().st_size - offset)
print(put - before, peak() - before)
"""


def test_memory_does_not_grow_with_the_object(shared_s3: S3Server, tmp_path: Path) -> None:
    """300 MB go up in parts and come down in ranges, in a process of their own."""
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(300 * 1024**2)
    command = [sys.executable, "-c", _CARRY, shared_s3.url("large"), str(source)]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)

    assert done.returncode == 0, done.stderr
    put_mb, both_mb = map(int, done.stdout.split())
    assert put_mb < 150
    assert both_mb < 150
    open_storage(shared_s3.url("large")).delete("private/")
