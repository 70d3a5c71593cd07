"""Times in a video as people type and read them: seconds, or `[hh:]mm:ss[.mmm]`."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import Annotated

import typer

from pipeline.errors import PipelineError
from workers.console import usage

Start = Annotated[
    str | None, typer.Option("--start", metavar="TIME", help="First moment that is shown: 12.5 or 1:02:03.5.")
]
End = Annotated[str | None, typer.Option("--end", metavar="TIME", help="First moment that is no longer shown.")]

_CLOCK = re.compile(r"(?P<sign>[-+]?)(?:(?P<hours>[0-9]+):)?(?P<minutes>[0-9]+):(?P<seconds>[0-9]+(?:\.[0-9]+)?)")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+|nan|inf|infinity)", re.IGNORECASE)


def asked(start: str | None, end: str | None) -> dict[str, float | None]:
    """What the two options say, by the names that they have in a request; a wrong one ends the command (exit 2)."""
    given = {"start_time": ("--start", start), "end_time": ("--end", end)}
    try:
        return {field: None if text is None else seconds(text, name) for field, (name, text) in given.items()}
    except PipelineError as error:
        usage(error)


def seconds(text: str, name: str) -> float:
    """The time in seconds; whether it lies in the video is not asked here, so it may be negative, or no number.

    `name` is the option's. Raises `parameter_invalid`.
    """
    said = text.strip()
    if _NUMBER.fullmatch(said):
        return float(said)
    if (found := _CLOCK.fullmatch(said)) is None or _beyond_the_clock(found):
        detail = f"{name} {text!r} is no time: try 12.5, 1:23.5 or 1:02:03"
        raise PipelineError("parameter_invalid", detail=detail)
    whole = 3600 * int(found["hours"] or 0) + 60 * int(found["minutes"]) + Decimal(found["seconds"])
    return float(-whole if found["sign"] == "-" else whole)


def _beyond_the_clock(found: re.Match[str]) -> bool:
    """No minute has 60 seconds, and no hour 60 minutes."""
    return Decimal(found["seconds"]) >= 60 or (found["hours"] is not None and int(found["minutes"]) >= 60)


def shown(time: float | Fraction) -> str:
    """`0:05.000`, `1:02:03.500`: to the millisecond."""
    ms = round(time * 1000)
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02d}" if hours else str(minutes)
    return f"{clock}:{ms // 1000:02d}.{ms % 1000:03d}"
