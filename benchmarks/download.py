"""How fast a source comes from the web: `python -m benchmarks.download [--gib 1] [--rounds 3]`.

A server on loopback sends a file of random bytes by `sendfile`. Beside `curl -o FILE`, in turns, comes what ingest does
with a URL: through the guard, into the storage (a folder on the same disk), with a checksum, synced and created whole.
`curl, synced` is curl with `sync FILE` behind it, which is what one of both owes a user who pulls the plug.

Told are the seconds of each (the best and the middle of the rounds), the ratio, and the memory that the download took:
how much the process grew at its peak. Linux only.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

from pipeline.download import Web
from pipeline.fetch import fetch
from pipeline.guard import Allowance, Guard
from pipeline.storage.folder import FolderStorage
from pipeline.tasks import IngestTask, Limits

MIB = 1024**2


@contextmanager
def serving(path: Path) -> Iterator[str]:
    """The URL of the file, served by a process of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            _serve(listener, path)
        os._exit(0)
    listener.close()
    try:
        yield f"http://127.0.0.1:{port}/film.mp4"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def _serve(listener: socket.socket, path: Path) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer, args=[connection, path], daemon=True).start()


def _answer(connection: socket.socket, path: Path) -> None:
    with suppress(OSError), connection, path.open("rb") as file:
        while b"\r\n\r\n" not in connection.recv(65536):
            pass
        connection.sendall(b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: %d\r\n\r\n' % path.stat().st_size)
        connection.sendfile(file)


def by_curl(url: str, folder: Path) -> None:
    subprocess.run(["curl", "-sS", "--noproxy", "*", "-o", str(folder / "film.mp4"), url], check=True)


def by_curl_synced(url: str, folder: Path) -> None:
    by_curl(url, folder)
    subprocess.run(["sync", str(folder / "film.mp4")], check=True)


def by_us(url: str, folder: Path) -> None:
    task = IngestTask(asset="asset000001", url=url, source="private/asset000001.mp4", limits=Limits(max_bytes=None))
    guard = Guard(allow=Allowance.of("127.0.0.1"), ports=None)
    fetch(FolderStorage(folder), task, local=False, moved=lambda: None, web=Web(guard=guard))


WAYS: dict[str, Callable[[str, Path], None]] = {"curl": by_curl, "curl, synced": by_curl_synced, "reelway": by_us}


def timed(way: Callable[[str, Path], None], url: str, parent: Path) -> float:
    """Seconds, into a new folder that is gone afterwards."""
    os.sync()
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        started = time.perf_counter()
        way(url, Path(folder))
        return time.perf_counter() - started


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.0, help="Size of the file.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=None, help="Folder for the files; else the system's.")
    arguments = parser.parse_args()
    if shutil.which("curl") is None or sys.platform != "linux":
        sys.exit("needs Linux and curl")
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        run(Path(folder), round(arguments.gib * 1024), arguments.rounds)


def run(folder: Path, mib: int, rounds: int) -> None:
    source = folder / "source"
    with source.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
    with serving(source) as url:
        before = peak_bytes()
        taken: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(rounds):
            for name, way in WAYS.items():
                taken[name].append(timed(way, url, folder))
        grown = peak_bytes() - before
    for name, seconds in taken.items():
        rate = mib / min(seconds)
        print(f"{name:14} best {min(seconds):6.2f} s   middle {median(seconds):6.2f} s   {rate:6.0f} MiB/s")
    for name in ("curl", "curl, synced"):
        best, middle = (figure(taken["reelway"]) / figure(taken[name]) for figure in (min, median))
        print(f"reelway / {name:14} best {best:.2f}   middle {middle:.2f}")
    print(f"memory of the download: {grown / MIB:.1f} MiB for {mib} MiB")


if __name__ == "__main__":
    main()
