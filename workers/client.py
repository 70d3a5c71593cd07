"""The Python client of a fleet: it sends requests and hears what became of them. It needs Redis, and nothing else.

A request's `id` is its idempotency key: whoever lost an answer sends the same request again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline import requests
from pipeline.conductor import refusal
from pipeline.errors import PipelineError
from pipeline.events import STREAM, Event
from pipeline.notifications import Arrival, arrivals
from pipeline.requests import BatchRequest, Request, jobs_of
from workers.redis_client import answering, connect
from workers.redis_jobs import RedisJobStore

FIELD = "request"
"""Field of an entry of the requests stream."""
LOOK_S = 1.0
"""One read waits so long for news; then the record itself is asked."""
_PAGE = 500

_REQUEST: TypeAdapter[Request] = TypeAdapter(Request)


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A request that the fleet has taken."""

    request: str
    jobs: tuple[str, ...]
    """Ids of the jobs that it became, in the order of a batch."""


class Client:
    """Talks to the fleet whose Redis this is. It connects when it is used; every thread may use it.

    Every method raises `PipelineError("queue_unavailable")` where Redis does not answer.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis: Any = connect(redis_url)
        self._store = RedisJobStore(self._redis)

    def send(self, request: Request | Mapping[str, Any]) -> str:
        """Put a request on the stream and return the id of its entry; nobody may have read it yet.

        Raises `parameter_invalid` where it is none.
        """
        body = _packed(_checked(request))
        with answering():
            return str(self._redis.xadd(requests.STREAM, {FIELD: body}).decode())

    def pass_on(self, notification: Mapping[str, Any]) -> tuple[Arrival, ...]:
        """Put a storage's notification on the stream; returns the objects that it tells of, with the ids that they will
        have if a rule of the fleet names them. Raises `parameter_invalid` where it is none."""
        found = arrivals(notification)
        if found is None:
            raise PipelineError("parameter_invalid", detail="it is no notification of an object storage")
        with answering():
            self._redis.xadd(requests.STREAM, {FIELD: json.dumps(notification)})
        return found

    def submit(self, request: Request | Mapping[str, Any], wait_s: float = 10.0) -> Accepted:
        """Send a request that becomes a job (or several) and wait until the fleet has accepted it.

        Raises the error with which it was refused, or `request_unanswered` when nobody took it in time: it waits on
        the stream then, and sending it again with the same id is safe.
        """
        wish = _checked(request)
        jobs = jobs_of(wish)
        if not jobs:
            raise PipelineError("parameter_invalid", detail=f"{wish.type} becomes no job: send it")
        deadline = time.monotonic() + wait_s
        cursor = self._end()
        self.send(wish)
        for event in self._follow(cursor, {wish.id, *jobs}, deadline):
            if event is None:
                if all(self._store.job(job) is not None for job in jobs):  # accepted before, or its event is missed
                    return Accepted(request=wish.id, jobs=jobs)
            elif event.name == "request.refused" and event.data.get("request") == wish.id:
                raise PipelineError.from_document(event.data["error"])
            elif event.correlationid in jobs:
                return Accepted(request=wish.id, jobs=jobs)
        raise PipelineError("request_unanswered", request=wish.id, seconds=wait_s)

    def wait(self, job: str, timeout_s: float | None = None) -> Event:
        """The event with which a job ended: `asset.ready`, `asset.failed`, `asset.cancelled`, `asset.deleted` …

        It waits for it, and finds it where the job has ended already. Raises `TimeoutError`, and `cursor_expired` where
        the job ended so long ago that the stream does not have the event any more.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        cursor = self._end()
        for _news in self._follow(cursor, {job}, deadline):
            record = self._store.job(job)
            if record is not None and record.status.ended:
                return self._last_word(job)
        raise TimeoutError(f"job {job} has not ended")

    def told(self, job: str, name: str) -> Event:
        """The newest event of this name that came from a job: `trim.previewed`, `export.completed` …

        Raises `cursor_expired` where the stream has none (any more).
        """
        for event in self._backwards(job):
            if event.name == name:
                return event
        raise PipelineError("cursor_expired", cursor=f"job {job}")

    # -- the stream of events -----------------------------------------------------------------------------------------

    def _follow(self, cursor: bytes, ids: set[str], deadline: float | None) -> Iterator[Event | None]:
        """What is told about these requests and jobs after `cursor`; None at first, and when it was quiet for a while.

        Ends at the deadline.
        """
        wanted = [id_.encode() for id_ in ids]
        yield None
        while deadline is None or time.monotonic() < deadline:
            left = LOOK_S if deadline is None else min(LOOK_S, deadline - time.monotonic())
            with answering():
                reply = self._redis.xread({STREAM: cursor}, count=_PAGE, block=max(1, round(left * 1000)))
            if not reply:
                yield None
            for _stream, entries in reply or ():
                for entry, fields in entries:
                    cursor = entry
                    if any(id_ in fields.get(b"ce", b"") for id_ in wanted):
                        yield Event.model_validate_json(fields[b"ce"])

    def _end(self) -> bytes:
        with answering():
            newest = self._redis.xrevrange(STREAM, count=1)
        return bytes(newest[0][0]) if newest else b"0"

    def _last_word(self, job: str) -> Event:
        """The last event of an ended job that says more than that the document changed."""
        only = None
        for event in self._backwards(job):
            if event.name.startswith("asset.") and event.name != "asset.updated":
                return event
            only = only or (event if event.name == "asset.updated" else None)
        if only is None:
            raise PipelineError("cursor_expired", cursor=f"job {job}")
        return only

    def _backwards(self, job: str) -> Iterator[Event]:
        """Every event of a job that the stream still has, the newest first."""
        before, page = "+", [None] * _PAGE
        while len(page) == _PAGE:
            with answering():
                page = self._redis.xrevrange(STREAM, max=before, count=_PAGE)
            for entry, fields in page:
                before = f"({entry.decode()}"
                event = _of(job, fields.get(b"ce", b""))
                if event is not None:
                    yield event


def _of(job: str, body: bytes) -> Event | None:
    """The event, if it comes from this job."""
    if job.encode() not in body:
        return None
    event = Event.model_validate_json(body)
    return event if event.correlationid == job else None


def _checked(request: Request | Mapping[str, Any]) -> Request:
    if not isinstance(request, Mapping):
        return request
    try:
        return _REQUEST.validate_python(request)
    except ValidationError as error:
        raise refusal(error) from error


def _packed(request: Request) -> str:
    """As JSON without what is left at its default: a fleet that does not know a newer field then takes it as well."""
    said = request.model_dump(mode="json", exclude_defaults=True)
    if isinstance(request, BatchRequest):
        said["requests"] = [json.loads(_packed(each)) for each in request.requests]
    return json.dumps({"type": request.type, **said}, ensure_ascii=False)
