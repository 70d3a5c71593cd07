"""Pictures that are coded field by field, and film that is repeated in fields: what no encoder at hand makes.

MPEG-2: pictures of half the height, coded without motion, read like fields but for a few bits of their headers
(ISO/IEC 13818-2 §6.2.3.1). H.264: macroblocks of plain samples (I_PCM) need no encoder (ITU-T H.264 §7.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from films import Picture, make_film

Order = Literal["tff", "bff"]
_Coded = tuple[bytes, Fraction]
"""A packet and its time in seconds."""

_PICTURE, _SEQUENCE, _EXTENSION = b"\0\0\1\0", b"\0\0\1\xb3", b"\0\0\1\xb5"
_KEY = 12
"""Frames of a group of H.264."""


def mpeg2_fields(path: Path, frames: Sequence[Picture], order: Order, rate: Fraction | int = 25) -> Path:
    """MPEG-2 whose pictures are fields, two in a packet as libav's demuxers give them."""
    raw = path.with_suffix(".m2v")
    halves = [frame[row::2] for frame in frames for row in _rows(order)]
    make_film(raw, halves, rate=rate, codec="mpeg2video", bitrate=20_000_000, options={"g": "1"})
    coded = [_as_field(data, _rows(order)[number % 2]) for number, data in enumerate(_packets(raw))]
    pairs = zip(coded[::2], coded[1::2], strict=True)
    whole = [first + second[second.index(_PICTURE) :] for first, second in pairs]
    return _written(path, raw, [(data, number / Fraction(rate)) for number, data in enumerate(whole)])


def telecine(path: Path, frames: Sequence[Picture]) -> Path:
    """MPEG-2 film as DVDs have it: called 29.97, whole pictures that are shown for three fields and two in turn."""
    raw = path.with_suffix(".m2v")
    make_film(raw, frames, rate=Fraction(30000, 1001), codec="mpeg2video", bitrate=8_000_000)
    flags = ((1, 1), (0, 0), (0, 1), (1, 0))
    coded, fields = [], 0
    for number, data in enumerate(_packets(raw)):
        first, again = flags[number % 4]
        coded.append((_repeating(data, first, again), fields * Fraction(1001, 60000)))
        fields += 2 + again
    return _written(path, raw, coded)


def h264_fields(path: Path, frames: Sequence[Picture], order: Order, rate: Fraction | int = 25) -> Path:
    """H.264 whose pictures are fields (PAFF): in MP4 two are a sample, elsewhere each has a packet and a time."""
    raw = path.with_suffix(".h264")
    units = [unit for number, frame in enumerate(frames) for unit in _h264_pair(frame, number, order)]
    height, width = frames[0].shape[:2]
    units[0] = _parameters(width, height) + units[0]
    raw.write_bytes(b"".join(units))
    if path.suffix in (".mp4", ".mkv"):
        units = [a + b for a, b in zip(units[::2], units[1::2], strict=True)]
        return _written(path, raw, [(data, n / Fraction(rate)) for n, data in enumerate(units)], key=_KEY)
    return _written(path, raw, [(data, n / Fraction(rate) / 2) for n, data in enumerate(units)], key=2 * _KEY)


def _rows(order: Order) -> tuple[int, int]:
    return (0, 1) if order == "tff" else (1, 0)


def _packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def _written(path: Path, like: Path, coded: Sequence[_Coded], key: int = 1) -> Path:
    """These packets in a container; every `key`-th one is a keyframe."""
    ticks = 90_000
    with av.open(str(like)) as template, av.open(str(path), "w") as container:
        stream: Any = container.add_stream_from_template(template.streams.video[0])
        stream.time_base = Fraction(1, ticks)
        times = [round(time * ticks) for _, time in coded]
        for number, (data, _) in enumerate(coded):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, ticks)
            packet.pts = packet.dts = times[number]
            packet.duration = (times[number + 1] if number + 1 < len(times) else 2 * times[-1] - times[-2]) - packet.pts
            packet.is_keyframe = number % key == 0
            container.mux(packet)
    return path


# -- MPEG-2 ------------------------------------------------------------------------------------------------------------


