"""What `reelway process` makes is played by the players that people use."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
from assets import MadeAsset
from pages import state, wait_for
from playwright.sync_api import Page

PLAYERS = ["hls.js", "shaka-hls", "shaka-dash"]
AAC_FRAME = Fraction(1024, 48_000)

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.parametrize("player", PLAYERS)]


def test_plays_to_the_end_with_picture_and_sound(
    player: str, open_player: Callable[[str], Page], asset_folder: MadeAsset
) -> None:
    page = open_player(player)
    page.evaluate("video.playbackRate = 4")
    wait_for(page, "video.ended")

    end = state(page)
    frame = 1 / asset_folder.rate
    assert end["duration"] == pytest.approx(float(asset_folder.duration), abs=float(max(frame, AAC_FRAME)))
    assert end["time"] == pytest.approx(end["duration"], abs=float(frame))
    assert end["decoded"]["frames"] >= asset_folder.frames
    assert end["decoded"]["audioBytes"] > 0
    assert [event for event in end["events"] if event["type"] == "warning"] == []


def test_switches_rungs_while_it_plays(
    player: str, open_player: Callable[[str], Page], asset_folder: MadeAsset
) -> None:
    page = open_player(player)
    pictures = state(page)["pictures"]
    assert len(pictures) == asset_folder.rungs

    # There and back: whichever rung it began with, the picture changes at least twice.
    for picture in (pictures[-1], pictures[0], pictures[-1]):
        page.evaluate("id => reelway.choosePicture(id)", picture["id"])
        wait_for(page, f"video.videoWidth === {picture['width']} && video.videoHeight === {picture['height']}")

    page.evaluate("video.playbackRate = 4")
    wait_for(page, "video.ended")


def test_goes_on_after_a_jump(player: str, open_player: Callable[[str], Page], asset_folder: MadeAsset) -> None:
    page = open_player(player)
    late = float(asset_folder.duration) * 0.9
    page.evaluate("at => { video.currentTime = at; video.playbackRate = 4 }", late)
    wait_for(page, "video.ended")

    assert state(page)["decoded"]["frames"] > 0
