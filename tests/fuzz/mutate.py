"""Damage done to a good file, drawn from a number: the same number, the same damage."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping, Sequence

_HEADS = (0, 1, 7, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
"""Numbers that readers stumble over."""
_HEADER = 4096
"""Bytes at the beginning that are hit as often as all the rest."""

Draw = random.Random
Damage = Callable[[bytearray, Sequence[bytes], Draw], None]


def mutant(seeds: Mapping[str, bytes], seed: int, number: int) -> tuple[str, bytes]:
    """(name, content) of mutant `number`: one to three kinds of damage to one of the seeds, in turn."""
    names = sorted(seeds)
    draw = Draw(f"{seed}/{number}")
    name = names[number % len(names)]
    data, others = bytearray(seeds[name]), [seeds[other] for other in names if other != name]
    done = [draw.choice(list(DAMAGES)) for _ in range(draw.choice((1, 1, 2, 3)))]
    for kind in done:
        DAMAGES[kind](data, others, draw)
    return f"{number:05}-{'-'.join(done)}-{name}", bytes(data)


def _place(data: bytearray, draw: Draw) -> int:
    """Anywhere, half of the time in the header."""
    end = min(len(data), _HEADER) if draw.random() < 0.5 else len(data)
    return draw.randrange(end) if end else 0


def _range(data: bytearray, draw: Draw) -> slice:
    begin = _place(data, draw)
    return slice(begin, begin + draw.choice((1, 4, 16, 188, 512, 4096)))


def _flip(data: bytearray, others: Sequence[bytes], draw: Draw) -> None:
    for _ in range(draw.choice((1, 2, 8, 64)) if data else 0):
        data[_place(data, draw)] ^= 1 << draw.randrange(8)


def _truncate(data: bytearray, others: Sequence[bytes], draw: Draw) -> None:
    del data[_place(data, draw) :]


def _splice(data: bytearray, others: Sequence[bytes], draw: Draw) -> None:
    """The head of another file, or a piece of one in the middle."""
    other = draw.choice(others)
    begin = 0 if draw.random() < 0.5 else draw.randrange(len(other))
    piece = other[begin : begin + draw.choice((16, 256, 2048))]
    at = begin if begin == 0 else _place(data, draw)
    data[at : at + len(piece)] = piece


def _sizes(data: bytearray, others: Sequence[bytes], draw: Draw) -> None:
    """A size or a count that lies: of a box where there are any, else four bytes somewhere."""
    places = _boxes(data) or [_place(data, draw)]
    for _ in range(draw.choice((1, 1, 3))):
        at = draw.choice(places)
        if at + 4 <= len(data):
            (size,) = struct.unpack_from(">I", data, at)
            struct.pack_into(">I", data, at, draw.choice((*_HEADS, (size + 1) & 0xFFFFFFFF, size * 2 & 0xFFFFFFFF)))


def _numbers(data: bytearray, others: Sequence[bytes], draw: Draw) -> None:
    """Numbers anywhere, of any width and order."""
    for _ in range(draw.choice((1, 4, 16))):
        at, width, order = _place(data, draw), draw.choice((1, 2, 4, 8)), draw.choice(("big", "little"))
        data[at : at + width] = (draw.choice(_HEADS) & (1 << 8 * width) - 1).to_bytes(width, order)


def _zero(data: bytearray, others: Sequence[bytes], draw: Draw) -> None:
    where = _range(data, draw)
    data[where] = bytes(len(data[where]))


def _noise(data: bytearray, others: Sequence[bytes], draw: Draw) -> None:
    where = _range(data, draw)
    data[where] = draw.randbytes(len(data[where]))


def _repeat(data: bytearray, others: Sequence[bytes], draw: Draw) -> None:
    """A box, or any piece, again and again."""
    where = _box(data, draw) if draw.random() < 0.5 else _range(data, draw)
    data[where.stop : where.stop] = data[where] * draw.choice((1, 2, 50))


def _delete(data: bytearray, others: Sequence[bytes], draw: Draw) -> None:
    del data[_box(data, draw) if draw.random() < 0.3 else _range(data, draw)]


def _swap(data: bytearray, others: Sequence[bytes], draw: Draw) -> None:
    one, two = _range(data, draw), _range(data, draw)
    data[one], data[two] = data[two], data[one]


def _boxes(data: bytearray) -> list[int]:
    """Where the sizes of boxes stand (ISO/IEC 14496-12), inside of others too."""
    return [at - 4 for name in _BOXES for at in _found(data, name) if at >= 4]


def _found(data: bytearray, name: bytes) -> list[int]:
    places, at = [], data.find(name)
    while at >= 0 and len(places) < 50:
        places.append(at)
        at = data.find(name, at + 1)
    return places


def _box(data: bytearray, draw: Draw) -> slice:
    boxes = _boxes(data)
    if not boxes:
        return _range(data, draw)
    at = draw.choice(boxes)
    return slice(at, at + min(struct.unpack_from(">I", data, at)[0], 1 << 16))


_BOXES = (
    *(b"ftyp", b"moov", b"mvhd", b"trak", b"tkhd", b"edts", b"elst", b"mdia", b"mdhd", b"hdlr", b"minf", b"stbl"),
    *(b"stsd", b"stts", b"ctts", b"stsc", b"stsz", b"stco", b"stss", b"avcC", b"esds", b"mvex", b"moof", b"traf"),
    *(b"tfhd", b"tfdt", b"trun", b"udta", b"meta", b"mdat"),
)

DAMAGES: Mapping[str, Damage] = {
    "flip": _flip,
    "truncate": _truncate,
    "splice": _splice,
    "sizes": _sizes,
    "numbers": _numbers,
    "zero": _zero,
    "noise": _noise,
    "repeat": _repeat,
    "delete": _delete,
    "swap": _swap,
}
"""By name."""
