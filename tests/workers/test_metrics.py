"""A worker's metrics are served, or it says why not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from workers import metrics

PATIENCE_S = 60.0


@pytest.mark.raises_code("setting_invalid")
@pytest.mark.parametrize("port", [1 << 16, -1])
def test_a_port_that_there_is_not_is_a_wrong_setting(port: int) -> None:
    with pytest.raises(PipelineError, match="REELWAY_METRICS_PORT") as caught:
        metrics.serve(port)

    assert caught.value.code == "setting_invalid"


def test_a_worker_whose_port_is_taken_ends_with_one_coded_line(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        settings = {"METRICS_PORT": str(port), "STORAGE_URL": tmp_path.as_uri(), "SCRATCH_DIR": str(tmp_path)}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("REELWAY_")}
        ended = subprocess.run(
            [sys.executable, "-m", "workers.main"],
            env={**inherited, **{f"REELWAY_{name}": value for name, value in settings.items()}},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: setting_invalid: The setting REELWAY_METRICS_PORT")
    assert str(port) in line
    assert list(tmp_path.iterdir()) == []
