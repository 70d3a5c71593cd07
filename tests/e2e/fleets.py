"""One real worker, and the environment in which it and the commands find each other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from redis_server import RedisServer

from workers.embedded import end


def surroundings(server: RedisServer, storage_url: str, folder: Path) -> dict[str, str]:
    """Settings that keep everything in `folder`; as wide as a line needs."""
    (folder / "scratch").mkdir(exist_ok=True)
    return {
        "COLUMNS": "300",
        "REELWAY_REDIS_URL": server.url(),
        "REELWAY_STORAGE_URL": storage_url,
        "REELWAY_SCRATCH_DIR": str(folder / "scratch"),
        "REELWAY_GRACE_S": "0",
        "XDG_STATE_HOME": str(folder / "state"),
    }


@contextmanager
def working(environment: Mapping[str, str], log: Path) -> Iterator[None]:
    """A worker while the context is open."""
    with log.open("ab") as output:
        command = [sys.executable, "-m", "workers.main"]
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output)
    try:
        yield
    finally:
        end(process, grace_s=20)
