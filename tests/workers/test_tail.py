"""`reelway events tail`, as the command that people type, on a real Redis."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis_server import RedisServer, redis_server, running_server, shared_server  # noqa: F401
from stories import EVENTS_OF_A_STORY, Teller, all_events

from pipeline.events import STREAM
from workers.tail import matches

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
def teller(redis_server: RedisServer) -> Iterator[Teller]:  # noqa: F811
    with redis_server.client() as client:
        yield Teller(client)


def test_from_the_beginning_every_event_is_shown(redis_server: RedisServer, teller: Teller) -> None:  # noqa: F811
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


def test_it_goes_on_after_an_id_and_follows(redis_server: RedisServer, teller: Teller) -> None:  # noqa: F811
    teller.tell(1)
    with tailing(redis_server.url(), "--from", "0") as process:
        first = lines(process, EVENTS_OF_A_STORY)

    with tailing(redis_server.url(), "--from", first[9].split()[0]) as process:
        rest = lines(process, EVENTS_OF_A_STORY - 10)
        teller.accept(2)
        new = lines(process, 2)

    assert rest == first[10:]
    assert [line.split()[1] for line in new] == ["asset000002"] * 2


def test_from_the_end_only_what_is_new_is_shown(redis_server: RedisServer, teller: Teller) -> None:  # noqa: F811
    """Also on a stream that does not exist yet."""
    for number in (1, 2):
        with tailing(redis_server.url(), "--json") as process, redis_server.client() as client:
            while not [one for one in client.client_list() if one["cmd"] == "xread"]:
                assert process.poll() is None
            job = teller.accept(number)
            shown = [json.loads(line) for line in lines(process, 2)]

        assert {event["correlationid"] for event in shown} == {job.id}
        assert [event["data"]["asset"]["id"] for event in shown] == [job.asset] * 2


def test_it_shows_the_types_that_are_asked_for(redis_server: RedisServer, teller: Teller) -> None:  # noqa: F811
    teller.tell(1)
    with tailing(redis_server.url(), "--from", "0", "--type", "step.*", "--json") as process:
        shown = [json.loads(line)["type"].split(".")[-2] for line in lines(process, 4)]

    assert shown == ["started", "finished", "started", "finished"]


@pytest.mark.parametrize("wanted", ["asset.ready", "dev.reelway.asset.ready.v1", "asset.*", "*.asset.ready.*"])
def test_a_type_matches_by_name_whole_or_glob(wanted: str) -> None:
    assert matches("dev.reelway.asset.ready.v1", wanted)


@pytest.mark.parametrize("wanted", ["asset", "ready", "asset.read", "step.*", "dev.reelway.asset.ready", "Asset.ready"])
def test_another_type_does_not_match(wanted: str) -> None:
    assert not matches("dev.reelway.asset.ready.v1", wanted)


def test_what_is_no_event_is_shown_as_such(redis_server: RedisServer) -> None:  # noqa: F811
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
