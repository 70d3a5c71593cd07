"""Filter graphs: what happens to a picture between the decoder and the encoders.

Everything about pixels is decided here: deinterlacing, turning, mapping colours, and one scaler of fixed size before
every encoder, because a resolution that changes in the middle of a source must never reach an encoder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain
from typing import Any

import av
from av.filter import Graph
from av.filter.context import FilterContext
from av.video.frame import VideoFrame

from pipeline.media import tone
from pipeline.media.color import needs_mapping, source_color
from pipeline.media.frames import Decoded
from pipeline.media.ladder import Size
from pipeline.tasks import Color, VideoStream

_Shape = tuple[int, int, str, int, int]
"""Width, height, pixel format, matrix and range: what a graph is built for."""

_TURNS = {0: (), 90: (("transpose", "clock"),), 180: (("hflip", ""), ("vflip", "")), 270: (("transpose", "cclock"),)}
"""Filters that turn a picture clockwise by so many degrees."""

_SCALER = {"flags": "bicubic", "alphablend": "uniform_color"}
"""What can be seen through is shown on black, as in players: else one would see what nobody was to see."""

_NEARLY = Fraction(1, 50)
"""Of a side: so much a picture of another shape is stretched before it gets bars."""


class Ladder:
    """Scales a frame to every size at once."""

    def __init__(self, video: VideoStream, sizes: Sequence[Size], color: Color) -> None:
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
        node = _chain(graph, self._source, [("hflip", "")] if self._video.mirrored else [])
        node = _chain(graph, node, _TURNS[self._video.rotation])
        sizes = [(size, _inside(size, self._video, shape)) for size in self._sizes]
        if needs_mapping(source_color(self._video)):
            node = self._mapped(graph, node, max(picture for _, picture in sizes))
        split = graph.add("split", str(len(sizes)))
        node.link_to(split)
        self._sinks = [self._branch(graph, split, index, *size) for index, size in enumerate(sizes)]
        graph.configure()
        self._graph = graph  # the contexts do not keep it alive

    def _branch(self, graph: Graph, split: FilterContext, index: int, size: Size, picture: Size) -> FilterContext:
        # Nothing is converted where the matrix of the source stays, as it does where players know it.
        scale = graph.add("scale", _options({**_size(picture), **_to_yuv(self._color.matrix)}))
        split.link_to(scale, output_idx=index)
        # Square pixels: rounding to even sizes would leave a ratio like 1279:1280, which players obey.
        tail = _chain(graph, scale, [("setsar", "1"), ("format", "yuv420p")])
        if picture != size:
            tail = _chain(graph, tail, [("pad", f"{size[0]}:{size[1]}:(ow-iw)/2:(oh-ih)/2")])
        sink = graph.add("buffersink")
        tail.link_to(sink)
        return sink

    def _mapped(self, graph: Graph, node: FilterContext, size: Size) -> FilterContext:
        """Map colours once, at the largest size that is needed."""
        # Sixteen bits, because libav has a fast way for them: a third of the time of ten or twelve.
        node = _chain(graph, node, [("scale", _options({**_size(size), **_SCALER})), ("format", "gbrp16le")])
        with tempfile.NamedTemporaryFile("w", suffix=".cube") as file:  # the suffix names the format
            file.write(tone.table(source_color(self._video), self._video.light))
            file.flush()
            lookup: FilterContext = graph.add("lut3d", file=file.name, interp="tetrahedral")
        node.link_to(lookup)
        tags = ("setparams", "color_primaries=bt709:color_trc=bt709")
        return _chain(graph, lookup, [tags, ("scale", _options(_to_yuv("bt709"))), ("format", "yuv420p")])


def _inside(size: Size, video: VideoStream, shape: _Shape) -> Size:
    """Which part of an output of this size the picture fills: all, but for frames of another shape in between.

    Such come from a phone that was turned, or a call whose window changed. Where pixels are not square it is a
    broadcast that changes its resolution, and what is shown keeps its shape.
    """
    width, height = shape[:2]
    if (width, height) == (video.width, video.height) or video.sample_aspect_ratio != 1:
        return size
    upright = (height, width) if video.rotation in (90, 270) else (width, height)
    scale = min(Fraction(limit, side) for limit, side in zip(size, upright, strict=True))
    across, down = (min(max(2, 2 * round(side * scale / 2)), limit) for side, limit in zip(upright, size, strict=True))
    near = size[0] - across <= size[0] * _NEARLY and size[1] - down <= size[1] * _NEARLY
    return size if near else (across, down)


def deinterlaced(frames: Iterator[Decoded], time_base: Fraction) -> Iterator[Decoded]:
    """One progressive frame for every frame; those that are not marked as interlaced pass untouched.

    Until the first one that is marked, nothing is filtered at all: most sources have none, and pay nothing.
    """
    before: Decoded | None = None
    for decoded in frames:
        if decoded.frame.interlaced_frame:
            context = [before] if before is not None else []
            for whole in _woven(chain(context, [decoded], frames), time_base):
                if before is None or whole.time > before.time:
                    yield whole
            return
        before = decoded
        yield decoded


def _woven(frames: Iterator[Decoded], time_base: Fraction) -> Iterator[Decoded]:
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


def _size(size: Size) -> dict[str, str]:
    return {"w": str(size[0]), "h": str(size[1])}


def _to_yuv(matrix: str | None) -> dict[str, str]:
    return {**_SCALER, "out_range": "tv", "out_color_matrix": matrix or "bt709"}


def _options(options: dict[str, str]) -> str:
    return ":".join(f"{name}={value}" for name, value in options.items())


def _video(frame: object) -> VideoFrame:
    assert isinstance(frame, VideoFrame)
    return frame
