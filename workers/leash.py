"""Run a command that cannot outlive the process that started it, not even after kill -9.

    python -I workers/leash.py <pid of the parent> <command> …

On Linux the kernel does it: the process asks for SIGKILL at its parent's end and becomes the command, with the same
pid. (The kernel means the *thread* that started it: start from one that lives as long as the parent wants the child.)
Elsewhere, or with `--watch` before the pid, this process stays: its standard input is a pipe that only the parent holds
open, and when that ends so does the command. It imports nothing of ours, so that it starts in some ten milliseconds.
"""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def become(parent: int, command: list[str]) -> None:
    """Ask the kernel for the leash, then be the command."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the leash was on
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606


def watch(command: list[str]) -> int:
    """Stay beside the command, pass SIGTERM and SIGINT on, and kill it when the pipe from the parent ends."""
    import subprocess
    import threading

    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def wait_for_the_end() -> None:
        while os.read(0, 4096):
            pass
        child.kill()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    return child.wait()


def main(arguments: list[str]) -> int:
    if arguments[0] == "--watch":
        return watch(arguments[2:])
    if not sys.platform.startswith("linux"):
        return watch(arguments[1:])
    become(int(arguments[0]), arguments[1:])
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
