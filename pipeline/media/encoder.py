"""The encoder's fingerprint: which build made these bytes.

It is frozen in the job's blueprint and part of every recipe: segments of two builds must not stand in one track,
because their parameter sets may differ, and neither must pictures that were processed in two ways. It names versions,
not machines: a fleet of one release agrees everywhere.

What is promised: the same source, recipe and kind of processor give the same bytes. Other kinds have other vector
instructions, which may round the last digit of a float otherwise. Where we compute ourselves (the limiter, the table of
colours) it makes no difference; libav's decoders and scalers promise nothing. Nothing rests on it: a segment is created
once, and what a second attempt makes of it is thrown away.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache

import av

_BUILD = re.compile(rb"x264 - core (\d+)(?: (r[0-9A-Za-z]+))?")


PROCESSING = 2
"""Counts the ways in which we made pictures and sound of the same source: one more for every change of what comes out.
Else a job that is done again would meet segments of the older way, and put new ones beside them."""


@cache
def fingerprint() -> str:
    """PyAV, libavcodec (it makes the AAC), x264, and our own processing: `av-18.1.0 lavc-62.28.102 x264-165 p2`."""
    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"av-{av.__version__} lavc-{codec} x264-{_x264()} p{PROCESSING}"


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
