"""Sound as numbers: pieces of it, put in their places, without a gap, in blocks of a size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Samples = np.ndarray[Any, np.dtype[np.float32]]
"""(channels, samples), -1 to 1."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Samples and the output sample that the first of them is; may be negative, before t = 0."""

    at: int
    samples: Samples


def continuous(pieces: Iterator[Placed], *, total: int, channels: int) -> Iterator[Samples]:
    """Exactly `total` samples: silence where there is no piece; where pieces overlap, the earlier one stays."""
    position = 0
    for piece in pieces:
        for silence in _silence(min(piece.at, total) - position, channels):
            yield silence
            position += silence.shape[1]
        fresh = piece.samples[:, max(0, position - piece.at) : max(0, total - piece.at)]
        if fresh.shape[1]:
            yield fresh
            position += fresh.shape[1]
        if position >= total:
            return
    yield from _silence(total - position, channels)


def blocks(chunks: Iterator[Samples], size: int) -> Iterator[Samples]:
    """The same samples in blocks of `size`; the last one is filled up with silence."""
    for block in joined(chunks, size):
        yield np.pad(block, ((0, 0), (0, size - block.shape[1]))) if block.shape[1] < size else block


def joined(chunks: Iterator[Samples], size: int) -> Iterator[Samples]:
    """The same samples in blocks of `size`, and what is left in a shorter one."""
    waiting: list[Samples] = []
    count = 0
    for chunk in chunks:
        waiting.append(chunk)
        count += chunk.shape[1]
        if count >= size:
            whole = np.concatenate(waiting, axis=1)
            for first in range(0, count - size + 1, size):
                yield whole[:, first : first + size]
            waiting, count = [whole[:, count - count % size :]], count % size
    if count:
        yield np.concatenate(waiting, axis=1)


def _silence(count: int, channels: int) -> Iterator[Samples]:
    """`count` samples of silence, in pieces: a gap of hours must not be held in memory."""
    while count > 0:
        size = min(count, 1 << 16)
        yield np.zeros((channels, size), np.float32)
        count -= size
