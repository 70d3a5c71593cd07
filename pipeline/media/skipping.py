"""Reading on to a moment in a source that cannot be seeked: all before it is read, and next to nothing decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from av.packet import Packet

_HELD = 32 * 1024**2
"""Bytes that may wait for the next keyframe; what has none for so long is decoded from here on."""

Packets = Iterator["Packet[Any]"]


def skipped(packets: Packets, tick: int, passed: Callable[[], None]) -> Packets:
    """The packets of a picture from the last keyframe on that is shown at `tick` or before it.

    Calls `passed` for every packet that is read on the way.
    """
    waiting: list[Packet[Any]] = []
    size = 0
    for packet in packets:
        passed()
        if packet.is_keyframe and packet.pts is not None and packet.pts <= tick:
            waiting, size = [], 0
        waiting.append(packet)
        size += packet.size
        time = packet.dts if packet.dts is not None else packet.pts
        # Whatever is shown until then was decoded until then.
        if size > _HELD or (time is not None and time > tick):
            break
    yield from waiting
    yield from packets
