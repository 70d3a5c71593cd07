"""A fleet of a command's own: a Redis and a worker a core, gone with the command.

It imports next to nothing, so that its processes load while the command still does.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workers.embedded import EmbeddedFleet


@dataclass(frozen=True, kw_only=True)
class PrivateFleet:
    """Where the running fleet is."""

    settings: Mapping[str, str]
    """What differs from the settings of the environment, by name: give them to `Settings.read`."""


@contextmanager
def private_fleet(storage_url: str) -> Iterator[PrivateFleet]:
    """Workers on this machine that store to `storage_url`, while inside. Raises `queue_unavailable`."""
    processes = int(os.environ.get("REELWAY_WORKERS_HINT") or os.cpu_count() or 1)
    with tempfile.TemporaryDirectory(prefix="reelway-", ignore_cleanup_errors=True) as scratch:
        ours = {
            "storage_url": storage_url,
            "scratch_dir": scratch,
            "workers_hint": str(processes),
            "local_sources": "true",
            "grace_s": "0",
        }
        with EmbeddedFleet(
            processes=processes,
            environment=lambda redis_url: _environment({**ours, "redis_url": redis_url}),
            log=Path(scratch) / "workers.log",
        ) as fleet:
            yield PrivateFleet(settings={**ours, "redis_url": fleet.redis_url})


def _environment(ours: Mapping[str, str]) -> Mapping[str, str]:
    """The workers' whole environment: the command's, with our settings in place of its own."""
    return {**os.environ, **{f"REELWAY_{name.upper()}": value for name, value in ours.items()}}
