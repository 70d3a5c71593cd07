"""A file, read block by block: nothing holds more of it in memory than that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

BLOCK = 8 * 1024**2
"""Bytes at once: enough for a storage to be quick, little beside what a step may use."""


def file_blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, in order. Raises `OSError`."""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


def ranges(size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of each block of so many bytes."""
    for offset in range(0, size, BLOCK):
        yield offset, min(BLOCK, size - offset)
