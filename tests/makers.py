"""Clips made to order: every frame shows its number, every second has a flash and a beep.

The picture is a grid of four columns and five rows. The first four rows are the frame number, sixteen bits, most
significant first, white for one. The last row is white, red, black, and a cell that flashes white for the first tenth
of every second, exactly when the sound beeps. The blocks are so large that the number survives scaling and any encoder,
and a picture that is not upright has no number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

from pipeline.tasks import Color

COLUMNS, ROWS = 4, 5
BEEP = Fraction(1, 10)
"""Seconds that a flash and its beep last, from every whole second on."""

_BLACK, _WHITE, _RED = (16, 128, 128), (235, 128, 128), (81, 90, 240)
_TICKS = 90_000
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
_COLOR_CODES = {
    "tv": 1, "pc": 2, "bt709": 1, "bt470bg": 5, "smpte170m": 6, "bt2020": 9, "bt2020nc": 9, "smpte2084": 16,
    "arib-std-b67": 18,
}  # fmt: skip


def make_clip(
    path: Path,
    *,
    seconds: Fraction | float = 2,
    rate: Fraction | int = 25,
    size: tuple[int, int] = (320, 180),
    codec: str | None = "libx264",
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    gop: int = 48,
    rotation: int = 0,
    sar: Fraction | None = None,
    color: Color | None = None,
    interlaced: bool = False,
    pts: Sequence[Fraction | float] | None = None,
    video_start: Fraction | float = 0,
    first_number: int = 0,
    audio: str | None = "aac",
    channels: int = 2,
    sample_rate: int = 48000,
    languages: Sequence[str] = ("eng",),
    audio_start: Fraction | float = 0,
    audio_seconds: Fraction | float | None = None,
    audio_drift: Fraction | float = 0,
    audio_gap: tuple[float, float] | None = None,
) -> Path:
    """Write a clip and return its path; the suffix decides the container.

    `size` is the stored size, `rotation` the degrees clockwise that turn the stored picture upright. `pts` (seconds)
    makes the rate vary and decides the number of frames. `codec=None` or `audio=None` leave picture or sound out. One
    sound stream for each of `languages` (ISO 639-2; stream i beeps at (i + 1) kHz). Sound starts at `audio_start`, its
    clock runs `audio_drift` (a fraction) slower than its timestamps, and its packets in `audio_gap` (seconds) are
    missing.
    """
    rate = Fraction(rate)
    times = (
        [Fraction(t) for t in pts] if pts is not None else [Fraction(n) / rate for n in range(round(seconds * rate))]
    )
    times = [Fraction(video_start) + t for t in times]
    with av.open(str(path), "w") as container:
        encoders: list[tuple[Any, Iterator[Any]]] = []
        if codec is not None:
            stream: Any = container.add_stream(codec, rate=rate, options=dict(options or {}))
            stream.width, stream.height, stream.pix_fmt = size[0], size[1], pix_fmt
            context = stream.codec_context
            context.gop_size, context.thread_count = gop, 1
            context.time_base = Fraction(1, _TICKS) if pts is not None or video_start else 1 / rate
            if sar is not None:
                context.sample_aspect_ratio = sar
            if rotation:
                stream.set_display_rotation(-rotation)
            if interlaced:
                context.flags |= 0x00040000 | 0x20000000  # interlaced DCT and motion estimation
            _tag(context, color)
            pictures = _pictures(times, size, rotation, pix_fmt, interlaced, first_number, context.time_base)
            encoders.append((stream, pictures))
        for index, language in enumerate(languages if audio else ()):
            sound: Any = container.add_stream(str(audio), rate=sample_rate, layout=_LAYOUTS[channels])
            sound.metadata["language"] = language
            length = Fraction(audio_seconds if audio_seconds is not None else len(times) / rate if times else seconds)
            encoders.append(
                (sound, _sounds(sound, length, Fraction(audio_start), 1000 * (index + 1), Fraction(audio_drift)))
            )
        container.start_encoding()
        for packet in _interleaved(encoders, Fraction(audio_start), Fraction(audio_drift), audio_gap):
            container.mux(packet)
    return path


def read_frame_number(frame: VideoFrame) -> int:
    """The number that the frame shows. Raises ValueError where the picture is not upright or not one of ours."""
    cells = _cells(_luma(frame))
    if cells[4][0] < 160 or cells[4][2] > 70:
        raise ValueError(f"not an upright picture of make_clip: last row {cells[4]}")
    number = 0
    for value in [value for row in cells[:4] for value in row]:
        number = number * 2 + (value > 126)
    return number


def flashes(frame: VideoFrame) -> bool:
    """Whether the frame shows the flash."""
    return _cells(_luma(frame))[4][3] > 126


def beep_starts(samples: np.ndarray[Any, Any], sample_rate: int) -> list[float]:
    """Seconds at which beeps start in mono samples (floats, -1 to 1), to about two milliseconds."""
    window = sample_rate // 500
    count = len(samples) // window
    loud = np.abs(samples[: count * window]).reshape(count, window).max(axis=1) > 0.15
    starts, quiet = [], count
    for index, is_loud in enumerate(loud):
        if is_loud and quiet > 50:
            starts.append(index * window / sample_rate)
        quiet = 0 if is_loud else quiet + 1
    return starts


# -- picture -----------------------------------------------------------------------------------------------------------


def _pictures(
    times: Sequence[Fraction],
    size: tuple[int, int],
    rotation: int,
    pix_fmt: str,
    interlaced: bool,
    first_number: int,
    time_base: Fraction,
) -> Iterator[VideoFrame]:
    fields = _field_flags(size, pix_fmt, time_base) if interlaced else None
    for index, time in enumerate(times):
        planes = draw(first_number + index, time, size, rotation)
        if interlaced:
            _comb(planes, index)
        frame = VideoFrame.from_ndarray(planes, format="yuv444p")
        frame.color_range = 1  # what is drawn is limited range
        if pix_fmt != "yuv444p":
            full = pix_fmt.startswith("yuvj")
            frame = frame.reformat(format=pix_fmt, dst_color_range=2 if full else 1)
        frame.pts, frame.time_base = round(time / time_base), time_base
        if fields is not None:
            fields.push(frame)
            frame = fields.pull()
        yield frame


def draw(number: int, time: Fraction, size: tuple[int, int], rotation: int = 0) -> np.ndarray[Any, Any]:
    """The stored picture as (3, height, width) bytes of limited-range YUV."""
    turned = rotation in (90, 270)
    width, height = (size[1], size[0]) if turned else size
    bits = [_WHITE if number >> (15 - i) & 1 else _BLACK for i in range(16)]
    flash = _WHITE if time >= 0 and time % 1 < BEEP else _BLACK
    picture = np.empty((3, height, width), np.uint8)
    for cell, value in enumerate([*bits, _WHITE, _RED, _BLACK, flash]):
        row, column = divmod(cell, COLUMNS)
        rows = slice(row * height // ROWS, (row + 1) * height // ROWS)
        columns = slice(column * width // COLUMNS, (column + 1) * width // COLUMNS)
        picture[:, rows, columns] = np.array(value, np.uint8)[:, None, None]
    return np.ascontiguousarray(np.rot90(picture, rotation // 90, axes=(1, 2)))


def _comb(planes: np.ndarray[Any, Any], index: int) -> None:
    """A bar that moves from field to field, so that the two fields of a frame differ like in real interlaced video."""
    height, width = planes.shape[1:]
    for field in (0, 1):
        left = (2 * index + field) * 12 % (width - 12)
        planes[0, field : height // 10 : 2, left : left + 12] = 128


def _field_flags(size: tuple[int, int], pix_fmt: str, time_base: Fraction) -> Any:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=size[0], height=size[1], format=av.VideoFormat(pix_fmt), time_base=time_base)
    graph.link_nodes(source, graph.add("setparams", "field_mode=tff"), graph.add("buffersink")).configure()
    return graph


def _tag(context: Any, color: Color | None) -> None:
    for name, value in (
        ("color_range", color and color.range),
        ("color_primaries", color and color.primaries),
        ("color_trc", color and color.transfer),
        ("colorspace", color and color.matrix),
    ):
        if value:
            setattr(context, name, _COLOR_CODES[value])


def _luma(frame: VideoFrame) -> np.ndarray[Any, Any]:
    plane: Any = frame.planes[0]
    luma: np.ndarray[Any, Any] = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[
        : frame.height, : frame.width
    ]
    return luma


def _cells(luma: np.ndarray[Any, Any]) -> list[list[float]]:
    """Mean of the middle of each cell."""
    height, width = luma.shape
    cells = []
    for row in range(ROWS):
        rows = slice((4 * row + 1) * height // (4 * ROWS), (4 * row + 3) * height // (4 * ROWS) + 1)
        cells.append(
            [
                float(
                    luma[rows, (4 * c + 1) * width // (4 * COLUMNS) : (4 * c + 3) * width // (4 * COLUMNS) + 1].mean()
                )
                for c in range(COLUMNS)
            ]
        )
    return cells


# -- sound -------------------------------------------------------------------------------------------------------------


def _sounds(stream: Any, seconds: Fraction, start: Fraction, pitch: int, drift: Fraction) -> Iterator[AudioFrame]:
    rate, layout = stream.codec_context.sample_rate, stream.codec_context.layout.name
    format_ = stream.codec_context.format.name
    size = stream.codec_context.frame_size or 1024
    channels = stream.codec_context.channels
    for first in range(0, round(seconds * rate), size):
        count = min(size, round(seconds * rate) - first)
        # A clock that runs slow: sample k was heard at k·(1 + drift)/rate.
        time = float(start) + np.arange(first, first + count) * (1 + float(drift)) / rate
        wave = np.where(time % 1 < float(BEEP), 0.5 * np.sin(2 * np.pi * pitch * time), 0.0).astype(np.float32)
        frame = AudioFrame.from_ndarray(np.tile(wave, (channels, 1)), format="fltp", layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = first + round(start * rate)
        if format_ != "fltp":
            resampler = av.AudioResampler(format=format_, layout=layout, rate=rate)
            frame = resampler.resample(frame)[0]
        yield frame


def _interleaved(
    encoders: Sequence[tuple[Any, Iterator[Any]]], start: Fraction, drift: Fraction, gap: tuple[float, float] | None
) -> list[Any]:
    packets = []
    for stream, frames in encoders:
        for frame in [*frames, None]:
            for packet in stream.encode(frame):
                if stream.type == "audio":
                    if gap and gap[0] <= packet.pts * packet.time_base < gap[1]:
                        continue
                    origin = round(start / packet.time_base)
                    packet.pts = packet.dts = origin + round((packet.pts - origin) * (1 + drift))
                packets.append(packet)
    return sorted(packets, key=lambda packet: packet.dts * packet.time_base)
