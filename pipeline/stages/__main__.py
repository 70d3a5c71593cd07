"""Where stages run: `python -m pipeline.stages FD`, a nursery that forks a process for each step.

Python and the codecs are loaded once (0.4 s of CPU), and each step gets a fresh process of its own in some ten
milliseconds. The nursery itself never opens media and starts no thread, so that forking it is safe. A child gives away
what it does not need (network, processes, memory, other files: `pipeline.stages.confinement`) *before* it opens
anything hostile, runs one stage, and speaks to its parent in JSON lines over a socket.

On FD the worker asks, one request at a time: `{"fork": true}` with descriptors (the child's socket, its log, and one
for each input that is a handle), answered by `{"pid": …}`; `{"reap": pid}`, answered by
`{"status": …, "peak_bytes": …}` once that child has ended; `{"build": 1}`, answered by `{"build": …}`, the encoder's
fingerprint.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import json
import mmap
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, TextIO

from pipeline.errors import PipelineError
from pipeline.media.handle import Handle, Lost
from pipeline.stages.confinement import confine, confine_files
from pipeline.stages.contract import Input

MOST_HANDLES = 64
"""Inputs of one step that are handles."""

PR_SET_PDEATHSIG = 1

_NO_MEMORY = ("allocate memory", "bad_alloc", "failed to map segment")
"""The C library's words, C++'s, and the loader's."""
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in which the system counts resident memory."""
_ENOUGH_BYTES = 64 * 1024**2
"""More than any buffer that encoders and decoders ask for at once, short of the largest pictures."""


def main(fd: int) -> int:
    # Whoever ends a worker may signal its whole group. The worker decides what becomes of its steps: it ends this
    # process and its children with SIGKILL, and nothing else does.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=fd)
    die_with_parent(os.getppid())
    preload()
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, 4096, 2 + MOST_HANDLES)
        if not request:
            return 0
        order = json.loads(request)
        if "build" in order:
            answer: dict[str, Any] = {"build": _build()}
        elif "fork" in order:
            answer = {"pid": _fork(control, *descriptors)}
        else:
            _, status, used = os.wait4(order["reap"], 0)
            answer = {"status": status, "peak_bytes": used.ru_maxrss * _RSS_UNIT}
        control.sendall(json.dumps(answer).encode() + b"\n")


def preload() -> None:
    """What the stages need, loaded once; what is frozen is not copied when a child's collector walks over it."""
    import av

    import pipeline.stages.audio
    import pipeline.stages.ingest
    import pipeline.stages.package
    import pipeline.stages.transcode
    import pipeline.stages.trim  # noqa: F401

    # libav's own way to the log. PyAV's needs the interpreter's lock, from whichever thread a decoder complains; a main
    # thread that holds the lock while it waits for the decoder's threads (as it closes them) would then wait for ever.
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.ERROR)
    gc.collect()
    gc.freeze()


def _build() -> str:
    """The encoder's fingerprint, learned in a process of its own: it opens an encoder, which this one never does."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        from pipeline.media.encoder import fingerprint

        os.write(write, fingerprint().encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        build = said.read()
    os.waitpid(pid, 0)
    return build


def _fork(control: socket.socket, channel: int, log: int, *handles: int) -> int:
    nursery = os.getpid()
    pid = os.fork()
    if pid == 0:
        control.close()
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        child(channel, handles, nursery)
    for descriptor in (channel, log, *handles):
        os.close(descriptor)
    return pid


def child(fd: int, handles: Sequence[int], nursery: int) -> NoReturn:
    """One step, from its order to its answer. `handles` are the sockets of the inputs that are not files."""
    os.setsid()
    channel = socket.socket(fileno=fd)
    lines = channel.makefile("r", encoding="utf-8")
    say = Voice(channel.makefile("w", encoding="utf-8"))
    held = confine()
    die_with_parent(nursery)  # afterwards: another identity may end what was asked for under the old one
    say(hello={"network": held.network, **asdict(held)})
    order = lines.readline()
    if order:
        _run(json.loads(order), handles, say, lines)
    os._exit(0)


class Voice:
    """Messages to the parent, one JSON object a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, **message: Any) -> None:
        with self._lock:
            self._stream.write(json.dumps(message) + "\n")
            self._stream.flush()


class FolderOutputs:
    """`Outputs` in the scratch folder; the parent stores what is done."""

    def __init__(self, folder: Path, say: Voice) -> None:
        self._folder = folder
        self._say = say

    def path(self, name: str) -> Path:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def done(self, name: str) -> None:
        self._say(done=name)


