"""The commands for a fleet, as people type them: a real Redis, a storage folder and one real worker."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from commands import Said
from fleets import surroundings, working
from makers import make_clip
from redis_server import RedisServer, running_server

from pipeline.requests import new_asset_id
from workers.cli import main

PATIENCE_S = 120
"""Ends a test that would hang; no test waits for it."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """One worker, and the environment in which commands find it."""

    server: RedisServer
    clip: Path
    folder: Path
    environment: dict[str, str]

    def reelway(self, *words: str | Path) -> Said:
        """The command, in this process: loading it takes longer than what it does."""
        out, error, nobody = io.StringIO(), io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, self.environment),
            patch("sys.argv", ["reelway", *map(str, words)]),
            patch("sys.stdin", nobody),
            redirect_stdout(out),
            redirect_stderr(error),
            pytest.raises(SystemExit) as ended,
        ):
            main()
        return Said(code=int(ended.value.code or 0), out=out.getvalue(), error=error.getvalue())

    def reelway_alone(self, *words: str) -> Said:
        """The command in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "workers", *words],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return Said(code=done.returncode, out=done.stdout, error=done.stderr)

    def submit(self, *options: str | Path) -> str:
        """Submit the clip as one small rung; returns the asset's id."""
        said = self.reelway("submit", self.clip, "--resolutions", "240p", "--profile", "fast", *options)
        assert said.code == 0, said.error
        return said.out.strip()

    def status(self, asset: str) -> Any:
        return self.reelway("status", asset, "--json").data

    @contextmanager
    def paused(self, stage: str) -> Iterator[None]:
        assert self.reelway("queues", "pause", stage).code == 0
        try:
            yield
        finally:
            assert self.reelway("queues", "resume", stage).code == 0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with running_server() as server:
        environment = surroundings(server, (folder / "storage").as_uri(), folder) | {"REELWAY_LOCAL_SOURCES": "true"}
        with working(environment, folder / "worker.log"):
            clip = make_clip(folder / "clip.mp4", seconds=2)
            yield Fleet(server=server, clip=clip, folder=folder, environment=environment)


@pytest.fixture(scope="module")
def ready(fleet: Fleet) -> str:
    """An asset that was made by `submit --wait`."""
    return fleet.submit("--wait", "--title", "A clip")


# -- asking -----------------------------------------------------------------------------------------------------------


def test_what_was_submitted_is_ready_when_the_command_returns(fleet: Fleet, ready: str) -> None:
    status = fleet.status(ready)

    assert (status["asset"]["title"], status["asset"]["video"]["status"]) == ("A clip", "Completed")
    assert [(job["type"], job["status"], job["progress"]) for job in status["jobs"]] == [("process", "succeeded", 1.0)]
    assert status["running"] == []
    assert (fleet.folder / "storage" / "transcoded" / ready / "video.m3u8").is_file()


def test_a_person_sees_the_same(fleet: Fleet, ready: str) -> None:
    shown = fleet.reelway("status", ready).out
    history = fleet.reelway("history", ready).out
    watched = fleet.reelway("watch", ready)

    assert f"{ready}  Completed" in shown
    assert "succeeded" in shown
    assert "process" in history
    assert (watched.code, watched.out) == (0, f"{ready} Completed\n")


def test_the_history_outlives_redis(fleet: Fleet, ready: str) -> None:
    (known,) = fleet.reelway("history", ready, "--json").data
    with running_server() as empty:
        elsewhere = Fleet(
            server=empty,
            clip=fleet.clip,
            folder=fleet.folder,
            environment={**fleet.environment, "REELWAY_REDIS_URL": empty.url()},
        )
        (told,) = elsewhere.reelway("history", ready, "--json").data
        status = elsewhere.status(ready)

    assert told["job"]["id"] == known["job"]["id"]
    assert {step["id"]: step["status"] for step in told["steps"]} == dict.fromkeys(
        (step["id"] for step in known["steps"]), "succeeded"
    )
    assert (status["asset"]["id"], status["jobs"]) == (ready, [])


def test_a_job_that_fails_is_told_and_found_again(fleet: Fleet) -> None:
    broken = fleet.folder / "broken.mp4"
    broken.write_bytes(b"no video at all" * 100)
    said = fleet.reelway("submit", broken, "--wait", "--id", "brokenclip1")

    assert (said.code, said.refusal) == (1, "media_url_unsupported_format")
    assert fleet.reelway("watch", "brokenclip1").code == 1
    assert "media_url_unsupported_format" in fleet.reelway("why", "brokenclip1").out
    (dead,) = fleet.reelway("dead", "ls", "--json").data["jobs"]
    assert (dead["asset_id"], dead["error"]["code"]) == ("brokenclip1", "media_url_unsupported_format")
    assert "media_url_unsupported_format" in fleet.reelway("dead", "show", "brokenclip1").out

    broken.write_bytes(fleet.clip.read_bytes())
    assert fleet.reelway("dead", "replay", dead["id"]).out == "brokenclip1\n"
    assert fleet.reelway("watch", "brokenclip1").code == 0


