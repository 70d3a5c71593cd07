"""Captions of an edited version: the cues of its range, on a clock that begins with it (W3C WebVTT)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

_BLANK = re.compile(r"\n(?:[ \t]*\n)+")
_STAMP = r"(?:\d{2,}:)?[0-5]\d:[0-5]\d\.\d{3}"
_TIMING = re.compile(rf"^({_STAMP})[ \t]+-->[ \t]+({_STAMP})([ \t].*)?$", re.MULTILINE)
_INNER = re.compile(rf"<({_STAMP})>")
_MAP = "X-TIMESTAMP-MAP="
_CLOCK = 90_000
"""Ticks a second of an MPEG-2 clock, which has 33 bits."""


def cut_captions(vtt: bytes, start: Fraction, end: Fraction) -> bytes:
    """A WebVTT file with the cues of [start, end), in seconds, from 0 on; those outside are left out.

    Settings, identifiers, notes and styles stay. Its header says which moment of the media its 0 is, which tell the
    time of the source still: players of HLS want it (RFC 8216 §3.5), those of DASH do without.
    """
    header, *blocks = _BLANK.split(_text(vtt).strip("\n"))
    span = (start * 1000, end * 1000)
    kept = [cut for block in blocks if (cut := _cut(block, *span))]
    return ("\n\n".join([_mapped(header, start), *kept]) + "\n").encode()


def _text(vtt: bytes) -> str:
    return vtt.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def _mapped(header: str, start: Fraction) -> str:
    lines = [line for line in header.split("\n") if not line.startswith(_MAP)]
    return "\n".join([*lines, f"{_MAP}LOCAL:00:00:00.000,MPEGTS:{round(start * _CLOCK) % 2**33}"])


def _cut(block: str, start: Fraction, end: Fraction) -> str | None:
    """The block as it stands in the range; None: it does not. What is no cue stays."""
    timing = _TIMING.search(block)
    if timing is None:
        return block if "-->" not in block else None
    begins, ends = _moved(timing[1], start, end), _moved(timing[2], start, end)
    if ends <= begins:
        return None
    payload = _INNER.sub(lambda stamp: "".join(_inner(stamp[1], start, end, begins)), block[timing.end() :])
    return f"{block[: timing.start()]}{_stamp(begins)} --> {_stamp(ends)}{timing[3] or ''}{payload}"


def _inner(stamp: str, start: Fraction, end: Fraction, begins: int) -> Iterator[str]:
    """A moment inside of a cue; none where the cue begins after it."""
    if (moment := _moved(stamp, start, end)) > begins:
        yield f"<{_stamp(moment)}>"


def _moved(stamp: str, start: Fraction, end: Fraction) -> int:
    """Whole milliseconds from `start`, held inside of the range. Halves go up, so that what touched still touches."""
    held = min(max(Fraction(_ms(stamp)), start), end) - start
    return (2 * held.numerator + held.denominator) // (2 * held.denominator)


def _ms(stamp: str) -> int:
    clock, _, thousandths = stamp.partition(".")
    seconds = 0
    for part in clock.split(":"):
        seconds = seconds * 60 + int(part)
    return seconds * 1000 + int(thousandths)


def _stamp(ms: int) -> str:
    seconds, thousandths = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{thousandths:03}"
