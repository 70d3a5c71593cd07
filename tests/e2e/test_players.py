"""What `reelway process` makes is played by the players that people use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from assets import MadeAsset, add_captions
from pages import state, wait_for
from playwright.sync_api import Page

from pipeline.media.cues import Cue

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

    # There and back: whichever rung it began with, the picture changes at least twice. Slowly, so that a busy machine
    # does not reach the end first.
    page.evaluate("video.playbackRate = 0.25")
    wait_for(page, "video.currentTime > 0")
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


def test_captions_come_to_a_ready_asset_and_are_shown_in_their_time(
    player: str, open_player: Callable[..., Page], asset_folder: MadeAsset, tmp_path: Path
) -> None:
    cues = (
        Cue(start_ms=1000, end_ms=2500, lines=("Salt & pepper", "and vinegar")),
        Cue(start_ms=4500, end_ms=6000, lines=("Across a segment's edge",)),
        Cue(start_ms=8500, end_ms=9800, lines=("The end",)),
    )
    before = open_player(player)
    assert state(before)["captions"] == []

    root = Path(shutil.copytree(asset_folder.root, tmp_path / "out", symlinks=True))
    add_captions(root, asset_folder.id, cues, language="en", name="English")
    page = open_player(player, root=root)
    assert [(c["name"], c["language"]) for c in state(page)["captions"]] == [("English", "en")]
    page.evaluate("video.pause()")
    page.evaluate("reelway.chooseCaption(0)")

    for at, shown in _moments(cues, end_s=float(asset_folder.duration)):
        page.evaluate("at => { video.currentTime = at }", at)
        wait_for(page, f"!video.seeking && video.readyState >= 2 && {_reads(shown)}")
    page.evaluate("reelway.chooseCaption(null)")
    page.evaluate("at => { video.currentTime = at }", 1.5)
    wait_for(page, f"!video.seeking && video.readyState >= 2 && {_reads('')}")


def _moments(cues: tuple[Cue, ...], end_s: float) -> list[tuple[float, str]]:
    """(second, what is read then): inside of every cue near both of its ends, and between cues."""
    inside = [(at / 1000, cue.text) for cue in cues for at in (cue.start_ms + 60, cue.end_ms - 60)]
    between = [((before.end_ms + after.start_ms) / 2000, "") for before, after in pairwise(cues)]
    return sorted([(0.5, ""), *inside, *between, (end_s - 0.1, "")])


def _reads(text: str) -> str:
    """A condition: this is what a viewer reads; how the player breaks lines is its own affair."""
    return f"reelway.shown.join(' ').replace(/\\s+/g, ' ').trim() === {json.dumps(' '.join(text.split()))}"
