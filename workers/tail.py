"""`reelway events tail`: follow the stream, or replay it from anywhere. It only reads, and leaves no trace in Redis.

What the stream has dropped stands in the archive. The two overlap: what is dropped for its age was archived before,
and the last entry that was stays. So whoever comes from the archive and finds where it ended on the stream has missed
nothing. A stream that grows by its whole length (about a million events) before the archive could follow drops more,
and that is gone: `cursor_expired` says so until the archive has gone on behind the gap.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, TextIO

from pydantic import ValidationError

from pipeline import archive
from pipeline.errors import PipelineError
from pipeline.events import STREAM, Event
from pipeline.ports import Storage
from workers.redis_client import answering, connect
from workers.settings import Settings

BLOCK_MS = 1000
"""One read waits so long for news: well below the socket's timeout."""

_LAST = 2**64 - 1
"""The highest number of a stream id within its millisecond."""
_START = re.compile(r"\$|\d{1,19}(-\d{1,19})?")

Entry = tuple[bytes, dict[bytes, bytes]]


def tail(
    start: str,
    type_: str | None,
    redis_url: str | None,
    as_json: bool,
    *,
    since: int | None = None,
    out: TextIO | None = None,
) -> None:
    """Print every event after `start`, for ever.

    `start`: `0` for the beginning of the stream, `$` for its end as it is now, or a stream id (the first column of what
    is printed). `since`: instead, every event from this moment on (milliseconds since 1970), also those that the stream
    has dropped. `type_`: see `matches`. `as_json`: whole events, a line each. Raises `queue_unavailable`, also when
    Redis goes away later, `cursor_expired`, and `parameter_invalid` for a start or a URL that is none.
    """
    if not _START.fullmatch(start):
        raise PipelineError("parameter_invalid", detail=f"--from: {start!r} is neither 0, $ nor a stream id")
    chosen = {"redis_url": redis_url} if redis_url else {}
    told = entries(redis_url or Settings.read().redis_url, start) if since is None else _entries_since(since, chosen)
    for entry, fields in told:
        text = fields.get(b"ce", b"").decode(errors="replace")
        if type_ is None or matches(fields.get(b"type", b"").decode() or _type(text), type_):
            print(text if as_json else line(entry.decode(), text), file=out or sys.stdout, flush=True)


def entries(redis_url: str, start: str) -> Iterator[Entry]:
    """Every entry after `start`, for ever. Raises `queue_unavailable` and `parameter_invalid`."""
    client = _client(redis_url)
    yield from _follow(client, _end(client) if start == "$" else start.encode())


def entries_since(redis_url: str, storage: Storage, since_ms: int) -> Iterator[Entry]:
    """Every entry from a moment on, each once, for ever: those of the archive, then those of the stream.

    Raises `queue_unavailable`, and `cursor_expired` where some of them are gone.
    """
    client = _client(redis_url)
    cursor = f"{since_ms - 1}-{_LAST}".encode() if since_ms else b"0"
    while not _holds_all_after(client, cursor):
        before = cursor
        for entry, text in archive.read(storage, max(since_ms, _order(cursor)[0])):
            if _order(entry.encode()) > _order(cursor):
                cursor = entry.encode()
                yield cursor, {b"ce": text.encode()}
        if cursor == before:  # the archive has nothing more
            _insist_on_the_rest(client, cursor, since_ms)
            break
    yield from _follow(client, cursor)


def _holds_all_after(client: Any, cursor: bytes) -> bool:
    """The stream begins no later than here."""
    with answering():
        oldest = client.xrange(STREAM, count=1)
    return bool(oldest) and _order(oldest[0][0]) <= _order(cursor)


def _entries_since(since_ms: int, chosen: Mapping[str, str]) -> Iterator[Entry]:
    from pipeline.storage import open_storage
    from workers.wiring import fleet_settings

    settings = fleet_settings(stored=True, **chosen)
    yield from entries_since(settings.redis_url, open_storage(settings.storage_url), since_ms)


def _insist_on_the_rest(client: Any, cursor: bytes, since_ms: int) -> None:
    """The stream begins after the end of the archive: fine where it has dropped nothing since, else there is a gap.

    (Redis before 7 does not say how many entries a stream ever had: there it is fine.)
    """
    with answering():
        stream = client.xinfo_stream(STREAM) if client.exists(STREAM) else None
    if stream is None or _order(stream["last-generated-id"]) <= _order(cursor):
        return
    if stream.get("entries-added", 0) > stream["length"]:
        first = stream["first-entry"]
        raise PipelineError("cursor_expired", cursor=since_ms, oldest=_order(first[0])[0] if first else "?")


def _client(redis_url: str) -> Any:
    try:
        return connect(redis_url)
    except ValueError as error:  # its text may hold a piece of a password
        raise PipelineError("parameter_invalid", detail="the URL of Redis is not a URL of Redis") from error


def _follow(client: Any, cursor: bytes) -> Iterator[Entry]:
    """Every entry after the cursor, for ever."""
    while True:
        with answering():
            reply = client.xread({STREAM: cursor}, count=500, block=BLOCK_MS)
        for _stream, found in reply or ():
            for entry, fields in found:
                cursor = entry
                yield entry, fields


def _order(entry: bytes) -> tuple[int, int]:
    ms, _, number = entry.partition(b"-")
    return int(ms), int(number or 0)


def _type(text: str) -> str:
    """The type as the event itself says it: whoever put it on the stream may have left the field out."""
    try:
        return str(json.loads(text)["type"])
    except (ValueError, TypeError, KeyError):
        return ""


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
