"""A real browser, for the tests that look at what a person would see."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from assets import MadeAsset
from needs import Require
from pages import wait_for
from playwright.sync_api import Browser, Page, sync_playwright

from workers.serve import players_dir, serve

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")

FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # A browser in a closed network calls home many times a minute, and waits for it.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Sound without a click, which is what the page asks for.
    "--autoplay-policy=no-user-gesture-required",
    # /dev/shm is small in containers.
    "--disable-dev-shm-usage",
]


@pytest.fixture(scope="session")
def browser(require: Require) -> Iterator[Browser]:
    """Chromium with H.264 and AAC: the system's, because the builds that test tools download have neither."""
    program = os.environ.get("REELWAY_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None and MAC.exists():
        program = str(MAC)
    require(program, "there is no Chromium (Debian: apt-get install chromium)")
    # Chromium refuses to run as root inside its sandbox.
    flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else FLAGS
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def open_player(browser: Browser, asset_folder: MadeAsset, require: Require) -> Iterator[Callable[..., Page]]:
    """`open_player(name)`: the page of the asset, playing in the player of that name; `root=`, `asset=`: of another
    folder, another asset."""
    require(players_dir(), "the players are not installed (make install)")
    with ExitStack() as stack:

        def open_player(name: str, root: Path = asset_folder.root, asset: str = asset_folder.id) -> Page:
            server = stack.enter_context(serve(root, asset, title="A test"))
            page = stack.enter_context(browser.new_context()).new_page()
            page.set_default_timeout(120_000)
            page.goto(f"{server.url}?player={name}")
            wait_for(page, "window.reelway?.ready")
            return page

        yield open_player
