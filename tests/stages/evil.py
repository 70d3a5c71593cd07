"""Stages that do what hostile media could make a decoder do. They run in the sandbox, never in a test's own process."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.media.handle import BLOCK, REQUEST, Handle
from pipeline.stages.contract import Inputs, Outputs, Tick


def crash(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    ctypes.string_at(0)


def abort(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    os.kill(os.getpid(), signal.SIGABRT)


def leave(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    os._exit(3)


def hang(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    """No progress, and deaf to every polite signal."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    out.path("media.json").write_text("{}")
    out.done("media.json")
    while True:
        time.sleep(3600)


def busy(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    """Progress for ever, without an end."""
    while True:
        tick(0.5)
        time.sleep(0.01)


def bomb(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    hoard = []
    while True:
        hoard.append(bytearray(64 * 1024**2))


def flood(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    """A file without an end."""
    with out.path("endless").open("wb") as file:
        while True:
            file.write(bytes(1 << 20))


def babble(task: Any, inputs: Mapping[str, Path], out: Any, tick: Tick) -> None:
    """A message that comes to no end for a long time."""
    for _ in range(64):
        out._say._stream.write("x" * (1 << 17))
        out._say._stream.flush()


def _leave(bytes_: int) -> list[bytearray]:
    """Take memory until only so much of the address space is left."""
    hoard = []
    while True:
        try:
            hoard.append(bytearray(1024**2))
        except MemoryError:
            break
    del hoard[-(bytes_ // 1024**2) or len(hoard) :]
    return hoard


def load_more(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    """Load a library that finds no room."""
    hoard = _leave(0)
    import sqlite3  # noqa: F401

    raise AssertionError(len(hoard))


def swallow(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    """Fail in words that say nothing of memory, as encoders do."""
    hoard = _leave(16 * 1024**2)
    raise ValueError(f"generic error in an external library after {len(hoard)}")


def explain(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    """Take a failed allocation for something else."""
    try:
        raise RuntimeError("mkl_malloc: failed to allocate memory")
    except RuntimeError as error:
        raise PipelineError("speech_model_missing", model="tiny.en") from error


def doubt(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    """Take an absurd number of a damaged file for what it is, as libav's refusal of memory for it."""
    import av

    try:
        raise av.error.MemoryError(12, "Cannot allocate memory")
    except av.FFmpegError as error:
        raise PipelineError("media_url_file_broken", reason="an absurd number") from error


def complain(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    """Let libav complain, and say which level PyAV listens at (`None`: it does not)."""
    import av

    av.logging.log(av.logging.ERROR, "decoder", "words of a decoder\n")
    raise PipelineError("parameter_invalid", detail=str(av.logging.get_level()))


def chatter(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    """A line a frame, of a film without an end."""
    for _ in range(64):
        os.write(2, b"one more line of it\n" * 10_000)
        tick(0.5)
        time.sleep(0.01)
    raise PipelineError("parameter_invalid", detail="done")


def linger(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    """A header that takes for ever to be read."""
    from pipeline.media import sources

    sources._OPENING_S = 1
    with sources._in_time():
        while True:
            pass


def call_home(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    """Reach for the listener whose port the task's source names."""
    socket.create_connection(("127.0.0.1", int(task.source)), timeout=2).close()


def tell(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    """Say what the process knows of its surroundings."""
    raise PipelineError("parameter_invalid", detail=" ".join(sorted(os.environ)))


def misbehave(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    raise ValueError("nobody expected this")


def children(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    """Leave a process behind, where that is possible, and hang."""
    with suppress(PermissionError):
        if os.fork() == 0:
            time.sleep(3600)
            os._exit(0)
    hang(task, inputs, out, tick)


def spin(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    """Nothing but processor time, with progress."""
    while True:
        tick(0.5)


def try_everything(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    """Reach for whatever is no business of a stage; say what was given. `source` names a file that is not an input."""
    secret = Path(task.source)
    reached = [name for name, reach in _REACHES.items() if _reached(lambda reach=reach: reach(secret))]  # type: ignore[misc]
    inputs["source"].read_bytes()
    out.path("inside").write_bytes(b"what a stage makes")
    raise PipelineError("parameter_invalid", detail=" ".join(reached) or "nothing")


def _reached(reach: Any) -> bool:
    try:
        return reach() is not False
    except (OSError, ValueError):  # Python's word for a limit that may not be raised
        return False


def _fork(_: Path) -> None:
    if os.fork() == 0:
        os._exit(0)
    os.wait()


def _call(number: int, *arguments: Any) -> bool:
    return ctypes.CDLL(None, use_errno=True).syscall(number, *arguments) >= 0


_REACHES = {
    "read": lambda secret: secret.read_bytes(),
    "list": lambda secret: os.listdir(secret.parent),
    "write": lambda secret: secret.write_bytes(b"spoilt"),
    "create": lambda secret: (secret.parent / "new").write_bytes(b"left behind"),
    "remove": lambda secret: secret.unlink(),
    "passwords": lambda _: Path("/etc/passwd").read_bytes(),
    "environment": lambda _: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "memory": lambda _: os.close(os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY)),
    "signal": lambda _: os.kill(os.getppid(), 0),
    "fork": _fork,
    "run": lambda _: os.execv("/bin/true", ["true"]),
    "socket": lambda _: socket.socket().close(),
    "local socket": lambda _: socket.socket(socket.AF_UNIX).close(),
    "own user namespace": lambda _: ctypes.CDLL(None).unshare(0x10000000) == 0,
    "ring": lambda _: _call(425, 1, ctypes.create_string_buffer(256)),
    "trace": lambda _: ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0,
    "lift limits": lambda _: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)),
}


def break_out(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    """Offer a file that is not ours as an output."""
    out.done("../../clip.mp4")


def link_out(task: Any, inputs: Mapping[str, Path], out: Outputs, tick: Tick) -> None:
    out.path("media.json").symlink_to("/etc/hostname")
    out.done("media.json")


def die_reading(task: Any, inputs: Inputs, out: Outputs, tick: Tick) -> None:
    """Ask for a part of the source, and be gone when it comes."""
    source = inputs["source"]
    assert isinstance(source, Handle)
    source._channel.sendall(REQUEST.pack(0, BLOCK))
    os.kill(os.getpid(), signal.SIGKILL)


def read_beyond(task: Any, inputs: Inputs, out: Outputs, tick: Tick) -> None:
    """Ask for more than there is."""
    source = inputs["source"]
    assert isinstance(source, Handle)
    source._channel.sendall(REQUEST.pack(0, source.size + 1))
    source._channel.recv(1)
    raise ValueError("never mind")


def run_short(task: Any, inputs: Inputs, out: Outputs, tick: Tick) -> None:
    """Have no memory left when the source is read, where libav would take it for the end of the file."""
    source = inputs["source"]
    assert isinstance(source, Handle)
    source._ask = _no_memory  # type: ignore[method-assign]
    with suppress(Exception):
        source.open().read(1)
    out.path("media.json").write_text("{}")
    out.done("media.json")


def _no_memory(first: int, end: int) -> None:
    raise MemoryError
