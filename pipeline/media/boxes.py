"""What an init segment and a media segment say, read from their boxes (ISO/IEC 14496-12): no decoder, no libav.

The bytes are the truth about a segment: where it starts, how long it lasts and where its keyframes lie. What libav's
demuxer reports of the same bytes is shifted by the delay of the B-frames.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.tasks import Keyframe

_INIT = frozenset((b"ftyp", b"moov"))
_MEDIA = frozenset((b"styp", b"sidx", b"prft", b"emsg", b"moof", b"mdat"))

# `trun` and `tfhd` flags, §8.8.8 and §8.8.7.
_DATA_OFFSET, _FIRST_FLAGS, _DURATION, _SIZE, _FLAGS, _CTS = 0x1, 0x4, 0x100, 0x200, 0x400, 0x800
_BASE_OFFSET, _DESCRIPTION, _DEFAULT_DURATION, _DEFAULT_SIZE, _DEFAULT_FLAGS = 0x1, 0x2, 0x8, 0x10, 0x20
_NON_SYNC = 0x10000


class BoxError(ValueError):
    """The bytes are not the segment that they should be."""


@dataclass(frozen=True, kw_only=True)
class Box:
    kind: bytes
    start: int
    """Offset of the box in its file."""
    body: int
    """Offset of its content."""
    end: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One coded picture, or one frame of sound."""

    tick: int
    """Presentation time."""
    decode: int
    """Decode time, ticks."""
    duration: int
    """Ticks."""
    offset: int
    """Of its data in the segment."""
    size: int
    sync: bool
    moof: int
    """Offset of the fragment that holds it."""


