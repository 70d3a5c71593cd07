"""The archive of events, on a folder and on a real S3 server: in order, each once, and forgotten only by the day."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_server import S3Server
from storages import Interrupted

from pipeline import archive, keys
from pipeline.archive import Entry, forget, last, of_asset, oldest, read, write
from pipeline.errors import PipelineError
from pipeline.events import envelope, seal
from pipeline.job import EventDraft
from pipeline.ports import Storage
from pipeline.storage import open_storage
from pipeline.storage.folder import FolderStorage

DAY_MS = 24 * 3_600_000
MIDNIGHT = int(datetime(2025, 3, 1, tzinfo=UTC).timestamp()) * 1000
"""The first of a month: days, months and years end around it."""
ASSET = "8x7k2m9qpza"


@pytest.fixture
def folder(tmp_path: Path) -> Storage:
    return FolderStorage(tmp_path / "root")


@pytest.fixture
def s3(request: pytest.FixtureRequest, shared_s3: S3Server) -> Storage:
    return open_storage(shared_s3.url("".join(char if char.isalnum() else "-" for char in request.node.name)))


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def entry(ms: int, number: int = 0, asset: str = ASSET) -> Entry:
    draft = EventDraft(id=f"{ms}-{number}", type="asset.updated", data={"title": "Über  \\n 🎬", "at": ms})
    body = envelope(draft, asset=asset, job="job-1", organization="default", now_ms=ms, prefix="dev.reelway")
    return f"{ms}-{number}", seal(body, sequence=number + 1, epoch=1)


def archived(storage: Storage) -> list[str]:
    return [stored.key for stored in storage.list(keys.EVENTS)]


def reads(storage: Storage, use: Callable[[Storage], Sequence[Entry]]) -> tuple[list[Entry], list[str]]:
    """What `use` finds, and the keys of the objects that it read for it."""
    seen: list[str] = []

    def see(_: int, operation: str, key: str) -> None:
        if operation == "get" and key.startswith(keys.EVENTS):
            seen.append(key)

    return list(use(Interrupted(storage, see))), seen


# -- writing and reading ----------------------------------------------------------------------------------------------


def test_what_was_written_is_read_byte_for_byte_and_in_order(storage: Storage) -> None:
    first = [entry(MIDNIGHT + 1, number) for number in range(12)]
    second = [entry(MIDNIGHT + 2), entry(MIDNIGHT + 500)]

    assert write(storage, first) == f"{MIDNIGHT + 1}-11"
    assert write(storage, second) == f"{MIDNIGHT + 500}-0"

    assert list(read(storage, 0)) == [*first, *second]
    assert list(read(storage, MIDNIGHT + 2)) == second
    assert list(read(storage, MIDNIGHT + 501)) == []
    assert (oldest(storage), last(storage)) == (MIDNIGHT + 1, f"{MIDNIGHT + 500}-0")


def test_an_object_holds_lines_of_json_of_one_day(storage: Storage) -> None:
    entries = [entry(MIDNIGHT - 1), entry(MIDNIGHT), entry(MIDNIGHT + 5)]

    assert write(storage, entries) == f"{MIDNIGHT + 5}-0"

    assert archived(storage) == [
        f"private/archive/events/2025/02/28/{MIDNIGHT - 1}-0000000000.ndjson",
        f"private/archive/events/2025/03/01/{MIDNIGHT}-0000000000.ndjson",
    ]
    lines = [json.loads(line) for line in storage.get(archived(storage)[1]).splitlines()]
    assert [line["entry"] for line in lines] == [f"{MIDNIGHT}-0", f"{MIDNIGHT + 5}-0"]
    assert lines[0]["ce"] == json.loads(entries[1][1])


def test_nothing_is_nothing(storage: Storage) -> None:
    assert list(read(storage, 0)) == []
    assert list(of_asset(storage, ASSET, 0)) == []
    assert (oldest(storage), last(storage), forget(storage, MIDNIGHT)) == (None, None, 0)
    assert list(storage.list("")) == []


@pytest.mark.parametrize("text", ["no JSON", "[1]", '{"a":\n1}', '"text"', "", '{"ce":"},"entry":"'])
def test_what_is_no_event_is_kept_as_it_is_and_stops_nobody(folder: Storage, text: str) -> None:
    entries = [entry(MIDNIGHT), (f"{MIDNIGHT}-1", text), entry(MIDNIGHT, 2)]

    write(folder, entries)

    assert list(read(folder, 0)) == entries
    assert list(of_asset(folder, ASSET, 0)) == [entries[0], entries[2]]


# -- several archivists -----------------------------------------------------------------------------------------------


def test_of_two_archivists_the_second_goes_on_where_the_first_has_come_to(storage: Storage) -> None:
    entries = [entry(MIDNIGHT, number) for number in range(30)]

    assert write(storage, entries[:20]) == entries[19][0]
    assert write(storage, entries[:30]) == entries[19][0]
    assert write(storage, entries[:5]) == entries[19][0]
    assert write(storage, entries[20:30]) == entries[29][0]

    assert list(read(storage, 0)) == entries


def test_two_archivists_in_any_order_lose_nothing_and_write_nothing_twice(folder: Storage) -> None:
    stream = [entry(MIDNIGHT - 40 + number) for number in range(80)]
    places = {name: place for place, (name, _) in enumerate(stream)}
    chance = random.Random(7)
    cursors: list[int] = [0, 0]

    while min(cursors) < len(stream):
        who = chance.randrange(2)
        batch = stream[cursors[who] : cursors[who] + chance.randint(1, 25)]
        if batch:
            cursors[who] = places[write(folder, batch)] + 1

    assert list(read(folder, 0)) == stream
    lines = [line for key in archived(folder) for line in folder.get(key).splitlines()]
    assert len(lines) == len(stream)


def test_an_archivist_that_knows_nothing_goes_on_after_the_last(storage: Storage) -> None:
    write(storage, [entry(MIDNIGHT - 400 * DAY_MS)])
    write(storage, [entry(MIDNIGHT - 1, 9), entry(MIDNIGHT - 1, 10)])
    assert last(storage) == f"{MIDNIGHT - 1}-10"

    write(storage, [entry(MIDNIGHT, 1)])
    assert last(storage) == f"{MIDNIGHT}-1"


def test_overlapping_archives_are_read_once(folder: Storage) -> None:
    """The stream was cut between two archivists: one began in the middle of what the other wrote."""
    entries = [entry(MIDNIGHT + number) for number in range(10)]
    write(folder, entries[:6])
    write(folder, entries[3:])

    assert list(read(folder, 0)) == entries
    assert list(read(folder, MIDNIGHT + 4)) == entries[4:]


# -- only what is needed ----------------------------------------------------------------------------------------------


def test_what_lies_before_is_neither_listed_nor_read(storage: Storage) -> None:
    days = [MIDNIGHT + number * DAY_MS for number in (-400, -60, -1, 0, 1, 40)]
    for day in days:
        for hour in range(3):
            write(storage, [entry(day + hour * 3_600_000), entry(day + hour * 3_600_000 + 1000)])

    since = MIDNIGHT + 3_600_000 + 500
    found, touched = reads(storage, lambda seen: list(read(seen, since)))

    assert [name for name, _ in found][:3] == [
        f"{MIDNIGHT + 3_601_000}-0",
        f"{MIDNIGHT + 2 * 3_600_000}-0",
        f"{MIDNIGHT + 2 * 3_600_000 + 1000}-0",
    ]
    assert len(found) == 3 + 12
    assert touched == archived(storage)[10:]


def test_what_happened_in_one_millisecond_may_lie_in_two_objects(folder: Storage) -> None:
    entries = [entry(MIDNIGHT, number) for number in range(4)]
    for each in entries:
        write(folder, [each])

    assert list(read(folder, MIDNIGHT)) == entries


def test_a_day_may_be_the_last_one_that_is_asked_for(folder: Storage) -> None:
    entries = [entry(MIDNIGHT + number * DAY_MS) for number in range(5)]
    for each in entries:
        write(folder, [each])

    assert list(read(folder, MIDNIGHT + DAY_MS, until_ms=MIDNIGHT + 2 * DAY_MS)) == entries[1:3]


def test_the_events_of_one_asset(storage: Storage) -> None:
    """Also where another's event speaks of it."""
    others = [entry(MIDNIGHT + 1, asset="aaaaaaaaaaa"), (f"{MIDNIGHT + 2}-0", json.dumps({"clip_of": ASSET}))]
    mine = [entry(MIDNIGHT), entry(MIDNIGHT + 3)]
    write(storage, [mine[0], *others, mine[1]])

    assert list(of_asset(storage, ASSET, 0)) == mine
    assert list(of_asset(storage, ASSET, MIDNIGHT + 1)) == mine[1:]