def test_a_script_reads_of_a_failed_job_why(fleet: Fleet) -> None:
    broken = fleet.folder / "broken-script.mp4"
    broken.write_bytes(b"no video at all" * 100)
    said = fleet.reelway("submit", broken, "--wait", "--json", "--id", "brokenclip2")

    assert (said.code, said.refusal) == (1, "media_url_unsupported_format")
    document = json.loads(said.out)
    assert (document["id"], document["video"]["error"]["code"]) == ("brokenclip2", "media_url_unsupported_format")


def test_all_that_failed_is_asked_for_again_but_for_what_is_history(fleet: Fleet) -> None:
    broken = fleet.folder / "broken-all.mp4"
    broken.write_bytes(b"no video at all" * 100)
    for asset in ("brokenclip3", "brokenclip4", "brokenclip5"):
        assert fleet.reelway("submit", broken, "--wait", "--id", asset).code == 1
    broken.write_bytes(fleet.clip.read_bytes())
    assert fleet.reelway("dead", "replay", "brokenclip4").code == 0
    assert fleet.reelway("watch", "brokenclip4").code == 0
    assert fleet.reelway("delete", "brokenclip5", "--yes", "--wait").code == 0

    said = fleet.reelway("dead", "replay", "--all")

    assert said.code == 0, said.error
    assert "brokenclip3" in said.out.split()
    assert not {"brokenclip4", "brokenclip5"} & set(said.out.split())
    assert "passed over" in said.error
    assert fleet.reelway("watch", "brokenclip3").code == 0


def test_a_batch_is_taken_as_a_whole(fleet: Fleet, tmp_path: Path) -> None:
    ids = [new_asset_id() for _ in range(3)]
    members = [{"url": str(fleet.clip), "asset_id": id_, "resolutions": ["240p"], "profile": "fast"} for id_ in ids]
    (tmp_path / "many.jsonl").write_text("".join(json.dumps(member) + "\n" for member in members))
    with fleet.paused("ingest"):
        said = fleet.reelway("submit", "--batch", tmp_path / "many.jsonl", "--json")
        taken = [json.loads(line) for line in said.out.splitlines()]
        waiting = [fleet.status(id_)["jobs"][0] for id_ in ids]
        for id_ in ids:
            fleet.reelway("cancel", id_)

    assert [(each["index"], each["asset_id"]) for each in taken] == list(enumerate(ids))
    assert [job["id"] for job in waiting] == [each["job"] for each in taken]
    assert {job["status"] for job in waiting} == {"active"}


@pytest.mark.parametrize("wrong", [{"profile": "nosuch"}, {"resolutions": ["999p"]}], ids=["by the fleet", "here"])
def test_of_a_batch_that_is_refused_nothing_is_left(fleet: Fleet, tmp_path: Path, wrong: dict[str, Any]) -> None:
    ids = [new_asset_id() for _ in range(4)]
    members = [{"url": "/clip.mp4", "asset_id": id_, **(wrong if n == 2 else {})} for n, id_ in enumerate(ids)]
    (tmp_path / "many.json").write_text(json.dumps(members))
    said = fleet.reelway("submit", "--batch", tmp_path / "many.json")

    assert (said.code, said.out) == (2, "")
    assert said.refusal in ("profile_unknown", "parameter_invalid")
    assert "request 3 (index 2)" in said.error
    assert fleet.reelway("status", ids[0]).refusal == "asset_not_found"


def test_only_what_is_missing_is_made(fleet: Fleet, ready: str) -> None:
    before = fleet.status(ready)["asset"]
    said = fleet.reelway("reprocess", ready, "--resolutions", "240p", "--wait", "--json")

    assert said.data["video"]["status"] == "Completed"
    job = fleet.status(ready)["jobs"][0]
    assert (job["type"], job["status"]) == ("reprocess", "succeeded")
    assert "transcode" not in {step["stage"] for step in fleet.reelway("history", ready, "--json").data[-1]["steps"]}
    assert said.data["video"]["renditions"] == before["video"]["renditions"]


def test_manifests_are_rendered_again(fleet: Fleet, ready: str) -> None:
    before = fleet.status(ready)["asset"]["presentation"]
    said = fleet.reelway("repackage", ready, "--wait", "--json")

    assert said.data["presentation"] > before


def test_an_asset_expires_when_it_is_told_to(fleet: Fleet, ready: str) -> None:
    assert fleet.reelway("expire", ready, "2100-01-31T12:00").code == 0
    assert fleet.status(ready)["asset"]["expire_at"] == 4_105_080_000_000
    assert fleet.reelway("expire", ready, "never").code == 0
    assert fleet.status(ready)["asset"]["expire_at"] == 0
    assert fleet.reelway("expire", ready, "soon").refusal == "parameter_invalid"


def test_what_is_deleted_is_gone(fleet: Fleet) -> None:
    asset = fleet.submit("--wait")
    assert fleet.reelway("delete", asset).code == 2, "it asks first"
    assert fleet.reelway("delete", asset, "--yes", "--wait").code == 0

    assert fleet.reelway("watch", asset).out == f"{asset} deleted\n"
    left = [path for path in (fleet.folder / "storage").rglob("*") if asset in str(path) and path.is_file()]
    assert [path.name for path in left] == ["deleted.json"]
    assert fleet.reelway("retry", asset).refusal == "asset_deleted"


