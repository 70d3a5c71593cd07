"""An API layer in one file: keep every asset in SQLite, answer `GET /assets/<id>/` and `GET /changes?start=<ms>`.

    python examples/api_consumer.py redis://127.0.0.1:6379/0 assets.db 8360

A row is one version of an asset, so an event that comes twice changes nothing. Where there is no table yet, what the
stream still has is replayed (about a million events, of seven days); the archive has the rest: docs/how-to tells how.
"""

import json
import sqlite3
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pipeline.events import AssetData, Event
from workers import logs
from workers.consumer import EventConsumer

REDIS_URL, DATABASE, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
TABLE = """CREATE TABLE changes (id TEXT, epoch INTEGER, version INTEGER, ts INTEGER, kind TEXT, document TEXT,
    PRIMARY KEY (id, epoch, version)); CREATE INDEX changes_ts ON changes (ts)"""
# `ts` never goes back, whatever the clocks of the fleet say: who asks for `start` = the last `end` misses nothing.
INSERT = "INSERT OR IGNORE INTO changes VALUES (?, ?, ?, max(?, (SELECT coalesce(max(ts), 0) FROM changes)), ?, ?)"
NEWEST = "SELECT document FROM changes WHERE id = ? ORDER BY epoch DESC, version DESC LIMIT 1"


def project(event: Event, database: sqlite3.Connection) -> None:
    """Every `asset.*` event carries the whole document with its version."""
    if event.name.startswith("asset."):
        asset = AssetData.model_validate(event.data).asset
        kind = "create" if asset.version == 1 else "update"
        with database:
            row = (asset.id, event.epoch, asset.version, asset.lastmod, kind, asset.model_dump_json())
            database.execute(INSERT, row)


def newest(database: sqlite3.Connection, asset_id: str) -> Any:
    row = database.execute(NEWEST, (asset_id,)).fetchone()
    return json.loads(row[0]) if row else None


def changes(database: sqlite3.Connection, start: int) -> dict[str, Any]:
    """What changed from `start` on, inclusive; the assets as they are now. The next call's `start` is this `end`."""
    found = database.execute("SELECT ts, kind, id FROM changes WHERE ts >= ? ORDER BY rowid", (start,)).fetchall()
    assets = {asset_id: newest(database, asset_id) for _, _, asset_id in found}
    return {"changes": found, "assets": assets, "start": start, "end": found[-1][0] if found else start}


class Api(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        url = urlsplit(self.path)
        start = parse_qs(url.query).get("start", [""])[0]
        status, body = 404, {"detail": "Not found."}
        with closing(sqlite3.connect(DATABASE)) as database:
            if url.path == "/changes":
                ok = start.isdecimal() and len(start) < 16
                status, body = (200, changes(database, int(start))) if ok else (400, {"detail": "start: milliseconds."})
            elif url.path.startswith("/assets/") and (asset := newest(database, url.path.split("/")[2])):
                status, body = 200, asset
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


if __name__ == "__main__":
    logs.configure("info")
    consumer = EventConsumer(REDIS_URL, group="api", name="projection")
    with closing(sqlite3.connect(DATABASE)) as database:
        database.execute("PRAGMA journal_mode = WAL")  # requests are answered while a row is written
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'changes'").fetchone():
            consumer.replay()
            database.executescript(TABLE)
        server = ThreadingHTTPServer(("127.0.0.1", PORT), Api)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        consumer.run(lambda event: project(event, database))
