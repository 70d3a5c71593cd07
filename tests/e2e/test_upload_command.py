"""Uploads as people and programs make them: a real Redis, a real bucket, one real worker, and a command that is
killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fleets import surroundings, working
from makers import make_clip
from needs import Require
from redis_server import RedisServer, running_server
from s3_server import S3Server

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120
"""Ends a test that would hang; no test waits for it."""
SMALL_PARTS = "import pipeline.upload_start as start; start._PART_BYTES = 5 * start.MIB"
"""S3's smallest, so that a small file has several."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """One worker, and the environment in which commands find it."""

    server: RedisServer
    folder: Path
    environment: dict[str, str]

    def run(self, *words: str | Path, before: str = "", code: int = 0) -> str:
        """The command in a process of its own. Returns what it printed."""
        program = f"{SMALL_PARTS}\n{before}\nfrom workers.cli import main\nmain()"
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, words)],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    def json(self, *words: str | Path) -> Any:
        return json.loads(self.run(*words, "--json"))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, shared_s3: S3Server) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with running_server() as server:
        environment = surroundings(server, shared_s3.url("uploads"), folder)
        with working(environment, folder / "worker.log"):
            yield Fleet(server=server, folder=folder, environment=environment)


def a_clip(path: Path, size: int) -> Path:
    """A video of so many bytes: most of them mean nothing (ISO 14496-12 §8.1.2)."""
    make_clip(path, seconds=1)
    padding = size - path.stat().st_size
    with path.open("ab") as file:
        file.write(padding.to_bytes(4, "big") + b"free" + os.urandom(padding - 8))
    return path


KILLED = """
import os, signal, threading
from workers import uploading
put, done, one = uploading._put, [], threading.Lock()
def dying(url, body):
    with one:  # else all of them might arrive before it dies
        etag = put(url, body)
        done.append(etag)
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    return etag
uploading._put = dying
"""


def test_an_upload_that_is_killed_goes_on_where_it_was(fleet: Fleet) -> None:
    clip = a_clip(fleet.folder / "Ferien am Meer.mp4", 40 * 1024**2)
    words = ("upload", clip, "--title", "Am Meer", "--resolutions", "240p", "--profile", "fast")
    fleet.run(*words, before=KILLED, code=-signal.SIGKILL)
    (begun,) = (json.loads(line) for line in fleet.run("uploads", "ls", "--json").splitlines())
    there = [part for part in fleet.json("uploads", "parts", begun["id"])["parts"] if "etag" in part]
    assert 3 <= len(there) < 8
    count = "from workers import uploading\nput = uploading._put\n"
    count += "def told(url, body):\n    number = url.split('partNumber=')[1][:1]\n"
    count += "    print('PUT ' + number + chr(10), end='')\n    return put(url, body)\n"  # whole lines: threads print
    count += "uploading._put = told\n"

    said = fleet.run(*words, "--wait", "--json", before=count).splitlines()

    sent = {int(line.split()[1]) for line in said if line.startswith("PUT ")}
    assert sent, "there was something left to do"
    assert not sent & {part["partNumber"] for part in there}, "what was there is not sent again"
    document = json.loads(said[-1])
    assert (document["id"], document["title"], document["bytes"]) == (begun["assetId"], "Am Meer", 40 * 1024**2)
    assert document["video"]["status"] == "Completed"
    assert document["video"]["inputs"] == [{"url": f"private/{begun['assetId']}.mp4"}]
    assert fleet.run("uploads", "ls") == ""
    assert list((fleet.folder / "state/reelway/uploads").iterdir()) == [], "and nothing is remembered of it"


def test_a_url_that_is_refused_on_the_way_is_asked_for_again(fleet: Fleet) -> None:
    """As if the line had been slow: the first URL of every part is refused."""
    clip = a_clip(fleet.folder / "slow.mp4", 6 * 1024**2)
    refused = "from workers import uploading\nput, known = uploading._put, set()\n"
    refused += "def late(url, body):\n    number = url.split('partNumber=')[1][:1]\n"
    refused += "    bad = number not in known\n    known.add(number)\n"
    refused += "    return put(url.replace('X-Amz-Expires=3600', 'X-Amz-Expires=1') if bad else url, body)\n"
    refused += "uploading._put = late\n"

    asset = fleet.run("upload", clip, "--profile", "fast", "--resolutions", "240p", "--wait", before=refused).strip()

    assert fleet.json("status", asset)["asset"]["video"]["status"] == "Completed"


