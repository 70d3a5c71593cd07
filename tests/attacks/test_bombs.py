"""A file that is small and would be endless ends with a code, or as an asset, in bounded time and memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bombs import BOMBS
from trials import Court

LONGEST_S = 120.0
"""Wall time in which a step must come to its end on a busy machine; that of processor time is far shorter."""
MOST_BYTES = 1024**3
"""Resident memory, of a limit of four times as much."""

OUTCOMES = {
    "png_of_256_million_pixels_mov": "video_resolution_too_high",
    "png_that_the_header_calls_small_mov": "video_resolution_too_high",
    "frames_ten_hours_apart_mkv": "video_file_broken",
    "frames_an_hour_apart_for_years_mp4": "video_duration_too_long",
    "sixty_million_samples_in_two_kilobytes_mp4": "media_url_file_broken",
    "table_that_claims_a_billion_entries_mp4": "media_url_file_broken",
    "three_thousand_tracks_mp4": "media_url_file_broken",
    "five_thousand_tracks_mkv": "media_url_unsupported_format",
    "half_a_million_comments_flac": "media_url_file_broken",
    "sample_a_second_wav": "audio_file_broken",
    "sound_of_65535_channels_wav": "audio_file_broken",
    "one_byte_mp4": "media_url_unsupported_format",
}
"""Those of which we say which code is right. Of others it is enough that there is one."""


@pytest.fixture(scope="module")
def court(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Court]:
    with Court(tmp_path_factory.mktemp("scratch"), longest_s=LONGEST_S) as court:
        yield court


def test_there_are_many() -> None:
    assert len(BOMBS) >= 20
    assert OUTCOMES.keys() <= BOMBS.keys()


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_a_bomb_ends_in_bounds(name: str, court: Court, tmp_path: Path) -> None:
    verdict = court.try_(BOMBS[name](tmp_path))

    assert verdict.coded, verdict
    assert not verdict.crashed, verdict
    assert verdict.outcome == OUTCOMES.get(name, verdict.outcome), verdict
    assert 0 < verdict.peak_bytes <= MOST_BYTES, verdict
    assert court.left == []