_dates = st.dates(date(2022, 11, 15), date(2025, 2, 15))


@settings(max_examples=40, deadline=None)
@given(_dates, _dates)
def test_prefixes_cover_exactly_the_days_with_few_listings(since: date, until: date) -> None:
    prefixes = list(archive._prefixes(since, until))

    assert prefixes == sorted(prefixes)
    day = min(since, until) - timedelta(days=40)
    while day < max(since, until) + timedelta(days=40):
        covering = [prefix for prefix in prefixes if keys.events(day, "x").startswith(prefix)]
        assert len(covering) == (since <= day <= until)
        day += timedelta(days=1)
    assert len(prefixes) <= 31 + 12 + 2 + 12 + 31


# -- forgetting -------------------------------------------------------------------------------------------------------


def test_whole_days_are_forgotten_and_whoever_asks_for_them_is_told(storage: Storage) -> None:
    entries = [entry(MIDNIGHT + number * DAY_MS + 5) for number in range(-2, 3)]
    for each in entries:
        write(storage, [each])

    assert forget(storage, MIDNIGHT + DAY_MS + 77) == 3

    assert oldest(storage) == MIDNIGHT + DAY_MS + 5
    with pytest.raises(PipelineError) as caught:
        read(storage, MIDNIGHT + DAY_MS - 1)
    assert (caught.value.code, caught.value.params["oldest"]) == ("cursor_expired", MIDNIGHT + DAY_MS)
    assert list(read(storage, MIDNIGHT + DAY_MS)) == entries[3:]
    assert forget(storage, MIDNIGHT + DAY_MS + 78) == 0


