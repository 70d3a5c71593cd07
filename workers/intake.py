"""The intake takes requests off the stream `reelway:requests`: in every worker, as one consumer group.

Any language can put one there: an entry with the field `request`, which holds the JSON; a storage's notification that
an object was written (`pipeline.notifications`) is one for each object that a rule names. Each entry ends in one of two
ways, `asset.accepted` (or the fact that was asked for) or `request.refused`, and is then deleted from the stream:
nothing that anybody writes there stops the line. A worker that dies with an entry in its hands loses nothing: another
one takes it over after `RECLAIM_S`, and a request that is handled twice is handled once, by its id. While the world
around fails (Redis, storage) an entry waits, and those behind it go on. So does a notification while there is no room
for what it asks for: whoever sends one reads no answer, and would not send it again.

All workers of a fleet are one member of the group: entries are taken over by age alone, and no dead member is left.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import redis
import structlog
from pydantic import ValidationError

from pipeline.conductor import Conductor, backoff_s, refusal
from pipeline.errors import PipelineError
from pipeline.notifications import News, SourceRule, news, wish
from pipeline.requests import STREAM, BatchRequest, Request, parse_request
from workers.in_hands import held, hold
from workers.redis_client import Client, answering
from workers.sender import Sender, asset_of, sender_of

GROUP = "intake"
MEMBER = b"fleet"
"""The one member of the group."""
FIELD = b"request"
"""The entry's field that holds the JSON."""
NO_ASSET = "-"
"""Subject of a refusal where no asset can be read from the request; no asset id has this form."""
MAX_BYTES = 64 * 1024
"""Longest request."""
MAX_BATCH_BYTES = 4 * 1024**2
"""Longest `asset.batch`."""
BLOCK_S = 1.0
"""One read waits so long for news: the longest that a stop has to wait, and an idle worker's only traffic here."""
STOP_S = 2.0
"""A stop waits so long for the request in hands; cut short, it stays on the stream, and another worker takes it."""
RECLAIM_S = 30.0
"""Who has an entry in hands for so long without a word is dead."""
HOLD_S = RECLAIM_S / 3
"""Who has entries in hands says so as often."""
TRIES = 3
"""A request that meets an error that nobody knows is tried so often before it is refused."""
MAX_DELIVERIES = 10
"""A request that so many workers took and did not survive is refused unread."""
MAX_LATER = 100
"""With so many entries waiting for the world around, nothing new is taken."""
_AROUND = frozenset({"queue_unavailable", "storage_unavailable", "storage_full", "storage_forbidden"})
"""Errors that are not the request's fault: the entry waits."""
ROOM_S = 24 * 3600.0
"""A notification waits so long for room, from when it came; then what it asks for is refused."""
NO_RULES: Mapping[str, Sequence[SourceRule]] = {}
_BEGINNING = b"0-0"
_GROUP_LOST = re.compile(r"\b(NOGROUP|UNBLOCKED)\b")
"""Replies where the stream or its group is no more; the second one is what a read hears that waits meanwhile."""
_BACK_OFF_S = 1.0
_PATIENCE = 3
"""Power of two of the longest wait between two tries while the world around fails: 8 s."""
_LONGEST_TEXT = 300

log = structlog.get_logger("reelway.intake")


class Door(Protocol):
    """Who decides about requests: `pipeline.doorman.Doorman`."""

    def handle(self, request: Request) -> tuple[str, ...]:
        """Do what is asked; ids of the jobs that it became or touched. Raises `PipelineError` when it is refused."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One entry of the stream in our hands."""

    id: bytes
    body: bytes | None
    """The JSON; None: the entry has no such field."""


@dataclass(kw_only=True)
class _Waiting:
    """An entry that waits for the world around."""

    entry: _Entry
    due: float
    """Monotonic seconds."""
    tries: int = 1


