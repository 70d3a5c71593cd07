"""Serves an output folder on loopback, with a page that plays what is in it.

It is for one person at one machine: what a folder made by `reelway process` holds can be seen and tried without a web
server. Only public media is served, by the same keys as in a bucket; `private/` does not exist for it. The players are
those that set-up installed (hls.js, shaka-player); the page fetches nothing from anywhere else.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

from pipeline import keys
from pipeline.storage import open_storage
from pipeline.storage.naming import check_key, content_type
from workers import library

PAGE = Path(__file__).parent / "player" / "index.html"

PLAYERS = {
    "hls.js": "hls.js/dist/hls.min.js",
    "shaka-player.js": "shaka-player/dist/shaka-player.compiled.js",
}
"""Address below `/players/` → file in the folder of the players."""

_OWN_TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
"""What the page is made of; the rest are objects, and are described as every storage describes them."""

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_BLOCK = 1 << 18


def players_dir() -> Path | None:
    """The folder with the players, or None: where REELWAY_PLAYERS says, the checkout's, or the installation's."""
    chosen = os.environ.get("REELWAY_PLAYERS")
    usual = (Path(__file__).parent.parent / "node_modules", Path(sys.prefix) / "share" / "reelway" / "players")
    places = (Path(chosen),) if chosen else usual
    return next((place for place in places if all((place / file).is_file() for file in PLAYERS.values())), None)


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server. Close it, or use it as a context."""

    url: str
    """Of the page: `http://127.0.0.1:<port>/`."""
    _http: ThreadingHTTPServer
    _thread: Thread

    def page(self, preview: str | None = None) -> str:
        """Address of the page; `preview`: of the one that plays this preview of a cut."""
        return f"{self.url}?preview={preview}" if preview else self.url

    def wait(self) -> None:
        """Block until somebody closes the server, or interrupts."""
        self._thread.join()

    def close(self) -> None:
        """Stop listening. Answers on their way are not waited for."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(root: Path, asset: str | None, *, title: str = "", host: str = "127.0.0.1", port: int = 0) -> Server:
    """Serve the public part of the folder `root`, with the page of `asset` at `/`.

    Without an asset, the page shows whichever of them was finished last; that of another one is `/?asset=<id>`.

    `port` 0 takes a free one. Returns at once; the server works in threads that do not keep the process alive. Raises
    `OSError` where the port is taken.
    """
    shown = Shown(id=asset, title=title or asset) if asset else None
    site = _Site(root=root.resolve(), shown=shown, players=players_dir())
    http = _Http((host, port), partial(_Handler, site))
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, name="serve", daemon=True)
    thread.start()
    return Server(url=f"http://{host}:{http.server_port}/", _http=http, _thread=thread)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The asset of a page."""

    id: str
    title: str


@dataclass(frozen=True, kw_only=True)
class _Site:
    """What there is to see."""

    root: Path
    shown: Shown | None
    """None: whatever is there."""
    players: Path | None

    def description(self, wish: str | None, preview: str | None = None) -> bytes | None:
        """What the page needs to know, as JSON; `wish` is the id of an asset, `preview` the name of a cut that nobody
        made yet. None: there is no such asset, or preview."""
        shown = self.shown or self._found(wish)
        if shown is None:
            return None
        doors = keys.preview(shown.id, preview) if preview else keys.public(shown.id)
        if preview and self._public(f"{doors}video.m3u8") is None:
            return None
        about = {
            "id": shown.id,
            "title": shown.title,
            "hls": f"/{doors}video.m3u8",
            "dash": f"/{doors}video.mpd",
            "players": {name: f"/players/{name}" for name in PLAYERS} if self.players else {},
        }
        return json.dumps(about).encode()

    def _found(self, wish: str | None) -> Shown | None:
        """This asset, or the last one that can be played."""
        documents = [
            found for found in library.assets(open_storage(self.root.as_uri())) if found.video.status == "Completed"
        ]
        wished = [found for found in documents if wish in (None, found.id)]
        if not wished:
            return None
        document = wished[-1]
        return Shown(id=document.id, title=document.title or document.orig_filename or document.id)

    def file(self, path: str) -> Path | None:
        """The file that an address stands for. Only what is named here can be reached."""
        if path == "/":
            return PAGE
        if path.startswith("/players/"):
            name = PLAYERS.get(path.removeprefix("/players/"))
            return self.players / name if self.players and name else None
        if path.startswith(f"/{keys.PUBLIC}/"):
            return self._public(path.removeprefix("/"))
        return None

    def _public(self, key: str) -> Path | None:
        """A key holds no `..`, and no link leads out of the public folder."""
        try:
            file = (self.root / check_key(key)).resolve()
        except ValueError:
            return None
        return file if file.is_relative_to(self.root / keys.PUBLIC) and file.is_file() else None


