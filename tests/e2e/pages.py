"""Questions to the page of an asset, as `window.reelway` answers them (workers/player/index.html)."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page
from playwright.sync_api import TimeoutError as PlaywrightTimeout


def wait_for(page: Page, condition: str) -> None:
    """Wait until the JavaScript `condition` holds, and fail at once where the page reports an error."""
    try:
        page.wait_for_function(f"(window.reelway?.errors.length) || ({condition})")
    except PlaywrightTimeout:
        raise AssertionError(f"never came true: {condition}; the page knows {state(page)}") from None
    errors = state(page)["errors"]
    assert not errors, errors


def state(page: Page) -> dict[str, Any]:
    """What the page knows, and what its video element says: duration and time in seconds, size in pixels."""
    found: dict[str, Any] = page.evaluate(
        """({...reelway, duration: video.duration, time: video.currentTime,
             width: video.videoWidth, height: video.videoHeight})"""
    )
    return found
