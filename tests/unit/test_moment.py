"""Moments as people type them."""

from __future__ import annotations

import pytest

from pipeline.errors import PipelineError
from workers.commands.moment import milliseconds, shown

NOW = 1_767_225_600_000
DAY = 86_400_000


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("never", 0),
        ("7d", NOW + 7 * DAY),
        ("+7d", NOW + 7 * DAY),
        ("12h", NOW + DAY // 2),
        ("90s", NOW + 90_000),
        ("2w", NOW + 14 * DAY),
        ("1767225600000", NOW),
        ("2026-01-01", NOW),
        ("2026-01-01T02:00+02:00", NOW),
        ("2026-01-01T00:00:00Z", NOW),
    ],
)
def test_a_moment_is_read(text: str, ms: int) -> None:
    assert milliseconds(text, NOW) == ms


@pytest.mark.parametrize("text", ["", "soon", "7", "7 d", "-7d", "2026-13-01", "9999999d", "٧d", "1767225600"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(PipelineError) as caught:
        milliseconds(text, NOW)
    assert caught.value.code == "parameter_invalid"


def test_a_moment_that_no_calendar_has_is_shown_as_it_is() -> None:
    assert shown(999_999_999_999_999) == "999999999999999"


def test_a_moment_is_shown_in_utc() -> None:
    assert (shown(NOW), shown(0), shown(None)) == ("2026-01-01 00:00:00", "", "")
