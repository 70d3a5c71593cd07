"""How much memory and disk this machine has, and how much of it is free: what the kernel says, and nothing else.

Where a container may use less than its machine has (cgroup v2), the container counts. Where the system does not tell,
the answer is None, and nothing is judged by it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Share:
    """Of one resource, in bytes."""

    total: int
    free: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """This machine, asked anew each time. The folders are the kernel's; a test has its own."""

    scratch: Path
    proc: Path = Path("/proc")
    cgroups: Path = Path("/sys/fs/cgroup")

    def disk(self) -> Share:
        """Of the disk that holds the scratch folder."""
        usage = shutil.disk_usage(self.scratch)
        return Share(total=usage.total, free=usage.free)

    def memory(self) -> Share | None:
        """Of the machine, or of the narrowest control group that this process is in."""
        shares = [share for share in (self._system(), *self._groups()) if share is not None]
        if not shares:
            return None
        return Share(total=min(share.total for share in shares), free=min(share.free for share in shares))

    def _system(self) -> Share | None:
        try:
            lines = (self.proc / "meminfo").read_text().splitlines()
            figures = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
            return Share(total=figures["MemTotal"], free=figures["MemAvailable"])
        except (OSError, KeyError, ValueError, IndexError):
            return None

    def _groups(self) -> Iterator[Share | None]:
        """Every group from our own up to the root: the limit of each holds for all below it."""
        try:
            lines = (self.proc / "self" / "cgroup").read_text().splitlines()
        except OSError:
            return
        own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
        if own is None:
            return
        group = self.cgroups / own.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(self.cgroups):
                return
            yield _limited(folder)


def _limited(group: Path) -> Share | None:
    """What a group may still take; None where it has no limit. Cached files count as free: they give way."""
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # `max`, or no such group here
        return None
    return Share(total=limit, free=max(0, limit - used + int(stat.get("inactive_file", 0))))
