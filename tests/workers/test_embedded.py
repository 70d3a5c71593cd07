"""A private Redis and workers: there when they are wanted, and gone with the command, however it ends."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from builders import a_blueprint, a_profile, a_request
from waiting import wait_until

from pipeline.conductor import Answer, Conductor
from pipeline.errors import PipelineError
from pipeline.job import Job, JobStatus, Ref, Step
from pipeline.memory import SystemClock
from pipeline.requests import JobRequest
from pipeline.tasks import Blueprint, IngestFacts
from workers import embedded, leash
from workers.dispatcher import Dispatcher
from workers.embedded import FAKE, EmbeddedRedis, Server, find_server, short_folder
from workers.owned_folder import remove_left_overs
from workers.private import EmbeddedFleet
from workers.redis_client import connect
from workers.redis_jobs import RedisJobStore
from workers.switchboard import Switchboard
from workers.tickets import RedisTickets, Slots, TicketBroker

PATIENCE_S = 20.0

WORKER = """
import os, signal, sys, threading
import redis
def note(number, _frame):
    os.write(1, b"signal %d\\n" % number)
    stopping.set()
stopping = threading.Event()
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, note)
redis.Redis.from_url(os.environ["REELWAY_REDIS_URL"]).sadd("workers", os.getpid())
while not stopping.wait(0.1):
    pass
"""

PARENT = f"""
import json, os, sys
from pathlib import Path
from workers.private import EmbeddedFleet
from workers.redis_client import connect
fleet = EmbeddedFleet(
    processes=2,
    environment=lambda url: {{**os.environ, "REELWAY_REDIS_URL": url}},
    command=[sys.executable, "-c", {WORKER!r}],
    log=Path(sys.argv[1]),
)
with fleet:
    while connect(fleet.redis_url).scard("workers") < 2:
        pass
    pids = [fleet.redis.pid, *fleet.pids]
    print(json.dumps({{"pids": pids, "url": fleet.redis_url}}), flush=True)
    sys.stdin.read()
