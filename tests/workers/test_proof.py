"""`reelway doctor` proves a storage: what it relies on is tried, and what is wrong is named with what to do."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from s3_server import S3Server, free_ports
from storages import Interrupted

from pipeline.errors import PipelineError
from pipeline.ports import Moved, Storage, StoredObject
from pipeline.storage import open_storage
from pipeline.storage.folder import FolderStorage
from workers import doctor, proof
from workers.finding import Finding

BUCKET_STEPS = ["read", "create-only", "swap", "list", "presign", "CORS", "uploads", "speed", "delete"]
FOLDER_STEPS = ["read", "create-only", "swap", "list", "links", "uploads", "speed", "delete"]


def states(findings: list[Finding]) -> dict[str, str]:
    return {finding.name.removeprefix("storage: "): finding.state for finding in findings}


@pytest.fixture
def replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Storage], Storage]], list[Finding]]:
    """Prove a folder with something wrong about it."""

    def prove(change: Callable[[Storage], Storage]) -> list[Finding]:
        inner = FolderStorage(tmp_path / "root")
        monkeypatch.setattr(proof, "open_storage", lambda _: change(inner))
        findings = list(proof.prove("anything"))
        assert list(inner.list("")) == []
        return findings

    return prove


def test_a_bucket_is_proved_and_left_as_it_was(shared_s3: S3Server) -> None:
    url = shared_s3.url("proof")

    findings = list(proof.prove(url))

    assert states(findings) == dict.fromkeys(["storage", *BUCKET_STEPS], "ok")
    assert findings[0].detail == "s3://reelway/proof: answers"
    assert list(open_storage(url).list("")) == []


def test_a_folder_is_proved_and_left_as_it_was(tmp_path: Path) -> None:
    findings = list(proof.prove(str(tmp_path / "media")))

    assert states(findings) == dict.fromkeys(["storage", *FOLDER_STEPS], "ok")
    assert list(FolderStorage(tmp_path / "media").list("")) == []


@pytest.mark.parametrize(
    ("bucket", "secret", "code"),
    [("nothing-here", "reelway-secret", "NoSuchBucket"), ("reelway", "wrong-secret", "SignatureDoesNotMatch")],
)
def test_a_bucket_that_is_not_there_and_wrong_credentials_are_told(
    shared_s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    bucket: str,
    secret: str,
    code: str,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)

    (finding,) = proof.prove(f"s3://{bucket}?endpoint={shared_s3.endpoint}&region=us-east-1")

    assert (finding.state, code in finding.detail) == ("missing", True)
    assert "credentials" in finding.mend
    assert secret not in finding.detail


def test_a_server_that_does_not_answer_is_told() -> None:
    environ = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        (finding,) = proof.prove(f"s3://reelway?endpoint=http://127.0.0.1:{free_ports(1)[0]}&region=us-east-1")

    assert (finding.state, "does not answer" in finding.detail) == ("missing", True)


def test_a_url_that_is_none_is_told_without_its_password() -> None:
    (finding,) = proof.prove("s3://user:canary@bucket")

    assert finding.state == "missing"
    assert "canary" not in finding.detail + finding.mend


class _Careless(Interrupted):
    """A server that takes no notice of conditions, as some S3-alikes do."""

    def __init__(self, inner: Storage, ignored: str) -> None:
        super().__init__(inner)
        self.ignored = ignored

    def put(
        self,
        key: str,
        body: bytes | Path,
        *,
        absent: bool = False,
        match: str | None = None,
        moved: Moved | None = None,
    ) -> StoredObject:
        absent, match = absent and self.ignored != "absent", None if self.ignored == "match" else match
        return self.inner.put(key, body, absent=absent, match=match)


@pytest.mark.parametrize(("ignored", "step"), [("absent", "create-only"), ("match", "swap")])
def test_a_server_that_ignores_conditions_is_found_out(replaced: Any, ignored: str, step: str) -> None:
    findings = replaced(lambda inner: _Careless(inner, ignored))

    assert list(states(findings).items())[-1] == (step, "missing")
    assert "If-None-Match" in findings[-1].mend


class _NoRanges(Interrupted):
    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        return self.inner.get(key)


def test_a_server_that_ignores_ranges_is_found_out(replaced: Any) -> None:
    assert states(replaced(_NoRanges)) == {"storage": "ok", "read": "missing"}


@pytest.mark.parametrize("operation", ["put", "get", "stat", "delete"])
def test_what_may_not_be_done_is_told(replaced: Any, operation: str) -> None:
    refused = 0

    def refuse(_: int, asked: str, key: str) -> None:
        nonlocal refused
        if asked == operation and not refused:
            refused += 1
            raise PipelineError("storage_forbidden", reason=f"{operation}: AccessDenied")

    findings = replaced(lambda inner: Interrupted(inner, refuse))

    assert findings[-1].state == "missing"
    assert f"{operation}: AccessDenied" in findings[-1].detail


def test_credentials_that_may_not_see_uploads_are_a_warning(replaced: Any) -> None:
    def refuse(_: int, asked: str, key: str) -> None:
        if asked == "sweep_uploads":
            raise PipelineError("storage_forbidden", reason="ListMultipartUploads: AccessDenied")

    findings = replaced(lambda inner: Interrupted(inner, refuse))

    assert states(findings)["uploads"] == "warning"
    assert states(findings)["delete"] == "ok"


def test_a_folder_without_hard_links_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)

    assert states(list(proof.prove(str(tmp_path))))["links"] == "warning"


@pytest.mark.parametrize(
    ("allowed", "state"), [("*", "ok"), (proof._ORIGIN, "ok"), (None, "warning"), ("https://other.example", "warning")]
)
def test_whether_players_on_other_sites_may_read_is_seen(
    shared_s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    allowed: str | None,
    state: str,
) -> None:
    """The real server allows everybody; what others say is put in place of that."""
    fetch = proof._fetch
    monkeypatch.setattr(proof, "_fetch", lambda url, *, origin=None: (fetch(url)[0], allowed) if origin else fetch(url))

    assert states(list(proof.prove(shared_s3.url("cors"))))["CORS"] == state


def test_a_presigned_url_that_is_refused_is_told_and_not_shown(
    shared_s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    presign = Interrupted.presign
    storage = Interrupted(open_storage(shared_s3.url("refused")))
    monkeypatch.setattr(storage, "presign", lambda key, expires_s: presign(storage, key, expires_s)[:-4] + "0000")
    monkeypatch.setattr(proof, "open_storage", lambda _: storage)

    *_, finding = proof.prove("anything")

    assert (finding.name, finding.detail) == ("storage: presign", "a presigned URL is answered with 403")


def test_the_command_proves_the_storage_that_is_named(tmp_path: Path) -> None:
    """Named by the environment or on the command line; nothing of the kind is looked for else."""

    def run(*arguments: str, **environ: str) -> tuple[int, dict[str, str], str]:
        command = [sys.executable, "-m", "workers", "doctor", "--json", *arguments]
        done = subprocess.run(
            command, env={**os.environ, **environ}, capture_output=True, text=True, check=False, timeout=120
        )
        findings = json.loads(done.stdout)
        return done.returncode, {each["name"]: each["state"] for each in findings}, done.stderr

    assert run(REELWAY_STORAGE_URL=(tmp_path / "one").as_uri())[1]["storage: swap"] == "ok"
    (tmp_path / "file").write_bytes(b"no folder")
    code, found, errors = run("--storage", str(tmp_path / "file"))
    assert (code, found["storage: read"], errors) == (1, "missing", "")


def test_a_storage_that_nobody_named_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REELWAY_STORAGE_URL", raising=False)
    assert doctor._named_storage() is None

    monkeypatch.setenv("REELWAY_STORAGE_URL", "s3://bucket/prefix")
    assert urlsplit(doctor._named_storage() or "").netloc == "bucket"
