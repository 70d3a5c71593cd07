"""What the name of a pixel format says: bits, chroma and transparency."""

from __future__ import annotations

from typing import Literal

import av

Chroma = Literal["420", "422", "444", "other"]
"""Colour samples for four of brightness: `420` a quarter, `422` half, `444` as many; `other`: none, or less."""

_SIDE = 64
"""Pixels of a picture of which the planes are compared."""
_CHROMA: dict[tuple[int, int], Chroma] = {(2, 2): "420", (2, 1): "422", (1, 1): "444"}


def bits(pix_fmt: str) -> int:
    """Bits of one sample."""
    return max(component.bits for component in av.VideoFormat(pix_fmt).components)


def chroma(pix_fmt: str) -> Chroma:
    """How much colour there is beside the brightness."""
    picture = av.VideoFormat(pix_fmt, _SIDE, _SIDE)
    if picture.is_rgb or picture.has_palette:
        return "444"
    if len(picture.components) < 3:
        return "other"
    # Brightness and two colours; PyAV calls those of 4:4:4 no chroma (av/video/format.py, 18.1).
    color = picture.components[1]
    return _CHROMA.get((_SIDE // color.width, _SIDE // color.height), "other")


def transparent(pix_fmt: str) -> bool:
    """Whether parts of the picture may be seen through."""
    return any(component.is_alpha for component in av.VideoFormat(pix_fmt).components)
