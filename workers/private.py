"""A fleet of a command's own: a Redis and a worker a core, gone with the command.

It imports next to nothing, so that its processes load while the command still does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from workers.embedded import EmbeddedFleet, short_folder
from workers.owned_folder import OwnedFolder


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
            "metrics_port": "0",
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
