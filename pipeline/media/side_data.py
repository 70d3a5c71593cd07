"""What stands beside the pixels of a frame: how it is to be turned, how bright it is, in which order its fields come.

PyAV gives the bytes of libav's structures (libavutil/display.h, mastering_display_metadata.h), in the byte order of the
machine. Two things it hides, and libav is made to say them: the order of the fields, by a filter that lets only one
order pass, and Dolby Vision's configuration, by a header that libav writes for a stream like this one.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, Literal, cast

import av
from av.stream import Stream

from pipeline.tasks import DolbyVision, Light

_DOLBY_CODECS = frozenset(("hevc", "av1", "h264"))
_DOLBY_BOXES = (b"\0\0\0\x20dvcC", b"\0\0\0\x20dvvC", b"\0\0\0\x20dvwC")
"""Length and name, as libav writes them."""
_NITS = 100_000
"""No screen is brighter: what says more is damaged."""


def orientation(frame: av.VideoFrame) -> tuple[Literal[0, 90, 180, 270], bool]:
    """(degrees clockwise that turn the stored picture upright, whether left and right are swapped before that).

    Angles between are rounded to quarter turns, as players do.
    """
    data = _side_data(frame, "DISPLAYMATRIX")
    if len(data) < 36:  # none, or hidden among others
        return cast(Literal[0, 90, 180, 270], round(-frame.rotation / 90) * 90 % 360), False
    a, b, _, c, d, *_ = struct.unpack("=9i", data[:36])
    # A point (x, y), y downwards, goes to (ax + cy, bx + dy). Swapping left and right first changes the signs of a and
    # b alone: c and d tell the angle either way, and the determinant whether there was a swap.
    degrees = math.degrees(math.atan2(-c, d)) if c or d else 0
    return cast(Literal[0, 90, 180, 270], round(degrees / 90) * 90 % 360), a * d - b * c < 0


def light(frame: av.VideoFrame) -> Light | None:
    """How bright the picture says it is; None where it says nothing."""
    peak, content, average = _mastering_peak(frame), *_content(frame)
    return Light(mastering_peak=peak, max_content=content, max_average=average) if peak or content or average else None


def _mastering_peak(frame: av.VideoFrame) -> float | None:
    data = _side_data(frame, "MASTERING_DISPLAY_METADATA")
    if len(data) < 88:
        return None
    # Fractions: ten of colours, the darkest, the brightest; then whether there are colours, and whether there is light.
    brightest, over = struct.unpack_from("=ii", data, 72)
    (known,) = struct.unpack_from("=i", data, 84)
    return round(brightest / over, 2) if known and over > 0 and 0 < brightest / over <= _NITS else None


def _content(frame: av.VideoFrame) -> tuple[int | None, int | None]:
    data = _side_data(frame, "CONTENT_LIGHT_LEVEL")
    if len(data) < 8:
        return None, None
    # 0 is "not known" (CTA-861.3).
    brightest, average = (value if 0 < value <= _NITS else None for value in struct.unpack("=II", data[:8]))
    return brightest, average


def top_field_first(frame: av.VideoFrame) -> bool | None:
    """Which field of an interlaced frame was taken first; None for a progressive one."""
    if not frame.interlaced_frame:
        return None
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or Fraction(1, av.time_base),
    )
    only = graph.add("select", r"eq(interlace_type\,TOPFIRST)")
    graph.link_nodes(source, only, graph.add("buffersink")).configure()
    graph.push(frame)
    try:
        graph.pull()
    except (av.FFmpegError, EOFError):
        return False
    return True


def dolby_vision(stream: Stream) -> DolbyVision | None:
    """The Dolby Vision configuration of a stream, from whatever its container calls it."""
    if stream.codec_context.codec.canonical_name not in _DOLBY_CODECS:
        return None
    header = _header_like(stream)
    place = next((at for at in map(header.find, _DOLBY_BOXES) if at >= 0), None)
    if place is None:
        return None
    # Two bytes of version, then 7 bits of profile, 6 of level, 3 flags, and 4 of compatibility (Dolby Vision Streams
    # Within the ISO Base Media File Format, §3.2).
    bits = int.from_bytes(header[place + 10 : place + 13], "big")
    return DolbyVision(profile=bits >> 17, level=bits >> 11 & 63, compatibility=bits >> 4 & 15)


def _header_like(stream: Stream) -> bytes:
    """The header that libav writes for a file with such a stream; empty where it does not."""
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="mp4", options={"strict": "unofficial", "movflags": "empty_moov"}) as container:
            container.add_stream_from_template(stream, opaque=True)
            container.start_encoding()
            # What closing adds is not wanted, and comes behind it.
            return file.getvalue()
    except (av.FFmpegError, ValueError, OverflowError):
        return b""


def _side_data(frame: av.VideoFrame, kind: str) -> bytes:
    """The bytes of one kind; empty where the frame has none."""
    try:
        kinds = {data.type.name: data for data in cast(Iterable[Any], frame.side_data)}
    except ValueError:  # a kind that PyAV has no name for hides the others with it
        return b""
    return bytes(kinds[kind]) if kind in kinds else b""
