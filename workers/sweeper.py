"""The sweeper looks after what nobody else looks after: in every worker, over the due index.

A lease that ran out, a retry whose time has come, an ended job whose storage is to be tidied: each stands in the due
index, so nothing can be forgotten. To ask what is due is to claim it for some seconds, so the sweepers share the work;
whoever is slower than its claim decides beside another, and the commit of one applies. What goes wrong with one entry
is logged and comes back when its claim is over. A ready step whose ticket was lost is no work at all: the store puts it
into the ready index again when it is asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from pipeline.conductor import Conductor
from pipeline.errors import PipelineError
from pipeline.job import Job, Ref
from workers.redis_jobs import DUE
from workers.switchboard import Switchboard

BATCH = 100
LOOK_S = 1.0
_BACK_OFF_S = 1.0

log = structlog.get_logger("reelway.sweeper")


class Sweeper:
    """Asks what is due, lets the conductor decide, and tidies the storage of ended jobs with `tidy`."""

    def __init__(self, conductor: Conductor, switchboard: Switchboard, tidy: Callable[[Job], None]) -> None:
        self.conductor = conductor
        self.store = conductor.store
        self.switchboard = switchboard
        self.tidy = tidy
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def sweep(self) -> int:
        """Look at one batch; returns its size. Raises `queue_unavailable`."""
        refs = self.store.due(BATCH)
        for ref in refs:
            if self._stopping.is_set():
                break
            self._sweep_one(ref)
        return len(refs)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True, name="sweeper")
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self.switchboard.ring(DUE)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _sweep_one(self, ref: Ref) -> None:
        """One entry; whatever is wrong with it must not keep the others from being looked at."""
        try:
            ended = self.conductor.sweep(ref)
            if ended is not None:
                self.tidy(ended)
                self.conductor.tidied(ended)
        except PipelineError as error:
            if error.code == "queue_unavailable":
                raise
            log.warning("cannot sweep", action="sweep.failed", job=ref.job, step=ref.step, code=error.code)
        except Exception:
            log.exception("cannot sweep", action="sweep.failed", job=ref.job, step=ref.step)

    def _run(self) -> None:
        while not self._stopping.is_set():
            seen = self.switchboard.heard(DUE)
            try:
                swept = self.sweep()
            except PipelineError as error:
                log.warning("cannot sweep", action="sweep.failed", code=error.code, error=str(error))
                self._stopping.wait(_BACK_OFF_S)
                continue
            except Exception:
                log.exception("cannot sweep", action="sweep.failed")
                self._stopping.wait(_BACK_OFF_S)
                continue
            if swept < BATCH:
                self.switchboard.wait(seen, LOOK_S, DUE)
