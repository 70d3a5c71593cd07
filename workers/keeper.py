"""Housekeeping: what the whole fleet needs done now and then, by one of its workers at a time.

Every worker offers itself; who gets a task's turn in Redis does it, and the turn comes round again when its time is
over, whether it was done or its worker died. Each task is harmless when it is done twice.

    <prefix>:turn:<task>   who has it, until the next turn
    <prefix>:archived      id of the last entry of the event stream that stands in the archive
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import structlog

from pipeline import archive
from pipeline.errors import PipelineError
from pipeline.janitor import Janitor
from pipeline.ports import Clock, Storage
from workers.redis_client import Client, answering
from workers.redis_jobs import RedisJobStore

LOOK_S = 5.0
BATCH = 1000
"""Events of one object of the archive, at most."""
ARCHIVE_S = 60.0
"""An event stands in the archive about so long after it happened."""
TRIM_S = 600.0
TIGHT = 0.7
"""A Redis that uses more of its memory than this keeps fewer events; the doorman refuses jobs somewhat later."""
TIGHT_KEEP_MS = 3_600_000
JANITOR_S = 6 * 3600.0
"""The janitor reads the whole listing of the storage, and what it looks for is a day old."""

log = structlog.get_logger("reelway.keeper")


@dataclass(frozen=True, kw_only=True)
class Chore:
    """Something to be done every so often, somewhere in the fleet."""

    every_s: float
    do: Callable[[], int]
    """Returns how many things it changed."""


class Keeper:
    """Takes turns at `chores`, by name."""

    def __init__(self, client: Client, worker: str, chores: Mapping[str, Chore], *, prefix: str = "reelway") -> None:
        self.client = client
        self.worker = worker
        self.chores = chores
        self.prefix = prefix
        self._looked: dict[str, float] = {}
        self._stopping = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True, name="keeper").start()

    def stop(self) -> None:
        """Begin no further chore. Nobody waits for one under way: it may take long, and may be cut at any moment."""
        self._stopping.set()

    def keep(self) -> None:
        """Do every chore whose turn is to be had. Raises `queue_unavailable`."""
        for name, chore in self.chores.items():
            if not self._stopping.is_set() and self._turn(name, chore):
                self._do(name, chore)

    def _turn(self, name: str, chore: Chore) -> bool:
        """Ask Redis no oftener than the turn comes round."""
        now = time.monotonic()
        if now - self._looked.get(name, -chore.every_s) < chore.every_s:
            return False
        key, every_ms = f"{self.prefix}:turn:{name}", round(chore.every_s * 1000)
        with answering():
            turn = bool(self.client.set(key, self.worker, nx=True, px=every_ms))
        self._looked[name] = now
        return turn

    def _do(self, name: str, chore: Chore) -> None:
        try:
            changed = chore.do()
        except PipelineError as error:
            log.warning("chore failed", action="chore.failed", chore=name, code=error.code, error=str(error))
        except Exception:
            log.exception("chore failed", action="chore.failed", chore=name, code="stage_failed")
        else:
            if changed:
                log.info("chore done", action="chore.done", chore=name, changed=changed)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.keep()
            except PipelineError as error:
                log.warning("cannot keep", action="keeper.failed", code=error.code)
            self._stopping.wait(LOOK_S)


# -- the chores -------------------------------------------------------------------------------------------------------


def archive_events(store: RedisJobStore, storage: Storage) -> int:
    """Write what is new on the event stream to the archive, and note how far it goes. Returns the number of events.

    Two that do it at once write the same object, create-only, and the loser goes on behind what the winner wrote.
    """
    cursor, written = f"{store.prefix}:archived", 0
    while True:
        with answering():
            known = cast(bytes | None, store.client.get(cursor))
        last = known.decode() if known else archive.last(storage) or "0"
        with answering():
            found: Any = store.client.xrange(store.events, min=f"({last}", count=BATCH)
        if not found:
            return written
        end = archive.write(storage, [_entry(*each) for each in found])
        with answering():
            store.client.set(cursor, end)
        written += len(found)


def _entry(entry: bytes, fields: Mapping[bytes, bytes]) -> archive.Entry:
    """What nobody can read is kept as a text all the same: one foreign entry must not stop the archive."""
    return entry.decode(), fields.get(b"ce", b"").decode(errors="replace")


def trim_events(store: RedisJobStore, keep_ms: int, now_ms: int) -> int:
    """Drop events from the stream that are older than `keep_ms` and stand in the archive.

    Where Redis is nearly full, an hour is enough: it refuses new jobs, and the archive has them all.
    """
    if store.pressure() > TIGHT:
        keep_ms = min(keep_ms, TIGHT_KEEP_MS)
    with answering():
        archived = cast(bytes | None, store.client.get(f"{store.prefix}:archived")) or b"0"
        end = min(int(archived.partition(b"-")[0]), now_ms - keep_ms)
        return store.client.xtrim(store.events, minid=end, approximate=False) if end > 0 else 0


def sweep_storage(store: RedisJobStore, storage: Storage, clock: Clock) -> int:
    """Remove what has no owner. Returns the number of findings; each is a line in the log."""
    count = 0
    for finding in Janitor(storage, store, open_jobs_of(store), clock).sweep():
        log.info(
            "swept",
            action="janitor.swept",
            reason=finding.reason.value,
            asset=finding.asset,
            objects=finding.objects,
            bytes=finding.bytes,
        )
        count += 1
    return count


def open_jobs_of(store: RedisJobStore) -> Callable[[str], bool]:
    """Whether an asset has a job that has not ended."""

    def has_open(asset: str) -> bool:
        jobs = (store.job(job_id) for job_id in store.jobs(asset, open_only=True))
        return any(job is not None and not job.status.ended for job in jobs)

    return has_open


def chores(store: RedisJobStore, storage: Storage, clock: Clock, *, keep_events_s: float) -> Mapping[str, Chore]:
    """What a fleet needs done. `keep_events_s`: how long the stream itself holds events; the archive holds them on."""
    return {
        "archive": Chore(every_s=ARCHIVE_S, do=lambda: archive_events(store, storage)),
        "trim": Chore(every_s=TRIM_S, do=lambda: trim_events(store, round(keep_events_s * 1000), clock.now_ms())),
        "janitor": Chore(every_s=JANITOR_S, do=lambda: sweep_storage(store, storage, clock)),
    }
