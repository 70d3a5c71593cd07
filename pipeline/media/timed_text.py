"""Captions as samples of an MP4: 3GPP timed text, `tx3g` (3GPP TS 26.245), which libav calls `mov_text`.

The text alone comes along: no styles, no places. Samples follow each other without a gap and without overlap, so there
are empty ones where nothing is said, and cues that overlap become one, a line below the other.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise

from pipeline.media.markup import STYLES
from pipeline.media.mp4_index import box, full_box
from pipeline.media.webvtt import StyledCue, read_styled, unescape

TIMESCALE = 1000
"""Ticks a second."""
_HEADER = re.compile(r"\AWEBVTT[^\n]*\n(?:[^\n]+\n)*")
_TAGS = re.compile(rf"</?[{STYLES}]>")
_LINE_HEIGHT = 18
"""Part of the picture's height that one line takes is one of so many."""
_LONGEST = (1 << 16) - 1
"""Bytes of a sample's text."""
_CENTRE, _BOTTOM = 1, -1


def cues_of(text: str) -> tuple[StyledCue, ...]:
    """The cues of one of our WebVTT files, whatever stands in its header. Raises `InvalidCaptions`."""
    return read_styled(_HEADER.sub("WEBVTT\n", text.replace("\r\n", "\n"), count=1))


def samples(cues: Sequence[StyledCue], end_ms: int) -> Iterator[tuple[int, int, bytes]]:
    """(start, end, data) from 0 to `end_ms`, without a gap; what comes later is left out."""
    times = {min(time, end_ms) for cue in cues for time in (cue.start_ms, cue.end_ms)}
    coming, shown = deque(sorted(cues, key=lambda cue: cue.start_ms)), list[StyledCue]()
    for start, end in pairwise(sorted({0, end_ms, *times})):
        while coming and coming[0].start_ms <= start:
            shown.append(coming.popleft())
        shown = [cue for cue in shown if cue.end_ms > start]
        yield start, end, _sample("\n".join(map(_plain, shown)))


def description(width: int, height: int) -> bytes:
    """`stsd` of a text track whose box is `width` x `height` pixels: white, centred, at its bottom."""
    size = max(height // 3, 1)
    style = struct.pack(">HHHBB4B", 0, 0, 1, 0, min(size, 255), 255, 255, 255, 255)
    fonts = box(b"ftab", struct.pack(">HHB", 1, 1, 10) + b"Sans-Serif")
    display = struct.pack(">Ibb4B", 0, _CENTRE, _BOTTOM, 0, 0, 0, 0)
    frame = struct.pack(">4h", 0, 0, min(height, 32767), min(width, 32767))
    entry = box(b"tx3g", bytes(6), struct.pack(">H", 1), display, frame, style, fonts)
    return full_box(b"stsd", 0, 0, struct.pack(">I", 1), entry)


def place(width: int, height: int) -> tuple[bytes, int]:
    """(matrix and size of `tkhd`, height) of the box for text below a picture's middle: the room of three lines."""
    tall = 3 * max(height // _LINE_HEIGHT, 1)
    matrix = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, (height - tall) << 16, 1 << 30)
    return matrix + struct.pack(">II", width << 16, tall << 16), tall


def _sample(text: str) -> bytes:
    data = text.encode()
    if len(data) > _LONGEST:
        data = data[:_LONGEST].decode(errors="ignore").encode()
    return struct.pack(">H", len(data)) + data


def _plain(cue: StyledCue) -> str:
    return unescape(_TAGS.sub("", cue.payload))
