"""Where the encoder of today writes another init segment than a track has, players begin anew at both seams of a trim,
and a viewer sees nothing of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import test_trim_players as trims
from assets import MadeAsset, add_captions
from pages import wait_for
from playwright.sync_api import Page

from pipeline import keys
from pipeline.presentation.publish import latest
from pipeline.storage.folder import FolderStorage

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.parametrize("player", trims.PLAYERS)]


@pytest.fixture(scope="module")
def seamed(asset_folder: MadeAsset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The asset with captions, trimmed by an encoder that keeps more reference frames than the one that made it."""
    root = Path(shutil.copytree(asset_folder.root, tmp_path_factory.mktemp("seams") / "out", symlinks=True))
    add_captions(root, asset_folder.id, trims.CUES, language="en", name="English")
    for history in (root / keys.histories(asset_folder.id)).glob("*.json"):
        text = history.read_text()
        history.write_text(text.replace('"options":[]', '"options":[["x264-params","ref=4"]]'))
    start, end = str(float(trims.START_S)), str(float(trims.END_S))
    trims.command(root, "trim", asset_folder.id, "--start", start, "--end", end)
    shown = latest(FolderStorage(root), asset_folder.id)
    assert shown is not None
    assert shown.edit is not None
    assert [len(patch.seams) for patch in shown.edit.patches] == [2] * len(shown.edit.patches)
    return root


def test_plays_every_wanted_frame_across_both_seams(
    player: str, open_player: Callable[..., Page], seamed: Path
) -> None:
    trims.plays_to_the_end(open_player(player, root=seamed))


def test_every_moment_shows_its_picture(player: str, open_player: Callable[..., Page], seamed: Path) -> None:
    trims.shows_every_moment(open_player(player, root=seamed))


def test_captions_are_read_in_their_time_on_either_side_of_a_seam(
    player: str, open_player: Callable[..., Page], seamed: Path
) -> None:
    page = open_player(player, root=seamed)
    trims.pause(page)
    page.evaluate("reelway.chooseCaption(0)")
    for cue in trims.CUES[1:]:
        for ms in (cue.start_ms + 60, cue.end_ms - 60):
            at = ms / 1000 - float(trims.START_S)
            if 0 <= at < float(trims.END_S - trims.START_S):
                page.evaluate("at => { video.currentTime = at }", at)
                reads = f"reelway.shown.join(' ') === '{cue.text}'"
                wait_for(page, f"!video.seeking && video.readyState >= 2 && {reads}")
