"""`reelway events tail`: follow the stream, or replay it from anywhere. It only reads, and leaves no trace in Redis."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, TextIO

from pydantic import ValidationError

from pipeline.errors import PipelineError
from pipeline.events import STREAM, Event
from workers.redis_client import answering, connect
from workers.settings import Settings

BLOCK_MS = 1000
"""One read waits so long for news: well below the socket's timeout."""

_START = re.compile(r"\$|\d{1,19}(-\d{1,19})?")

Entry = tuple[bytes, dict[bytes, bytes]]


def tail(start: str, type_: str | None, redis_url: str | None, as_json: bool, *, out: TextIO | None = None) -> None:
    """Print every event after `start`, for ever.

    `start`: `0` for the beginning of the stream, `$` for its end as it is now, or a stream id (the first column of what
    is printed). `type_`: see `matches`. `as_json`: whole events, a line each. Raises `queue_unavailable`, also when
    Redis goes away later, and `parameter_invalid` for a start or a URL that is none.
    """
    if not _START.fullmatch(start):
        raise PipelineError("parameter_invalid", detail=f"--from: {start!r} is neither 0, $ nor a stream id")
    for entry, fields in entries(redis_url or Settings.read().redis_url, start):
        if type_ is None or matches(fields.get(b"type", b"").decode(), type_):
            text = fields[b"ce"].decode()
            print(text if as_json else line(entry.decode(), text), file=out or sys.stdout, flush=True)


def entries(redis_url: str, start: str) -> Iterator[Entry]:
    """Every entry after `start`, for ever. Raises `queue_unavailable` and `parameter_invalid`."""
    try:
        client: Any = connect(redis_url)
    except ValueError as error:  # its text may hold a piece of a password
        raise PipelineError("parameter_invalid", detail="the URL of Redis is not a URL of Redis") from error
    cursor: bytes = _end(client) if start == "$" else start.encode()
    while True:
        with answering():
            reply = client.xread({STREAM: cursor}, count=500, block=BLOCK_MS)
        for _stream, found in reply or ():
            for entry, fields in found:
                cursor = entry
                yield entry, fields


def _end(client: Any) -> bytes:
    """The id of the last entry: asking for `$` again and again would miss what comes between two questions."""
    with answering():
        newest = client.xrevrange(STREAM, count=1)
    return newest[0][0] if newest else b"0"


def matches(type_: str, wanted: str) -> bool:
    """Whether a whole event type is `wanted`: a name (`asset.ready`), a whole type, or a glob of either (`asset.*`)."""
    name = ".".join(type_.split(".")[-3:-1])
    return fnmatchcase(name, wanted) or fnmatchcase(type_, wanted)


def line(entry: str, text: str) -> str:
    """An event for a person: stream id, asset, sequence, name, and what it is about."""
    try:
        event = Event.model_validate_json(text)
    except ValidationError:
        return f"{entry}  (not an event of this version)"
    columns = [entry, event.subject, f"{int(event.sequence):>4}", f"{event.name:<16}", *_about(event)]
    return "  ".join(columns).rstrip()


def _about(event: Event) -> Iterator[str]:
    step, track, asset, error = (event.data.get(name) for name in ("step", "track", "asset", "error"))
    yield from filter(None, (step, track))
    if asset:
        yield f"v{asset['version']} {asset['video']['status']}"
    if error:
        yield error["code"]