def _as_field(data: bytes, row: int) -> bytes:
    changed = bytearray(data)
    for at in _places(data, _SEQUENCE):
        height = 2 * ((data[at + 1] & 15) << 8 | data[at + 2])
        changed[at + 1] = data[at + 1] & 0xF0 | height >> 8
        changed[at + 2] = height & 255
    for at in _places(data, _EXTENSION):
        if data[at] >> 4 == 1:
            changed[at + 1] &= ~0x08  # progressive_sequence
        elif data[at] >> 4 == 8:
            changed[at + 2] = data[at + 2] & ~3 | (row + 1)  # picture_structure
            changed[at + 3] &= ~0xC1  # top_field_first, frame_pred_frame_dct, chroma_420_type
            changed[at + 4] &= ~0x80  # progressive_frame
    return bytes(changed)


def _repeating(data: bytes, top_first: int, again: int) -> bytes:
    changed = bytearray(data)
    for at in _places(data, _EXTENSION):
        if data[at] >> 4 == 1:
            changed[at + 1] &= ~0x08
        elif data[at] >> 4 == 8:
            changed[at + 3] = data[at + 3] & ~0x82 | top_first << 7 | again << 1
    return bytes(changed)


def _places(data: bytes, code: bytes) -> Iterator[int]:
    """Where what follows each of these start codes begins."""
    at = data.find(code)
    while at >= 0:
        yield at + len(code)
        at = data.find(code, at + 1)


# -- H.264 -------------------------------------------------------------------------------------------------------------


def _h264_pair(frame: Picture, number: int, order: Order) -> list[bytes]:
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    planes = picture.reformat(format="yuv420p", dst_color_range=1).to_ndarray()
    height, width = frame.shape[:2]
    luma = planes[:height]
    chroma = planes[height:].reshape(2, height // 2, width // 2)
    pair = []
    for second, row in enumerate(_rows(order)):
        blocks = _macroblocks(luma[row::2], chroma[0, row::2], chroma[1, row::2])
        pair.append(_field(blocks, number, row, second))
    return pair


def _field(blocks: Sequence[bytes], number: int, row: int, second: int) -> bytes:
    place = number % _KEY
    kind = 5 if not place and not second else 1
    kept = place == 0  # only the first pair of a group is a reference
    header = _ue(0) + _ue(7) + _ue(0) + _u(0 if kept else 1, 4) + "1" + _u(row, 1)
    header += _ue(number // _KEY % 2) if kind == 5 else ""
    header += _u(2 * place + second, 8)
    header += ("00" if kind == 5 else "0") if kept else ""
    header += _ue(0) + _ue(1)  # slice_qp_delta; no deblocking
    body = b""
    for block in blocks:
        body += _bytes(header + _ue(25)) + block
        header = ""
    return _unit(kept << 5 | kind, body + b"\x80")


def _parameters(width: int, height: int) -> bytes:
    sequence = _u(77, 8) + _u(0, 8) + _u(40, 8) + _ue(0) + _ue(0) + _ue(0) + _ue(4) + _ue(1) + "0"
    sequence += _ue(width // 16 - 1) + _ue(height // 32 - 1) + "00100"  # fields allowed, no cropping, no more
    picture = _ue(0) + _ue(0) + "00" + _ue(0) * 3 + "000" + _ue(0) * 3 + "100"
    return _unit(0x67, _bytes(sequence + "1")) + _unit(0x68, _bytes(picture + "1"))


def _macroblocks(luma: Picture, blue: Picture, red: Picture) -> list[bytes]:
    rows, columns = luma.shape[0] // 16, luma.shape[1] // 16
    sizes = ((luma, 16), (blue, 8), (red, 8))
    return [
        b"".join(plane[y * size : (y + 1) * size, x * size : (x + 1) * size].tobytes() for plane, size in sizes)
        for y in range(rows)
        for x in range(columns)
    ]


def _unit(kind: int, payload: bytes) -> bytes:
    """A NAL unit behind its start code, with emulation prevention."""
    safe, zeros = bytearray(), 0
    for byte in payload:
        if zeros >= 2 and byte <= 3:
            safe.append(3)
            zeros = 0
        safe.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return b"\0\0\0\1" + bytes((kind,)) + bytes(safe)


def _u(value: int, bits: int) -> str:
    return f"{value:0{bits}b}"


def _ue(value: int) -> str:
    """Exponential Golomb (§9.1)."""
    code = f"{value + 1:b}"
    return "0" * (len(code) - 1) + code


def _bytes(bits: str) -> bytes:
    """Filled up with zeros."""
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")
