"""Containers written by hand, as no honest muxer would write them: boxes, EBML elements, RIFF chunks, bits."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence


def box(name: bytes, *payload: bytes, size: int | None = None) -> bytes:
    """An ISO box (ISO/IEC 14496-12 §4.2); `size` is a lie about it."""
    body = b"".join(payload)
    return struct.pack(">I", size if size is not None else 8 + len(body)) + name + body


def full(name: bytes, *payload: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(name, struct.pack(">I", version << 24 | flags), *payload)


def u32(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def u16(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}H", *numbers)


_MATRIX = u32(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
FTYP = box(b"ftyp", b"isom", u32(0x200), b"isommp41")


def movie(*tracks: bytes, timescale: int = 1000, duration: int = 1000) -> bytes:
    """A `moov`."""
    head = full(b"mvhd", u32(0, 0, timescale, duration, 0x10000), u16(0x100), bytes(10), _MATRIX, bytes(24), u32(2))
    return box(b"moov", head, *tracks)


def track(
    entry: bytes,
    *,
    size: tuple[int, int] = (16, 16),
    timescale: int = 1000,
    duration: int = 1000,
    times: Sequence[tuple[int, int]] = ((1, 40),),
    sizes: bytes = b"",
    chunks: bytes = b"",
    runs: Sequence[tuple[int, int, int]] = ((1, 1, 1),),
    edits: bytes = b"",
    reference: bytes | None = None,
    kind: bytes = b"vide",
) -> bytes:
    """A `trak` with one sample description. `sizes`: the body of `stsz`; `chunks`: that of `stco`."""
    head = full(
        b"tkhd", u32(0, 0, 1, 0, duration, 0, 0, 0), u32(0), _MATRIX, u32(size[0] << 16, size[1] << 16), flags=3
    )
    table = box(
        b"stbl",
        full(b"stsd", u32(1), entry),
        full(b"stts", u32(len(times)), *(u32(*each) for each in times)),
        full(b"stsc", u32(len(runs)), *(u32(*each) for each in runs)),
        full(b"stsz", sizes or u32(0, 0)),
        full(b"stco", chunks or u32(0)),
    )
    data = box(b"dinf", full(b"dref", u32(1), reference if reference is not None else full(b"url ", flags=1)))
    media_head = full(b"vmhd", bytes(8), flags=1) if kind == b"vide" else full(b"smhd", bytes(4))
    media = box(
        b"mdia",
        full(b"mdhd", u32(0, 0, timescale, duration), u16(0x55C4, 0)),
        full(b"hdlr", bytes(4), kind, bytes(12), b"\0"),
        box(b"minf", media_head, data, table),
    )
    return box(b"trak", head, edits, media)


def picture_entry(codec: bytes, width: int, height: int, *more: bytes) -> bytes:
    """A `VisualSampleEntry`."""
    resolution = u32(0x480000, 0x480000)
    return box(
        codec,
        bytes(6),
        u16(1),
        bytes(16),
        u16(width, height),
        resolution,
        u32(0),
        u16(1),
        bytes(32),
        u16(24, 65535),
        *more,
    )


def still_movie(
    codec: bytes,
    samples: Sequence[bytes],
    *,
    size: tuple[int, int] = (16, 16),
    times: Sequence[tuple[int, int]] | None = None,
    again: int = 1,
    timescale: int = 1000,
    more: bytes = b"",
    edits: bytes = b"",
) -> bytes:
    """A playable movie of these samples, each a chunk of its own; `again`: how often each is shown, stored but once."""
    count = len(samples) * again
    offsets, at = [], len(FTYP) + 8
    for sample in samples:
        offsets.append(at)
        at += len(sample)
    made = track(
        picture_entry(codec, *size, more),
        size=(min(size[0], 65535), min(size[1], 65535)),
        timescale=timescale,
        times=times or [(count, 40)],
        sizes=u32(0, count) + u32(*map(len, samples)) * again,
        chunks=u32(count) + u32(*offsets) * again,
        edits=edits,
    )
    return FTYP + box(b"mdat", *samples) + movie(made)


def png(width: int, height: int) -> bytes:
    """A grey picture that packs well."""
    packer = zlib.compressobj(1)
    row = bytes(width + 1)
    rows = max(1, (1 << 20) // len(row))
    data = (
        b"".join(packer.compress(row * min(rows, height - first)) for first in range(0, height, rows)) + packer.flush()
    )
    head = _png_chunk(b"IHDR", u32(width, height) + bytes([8, 0, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + head + _png_chunk(b"IDAT", data) + _png_chunk(b"IEND", b"")


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return u32(len(body)) + name + body + u32(zlib.crc32(name + body))


# -- Matroska (RFC 9559) ----------------------------------------------------------------------------------------------


def element(name: int, *payload: bytes, size: int | None = None) -> bytes:
    """An EBML element with a size of eight bytes."""
    body = b"".join(payload)
    length = len(body) if size is None else size
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + (1 << 56 | length).to_bytes(8, "big") + body


def number(name: int, value: int) -> bytes:
    return element(name, value.to_bytes(8, "big"))


def text(name: int, value: str) -> bytes:
    return element(name, value.encode())


EBML_HEAD = element(0x1A45DFA3, text(0x4282, "matroska"), number(0x4287, 4), number(0x4285, 2))


def matroska(*parts: bytes, uid: bytes = b"", linking: bytes = b"") -> bytes:
    """A segment with these parts."""
    info = element(0x1549A966, number(0x2AD7B1, 1_000_000), text(0x4D80, "hand"), text(0x5741, "hand"), uid, linking)
    return EBML_HEAD + element(0x18538067, info, *parts)


def entry(track_number: int, codec: str, kind: int, *more: bytes) -> bytes:
    """A `TrackEntry`; kind 1 is a picture, 2 a sound, 17 a subtitle."""
    named = (number(0xD7, track_number), number(0x73C5, track_number), number(0x83, kind), text(0x86, codec))
    return element(0xAE, *named, *more)


def block(track_number: int, data: bytes, *, at: int = 0, flags: int = 0x80) -> bytes:
    """A `SimpleBlock`, `at` milliseconds after its cluster."""
    return element(0xA3, bytes([0x80 | track_number]) + struct.pack(">hB", at, flags) + data)


def cluster(time: int, *blocks: bytes) -> bytes:
    return element(0x1F43B675, number(0xE7, time), *blocks)


# -- others -----------------------------------------------------------------------------------------------------------


def chunk(name: bytes, *payload: bytes, size: int | None = None) -> bytes:
    """A RIFF chunk."""
    body = b"".join(payload)
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def wave(rate: int, channels: int, data: bytes, *, bits: int = 16, size: int | None = None) -> bytes:
    """PCM."""
    align = channels * bits // 8
    form = struct.pack("<HHIIHH", 1, channels, rate, min(rate * align, 0xFFFFFFFF), align & 0xFFFF, bits)
    return chunk(b"RIFF", b"WAVE", chunk(b"fmt ", form), chunk(b"data", data, size=size))


class Bits:
    """A row of bits, as H.264 writes them (Rec. ITU-T H.264 §9.1)."""

    def __init__(self) -> None:
        self._bits = ""

    def put(self, value: int, width: int) -> Bits:
        self._bits += f"{value:0{width}b}"
        return self

    def ue(self, value: int) -> Bits:
        coded = f"{value + 1:b}"
        self._bits += "0" * (len(coded) - 1) + coded
        return self

    def bytes(self) -> bytes:
        bits = self._bits + "1"
        bits += "0" * (-len(bits) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8, "big")


def avc_config(width: int, height: int) -> bytes:
    """An `avcC` of the baseline profile, whose picture has this size (a multiple of 16)."""
    sps = Bits().put(66, 8).put(0, 8).put(62, 8).ue(0).ue(0).ue(2).ue(1).put(0, 1)
    sps.ue(width // 16 - 1).ue(height // 16 - 1).put(1, 1).put(1, 1).put(0, 1).put(0, 1)
    pps = Bits().ue(0).ue(0).put(0, 1).put(0, 1).ue(0).ue(0).ue(0).put(0, 1).put(0, 2).ue(0).ue(0).ue(0).put(0, 3)
    units = (b"\x67" + sps.bytes(), b"\x68" + pps.bytes())
    one, two = (u16(len(unit)) + unit for unit in units)
    return box(b"avcC", b"\x01\x42\x00\x3e\xff\xe1", one, b"\x01", two)


def avc_slice() -> bytes:
    """The beginning of an IDR picture, and no more."""
    data = b"\x65" + Bits().ue(0).ue(7).ue(0).put(0, 4).ue(0).put(0, 1).put(0, 1).ue(0).ue(0).ue(3).bytes()
    return u32(len(data)) + data
