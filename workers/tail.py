"""`reelway events tail`: follow the stream, replay it from anywhere."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console

from pipeline.events import STREAM, Event
from workers.redis_client import connect
from workers.settings import Settings


def tail(start: str, type_: str | None, redis_url: str | None, as_json: bool) -> None:
    """Print every event after `start` (a stream id, `0` or `$`), for ever. Raises `queue_unavailable`."""
    client: Any = connect(redis_url or Settings().redis_url)
    cursor, console = start, Console()
    while True:
        for _stream, entries in client.xread({STREAM: cursor}, count=500, block=5000) or ():
            for entry_id, fields in entries:
                cursor = entry_id
                show(fields[b"ce"].decode(), entry_id.decode(), type_, as_json, console)


def show(text: str, entry_id: str, type_: str | None, as_json: bool, console: Console) -> None:
    event = Event.model_validate_json(text)
    if type_ not in (None, event.name):
        return
    if as_json:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
        return
    detail = event.data.get("step") or event.data.get("track") or ""
    error = (event.data.get("error") or {}).get("code", "")
    console.print(
        f"{entry_id}  {event.subject}  {int(event.sequence):>4}  {event.name}  {detail}  {error}".rstrip(),
        highlight=False,
    )