class _Http(ThreadingHTTPServer):
    """Says nothing of connections that broke: a browser that closes breaks all of its own, also while none is asked."""

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of whole files and of one range (RFC 9110 §14), open to every page's scripts."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def __init__(self, site: _Site, *args: object) -> None:
        self.site = site
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Also of HEAD: the difference is in what is sent after the headers."""
        try:
            self._answer()
        except ConnectionError:
            # A player that seeks lets go of what it was reading.
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def do_OPTIONS(self) -> None:
        self._headers(HTTPStatus.NO_CONTENT, length=None, allow="GET, HEAD, OPTIONS")

    def _answer(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        if path == "/asset.json":
            asked = parse_qs(address.query)
            self._describe(asked.get("asset", [None])[0], asked.get("preview", [None])[0])
            return
        file = self.site.file(path)
        try:
            body = file.open("rb") if file else None
        except OSError:
            body = None
        if file is None or body is None:
            self._whole(HTTPStatus.NOT_FOUND, b"There is nothing here.\n", "text/plain; charset=utf-8")
            return
        with body:
            self._send(body, _OWN_TYPES.get(file.suffix) or content_type(file.name))

    def _describe(self, wish: str | None, preview: str | None) -> None:
        about = self.site.description(wish, preview)
        if about is None:
            self._whole(HTTPStatus.NOT_FOUND, b"There is no asset to play yet.", "text/plain; charset=utf-8")
        else:
            self._whole(HTTPStatus.OK, about, "application/json")

    def _send(self, body: BinaryIO, kind: str) -> None:
        size = os.fstat(body.fileno()).st_size
        part = _range(self.headers.get("Range"), size)
        if part is None:
            self._headers(HTTPStatus.OK, length=size, kind=kind)
            part = range(size)
        elif part:
            shown = f"bytes {part.start}-{part.stop - 1}/{size}"
            self._headers(HTTPStatus.PARTIAL_CONTENT, length=len(part), kind=kind, content_range=shown)
        else:
            refused = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            self._headers(refused, length=0, content_range=f"bytes */{size}")
        if self.command == "HEAD":
            return
        body.seek(part.start)
        left = len(part)
        while left and (block := body.read(min(left, _BLOCK))):
            self.wfile.write(block)
            left -= len(block)

    def _whole(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self._headers(status, length=len(body), kind=kind)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _headers(
        self, status: HTTPStatus, *, length: int | None, kind: str = "", content_range: str = "", allow: str = ""
    ) -> None:
        self.send_response(status)
        found = {"Content-Type": kind, "Content-Range": content_range, "Access-Control-Allow-Methods": allow}
        for name, value in found.items():
            if value:
                self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Headers", "Range")
        self.send_header("Access-Control-Expose-Headers", "Content-Length, Content-Range")
        # The doors change with every version, and on one machine nothing is gained by keeping the rest.
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal belongs to the command."""


def _range(header: str | None, size: int) -> range | None:
    """The bytes that a Range header asks for; empty where the file has none of them, None where it is to be ignored.

    Several ranges at once are ignored, as RFC 9110 allows: no player asks for them.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if not match or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return range(max(size - int(last), 0), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1 if last else size, size))
