"""The archive of events: what Redis forgets after some days stays in storage, in the order of the stream.

    private/archive/events/<yyyy>/<mm>/<dd>/<first entry>.ndjson        some entries of one day (UTC), a line each:
        {"entry":"<stream id>","ce":{…the event as it was sealed…}}
    private/archive/horizon.json        {"schema":1,"forgotten_ms":…}: what was before that time is gone

An object is written once. Its key says where it begins, so that whoever asks for a time skips what lies before without
reading it, and two archivists that go on from the same entry meet: the second one learns how far the first has come.
So an archivist goes on from `last`, or from what its last `write` answered, and from nowhere else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from itertools import groupby

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.ports import ObjectNotFound, PreconditionFailed, Storage, StoredObject

SCHEMA = 1

Entry = tuple[str, str]
"""Stream id (`<ms>-<n>`), and the sealed event as JSON."""

_HEAD, _MIDDLE = '{"entry":"', '","ce":'
_FIRST_DAY = date(1970, 1, 1)


def write(storage: Storage, entries: Sequence[Entry]) -> str:
    """Store the entries (one at least), an object a day; returns the id of the last one that stands there now.

    Where an object stands already, another archivist was here: what it wrote stays, its last id is the answer, and the
    caller goes on after that. Memory is all of the entries at once, so bring some thousand at most.
    """
    for day, several in groupby(entries, key=lambda entry: _day(_ms(entry[0]))):
        batch = list(several)
        key = keys.events(day, _name(batch[0][0]))
        try:
            storage.put(key, "".join(map(_line, batch)).encode(), absent=True)
        except PreconditionFailed:
            return _lines(storage.get(key))[-1][0]
    return entries[-1][0]


def read(storage: Storage, since_ms: int, *, until_ms: int | None = None) -> Iterator[Entry]:
    """Every entry from `since_ms` on, in order, each once.

    Reads the objects of no day after `until_ms`; left out, that is tomorrow, whosever clock is right. Raises
    `cursor_expired` at once where some of what is asked for was forgotten; where nothing was, there is none.
    """
    _insist_on_memory(storage, since_ms)
    return _read(storage, since_ms, _day(until_ms) if until_ms is not None else _tomorrow())


def of_asset(storage: Storage, asset: str, since_ms: int, *, until_ms: int | None = None) -> Iterator[Entry]:
    """The entries of one asset; see `read`. Goes through those of all others, so name its first day."""
    for entry, text in read(storage, since_ms, until_ms=until_ms):
        # The text first: parsing what belongs to others would take most of the time.
        if f'"{asset}"' in text and _subject(text) == asset:
            yield entry, text


def oldest(storage: Storage) -> int | None:
    """The time of the first entry that is there, in milliseconds; None for an empty archive."""
    first = next(_objects(storage, _FIRST_DAY, _tomorrow()), None)
    return None if first is None else _begin(first)


def last(storage: Storage) -> str | None:
    """The id of the last entry that is there; None for an empty archive."""
    key = _newest(storage, keys.EVENTS, _tomorrow())
    return _lines(storage.get(key))[-1][0] if key else None


def forget(storage: Storage, older_than_ms: int) -> int:
    """Remove whole days that lie before `older_than_ms`; returns how many objects went.

    First the horizon, then the objects: who asks for what is going is told so, and never served half of it.
    """
    day = _day(older_than_ms)
    gone = list(_prefixes(_FIRST_DAY, day - timedelta(days=1))) if day > _FIRST_DAY else []
    if not any(next(iter(storage.list(prefix)), None) for prefix in gone):
        return 0
    _raise_horizon(storage, _first_ms(day))
    return sum(storage.delete(prefix) for prefix in gone)


# -- reading ----------------------------------------------------------------------------------------------------------


def _read(storage: Storage, since_ms: int, until: date) -> Iterator[Entry]:
    seen = (-1, -1)
    for stored in _needed(_objects(storage, _day(since_ms), until), since_ms):
        try:
            lines = _lines(storage.get(stored.key))
        except ObjectNotFound:  # forgotten this very moment
            _insist_on_memory(storage, since_ms)
            continue
        for entry, text in lines:
            # Two archivists with a stream that was cut between them may have overlapped: each entry comes once.
            if _ms(entry) >= since_ms and _order(entry) > seen:
                seen = _order(entry)
                yield entry, text


def _needed(objects: Iterable[StoredObject], since_ms: int) -> Iterator[StoredObject]:
    """Without those that end before `since_ms`: the next one begins before it."""
    held = None
    for stored in objects:
        if held is not None and _begin(stored) >= since_ms:
            yield held
        held = stored
    if held is not None:
        yield held


def _objects(storage: Storage, since: date, until: date) -> Iterator[StoredObject]:
    """The objects of these days, in order."""
    for prefix in _prefixes(since, until):
        yield from storage.list(prefix)


def _prefixes(since: date, until: date) -> Iterator[str]:
    """What covers these days exactly: years and months where they are whole, else days. Each is one listing."""
    day = since
    while day <= until:
        if (day.month, day.day) == (1, 1) and day.year < until.year:
            yield f"{keys.EVENTS}{day:%Y}/"
            day = date(day.year + 1, 1, 1)
        elif day.day == 1 and (day.year, day.month) < (until.year, until.month):
            yield f"{keys.EVENTS}{day:%Y/%m}/"
            day = (day + timedelta(days=31)).replace(day=1)
        else:
            yield f"{keys.EVENTS}{day:%Y/%m/%d}/"
            day += timedelta(days=1)


def _newest(storage: Storage, prefix: str, until: date) -> str | None:
    """The last key below the newest year, month and day that has any."""
    levels = ([f"{year:04d}/" for year in range(until.year, 1969, -1)], _counted(12), _counted(31))
    for level in levels:
        found = (prefix + name for name in level)
        below = next((each for each in found if next(iter(storage.list(each)), None)), None)
        if below is None:
            return None
        prefix = below
    return [stored.key for stored in storage.list(prefix)][-1]


def _counted(most: int) -> list[str]:
    return [f"{number:02d}/" for number in range(most, 0, -1)]


# -- what was forgotten -----------------------------------------------------------------------------------------------


def _insist_on_memory(storage: Storage, since_ms: int) -> None:
    horizon = _horizon(storage)[0]
    if since_ms < horizon:
        raise PipelineError("cursor_expired", cursor=since_ms, oldest=horizon)


def _horizon(storage: Storage) -> tuple[int, str | None]:
    """Everything before this time was forgotten (0: nothing was), and the etag of what says so."""
    stored = storage.stat(keys.HORIZON)
    if stored is None:
        return 0, None
    return int(json.loads(storage.get(keys.HORIZON))["forgotten_ms"]), stored.etag


def _raise_horizon(storage: Storage, to_ms: int) -> None:
    body = json.dumps({"schema": SCHEMA, "forgotten_ms": to_ms}).encode()
    while True:
        known_ms, etag = _horizon(storage)
        if known_ms >= to_ms:
            return
        with suppress(PreconditionFailed):  # somebody else raised it meanwhile
            storage.put(keys.HORIZON, body, absent=etag is None, match=etag)
            return


# -- lines, ids and times ---------------------------------------------------------------------------------------------


def _line(entry: Entry) -> str:
    name, text = entry
    return f"{_HEAD}{name}{_MIDDLE}{text if _is_line(text) else json.dumps(text)}}}\n"


def _is_line(text: str) -> bool:
    """An event as the store seals it. Whatever else somebody put into the stream is kept as a text."""
    try:
        return "\n" not in text and isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _lines(body: bytes) -> list[Entry]:
    """The entries of an object, each event byte for byte as it was."""
    found = []
    for line in body.decode().split("\n")[:-1]:
        name, _, text = line[len(_HEAD) : -1].partition(_MIDDLE)
        found.append((name, json.loads(text) if text.startswith('"') else text))
    return found


def _subject(text: str) -> str | None:
    try:
        event = json.loads(text)
    except ValueError:
        return None
    return str(event.get("subject")) if isinstance(event, dict) else None


def _order(entry: str) -> tuple[int, int]:
    ms, _, number = entry.partition("-")
    return int(ms), int(number or 0)


def _ms(entry: str) -> int:
    return _order(entry)[0]


def _name(entry: str) -> str:
    """A stream id whose order as a text is its order in the stream."""
    ms, number = _order(entry)
    return f"{ms:013d}-{number:010d}"


def _begin(stored: StoredObject) -> int:
    return _ms(stored.key.rpartition("/")[2].removesuffix(".ndjson"))


def _day(ms: int) -> date:
    return datetime.fromtimestamp(max(0, ms) / 1000, UTC).date()


def _first_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


def _tomorrow() -> date:
    """The stream's ids are of Redis's clock, which may be ahead of ours."""
    return _day(time.time_ns() // 1_000_000) + timedelta(days=1)
