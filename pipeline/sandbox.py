"""A stage runs in a child process of its own, without network, secrets or much memory.

A crash, a hang or a bomb there ends the child, never the worker: it comes back as a coded error. The child is started
ahead of time and waits, so that the 0.3 s that Python and the codecs need to load are spent while nobody waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "SYSTEMROOT")
"""Everything else stays behind: the environment of a worker holds credentials."""


@dataclass(frozen=True, kw_only=True)
class ChildLimits:
    """What a child may use."""

    memory_bytes: int = 4 * 1024**3
    """Address space."""
    file_bytes: int = 4 * 1024**3
    """Size of one written file."""


class ChildKilled(Exception):
    """The child was ended by `kill`: whoever called it knows why."""


class Child:
    """One process that runs one stage. `kill` may be called from any thread."""

    def __init__(self, scratch: Path) -> None:
        ours, theirs = socket.socketpair()
        self._log = (scratch / f"child-{os.urandom(4).hex()}.log").open("w+b")
        self._channel = ours
        environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.stages", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            cwd=scratch,
            env={**environment, "HOME": str(scratch), "TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
        )
        theirs.close()
        self._lock = threading.Lock()
        self._killed = False
        self.network: str | None = None
        """`none` or `open`, once the child has said it."""
        self.cpu_s = 0.0
        """User and system seconds of the whole process, once it has answered."""

    def run(
        self, stage: str, task: str, inputs: Mapping[str, Path], out: Path, limits: ChildLimits
    ) -> Iterator[dict[str, Any]]:
        """Give the child its task; yields its messages (`tick`, `done`, `facts`) and an empty one every half second.

        Raises `PipelineError` for the stage's own error and for a child that ended without an answer, `ChildKilled`
        when it ended by `kill`.
        """
        order = {
            "stage": stage,
            "task": task,
            "inputs": {name: str(path) for name, path in inputs.items()},
            "out": str(out),
            "limits": {"memory_bytes": limits.memory_bytes, "file_bytes": limits.file_bytes},
        }
        with contextlib.suppress(OSError):  # a child that is gone already shows below
            self._channel.sendall(json.dumps(order).encode() + b"\n")
        answered = False
        for message in self._messages():
            if "hello" in message:
                self.network = message["hello"]["network"]
            elif "error" in message:
                error = PipelineError.from_document(message["error"])
                error.log = f"{message.get('log', '')}\n{self.log_tail()}".strip()
                raise error
            else:
                answered = answered or "facts" in message
                self.cpu_s = message.get("cpu_s", self.cpu_s)
                yield message
        if not answered:
            raise self._ended(stage, limits)

    def hello(self) -> str:
        """Wait until the child has loaded; returns whether it has a network (`none` or `open`)."""
        return next(str(message["hello"]["network"]) for message in self._messages() if "hello" in message)

    def _messages(self) -> Iterator[dict[str, Any]]:
        buffer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            while True:
                if not selector.select(timeout=0.5):
                    yield {}
                    continue
                with contextlib.suppress(ConnectionResetError):
                    data = self._channel.recv(65536)
                    if data:
                        *lines, buffer = (buffer + data).split(b"\n")
                        yield from (json.loads(line) for line in lines)
                        continue
                return

    def _ended(self, stage: str, limits: ChildLimits) -> Exception:
        """Why a child without an answer ended."""
        code = self._process.wait()
        if self._killed:
            return ChildKilled()
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if name == "SIGKILL":  # not ours, so the system's: out of memory
            return PipelineError(
                "stage_out_of_memory", stage=stage, limit_bytes=limits.memory_bytes, log=self.log_tail()
            )
        return PipelineError("stage_crashed", stage=stage, reason=name, log=self.log_tail())

    def log_tail(self, lines: int = 200) -> str:
        """The last lines that the child wrote."""
        self._log.flush()
        self._log.seek(0)
        return b"\n".join(self._log.read().splitlines()[-lines:]).decode(errors="replace")

    def kill(self) -> None:
        """End the child and everything it started, now."""
        with self._lock:
            if self._process.returncode is None:
                self._killed = True
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Reap the child; nothing of it is left afterwards."""
        if self._process.poll() is None:
            self._channel.close()  # it leaves by itself at the end of the channel
            try:
                self._process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process.wait()
        self._channel.close()
        self._log.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._log.name)


class Nursery:
    """Keeps one child waiting, so that a step begins at once.

    The system ends a child with the *thread* that started it (PR_SET_PDEATHSIG), so `start` and `take` belong to
    threads that live as long as the worker.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._waiting: list[Child] = []
        self._lock = threading.Lock()

    def start(self) -> None:
        child = Child(self._scratch)
        with self._lock:
            self._waiting.append(child)

    def take(self) -> Child:
        """A child that has loaded, or is about to have; the next one starts loading."""
        with self._lock:
            child = self._waiting.pop() if self._waiting else None
        if child is None or child._process.poll() is not None:
            child = Child(self._scratch)
        self.start()
        return child

    def close(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for child in waiting:
            child.kill()
            child.close()