"""


def alive(pid: int) -> bool:
    """It runs: a zombie that nobody has reaped yet does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    if not sys.platform.startswith("linux"):
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def a_parent(log: Path) -> Iterator[tuple[subprocess.Popen[str], Mapping[str, Any]]]:
    """A command with a fleet of two in a process of its own, and what it says of them."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(log)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert parent.stdout is not None
        yield parent, json.loads(parent.stdout.readline())
    finally:
        parent.kill()
        parent.communicate()


def folder_of(url: str) -> Path:
    return Path(url.removeprefix("unix://").partition("?")[0]).parent


def a_worker(fleet_workers: int = 1, text: str = WORKER, **options: Any) -> EmbeddedFleet:
    return EmbeddedFleet(
        processes=fleet_workers,
        environment=lambda url: {**os.environ, "REELWAY_REDIS_URL": url},
        command=[sys.executable, "-c", text],
        **options,
    )


def registered(fleet: EmbeddedFleet) -> set[int]:
    """Ids of the workers that have said that they live."""
    client: Any = connect(fleet.redis_url)
    with client:
        return {int(pid) for pid in client.smembers("workers")}


# -- the server -------------------------------------------------------------------------------------------------------


def a_server_binary(folder: Path, version: str) -> None:
    folder.mkdir()
    script = folder / "redis-server"
    script.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0:0 malloc=libc bits=64'\n")
    script.chmod(0o755)


@pytest.mark.parametrize(("version", "taken"), [("5.0.7", False), ("6.0.16", False), ("6.2.0", True), ("7.0.15", True)])
def test_the_systems_server_is_taken_if_it_is_new_enough(
    version: str, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_server_binary(tmp_path / "bin", version)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    server = find_server()
    assert (server.path == tmp_path / "bin" / "redis-server") is taken
    if taken:
        assert str(server) == f"redis-server {version}"


def test_without_any_server_it_is_fakeredis_and_without_that_a_coded_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(embedded, "BUNDLES", ("no_such_bundle",))
    assert find_server() == FAKE
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(PipelineError, match="queue_unavailable"):
        find_server()


@pytest.fixture
def server() -> Server:
    found = find_server()
    if found.path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("there is no redis-server of 6.2 or newer")
    return found


def test_a_private_redis_is_private_durable_and_gone_afterwards(server: Server) -> None:
    with EmbeddedRedis(server=server) as private:
        folder = folder_of(private.url())
        client: Any = connect(private.url(1))
        with client:
            settings = {name: client.config_get(name)[name] for name in ("port", "appendonly", "maxmemory-policy")}
        assert settings == {"port": "0", "appendonly": "yes", "maxmemory-policy": "noeviction"}
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert private.pid is not None
        assert alive(private.pid)
    assert not alive(private.pid)
    assert not folder.exists()


def test_a_server_that_does_not_start_is_a_coded_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    broken = Server(kind="redis-server", version="6.2.0", path=Path(sys.executable))
    with pytest.raises(PipelineError, match="queue_unavailable"):
        EmbeddedRedis(server=broken).start()
    assert list(tmp_path.iterdir()) == []


class OneStep:
    def first_steps(self, request: JobRequest) -> tuple[Step, ...]:
        return (Step(id="only", stage="transcode"),)

    def grow(self, job: Job, facts: IngestFacts) -> tuple[Blueprint, tuple[Step, ...]]:
        return a_blueprint(), ()


@pytest.mark.parametrize("kind", ["real", "fake"])
def test_a_job_runs_through_it(kind: str, request: pytest.FixtureRequest) -> None:
    """Store, tickets and switchboard on what there is, fakeredis included."""
    chosen = FAKE if kind == "fake" else request.getfixturevalue("server")
    with EmbeddedRedis(server=chosen) as private, connect(private.url(0)) as client:
        store = RedisJobStore(client)
        conductor = Conductor(store, SystemClock(), OneStep(), {"default": a_profile()})
        switchboard = Switchboard(client)
        switchboard.start()
        assert switchboard.connected.wait(PATIENCE_S)
        broker = TicketBroker(private.url(1), slots=Slots(1), switchboard=switchboard)
        tickets = RedisTickets(broker, switchboard)
        seen = switchboard.heard("transcode")
        conductor.accept(a_request())
        assert switchboard.wait(seen, PATIENCE_S, "transcode")
        assert Dispatcher(store, tickets, switchboard, {"transcode": 1}).dispatch() == 1
        consumer = broker.consume("transcode")
        message = next(consumer)
        assert message is not None
        job_id, step_id = message.args
        attempt = conductor.begin(Ref(job=job_id, step=step_id), "w")
        assert attempt is not None
        assert conductor.renew(attempt)
        assert conductor.finish(attempt, Answer())
        consumer.ack(message)
        job = store.job("request-1")
        assert job is not None
        assert job.status is JobStatus.SUCCEEDED
        assert [ref.step for ref in store.due(10)] == ["@"]
        switchboard.stop()
        broker.close()


def test_a_folder_whose_owner_was_killed_before_it_could_lock_it_goes_too(tmp_path: Path) -> None:
    old, young = tmp_path / "reelway-old", tmp_path / "reelway-young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (0, 0))
    (tmp_path / "reelway-file").touch()

    remove_left_overs(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"reelway-young", "reelway-file"}


# -- the fleet --------------------------------------------------------------------------------------------------------


def test_a_killed_parent_takes_everything_with_it(server: Server, tmp_path: Path) -> None:
    with a_parent(tmp_path / "log") as (parent, said):
        assert all(map(alive, said["pids"]))
        parent.kill()
        wait_until(lambda: not any(map(alive, said["pids"])))
    folder = folder_of(said["url"])
    assert folder.exists(), "a killed process cannot tidy"
    with EmbeddedRedis(server=server) as living:
        assert not folder.exists(), "the next one does"
        remove_left_overs(short_folder())
        assert folder_of(living.url()).exists(), "what is in use is left alone"


def test_ctrl_c_reaches_the_command_which_ends_its_workers_in_order(tmp_path: Path) -> None:
    with a_parent(tmp_path / "log") as (parent, said):
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.wait(PATIENCE_S) != 0
        assert not any(map(alive, said["pids"]))
        assert not folder_of(said["url"]).exists()
    assert (tmp_path / "log").read_text().split("\n") == ["signal 15", "signal 15", ""]


def test_a_worker_that_dies_is_replaced() -> None:
    with a_worker(2) as fleet:
        wait_until(lambda: len(registered(fleet)) == 2)
        (first, second) = fleet.pids
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(registered(fleet)) == 3)
        assert second in fleet.pids
        assert len(fleet.pids) == 2
        pids = fleet.pids
    assert not any(map(alive, pids))


def test_a_worker_that_dies_again_and_again_is_given_up() -> None:
    with a_worker(text="raise SystemExit(3)", restarts=2) as fleet:
        assert fleet.exhausted.wait(PATIENCE_S)
        assert fleet.pids == ()


def test_a_worker_that_does_not_listen_is_killed() -> None:
    with a_worker(text=f"{WORKER}\nwhile True: stopping.wait(60)", grace_s=0.1) as fleet:
        wait_until(lambda: len(registered(fleet)) == 1)
        (pid,) = fleet.pids
    assert not alive(pid)


def test_a_fleet_whose_worker_cannot_be_described_leaves_no_redis() -> None:
    def refuse(_url: str) -> Mapping[str, str]:
        raise ValueError("no environment")

    fleet = EmbeddedFleet(processes=1, environment=refuse)
    with pytest.raises(ValueError, match="no environment"):
        fleet.start()
    if fleet.redis.pid is not None:
        assert not alive(fleet.redis.pid)


# -- the leash where the kernel has none ------------------------------------------------------------------------------


@contextmanager
def watched(text: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, str(Path(leash.__file__)), "--watch", "0", sys.executable, "-c", text]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_watched_command_ends_with_its_parents_pipe() -> None:
    with watched("import os, time; print(os.getpid(), flush=True); time.sleep(600)") as watcher:
        assert watcher.stdout is not None
        assert watcher.stdin is not None
        pid = int(watcher.stdout.readline())
        assert alive(pid)
        watcher.stdin.close()
        wait_until(lambda: not alive(pid))
        assert watcher.wait(PATIENCE_S) != 0


def test_a_watched_command_is_told_to_stop() -> None:
    text = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('up', flush=True)\n"
        "time.sleep(600)"
    )
    with watched(text) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == b"up\n"
        watcher.terminate()
        assert watcher.wait(PATIENCE_S) == 7
