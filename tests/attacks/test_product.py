"""The whole product, as a person starts it, under attack: nothing is read, nothing is fetched, nothing comes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from makers import make_clip
from playlists import Bait, attacks
from watching import Listener, Tripwire, free_udp_ports, listening
from web_server import running_web

CANARY = "canary5ecret"
CHOSEN = (
    *("near.ffconcat", "web.ffconcat", "far.m3u8", "web.m3u8", "key.m3u8", "tagged.m3u8", "live.m3u8", "web.mpd"),
    *("entity.mpd", "listen.sdp", "redirect.mov", "url-far.mov", "alias-far.mov", "reference-near.mov", "linked.mkv"),
    *("subtitles.avi", "cover.mp3", "cover.flac", "picture%03d.png", "canary.idx", "drawing.svg", "tracks.cue"),
)


def reelway(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workers.cli", *words]
    environ = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environ)


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture
def bait(listener: Listener, tmp_path: Path) -> Bait:
    folder = tmp_path / "bait"
    folder.mkdir()
    bait = Bait(folder=folder, tcp=listener.port, udp=free_udp_ports())
    for path in (bait.movie, bait.stream):
        make_clip(path, seconds=0.4, size=(64, 64), audio=None)
    bait.words.write_text(CANARY)
    return bait


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells who opens a file")
def test_a_folder_of_attacks_is_refused_file_by_file(bait: Bait, listener: Listener, tmp_path: Path) -> None:
    attacked = tmp_path / "attacks"
    attacked.mkdir()
    for name in CHOSEN:
        (attacked / f"{name}.mp4").write_bytes(attacks(bait)[name])
    wire = Tripwire([bait.movie, bait.stream, bait.words])

    report = tmp_path / "report.jsonl"

    done = reelway("corpus", str(attacked), "--json", "--report", str(report))
    again = reelway("corpus", str(attacked), "--json", "--report", str(report))

    assert (again.returncode, again.stdout, report.read_text()) == (0, "", done.stdout)
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(outcome["path"] for outcome in outcomes) == sorted(f"{name}.mp4" for name in CHOSEN)
    ready = {outcome["path"] for outcome in outcomes if outcome["code"] is None}
    assert ready <= {"linked.mkv.mp4"}, "only what plays without what it names"
    assert wire.tripped() == set()
    assert listener.knocks == []
    assert CANARY not in done.stdout + done.stderr
    assert "0 workers lost, 0 objects left behind" in done.stderr
    wire.close()


@pytest.mark.parametrize("name", ["web.m3u8", "subtitles.avi"])
def test_an_attack_from_the_web_is_refused(name: str, bait: Bait, listener: Listener, tmp_path: Path) -> None:
    content = attacks(bait)[name]
    with running_web(lambda request: request.reply(content)) as web:
        allowed = {"REELWAY_SOURCE_ALLOW": "127.0.0.1", "REELWAY_SOURCE_PORTS": "any"}
        done = reelway("process", f"{web.url}/film.mp4", "--out", str(tmp_path / "out"), **allowed)

    assert done.returncode == 1
    assert "error: media_url_" in done.stderr
    assert {request.path for request in web.requests} == {"/film.mp4"}
    assert listener.knocks == []
    assert not list(tmp_path.rglob("*.m3u8"))
