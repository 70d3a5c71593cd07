"""How far each step is, on Redis: state that may be lost, on a stream of its own that never evicts facts.

<prefix>:progress:<job>   hash: fraction by step id; expires with the job
<prefix>:progress         stream: job, asset, step, fraction, at (ms); at most one entry a second and job
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import redis
import structlog

from pipeline.job import Ref
from workers.redis_client import Client, answering

MAX_ENTRIES = 10_000
QUIET_S = 5.0
"""After a Redis that did not answer, reports are dropped for so long: progress never makes the work wait."""
OWN_PACE_S = 0.5
"""A process reports a step no oftener than this, however fast it ticks."""

log = structlog.get_logger("reelway.progress")


class RedisProgress:
    """`ProgressBoard` on Redis. Give it a client with a short timeout: a report that cannot be made is dropped."""

    def __init__(self, client: Client, *, prefix: str = "reelway", keep_s: int = 7 * 86_400) -> None:
        self.client = client
        self.prefix = prefix
        self.keep_s = keep_s
        self._report = client.register_script((Path(__file__).parent / "lua" / "report.lua").read_text())
        self._lock = threading.Lock()
        self._last: dict[Ref, float] = {}
        self._quiet_until = 0.0

    def report(self, ref: Ref, fraction: float) -> None:
        if not self._may_speak(ref):
            return
        job = f"{self.prefix}:progress:{ref.job}"
        keys = [job, f"{job}:told", f"{self.prefix}:progress", f"{self.prefix}:job:{ref.job}"]
        at = time.time_ns() // 1_000_000
        try:
            self._report(keys=keys, args=[ref.job, ref.step, f"{fraction:.4f}", at, self.keep_s, MAX_ENTRIES])
        except redis.RedisError as error:
            self._quiet_until = time.monotonic() + QUIET_S
            log.debug("progress dropped", action="progress.dropped", error=str(error))

    def fractions(self, job_id: str) -> Mapping[str, float]:
        with answering():
            fractions = cast(dict[bytes, bytes], self.client.hgetall(f"{self.prefix}:progress:{job_id}"))
        return {step.decode(): float(fraction) for step, fraction in fractions.items()}

    def _may_speak(self, ref: Ref) -> bool:
        with self._lock:
            moment = time.monotonic()
            if moment < self._quiet_until or moment - self._last.get(ref, -OWN_PACE_S) < OWN_PACE_S:
                return False
            self._last[ref] = moment
            while len(self._last) > 1000:
                del self._last[next(iter(self._last))]
            return True
