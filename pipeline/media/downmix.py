"""Many loudspeakers become two, and nobody has to turn the dialogue up: how loud each channel is in each ear.

The gains are those of ITU-R BS.775-3 (annex 4), carried on to the layouts that are newer: the front stays, the centre
goes to both sides at -3 dB, what is beside, behind, above and below goes to its own side at -3 dB, and the effects
channel (LFE) is left out. Nothing is turned down by the sum of the gains, which would cost 7 dB of dialogue; what then
is too loud is the limiter's matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from av.audio.layout import AudioLayout

Gains = tuple[float, float]
"""How much of a channel is in the left and in the right ear; 1 is all of it."""

_HALF = math.sqrt(0.5)
"""-3 dB: half the power."""

_FRONT = (1.0, 1.0)
_AROUND = (_HALF, _HALF)
_BEHIND = (0.5, 0.5)
"""One loudspeaker in the middle that is no centre: half its power to each side, and -3 dB like its neighbours."""

_MIDDLE: dict[str, Gains] = {
    "FC": _AROUND, "BFC": _BEHIND, "TFC": _BEHIND, "TC": _BEHIND, "BC": _BEHIND, "TBC": _BEHIND,
    "LFE": (0.0, 0.0), "LFE2": (0.0, 0.0),
    # Ambisonics (ACN order, SN3D): the first is everything around, the second left minus right; the others are height,
    # depth and detail. In front it is a centre; what comes from the left is louder on the left.
    "AMBI0": _AROUND, "AMBI1": (0.5, -0.5),
}  # fmt: skip
_PAIRS: dict[tuple[str, str], Gains] = {
    ("FL", "FR"): _FRONT, ("FLC", "FRC"): _FRONT, ("DL", "DR"): _FRONT, ("BIL", "BIR"): _FRONT,
    ("SL", "SR"): _AROUND, ("BL", "BR"): _AROUND, ("WL", "WR"): _AROUND, ("SDL", "SDR"): _AROUND,
    ("SSL", "SSR"): _AROUND, ("TTL", "TTR"): _AROUND,
    ("TFL", "TFR"): _AROUND, ("TSL", "TSR"): _AROUND, ("TBL", "TBR"): _AROUND, ("BFL", "BFR"): _AROUND,
}  # fmt: skip
_GAINS: dict[str, Gains] = {
    **_MIDDLE,
    **{left: (gains[0], 0.0) for (left, _), gains in _PAIRS.items()},
    **{right: (0.0, gains[1]) for (_, right), gains in _PAIRS.items()},
}
"""By libav's names of the channels (libavutil/channel_layout.h)."""

_USUAL = {
    3: ("FL", "FR", "FC"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}
"""What so many channels mostly are where nobody says (the order of SMPTE ST 2036-2 and of WAVE)."""


def stereo_gains(layout: AudioLayout) -> list[Gains]:
    """The gains of every channel of the layout, in its order."""
    names = [channel.name for channel in layout.channels]
    if len(names) == 1:
        return [_FRONT]  # the one loudspeaker that there is: swresample would take 3 dB off
    if not any(name in _GAINS for name in names):
        return _nameless(len(names))
    gains = [_GAINS.get(name, (0.0, 0.0)) for name in names]
    return gains if any(map(any, gains)) else [_AROUND for _ in names]


def fold(layout: AudioLayout, channels: int) -> str:
    """The arguments of libavfilter's `pan` that fold the layout to stereo, or to mono as both ears together."""
    gains = stereo_gains(layout)
    if channels == 2:
        return f"stereo|c0={_sum([left for left, _ in gains])}|c1={_sum([right for _, right in gains])}"
    return f"mono|c0={_sum([(left + right) / 2 for left, right in gains])}"


def _nameless(count: int) -> list[Gains]:
    """Channels without a name: the usual layout of so many, else pairs of which the first is the front."""
    if count in _USUAL:
        return [_GAINS[name] for name in _USUAL[count]]
    pairs = [_FRONT if number < 2 else _AROUND for number in range(count)]
    return [(left, 0.0) if number % 2 == 0 else (0.0, right) for number, (left, right) in enumerate(pairs)]


def _sum(gains: Sequence[float]) -> str:
    terms = [f"{gain:.6f}*c{number}" for number, gain in enumerate(gains) if gain]
    return "+".join(terms).replace("+-", "-") or "0*c0"
