"""The ladder: which rungs a source gets, and how large the picture of each one is. Pure arithmetic, no media.

A rung is a box (DESIGN §2). It turns with the picture, the picture is fitted inside it and never enlarged, and the rung
is kept while either side reaches its box, so that a 1920x800 film still has a 1080p. The name stays the box's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from pipeline.errors import PipelineError

Size = tuple[int, int]
"""(width, height) in square pixels."""

BOXES: Mapping[str, Size] = {
    "1080p": (1920, 1080),
    "720p": (1280, 720),
    "540p": (960, 540),
    "480p": (854, 480),
    "360p": (640, 360),
    "240p": (426, 240),
}
"""Every rung that can be asked for, as it lies for a landscape picture; largest first."""


def fit(display_size: Size, box: Size) -> Size:
    """The largest even size with the picture's aspect inside `box`, which has been turned already.

    A side is never longer than the picture's own, except that 2 is the least that 4:2:0 can carry.
    """
    scale = min(Fraction(1), *(Fraction(limit, side) for limit, side in zip(box, display_size, strict=True)))
    width, height = (_even(side * scale, min(limit, side)) for limit, side in zip(box, display_size, strict=True))
    return width, height


def sizes(display_size: Size, asked: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """(name, width, height) of every rung that the source gets, largest first; at least one.

    `display_size` is upright and in square pixels, both sides >= 1. A source below every asked rung gets a single one
    of its own size, named by its short side. Raises `parameter_invalid` for a name that is no rung.
    """
    boxes = [(name, _turned(_box(name), display_size)) for name in dict.fromkeys(asked)]
    kept = [(name, *fit(display_size, box)) for name, box in boxes if _reaches(display_size, box)]
    if not kept:
        kept = [(f"{min(display_size)}p", *fit(display_size, display_size))]
    return tuple(sorted(kept, key=lambda rung: (-rung[1] * rung[2], -int(rung[0][:-1]))))


def _box(name: str) -> Size:
    try:
        return BOXES[name]
    except KeyError:
        detail = f"there is no resolution {name!r}; use one of {', '.join(BOXES)}"
        raise PipelineError("parameter_invalid", detail=detail) from None


def _turned(box: Size, display_size: Size) -> Size:
    width, height = display_size
    return (box[1], box[0]) if height > width else box


def _reaches(display_size: Size, box: Size) -> bool:
    return any(side >= limit for side, limit in zip(display_size, box, strict=True))


def _even(side: Fraction, limit: int) -> int:
    """The nearest even number that is at most `limit` and at least 2."""
    return max(2, min(2 * round(side / 2), limit // 2 * 2))
