"""High dynamic range and wide gamuts to BT.709, as a table that a filter looks colours up in.

The reference is a person who sees both pictures on good displays: what a graded HDR picture shows below its diffuse
white (203 nits, ITU-R BT.2408) shall look the same in SDR, brighter things shall roll off and not clip, and a hue shall
stay a hue. So light is mapped along a curve like that of BT.2390, and colours are moved towards grey only as far as
BT.709 needs it, both in ICtCp (BT.2100), where intensity and hue are apart. The table is exact at its points; between
them the filter interpolates, which costs 0.1 of a ΔE2000 and the same time whatever is in it (benchmarks/hdr.py).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from pipeline.tasks import Color, Light

WHITE = 203.0
"""Nits of diffuse white in HDR pictures, and of what SDR is white at beside them (BT.2408 §2)."""

_Array = np.ndarray[Any, np.dtype[np.float64]]

_POINTS = 33
"""Points of an axis. 17 cost 0.3 ΔE more, 65 gain less than 0.05 and take a second to compute."""
_USUAL_PEAK, _PEAKS = 1000.0, (WHITE, 2000.0)
"""Nits of the brightest pixel where nobody says, and what is believed: above are single sparks, which may clip, because
room for them would dim all the rest."""
_BEND = 0.75
"""How early light begins to give way, of 0.5 (BT.2390) and more. Diffuse white of a picture with a peak of 1000 nits
comes out at 83 %, 500 nits at 94 %: more dims graded films, less leaves nothing of what phones record in the sun."""
_GAMMA = 2.4
"""Of the reference display for SDR (ITU-R BT.1886)."""

_D65 = (0.3127, 0.3290)
_PRIMARIES = {
    "bt709": ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    # P3 of the cinema has a greenish white, which nobody means who brings it to a video player: D65 for both.
    "smpte431": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    "smpte432": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
"""Red, green and blue as CIE 1931 xy."""

_LMS = np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]) / 4096
_ICTCP = np.array([[8192, 8192, 0], [26440, -54452, 28012], [71732, -69560, -2172]]) / 16384
"""BT.2100 table 7: BT.2020 light to cones, and cones by PQ to ICtCp."""

_KNEE, _REACH = 0.92, 1.35
"""Chroma, in shares of what BT.709 can show at this intensity and hue: from the knee on it is compressed, so that the
reach still fits in."""
_BELOW, _ABOVE = 0.1, 0.25
"""How far a colour may still lie outside when it is compressed, and is then clipped: below zero in shares of the
brightest channel, and above white. With neither, the purest colours of BT.709 and P3 turn dull, and lamps pale."""


@cache
def table(color: Color, light: Light | None) -> str:
    """The 3-D table in the format of `.cube` files: from R'G'B' of `color`, full range, to R'G'B' of BT.709."""
    axis = np.linspace(0, 1, _POINTS)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    codes = np.stack([red, green, blue], -1).reshape(-1, 3)
    text = io.StringIO()
    text.write(f"LUT_3D_SIZE {_POINTS}\n")
    # Five digits: processors differ from the tenth on, and the same picture shall have the same bytes.
    np.savetxt(text, mapped(codes, color, light), fmt="%.5f")
    return text.getvalue()


def mapped(codes: _Array, color: Color, light: Light | None) -> _Array:
    """R'G'B' codes (last axis, 0 to 1) of `color` as R'G'B' codes of BT.709."""
    to_2020 = np.linalg.inv(_to_xyz("bt2020")) @ _to_xyz(color.primaries or "bt2020")
    intensity, *chroma = np.moveaxis(_ictcp(_nits(codes, color.transfer) @ to_2020.T), -1, 0)
    rolled = _rolled_off(intensity, peak(color, light))
    # BT.2390 §5.4: whatever light was moved by, up or down, takes colour with it.
    moved = np.minimum(intensity / np.maximum(rolled, 1e-6), rolled / np.maximum(intensity, 1e-6))
    linear = _into_gamut(rolled, chroma[0] * moved, chroma[1] * moved)
    return np.asarray(linear ** (1 / _GAMMA))


def peak(color: Color, light: Light | None) -> float:
    """Nits of the brightest pixel that the curve makes room for."""
    if not color.hdr:
        return WHITE
    if color.transfer == "arib-std-b67":
        return _USUAL_PEAK  # HLG is relative to its display; we show it on the nominal one (BT.2408 §3)
    said = (light.max_content or light.mastering_peak) if light else None
    return min(max(said or _USUAL_PEAK, _PEAKS[0]), _PEAKS[1])


# -- transfer functions ------------------------------------------------------------------------------------------------

_M1, _M2 = 2610 / 16384, 2523 / 32
_C1, _C2, _C3 = 3424 / 4096, 2413 / 128, 2392 / 128
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073


def _nits(codes: _Array, transfer: str | None) -> _Array:
    """Light of the display, in nits."""
    if transfer == "smpte2084":
        return _from_pq(codes)
    if transfer == "arib-std-b67":
        return _from_hlg(codes)
    # Every SDR transfer is taken for the display's: then greys keep their codes, and only the gamut is mapped.
    return np.asarray(WHITE * codes**_GAMMA)


def _from_pq(codes: _Array) -> _Array:
    """SMPTE ST 2084."""
    power = np.clip(codes, 0, None) ** (1 / _M2)
    return np.asarray(10000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1))


def _to_pq(nits: _Array) -> _Array:
    power = (np.clip(nits, 0, None) / 10000) ** _M1
    return np.asarray(((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2)


def _from_hlg(codes: _Array) -> _Array:
    """BT.2100 table 5, on the nominal display: 1000 nits, a system gamma of 1.2."""
    scene = np.where(codes <= 0.5, codes**2 / 3, (np.exp((codes - _C) / _A) + _B) / 12)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
    return np.asarray(_USUAL_PEAK * luminance[..., None] ** 0.2 * scene)


# -- light and colour --------------------------------------------------------------------------------------------------


def _rolled_off(intensity: _Array, highest: float) -> _Array:
    """PQ codes up to those of `highest` nits into those up to white: BT.2390 §5.4.1, with another bend.

    The report's own spline is flat at its end: 500 and 1000 nits become one white, which is where cameras put skies.
    """
    top, white = (float(_to_pq(np.array(nits))) for nits in (highest, WHITE))
    share = white / top
    knee = min((1 + _BEND) * share - _BEND, share)
    return np.asarray(top * _bent(np.clip(intensity / top, 0, 1), knee, 1, share))


def _bent(values: _Array, knee: float, end: float, limit: float) -> _Array:
    """As they are up to the knee, then ever slower, and `limit` from `end` on; smooth at the knee."""
    if knee >= limit:
        return np.minimum(values, limit)
    over = np.clip((values - knee) / (end - knee), 0, 1)
    slope = (end - knee) / (limit - knee)
    return np.asarray(np.where(values <= knee, values, knee + (limit - knee) * over * slope / (1 + over * (slope - 1))))


def _into_gamut(intensity: _Array, tritan: _Array, protan: _Array) -> _Array:
    """BT.709 light, 0 to 1, of these colours; what lies outside goes towards the grey of the same intensity."""

    def light(share: _Array | float) -> _Array:
        return _bt709(np.stack([intensity, tritan * share, protan * share], -1))

    border = _largest(lambda share: _inside(light(share)), intensity.shape)
    wanted = 1 / np.maximum(border, 1e-6)
    return np.clip(light(_bent(wanted, _KNEE, _REACH, 1) / wanted), 0, 1)


def _largest(fits: Callable[[_Array], np.ndarray[Any, np.dtype[np.bool_]]], shape: tuple[int, ...]) -> _Array:
    """The largest share of the chroma, 0 to 2, that fits, to 1/8192: by halving."""
    low, high = np.zeros(shape), np.full(shape, 2.0)
    for _ in range(14):
        middle = (low + high) / 2
        inside = fits(middle)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return low


def _inside(light: _Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    lowest, highest = light.min(-1), light.max(-1)
    return np.asarray((lowest >= -_BELOW * np.maximum(highest, 1e-3)) & (highest <= 1 + _ABOVE))


def _ictcp(nits: _Array) -> _Array:
    return np.asarray(_to_pq(nits @ _LMS.T) @ _ICTCP.T)


def _bt709(ictcp: _Array) -> _Array:
    """Light in BT.709's primaries, 1 for white; outside of 0 to 1 where BT.709 cannot show it."""
    nits = _from_pq(ictcp @ np.linalg.inv(_ICTCP).T) @ np.linalg.inv(_LMS).T
    return np.asarray(nits @ (np.linalg.inv(_to_xyz("bt709")) @ _to_xyz("bt2020")).T / WHITE)


def _to_xyz(primaries: str) -> _Array:
    """The matrix from R, G, B to X, Y, Z (SMPTE RP 177)."""
    columns = np.array([_xyz(xy) for xy in _PRIMARIES.get(primaries, _PRIMARIES["bt2020"])]).T
    return np.asarray(columns * np.linalg.solve(columns, _xyz(_D65)))


def _xyz(xy: tuple[float, float]) -> _Array:
    """A colour of luminance 1."""
    x, y = xy
    return np.array([x / y, 1, (1 - x - y) / y])
