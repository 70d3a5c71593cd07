"""Colour by FFmpeg's names: what H.273's numbers, as frames carry them, are called in `Color`.

The names are those that libav's filters and encoders take as options. What a source leaves out is filled in here as
players do it, so that every frame that is scaled says what it is, and nobody further down has to guess.
"""

from __future__ import annotations

from collections.abc import Mapping

import av
from av.video.stream import VideoStream as AvVideoStream

from pipeline.tasks import Color, VideoStream

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

_WIDE = frozenset(("bt2020", "smpte431", "smpte432"))
_COMPATIBLE: Mapping[int, str] = {1: "smpte2084", 4: "arib-std-b67"}
"""Transfer of a Dolby Vision base layer, by its compatibility."""
_UNKNOWN = Color()


def told_color(stream: AvVideoStream) -> Color:
    """What the container says, as long as nothing of the stream was decoded: decoders of HEVC and AV1 forget it."""
    context = stream.codec_context
    return _named(context.color_range, context.color_primaries, context.color_trc, context.colorspace)


def color_of(frame: av.VideoFrame, told: Color = _UNKNOWN) -> Color:
    """The colour description that a decoded frame carries; what it does not say, as the container told it."""
    own = _named(frame.color_range, frame.color_primaries, frame.color_trc, frame.colorspace)
    # The yuvj formats are FFmpeg's old way to say full range, and say it even where the frame does not.
    full = frame.format.name.startswith("yuvj")
    return Color(
        range="pc" if full else own.range or told.range,
        primaries=own.primaries or told.primaries,
        transfer=own.transfer or told.transfer,
        matrix=own.matrix or told.matrix,
    )


def _named(color_range: int, primaries: int, transfer: int, matrix: int) -> Color:
    return Color(
        range=RANGES.get(color_range),
        primaries=PRIMARIES.get(primaries),
        transfer=TRANSFERS.get(transfer),
        matrix=MATRICES.get(matrix),
    )


def source_color(video: VideoStream) -> Color:
    """What the pixels of a source are: what it says of itself, the rest as players guess it."""
    said = video.color
    layer = video.dolby_vision
    transfer = said.transfer or (_COMPATIBLE.get(layer.compatibility) if layer else None)
    # Samples that are not RGB by their format are not by their matrix either: a mistake of some encoders.
    matrix = said.matrix if said.matrix != "gbr" or _is_rgb(video.pix_fmt) else None
    hdr = transfer in _COMPATIBLE.values()
    primaries = said.primaries or ("bt2020" if hdr or (matrix or "").startswith("bt2020") else None)
    if matrix is None:
        matrix = "bt2020nc" if hdr or primaries == "bt2020" else _guessed_matrix(video)
    return Color(range=said.range or _usual_range(video.pix_fmt), primaries=primaries, transfer=transfer, matrix=matrix)


def needs_mapping(color: Color) -> bool:
    """Whether the picture has to be mapped to BT.709: high dynamic range, or a gamut that 8-bit players do not know."""
    return color.hdr or color.primaries in _WIDE


def describe(frame: av.VideoFrame, color: Color) -> None:
    """Write onto a decoded frame what it does not say itself: its matrix and its range."""
    if _is_rgb(frame.format.name):
        return  # libav knows: it has no matrix, and always the whole range
    if frame.colorspace not in MATRICES or MATRICES[frame.colorspace] == "gbr":
        frame.colorspace = _MATRIX_NUMBERS[color.matrix or "bt709"]
    if frame.color_range not in RANGES:
        frame.color_range = 2 if color.range == "pc" else 1


_MATRIX_NUMBERS = {name: number for number, name in MATRICES.items()}


def _guessed_matrix(video: VideoStream) -> str:
    """HD is BT.709 and anything smaller BT.601, by the sizes of mpv and of Chrome."""
    longer, shorter = sorted((video.width, video.height), reverse=True)
    return "bt709" if longer >= 1280 or shorter > 576 else "smpte170m"


def _usual_range(pix_fmt: str) -> str:
    return "pc" if pix_fmt.startswith("yuvj") or _is_rgb(pix_fmt) else "tv"


def _is_rgb(pix_fmt: str) -> bool:
    picture = av.VideoFormat(pix_fmt)
    return picture.is_rgb or picture.has_palette