def test_what_never_was_is_not_forgotten(storage: Storage) -> None:
    """A fleet of three days with a retention of ninety: nothing is missing, so everything may be asked for."""
    entries = [entry(MIDNIGHT)]
    write(storage, entries)

    assert forget(storage, MIDNIGHT - 80 * DAY_MS) == 0

    assert list(read(storage, 0)) == entries


def test_the_horizon_never_goes_back(folder: Storage) -> None:
    for number in range(4):
        write(folder, [entry(MIDNIGHT + number * DAY_MS)])
    forget(folder, MIDNIGHT + 3 * DAY_MS)
    write(folder, [entry(MIDNIGHT)])

    assert forget(folder, MIDNIGHT + DAY_MS) == 1

    with pytest.raises(PipelineError):
        read(folder, MIDNIGHT + 3 * DAY_MS - 1)


def test_forgetting_that_breaks_off_is_completed_and_never_half_served(tmp_path: Path) -> None:
    class Died(BaseException):
        pass

    moment, finished = 0, False
    while not finished:
        moment += 1
        inner = FolderStorage(tmp_path / str(moment))
        for number in range(4):
            write(inner, [entry(MIDNIGHT + number * DAY_MS)])
        whole = list(read(inner, 0))
        left = iter(range(moment - 1))

        def die(_: int, operation: str, __: str, left: Iterator[int] = left) -> None:
            if operation in ("put", "delete") and next(left, None) is None:
                raise Died

        try:
            forget(Interrupted(inner, die), MIDNIGHT + 2 * DAY_MS)
            finished = True
        except Died:
            with suppress(PipelineError):  # told that it is gone; what is told is another test
                assert list(read(inner, 0)) == whole
        forget(inner, MIDNIGHT + 2 * DAY_MS)
        assert list(read(inner, MIDNIGHT + 2 * DAY_MS)) == whole[2:]
        assert len(archived(inner)) == 2
    assert moment > 3


def test_a_reader_in_the_middle_of_what_is_being_forgotten_is_told(folder: Storage) -> None:
    for number in range(3):
        write(folder, [entry(MIDNIGHT + number * DAY_MS)])
    reader = read(folder, MIDNIGHT)
    next(reader)

    forget(folder, MIDNIGHT + 3 * DAY_MS)

    with pytest.raises(PipelineError) as caught:
        list(reader)
    assert caught.value.code == "cursor_expired"