def test_what_cannot_be_served_is_refused_and_nobody_hears_of_a_url_of_a_part(fleet: Fleet) -> None:
    junk = fleet.folder / "junk.mp4"
    junk.write_bytes(os.urandom(100_000))

    error = fleet.run("upload", junk, "--wait", code=1)

    assert re.search(r"^error: [a-z_]+: ", error, re.MULTILINE), error
    with fleet.server.client() as client:
        told = b"".join(value for _, entry in client.xrange("reelway:events") for value in entry.values())  # type: ignore[union-attr, misc]
    assert b"junk.mp4" in told
    for text in (told, (fleet.folder / "worker.log").read_bytes(), error.encode()):
        assert b"X-Amz" not in text


def test_a_subtitle_is_brought_to_an_asset(fleet: Fleet) -> None:
    clip = a_clip(fleet.folder / "clip.mp4", 100_000)
    asset = fleet.run("upload", clip, "--profile", "fast", "--resolutions", "240p", "--wait").strip()
    (fleet.folder / "de.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nHallo\n")

    key = fleet.run("upload", fleet.folder / "de.vtt", "--parent", asset, "--relationship", "subtitle").strip()

    assert re.fullmatch(rf"private/{asset}/uploads/{asset}_[0-9a-f]{{16}}\.vtt", key)


def test_wrong_calls_are_told(fleet: Fleet) -> None:
    for words in (("upload", fleet.folder / "nothing.mp4"), ("uploads", "start", "{"), ("uploads", "start", "[]")):
        assert "parameter_invalid" in fleet.run(*words, code=2)
    assert "upload_not_found" in fleet.run("uploads", "parts", "abcdefghijk_0123456789abcdef", code=1)
    assert "upload_not_found" in fleet.run("uploads", "cancel", "../../etc/passwd", code=1)


def test_the_page_does_what_it_says(fleet: Fleet, tmp_path: Path, require: Require) -> None:
    require(shutil.which("curl"), "there is no curl")
    page = (ROOT / "docs/how-to/upload.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/reelway").write_text(f'#!/bin/sh\nexec {sys.executable} -m workers "$@"\n')
    (tmp_path / "bin/reelway").chmod(0o755)
    a_clip(tmp_path / "lecture.mp4", 40_000_000)
    environment = {**os.environ, **fleet.environment, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}

    done = subprocess.run(
        ["sh", "-euc", "".join(blocks)],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        check=False,
        text=True,
        capture_output=True,
        timeout=PATIENCE_S,
    )

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    came = json.loads(lines[-1])
    assert came["job"] == came["id"]
    assert len(lines) == 3 + 4 + 1, "three confirmed parts, the upload with its parts, the job"


STOPPED = """
import os, signal, threading
from workers import uploading
put, done, one = uploading._put, [], threading.Lock()
def stopping(url, body):
    with one:
        etag = put(url, body)
        done.append(etag)
        if len(done) == 2:
            os.kill(os.getpid(), signal.SIGINT)
    return etag
uploading._put = stopping
"""


def test_who_stops_an_upload_hears_how_to_go_on_and_then_how_far_it_was(fleet: Fleet) -> None:
    clip = a_clip(fleet.folder / "two words.mp4", 30 * 1024**2)

    stopped = fleet.run("upload", clip, "--profile", "fast", "--resolutions", "240p", before=STOPPED, code=130)
    (begun,) = (json.loads(line) for line in fleet.run("uploads", "ls", "--json").splitlines())
    there = sum(part["size"] for part in fleet.json("uploads", "parts", begun["id"])["parts"] if "etag" in part)
    again = fleet.run("upload", clip, "--resume", begun["id"], before="import sys\nsys.stderr = sys.stdout")

    first, *_, last = stopped.splitlines()
    assert first == f"upload {begun['id']} begins: 31.5 MB"
    assert last.startswith("interrupted; the same command goes on where it was")
    assert last.endswith(f"upload '{clip}' --resume {begun['id']}")
    assert there >= 2 * 5 * 1024**2
    assert again.splitlines() == [
        f"upload {begun['id']} goes on: {there / 1e6:,.1f} of 31.5 MB are there",
        begun["assetId"],
    ]
