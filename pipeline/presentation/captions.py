"""Text tracks: what a set of captions is in a presentation.

A track's id tells who made it and in which language, so that one that is made again takes the place of the old one.
Captions lie beside the media, on the source's timeline; a version shows its own rendering of them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

from pipeline.presentation.language_names import language_name
from pipeline.presentation.model import Track
from pipeline.tasks import Segment

TIMESCALE = 1000
"""Ticks a second of text: WebVTT counts milliseconds."""


def generated_id(language: str) -> str:
    """Id of the captions in this language (BCP 47, lower case) that a machine wrote."""
    return f"text-{language}-auto"


def generated_track(language: str, *, key: str, size: int, duration: Fraction) -> Track:
    """Captions that a machine wrote. They say so by their name: most players show nothing else of it."""
    name = f"{language_name(language) or 'Captions'} (auto-generated)"
    track = text_track(generated_id(language), language=language, name=name, key=key, size=size, duration=duration)
    return replace(track, auto_generated=True)


def text_track(id: str, *, language: str, name: str, key: str, size: int, duration: Fraction) -> Track:
    """Captions of an asset that lasts `duration` seconds: a WebVTT file of `size` bytes under the storage `key`."""
    whole = Segment(start=0, duration=max(1, math.ceil(duration * TIMESCALE)), key=key, size=size)
    return Track(
        id=id,
        kind="text",
        codec="wvtt",
        timescale=TIMESCALE,
        init="",
        segments=(whole,),
        language=language,
        name=name,
    )
