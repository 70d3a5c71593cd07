"""Fragments are read back as they were written, and GOPs are taken out to the byte."""

from __future__ import annotations

import struct

import pytest

from pipeline.media.boxes import Sample, scan_segment, track_id
from pipeline.media.fragments import gops, sound
from pipeline.tasks import Keyframe


def box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), kind) + b"".join(content)


INIT = box(b"moov", box(b"mvex", box(b"trex", struct.pack(">IIIIII", 0, 7, 1, 1024, 0, 0x10000))))
"""Of track 7; by its defaults no sample is a keyframe."""


def samples(*sizes: int, offset: int = 10) -> list[Sample]:
    made, tick = [], 4096
    for size in sizes:
        made.append(Sample(tick=tick, decode=tick, duration=1024, offset=offset, size=size, sync=True, moof=0))
        tick, offset = tick + 1024, offset + size
    return made


@pytest.mark.parametrize("sizes", [(5,), (5, 1, 300, 2)])
def test_frames_of_sound_get_a_fragment_of_their_own(sizes: tuple[int, ...]) -> None:
    media = bytes(n % 251 for n in range(10 + sum(sizes)))

    written = sound(media, samples(*sizes), INIT)

    scan = scan_segment(written, INIT)
    assert (scan.start, scan.duration) == (4096, 1024 * len(sizes))
    assert [(s.tick, s.decode, s.duration, s.size) for s in scan.samples] == [
        (s.tick, s.decode, s.duration, s.size) for s in samples(*sizes)
    ]
    assert all(sample.sync for sample in scan.samples)
    assert b"".join(written[s.offset : s.offset + s.size] for s in scan.samples) == media[10:]
    assert struct.pack(">I", track_id(INIT)) in written[: written.index(b"tfdt")]


def test_gops_are_taken_out_from_keyframe_to_keyframe() -> None:
    keyframes = [Keyframe(tick=tick, offset=offset, size=2) for tick, offset in ((0, 0), (50, 4), (100, 7))]

    assert gops(b"aaaabbbccc", keyframes, 50, 100) == b"bbb"
    assert gops(b"aaaabbbccc", keyframes, 0, 100) == b"aaaabbb"
    assert gops(b"aaaabbbccc", keyframes, 50, 150) == b"bbbccc"
