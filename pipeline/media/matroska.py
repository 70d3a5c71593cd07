"""Whether a Matroska file is all there: its first lines say how long the rest is (RFC 8794 §4, RFC 9559 §5.1)."""

from __future__ import annotations

from io import BytesIO

from pipeline.media.sources import Source, beginning, size_of

_HEAD = 4096
"""Bytes: what stands before the segment is some forty of them."""
_HEADER = 0x1A45DFA3
_SEGMENT = 0x18538067


def ends_early(source: Source) -> bool:
    """The file ends inside of its segment. A segment need not say its size: then nothing is known."""
    head = BytesIO(beginning(source, _HEAD))
    while (name := _number(head, marked=True)) in (_HEADER, _SEGMENT):
        size = _number(head)
        if name == _SEGMENT:
            return size is not None and head.tell() + size > size_of(source)
        head.seek(size or 0, 1)
    return False


def _number(head: BytesIO, *, marked: bool = False) -> int | None:
    """The next number of variable length; `marked`: with the bit that tells the length, as in names. None: there is no
    more, or it says that it is unknown."""
    first = head.read(1)
    length = 9 - first[0].bit_length() if first else 9
    rest = head.read(length - 1)
    if length > 8 or len(rest) < length - 1:
        return None
    value = int.from_bytes(first + rest)
    mask = (1 << 7 * length) - 1
    if marked:
        return value
    return None if value & mask == mask else value & mask
