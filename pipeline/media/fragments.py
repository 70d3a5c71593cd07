"""Movie fragments without a codec: what can be taken out of a stored segment, and put into another, as bytes.

A GOP of a picture is a fragment of its own, so it is copied whole. Frames of sound are many in a fragment, so the
fragment around them is written anew (ISO/IEC 14496-12 §8.8); the frames stay as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from pipeline.media.boxes import Sample, track_id
from pipeline.tasks import Keyframe

_BASE_IS_MOOF, _DEFAULT_FLAGS = 0x020000, 0x20
"""Of `tfhd`, §8.8.7: data offsets count from the fragment."""
_DATA_OFFSET, _DURATION, _SIZE = 0x1, 0x100, 0x200
"""Of `trun`, §8.8.8."""
_DEPENDS_ON_NOTHING = 0x02000000
"""Of a sample, §8.8.3.1: every frame of sound can be decoded by itself."""


def gops(media: bytes, keyframes: Sequence[Keyframe], first: int, end: int) -> bytes:
    """The fragments of a picture's segment from the keyframe at tick `first` to the one at `end`, or to its end."""
    offsets = {keyframe.tick: keyframe.offset for keyframe in keyframes}
    return media[offsets[first] : offsets.get(end, len(media))]


def sound(media: bytes, samples: Sequence[Sample], init: bytes) -> bytes:
    """One fragment of these frames of sound, which lie in `media` one after the other in time."""
    # The offset of the data is known once the fragment is written; its field has the same size then.
    header = len(_moof(samples, init, 0)) + 8
    return _moof(samples, init, header) + _box(
        b"mdat", *(media[sample.offset : sample.offset + sample.size] for sample in samples)
    )


def _moof(samples: Sequence[Sample], init: bytes, offset: int) -> bytes:
    """`offset` is where the data begins, counted from the fragment's first byte."""
    traf = _box(b"traf", _tfhd(track_id(init)), _tfdt(samples[0].decode), _trun(samples, offset))
    return _box(b"moof", _full(b"mfhd", 0, 0, struct.pack(">I", 1)), traf)


def _tfhd(track: int) -> bytes:
    return _full(b"tfhd", 0, _BASE_IS_MOOF | _DEFAULT_FLAGS, struct.pack(">II", track, _DEPENDS_ON_NOTHING))


def _tfdt(tick: int) -> bytes:
    return _full(b"tfdt", 1, 0, struct.pack(">Q", tick))


def _trun(samples: Sequence[Sample], offset: int) -> bytes:
    rows = b"".join(struct.pack(">II", sample.duration, sample.size) for sample in samples)
    return _full(b"trun", 0, _DATA_OFFSET | _DURATION | _SIZE, struct.pack(">Ii", len(samples), offset), rows)


def _full(kind: bytes, version: int, flags: int, *content: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags), *content)


def _box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), kind) + b"".join(content)
