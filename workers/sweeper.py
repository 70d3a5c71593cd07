"""The sweeper looks after what nobody else looks after: in every worker, over the due index.

A lease that ran out, a retry whose time has come, an ended job whose storage is to be tidied: each stands in the due
index, so nothing can be forgotten; and so do assets that expire, in an index of their own. To ask what is due is to
claim it for some seconds, so the sweepers share the work; whoever is slower than its claim decides beside another, and
the commit of one applies. What goes wrong with one entry is logged and comes back when its claim is over. A ready step
whose ticket was lost is no work at all: the store puts it into the ready index again when it is asked.

To tidy may take minutes, and a lease wants to be judged within seconds: so a second thread tidies, one job after the
other. What does not find room in its line is due again soon, and so is what waits there for long.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from pipeline.conductor import Conductor
from pipeline.errors import PipelineError
from pipeline.job import Job, Ref
from workers.redis_jobs import DUE
from workers.switchboard import Switchboard

BATCH = 100
LOOK_S = 1.0
EXPIRY_LOOK_S = 10.0
"""How often each sweeper asks which assets are to be deleted."""
REFUSED_S = 300.0
"""An asset whose deletion was refused (a clip plays segments of it) is asked about again after so long."""
STOP_S = 2.0
"""A stop waits so long for the entry in hands; cut short, it comes back when its claim is over."""
LINE = 20
"""Ended jobs that wait to be tidied here; the others are left to other sweepers, or come back."""
_BACK_OFF_S = 1.0

log = structlog.get_logger("reelway.sweeper")

Expire = Callable[[str, int], object]
"""Have an asset deleted whose time, in milliseconds since 1970, has come."""


class Sweeper:
    """Asks what is due, lets the conductor decide, tidies storage with `tidy`, and ends what expires with `expire`."""

    def __init__(
        self,
        conductor: Conductor,
        switchboard: Switchboard,
        tidy: Callable[[Job], None],
        expire: Expire | None = None,
    ) -> None:
        self.conductor = conductor
        self.store = conductor.store
        self.switchboard = switchboard
        self.tidy = tidy
        self.expire = expire
        self._expiry_due = 0.0
        self._refused: dict[tuple[str, int], float] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._tidier: threading.Thread | None = None
        self._line: queue.Queue[Job | None] = queue.Queue(LINE)
        self._in_line: set[str] = set()
        """Ids of the jobs in the line, and of the one that is being tidied."""

    def sweep(self) -> int:
        """Look at one batch; returns its size. What ended stands in line then. Raises `queue_unavailable`."""
        refs = self.store.due(BATCH)
        for ref in refs:
            if self._stopping.is_set():
                break
            self._sweep_one(ref)
        return len(refs)

    def sweep_expired(self) -> None:
        """Have the assets deleted whose time has come. Raises `queue_unavailable`."""
        now = time.monotonic()
        if self.expire is None or now < self._expiry_due:
            return
        self._expiry_due = now + EXPIRY_LOOK_S
        self._refused = {what: until for what, until in self._refused.items() if until > now}
        for asset, at_ms in self.store.expired(BATCH + len(self._refused)):
            if (asset, at_ms) not in self._refused:
                self._expire_one(self.expire, asset, at_ms)

    def _expire_one(self, expire: Expire, asset: str, at_ms: int) -> None:
        try:
            expire(asset, at_ms)
        except PipelineError as error:
            if error.code == "queue_unavailable":
                raise
            if error.code in ("asset_not_found", "asset_deleted"):  # it never came to be, or is gone already
                self.store.unexpire(asset, at_ms)
                return
            self._refused[asset, at_ms] = time.monotonic() + REFUSED_S
            log.warning("cannot expire", action="expire.failed", asset=asset, code=error.code)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True, name="sweeper")
        self._thread.start()
        self._tidier = threading.Thread(target=self._run_tidier, daemon=True, name="tidier")
        self._tidier.start()

    def stop(self) -> None:
        """Take no further batch; returns when the entry in hands is done, or when that takes longer than usual."""
        self._stopping.set()
        self.switchboard.ring(DUE)
        with suppress(queue.Full):  # then it is at work, and looks up when it is done
            self._line.put_nowait(None)
        deadline = time.monotonic() + STOP_S
        for thread in (self._thread, self._tidier):
            if thread is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        self._thread = self._tidier = None

    def tidy_next(self, timeout_s: float | None = None) -> bool:
        """Tidy the first in line; waits so long (None: for ever) for one. False: there was none."""
        try:
            ended = self._line.get(timeout=timeout_s)
        except queue.Empty:
            return False
        if ended is None or self._stopping.is_set():
            return False
        try:
            self._tidy_one(ended)
        finally:
            self._in_line.discard(ended.id)
        return True

    def _sweep_one(self, ref: Ref) -> None:
        """One entry; whatever is wrong with it must not keep the others from being looked at."""
        try:
            ended = self.conductor.sweep(ref)
            if ended is not None:
                self._put_in_line(ended)
        except PipelineError as error:
            if error.code == "queue_unavailable":
                raise
            log.warning("cannot sweep", action="sweep.failed", job=ref.job, step=ref.step, code=error.code)
        except Exception:
            log.exception("cannot sweep", action="sweep.failed", job=ref.job, step=ref.step)

    def _put_in_line(self, ended: Job) -> None:
        """Unless it stands there, or the line is full."""
        if ended.id in self._in_line:
            return
        self._in_line.add(ended.id)
        try:
            self._line.put_nowait(ended)
        except queue.Full:
            self._in_line.discard(ended.id)

    def _tidy_one(self, ended: Job) -> None:
        """Whatever goes wrong: it is due again when its claim is over."""
        try:
            self.tidy(ended)
            self.conductor.tidied(ended)
        except PipelineError as error:
            log.warning("cannot tidy", action="tidy.failed", job=ended.id, code=error.code)
        except Exception:
            log.exception("cannot tidy", action="tidy.failed", job=ended.id)

    def _run_tidier(self) -> None:
        while not self._stopping.is_set():
            self.tidy_next()

    def _run(self) -> None:
        while not self._stopping.is_set():
            seen = self.switchboard.heard(DUE)
            try:
                swept = self.sweep()
                self.sweep_expired()
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
