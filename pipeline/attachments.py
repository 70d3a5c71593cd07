"""Files that belong to an asset without being its source: subtitles and thumbnails that somebody brings.

What each may be, by its size, its name and its first bytes. Roughly: whoever makes something of it reads it whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

HEAD_BYTES = 64 * 1024
"""So many bytes tell what it is."""

_CUE = re.compile(r"\s*\d+[ \t]*\r?\n\s*\d+:\d\d:\d\d[,.]\d+[ \t]+-->")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What one relationship asks of a file."""

    suffixes: Mapping[str, str]
    """Extension in storage by the extension of the file's name."""
    max_bytes: int
    looks_right: Callable[[bytes], bool]
    """Whether a file may begin with these bytes."""
    formats: str
    """In words."""


def _text(head: bytes) -> bool:
    """WebVTT or SubRip. The head may end in the middle of a letter."""
    try:
        text = head[: len(head) - 3 if len(head) == HEAD_BYTES else None].decode("utf-8-sig", errors="strict")
    except UnicodeDecodeError as error:
        if len(head) < HEAD_BYTES or error.start < len(head) - 8:
            return False
        text = head[: error.start].decode("utf-8-sig")
    return bool(re.match(r"WEBVTT([ \t\r\n]|$)", text) or _CUE.match(text))


def _picture(head: bytes) -> bool:
    return head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"))


KINDS: Mapping[str, Kind] = {
    "subtitle": Kind(
        suffixes={"vtt": "vtt", "srt": "srt"},
        max_bytes=5 * 1000**2,
        looks_right=_text,
        formats="WebVTT (.vtt) or SubRip (.srt) in UTF-8",
    ),
    "thumbnail": Kind(
        suffixes={"png": "png", "jpg": "jpg", "jpeg": "jpg"},
        # The reference takes less than 2 MB.
        max_bytes=2 * 1000**2 - 1,
        looks_right=_picture,
        formats="PNG (.png) or JPEG (.jpg, .jpeg)",
    ),
}
"""By relationship."""
