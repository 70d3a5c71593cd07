"""The commands beside `process`, as a newcomer types them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from assets import MadeAsset

REELWAY = [sys.executable, "-m", "workers"]


def reelway(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*REELWAY, *map(str, words)], capture_output=True, text=True, timeout=240, check=False)


def test_the_demo_ends_with_commands_that_work_as_they_are_printed(tmp_path: Path) -> None:
    done = reelway("demo", "--out", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    printed = [line[8:] for line in done.stdout.splitlines() if " ls --out " in line]
    listed = subprocess.run(printed[0], shell=True, capture_output=True, text=True, timeout=60, check=True)
    assert "Completed" in listed.stdout


def test_ls_shows_what_was_made(asset_folder: MadeAsset) -> None:
    lines = reelway("ls", "--out", asset_folder.root, "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [asset_folder.id]
    assert asset_folder.id in reelway("ls", "--out", asset_folder.root).stdout


def test_ls_of_nothing_says_how_to_begin(tmp_path: Path) -> None:
    done = reelway("ls", "--out", tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "process VIDEO" in done.stderr


def test_play_serves_the_newest_asset(asset_folder: MadeAsset) -> None:
    command = [*REELWAY, "play", "--out", str(asset_folder.root), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=no_browser())
    try:
        assert process.stdout is not None
        url = next(word for word in process.stdout.readline().split() if word.startswith("http"))
        with urllib.request.urlopen(f"{url}transcoded/{asset_folder.id}/video.m3u8", timeout=10) as reply:
            assert reply.read().startswith(b"#EXTM3U")
    finally:
        process.terminate()
        process.communicate()


def no_browser() -> dict[str, str]:
    import os

    return {**os.environ, "BROWSER": "true", "PYTHONUNBUFFERED": "1"}


def test_a_port_that_is_taken_is_one_line(asset_folder: MadeAsset) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        done = reelway("play", "--out", asset_folder.root, "--port", str(holder.getsockname()[1]))
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("asset_id", [(), ("nosuchasset",)])
def test_play_of_nothing_is_one_line(asset_id: tuple[str, ...], tmp_path: Path) -> None:
    done = reelway("play", *asset_id, "--out", tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_url_that_may_not_be_read_is_refused_before_anything_starts(tmp_path: Path) -> None:
    done = reelway("process", "https://user:secret@example.com/clip.mp4", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "source_forbidden" in done.stderr
    assert "secret" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_doctor_finds_this_machine_fit() -> None:
    done = reelway("doctor", "--json")
    assert done.returncode == 0
    findings = {finding["name"]: finding["state"] for finding in json.loads(done.stdout)}
    assert findings["encoders"] == "ok"
    assert "missing" not in findings.values()
