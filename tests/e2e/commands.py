"""What a command said, as a person or a script reads it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command said."""

    code: int
    out: str
    error: str

    @property
    def data(self) -> Any:
        assert self.code == 0, self.error
        return json.loads(self.out)

    @property
    def refusal(self) -> str:
        """The code of its one line."""
        lines = [line for line in self.error.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.error
        assert "Traceback" not in self.error
        return lines[0].split(": ")[1]
