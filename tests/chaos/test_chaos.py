"""A smaller storm than `make chaos`, on real Redis, real S3 and real worker processes, with the same verdict.

`CHAOS_SEED` repeats a run as far as the machine's scheduling allows.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from figures import show
from needs import Require
from ours import Chaos
from s3_server import WEED
from storm import Faults

from workers.embedded import find_server


@pytest.fixture
def seed(require: Require) -> int:
    require(WEED.exists() and find_server().path, "there is no redis-server or no S3 server")
    return int(os.environ.get("CHAOS_SEED") or random.randrange(10**6))


def test_toy_assets_come_through_a_storm(seed: int, tmp_path: Path) -> None:
    """Killed workers, zombies, a killed and a silent Redis, a killed S3: nothing lost, nothing twice, no gap."""
    faults = Faults(kills=12, zombies=3, redis_kills=1, redis_pauses=1, s3_kills=1)
    run = Chaos(
        form="toy", assets=25, faults=faults, seed=seed, folder=tmp_path, workers=3, pace_s=1.5, timeout_s=240
    ).run()
    show([run])

    assert run.clean, f"seed {seed}: {run.findings}"


def test_real_clips_come_through_a_storm(seed: int, tmp_path: Path) -> None:
    """The same with real media and the workers as they ship; what is made of one clip is the same, byte for byte."""
    faults = Faults(kills=3, zombies=1, redis_kills=1)
    run = Chaos(
        form="real", assets=5, faults=faults, seed=seed, folder=tmp_path, workers=2, pace_s=2.0, timeout_s=240
    ).run()
    show([run])

    assert run.clean, f"seed {seed}: {run.findings}"
