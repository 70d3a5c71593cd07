"""Colour by FFmpeg's names: what H.273's numbers, as frames carry them, are called in `Color`.

The names are those that libav's filters and encoders take as options.
"""

from __future__ import annotations

from collections.abc import Mapping

import av

from pipeline.tasks import Color

RANGES: Mapping[int, str] = {1: "tv", 2: "pc"}

PRIMARIES: Mapping[int, str] = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "film",
    9: "bt2020",
    10: "smpte428",
    11: "smpte431",
    12: "smpte432",
    22: "ebu3213",
}
"""ITU-T H.273 table 2."""

TRANSFERS: Mapping[int, str] = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "linear",
    9: "log100",
    10: "log316",
    11: "iec61966-2-4",
    12: "bt1361e",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "smpte2084",
    17: "smpte428",
    18: "arib-std-b67",
}
"""ITU-T H.273 table 3."""

MATRICES: Mapping[int, str] = {
    0: "gbr",
    1: "bt709",
    4: "fcc",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "ycgco",
    9: "bt2020nc",
    10: "bt2020c",
    11: "smpte2085",
    12: "chroma-derived-nc",
    13: "chroma-derived-c",
    14: "ictcp",
}
"""ITU-T H.273 table 4."""


def color_of(frame: av.VideoFrame) -> Color:
    """The colour description that a decoded frame carries."""
    # The yuvj formats are FFmpeg's old way to say full range, and say it even where the frame does not.
    full = frame.format.name.startswith("yuvj")
    return Color(
        range="pc" if full else RANGES.get(frame.color_range),
        primaries=PRIMARIES.get(frame.color_primaries),
        transfer=TRANSFERS.get(frame.color_trc),
        matrix=MATRICES.get(frame.colorspace),
    )