class Intake:
    """Hands requests to `doorman`, one at a time, and tells by `conductor` which were refused."""

    def __init__(
        self,
        client: Client,
        doorman: Door,
        conductor: Conductor,
        *,
        rules: Mapping[str, Sequence[SourceRule]] = NO_RULES,
        allow: Callable[[str], bool] = lambda _url: True,
        stream: str = STREAM,
    ) -> None:
        """`rules`: what is made of objects that storages tell of, by organization; `allow`: whether one may be read."""
        self.client: Any = client
        self.doorman = doorman
        self.conductor = conductor
        self.rules = rules
        self.allow = allow
        self.stream = stream
        self._later: dict[bytes, _Waiting] = {}
        self._joined = False
        self._reclaim_at = 0.0
        self._seen = _BEGINNING
        """How far the round has come that looks for entries to take over."""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True, name="intake")
        self._thread.start()

    def stop(self) -> None:
        """Take nothing more; returns when the request in hands is answered, or when that takes longer than usual."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_S)
            self._thread = None

    def step(self, block_s: float = 0.0) -> int:
        """Handle what is due, left behind by the dead, or new (waits up to `block_s`); returns how many entries.

        Raises `queue_unavailable` where Redis does not answer.
        """
        with answering():
            try:
                return self._step(block_s)
            except redis.ResponseError as error:
                if not _GROUP_LOST.search(str(error)):
                    raise
        # Redis lost the group, and with it perhaps the stream: what is on it now was not handled.
        log.warning("the group is gone", action="intake.group_lost")
        self._joined = False
        return 0

    # -- where entries come from --------------------------------------------------------------------------------------

    def _step(self, block_s: float) -> int:
        self._join()
        taken = self._take_due() + self._take_over()
        return taken + self._take_new(0.0 if taken else block_s)

    def _join(self) -> None:
        if self._joined:
            return
        try:
            # From the beginning: handled entries are deleted, so everything there is still to be handled.
            self.client.xgroup_create(self.stream, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):  # the group is there already
                raise
        self._joined = True

    def _take_new(self, block_s: float) -> int:
        """The next entry of the stream."""
        if len(self._later) >= MAX_LATER:
            self._stopping.wait(block_s)
            return 0
        until = min((waiting.due for waiting in self._later.values()), default=None)
        wait_s = block_s if until is None else max(0.0, min(block_s, until - time.monotonic()))
        block_ms = max(1, round(wait_s * 1000)) if block_s else None
        reply = self.client.xreadgroup(GROUP, MEMBER, {self.stream: ">"}, count=1, block=block_ms)
        entries = [_entry(id_, fields) for _stream, found in reply or () for id_, fields in found]
        with self._held(entries):
            for entry in entries:
                self._take(entry)
        return len(entries)

    def _take_due(self) -> int:
        """Entries that waited for the world around, and whose time has come."""
        due = [waiting for waiting in self._later.values() if waiting.due <= time.monotonic()]
        with self._held([waiting.entry for waiting in due]):
            for waiting in due:
                if hold(self.client, self.stream, GROUP, MEMBER, [waiting.entry.id]):
                    self._take(waiting.entry)
                else:  # we were silent for so long that another worker took it over, and it has answered
                    self._later.pop(waiting.entry.id, None)
        return len(due)

    def _take_over(self) -> int:
        """Entries that a worker took and did not live to answer, or left until there is room."""
        if time.monotonic() < self._reclaim_at:
            return 0
        reply = self.client.xautoclaim(self.stream, GROUP, MEMBER, round(RECLAIM_S * 1000), self._seen, count=10)
        claimed = [_entry(id_, fields) for id_, fields in reply[1] if id_ is not None]
        self._seen = reply[0]
        if self._seen == _BEGINNING:
            self._reclaim_at = time.monotonic() + RECLAIM_S / 3 * random.uniform(0.7, 1.3)  # noqa: S311
        with self._held(claimed):
            for entry in claimed:
                if entry.id not in self._later:
                    self._take(entry, deliveries=self._deliveries(entry))
        return len(claimed)

    def _held(self, entries: Sequence[_Entry]) -> AbstractContextManager[None]:
        """While one is answered, the others and what waits are in hands too: a storage may be silent for minutes."""
        ids = [*(entry.id for entry in entries), *self._later]
        return held(self.client, self.stream, GROUP, MEMBER, ids, every_s=HOLD_S)

    def _deliveries(self, entry: _Entry) -> int:
        """How many workers have had it, us among them."""
        pending = self.client.xpending_range(self.stream, GROUP, entry.id, entry.id, 1)
        return int(pending[0]["times_delivered"]) if pending else 1

    # -- one entry ----------------------------------------------------------------------------------------------------

    def _take(self, entry: _Entry, deliveries: int = 1) -> None:
        """Answer it and delete it, or keep it for later."""
        try:
            self._answer(entry, deliveries)
        except PipelineError as error:
            if error.code == "schema_newer":  # a worker of the newer release takes it over
                log.warning("left to others", action="request.left", entry=entry.id.decode(), code=error.code)
                return
            if error.code in _AROUND:
                self._keep(entry, error)
            else:
                self._leave(entry, error)
            return
        self._later.pop(entry.id, None)
        with self.client.pipeline(transaction=True) as batch:
            batch.xack(self.stream, GROUP, entry.id)
            batch.xdel(self.stream, entry.id)
            batch.execute()

    def _answer(self, entry: _Entry, deliveries: int) -> None:
        """Have it accepted, or refuse it. Raises an error of the world around, or that there is no room."""
        try:
            if deliveries > MAX_DELIVERIES:
                raise PipelineError("request_failed", reason=f"{deliveries - 1} workers took it and none answered")
            found = _told_of(entry)
            if found is None:
                self._accept(_opened(entry))
        except PipelineError as error:
            if _waits(error):
                raise
            self._refuse(entry, error)
            return
        if found is not None:
            self._answer_news(entry, found)

    def _answer_news(self, entry: _Entry, found: News) -> None:
        """Of a notification's objects each is accepted or refused for itself."""
        refused: list[tuple[PipelineError, Sender | None]] = [(found.unreadable, None)] if found.unreadable else []
        no_room = None
        for request in self._wishes(entry, found):
            try:
                self._accept(request)
            except PipelineError as error:
                if _waits(error):
                    raise
                if error.retryable and not _long_ago(entry):
                    no_room = error
                else:
                    refused.append((error, _sender(request)))
        if no_room is not None:  # what is refused is told once: with the last try
            raise no_room
        for why, sender in refused:
            self._refuse(entry, why, sender)

    def _accept(self, request: Request) -> None:
        jobs = self._handle(request)
        log.info("request accepted", action="request.accepted", type=request.type, jobs=list(jobs))

    def _wishes(self, entry: _Entry, found: News) -> list[Request]:
        """What is asked for by a notification; what no rule names is ignored."""
        wishes: list[Request] = []
        for arrival in found.arrivals:
            request = wish(arrival, self.rules)
            if request is not None and self.allow(arrival.url):
                wishes.append(request)
            else:
                reason = "no rule names it" if request is None else "no source may come from there"
                log.info("object ignored", action="notification.ignored", url=arrival.url, reason=reason)
        if not found.arrivals and found.unreadable is None:
            log.info("nothing arrived", action="notification.ignored", entry=entry.id.decode())
        return wishes

    def _handle(self, request: Request) -> tuple[str, ...]:
        """What the doorman says; an error that nobody knows may be a bad moment, so it is asked again."""
        for attempt in range(1, TRIES + 1):
            try:
                return self.doorman.handle(request)
            except PipelineError:
                raise
            except Exception as error:
                log.exception("cannot handle", action="request.failed", request=request.id, attempt=attempt)
                reason = type(error).__name__
            self._stopping.wait(0.1 * attempt)
        raise PipelineError("request_failed", reason=reason)

    def _refuse(self, entry: _Entry, error: PipelineError, sender: Sender | None = None) -> None:
        sender = sender or sender_of(entry.body if len(entry.body or b"") <= MAX_BATCH_BYTES else None)
        id_ = entry.id.decode()
        log.warning("request refused", action="request.refused", request=sender.request, entry=id_, code=error.code)
        self.conductor.refuse(
            sender.asset or asset_of(error) or NO_ASSET,
            error,
            # Who sent something without a readable id knows the id of its entry.
            request=sender.request or id_,
            entry=id_,
            organization=sender.organization,
            meta=sender.meta,
        )

    def _keep(self, entry: _Entry, error: PipelineError) -> None:
        waiting = self._later.setdefault(entry.id, _Waiting(entry=entry, due=0.0, tries=0))
        wait = backoff_s(min(waiting.tries, _PATIENCE), random.random())  # noqa: S311
        waiting.tries += 1
        waiting.due = time.monotonic() + wait
        log.warning("request waits", action="request.waits", entry=entry.id.decode(), code=error.code, seconds=wait)

    def _leave(self, entry: _Entry, error: PipelineError) -> None:
        """Left on the stream until some worker takes it over; that counts no delivery.

        It is not among those that wait in hands: any number of them may wait for room, and nothing new waits for them.
        """
        self._later.pop(entry.id, None)
        self.client.xclaim(self.stream, GROUP, MEMBER, 0, [entry.id], retrycount=0, justid=True)
        log.info("no room", action="request.waits", entry=entry.id.decode(), code=error.code, seconds=RECLAIM_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.step(BLOCK_S)
            except PipelineError as error:
                log.warning("cannot take requests", action="intake.failed", code=error.code, error=str(error))
                self._stopping.wait(_BACK_OFF_S)
            except Exception:
                log.exception("cannot take requests", action="intake.failed")
                self._stopping.wait(_BACK_OFF_S)


def _entry(id_: bytes, fields: Mapping[bytes, bytes] | None) -> _Entry:
    return _Entry(id=id_, body=(fields or {}).get(FIELD))


def _waits(error: PipelineError) -> bool:
    """Not the request's fault: the whole entry waits."""
    return error.code in _AROUND or error.code == "schema_newer"


def _long_ago(entry: _Entry) -> bool:
    """An entry's id begins with when it came."""
    return time.time() - int(entry.id.partition(b"-")[0]) / 1000 > ROOM_S


def _told_of(entry: _Entry) -> News | None:
    """What a notification tells of; None where the entry is none."""
    if entry.body is None or len(entry.body) > MAX_BATCH_BYTES:
        return None
    try:
        said = json.loads(entry.body)
    except (ValueError, RecursionError):
        return None
    return news(said)


def _sender(request: Request) -> Sender:
    return Sender(request=request.id, asset=getattr(request, "asset_id", None), organization=request.organization)


def _opened(entry: _Entry) -> Request:
    """The request. Raises `PipelineError` when it is none."""
    if entry.body is None:
        raise PipelineError("parameter_not_provided", parameter=FIELD.decode())
    _check_size(entry.body, MAX_BATCH_BYTES)
    try:
        request = _parsed(entry.body, entry.id.decode())
    except ValidationError as error:
        raise _short(refusal(error)) from error
    if not isinstance(request, BatchRequest):
        _check_size(entry.body, MAX_BYTES)
    return request


def _parsed(body: bytes, entry: str) -> Request:
    """Without an id it has that of its entry: whoever handles it a second time then sees that it is the same."""
    request = parse_request(body)
    said = json.loads(body)
    return request if said.get("id") is not None else parse_request(json.dumps({**said, "id": entry}))


def _check_size(body: bytes, limit: int) -> None:
    if len(body) > limit:
        detail = f"it has {len(body)} bytes; at most {limit} are taken"
        raise PipelineError("parameter_invalid", detail=detail)


def _short(error: PipelineError) -> PipelineError:
    """The names of wrong fields are the sender's: they may be of any length."""
    if error.code != "parameter_invalid":
        return error
    detail = str(error.params.get("detail", ""))
    return PipelineError(error.code, detail=detail if len(detail) <= _LONGEST_TEXT else f"{detail[:_LONGEST_TEXT]}…")
