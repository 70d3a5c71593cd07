"""The loopback server: public objects and nothing else, in the words that players and browsers expect."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

import pytest
from waiting import wait_until

from workers.serve import PLAYERS, Server, players_dir, serve

BODY = bytes(range(100))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    root = tmp_path / "out"
    for name in ("transcoded/asset/a.m4s", "private/asset.mp4", "private/asset/media.json", "outside.txt"):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(BODY)
    (root / "transcoded/asset/video.m3u8").write_text("#EXTM3U\n")
    (root / "transcoded/asset/link.m4s").symlink_to(root / "private/asset.mp4")
    with serve(root, "asset", title="</script><b>A & B") as server:
        yield server


def ask(
    server: Server, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
) -> tuple[int, Mapping[str, str], bytes]:
    """The path is sent as it is: a client that tidied it would hide what we test."""
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_serves_a_public_object_whole(server: Server) -> None:
    status, headers, body = ask(server, "/transcoded/asset/a.m4s")

    assert (status, body) == (200, BODY)
    assert headers["content-type"] == "video/iso.segment"
    assert headers["content-length"] == "100"
    assert headers["accept-ranges"] == "bytes"
    assert headers["access-control-allow-origin"] == "*"


def test_calls_a_playlist_by_its_type(server: Server) -> None:
    assert ask(server, "/transcoded/asset/video.m3u8")[1]["content-type"] == "application/vnd.apple.mpegurl"


def test_head_has_the_headers_and_no_body(server: Server) -> None:
    status, headers, body = ask(server, "/transcoded/asset/a.m4s", "HEAD")

    assert (status, headers["content-length"], body) == (200, "100", b"")


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=90-", slice(90, 100)),
        ("bytes=-5", slice(95, 100)),
        ("bytes=50-5000", slice(50, 100)),
        ("bytes=-5000", slice(0, 100)),
    ],
)
def test_serves_a_range(server: Server, asked: str, part: slice) -> None:
    status, headers, body = ask(server, "/transcoded/asset/a.m4s", headers={"Range": asked})

    assert (status, body) == (206, BODY[part])
    assert headers["content-range"] == f"bytes {part.start}-{part.stop - 1}/100"


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=5000-6000", "bytes=-0"])
def test_refuses_a_range_that_the_object_has_nothing_of(server: Server, asked: str) -> None:
    status, headers, body = ask(server, "/transcoded/asset/a.m4s", headers={"Range": asked})

    assert (status, headers["content-range"], body) == (416, "bytes */100", b"")


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=0-1", "bytes=9-3", "bytes=-", "nonsense"])
def test_ignores_a_range_that_it_does_not_understand(server: Server, asked: str) -> None:
    assert ask(server, "/transcoded/asset/a.m4s", headers={"Range": asked})[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/private/asset.mp4",
        "/private/asset/media.json",
        "/outside.txt",
        "/transcoded/",
        "/transcoded/asset",
        "/transcoded/asset/",
        "/transcoded/asset/absent.m4s",
        "/transcoded/../private/asset.mp4",
        "/transcoded/asset/../../private/asset.mp4",
        "/transcoded/%2e%2e/private/asset.mp4",
        "/transcoded/..%2fprivate/asset.mp4",
        "/transcoded/asset/..\\..\\private\\asset.mp4",
        "//private/asset.mp4",
        "/transcoded//asset/a.m4s",
        "/transcoded/asset/link.m4s",
        "/transcoded/asset/a.m4s%00.png",
        "/players/../private/asset.mp4",
        "/players/package.json",
        "/players/",
    ],
)
def test_nothing_else_is_there(server: Server, path: str) -> None:
    status, _, body = ask(server, path)

    assert status == 404
    assert BODY not in body


def test_allows_other_pages_to_ask(server: Server) -> None:
    status, headers, _ = ask(server, "/transcoded/asset/a.m4s", "OPTIONS", {"Origin": "http://example.test"})

    assert status == 204
    assert headers["access-control-allow-headers"] == "Range"


def test_describes_the_asset_to_its_page(server: Server) -> None:
    status, headers, body = ask(server, "/asset.json")
    about = json.loads(body)

    assert (status, headers["content-type"]) == (200, "application/json")
    assert about["title"] == "</script><b>A & B"
    assert about["hls"] == "/transcoded/asset/video.m3u8"
    assert about["dash"] == "/transcoded/asset/video.mpd"


def test_the_page_names_no_other_host(server: Server) -> None:
    status, headers, body = ask(server, "/")

    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"//" + b"cdn" not in body
    assert b"http:" not in body
    assert b"https:" not in body


def test_listens_on_loopback_only(server: Server) -> None:
    assert urlsplit(server.url).hostname == "127.0.0.1"


def test_is_gone_after_closing(tmp_path: Path) -> None:
    with serve(tmp_path, "asset") as server:
        pass
    with pytest.raises(ConnectionRefusedError):
        ask(server, "/")


def test_takes_the_players_from_where_the_setting_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELWAY_PLAYERS", str(tmp_path))
    for file in PLAYERS.values():
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(f"// {file}")

    assert players_dir() == tmp_path
    with serve(tmp_path, "asset") as server:
        for name, file in PLAYERS.items():
            status, headers, body = ask(server, f"/players/{name}")
            assert (status, body.decode()) == (200, f"// {file}")
            assert headers["content-type"] == "text/javascript; charset=utf-8"


def test_says_that_there_are_no_players(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELWAY_PLAYERS", str(tmp_path))

    assert players_dir() is None
    with serve(tmp_path, "asset") as server:
        assert json.loads(ask(server, "/asset.json")[2])["players"] == {}


def test_a_preview_of_a_cut_is_played_instead_of_the_asset(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "out/transcoded/asset/previews/4f2a"
    folder.mkdir(parents=True)
    (folder / "video.m3u8").write_text("#EXTM3U\n")

    about = json.loads(ask(server, "/asset.json?preview=4f2a")[2])

    assert server.page("4f2a") == f"{server.url}?preview=4f2a"
    assert (about["id"], about["hls"]) == ("asset", "/transcoded/asset/previews/4f2a/video.m3u8")
    assert about["dash"] == "/transcoded/asset/previews/4f2a/video.mpd"


def broken(server: Server, *said: bytes) -> None:
    """A connection that says this, and is reset by who opened it."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as connection:
        for words in said:
            connection.sendall(words)
            connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize(
    "said",
    [(), (b"GET /transcoded/asset/a.m4s HTTP/1.1\r\n\r\n",), (b"GET /transcoded/asset/big.m4s HTTP/1.1\r\n\r\n",)],
    ids=["before it asks", "between two questions", "in the middle of an answer"],
)
def test_a_browser_that_closes_leaves_nothing_on_the_terminal(
    server: Server, tmp_path: Path, said: tuple[bytes, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out/transcoded/asset/big.m4s").write_bytes(bytes(50_000_000))
    for _ in range(5):
        broken(server, *said)
    until_alone()

    assert ask(server, "/transcoded/asset/a.m4s")[2] == BODY
    until_alone()
    assert capsys.readouterr() == ("", "")


def test_a_fault_of_the_server_is_told(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    with patch("workers.serve._Site.file", side_effect=ZeroDivisionError), pytest.raises(http.client.HTTPException):
        ask(server, "/transcoded/asset/a.m4s")
    until_alone()

    assert "ZeroDivisionError" in capsys.readouterr().err


def until_alone() -> None:
    """Every connection has its thread, which ends when it has said what it has to say."""
    wait_until(lambda: not any("process_request_thread" in thread.name for thread in threading.enumerate()))


@pytest.mark.parametrize("name", ["none", "..", "../..", "%2e%2e", "a/../../../.."])
def test_a_preview_that_nobody_made_is_not_played(server: Server, name: str) -> None:
    assert ask(server, f"/asset.json?preview={name}")[0] == 404
