"""Kinds of sources that an edit meets, and where to cut them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from random import Random
from typing import Any

FILM, NTSC, FAST = Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001)
OPEN = {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=50:min-keyint=2"}
NO_B = {"bf": "0"}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of source, and the grid that it is put on (seconds)."""

    suffix: str = "mp4"
    made: dict[str, Any] = field(default_factory=dict)
    segment: int = 4
    keyframe: int = 2
    open_gop: bool = False


def trembling(seconds: int, rate: int, seed: int) -> list[Fraction]:
    """Times of frames of a phone: now fast, now slow, with a hold of more than a second."""
    random, times = Random(seed), [Fraction(0)]
    while times[-1] < seconds:
        step = 1300 if len(times) == 70 else random.choice((1000 // rate, 700 // rate, 1600 // rate))
        times.append(times[-1] + Fraction(step, 1000))
    return times


KINDS = {
    "23.976 in MP4, B-frames": Kind(made={"rate": FILM, "seconds": 13, "gop": 60}),
    "25 in Matroska, no B-frames": Kind(suffix="mkv", made={"seconds": 11, "options": NO_B}, segment=3, keyframe=1),
    "25 in MPEG-TS, open GOPs": Kind(suffix="ts", made={"seconds": 11, "options": OPEN}, open_gop=True),
    "25 in MP4, fields": Kind(made={"seconds": 9, "interlaced": True, "size": (320, 192), "gop": 40}),
    "29.97 in MPEG-TS, no B-frames": Kind(suffix="ts", made={"rate": NTSC, "seconds": 11, "options": NO_B}),
    "29.97 in MP4, open GOPs": Kind(made={"rate": NTSC, "seconds": 11, "options": OPEN}, open_gop=True),
    "59.94 in Matroska, open GOPs": Kind(
        suffix="mkv", made={"rate": FAST, "seconds": 9, "options": OPEN}, segment=2, keyframe=1, open_gop=True
    ),
    "VFR in MP4, B-frames": Kind(made={"pts": trembling(12, 25, 1), "audio_seconds": 12.2}),
    "VFR in Matroska, open GOPs": Kind(
        suffix="mkv", made={"pts": trembling(12, 30, 2), "options": OPEN, "audio_seconds": 12.2}, open_gop=True
    ),
}


@contextmanager
def told(start: object, stop: object) -> Iterator[None]:
    """A failure says which cut it was."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"cut from {start} to {stop}")
        raise


def random_cuts(duration: Fraction, seed: int) -> Iterator[tuple[Fraction, Fraction]]:
    """Times as people write them: with three decimals, near to each other or far apart."""
    random, most = Random(seed), int(duration * 1000)
    while True:
        start, length = random.randrange(most), random.choice((60, 500, 2500, most))
        stop = min(start + random.randrange(length), most)
        yield Fraction(start, 1000), Fraction(stop, 1000)
