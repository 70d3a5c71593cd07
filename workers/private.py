"""A fleet of a command's own: a Redis and a worker a core, gone with the command, however it ends.

It imports next to nothing, so that its processes load while the command still does.
"""

from __future__ import annotations

import base64
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipeline.errors import PipelineError
from workers.embedded import EmbeddedRedis, Server, short_folder
from workers.owned_folder import OwnedFolder
from workers.supervisor import Supervisor

log = logging.getLogger("reelway.private")


class EmbeddedFleet:
    """A private Redis and the workers of one command, kept alive while it runs.

    `environment` gets the URL of the records' database and answers the workers' whole environment. `log`: the file to
    which they write (None: where this process writes). A worker that ends is started again at once, `restarts` times in
    all at most: somebody waits for the command. The rest is as of `Supervisor`.
    """

    def __init__(
        self,
        *,
        processes: int,
        environment: Callable[[str], Mapping[str, str]],
        log: Path | None = None,
        command: Sequence[str] | None = None,
        restarts: int = 10,
        grace_s: float = 10.0,
        server: Server | None = None,
    ) -> None:
        self.redis = EmbeddedRedis(server=server)
        self.log = log
        self._environment = environment
        self._command = command
        self._processes = processes
        self._restarts = restarts
        self._grace_s = grace_s
        self._workers: Supervisor | None = None
        self._output: IO[bytes] | None = None
        self._failure: BaseException | None = None
        self._keeper: threading.Thread | None = None

    @property
    def redis_url(self) -> str:
        """Of the database with the records."""
        return self.redis.url(0)

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the workers that run now."""
        return self._workers.pids if self._workers else ()

    @property
    def exhausted(self) -> threading.Event:
        """Too many workers ended by themselves: none is replaced any more."""
        assert self._workers is not None, "the fleet was started"
        return self._workers.exhausted

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
            self._workers = self._supervisor()
            # One thread starts every worker and lives until the last has ended: it holds their leashes.
            self._keeper = threading.Thread(target=self._keep, args=[self._workers], daemon=True, name="fleet")
            self._keeper.start()
            self._workers.wait_started()
            if self._failure is not None:
                raise self._failure
            self.redis.wait()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """SIGTERM to the workers, `grace_s` to finish or hand back, SIGKILL to the rest; then Redis. Twice is fine."""
        if self._keeper is not None and self._workers is not None:
            self._workers.stop()
            self._keeper.join()
            self._keeper = None
        self.redis.stop()
        if self._output is not None:
            self._output.close()
            self._output = None

    def _supervisor(self) -> Supervisor:
        return Supervisor(
            processes=self._processes,
            environment=lambda _number: self._environment(self.redis_url),
            command=self._command,
            output=self._output,
            restarts=self._restarts,
            grace_s=self._grace_s,
            pause=lambda _deaths, *, killed: 0.0,
        )

    def _keep(self, workers: Supervisor) -> None:
        try:
            workers.keep()
        except BaseException as error:
            self._failure = error
            log.exception("fleet failed", extra={"action": "fleet.failed"})


@dataclass(frozen=True, kw_only=True)
class PrivateFleet:
    """The running fleet."""

    settings: Mapping[str, str]
    """What differs from the settings of the environment, by name: give them to `Settings.read`."""
    _fleet: EmbeddedFleet
    _log: Path

    def check(self) -> None:
        """Raises `workers_unavailable` when no worker is left and none will be started again."""
        if self._fleet.exhausted.is_set() and not self._fleet.pids:
            lines = self._log.read_text(errors="replace").splitlines()
            raise PipelineError("workers_unavailable", reason=lines[-1] if lines else "they said nothing")


@contextmanager
def private_fleet(storage_url: str) -> Iterator[PrivateFleet]:
    """Workers on this machine that store to `storage_url`, while inside. Raises `queue_unavailable`."""
    processes = worker_count()
    with OwnedFolder(short_folder()) as scratch:
        # A setting that is meant for a lasting fleet must not reach this one.
        ours = {
            "storage_url": storage_url,
            "scratch_dir": str(scratch),
            "workers_hint": str(processes),
            "local_sources": "true",
            "grace_s": "0",
            "stages": "",
            "slots": "1",
            "drain": "false",
            "intake": "false",
            "housekeeping": "false",
            # Nobody else could do what does not fit here: it is tried.
            "admission": "false",
            "metrics_port": "0",
            # Whoever reads the folder later finds no key in it, and nothing to open.
            "seal_key": base64.b64encode(secrets.token_bytes(32)).decode(),
        }
        log = scratch / "workers.log"
        with EmbeddedFleet(
            processes=processes, environment=lambda redis_url: _environment({**ours, "redis_url": redis_url}), log=log
        ) as fleet:
            yield PrivateFleet(settings={**ours, "redis_url": fleet.redis_url}, _fleet=fleet, _log=log)


def worker_count() -> int:
    """How many workers a private fleet has: REELWAY_WORKERS_HINT, else one a core. Raises `setting_invalid`."""
    asked = os.environ.get("REELWAY_WORKERS_HINT") or str(os.cpu_count() or 1)
    if not asked.isdigit() or int(asked) < 1:
        raise PipelineError("setting_invalid", name="REELWAY_WORKERS_HINT", detail="it is a number from 1 on")
    return int(asked)


def _environment(ours: Mapping[str, str]) -> Mapping[str, str]:
    """The workers' whole environment: the command's, with our settings in place of its own."""
    return {**os.environ, **{f"REELWAY_{name.upper()}": value for name, value in ours.items()}}
