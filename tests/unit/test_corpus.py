"""`reelway corpus` tells what became of each file; what it cannot defend is no success."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workers.corpus import Outcome, Summary, _reported, markdown


def an_outcome(**changes: Any) -> Outcome:
    fields: dict[str, Any] = {
        "path": "films/a.mp4",
        "status": "succeeded",
        "code": None,
        "seconds": 1.5,
        "duration_ms": 2000,
        "renditions": ["video-240p 426x240", "audio-1-und"],
    }
    return Outcome(**{**fields, **changes})


REFUSED = an_outcome(path="b.mp4", status="failed", code="media_url_file_broken", duration_ms=None, renditions=[])


def test_a_report_is_read_again_up_to_where_it_was_cut_off(tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    report.write_text(f"{an_outcome().as_json}\n{REFUSED.as_json}\n{REFUSED.as_json[:20]}")

    assert _reported(report) == {"films/a.mp4": an_outcome(), "b.mp4": REFUSED}
    assert _reported(tmp_path / "none") == {}
    assert _reported(None) == {}


@pytest.mark.parametrize(
    ("summary", "clean"),
    [
        (Summary(outcomes=[an_outcome(), REFUSED], left=[]), True),
        (Summary(outcomes=[an_outcome(losses=1)], left=[]), False),
        (Summary(outcomes=[an_outcome(code="stage_failed")], left=[]), False),
        (Summary(outcomes=[REFUSED], left=["transcoded/x"]), False),
    ],
)
def test_a_lost_worker_an_unknown_error_and_what_is_left_behind_are_findings(summary: Summary, clean: bool) -> None:
    assert summary.clean is clean


def test_the_sums_are_told_at_the_end() -> None:
    lines = list(Summary(outcomes=[an_outcome(), an_outcome(path="c"), REFUSED], left=[]).lines())

    assert lines == ["3 files: 2 succeeded, 1 media_url_file_broken", "0 workers lost, 0 objects left behind"]


def test_a_page_has_a_row_a_file_and_no_times() -> None:
    page = markdown([an_outcome(path="x|y.mp4"), REFUSED], "films")

    assert page.splitlines()[-2:] == [
        "| `b.mp4` | `media_url_file_broken` |  |  |",
        "| `x\\|y.mp4` | ready | 2.000 s | video-240p 426x240, audio-1-und |",
    ]
    assert "1 `media_url_file_broken`, 1 ready." in page
    assert "1.5" not in page