@dataclass(frozen=True, kw_only=True)
class SegmentScan:
    """The facts of one media segment."""

    start: int
    """Earliest presentation time, ticks."""
    duration: int
    """Ticks, from there to the end of the last sample."""
    keyframes: tuple[Keyframe, ...]
    samples: tuple[Sample, ...]
    """In decode order."""


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes in data[start:end], one after the other. Raises `BoxError` where one does not fit."""
    end = len(data) if end is None else end
    while start < end:
        if end - start < 8:
            raise BoxError(f"{end - start} bytes left over at {start}")
        size, kind = struct.unpack_from(">I4s", data, start)
        header = 8
        if size == 1:
            header = 16
            size = struct.unpack_from(">Q", data, start + 8)[0] if end - start >= 16 else 0
        if size < header or start + size > end:
            raise BoxError(f"box {kind!r} at {start} has {size} bytes, {end - start} are there")
        yield Box(kind=kind, start=start, body=start + header, end=start + size)
        start += size


def find(data: bytes, *path: bytes, within: Box | None = None) -> Box:
    """The first box at `path`, from the top or inside of `within`. Raises `BoxError` where there is none."""
    box = within
    for kind in path:
        found = next((b for b in boxes(data, box.body if box else 0, box.end if box else None) if b.kind == kind), None)
        if found is None:
            raise BoxError(f"no {kind.decode('latin-1')} box")
        box = found
    if box is None:
        raise BoxError("no box asked for")
    return box


def split(data: bytes) -> tuple[bytes, bytes]:
    """(init segment, media segment) of a fragmented file that starts with its own init. Other boxes are dropped."""
    parts = list(boxes(data))
    return (
        b"".join(data[box.start : box.end] for box in parts if box.kind in _INIT),
        b"".join(data[box.start : box.end] for box in parts if box.kind in _MEDIA),
    )


def timescale(init: bytes) -> int:
    """Ticks a second of the first track of an init segment."""
    box = find(init, b"moov", b"trak", b"mdia", b"mdhd")
    return int(struct.unpack_from(">I", init, box.body + (20 if init[box.body] else 12))[0])


def track_id(init: bytes) -> int:
    """Number of the first track of an init segment, which its fragments name."""
    trex = find(init, b"moov", b"mvex", b"trex")
    return int(struct.unpack_from(">I", init, trex.body + 4)[0])


def codec_string(init: bytes) -> str:
    """RFC 6381 name of the first track's codec: `avc1.64001f`, `mp4a.40.2`. Raises `BoxError` for any other."""
    stsd = find(init, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
    entry = next(boxes(init, stsd.body + 8, stsd.end))
    if entry.kind == b"avc1":
        # VisualSampleEntry: 78 bytes before its boxes (§12.1.3); avcC: version, profile, constraints, level.
        avcc = next(box for box in boxes(init, entry.body + 78, entry.end) if box.kind == b"avcC")
        return f"avc1.{init[avcc.body + 1 : avcc.body + 4].hex()}"
    if entry.kind == b"mp4a":
        esds = next(box for box in boxes(init, entry.body + 28, entry.end) if box.kind == b"esds")
        return f"mp4a.40.{_audio_object_type(init[esds.body + 4 : esds.end])}"
    raise BoxError(f"sample entry {entry.kind.decode('latin-1')} has no codec string here")


def scan_segment(media: bytes, init: bytes) -> SegmentScan:
    """Start, duration and keyframes of a media segment, from `tfdt`, `trun` and the sample flags alone."""
    defaults = _track_defaults(init)
    samples: list[Sample] = []
    for moof in boxes(media):
        if moof.kind == b"moof":
            samples.extend(_fragment(media, moof, defaults))
    if not samples:
        raise BoxError("no samples")
    start = min(sample.tick for sample in samples)
    return SegmentScan(
        start=start,
        duration=max(sample.tick + sample.duration for sample in samples) - start,
        keyframes=tuple(
            Keyframe(tick=s.tick, offset=s.moof, size=s.offset + s.size - s.moof) for s in samples if s.sync
        ),
        samples=tuple(samples),
    )


@dataclass(frozen=True, kw_only=True)
class _Defaults:
    duration: int
    size: int
    flags: int


def _track_defaults(init: bytes) -> _Defaults:
    trex = find(init, b"moov", b"mvex", b"trex")
    _, _, _, duration, size, flags = struct.unpack_from(">IIIIII", init, trex.body)
    return _Defaults(duration=duration, size=size, flags=flags)


def _fragment(data: bytes, moof: Box, defaults: _Defaults) -> Iterator[Sample]:
    for traf in boxes(data, moof.body, moof.end):
        if traf.kind != b"traf":
            continue
        base, defaults = _track_header(data, find(data, b"tfhd", within=traf), moof, defaults)
        decode = _decode_time(data, find(data, b"tfdt", within=traf))
        cursor = _Cursor(base=base, offset=base, decode=decode)
        for trun in boxes(data, traf.body, traf.end):
            if trun.kind == b"trun":
                yield from _run(data, trun, moof, cursor, defaults)


def _track_header(data: bytes, tfhd: Box, moof: Box, defaults: _Defaults) -> tuple[int, _Defaults]:
    """(where data offsets count from, the fragment's own defaults)."""
    flags = struct.unpack_from(">I", data, tfhd.body)[0] & 0xFFFFFF
    at, base = tfhd.body + 8, moof.start
    if flags & _BASE_OFFSET:
        base, at = struct.unpack_from(">Q", data, at)[0], at + 8
    at += 4 if flags & _DESCRIPTION else 0
    values = [defaults.duration, defaults.size, defaults.flags]
    for index, flag in enumerate((_DEFAULT_DURATION, _DEFAULT_SIZE, _DEFAULT_FLAGS)):
        if flags & flag:
            values[index], at = struct.unpack_from(">I", data, at)[0], at + 4
    return base, _Defaults(duration=values[0], size=values[1], flags=values[2])


def _decode_time(data: bytes, tfdt: Box) -> int:
    return int(struct.unpack_from(">Q" if data[tfdt.body] else ">I", data, tfdt.body + 4)[0])


@dataclass(kw_only=True)
class _Cursor:
    """Where the next sample of a fragment lies."""

    base: int
    """Data offsets count from here."""
    offset: int
    decode: int
    """Decode time, ticks."""


def _run(data: bytes, trun: Box, moof: Box, cursor: _Cursor, defaults: _Defaults) -> Iterator[Sample]:
    """The samples of a run; moves `cursor` behind it."""
    version, flags = data[trun.body], struct.unpack_from(">I", data, trun.body)[0] & 0xFFFFFF
    count = struct.unpack_from(">I", data, trun.body + 4)[0]
    at, first_flags = trun.body + 8, None
    if flags & _DATA_OFFSET:
        cursor.offset, at = cursor.base + struct.unpack_from(">i", data, at)[0], at + 4
    if flags & _FIRST_FLAGS:
        first_flags, at = struct.unpack_from(">I", data, at)[0], at + 4
    fields = [flag for flag in (_DURATION, _SIZE, _FLAGS, _CTS) if flags & flag]
    if count * 4 * len(fields) > trun.end - at:
        raise BoxError(f"trun at {trun.start} is too short for {count} samples")
    for index in range(count):
        row = {flag: struct.unpack_from(">I", data, at + 4 * i)[0] for i, flag in enumerate(fields)}
        at += 4 * len(fields)
        duration, size = row.get(_DURATION, defaults.duration), row.get(_SIZE, defaults.size)
        sample_flags = row.get(_FLAGS, defaults.flags)
        if index == 0 and first_flags is not None:
            sample_flags = first_flags
        shift = row.get(_CTS, 0)
        if version and shift >= 1 << 31:  # signed since version 1
            shift -= 1 << 32
        yield Sample(
            tick=cursor.decode + shift,
            decode=cursor.decode,
            duration=duration,
            offset=cursor.offset,
            size=size,
            sync=not sample_flags & _NON_SYNC,
            moof=moof.start,
        )
        cursor.offset += size
        cursor.decode += duration


def _audio_object_type(descriptor: bytes) -> int:
    """Audio object type of an `esds` body: ES (3) → DecoderConfig (4) → DecoderSpecificInfo (5), 14496-1 §7.2.6."""
    at = 0
    for tag, header in ((3, 3), (4, 13), (5, 0)):
        if at >= len(descriptor) or descriptor[at] != tag:
            raise BoxError("esds has no decoder configuration")
        at += 1
        while descriptor[at] & 0x80:  # a length of up to four bytes, seven bits each
            at += 1
        at += 1 + header
    kind = descriptor[at] >> 3
    return kind if kind != 31 else 32 + ((descriptor[at] & 7) << 3 | descriptor[at + 1] >> 5)
