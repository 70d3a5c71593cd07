"""A stage runs in a child process of its own, without network, secrets or much memory.

A crash, a hang or a bomb there ends the child, never the worker: it comes back as a coded error. Children are forked
from a nursery that has loaded Python and the codecs once: a step costs milliseconds to start, not half a second of CPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.ranges import Given, Served
from pipeline.stages import STAGES

_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "SYSTEMROOT")
"""Everything else stays behind: the environment of a worker holds credentials."""
_PR_SET_DUMPABLE = 4
PROGRAM: Sequence[str] = ("-P", "-m", "pipeline.stages")
"""What a nursery runs. -P: what lies in the scratch folder is never taken for a module."""
_ANSWER_S = 30.0
"""A nursery that is silent for so long stands still; the slowest answer is its first one, after it has loaded."""
_LONGEST_LOG = 4 * 1024**2
"""Bytes of what a child has written into its log, before it begins anew."""
_LONGEST_MESSAGE = 64 * 1024**2
"""Bytes of one message of a child, far beyond the facts of a film of a day (200 bytes a segment and rung)."""


@dataclass(frozen=True, kw_only=True)
class ChildLimits:
    """What a child may use."""

    memory_bytes: int = 4 * 1024**3
    """Address space."""
    file_bytes: int = 4 * 1024**3
    """Size of one written file."""
    cpu_s: int = 24 * 3600
    """Seconds of processor time, of all its threads."""


class ChildKilled(Exception):
    """The child was ended by `kill`: whoever called it knows why."""


class Child:
    """One process that runs one stage. `kill` may be called from any thread."""

    def __init__(self, nursery: Nursery, scratch: Path, handles: Sequence[Served] = ()) -> None:
        self._nursery = nursery
        self._handles = tuple(handles)
        self._log = (scratch / f"child-{os.urandom(4).hex()}.log").open("a+b")
        self._channel, theirs = socket.socketpair()
        try:
            descriptors = [theirs.fileno(), self._log.fileno(), *(handle.fileno() for handle in self._handles)]
            self.pid, self._generation = nursery.fork(descriptors)
        finally:
            theirs.close()
            for handle in self._handles:
                handle.given()
        self._lock = threading.Lock()
        self._killed = False
        self._reaped = False
        self._status: int | None = None
        """How it ended; None also where nobody can say."""
        self.network: str | None = None
        """`none` or `open`, once the child has said it."""
        self.held: Mapping[str, bool] = {}
        """What confines it (`pipeline.stages.confinement.Held`), once the child has said it."""
        self.cpu_s = 0.0
        """User and system seconds of the whole process, once it has answered."""
        self.peak_bytes = 0
        """The most memory that was resident, once it is closed; 0 where nobody can say."""

    def run(
        self, stage: str, task: str, inputs: Mapping[str, Given], out: Path, limits: ChildLimits
    ) -> Iterator[dict[str, Any]]:
        """Give the child its task; yields its messages (`tick`, `done`, `facts`) and an empty one every half second.

        Inputs that are no files are among the handles that the child was born with. Raises `PipelineError` for the
        stage's own error and for a child that ended without an answer, `ChildKilled` when it ended by `kill`.
        """
        order = {
            "stage": stage,
            "function": STAGES[stage].function,
            "task": task,
            "inputs": {name: self._input(given) for name, given in inputs.items()},
            "out": str(out),
            "limits": asdict(limits),
        }
        with contextlib.suppress(OSError):  # a child that is gone already shows below
            self._channel.sendall(json.dumps(order).encode() + b"\n")
        answered = False
        for message in self._messages():
            if "hello" in message:
                self._met(message["hello"])
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

    def _met(self, hello: dict[str, Any]) -> None:
        self.network = str(hello.pop("network"))
        self.held = hello

    def _input(self, given: Given) -> str | dict[str, Any]:
        if isinstance(given, Path):
            return str(given)
        return {"handle": self._handles.index(given), "name": given.name, "size": given.size}

    def hello(self) -> str:
        """Wait until the child has loaded; returns whether it has a network (`none` or `open`)."""
        self._met(next(message["hello"] for message in self._messages() if "hello" in message))
        return str(self.network)

    def _messages(self) -> Iterator[dict[str, Any]]:
        buffer = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            while True:
                self._cut_log()
                if not selector.select(timeout=0.5):
                    yield {}
                    continue
                with contextlib.suppress(ConnectionResetError):
                    data = self._channel.recv(65536)
                    if data:
                        buffer += data
                        if b"\n" in data:
                            *lines, buffer = buffer.split(b"\n")
                            yield from (json.loads(line) for line in lines)
                        if len(buffer) > _LONGEST_MESSAGE:
                            raise PipelineError("stage_failed", stage="sandbox", reason="a message without end")
                        continue
                return

    def _ended(self, stage: str, limits: ChildLimits) -> Exception:
        """Why a child without an answer ended."""
        with contextlib.suppress(ProcessLookupError):
            # One that died is a zombie by now, and keeps its status; one that only closed its channel must not linger.
            os.kill(self.pid, signal.SIGKILL)
        status = self._reap()
        if self._killed:
            return ChildKilled()
        if status is None:
            return PipelineError("stage_interrupted", stage=stage, log=self.log_tail())
        code = os.waitstatus_to_exitcode(status)
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if name == "SIGKILL":  # not ours: a person's, or the system's when memory ran out
            return PipelineError("stage_interrupted", stage=stage, log=self.log_tail())
        if name == "SIGVTALRM":
            reason = "its headers cannot be read in time"
            return PipelineError("media_url_file_broken", reason=reason, log=self.log_tail())
        if name == "SIGXCPU":
            return PipelineError("stage_out_of_time", stage=stage, limit_s=limits.cpu_s, log=self.log_tail())
        return PipelineError("stage_crashed", stage=stage, reason=name, log=self.log_tail())

    def _cut_log(self) -> None:
        """A damaged file may be worth a line a frame."""
        if os.fstat(self._log.fileno()).st_size > _LONGEST_LOG:
            os.ftruncate(self._log.fileno(), 0)

    def log_tail(self, lines: int = 200) -> str:
        """The last lines that the child wrote."""
        self._log.flush()
        self._log.seek(0)
        return b"\n".join(self._log.read().splitlines()[-lines:]).decode(errors="replace")

    def kill(self) -> None:
        """End the child and everything it started, now."""
        with self._lock:
            if not self._reaped:  # until then, its process id is its own
                self._killed = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End and reap the child; nothing of it is left afterwards."""
        self.kill()
        self._reap()
        self._channel.close()
        self._log.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._log.name)

    def _reap(self) -> int | None:
        with self._lock:
            if not self._reaped:
                ended = self._nursery.reap(self.pid, self._generation)
                self._status, self.peak_bytes = ended if ended is not None else (None, 0)
                self._reaped = True
            return self._status


