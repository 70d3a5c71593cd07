"""N workers beside each other: one that dies is replaced, and the others never notice."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from workers.settings import Settings
from workers.station import _environments, _ours, _shown
from workers.supervisor import Supervisor, pause_s

PATIENCE_S = 20.0
STAYS = "import time\nwhile True: time.sleep(60)"
NOTES = "import os, sys, time\nopen(f'{sys.argv[1]}/{time.monotonic()}', 'w')\n"


@contextmanager
def kept(text: str, *arguments: str, processes: int = 1, **options: Any) -> Iterator[Supervisor]:
    """Workers that are this program, kept by a thread while inside."""
    command = [sys.executable, "-c", text, *arguments]
    workers = Supervisor(
        processes=processes, environment=lambda _number: os.environ, command=command, grace_s=5.0, **options
    )
    thread = threading.Thread(target=workers.keep, daemon=True)
    thread.start()
    try:
        workers.wait_started()
        yield workers
    finally:
        workers.stop()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert workers.pids == ()


@pytest.mark.parametrize(("deaths", "killed", "pause"), [(1, True, 0), (2, True, 1), (1, False, 1), (2, False, 2)])
def test_the_killed_come_back_at_once_and_the_broken_after_a_while(deaths: int, killed: bool, pause: float) -> None:
    assert pause_s(deaths, killed=killed) == pause
    assert pause_s(100, killed=killed) == 30


def test_a_killed_worker_is_replaced_and_its_sibling_untouched() -> None:
    with kept(STAYS, processes=2) as workers:
        first, second = workers.pids
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(workers.pids) == 2 and first not in workers.pids)
        assert second in workers.pids


def test_a_worker_that_ends_by_itself_gets_longer_and_longer_pauses(tmp_path: Path) -> None:
    asked: list[tuple[int, bool]] = []

    def pause(deaths: int, *, killed: bool) -> float:
        asked.append((deaths, killed))
        return 0.0

    with kept(f"{NOTES}sys.exit(3)", str(tmp_path), pause=pause):
        wait_until(lambda: len(asked) >= 3)
    assert asked[:3] == [(1, False), (2, False), (3, False)]


def test_during_a_pause_nothing_is_started(tmp_path: Path) -> None:
    with kept(f"{NOTES}sys.exit(3)", str(tmp_path), pause=lambda _deaths, *, killed: 3600.0) as workers:
        wait_until(lambda: workers.deaths == 1)
        assert workers.pids == ()
    assert len(list(tmp_path.iterdir())) == 1


def test_who_is_done_is_not_replaced_and_the_keeper_ends_with_the_last() -> None:
    workers = Supervisor(
        processes=2,
        environment=lambda _number: os.environ,
        command=[sys.executable, "-c", "pass"],
        until_done=True,
    )
    thread = threading.Thread(target=workers.keep, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)

    assert not thread.is_alive()
    assert (workers.deaths, workers.killed) == (0, 0)


def test_who_does_not_end_in_time_is_killed_and_counted() -> None:
    text = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(flush=True)\ntime.sleep(600)"
    with kept(text, output=None) as workers:
        workers.grace_s = 0.5
        (pid,) = workers.pids
        wait_until(lambda: _ignores_sigterm(pid))
    assert workers.killed == 1


def _ignores_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("only Linux tells which signals a process ignores")
    ignored = next(line for line in status.read_text().splitlines() if line.startswith("SigIgn"))
    return bool(int(ignored.split()[1], 16) & 1 << (signal.SIGTERM - 1))


def test_each_worker_serves_its_metrics_on_a_port_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def ports(settings: Settings) -> list[str | None]:
        environments: list[Mapping[str, str]] = [_environments(settings, {})(number) for number in range(2)]
        return [environment.get("REELWAY_METRICS_PORT") for environment in environments]

    monkeypatch.delenv("REELWAY_METRICS_PORT", raising=False)
    assert ports(Settings.read()) == [None, None]
    assert ports(Settings.read(metrics_port=9000)) == ["9000", "9001"]


@pytest.mark.parametrize(
    ("own_redis", "told", "may"),
    [(True, None, "true"), (False, None, "false"), (True, False, "false"), (False, True, "true")],
)
def test_files_of_the_machine_are_sources_where_nobody_elsewhere_sends_requests(
    own_redis: bool, told: bool | None, may: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REELWAY_LOCAL_SOURCES", raising=False)
    settings = Settings.read() if told is None else Settings.read(local_sources=told)

    assert _ours(settings, None, 1, own_redis=own_redis)["local_sources"] == may


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:hush@h:1/2", "redis://:…@h:1/2"),
        ("rediss://me:hush@h/2?ssl_cert_reqs=none", "rediss://me:…@h/2?ssl_cert_reqs=none"),
        ("unix:///run/r.sock?db=1", "unix:///run/r.sock?db=1"),
        ("unix:///run/r.sock?password=hush", "unix:///run/r.sock"),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    assert _shown(url) == shown
