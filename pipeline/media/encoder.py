"""The encoder's fingerprint: which build made these bytes.

It is frozen in the job's blueprint and part of every recipe: segments of two builds must not stand in one track,
because their parameter sets may differ. It names versions, not machines: a fleet of one release agrees everywhere.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache

import av

_BUILD = re.compile(rb"x264 - core (\d+)(?: (r[0-9A-Za-z]+))?")


@cache
def fingerprint() -> str:
    """PyAV, libavcodec (it makes the AAC) and x264, as `av-18.1.0 lavc-62.28.102 x264-165`."""
    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"av-{av.__version__} lavc-{codec} x264-{_x264()}"


def _x264() -> str:
    """What x264 calls itself. libav does not tell, but the encoder writes it into its first picture."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = 16, 16, "yuv420p"
    context.time_base, context.thread_count = Fraction(1, 25), 1
    picture = av.VideoFrame(16, 16, "yuv420p")
    picture.pts = 0
    stream = b"".join(bytes(packet) for packet in (*context.encode(picture), *context.encode(None)))
    build = _BUILD.search(stream)
    return b"-".join(filter(None, build.groups())).decode() if build else "unknown"
