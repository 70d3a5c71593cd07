"""A trimmed asset is played by the players that people use: across both seams, exactly, with its captions in time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from assets import TIMEOUT_S, MadeAsset, add_captions
from pages import state, wait_for
from playwright.sync_api import Page

from pipeline.media.cues import Cue

PLAYERS = ["hls.js", "shaka-hls", "shaka-dash"]
RATE = Fraction(25)
FIRST, END = 31, 213
"""Both inside of a GOP: frames are encoded again on either side."""
START_S, END_S = FIRST / RATE, END / RATE
SEAMS_S = [4 - START_S, 8 - START_S]
"""Where the pieces of the cuts meet whole segments, or each other."""
MOMENTS = (FIRST, FIRST + 1, 49, 50, 99, 100, 101, 199, 200, 201, END - 5)
"""Frames. hls.js waits for ever where a pausing viewer jumps into the last tenth of a second of any video."""
CUES = (
    Cue(start_ms=400, end_ms=1000, lines=("Before the cut",)),
    Cue(start_ms=1100, end_ms=2500, lines=("Across the first cut",)),
    Cue(start_ms=4500, end_ms=6000, lines=("In the middle",)),
    Cue(start_ms=8000, end_ms=9800, lines=("Across the last cut",)),
)

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.parametrize("player", PLAYERS)]

WATCH = """() => {
  const canvas = document.createElement("canvas"), context = canvas.getContext("2d", {willReadFrequently: true});
  window.shows = () => {
    const [columns, rows] = [4, 5], [w, h] = [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    context.drawImage(video, 0, 0, w, h);
    let number = 0;
    for (let cell = 0; cell < 16; cell++) {
      const x = Math.floor((cell % columns + 0.5) * w / columns);
      const y = Math.floor((Math.floor(cell / columns) + 0.5) * h / rows);
      number = number * 2 + (context.getImageData(x, y, 1, 1).data[1] > 128);
    }
    return number;
  };
  window.seen = [];
  const look = (_now, frame) => {
    window.seen.push({time: frame.mediaTime, number: window.shows()});
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
}"""
"""Read the number that the picture shows (`makers.make_clip`), and write down that of every presented frame."""


def pause(page: Page) -> None:
    """Once it plays: shaka-player loses its way where a viewer jumps before the first picture."""
    wait_for(page, "video.readyState >= 3")
    page.evaluate("video.pause()")


def plays_to_the_end(page: Page) -> None:
    """From the beginning, without a warning or a wait where pieces meet, every picture in its time."""
    pause(page)
    page.evaluate("video.currentTime = 0")
    wait_for(page, "!video.seeking && video.readyState >= 3")
    page.evaluate(WATCH)
    page.evaluate("reelway.events.length = 0; video.play()")
    wait_for(page, "video.ended")

    end, seen = state(page), page.evaluate("window.seen")
    assert end["duration"] == pytest.approx(float(END_S - START_S), abs=0.025)
    assert end["time"] == pytest.approx(end["duration"], abs=0.04)
    assert end["decoded"]["audioBytes"] > 0
    assert [event for event in end["events"] if event["type"] == "warning"] == []
    # A busy machine may make any player wait; where the pieces meet the tracks' own segments, nothing else may.
    waited = [event["at"] for event in end["events"] if event["type"] == "waiting"]
    assert [at for at in waited if min(abs(at - seam) for seam in SEAMS_S) < 0.25] == []
    numbers = [each["number"] for each in seen]
    assert numbers == sorted(numbers)
    assert set(numbers) <= set(range(FIRST, END))
    # Such a machine presents some frames too late, and skips them.
    assert numbers[0] <= FIRST + 10
    assert numbers[-1] >= END - 10
    # And whoever looks late sees a later picture than he was called for: never an earlier one.
    late = [each["number"] - FIRST - round(each["time"] * RATE) for each in seen]
    assert min(late) == 0
    assert late.count(0) > len(late) / 2


def shows_every_moment(page: Page) -> None:
    """Beside each place where pieces meet, and at both ends: exactly the picture of that moment."""
    pause(page)
    page.evaluate(WATCH)
    for number in MOMENTS:
        page.evaluate("at => { video.currentTime = at }", float((number - FIRST + Fraction(1, 2)) / RATE))
        wait_for(page, f"!video.seeking && video.readyState >= 2 && window.shows() === {number}")


@pytest.fixture(scope="module")
def trimmed(asset_folder: MadeAsset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The asset with captions, trimmed by the command."""
    root = Path(shutil.copytree(asset_folder.root, tmp_path_factory.mktemp("trim") / "out", symlinks=True))
    add_captions(root, asset_folder.id, CUES, language="en", name="English")
    command(root, "trim", asset_folder.id, "--start", str(float(START_S)), "--end", str(float(END_S)))
    return root


def command(root: Path, *words: str) -> dict[str, Any]:
    """What `reelway … --json` printed."""
    line = [sys.executable, "-m", "workers.cli", *words, "--out", str(root), "--json"]
    done = subprocess.run(line, stdout=subprocess.PIPE, check=True, timeout=TIMEOUT_S)
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_plays_every_wanted_frame_across_both_seams(
    player: str, open_player: Callable[..., Page], trimmed: Path
) -> None:
    plays_to_the_end(open_player(player, root=trimmed))


def test_every_moment_shows_its_picture(player: str, open_player: Callable[..., Page], trimmed: Path) -> None:
    shows_every_moment(open_player(player, root=trimmed))


def test_captions_are_right_after_the_trim_and_after_the_revert(
    player: str, open_player: Callable[..., Page], trimmed: Path, asset_folder: MadeAsset, tmp_path: Path
) -> None:
    page = open_player(player, root=trimmed)
    _reads_captions(page, shift=float(START_S), end=float(END_S))

    root = Path(shutil.copytree(trimmed, tmp_path / "out", symlinks=True))
    command(root, "revert", asset_folder.id)
    page = open_player(player, root=root)
    wait_for(page, f"Math.abs(video.duration - {float(asset_folder.duration)}) < 0.04")
    _reads_captions(page, shift=0.0, end=float(asset_folder.duration))


def _reads_captions(page: Page, *, shift: float, end: float) -> None:
    """Every cue is read near both of its ends, as far as they are played, and nothing between them."""
    pause(page)
    page.evaluate("reelway.chooseCaption(0)")
    moments = [(at / 1000, cue.text) for cue in CUES for at in (cue.start_ms + 60, cue.end_ms - 60)]
    for at, text in sorted([*moments, (3.5, ""), (7.0, "")]):
        if shift <= at < end:
            page.evaluate("at => { video.currentTime = at }", at - shift)
            shown = json.dumps(" ".join(text.split()))
            reads = f"reelway.shown.join(' ').replace(/\\s+/g, ' ').trim() === {shown}"
            wait_for(page, f"!video.seeking && video.readyState >= 2 && {reads}")


def test_another_rung_can_be_chosen_at_the_seams(player: str, open_player: Callable[..., Page], trimmed: Path) -> None:
    page = open_player(player, root=trimmed)
    pictures = state(page)["pictures"]
    page.evaluate("video.playbackRate = 0.5")
    for picture in (pictures[-1], pictures[0]):
        page.evaluate("id => reelway.choosePicture(id)", picture["id"])
        wait_for(page, f"video.videoWidth === {picture['width']} && video.videoHeight === {picture['height']}")
    page.evaluate("at => { video.currentTime = at; video.playbackRate = 2 }", float(END_S - START_S) - 1.0)
    wait_for(page, "video.ended")
