"""Captions as WebVTT text, and back: the one place that knows how a cue is written (W3C WebVTT).

What we write we read again, strictly, before anyone else does: a player drops a cue that it does not understand without
a word. Text is escaped, so that what somebody said can never become markup.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import webvtt
from webvtt.errors import MalformedCaptionError, MalformedFileError
from webvtt.models import Timestamp

from pipeline.media.cues import UNSHOWABLE, Cue

_MARKUP = re.compile(r"[<>]|&(?!amp;|lt;|gt;)")


class InvalidCaptions(ValueError):
    """The text is no WebVTT that every player shows whole; says where."""


def write_webvtt(cues: Sequence[Cue]) -> str:
    """The file of `cues`, checked by `read_webvtt`. Raises `InvalidCaptions` where they overlap or lie backwards."""
    file = webvtt.WebVTT(captions=[webvtt.Caption(_time(c.start_ms), _time(c.end_ms), _payload(c)) for c in cues])
    try:
        text = f"{file.content.rstrip()}\n"
    except ValueError as error:  # an empty line would end the cue
        raise InvalidCaptions(str(error)) from error
    if read_webvtt(text) != tuple(cues):
        raise InvalidCaptions("what was written is not what is read")
    return text


def read_webvtt(text: str) -> tuple[Cue, ...]:
    """The cues of a file of our own kind: in order, without overlaps, text without markup.

    Raises `InvalidCaptions`. Other people's files are another matter: they may be correct and not like this.
    """
    if not text.startswith("WEBVTT\n"):
        raise InvalidCaptions("it does not begin with WEBVTT")
    try:
        captions = webvtt.from_string(text, strict=True).captions
    except (MalformedCaptionError, MalformedFileError, ValueError) as error:
        raise InvalidCaptions(str(error)) from error
    # The parser leaves out what it does not understand, as a player does.
    if len(captions) != text.count("-->"):
        raise InvalidCaptions(f"{text.count('-->') - len(captions)} cues cannot be read")
    cues = tuple(
        Cue(start_ms=_ms(c.start), end_ms=_ms(c.end), lines=tuple(map(unescape, c.raw_text.split("\n"))))
        for c in captions
    )
    for number, caption in enumerate(captions, start=1):
        if _MARKUP.search(caption.raw_text):
            raise InvalidCaptions(f"cue {number} has markup in it")
        if UNSHOWABLE.search(caption.raw_text.replace("\n", "")):
            raise InvalidCaptions(f"cue {number} has a control character in it")
    for number, cue in enumerate(cues, start=1):
        if cue.end_ms <= cue.start_ms:
            raise InvalidCaptions(f"cue {number} ends before it begins")
    for number, (before, after) in enumerate(pairwise(cues), start=2):
        if after.start_ms < before.end_ms:
            raise InvalidCaptions(f"cue {number} begins before the one before it ends")
    return cues


def escape(text: str) -> str:
    """The text as it stands in a cue."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def unescape(text: str) -> str:
    """What `escape` was given; formats without markup (SRT, plain text) want it."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _payload(cue: Cue) -> str:
    return escape(cue.text)


def _time(ms: int) -> str:
    return str(Timestamp.from_seconds(ms / 1000))


def _ms(text: str) -> int:
    return int(Timestamp.from_string(text).in_milliseconds())
