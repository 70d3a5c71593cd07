"""Waiting for what a process, a thread or a server does, and not a moment longer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 240.0
"""Ends a test that would hang; no test waits for it."""


def wait_until(look: Callable[[], T]) -> T:
    """What it answers, as soon as that is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (seen := look()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return seen
