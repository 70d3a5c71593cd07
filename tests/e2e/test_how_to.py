"""The pages that tell API developers what to do: what they say is done here, as it stands there."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis_server import RedisServer, running_server
from stories import EVENTS_OF_A_STORY, Teller, all_events

from pipeline.events import STREAM

ROOT = Path(__file__).resolve().parents[2]
HOW_TO = ROOT / "docs" / "how-to"
PATIENCE_S = 60
"""Ends a test that would hang; no test waits for it."""


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


def wait_until(happened: Callable[[], bool]) -> None:
    deadline, moment = time.monotonic() + PATIENCE_S, threading.Event()
    while not happened():
        assert time.monotonic() < deadline
        moment.wait(0.01)


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
    command = [sys.executable, "-c", program]
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
