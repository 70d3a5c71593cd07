"""What the page about buckets says is done here, as it stands there: real Redis, real S3, a real worker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from makers import make_clip
from redis_server import running_server
from s3_server import BUCKET, S3Server

from pipeline.job import JobStatus
from pipeline.organizations import load_organizations
from pipeline.storage.s3 import connect
from workers.embedded import end
from workers.settings import Settings
from workers.wiring import control

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "process-what-arrives.md"
PATIENCE_S = 120.0


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(found)


def here(text: str, prefix: str) -> str:
    """The page's bucket is a part of the tests' bucket."""
    return text.replace("s3://uploads/", f"s3://{BUCKET}/{prefix}/")


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return f"arrivals-{tmp_path.name}"


@pytest.mark.slow
def test_what_is_put_into_a_bucket_becomes_an_asset_by_the_pages_rules(
    shared_s3: S3Server, prefix: str, tmp_path: Path
) -> None:
    rules = tmp_path / "organizations.yml"
    rules.write_text(here(block("yaml"), prefix).replace("profile: default", "profile: fast"))
    told: Any = json.loads(block("json"))
    (record,) = told["Records"]
    record["s3"]["bucket"]["name"], found = BUCKET, record["s3"]["object"]
    found["key"] = f"{prefix}/{found['key']}"
    (tmp_path / "notification.json").write_text(json.dumps(told))
    clip = make_clip(tmp_path / "clip.mp4", seconds=1).read_bytes()
    client = connect(endpoint=shared_s3.endpoint, region="us-east-1")
    client.put_object(Bucket=BUCKET, Key=f"{prefix}/news/evening edition.mp4", Body=clip)

    with running_server() as redis:
        storage_url = shared_s3.url(f"{prefix}-store")
        environment = {
            **os.environ,
            "REELWAY_REDIS_URL": redis.url(),
            "REELWAY_STORAGE_URL": storage_url,
            "REELWAY_SOURCE_BUCKETS": shared_s3.url(prefix),
            "REELWAY_ORGANIZATIONS_FILE": str(rules),
            "REELWAY_SCRATCH_DIR": str(tmp_path),
            "REELWAY_GRACE_S": "0",
        }
        words = block("sh").partition("#")[0].split()[1:]
        said = subprocess.run(
            [sys.executable, "-m", "workers.cli", *words],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert said.returncode == 0, said.stderr
        line = json.loads(said.stdout)
        assert line["url"] == f"s3://{BUCKET}/{prefix}/news/evening%20edition.mp4"
        fleet = control(Settings.read(redis_url=redis.url(), storage_url=storage_url))
        worker = subprocess.Popen([sys.executable, "-m", "workers.main"], env=environment, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + PATIENCE_S
            while (job := fleet.store.job(line["request"])) is None or not job.status.ended:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            end(worker, grace_s=10)

    assert (job.status, job.error) == (JobStatus.SUCCEEDED, None)
    assert (job.asset, job.organization, job.priority) == (line["asset_id"], "newsroom", "high")
    assert job.profile["name"] == "fast"


def test_the_pages_rules_are_rules(tmp_path: Path) -> None:
    file = tmp_path / "organizations.yml"
    file.write_text(block("yaml"))

    upload, archive = load_organizations(file).sources["newsroom"]

    assert (upload.in_place, archive.in_place) == (False, True)


@pytest.mark.parametrize(
    ("text", "words", "says"),
    [
        ("{}", (), "no notification"),
        ("half", (), "no JSON"),
        ("{}", ("--wait",), "--wait"),
    ],
)
def test_a_wrong_call_says_so(text: str, words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    """Before anything is sent: there is no Redis here."""
    command = [sys.executable, "-m", "workers.cli", "submit", "--notification", "-", *words]
    environment = {**os.environ, "REELWAY_REDIS_URL": f"unix://{tmp_path}/none?db=0"}

    said = subprocess.run(
        command, input=text, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert said.returncode == 2, said.stderr
    assert says in said.stderr
