"""What a stage process gives away for good before it opens anything hostile: network, rights, programs, files.

Linux offers each without any privilege. A system that refuses one still gives the others, and `Held` says which held.
Files are the exception to "at once": which ones a step needs is known with its order, so `confine_files` comes then.

There is no limit on the number of processes (RLIMIT_NPROC): it counts whatever the *user* runs on the machine. The
filter of system calls refuses every new process instead, and leaves threads alone.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
_PR_SET_NO_NEW_PRIVS = 38


@dataclass(frozen=True, kw_only=True)
class Held:
    """What this process cannot do any more."""

    namespace: bool = False
    """It has a network of its own, without interfaces."""
    filter: bool = False
    """It can open no socket, start no process and look into none."""
    files: bool = False
    """It can be confined to its inputs and outputs (`confine_files`)."""

    @property
    def network(self) -> str:
        """`none`, or `open` where the system refused both ways out."""
        return "none" if self.namespace or self.filter else "open"


def confine() -> Held:
    """Give away network, rights, and the making of processes. For a process with one thread."""
    if not sys.platform.startswith("linux"):
        return Held()
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = libc.unshare(CLONE_NEWNET) == 0 or libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0
    drop_rights(libc)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return Held(namespace=namespace, filter=filter_calls(libc), files=_landlock_version(libc) > 0)


def drop_rights(libc: ctypes.CDLL) -> None:
    """Keep of root's rights, and of those that a new user namespace gives, only the reading of other people's files.

    A stage that was root could lift its limits again; in a namespace it could try parts of the kernel that few test.
    """
    files_only = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: Landlock stands before them
    header = struct.pack("<Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    have = ctypes.create_string_buffer(24)
    if libc.capget(header, have) == 0:
        kept = [number & files_only for number in struct.unpack("<6I", have.raw)[:2]]
        libc.capset(header, struct.pack("<6I", *kept, 0, 0, 0, 0))


# -- system calls (seccomp) -------------------------------------------------------------------------------------------

_MACHINES = {
    # AUDIT_ARCH, number of clone, and of what is refused: socket socketpair fork vfork execve execveat ptrace
    # process_vm_readv process_vm_writev unshare setns mount bpf userfaultfd perf_event_open add_key request_key keyctl
    # io_uring_setup (which opens sockets too) pidfd_getfd
    "x86_64": (
        0xC000003E,
        56,
        (41, 53, 57, 58, 59, 322, 101, 310, 311, 272, 308, 165, 321, 323, 298, 248, 249, 250, 425, 438),
    ),
    "aarch64": (
        0xC00000B7,
        220,
        (198, 199, 221, 281, 117, 270, 271, 97, 268, 40, 280, 282, 241, 217, 218, 219, 425, 438),
    ),
}
_CLONE3 = 435
_CLONE_THREAD = 0x10000
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_EPERM, _ENOSYS = 0x00050001, 0x00050026


def filter_calls(libc: ctypes.CDLL) -> bool:
    """Refuse sockets, new processes, and looking into others. False where the system knows no filters, or we not it."""
    program = _program(platform.machine())
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in program))
    filters = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    return bool(program) and libc.prctl(22, 2, filters, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _program(machine: str) -> list[tuple[int, int, int, int]]:
    """Classic BPF over `struct seccomp_data` (number at 0, architecture at 4, arguments from 16 on)."""
    if machine not in _MACHINES:
        return []
    architecture, clone, refused = _MACHINES[machine]
    return [
        (_LOAD, 0, 0, 4),
        (_JUMP_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_JUMP_IF_AT_LEAST, 0, 1, 0x40000000),  # the x32 way into the same calls
        (_RETURN, 0, 0, _EPERM),
        (_JUMP_IF_EQUAL, 0, 1, _CLONE3),  # its flags lie where a filter cannot look: the C library then takes clone
        (_RETURN, 0, 0, _ENOSYS),
        *(line for call in refused for line in ((_JUMP_IF_EQUAL, 0, 1, call), (_RETURN, 0, 0, _EPERM))),
        (_JUMP_IF_EQUAL, 0, 3, clone),
        (_LOAD, 0, 0, 16),
        (_JUMP_IF_SET, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]


# -- files (Landlock) -------------------------------------------------------------------------------------------------

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every machine
_WRITE_FILE, _READ_FILE, _READ_FOLDER, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
_READ = _READ_FILE | _READ_FOLDER
_MAKE = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 13  # remove folder and file; make folder, file, link; move
_RIGHTS_BY_VERSION = (0, 13, 14, 15, 15, 16)
"""How many kinds of access to files each version of Landlock knows."""
_NO_SIGNALS_NOR_ABSTRACT_SOCKETS = 3
_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/opt/homebrew"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system", "/dev/urandom", "/dev/zero"),
)
"""What libraries read wherever they are: themselves, and how many processors there are."""


def confine_files(reads: Iterable[Path], folder: Path) -> bool:
    """From now on this thread and those it starts read `reads`, Python and the system's libraries, and write `folder`.

    No program can be run, and no process outside be signalled or looked into. Returns whether it holds.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    version = _landlock_version(libc)
    if version <= 0:
        return False
    handled = (1 << _RIGHTS_BY_VERSION[min(version, len(_RIGHTS_BY_VERSION) - 1)]) - 1
    attributes = struct.pack("<QQQ", handled, 0, _NO_SIGNALS_NOR_ABSTRACT_SOCKETS if version >= 6 else 0)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, len(attributes) if version >= 6 else 8, 0)
    if ruleset < 0:
        return False
    for path in {*map(str, reads), *_SYSTEM, *_python()}:
        _allow(libc, ruleset, path, _READ & handled)
    _allow(libc, ruleset, "/dev/null", (_READ_FILE | _WRITE_FILE) & handled)
    _allow(libc, ruleset, str(folder), (_READ | _WRITE_FILE | _TRUNCATE | _MAKE) & handled)
    held = libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return bool(held)


def _python() -> set[str]:
    """Where modules and their libraries are loaded from."""
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return {path for path in (sys.prefix, sys.base_prefix, *sys.path, *libraries) if path and path != "/"}


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    """Rights below a folder, or to one file. What is not there needs none."""
    with suppress(OSError):
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not Path(path).is_dir():
            rights &= _READ_FILE | _WRITE_FILE | _TRUNCATE
        libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("<Qi", rights, opened), 0)
        os.close(opened)


def _landlock_version(libc: ctypes.CDLL) -> int:
    """0 or less where there is none."""
    return int(libc.syscall(_CREATE_RULESET, None, 0, 1))
