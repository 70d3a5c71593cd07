"""`python -m workers.main`: one worker process, everything from the environment.

The nursery of the stages is started before anything else is imported, so that the two load side by side.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from pipeline.errors import PipelineError
from pipeline.sandbox import Nursery
from workers.owned_folder import OwnedFolder
from workers.signals import on_signals


def main() -> int:
    parent = Path(os.environ.get("REELWAY_SCRATCH_DIR") or tempfile.gettempdir())
    try:
        folder = OwnedFolder(parent)
    except OSError as error:
        detail = f"{parent} cannot be written: {error.strerror}"
        fail(PipelineError("setting_invalid", name="REELWAY_SCRATCH_DIR", detail=detail))
    nursery = Nursery(folder.path)
    nursery.start()
    # structlog would load rich (0.2 s) to colour tracebacks; nobody watches a worker's.
    sys.modules["rich"] = None  # type: ignore[assignment]
    from workers import logs
    from workers.process import WorkerProcess
    from workers.settings import Settings

    try:
        settings = Settings.read()
        logs.configure(settings.log_level)
        process = WorkerProcess(settings, nursery)
        on_signals(lambda _number: process.stop(), signal.SIGTERM, signal.SIGINT)
        process.run()
    except PipelineError as error:
        folder.remove()
        fail(error)
    folder.remove()
    sys.stderr.flush()
    # Threads that wait on a socket must not delay the end: everything is handed back and closed.
    os._exit(0)


def fail(error: PipelineError) -> NoReturn:
    sys.exit(f"error: {error.code}: {error.message} {error.hint}")


if __name__ == "__main__":
    sys.exit(main())
