"""Filter graphs: what happens to a picture between the decoder and the encoders.

Everything about pixels is decided here: deinterlacing, turning, mapping colours, and one scaler of fixed size before
every encoder, because a resolution that changes in the middle of a source must never reach an encoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
from av.filter import Graph
from av.filter.context import FilterContext
from av.video.frame import VideoFrame

from pipeline.media.codecs import needs_color_mapping
from pipeline.media.frames import Decoded
from pipeline.tasks import Color, VideoStream

_Shape = tuple[int, int, str, int, int]
"""Width, height, pixel format, matrix and range: what a graph is built for."""

_TURNS = {0: (), 90: (("transpose", "clock"),), 180: (("hflip", ""), ("vflip", "")), 270: (("transpose", "cclock"),)}
"""Filters that turn a picture clockwise by so many degrees."""

_SDR = {"out_primaries": "bt709", "out_transfer": "bt709", "out_color_matrix": "bt709", "intent": "perceptual"}
"""swscale's own tone and gamut mapping; `perceptual` rolls highlights off where `relative` would clip them to white."""


class Ladder:
    """Scales a frame to every size at once."""

    def __init__(self, video: VideoStream, sizes: Sequence[tuple[int, int]], color: Color) -> None:
        self._video = video
        self._sizes = sizes
        self._color = color
        self._shape: _Shape | None = None
        self._source: Any = None
        self._sinks: list[FilterContext] = []

    def scale(self, frame: VideoFrame) -> list[VideoFrame]:
        """The frame in every size, in order. The graph is built anew where the shape of the frames changes."""
        shape = _shape(frame)
        if shape != self._shape:
            self._build(shape)
            self._shape = shape
        self._source.push(frame)
        return [_video(sink.pull()) for sink in self._sinks]

    def _build(self, shape: _Shape) -> None:
        graph = Graph()
        # Chunks are the parallelism; slice threads would only take the processor from other steps.
        graph.threads = 1
        self._source = _buffer(graph, shape, Fraction(1, 1000))
        node = _chain(graph, self._source, _TURNS[self._video.rotation])
        if needs_color_mapping(self._video.color):
            node = _chain(graph, node, [self._mapping()])
        split = graph.add("split", str(len(self._sizes)))
        node.link_to(split)
        self._sinks = [self._branch(graph, split, index) for index in range(len(self._sizes))]
        graph.configure()
        self._graph = graph  # the contexts do not keep it alive

    def _branch(self, graph: Graph, split: FilterContext, index: int) -> FilterContext:
        scale = graph.add("scale", _options(self._scaler(*self._sizes[index])))
        split.link_to(scale, output_idx=index)
        # Square pixels: rounding to even sizes would leave a ratio like 1279:1280, which players obey.
        tail = _chain(graph, scale, [("setsar", "1"), ("format", "yuv420p")])
        sink = graph.add("buffersink")
        tail.link_to(sink)
        return sink

    def _scaler(self, width: int, height: int) -> dict[str, str]:
        options = {"w": str(width), "h": str(height), "flags": "bicubic", "out_range": "tv"}
        # A matrix is converted only where players would not know the source's; naming it else could make swscale guess.
        source = self._video.color.matrix
        if source is not None and source != self._color.matrix and not needs_color_mapping(self._video.color):
            options["out_color_matrix"] = self._color.matrix or "bt709"
        return options

    def _mapping(self) -> tuple[str, str]:
        """Map colours once, at the largest size that is needed: this costs more than all the scaling."""
        width, height = max(self._sizes, key=lambda size: size[0] * size[1])
        return "scale", _options({"w": str(width), "h": str(height), "flags": "bicubic", "out_range": "tv", **_SDR})


def deinterlaced(frames: Iterator[Decoded], time_base: Fraction) -> Iterator[Decoded]:
    """One progressive frame for every frame; those that are not marked as interlaced pass untouched."""
    shape, source, sink, graph = None, None, None, None
    for decoded in frames:
        if _shape(decoded.frame) != shape:
            yield from _drained(source, sink)
            shape, graph = _shape(decoded.frame), Graph()
            graph.threads = 1
            source, sink = _buffer(graph, shape, time_base), graph.add("buffersink")
            # bwdif looks at the frames before and after; send_frame keeps the frame rate.
            _chain(graph, source, [("bwdif", "mode=send_frame:parity=auto:deint=interlaced")]).link_to(sink)
            graph.configure()
        decoded.frame.pts, decoded.frame.time_base = round(decoded.time / time_base), time_base
        assert source is not None
        source.push(decoded.frame)
        yield from _pulled(sink)
    yield from _drained(source, sink)
    del graph


def _drained(source: FilterContext | None, sink: FilterContext | None) -> Iterator[Decoded]:
    if source is not None:
        source.push(None)
        yield from _pulled(sink)


def _pulled(sink: FilterContext | None) -> Iterator[Decoded]:
    assert sink is not None
    while True:
        try:
            frame = _video(sink.pull())
        except (av.BlockingIOError, av.EOFError):
            return
        assert frame.pts is not None
        assert frame.time_base is not None
        yield Decoded(time=frame.pts * frame.time_base, frame=frame)


def _shape(frame: VideoFrame) -> _Shape:
    return (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)


def _buffer(graph: Graph, shape: _Shape, time_base: Fraction) -> FilterContext:
    width, height, pix_fmt, matrix, color_range = shape
    options = {
        "video_size": f"{width}x{height}",
        "pix_fmt": pix_fmt,
        "time_base": f"{time_base.numerator}/{time_base.denominator}",
        # Said here, because a frame that differs from its graph's link makes libavfilter complain at every frame.
        "colorspace": str(matrix),
        "range": str(color_range),
    }
    return graph.add("buffer", _options(options))


def _chain(graph: Graph, node: FilterContext, filters: Sequence[tuple[str, str]]) -> FilterContext:
    for name, arguments in filters:
        following = graph.add(name, arguments)
        node.link_to(following)
        node = following
    return node


def _options(options: dict[str, str]) -> str:
    return ":".join(f"{name}={value}" for name, value in options.items())


def _video(frame: object) -> VideoFrame:
    assert isinstance(frame, VideoFrame)
    return frame
