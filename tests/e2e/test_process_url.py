"""`reelway process URL` as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from makers import make_clip
from web_server import Web, running_web

CANARY = "canary5ecret"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    clip = make_clip(tmp_path / "clip.mp4", seconds=1).read_bytes()
    with running_web(lambda request: request.reply(clip)) as server:
        yield server


def process(url: str, out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workers.cli", "process", url, "--out", str(out), "--json"]
    options = ["--profile", "fast", "--resolutions", "240p", "--events", str(out.with_suffix(".jsonl"))]
    environ = {**os.environ, **environment}
    return subprocess.run([*command, *options], capture_output=True, text=True, timeout=240, check=False, env=environ)


def test_a_url_becomes_an_asset_and_its_secret_is_told_nowhere(web: Web, tmp_path: Path) -> None:
    url = f"{web.url}/films/clip.mp4?token={CANARY}"
    allowed = {"REELWAY_SOURCE_ALLOW": "127.0.0.1", "REELWAY_SOURCE_PORTS": "any"}

    done = process(url, tmp_path / "out", **allowed)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["video"]["status"] == "Completed"
    assert [request.path for request in web.requests] == [f"/films/clip.mp4?token={CANARY}"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []
    assert CANARY not in done.stdout + done.stderr


def test_this_machines_own_network_is_no_source_and_the_hint_names_the_setting(web: Web, tmp_path: Path) -> None:
    done = process(f"{web.url}/clip.mp4?token={CANARY}", tmp_path / "out", REELWAY_SOURCE_PORTS="any")

    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: source_forbidden: ")
    assert "REELWAY_SOURCE_ALLOW" in last
    assert CANARY not in done.stderr
    assert web.connections == 0