# -- intervening ------------------------------------------------------------------------------------------------------


def test_a_paused_stage_lets_jobs_wait_and_says_so(fleet: Fleet) -> None:
    with fleet.paused("ingest"):
        asset = fleet.submit("--priority", "bulk", "--organization", "acme")
        queue = next(each for each in fleet.reelway("queues", "ls", "--json").data if each["stage"] == "ingest")
        reason = fleet.reelway("why", asset).out
        assert fleet.reelway("prioritize", asset, "high").code == 0
        job = fleet.status(asset)["jobs"][0]

    assert (queue["paused"], queue["ready"]["bulk"], queue["organizations"]) == (True, 1, {"acme": 1})
    assert queue["workers"] == 1
    assert "ingest is paused" in reason
    assert (job["priority"], job["organization"]) == ("high", "acme")
    assert fleet.reelway("watch", asset).code == 0


def test_a_held_asset_waits_until_it_is_released(fleet: Fleet) -> None:
    with fleet.paused("ingest"):
        asset = fleet.submit()
        assert fleet.reelway("hold", asset).code == 0
    held = fleet.status(asset)["jobs"][0]
    reason = fleet.reelway("why", asset).out
    assert fleet.reelway("release", asset).out == f"{held['id']}\n"

    assert (held["held"], held["status"]) == (True, "active")
    assert "It is held" in reason
    assert fleet.reelway("watch", asset).code == 0


@pytest.mark.raises_code("cancelled")
def test_what_is_cancelled_may_be_asked_for_again(fleet: Fleet) -> None:
    with fleet.paused("ingest"):
        asset = fleet.submit()
        (job,) = fleet.status(asset)["jobs"]
        assert fleet.reelway("cancel", asset).out == f"{job['id']}\n"
        watched = fleet.reelway("watch", asset)
        assert fleet.reelway("retry", asset).out == f"{asset}\n"

    assert (watched.code, watched.refusal) == (1, "cancelled")
    assert fleet.reelway("watch", asset).code == 0
    assert [each["status"] for each in fleet.status(asset)["jobs"]] == ["succeeded", "cancelled"]


# -- wrong calls and bad days -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "refusal"),
    [
        (["submit"], 2, "parameter_invalid"),
        (["submit", "/no/such/file.mp4"], 2, "parameter_invalid"),
        pytest.param(
            ["submit", "https://example.com/a.mp4", "--profile", "nosuch"],
            2,
            "profile_unknown",
            marks=pytest.mark.raises_code("profile_unknown"),
        ),
        (["submit", "https://example.com/a.mp4", "--id", "short"], 2, "parameter_invalid"),
        (["submit", "--batch", "/no/such/file"], 2, "parameter_invalid"),
        (["submit", "https://example.com/a.mp4", "--expire-at", "999999999999999"], 2, "parameter_invalid"),
        (["status", "../x"], 2, "parameter_invalid"),
        (["watch", "../x"], 2, "parameter_invalid"),
        (["why", "../x"], 2, "parameter_invalid"),
        (["history", "../x"], 2, "parameter_invalid"),
        pytest.param(["status", "nosuchasset"], 1, "asset_not_found", marks=pytest.mark.raises_code("asset_not_found")),
        (["watch", "nosuchasset"], 1, "asset_not_found"),
        (["history", "nosuchasset"], 1, "asset_not_found"),
        (["cancel", "nosuchasset"], 1, "asset_not_found"),
        (["retry", "nosuchasset"], 1, "asset_not_found"),
        (["cancel", "no id"], 2, "parameter_invalid"),
        pytest.param(
            ["dead", "show", "nosuchasset"], 1, "job_not_found", marks=pytest.mark.raises_code("job_not_found")
        ),
        (["dead", "replay"], 2, "parameter_invalid"),
        (["queues", "pause", "nosuchstage"], 2, "parameter_invalid"),
        (["reprocess", "nosuchasset", "--resolutions", "999p"], 2, "parameter_invalid"),
    ],
)
def test_what_cannot_be_done_is_one_line(fleet: Fleet, words: list[str], code: int, refusal: str) -> None:
    said = fleet.reelway(*words)

    assert (said.code, said.out, said.refusal) == (code, "", refusal)


@pytest.mark.parametrize(
    "words", [["status", "k3v9x0q2m7a"], ["submit", "https://example.com/a.mp4"], ["queues", "ls"]]
)
def test_without_redis_it_is_one_line(fleet: Fleet, words: list[str]) -> None:
    with running_server() as server:
        url = server.url()
    away = Fleet(
        server=fleet.server,
        clip=fleet.clip,
        folder=fleet.folder,
        environment={**fleet.environment, "REELWAY_REDIS_URL": url},
    )
    said = away.reelway_alone(*words)

    assert (said.code, said.refusal) == (1, "queue_unavailable")
