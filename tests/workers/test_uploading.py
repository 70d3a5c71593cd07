"""The sending end of an upload, against lines and storages that behave badly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.upload_wire import PartSaid, UploadSaid
from workers import uploading
from workers.commands.uploads import _meant
from workers.uploading import Remembered, Sender

CONTENT = b"0123456789"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.mp4"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploading, "_pauses", lambda: [0.0] * 4)


def said(url: str) -> UploadSaid:
    return UploadSaid(
        id="abcdefghijk_1",
        asset_id="abcdefghijk",
        file_name="a.mp4",
        file_size=len(CONTENT),
        content_type="video/mp4",
        state="open",
        started_at=0,
        expires_at=0,
        parts=(PartSaid(part_number=1, size=len(CONTENT), upload_url=url),),
    )


@contextmanager
def storage(*answers: int) -> Iterator[tuple[str, list[str]]]:
    """Answers one status after the other, the last again and again. Yields its URL, and the paths that were asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(answers[min(len(asked), len(answers) - 1)])
            asked.append(self.path)
            self.send_header("ETag", '"it"')
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def refused(sender: Sender, upload: UploadSaid) -> PipelineError:
    with pytest.raises(PipelineError) as raised:
        sender.send(upload)
    return raised.value


def test_a_name_that_nobody_knows_is_tried_again_and_ends_with_a_code(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def unknown(*_: object, **__: object) -> None:
        tries.append(1)
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.create_connection", unknown)
    upload = said("http://storage.example/x")

    error = refused(Sender(file, lambda: upload, lambda _: None), upload)

    assert (error.code, len(tries)) == ("storage_unavailable", 4)


def test_a_break_while_a_fresh_url_is_asked_for_is_a_break_as_well(file: Path) -> None:
    """Whoever has no line cannot ask either."""
    answers = iter([PipelineError("storage_unavailable", reason="no line")])

    def ask() -> UploadSaid:
        for error in answers:
            raise error
        return said(f"{url}/fresh")

    with storage(403, 403, 200) as (url, asked):
        assert Sender(file, ask, lambda _: None).send(said(f"{url}/old")) == {1: "it"}

    assert asked == ["/old", "/old", "/fresh"]


def test_credentials_that_have_expired_are_asked_for_again_and_what_is_never_taken_is_not_tried_for_long(
    file: Path,
) -> None:
    with storage(400, 200) as (url, asked):
        fresh = said(f"{url}/fresh")
        assert Sender(file, lambda: fresh, lambda _: None).send(said(f"{url}/old")) == {1: "it"}
        assert asked == ["/old", "/fresh"]

    with storage(400) as (url, asked):
        error = refused(Sender(file, lambda: said(f"{url}/fresh"), lambda _: None), said(f"{url}/old"))
        assert (error.code, asked) == ("storage_unavailable", ["/old", "/fresh", "/fresh"])


def test_nobody_is_sent_elsewhere_with_a_part(file: Path) -> None:
    with storage(307) as (url, asked):
        upload = said(f"{url}/x")
        error = refused(Sender(file, lambda: upload, lambda _: None), upload)

    assert (error.code, asked) == ("storage_unavailable", ["/x"])
    assert "307" in error.params["reason"]


def test_a_file_that_is_gone_is_a_file_that_changed(file: Path) -> None:
    sender = Sender(file, lambda: said(""), lambda _: None)
    file.unlink()

    assert refused(sender, said("http://127.0.0.1:9/x")).code == "source_changed"


def test_an_upload_is_remembered_with_all_that_was_asked(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    wish = {"fileName": "a.mp4", "organization": "alpha", "title": "A"}
    Remembered(file, "s3://films", wish).keep("abcdefghijk_1")

    assert Remembered(file, "s3://films", dict(reversed(wish.items()))).recall() == "abcdefghijk_1"
    for other in ({"organization": "beta"}, {"title": "B"}, {"asset_id": "abcdefghijk"}, {"parentAssetId": "x"}):
        assert Remembered(file, "s3://films", wish | other).recall() is None
    assert Remembered(file, "s3://others", wish).recall() is None


@pytest.mark.parametrize("etags", [{"one": "a"}, {"": "a"}, {"²": "a"}, {"-1": "a"}, {"1": 2}, {"9" * 9999: "a"}])
def test_etags_of_what_is_no_part_are_refused(etags: dict[str, object]) -> None:
    with pytest.raises(SystemExit):
        _meant(etags)
    assert _meant({"1": "a", "02": "b"}) == {1: "a", 2: "b"}
