"""A temporary folder that is gone when its owner is, even after kill -9.

The owner holds a lock inside; a folder whose lock is free belongs to nobody any more, and the next owner removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

PREFIX = "reelway-"
LOCK = "lock"
UNLOCKED_S = 3600.0
"""A folder that has no lock after so long will not get one."""


class OwnedFolder:
    """A private (0700) folder below `parent`; use it as a context, or `remove` it. Raises `OSError`."""

    def __init__(self, parent: Path) -> None:
        remove_left_overs(parent)
        self.path, self._lock = _made(parent)

    def remove(self) -> None:
        """Twice is fine."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.remove()


def _made(parent: Path) -> tuple[Path, IO[str]]:
    """A new folder and its lock. Whoever tidies between the two takes it for a left-over: then another one is made."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        with suppress(FileNotFoundError):
            lock = (path / LOCK).open("w")
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (path / LOCK).exists():
                return path, lock
            lock.close()


def remove_left_overs(parent: Path) -> None:
    """Remove the folders whose owner was killed."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            if folder.stat().st_uid != os.getuid() or not folder.is_dir():
                continue
            if not (folder / LOCK).exists() and time.time() - folder.stat().st_mtime > UNLOCKED_S:
                shutil.rmtree(folder, ignore_errors=True)  # killed before it could lock its own
                continue
            with (folder / LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # somebody holds it, or is about to: it is in use
