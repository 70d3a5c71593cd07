"""Who is at work: every worker process says so every five seconds, and whoever is silent for three times that is gone.

    <prefix>:workers         hash: name → the worker's record as JSON
    <prefix>:workers:seen    sorted set of names by the time (Redis's clock, ms) of their last beat
    <prefix>:builds          sorted set of encoder builds by the time at which somebody who has it was last seen

A beat is one script call. Nothing is decided by the registry that the record of a job does not decide better: a lease
proves that a step's worker lives. It answers how large the fleet is, whether anybody has a build of the encoder, and
what a person wants to see.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import cast

import structlog
from pydantic import TypeAdapter, ValidationError

from pipeline.document import public_url
from pipeline.errors import PipelineError
from pipeline.job import SCHEMA
from workers.redis_client import Client, answering

BEAT_S = 5.0
"""How often a worker says that it is there."""
GONE_S = 3 * BEAT_S
"""A worker that was silent for so long is gone."""
_BUILDS_KEPT_S = 30 * 86_400
_CACHED_S = 5.0

_BEAT = """
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ms - tonumber(ARGV[4]), 'LIMIT', 0, 1000)
if #gone > 0 then
  redis.call('HDEL', KEYS[1], unpack(gone))
  redis.call('ZREM', KEYS[2], unpack(gone))
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], ms, ARGV[1])
if ARGV[3] ~= '' then
  redis.call('ZADD', KEYS[3], ms, ARGV[3])
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', ms - tonumber(ARGV[5]))
end
"""

_ABSENT = """
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZADD', KEYS[1], 'NX', ms, ARGV[1])
return ms - tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]))
"""
"""A build that nobody remembers is missed from the first question on."""

_WORKERS = """
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local seen = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. (ms - tonumber(ARGV[1])), '+inf', 'WITHSCORES')
local found = {}
for at = 1, #seen, 2 do
  local record = redis.call('HGET', KEYS[1], seen[at])
  if record then found[#found + 1] = {record, seen[at + 1]} end
end
return found
"""

log = structlog.get_logger("reelway.registry")


@dataclass(frozen=True, kw_only=True)
class WorkerRecord:
    """One worker process, as it describes itself."""

    name: str
    host: str
    pid: int
    stages: tuple[str, ...]
    slots: int
    """Steps that it does at once."""
    build: str = ""
    """Fingerprint of its encoder; empty until it knows."""
    schema: int = SCHEMA
    """Newest schema of a job's record that it understands."""
    version: str = ""
    """Of the product."""
    storage_url: str = ""
    """Where it stores: for commands that were not told."""
    public_base_url: str = ""
    started_ms: int = 0
    seen_ms: int = 0
    """Its last beat, by Redis's clock."""
    memory_bytes: int | None = None
    """What its machine can give to one step at most; None: it cannot tell."""
    scratch_bytes: int | None = None
    draining: bool = False
    """It takes no further step."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """`<job>/<step>` → why it has not begun here, of the last minute."""


_RECORD = TypeAdapter(WorkerRecord)


class Registry:
    """The workers that are there. Every method raises `PipelineError("queue_unavailable")`."""

    def __init__(self, client: Client, *, prefix: str = "reelway", gone_s: float = GONE_S) -> None:
        self._keys = (f"{prefix}:workers", f"{prefix}:workers:seen", f"{prefix}:builds")
        self._client = client
        self._gone_ms = round(gone_s * 1000)
        self._beat = client.register_script(_BEAT)
        self._absent = client.register_script(_ABSENT)
        self._workers = client.register_script(_WORKERS)
        self._known: tuple[float, Sequence[WorkerRecord]] = (-_CACHED_S, ())

    def beat(self, record: WorkerRecord) -> None:
        """This worker is there, and this is what it is."""
        text = _RECORD.dump_json(record).decode()
        with answering():
            self._beat(self._keys, [record.name, text, record.build, self._gone_ms, _BUILDS_KEPT_S * 1000])

    def leave(self, name: str) -> None:
        """This worker is about to end."""
        with answering(), self._client.pipeline() as pipe:
            pipe.hdel(self._keys[0], name)
            pipe.zrem(self._keys[1], name)
            pipe.execute()

    def workers(self) -> Sequence[WorkerRecord]:
        """Everybody who was seen lately, by name."""
        with answering():
            found = cast("list[tuple[bytes, bytes]]", self._workers(self._keys[:2], [self._gone_ms]))
        records = (_read(text, int(seen)) for text, seen in found)
        return sorted(filter(None, records), key=lambda record: record.name)

    def lately(self) -> Sequence[WorkerRecord]:
        """`workers()`, at most some seconds old: for what is asked often."""
        asked, known = self._known
        if time.monotonic() - asked >= _CACHED_S:
            known = self.workers()
            self._known = (time.monotonic(), known)
        return known

    def slots(self) -> int:
        """About how many steps the fleet does at once; at least 1."""
        return max(1, sum(record.slots for record in self.lately() if not record.draining))

    def check_storage(self, url: str) -> None:
        """Raises `storage_differs` where somebody is at work who stores elsewhere: neither would find what the other
        has stored, and their jobs would fail. A Redis that is away at this moment says nothing."""
        found: Sequence[WorkerRecord] = ()
        with suppress(PipelineError):
            found = self.workers()
        for record in found:
            if record.storage_url and place(record.storage_url) != place(url):
                said = {"theirs": place(record.storage_url), "ours": place(url)}
                raise PipelineError("storage_differs", **said, seconds=round(self._gone_ms / 1000))

    def absent_s(self, build: str) -> float:
        """Seconds since somebody with this build of the encoder was last seen."""
        with answering():
            return cast(int, self._absent([self._keys[2]], [build])) / 1000


def place(storage_url: str) -> str:
    """Where a storage is, without its options: those say how to get there, which need not be the same for everybody."""
    return public_url(storage_url if "://" in storage_url else f"file://{storage_url}").rstrip("/")


def _read(text: bytes, seen_ms: int) -> WorkerRecord | None:
    """None: another release wrote it, in a form that this one cannot read."""
    try:
        return replace(_RECORD.validate_json(text), seen_ms=seen_ms)
    except ValidationError:
        return None


class Presence:
    """Keeps a worker in the registry from `start` to `stop`; `describe` says what it is at the moment."""

    def __init__(self, registry: Registry, describe: Callable[[], WorkerRecord]) -> None:
        self.registry = registry
        self.describe = describe
        self._name = ""
        self._changed = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True, name="presence")
        self._thread.start()

    def changed(self) -> None:
        """Say it now: it is not what it was."""
        self._changed.set()

    def stop(self) -> None:
        """Leave the registry; a Redis that is away forgets the worker by itself."""
        self._stopping.set()
        self._changed.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            with suppress(PipelineError):
                self.registry.leave(self._name)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                record = self.describe()
                self._name = record.name
                self.registry.beat(record)
            except PipelineError as error:
                log.warning("cannot be seen", action="presence.failed", code=error.code)
            except Exception:
                log.exception("cannot be seen", action="presence.failed")
            self._changed.wait(BEAT_S)
            self._changed.clear()  # here: what rings from now on is said by the next beat, or ends the loop
