"""One command at a time changes an asset of a folder: each has its own record of it, and would not see the other's.

The lock is `flock` on a hidden file, so it dies with its holder; the file goes with the command.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pipeline.errors import PipelineError


@contextmanager
def alone(folder: Path, asset: str) -> Iterator[None]:
    """Inside, no other command changes the asset; `folder` is where the storage hides what is its own.

    Raises `asset_busy` where one does so already.
    """
    path = folder / f"{asset}.changing"
    try:
        folder.mkdir(exist_ok=True)
        lock = _locked(path)
    except BlockingIOError:
        detail = "another command that changes it has not ended"
        raise PipelineError("asset_busy", asset=asset, detail=detail) from None
    except OSError as error:
        raise PipelineError("storage_forbidden", reason=f"{error.strerror} in {folder}", log=str(error)) from error
    with lock:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path) -> IO[str]:
    """The file that is there now, locked. Whoever had it before may remove it between our two looks."""
    while True:
        lock = path.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                    return lock
        except BaseException:
            lock.close()
            raise
        lock.close()
