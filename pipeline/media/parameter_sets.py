"""H.264 parameter sets inside of the samples (`avc3`), where a track has more than one init segment (ISO/IEC 14496-15).

A progressive file could hold several sample entries instead, but browsers know the first one alone. So every keyframe
brings the sets that it needs, and the entry says so by its name.
"""

from __future__ import annotations

import struct

from pipeline.media.boxes import Box, BoxError, boxes
from pipeline.media.whole_track import description


def in_band(init: bytes) -> bytes:
    """The parameter sets of an init segment as they stand before the picture of a keyframe."""
    record = _record(description(init))
    length, at, units = (record[4] & 3) + 1, 5, []
    for mask in (0x1F, 0xFF):  # how many SPS, how many PPS
        count, at = record[at] & mask, at + 1
        for _ in range(count):
            (size,) = struct.unpack_from(">H", record, at)
            units.append(size.to_bytes(length, "big") + record[at + 2 : at + 2 + size])
            at += 2 + size
    return b"".join(units)


def named_in_band(stsd: bytes) -> bytes:
    """The description of a track whose keyframes bring their own parameter sets."""
    at = _entry(stsd).start + 4
    return stsd[:at] + b"avc3" + stsd[at + 4 :]


def alike(one: bytes, other: bytes) -> bool:
    """Whether pictures of two init segments may stand in one track: H.264 both, of one size and form of samples."""
    return _likeness(description(one)) == _likeness(description(other))


def _likeness(stsd: bytes) -> tuple[bytes, ...]:
    entry = _entry(stsd)
    others = (stsd[b.start : b.end] for b in boxes(stsd, entry.body + 78, entry.end) if b.kind in (b"colr", b"pasp"))
    return stsd[entry.start + 4 : entry.body + 78], _record(stsd)[4:5], *others


def _record(stsd: bytes) -> bytes:
    """AVCDecoderConfigurationRecord (14496-15 §5.3.3)."""
    entry = _entry(stsd)
    for box in boxes(stsd, entry.body + 78, entry.end):
        if box.kind == b"avcC":
            return stsd[box.body : box.end]
    raise BoxError("no avcC box")


def _entry(stsd: bytes) -> Box:
    """The sample entry, which is a VisualSampleEntry: 78 bytes before its boxes (14496-12 §12.1.3)."""
    entry = next(boxes(stsd, 16))
    if entry.kind != b"avc1":
        raise BoxError(f"the sample entry is {entry.kind.decode('latin-1')}, not avc1")
    return entry
