"""Films of given pictures: whatever a test draws, in any pixel format, orientation, shape and order of fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.video.frame import VideoFrame

Picture = np.ndarray[Any, Any]
"""(height, width, 3) bytes of R'G'B'."""

_MATRICES = {"bt709": 1, "bt470bg": 5, "smpte170m": 6, "fcc": 4, "smpte240m": 7}
_INTERLACED = 0x00040000 | 0x20000000
"""Interlaced DCT and motion estimation."""


def make_film(
    path: Path,
    pictures: Iterable[Picture],
    *,
    rate: Fraction | int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    matrix: str = "bt709",
    said: tuple[int, int, int] | None = None,
    full: bool = False,
    sar: Fraction | None = None,
    fields: Sequence[Literal["tff", "bff", "prog"]] = (),
    bitrate: int | None = None,
    start: int = 0,
) -> Path:
    """Write a film and return its path; the suffix decides the container.

    `matrix` and `full` are how R'G'B' becomes Y'CbCr, `said` the primaries, transfer and matrix that the file tells
    (H.273; None: nothing). `fields` says of every frame how it is marked; without it nothing is interlaced. `start` is
    the number of the first frame.
    """
    pictures = list(pictures)
    defaults = {"crf": "8", "preset": "ultrafast"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=Fraction(rate), options={**defaults, **(options or {})})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        context = stream.codec_context
        context.thread_count, context.time_base = 1, 1 / Fraction(rate)
        if bitrate:
            context.bit_rate = bitrate
        if sar is not None:
            context.sample_aspect_ratio = sar
        if fields:
            context.flags |= _INTERLACED
        if said is not None:
            context.color_primaries, context.color_trc, context.colorspace = said
        rgb = pix_fmt.startswith(("rgb", "bgr", "gbr", "argb", "pal"))
        if not rgb:
            context.color_range = 2 if full else 1
        for number, picture in enumerate(pictures):
            frame = _frame(picture, pix_fmt, matrix, full)
            if fields:
                frame = _marked(frame, fields[number], 1 / Fraction(rate))
            frame.pts, frame.time_base = number + start, 1 / Fraction(rate)
            frame.color_range = 2 if full or rgb else 1
            frame.colorspace = said[2] if said else 2
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def oriented(path: Path, matrix: tuple[float, float, float, float]) -> Path:
    """Give the picture of an MP4 file this display matrix: a, b, c, d of ISO/IEC 14496-12 §8.3.2."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    for offset, value in zip((0, 4, 12, 16), matrix, strict=True):
        data[at + offset : at + offset + 4] = round(value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    return path


def woven(pictures: Sequence[Picture], order: Literal["tff", "bff"]) -> list[Picture]:
    """Frames of two fields each from pictures of twice the rate."""
    frames = []
    for first, second in zip(pictures[::2], pictures[1::2], strict=True):
        frame = first.copy()
        late = 1 if order == "tff" else 0
        frame[late::2] = second[late::2]
        frames.append(frame)
    return frames


def bar(step: int, number: int, size: tuple[int, int] = (320, 240)) -> Picture:
    """A bright bar on dark grey that is `step` pixels further right in every picture."""
    picture = np.full((size[1], size[0], 3), 40, np.uint8)
    left = 20 + step * number
    picture[size[1] // 8 : -size[1] // 8, left : left + 24] = 220
    return picture


def place_of_bar(luma: np.ndarray[Any, Any]) -> float:
    """Pixels from the left edge to the middle of the bar."""
    light = np.clip(luma[luma.shape[0] // 4 : -luma.shape[0] // 4].astype(float) - 90, 0, None).sum(0)
    return float((light * np.arange(len(light))).sum() / light.sum())


def combing(luma: np.ndarray[Any, Any]) -> float:
    """How much more neighbouring rows differ than rows of the same field: about 0 for a whole picture."""
    rows = luma[luma.shape[0] // 4 : -luma.shape[0] // 4].astype(float)
    return float(np.abs(rows[1:-1] - rows[2:]).mean() - np.abs(rows[:-2] - rows[2:]).mean())


def disc(size: tuple[int, int], stored: tuple[int, int]) -> Picture:
    """A white disc in the middle of a black picture of `size`, squeezed into `stored` pixels."""
    width, height = stored
    x = (np.arange(width) + 0.5) / width * size[0] - size[0] / 2
    y = (np.arange(height) + 0.5) / height * size[1] - size[1] / 2
    inside = x[None, :] ** 2 + y[:, None] ** 2 < (0.4 * min(size)) ** 2
    return np.repeat(np.where(inside, 235, 16).astype(np.uint8)[..., None], 3, 2)


def roundness(luma: np.ndarray[Any, Any]) -> float:
    """Width of the disc over its height."""
    lit = luma > 120
    return float(lit.sum(1).max() / lit.sum(0).max())


def _frame(picture: Picture, pix_fmt: str, matrix: str, full: bool) -> VideoFrame:
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return frame.reformat(format=pix_fmt, dst_colorspace=_MATRICES[matrix], dst_color_range=2 if full else 1)


def _marked(frame: VideoFrame, order: str, time_base: Fraction) -> VideoFrame:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
    graph.link_nodes(source, graph.add("setparams", f"field_mode={order}"), graph.add("buffersink")).configure()
    frame.pts, frame.time_base = 0, time_base
    graph.push(frame)
    marked = graph.pull()
    assert isinstance(marked, VideoFrame)
    return marked
