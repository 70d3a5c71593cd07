"""What a check of `reelway doctor` says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check: `ok`, `warning` (works, but …) or `missing`."""

    name: str
    state: str
    detail: str
    mend: str = ""
