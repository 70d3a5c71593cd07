"""Colours by the book: SDR pictures as HDR ones that should look the same, and how different two pictures look.

Written apart from the product, from the same papers: what is made here and brought back there must be what it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame

Pixels = np.ndarray[Any, Any]

WHITE = 203
"""Nits of diffuse white (ITU-R BT.2408)."""

_TO_2020 = np.array([[0.627404, 0.329283, 0.043313], [0.069097, 0.919540, 0.011362], [0.016391, 0.088013, 0.895595]])
"""BT.2087 table 2: BT.709 light to BT.2020."""
_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593])
_XYZ = np.array([[0.412391, 0.357584, 0.180481], [0.212639, 0.715169, 0.072192], [0.019331, 0.119195, 0.950532]])

_WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114)}
"""Of red and blue in brightness, by the number of the matrix."""

CODES: Mapping[str, tuple[int, int, int]] = {"pq": (9, 16, 9), "hlg": (9, 18, 9)}
"""Primaries, transfer and matrix (H.273)."""


def light(sdr: Pixels) -> Pixels:
    """Nits in BT.2020 primaries of R'G'B' (0 to 1) on a BT.1886 display whose white is diffuse white."""
    return np.asarray((np.asarray(sdr, float) ** 2.4 * WHITE) @ _TO_2020.T)


def brightened(nits: Pixels, peak: float) -> Pixels:
    """Highlights as a camera with more range would have kept them: what is near white goes up to `peak`."""
    high = np.clip(nits.max(-1, keepdims=True) / WHITE * 2 - 1, 0, 1)
    return np.asarray(nits * (1 + (peak / WHITE - 1) * high**3))


def to_pq(nits: Pixels) -> Pixels:
    """SMPTE ST 2084."""
    power = (np.clip(nits, 0, None) / 10000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def to_hlg(nits: Pixels) -> Pixels:
    """BT.2100, as on the display of 1000 nits."""
    shown = np.clip(nits, 0, None) / 1000
    luminance = np.maximum(shown @ _LUMA_2020, 1e-9)[..., None]
    scene = np.clip(shown * luminance ** (1 / 1.2 - 1), 0, 1)
    logarithm = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.asarray(np.where(scene <= 1 / 12, np.sqrt(3 * scene), logarithm))


def ten_bit(codes: Pixels) -> VideoFrame:
    """R'G'B' of BT.2020 (0 to 1, even sizes) as limited-range 4:2:0."""
    luma = codes @ _LUMA_2020
    blue, red = (codes[..., 2] - luma) / 1.8814, (codes[..., 0] - luma) / 1.4746
    height, width = luma.shape
    frame = VideoFrame(width, height, "yuv420p10le")
    for plane, samples in zip(
        frame.planes, (64 + 876 * luma, *(512 + 896 * _halved(c) for c in (blue, red))), strict=True
    ):
        rows = np.zeros((plane.height, plane.line_size // 2), "<u2")
        rows[:, : plane.width] = np.clip(np.round(samples), 0, 1023)
        plane.update(rows.tobytes())
    return frame


def make_hdr(
    path: Path,
    pictures: Sequence[Pixels],
    *,
    kind: str = "pq",
    rate: int = 25,
    peak: int | None = None,
    max_content: int | None = None,
    mute: bool = False,
) -> Path:
    """A film of pictures in nits (BT.2020), as HDR10 (`pq`) or `hlg`, nearly lossless.

    Of a `mute` one only the container says what its colours are.
    """
    height, width = pictures[0].shape[:2]
    names = {
        "colorprim": "bt2020",
        "colormatrix": "bt2020nc",
        "transfer": "smpte2084" if kind == "pq" else "arib-std-b67",
    }
    parameters = [f"{name}={'unknown' if mute else value}" for name, value in names.items()]
    parameters += ["log-level=error", "range=limited", "bframes=0"]
    if peak is not None:
        primaries = "G(8500,39850)B(6550,2300)R(35400,14600)WP(15635,16450)"
        parameters.append(f"master-display={primaries}L({peak * 10000},1)")
    if max_content is not None:
        parameters.append(f"max-cll={max_content},{max_content // 4}")
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "crf": "8", "x265-params": ":".join(parameters)}
        stream: Any = container.add_stream("libx265", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p10le"
        context = stream.codec_context
        context.thread_count, context.time_base = 1, Fraction(1, rate)
        context.color_primaries, context.color_trc, context.colorspace = CODES[kind]
        context.color_range = 1
        for number, nits in enumerate(pictures):
            frame = ten_bit(to_pq(nits) if kind == "pq" else to_hlg(nits))
            frame.pts, frame.time_base = number, Fraction(1, rate)
            frame.color_primaries, frame.color_trc, frame.colorspace = CODES[kind]
            frame.color_range = 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def rgb(frame: VideoFrame) -> Pixels:
    """R'G'B' (0 to 1) of a limited-range 4:2:0 picture as its tags say; chroma is repeated, not smoothed."""
    assert frame.color_range == 1
    kr, kb = _WEIGHTS[int(frame.colorspace)]
    luma, blue, red = (_plane(plane) for plane in frame.planes)
    height, width = luma.shape
    blue, red = (((c - 128) / 224).repeat(2, 0).repeat(2, 1)[:height, :width] for c in (blue, red))
    luma = (luma - 16) / 219
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    return np.clip(np.stack([r, (luma - kr * r - kb * b) / (1 - kr - kb), b], -1), 0, 1)


def difference(one: Pixels, other: Pixels) -> Pixels:
    """CIEDE2000 of every pixel of two R'G'B' pictures (0 to 1): 1 is just visible side by side."""
    (l1, a1, b1), (l2, a2, b2) = (np.moveaxis(_lab(picture), -1, 0) for picture in (one, other))
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean**7 / (mean**7 + 25**7))
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360
    turn = (h2 - h1 + 180) % 360 - 180
    hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    level, chroma, angle = (l1 + l2) / 2, (c1 + c2) / 2, (h1 + turn / 2) % 360
    weight = (
        1
        - 0.17 * np.cos(np.radians(angle - 30))
        + 0.24 * np.cos(np.radians(2 * angle))
        + 0.32 * np.cos(np.radians(3 * angle + 6))
        - 0.20 * np.cos(np.radians(4 * angle - 63))
    )
    by_level = (l2 - l1) / (1 + 0.015 * (level - 50) ** 2 / np.sqrt(20 + (level - 50) ** 2))
    by_chroma = (c2 - c1) / (1 + 0.045 * chroma)
    by_hue = hue / (1 + 0.015 * chroma * weight)
    blues = 60 * np.exp(-(((angle - 275) / 25) ** 2))
    twist = -2 * np.sqrt(chroma**7 / (chroma**7 + 25**7)) * np.sin(np.radians(blues))
    return np.asarray(np.sqrt(np.maximum(by_level**2 + by_chroma**2 + by_hue**2 + twist * by_chroma * by_hue, 0)))


def _lab(picture: Pixels) -> Pixels:
    xyz = picture**2.4 @ _XYZ.T / _XYZ.sum(1)
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def _halved(samples: Pixels) -> Pixels:
    height, width = samples.shape
    return np.asarray(samples.reshape(height // 2, 2, width // 2, 2).mean((1, 3)))


def _plane(plane: Any) -> Pixels:
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return np.asarray(rows[:, : plane.width].astype(float))
