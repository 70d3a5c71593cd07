"""Moments as people type them: `never`, `2027-01-31`, `2027-01-31T12:00`, `7d` from now, or milliseconds since 1970."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from pipeline.errors import PipelineError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SPAN = re.compile(r"\+?([0-9]{1,6})([smhdw])")


def milliseconds(text: str, now_ms: int) -> int:
    """The moment in milliseconds since 1970; 0: never. Without a zone it is UTC. Raises `parameter_invalid`."""
    if text == "never":
        return 0
    if span := _SPAN.fullmatch(text):
        return now_ms + int(span[1]) * _UNITS[span[2]] * 1000
    if re.fullmatch(r"[0-9]{11,15}", text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        detail = f"{text!r} is no moment: try 2027-01-31, 2027-01-31T12:00, 7d, 12h or never"
        raise PipelineError("parameter_invalid", detail=detail) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def shown(ms: int | None) -> str:
    """A moment for a person, in UTC; the number itself where no calendar has it."""
    if not ms:
        return ""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(ms)
