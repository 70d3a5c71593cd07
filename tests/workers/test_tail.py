"""`reelway events tail`, as the command that people type, on a real Redis."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from redis_server import RedisServer, running_server
from stories import EVENTS_OF_A_STORY, Teller, all_events

from pipeline import archive
from pipeline.errors import PipelineError
from pipeline.events import STREAM
from pipeline.ports import Storage
from pipeline.storage import open_storage
from workers.redis_client import Client
from workers.tail import entries_since, matches

TAIL = (sys.executable, "-m", "workers.cli", "events", "tail")


@contextmanager
def tailing(url: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The running command; it is stopped by Ctrl-C and must then have been quiet about it."""
    environment = {**os.environ, "REELWAY_REDIS_URL": url}
    command = [*TAIL, *options]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "")


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().rstrip("\n") for _ in range(count)]


def refused(url: str, *options: str) -> tuple[int, str]:
    """Exit code and stderr of a command that does not run."""
    done = subprocess.run(
        [*TAIL, *options],
        env={**os.environ, "REELWAY_REDIS_URL": url, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.fixture
def teller(redis_server: RedisServer) -> Iterator[Teller]:
    with redis_server.client() as client:
        yield Teller(client)


def test_from_the_beginning_every_event_is_shown(redis_server: RedisServer, teller: Teller) -> None:
    teller.tell(1)
    teller.break_(2)
    with tailing(redis_server.url(), "--from", "0") as process:
        shown = [line.split() for line in lines(process, EVENTS_OF_A_STORY + 6)]

    with redis_server.client() as client:
        told = all_events(client)
    assert [line[1:4] for line in shown] == [[event.subject, str(int(event.sequence)), event.name] for event in told]
    assert shown[2][4:] == ["ingest"]
    assert shown[EVENTS_OF_A_STORY - 1][4:] == ["v4", "Completed"]
    assert shown[-2][4:] == ["v2", "Error", "video_file_broken"]


def test_it_goes_on_after_an_id_and_follows(redis_server: RedisServer, teller: Teller) -> None:
    teller.tell(1)
    with tailing(redis_server.url(), "--from", "0") as process:
        first = lines(process, EVENTS_OF_A_STORY)

    with tailing(redis_server.url(), "--from", first[9].split()[0]) as process:
        rest = lines(process, EVENTS_OF_A_STORY - 10)
        teller.accept(2)
        new = lines(process, 2)

    assert rest == first[10:]
    assert [line.split()[1] for line in new] == ["asset000002"] * 2


def test_from_the_end_only_what_is_new_is_shown(redis_server: RedisServer, teller: Teller) -> None:
    """Also on a stream that does not exist yet."""
    for number in (1, 2):
        with tailing(redis_server.url(), "--json") as process, redis_server.client() as client:
            while not [one for one in client.client_list() if one["cmd"] == "xread"]:
                assert process.poll() is None
            job = teller.accept(number)
            shown = [json.loads(line) for line in lines(process, 2)]

        assert {event["correlationid"] for event in shown} == {job.id}
        assert [event["data"]["asset"]["id"] for event in shown] == [job.asset] * 2


def test_it_shows_the_types_that_are_asked_for(redis_server: RedisServer, teller: Teller) -> None:
    teller.tell(1)
    with tailing(redis_server.url(), "--from", "0", "--type", "step.*", "--json") as process:
        shown = [json.loads(line)["type"].split(".")[-2] for line in lines(process, 4)]

    assert shown == ["started", "finished", "started", "finished"]


def test_what_lacks_the_flat_type_is_chosen_by_what_it_says(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        for type_ in ("asset.updated", "asset.ready", "asset.updated"):
            client.xadd(STREAM, {"ce": json.dumps({"type": f"dev.reelway.{type_}.v1"})})
        client.xadd(STREAM, {"other": "no event at all"})
        client.xadd(STREAM, {"ce": '{"type": "dev.reelway.asset.ready.v1", "id": "last"}'})
    with tailing(redis_server.url(), "--from", "0", "--type", "asset.ready", "--json") as process:
        shown = [json.loads(line) for line in lines(process, 2)]

    assert shown[1]["id"] == "last"


# -- since a moment: the archive, then the stream ---------------------------------------------------------------------


def archived(client: Client, storage: Storage, count: int) -> list[tuple[str, str]]:
    """Put the first entries of the stream into the archive."""
    found: Any = client.xrange(STREAM, count=count)
    entries = [(entry.decode(), fields[b"ce"].decode()) for entry, fields in found]
    archive.write(storage, entries)
    return entries


def since(server: RedisServer, storage: Storage, since_ms: int, count: int) -> list[str]:
    """Ids of the first entries from a moment on."""
    told = entries_since(server.url(), storage, since_ms)
    return [entry.decode() for entry, _ in islice(told, count)]


def stream_ids(client: Client) -> list[str]:
    found: Any = client.xrange(STREAM)
    return [entry.decode() for entry, _ in found]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(tmp_path.as_uri())


@pytest.mark.parametrize("kept", [EVENTS_OF_A_STORY, 8, 5])
def test_the_archive_and_the_stream_are_one(
    redis_server: RedisServer,
    teller: Teller,
    storage: Storage,
    kept: int,
) -> None:
    """Wherever the stream was cut, up to the last entry that is archived."""
    teller.tell(1)
    with redis_server.client() as client:
        told = stream_ids(client)
        archived(client, storage, 9)
        client.xtrim(STREAM, maxlen=kept, approximate=False)

        assert since(redis_server, storage, 0, len(told)) == told


def test_it_begins_at_the_moment(redis_server: RedisServer, storage: Storage) -> None:
    event = {"ce": '{"subject": "asset000001"}'}
    ids = [f"{ms}-{number}" for ms in (1000, 2000, 3000, 4000) for number in (1, 2)]
    with redis_server.client() as client:
        for id_ in ids:
            client.xadd(STREAM, event, id=id_)  # type: ignore[arg-type]
        archived(client, storage, 5)
        client.xtrim(STREAM, minid="3000-1", approximate=False)  # type: ignore[arg-type]

    for since_ms, first in ((0, 0), (1000, 0), (1001, 2), (2000, 2), (3000, 4), (3001, 6), (4000, 6)):
        assert since(redis_server, storage, since_ms, len(ids) - first) == ids[first:], since_ms


def test_an_archive_goes_on_while_it_is_read(
    redis_server: RedisServer,
    teller: Teller,
    storage: Storage,
) -> None:
    """Meanwhile the stream is archived further, and cut there."""
    teller.tell(1)
    with redis_server.client() as client:
        told = stream_ids(client)
        archived(client, storage, 4)
        client.xtrim(STREAM, maxlen=len(told) - 2, approximate=False)
        reading = entries_since(redis_server.url(), storage, 0)
        first = [next(reading)[0].decode() for _ in range(4)]
        found: Any = client.xrange(STREAM, min=f"({told[3]}", count=6)
        archive.write(storage, [(entry.decode(), fields[b"ce"].decode()) for entry, fields in found])
        client.xtrim(STREAM, minid=told[9], approximate=False)  # type: ignore[arg-type]

        assert first + [entry.decode() for entry, _ in islice(reading, len(told) - 4)] == told


def test_after_redis_was_lost_the_archive_is_told_and_the_new_stream_follows(
    redis_server: RedisServer,
    teller: Teller,
    storage: Storage,
) -> None:
    teller.tell(1)
    with redis_server.client() as client:
        told = stream_ids(client)
        archived(client, storage, len(told))
        client.flushall()
        Teller(client).tell(2)

        assert since(redis_server, storage, 0, 2 * len(told)) == told + stream_ids(client)


@pytest.mark.raises_code("cursor_expired")
def test_what_is_gone_is_said_to_be_gone(
    redis_server: RedisServer,
    teller: Teller,
    storage: Storage,
) -> None:
    """The stream was cut beyond what was archived, by somebody or by its length."""
    teller.tell(1)
    with redis_server.client() as client:
        if "entries-added" not in client.xinfo_stream(STREAM):  # type: ignore[operator]
            pytest.skip("a Redis before 7 does not say what it has dropped")
        archived(client, storage, 3)
        client.xtrim(STREAM, maxlen=5, approximate=False)
        first = int(stream_ids(client)[0].partition("-")[0])

    with pytest.raises(PipelineError) as caught:
        since(redis_server, storage, 0, EVENTS_OF_A_STORY)
    assert caught.value.code == "cursor_expired"
    assert caught.value.params["oldest"] == first


def test_what_the_archive_has_forgotten_is_one_line(
    redis_server: RedisServer,
    storage: Storage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    day = 86_400_000
    with redis_server.client() as client:
        for number in range(3):
            client.xadd(STREAM, {"ce": "{}"}, id=f"{number * day + 1}-0")  # type: ignore[arg-type]
        archived(client, storage, 3)
        client.xtrim(STREAM, maxlen=1, approximate=False)
        archive.forget(storage, 2 * day)
    monkeypatch.setenv("REELWAY_STORAGE_URL", tmp_path.as_uri())
    code, said = refused(redis_server.url(), "--since", "5")

    assert code == 1
    assert said.startswith("error: cursor_expired: ")


@pytest.mark.parametrize("wanted", ["asset.ready", "dev.reelway.asset.ready.v1", "asset.*", "*.asset.ready.*"])
def test_a_type_matches_by_name_whole_or_glob(wanted: str) -> None:
    assert matches("dev.reelway.asset.ready.v1", wanted)


@pytest.mark.parametrize("wanted", ["asset", "ready", "asset.read", "step.*", "dev.reelway.asset.ready", "Asset.ready"])
def test_another_type_does_not_match(wanted: str) -> None:
    assert not matches("dev.reelway.asset.ready.v1", wanted)


def test_what_is_no_event_is_shown_as_such(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.xadd(STREAM, {"ce": "{}", "type": "dev.reelway.asset.melted.v9"})
    with tailing(redis_server.url(), "--from", "0") as process:
        (shown,) = lines(process, 1)

    assert shown.endswith("(not an event of this version)")


def test_without_redis_it_says_one_coded_line() -> None:
    with running_server() as server:
        server.kill()
        code, said = refused(server.url())

    assert code == 1
    assert said.startswith("error: queue_unavailable: ")
    assert said.count("\n") == 1


def test_when_redis_goes_away_it_says_so_and_ends() -> None:
    with running_server() as server, server.client() as client:
        Teller(client).accept(1)
        environment = {**os.environ, "REELWAY_REDIS_URL": server.url(), "COLUMNS": "300"}
        with subprocess.Popen(
            [*TAIL, "--from", "0"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            lines(process, 2)
            server.kill()
            _, said = process.communicate(timeout=30)

    assert process.returncode == 1
    assert said.startswith("error: queue_unavailable: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("start", ["yesterday", "-1", "5-", "", "99999999999999999999"])
def test_a_start_that_is_none_is_a_wrong_call(start: str) -> None:
    code, said = refused("redis://127.0.0.1:1", f"--from={start}")

    assert code == 2
    assert said.startswith("error: parameter_invalid: ")
    assert said.count("\n") == 1


def test_a_url_that_is_none_is_a_wrong_call_and_not_repeated() -> None:
    code, said = refused("redis://:hunter2@host:secret/0")

    assert code == 2
    assert "secret" not in said
    assert "hunter2" not in said
