"""Captions as WebVTT text, and back: the one place that knows how a cue is written (W3C WebVTT).

What we write we read again, strictly, before anyone else does: a player drops a cue that it does not understand without
a word. Text is escaped, so that what somebody said can never become markup. Captions that we make (`Cue`) have none;
those that a source brought (`StyledCue`) may have three tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import webvtt
from webvtt.errors import MalformedCaptionError, MalformedFileError
from webvtt.models import Timestamp

from pipeline.media.cues import UNSHOWABLE, Cue
from pipeline.media.markup import STYLES, escape

_MARKUP = re.compile(r"[<>]|&(?!amp;|lt;|gt;)")
_STYLED = re.compile(rf"</?[{STYLES}]>")
_TOP = "0"
"""Setting `line` of a cue that stands at the top of the picture."""


@dataclass(frozen=True, kw_only=True)
class StyledCue:
    """A cue of somebody else's making: it may overlap with others, and have styled text."""

    start_ms: int
    end_ms: int
    payload: str
    """As `pipeline.media.markup.payload` writes it."""
    top: bool = False
    """It belongs to the top of the picture, not to the bottom."""


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


def write_styled(cues: Sequence[StyledCue]) -> str:
    """The file of `cues`, in the order of their beginnings, checked by `read_styled`. Raises `InvalidCaptions`."""
    captions = [webvtt.Caption(_time(c.start_ms), _time(c.end_ms), c.payload) for c in cues]
    for cue, caption in zip(cues, captions, strict=True):
        caption.settings.line = _TOP if cue.top else None
    try:
        text = f"{webvtt.WebVTT(captions=captions).content.rstrip()}\n"
    except ValueError as error:
        raise InvalidCaptions(str(error)) from error
    if read_styled(text) != tuple(cues):
        raise InvalidCaptions("what was written is not what is read")
    return text


def read_styled(text: str) -> tuple[StyledCue, ...]:
    """The cues of a file of `write_styled`: in order, three tags, each closed on its line. Raises `InvalidCaptions`."""
    cues = []
    for number, caption in enumerate(_captions(text), start=1):
        payload = caption.raw_text
        _check_payload(number, _STYLED.sub("", payload))
        if not all(_nested(line) for line in payload.split("\n")):
            raise InvalidCaptions(f"cue {number} has tags that are not closed")
        start, end = _ms(caption.start), _ms(caption.end)
        cues.append(StyledCue(start_ms=start, end_ms=end, payload=payload, top=caption.settings.line == _TOP))
    _check_times(cues)
    return tuple(cues)


def read_webvtt(text: str) -> tuple[Cue, ...]:
    """The cues of a file of our own kind: in order, without overlaps, text without markup.

    Raises `InvalidCaptions`. Other people's files are another matter: they may be correct and not like this.
    """
    captions = _captions(text)
    cues = tuple(
        Cue(start_ms=_ms(c.start), end_ms=_ms(c.end), lines=tuple(map(unescape, c.raw_text.split("\n"))))
        for c in captions
    )
    for number, caption in enumerate(captions, start=1):
        _check_payload(number, caption.raw_text)
    _check_times(cues)
    for number, (before, after) in enumerate(pairwise(cues), start=2):
        if after.start_ms < before.end_ms:
            raise InvalidCaptions(f"cue {number} begins before the one before it ends")
    return cues


def _captions(text: str) -> list[webvtt.Caption]:
    if not text.startswith("WEBVTT\n"):
        raise InvalidCaptions("it does not begin with WEBVTT")
    try:
        captions = webvtt.from_string(text, strict=True).captions
    except (MalformedCaptionError, MalformedFileError, ValueError) as error:
        raise InvalidCaptions(str(error)) from error
    # The parser leaves out what it does not understand, as a player does.
    if len(captions) != text.count("-->"):
        raise InvalidCaptions(f"{text.count('-->') - len(captions)} cues cannot be read")
    return list(captions)


def _check_times(cues: Sequence[Cue | StyledCue]) -> None:
    """Every cue lasts, and they are in the order of their beginnings."""
    for number, cue in enumerate(cues, start=1):
        if cue.end_ms <= cue.start_ms:
            raise InvalidCaptions(f"cue {number} ends before it begins")
    for number, (before, after) in enumerate(pairwise(cues), start=2):
        if after.start_ms < before.start_ms:
            raise InvalidCaptions(f"cue {number} begins before the one before it")


def _check_payload(number: int, payload: str) -> None:
    if _MARKUP.search(payload):
        raise InvalidCaptions(f"cue {number} has markup in it")
    if UNSHOWABLE.search(payload.replace("\n", "")):
        raise InvalidCaptions(f"cue {number} has a control character in it")


def _nested(line: str) -> bool:
    """Whether every tag of the line is closed, the last opened first."""
    opened: list[str] = []
    for tag in _tags(line):
        if not tag.startswith("/"):
            opened.append(tag)
        elif not opened or opened.pop() != tag[1:]:
            return False
    return not opened


def _tags(line: str) -> Iterator[str]:
    """`i`, `/i` …"""
    return (match[0].strip("<>") for match in _STYLED.finditer(line))


def unescape(text: str) -> str:
    """What `escape` was given; formats without markup (SRT, plain text) want it."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _payload(cue: Cue) -> str:
    return escape(cue.text)


def _time(ms: int) -> str:
    return str(Timestamp.from_seconds(ms / 1000))


def _ms(text: str) -> int:
    return int(Timestamp.from_string(text).in_milliseconds())
