"""The pages that tell API developers what to do: what they say is done here, as it stands there."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis_server import RedisServer, running_server
from stories import EVENTS_OF_A_STORY, Teller, all_events
from typer.main import get_command
from waiting import wait_until

from pipeline import plan
from pipeline.conductor import Conductor
from pipeline.doorman import Doorman
from pipeline.errors import PipelineError
from pipeline.events import STREAM, Event
from pipeline.job import Ref
from pipeline.memory import SystemClock
from pipeline.organizations import Organizations
from pipeline.profile import load_profiles
from pipeline.requests import REQUESTS as REQUEST_TYPES
from pipeline.requests import STREAM as REQUESTS
from pipeline.storage import open_storage
from workers.cli import app
from workers.intake import Intake
from workers.redis_client import Client
from workers.redis_jobs import RedisJobStore

ROOT = Path(__file__).resolve().parents[2]
HOW_TO = ROOT / "docs" / "how-to"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_server() as running:
        yield running


@pytest.fixture
def shell(server: RedisServer, tmp_path: Path, require: Callable[[object, str], None]) -> dict[str, str]:
    """An environment whose `redis-cli` talks to the test's server."""
    program = shutil.which("redis-cli")
    require(program, "there is no redis-cli (Debian: redis-tools)")
    place = tmp_path / "bin"
    place.mkdir()
    (place / "redis-cli").write_text(f'#!/bin/sh\nexec {program} -s {server.socket} "$@"\n')
    (place / "redis-cli").chmod(0o755)
    return {**os.environ, "PATH": f"{place}:{os.environ['PATH']}"}


