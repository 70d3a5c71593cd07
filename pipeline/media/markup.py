"""Text with bold, italic and underlined pieces, from what subtitle decoders say (ASS) to what WebVTT allows.

libav's decoders turn every format of text subtitles into the event lines of Advanced SubStation Alpha, so this is the
one foreign markup that is read. Three tags are kept, whatever else there is goes, and text is escaped: nothing that a
file says can become a tag of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from pipeline.media.cues import UNSHOWABLE

STYLES = "biu"
"""Bold, italic, underlined: the tags of a cue, in the order in which they are opened."""
_LINES = 20
"""More than any screen shows."""
_LINE_CHARS = 500
_MOST_CHARS = 1 << 16
"""Of one event, its markup included: several times what can be shown of it."""
_FIELDS = 8
"""Fields before the text of an event as libav gives it: ReadOrder, Layer, Style, Name, three margins, Effect."""
_TOKEN = re.compile(r"\{(?P<tags>[^}]*)\}|\\(?P<escape>[Nnh{}])|(?P<text>[^{\\]+|.)", re.DOTALL)
_LAST_TOKEN = re.compile(r"(?P<tags>(?!))|\\(?P<escape>[Nnh{}])|(?P<text>[^\\]+|.)", re.DOTALL)
"""Where no brace closes any more, none opens. To look for its end from every one of a million takes for ever."""
_TAG = re.compile(r"\\(?:(?P<style>[biu])(?P<weight>\d*)(?![a-z(])|an(?P<place>\d)|p(?P<drawing>\d+)|(?P<reset>r))")
_BREAKS = {"N": "\n", "n": "\n", "h": " "}
_WORD_JOINER = "\u2060"
"""libav puts it behind a backslash that is text, so that no player takes the two for a line break."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A piece of one line in one style."""

    text: str
    styles: str = ""
    """Letters of `STYLES`."""


def from_ass(event: bytes) -> tuple[str, bool]:
    """(text of a cue, whether it belongs to the top of the picture) of one event; empty text where it only draws."""
    fields = _decoded(event).split(",", _FIELDS)
    runs, top = _runs(fields[-1] if len(fields) > _FIELDS else "")
    return payload(_lines(runs)), top


def payload(lines: Iterable[Sequence[Run]]) -> str:
    """The lines as they stand in a cue: escaped, without empty lines, which would end it."""
    written = (_line(runs) for runs in lines)
    return "\n".join(line for line, _ in zip((line for line in written if line), range(_LINES), strict=False))


def escape(text: str) -> str:
    """The text as it stands in a cue."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _decoded(event: bytes) -> str:
    """UTF-8; what is none was written on Windows in western Europe, more often than anything else."""
    try:
        return event.decode()
    except UnicodeDecodeError:
        return event.decode("cp1252", errors="replace")


def _runs(text: str) -> tuple[list[Run], bool]:
    """The pieces of an event's text, with line breaks in them, and whether it stands at the top."""
    runs, styles, top, drawing = [], "", False, False
    for token in _tokens(text[:_MOST_CHARS]):
        if token["tags"] is not None:
            for tag in _TAG.finditer(token["tags"]):
                styles = _styled(styles, tag)
                top = tag["place"] in "789" if tag["place"] else top
                drawing = tag["drawing"] != "0" if tag["drawing"] else drawing and not tag["reset"]
        elif not drawing:
            shown = _BREAKS.get(token["escape"], token["escape"]) if token["escape"] else token["text"]
            runs.append(Run(text=shown, styles=styles))
    return runs, top


def _tokens(text: str) -> Iterator[re.Match[str]]:
    closed = text.rfind("}") + 1
    yield from _TOKEN.finditer(text, 0, closed)
    yield from _LAST_TOKEN.finditer(text, closed)


def _styled(styles: str, tag: re.Match[str]) -> str:
    if tag["reset"]:
        return ""
    if not (style := tag["style"]):
        return styles
    weight = int(tag["weight"][:4] or 0)
    # Of bold it may be a weight: 400 is what is not bold.
    on = weight >= 600 if style == "b" and weight > 1 else weight > 0
    return "".join(each for each in STYLES if (on if each == style else each in styles))


def _lines(runs: Iterable[Run]) -> Iterator[list[Run]]:
    line: list[Run] = []
    for run in runs:
        for number, text in enumerate(run.text.replace("\r", "").split("\n")):
            if number:
                yield line
                line = []
            line.append(Run(text=text, styles=run.styles))
    yield line


def _line(runs: Sequence[Run]) -> str:
    """One line: what cannot be shown is left out, white space is single, and at neither end."""
    letters = [
        (" " if letter.isspace() else letter, run.styles)
        for run in runs
        for letter in UNSHOWABLE.sub("", run.text.replace("\t", " ").replace(_WORD_JOINER, ""))
    ]
    tidy = [pair for pair, before in zip(letters, [(" ", ""), *letters], strict=False) if pair[0] + before[0] != "  "]
    if tidy and tidy[-1][0] == " ":
        tidy.pop()
    styled = groupby(tidy[:_LINE_CHARS], key=lambda pair: pair[1])
    return "".join(_tagged("".join(letter for letter, _ in pairs), styles) for styles, pairs in styled)


def _tagged(text: str, styles: str) -> str:
    opened = "".join(f"<{style}>" for style in styles)
    closed = "".join(f"</{style}>" for style in reversed(styles))
    return f"{opened}{escape(text)}{closed}"
