"""What part of an asset a request may ask for, and what it means on the source's timeline. Settled at the door.

A caller counts on the asset's own timeline, which no trim moves: that of the source, or of a clip the part of it that
the clip was made of. Raises `trim_range_invalid`, which tells what would be taken.
"""

from __future__ import annotations

import math
from fractions import Fraction

from pipeline.errors import PipelineError, Value
from pipeline.presentation.cutting import frames_of
from pipeline.presentation.model import Edit
from pipeline.requests import Range, exact
from pipeline.tasks import Timeline

_SLACK = Fraction(1, 1_000_000)
"""Seconds: people write 10.033 for 10.0333…, and a player says 9.999999."""


def settle(asked: Range, timeline: Timeline, base: Edit | None = None) -> tuple[Fraction, Fraction | None]:
    """(start, stop) in seconds of the source; a stop of None is the end of the source.

    What ends less than a frame behind the asset ends with it. `base`: the part that a clip was made of.
    """
    low, high = frames_of(base.start, base.end, timeline) if base else (0, timeline.frames)
    offset, length = low / timeline.rate, (high - low) / timeline.rate
    start = _start(asked.start_time, length, timeline) + offset
    stop = _stop(asked.end_time, start - offset, length, timeline)
    if stop is None:
        return start, base.end if base else None
    return start, stop + offset


def check_said(asked: Range) -> None:
    """Refuse what is wrong whatever the source is; how long that lasts nobody knows before ingest."""
    for field, value in (("start_time", asked.start_time), ("end_time", asked.end_time)):
        if value is not None and (not math.isfinite(value) or value < 0):
            raise _invalid(field, value, Fraction(0), None)
    if asked.end_time is not None and asked.end_time <= (asked.start_time or 0):
        raise _invalid("end_time", asked.end_time, exact(asked.start_time or 0.0), None)


def as_args(start: Fraction, stop: Fraction | None) -> dict[str, str | None]:
    """The range as a step holds it: exact, in JSON."""
    return {"start": str(start), "stop": None if stop is None else str(stop)}


def _start(value: float | None, length: Fraction, timeline: Timeline) -> Fraction:
    if value is None:
        return Fraction(0)
    last = length - 1 / timeline.rate
    if not math.isfinite(value) or not 0 <= exact(value) <= last + _SLACK:
        raise _invalid("start_time", value, Fraction(0), last)
    return exact(value)


def _stop(value: float | None, start: Fraction, length: Fraction, timeline: Timeline) -> Fraction | None:
    if value is None:
        return None
    # Of the asset's own frames: a clip begins at one.
    first, _ = frames_of(start, None, timeline)
    least, frame = (first + 1) / timeline.rate, 1 / timeline.rate
    if math.isfinite(value) and 0 < exact(value) <= length + frame + _SLACK:
        stop = min(exact(value), length)
        if frames_of(None, stop, timeline)[1] > first:
            return stop
    raise _invalid("end_time", value, least, length)


def _invalid(field: str, value: float, minimum: Fraction, maximum: Fraction | None) -> PipelineError:
    """Bounds in whole milliseconds, on the inner side of the true ones."""
    current: Value = value if math.isfinite(value) else str(value)
    return PipelineError(
        "trim_range_invalid",
        field=field,
        current=current,
        minimum=math.ceil(minimum * 1000) / 1000,
        maximum="the end" if maximum is None else math.floor(maximum * 1000) / 1000,
    )