def _run(order: dict[str, Any], handles: Sequence[int], say: Voice, lines: TextIO) -> None:
    from pipeline.stages import STAGES, load
    from pipeline.tasks import from_json, to_json

    task = from_json(STAGES[order["stage"]].task, order["task"])
    _shut_in(order, task)
    # Whatever confines a thread, confines those that it starts from then on.
    threading.Thread(target=_die_on_eof, args=(lines,), daemon=True).start()

    def lost(error: Exception) -> NoReturn:
        """Nothing more may be made of a source that cannot be read (`pipeline.media.handle`)."""
        try:
            _say_error(order, error, say)
        finally:
            os._exit(1)

    inputs = {name: _input(given, handles, lost) for name, given in order["inputs"].items()}
    out = FolderOutputs(Path(order["out"]), say)
    os.chdir(order["out"])
    try:
        limit(order["limits"])
        mmap.mmap(-1, _ENOUGH_BYTES).close()  # else the first call that goes deep would find no room for its stack
        stage = load(order["function"])
        facts = stage(task, inputs, out, lambda fraction: say(tick=fraction))
        say(facts=to_json(facts), cpu_s=round(time.process_time(), 3))
    except Exception as error:  # whatever a stage raises, its parent hears a code
        _say_error(order, error, say)


def _shut_in(order: dict[str, Any], task: Any) -> None:
    """Leave only the files of this step to be opened."""
    folder = Path(order["out"])
    os.environ["HOME"] = os.environ["TMPDIR"] = str(folder)
    reads = [Path(given) for given in order["inputs"].values() if isinstance(given, str)]
    model = getattr(task, "model", None)
    if model is not None and model.device != "cpu":
        return  # drivers of graphics cards open what they alone know
    confine_files([*reads, *(Path(place) for place in (model.name, model.cache) if place)] if model else reads, folder)


def _input(given: str | dict[str, Any], handles: Sequence[int], lost: Lost) -> Input:
    """A path, or a handle: `{"handle": number of its socket, "name": …, "size": …}`."""
    if isinstance(given, str):
        return Path(given)
    channel = socket.socket(fileno=handles[given["handle"]])
    return Handle(channel, name=given["name"], size=given["size"], lost=lost)


def _say_error(order: dict[str, Any], error: Exception, say: Voice) -> None:
    coded = _coded(order, error)
    say(error=coded.document(), log=coded.log if coded is error else traceback.format_exc())


def _coded(order: dict[str, Any], error: Exception) -> PipelineError:
    """The one table of what a stage may raise."""
    if _out_of_memory(error):
        return PipelineError("stage_out_of_memory", stage=order["stage"], limit_bytes=order["limits"]["memory_bytes"])
    if isinstance(error, PipelineError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PipelineError("storage_full", where="the scratch disk")
    return PipelineError("stage_failed", stage=order["stage"], reason=type(error).__name__)


def _out_of_memory(error: BaseException) -> bool:
    """Libraries that get no memory say so in their own words, or fail in some other way while there is none."""
    told = isinstance(error, MemoryError) or getattr(error, "errno", 0) == errno.ENOMEM
    if told or any(words in str(error) for words in _NO_MEMORY):
        return True
    if isinstance(error, PipelineError):  # the stage knows what it met, unless what it met was this
        return error.__context__ is not None and _met_no_memory(error.__context__)
    return _none_left()


def _met_no_memory(error: BaseException) -> bool:
    """libav says the same of absurd sizes and counts, which only a damaged file asks for: it must be true as well."""
    import av

    return _none_left() if isinstance(error, av.FFmpegError) else _out_of_memory(error)


def _none_left() -> bool:
    # While the error is held, so is what its frames hold: what was missing then is missing now.
    try:
        mmap.mmap(-1, _ENOUGH_BYTES).close()
    except OSError:
        return True
    return False


def limit(limits: dict[str, int]) -> None:
    """Hard limits of the system: a bomb ends as an error of this process, not of the machine."""
    for kind, value in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256),
    ):
        with contextlib.suppress(ValueError, OSError):  # a lower hard limit of the surroundings stays
            resource.setrlimit(kind, (value, value))
    with contextlib.suppress(ValueError, OSError):
        # SIGXCPU tells what it was; whoever is deaf to it is killed some seconds later.
        resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_s"], limits["cpu_s"] + 5))


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL at the parent's end; elsewhere than on Linux the end of the channel tells."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)


def _die_on_eof(lines: TextIO) -> None:
    if not lines.readline():
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
