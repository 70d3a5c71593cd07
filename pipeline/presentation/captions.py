"""Text tracks: what a set of captions is in a presentation.

A track's id tells who made it and in which language, so that one that is made again takes the place of the old one.
Captions lie beside the media, on the source's timeline; a version shows its own rendering of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from pipeline.presentation.language_names import language_name
from pipeline.presentation.model import Track
from pipeline.tasks import Segment, TextStream

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


def source_id(number: int, language: str) -> str:
    """Id of the text that the source brought as its `number`-th, from 1."""
    return f"text-{number}-{language}"


def source_tracks(
    texts: Sequence[TextStream], stored: Mapping[str, tuple[str, int]], *, duration: Fraction
) -> tuple[Track, ...]:
    """The text that the source brought. `stored` says the storage key and the bytes of each id that is there."""
    # Writers that know of no choice mark every track.
    chosen = len(texts) == 1 or not all(text.default for text in texts)
    tracks = []
    for number, (text, name) in enumerate(zip(texts, source_names(texts), strict=True), start=1):
        id_ = source_id(number, text.language)
        if id_ in stored:
            key, size = stored[id_]
            track = text_track(id_, language=text.language, name=name, key=key, size=size, duration=duration)
            default = text.default and chosen
            tracks.append(replace(track, default=default, forced=text.forced, hearing_impaired=text.hearing_impaired))
    return tuple(tracks)


def source_names(texts: Sequence[TextStream]) -> list[str]:
    """What a player shows for each: its language and what it is for; the source's title where that does not tell."""
    kinds = Counter(_kind(text) for text in texts)
    return [_name(text, kinds[_kind(text)] > 1) for text in texts]


def _kind(text: TextStream) -> tuple[str, bool, bool]:
    return text.language, text.forced, text.hearing_impaired


def _name(text: TextStream, shared: bool) -> str:
    language, title = language_name(text.language), " ".join((text.title or "").split())[:64]
    if title and (shared or language is None):
        return title if language is None else f"{language} – {title}"
    purpose = "forced" if text.forced else "CC" if text.hearing_impaired else ""
    if language is None:
        return "Captions" if text.hearing_impaired else "Subtitles"
    return f"{language} ({purpose})" if purpose else language


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
