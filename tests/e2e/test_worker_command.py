"""`reelway worker` and `reelway up` as an operator meets them: real processes, a real Redis, toy stages."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from builders import a_request
from catalogue import told as raised
from redis_server import RedisServer
from s3_server import free_ports
from toy_worker import HERE, read_diary, write_source
from waiting import wait_until

from pipeline.job import JobStatus, Status
from workers.client import Client
from workers.embedded import end, find_server
from workers.redis_client import connect
from workers.redis_jobs import RedisJobStore
from workers.registry import Registry, WorkerRecord

PATIENCE_S = 90.0
PROGRAM = f"""
import sys
import workers.supervisor
workers.supervisor.WORKER = (sys.executable, {str(HERE / "toy_worker.py")!r})
from workers.__main__ import main
main()
"""


@dataclass(kw_only=True)
class Terminal:
    """Where commands are typed. What is still running at the end of a test is ended."""

    folder: Path
    redis_url: str
    settings: dict[str, str] = field(default_factory=dict)
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def type(self, *words: str) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REELWAY_")}
        with self.errors(len(self.running)).open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *words],
                env={**environment, "REELWAY_REDIS_URL": self.redis_url, **self.settings},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        self.running.append(process)
        return process

    def errors(self, number: int) -> Path:
        """What the n-th command wrote to stderr."""
        return self.folder / f"errors-{number}"

    def said(self, *words: str, code: int = 0) -> str:
        """What a command printed that ended with this code; of one that failed, what it had to say."""
        process = self.type(*words)
        text, _ = process.communicate(timeout=PATIENCE_S)
        errors = raised(self.errors(len(self.running) - 1).read_text())
        assert process.returncode == code, errors
        return errors if code else text

    def set(self, **settings: object) -> None:
        self.settings |= {f"REELWAY_{name.upper()}": str(value) for name, value in settings.items()}

    @property
    def workers(self) -> list[WorkerRecord]:
        with connect(self.redis_url) as client:
            return list(Registry(client).workers())

    @property
    def store(self) -> RedisJobStore:
        return RedisJobStore(connect(self.redis_url))

    def awake(self, count: int) -> list[WorkerRecord]:
        """So many workers, once they are all there."""
        return list(wait_until(lambda: len(self.workers) == count and self.workers))

    def submit(self, source: Path, id_: str = "job-1", **changes: Any) -> str:
        request = a_request(id=id_, url=str(source), **changes)
        return Client(self.redis_url).submit(request, wait_s=PATIENCE_S).jobs[0]

    def status(self, job: str) -> JobStatus | None:
        record = self.store.job(job)
        return record.status if record else None

    def close(self) -> None:
        for process in self.running:
            with process:
                end(process, grace_s=15)  # type: ignore[arg-type]


@pytest.fixture
def terminal(tmp_path: Path, redis_server: RedisServer) -> Iterator[Terminal]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    made = Terminal(folder=tmp_path, redis_url=redis_server.url())
    made.set(storage_url=(tmp_path / "storage").as_uri(), scratch_dir=scratch, local_sources="true", grace_s=0)
    yield made
    made.close()


def told(process: subprocess.Popen[str], number: signal.Signals) -> int:
    """The exit code after this signal."""
    process.send_signal(number)
    process.communicate(timeout=PATIENCE_S)
    return process.returncode


def gone(*pids: int) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


# -- reelway worker ---------------------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_and_its_sibling_goes_on(terminal: Terminal) -> None:
    command = terminal.type("worker", "--processes", "2")
    first, second = terminal.awake(2)
    os.kill(first.pid, signal.SIGKILL)

    wait_until(lambda: {record.pid for record in terminal.workers} - {first.pid, second.pid})
    assert second.name in {record.name for record in terminal.workers}
    folders = wait_until(
        lambda: (found := list(terminal.folder.glob("scratch/reelway-*"))) and len(found) == 2 and found
    )
    assert all((folder / "lock").exists() for folder in folders), "what the dead one left in scratch is gone"

    pids = [record.pid for record in terminal.workers]
    assert told(command, signal.SIGTERM) == 0
    assert gone(*pids)
    assert list(terminal.folder.glob("scratch/reelway-*")) == []


def test_a_drain_hands_back_what_does_not_end_in_time(terminal: Terminal) -> None:
    source = write_source(terminal.folder / "long.toy", work_s={"ingest": 60.0})
    command = terminal.type("worker", "--processes", "1")
    job = terminal.submit(source)
    wait_until(lambda: read_diary(source))

    assert told(command, signal.SIGTERM) == 0
    record = terminal.store.job(job)
    assert record is not None
    step = record.steps["ingest"]
    assert (step.status, step.attempt, step.losses, step.retries) == (Status.READY, 1, 0, 0)
    assert terminal.workers == []


def test_within_its_grace_time_a_worker_finishes_what_it_does_and_begins_nothing(terminal: Terminal) -> None:
    terminal.set(grace_s=PATIENCE_S)
    gate = terminal.folder / "gate"
    source = write_source(terminal.folder / "short.toy", until={"ingest": gate})
    command = terminal.type("worker", "--processes", "1")
    job = terminal.submit(source)
    wait_until(lambda: read_diary(source))

    command.send_signal(signal.SIGINT)
    wait_until(lambda: terminal.workers[0].draining)
    gate.touch()
    command.communicate(timeout=PATIENCE_S)
    assert command.returncode == 0
    assert read_diary(source) == [("start", "ingest"), ("end", "ingest")]
    record = terminal.store.job(job)
    assert record is not None
    assert record.steps["ingest"].status is Status.SUCCEEDED
    assert record.status is JobStatus.ACTIVE


def test_a_second_signal_hands_back_at_once(terminal: Terminal) -> None:
    terminal.set(grace_s=3600)
    source = write_source(terminal.folder / "long.toy", work_s={"ingest": 600.0})
    command = terminal.type("worker", "--processes", "1")
    terminal.submit(source)
    wait_until(lambda: read_diary(source))

    command.send_signal(signal.SIGTERM)
    wait_until(lambda: terminal.workers[0].draining)
    assert told(command, signal.SIGTERM) == 0


def test_workers_for_one_drain_end_when_nothing_is_left(terminal: Terminal) -> None:
    source = write_source(terminal.folder / "a.toy")
    before = terminal.type("worker", "--stages", "package", "--processes", "1")
    job = terminal.submit(source)
    assert told(before, signal.SIGTERM) == 0
    command = terminal.type("worker", "--drain", "--processes", "2")
    command.communicate(timeout=PATIENCE_S)

    assert command.returncode == 0
    assert terminal.status(job) is JobStatus.SUCCEEDED


def test_a_worker_does_only_its_stages(terminal: Terminal) -> None:
    source = write_source(terminal.folder / "a.toy")
    terminal.type("worker", "--stages", "ingest", "--processes", "1")
    job = terminal.submit(source)
    (record,) = terminal.awake(1)
    wait_until(lambda: ("end", "ingest") in read_diary(source))
    wait_until(lambda: len(getattr(terminal.store.job(job), "steps", ())) > 1)

    assert record.stages == ("ingest",)
    assert {what for what, part in read_diary(source) if part != "ingest"} == set()


def test_a_stage_that_there_is_not_is_a_wrong_call(terminal: Terminal) -> None:
    assert "setting_invalid" in terminal.said("worker", "--stages", "melt", code=2)


@pytest.mark.parametrize(
    "wrong", [{"redis_url": "http://:hush@h"}, {"storage_url": "gs://b"}, {"organizations_file": "/nowhere.yml"}]
)
@pytest.mark.parametrize("command", ["worker", "up"])
def test_a_wrong_setting_ends_the_command_before_any_worker_starts(
    command: str, wrong: dict[str, str], terminal: Terminal
) -> None:
    terminal.set(**wrong)
    said = terminal.said(command, "--processes", "1", code=2)

    assert len(said.splitlines()) == 1
    assert "_invalid" in said
    assert "hush" not in said


# -- admission --------------------------------------------------------------------------------------------------------


@pytest.mark.raises_code("storage_differs")
@pytest.mark.parametrize("words", [("worker", "--processes", "1"), ("up", "--processes", "1", "--port", "0")])
def test_who_would_store_elsewhere_does_not_join_a_fleet(terminal: Terminal, words: Sequence[str]) -> None:
    terminal.type("worker", "--processes", "1")
    terminal.awake(1)
    terminal.set(storage_url=(terminal.folder / "elsewhere").as_uri())

    said = terminal.said(*words, code=2)

    assert said.startswith("error: storage_differs: ")
    assert len(said.splitlines()) == 1
    assert f"file://{terminal.folder}/elsewhere" in said
    assert len(terminal.workers) == 1


def test_a_worker_that_would_store_elsewhere_ends_at_once(terminal: Terminal) -> None:
    """However it was started: the command is not the only one that starts workers."""
    terminal.type("worker", "--processes", "1")
    terminal.awake(1)
    scratch = terminal.folder / "scratch of its own"
    scratch.mkdir()
    environment = {**os.environ, "REELWAY_REDIS_URL": terminal.redis_url, **terminal.settings}
    environment |= {
        "REELWAY_STORAGE_URL": (terminal.folder / "elsewhere").as_uri(),
        "REELWAY_SCRATCH_DIR": str(scratch),
    }

    done = subprocess.run(
        [sys.executable, "-m", "workers.main"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert done.returncode == 1
    assert "error: storage_differs: " in done.stderr
    assert list(scratch.iterdir()) == []


def test_a_step_for_which_a_machine_has_no_room_goes_elsewhere(terminal: Terminal) -> None:
    """It is no attempt and no failure; whoever asks is told why it waits there."""
    source = write_source(terminal.folder / "a.toy", sound=False)
    terminal.type("worker", "--processes", "1", "--stages", "ingest,package")
    terminal.set(memory_reserve_bytes=10**18)
    terminal.type("worker", "--processes", "1", "--stages", "transcode")
    job = terminal.submit(source)
    (full,) = wait_until(lambda: [record for record in terminal.workers if record.refused])
    assert all("memory" in reason for reason in full.refused.values())
    record = terminal.store.job(job)
    assert record is not None
    assert {step.attempt for step in record.steps.values() if step.stage == "transcode"} == {0}

    terminal.set(memory_reserve_bytes=0)
    terminal.type("worker", "--processes", "1", "--stages", "transcode")
    wait_until(lambda: terminal.status(job) is JobStatus.SUCCEEDED)


def test_an_encoder_that_nobody_has_any_more_fails_the_job(terminal: Terminal) -> None:
    terminal.set(encoder_patience_s=0.5)
    source = write_source(terminal.folder / "a.toy", encoder="of another release")
    terminal.type("worker", "--processes", "1")
    job = terminal.submit(source)

    wait_until(lambda: terminal.status(job) is JobStatus.FAILED)
    record = terminal.store.job(job)
    assert record is not None
    assert record.error is not None
    assert record.error["code"] == "encoder_unavailable"


# -- reelway up -------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Terminal]:
    """A terminal of a machine on which nothing runs."""
    if find_server().path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("there is no redis-server of 6.2 or newer")
    (port,) = free_ports(1)
    made = Terminal(folder=tmp_path, redis_url=f"redis://127.0.0.1:{port}/0")
    made.set(grace_s=0)
    yield made
    made.close()


def up(home: Terminal) -> subprocess.Popen[str]:
    return home.type("up", "--processes", "1", "--port", "0")


def screen(command: subprocess.Popen[str]) -> dict[str, str]:
    """What it prints when it is up: the places by name."""
    assert command.stdout is not None
    lines = []
    while line := command.stdout.readline():
        lines.append(line)
        if "submit" in line:
            return {name: place for name, place, *_ in (line.split() for line in lines if line.startswith("  "))}
    pytest.fail("".join(lines))


def test_a_fleet_on_one_machine_plays_what_it_made_and_knows_it_after_a_restart(home: Terminal) -> None:
    command = up(home)
    places = screen(command)
    source = write_source(home.folder / "a.toy")
    asset = home.said("submit", str(source), "--wait").split()[0]
    with urllib.request.urlopen(f"{places['player']}asset.json") as answer:
        assert json.load(answer)["id"] == asset
    assert told(command, signal.SIGINT) == 0

    command = up(home)
    screen(command)
    assert "Completed" in home.said("status", asset)
    assert told(command, signal.SIGTERM) == 0


def test_what_waited_when_the_fleet_was_killed_is_done_by_the_next(home: Terminal) -> None:
    endless = write_source(home.folder / "a.toy", work_s={"ingest": 3600.0})
    waiting = write_source(home.folder / "b.toy")
    command = up(home)
    screen(command)
    home.submit(endless, "endless")
    wait_until(lambda: read_diary(endless))
    second = home.submit(waiting, "waiting", asset_id="asset000002")
    command.kill()
    command.wait(PATIENCE_S)
    assert read_diary(waiting) == []

    screen(up(home))
    wait_until(lambda: home.status(second) is JobStatus.SUCCEEDED)


@pytest.mark.raises_code("address_taken")
def test_a_place_that_is_taken_by_something_else_is_a_coded_error(home: Terminal) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(home.redis_url.rpartition(":")[2].partition("/")[0])))
        other.listen()
        text = home.said("up", "--port", "0", code=1)

    assert "address_taken" in text


def test_a_redis_that_is_there_is_used_and_left_running(terminal: Terminal) -> None:
    command = up(terminal)
    screen(command)
    terminal.awake(1)
    assert not (terminal.folder / "reelway-data" / "redis").exists()
    assert "parameter_invalid" in terminal.said("up", "--port", "0", code=2), "two in one folder"

    assert told(command, signal.SIGHUP) == 0, "its terminal was closed"
    assert terminal.workers == []


def test_a_redis_that_cannot_be_started_here_is_not(home: Terminal) -> None:
    home.redis_url = "redis://:secret@127.0.0.1:1/0"
    text = home.said("up", "--port", "0", code=1)

    assert "queue_unavailable" in text
    assert "secret" not in text
