"""Faults between the S3 client and a server: injected replies, lost requests, lost replies, broken bodies."""

from __future__ import annotations

import random
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
from urllib3.exceptions import ProtocolError
from urllib3.exceptions import ReadTimeoutError as BodyTimeout

from pipeline.storage.s3 import S3Storage

Hook = Callable[[Any], AWSResponse | None]
"""What becomes of a request: a reply, an exception of the client's, or None for its usual way."""


def inject(storage: S3Storage, hook: Hook) -> None:
    """Have `hook` see every request of this storage, those that the client sends again too."""
    storage._client.meta.events.register("before-send.s3", lambda request, **_: hook(request))


def at_once(patch: pytest.MonkeyPatch) -> None:
    """The client tries again without waiting."""
    patch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)


class Body(BytesIO):
    """The raw side of a reply; `broken` is raised where the content ends."""

    def __init__(self, content: bytes, broken: Exception | None = None) -> None:
        super().__init__(content)
        self._broken = broken

    def read(self, size: int | None = -1, *_: object, **__: object) -> bytes:
        found = super().read(size)
        if self._broken is not None and len(found) < (size if size is not None and size >= 0 else 2**62):
            raise self._broken
        return found

    def stream(self, *_: object, **__: object) -> list[bytes]:
        return [self.read()]

    def release_conn(self) -> None:
        """As of a connection's body."""


def reply(status: int, code: str = "", *, extra: str = "", headers: dict[str, str] | None = None) -> AWSResponse:
    """An error reply with S3's body."""
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message>{extra}</Error>".encode()
    return AWSResponse("http://injected", status, {"content-type": "application/xml", **(headers or {})}, Body(text))


class Faults:
    """A share of all requests meets one of the faults of real life, drawn by a seed."""

    def __init__(self, storage: S3Storage, share: float, seed: int) -> None:
        self._session = storage._client._endpoint.http_session  # type: ignore[attr-defined]
        self._share = share
        self._chance = random.Random(seed)
        self.met: dict[str, int] = {}
        inject(storage, self._hook)

    def _hook(self, request: Any) -> AWSResponse | None:
        if self._chance.random() >= self._share:
            return None
        kind = self._chance.choice(("500", "503", "unreached", "timeout", "lost reply", "truncated", "reset", "stall"))
        self.met[kind] = self.met.get(kind, 0) + 1
        url = request.url.partition("?")[0]
        match kind:
            case "500":
                return reply(500, "InternalError")
            case "503":
                return reply(503, "SlowDown")
            case "unreached":
                raise EndpointConnectionError(endpoint_url=url)
            case "timeout":
                raise ReadTimeoutError(endpoint_url=url)
        answer = self._session.send(request)
        if kind == "lost reply" or request.method != "GET" or answer.status_code >= 300:
            assert answer.content is not None  # read to its end, so that the connection is free again
            raise ConnectionClosedError(endpoint_url=url)
        if request.stream_output or kind == "truncated":
            return broken(answer, kind)
        # The client reads what is no object at once, and makes its own errors of what happens then.
        raise (ConnectionClosedError if kind == "reset" else ReadTimeoutError)(endpoint_url=url)


def broken(answer: AWSResponse, kind: str, keep: float = 0.5) -> AWSResponse:
    """A reply whose body ends too early: silently, by a reset, or in a wait without end."""
    whole = answer.content
    ends: dict[str, Exception | None] = {
        "truncated": None,
        "reset": ProtocolError("Connection broken: reset"),
        "stall": BodyTimeout(None, "http://injected", "Read timed out."),  # type: ignore[arg-type]
    }
    body = Body(whole[: int(len(whole) * keep)], ends[kind])
    return AWSResponse(answer.url, answer.status_code, answer.headers, body)