class Nursery:
    """The process that forks children: it has loaded what they need, and knows no secret.

    The system ends it with the *thread* that started it (PR_SET_PDEATHSIG), so `start` belongs to a thread that lives
    as long as the worker. Should it die, its children die with it, and the next `fork` starts another.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._build = ""
        self._generation = 0
        """How often it was started: a nursery knows only the children that it forked itself."""

    def start(self) -> None:
        """Begin loading; returns at once. This process hides from its children from now on (`hide`)."""
        hide()
        with self._lock:
            self._start()

    def child(self, inputs: Iterable[Given] = ()) -> Child:
        """A fresh process, waiting for its order. Those of `inputs` that are no files are being served."""
        return Child(self, self.scratch, [given for given in inputs if isinstance(given, Served)])

    def fork(self, descriptors: Sequence[int]) -> tuple[int, int]:
        """Fork a child with these descriptors; returns its process id, and the generation of the nursery."""
        for _ in range(2):  # a nursery that died is replaced once
            with self._lock:
                try:
                    if self._process is None or self._process.poll() is not None:
                        self._start()
                    pid: int = self._ask({"fork": True}, *descriptors)["pid"]
                    return pid, self._generation
                except (OSError, ValueError):
                    self._stop()  # it is dying, even where it cannot be reaped yet
        raise PipelineError("stage_crashed", stage="nursery", reason="it does not start")

    def build(self) -> str:
        """Fingerprint of the encoder that the children have; empty where the nursery does not say it."""
        with contextlib.suppress(OSError, ValueError), self._lock:
            if not self._build and self._process is not None and self._process.poll() is None:
                self._build = self._ask({"build": 1})["build"]
        return self._build

    def reap(self, pid: int, generation: int) -> tuple[int, int] | None:
        """Wait for the end of a child; returns its wait status and the most bytes that were resident.

        None where its nursery died, and the child with it.
        """
        with contextlib.suppress(OSError, ValueError), self._lock:
            if generation == self._generation:
                ended = self._ask({"reap": pid})
                return ended["status"], ended["peak_bytes"]
        return None

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _ask(self, request: dict[str, int], *descriptors: int) -> dict[str, Any]:
        """Raises `OSError` or `ValueError` where the nursery is gone, or does not answer: then it is ended."""
        if self._control is None:
            raise ConnectionError
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], list(descriptors))
            answer: dict[str, Any] = json.loads(self._control.recv(4096))
        except TimeoutError:
            self._stop()  # its answer may still come, and would be taken for that to the next question
            raise
        return answer

    def _start(self) -> None:
        self._stop()
        self._generation += 1
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_ANSWER_S)
        environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        private = {"HOME": str(self.scratch), "TMPDIR": str(self.scratch), "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, *PROGRAM, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            cwd=self.scratch,
            # macOS refuses to fork a process that has loaded its media frameworks, unless it is told that we know.
            env={**environment, **private, "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES"},
            start_new_session=True,
        )
        theirs.close()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._control is not None:
            self._control.close()
            self._control = None


def hide() -> None:
    """Keep processes of the same user from reading this one's environment and memory, which hold credentials.

    Linux then shows them to root alone; debuggers of the same user, and core dumps, are shut out as well.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
