"""The text that a film brings can be read in every player, from its first version on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import m3u8
import pytest
from assets import TIMEOUT_S
from av.stream import Disposition
from pages import state, wait_for
from playwright.sync_api import Page
from texts import Said, TextIn, make_captioned_clip, make_text_clip, pop_on

from pipeline.media.webvtt import read_styled

RATE = 25
CAPTION = (100, 150, "Fifth second")
SAID = (Said(start=1, end=2, text="First <i>second</i>"), Said(start=4.5, end=6, text="Fifth & sixth"))


@dataclass(frozen=True, kw_only=True)
class Film:
    """A processed film with text, and everything that was told of it."""

    root: Path
    document: dict[str, Any]
    events: list[dict[str, Any]]

    @property
    def id(self) -> str:
        return str(self.document["id"])

    @property
    def public(self) -> Path:
        return self.root / "transcoded" / self.id

    def data(self, name: str) -> list[dict[str, Any]]:
        return [event["data"] for event in self.events if event["type"] == f"dev.reelway.{name}.v1"]


def reelway(*words: str) -> str:
    command = [sys.executable, "-m", "workers.cli", *words]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=TIMEOUT_S, text=True).stdout


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Film:
    """Eight seconds: English and forced German subtitles, subtitles in no language, and captions in the picture."""
    folder = tmp_path_factory.mktemp("film")
    clip = make_captioned_clip(folder / "captioned.mp4", pop_on([CAPTION]), seconds=8, rate=RATE, size=(426, 240))
    source = make_text_clip(
        folder / "film.mkv",
        TextIn(codec="subrip", said=SAID),
        TextIn(codec="ass", said=SAID[:1], language="ger", disposition=Disposition.forced),
        TextIn(codec="subrip", said=SAID, language=None, title='The "director" speaks'),
        clip=clip,
    )
    events = folder / "events.jsonl"
    options = ["--out", str(folder / "out"), "--resolutions", "240p", "--profile", "fast", "--events", str(events)]
    document = json.loads(reelway("process", str(source), *options, "--json"))
    told = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    return Film(root=folder / "out", document=document, events=told)


EXPECTED = [
    ("text-1-en", "English", "en"),
    ("text-2-de", "German (forced)", "de"),
    ("text-3-und", 'The "director" speaks', "und"),
    ("text-4-en", "English (CC)", "en"),
]


def test_the_document_lists_the_text_of_the_source(film: Film) -> None:
    tracks = film.document["video"]["tracks"]

    assert [(track["track"], track["name"], track["language"]) for track in tracks] == EXPECTED
    assert [track["id"] for track in tracks] == [1, 2, 3, 4], "in a storage of its own they are the first"
    assert {(track["type"], track["auto_generated"]) for track in tracks} == {("Subtitle", False)}
    for track in tracks:
        (file,) = (film.public / "subtitles" / track["track"]).glob("*.vtt")
        assert track["url"].endswith(str(file.relative_to(film.root)))
        assert read_styled(file.read_text())
    ready = {data["track"]: data["kind"] for data in film.data("track.ready")}
    assert [id_ for id_, kind in ready.items() if kind == "text"] == [id_ for id_, _, _ in EXPECTED]


def test_it_is_there_with_the_first_version(film: Film) -> None:
    assert [path.name for path in sorted((film.public / "presentations").iterdir())] == ["0001"]
    (playable,) = film.data("asset.playable")
    assert [track["track"] for track in playable["asset"]["video"]["tracks"]] == [id_ for id_, _, _ in EXPECTED]


def test_the_manifests_say_what_each_text_is(film: Film) -> None:
    master = m3u8.loads((film.public / "video.m3u8").read_text())
    texts = [media for media in master.media if media.type == "SUBTITLES"]

    assert [(m.name, m.language, m.forced, m.autoselect) for m in texts] == [
        ("English", "en", "NO", "YES"),
        ("German (forced)", "de", "YES", "YES"),
        ("The 'director' speaks", None, "NO", "YES"),
        ("English (CC)", "en", "NO", "YES"),
    ]
    assert "transcribes-spoken-dialog" in str(texts[3].characteristics)
    assert [bool(media.characteristics) for media in texts] == [False, False, False, True]
    mpd = (film.public / "video.mpd").read_text()
    assert [mpd.count(f'value="{role}"') for role in ("subtitle", "forced-subtitle", "caption")] == [2, 1, 1]
    assert 'lang="und"' not in mpd


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("player", ["hls.js", "shaka-hls", "shaka-dash"])
def test_players_show_it_in_its_time(player: str, open_player: Callable[..., Page], film: Film) -> None:
    page = open_player(player, root=film.root, asset=film.id)
    page.evaluate("video.pause()")
    captions = state(page)["captions"]
    names = [caption["name"] for caption in captions]
    assert {"English", "English (CC)"} <= set(names), names

    for name, moments in (
        ("English", [(0.5, ""), (1.1, "First second"), (3, ""), (5, "Fifth & sixth")]),
        ("English (CC)", [(3.9, ""), (4.1, "Fifth second"), (5.9, "Fifth second"), (6.2, "")]),
    ):
        page.evaluate("at => reelway.chooseCaption(at)", names.index(name))
        for at, text in moments:
            page.evaluate("at => { video.currentTime = at }", at)
            shown = "reelway.shown.join(' ').replace(/\\s+/g, ' ').trim()"
            wait_for(page, f"!video.seeking && video.readyState >= 2 && {shown} === {json.dumps(text)}")