@contextmanager
def in_background(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process group that is killed with the block, and everything in it."""
    with subprocess.Popen(command, text=True, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_the_smallest_consumer_says_what_happens(server: RedisServer) -> None:
    program, environment = blocks(HOW_TO / "consume-events.md", "python")[0], {"REELWAY_REDIS_URL": server.url()}
    with server.client() as client:
        asset = Teller(client).tell(1)
    command = [sys.executable, "-u", "-c", program]
    with in_background(command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().split() for _ in range(8)]

    assert said[0] == ["asset.accepted", asset, "1", "Queued"]
    assert said[-2:] == [["asset.ready", asset, "4", "Completed"], ["asset.updated", asset, "4", "Completed"]]


def test_events_of_a_local_run_may_be_put_on_any_redis(
    server: RedisServer, shell: dict[str, str], tmp_path: Path
) -> None:
    with server.client() as client:
        Teller(client).tell(1)
        told = all_events(client)
        entries: Any = client.xrange(STREAM)
        (tmp_path / "events.jsonl").write_bytes(b"".join(fields[b"ce"] + b"\n" for _, fields in entries))
        client.delete(STREAM)
        lines = "".join(blocks(HOW_TO / "consume-events.md", "sh")).splitlines()
        (command,) = [line for line in lines if line.startswith("while")]
        subprocess.run(["sh", "-euc", command], cwd=tmp_path, env=shell, check=True, stdout=subprocess.DEVNULL)

        assert all_events(client) == told


def test_the_commands_of_the_redis_cli_page_do_what_it_says(
    server: RedisServer, shell: dict[str, str], tmp_path: Path
) -> None:
    commands = blocks(HOW_TO / "consume-events-redis-cli.md", "sh")
    script = next(number for number, block in enumerate(commands) if block.startswith("#!"))
    five, rest = commands[:script], commands[script + 1 :]
    with server.client() as client:
        Teller(client).tell(1)
        first = all_events(client)[0]

    def run(block: str) -> str:
        command = ["sh", "-euc", block]
        done = subprocess.run(command, cwd=tmp_path, env=shell, check=True, text=True, capture_output=True)
        assert not re.search(r"^(ERR|NOGROUP|WRONGTYPE|BUSYGROUP)", done.stdout, re.MULTILINE), done.stdout
        return done.stdout

    look, make, take, again, acknowledge, take_over, left = map(run, five)
    assert look.split()[0] == str(EVENTS_OF_A_STORY)
    assert make == "OK\n"
    assert json.loads(take.split("\n")[3])["id"] == first.id
    assert again == take
    assert acknowledge == "1\n"
    assert take_over.split()[0] == "0-0"
    assert left.split()[0] == "0"

    (tmp_path / "assets" / first.subject).mkdir(parents=True)
    (tmp_path / "assets" / first.subject / "1.json").write_text("the newest one\n")
    newest, over_again, clean_up = rest
    assert run(newest) == "the newest one\n"
    with server.client() as client:
        client.xgroup_create(STREAM, "files", id="$")
        assert run(over_again) == "OK\n"
        assert not (tmp_path / "assets").exists()
        assert [group["name"] for group in client.xinfo_groups(STREAM)] == [b"files", b"shell"]
        assert run(clean_up) == "1\n"


def test_the_script_of_the_redis_cli_page_may_be_killed_at_any_moment(
    server: RedisServer, shell: dict[str, str], tmp_path: Path
) -> None:
    (script,) = [block for block in blocks(HOW_TO / "consume-events-redis-cli.md", "sh") if block.startswith("#!")]
    (tmp_path / "project.sh").write_text(script)
    command = ["sh", "project.sh"]

    def files() -> list[Path]:
        return sorted((tmp_path / "assets").glob("*/*.json"))

    with server.client() as client:
        teller = Teller(client)
        for number in range(4):
            teller.tell(number)
        for count in (3, 11):
            with in_background(command, cwd=tmp_path, env=shell):
                wait_until(lambda count=count: len(files()) >= count)  # type: ignore[misc]
        killed_at = len(files())
        told = [event for event in all_events(client) if event.name.startswith("asset.")]
        with in_background(command, cwd=tmp_path, env=shell):
            wait_until(lambda: len(files()) == len(told))
            teller.break_(4)
            told = [event for event in all_events(client) if event.name.startswith("asset.")]
            wait_until(lambda: len(files()) == len(told))
            wait_until(lambda: dict(client.xpending(STREAM, "files"))["pending"] == 0)

    assert killed_at < len(told)
    names = {f"{event.subject}/{event.epoch}.{event.sequence}.json": event.id for event in told}
    assert {f"{file.parent.name}/{file.name}": json.loads(file.read_text())["id"] for file in files()} == names


# -- submit-requests.md -----------------------------------------------------------------------------------------------

SUBMIT = HOW_TO / "submit-requests.md"


@pytest.fixture
def desk(server: RedisServer, tmp_path: Path) -> Iterator[Conductor]:
    """Somebody takes requests, and nobody works."""
    with server.client() as client:
        store = RedisJobStore(client)
        profiles = load_profiles(ROOT / "config" / "profiles")
        conductor = Conductor(store, SystemClock(), plan, profiles, base_url="https://media.example")
        storage = open_storage(tmp_path.as_uri())
        intake = Intake(client, Doorman(conductor, storage, Organizations()), conductor)
        intake.start()
        try:
            yield conductor
        finally:
            intake.stop()


def answers(client: Client) -> list[Event]:
    return [event for event in all_events(client) if event.name in ("asset.accepted", "request.refused")]


def test_one_redis_command_asks_for_an_asset(server: RedisServer, shell: dict[str, str], desk: Conductor) -> None:
    ask, look = blocks(SUBMIT, "sh")[:2]
    with server.client() as client:
        for _ in range(2):  # a request that is sent twice is accepted once
            subprocess.run(["sh", "-euc", ask], env=shell, check=True, stdout=subprocess.DEVNULL)
        wait_until(lambda: client.exists(STREAM) == 1 and client.xlen(REQUESTS) == 0)
        (answer,) = answers(client)
    newest = subprocess.run(["sh", "-euc", look], env=shell, check=True, text=True, capture_output=True).stdout

    assert (answer.name, answer.subject, answer.correlationid) == (
        "asset.accepted",
        "k3v9x0q2m7a",
        "lecture-1-upload-1",
    )
    assert answer.data["meta"] == {"course": 42}
    assert "k3v9x0q2m7a" in newest


def test_the_python_client_hears_how_it_ended(server: RedisServer, desk: Conductor) -> None:
    (program,) = blocks(SUBMIT, "python")
    environment = {**os.environ, "REELWAY_REDIS_URL": server.url(), "SOURCE": "https://uploads.example.com/a.mp4"}
    command = [sys.executable, "-u", "-c", program]
    with in_background(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        accepted, job = process.stdout.readline().split()
        attempt = desk.begin(Ref(job=job, step="ingest"), "worker")
        assert attempt is not None
        assert desk.fail(attempt, PipelineError("video_file_broken"))
        ended, asset = process.stdout.readline().split()

    assert (accepted, ended, asset) == ("accepted", "asset.failed", attempt.job.asset)


def test_the_commands_of_the_page_are_commands() -> None:
    (block,) = [block for block in blocks(SUBMIT, "sh") if block.startswith("reelway ")]
    lines = [shlex.split(line, comments=True)[1:] for line in block.splitlines()]
    command: Any = get_command(app)

    assert len(lines) > 10
    for words in lines:
        group = command
        while hasattr(group, "commands"):
            group, words = group.commands[words[0]], words[1:]  # noqa: PLW2901
        group.make_context(group.name, words)  # which ends the program where an option is none


def test_every_request_is_on_the_page() -> None:
    rows = re.findall(r"^\| `(asset\.\w+)`(?:, `(asset\.\w+)`)? \|", SUBMIT.read_text(encoding="utf-8"), re.MULTILINE)
    named = {name for row in rows for name in row if name}

    assert named >= set(REQUEST_TYPES)
    assert named <= {*REQUEST_TYPES, "asset.accepted"}
