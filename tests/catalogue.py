"""Which codes of the error catalogue the product raises while a test runs.

A test that really provokes a code (a real file, a real Redis, a server that misbehaves) says so with
`@pytest.mark.raises_code("…")`; it fails where the product did not raise it. That every code has such a test is kept by
`tests/unit/test_catalogue.py`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline import errors
from pipeline.errors import PipelineError

_PRODUCT = ("pipeline.", "workers.")
_TOLD = re.compile(r"\b(?:error|warning): (?:no \w+: )?([a-z_]+): ")
_listening: list[set[str]] = []


@contextmanager
def provoking(*codes: str) -> Iterator[set[str]]:
    """What the product raises inside. Raises `AssertionError` where one of `codes` is missing in the end."""
    heard: set[str] = set()
    original = PipelineError.__init__

    def heeded(self: PipelineError, code: str, **values: Any) -> None:
        if _by_the_product(sys._getframe(1)):
            heard.add(code)
        original(self, code, **values)

    PipelineError.__init__ = heeded  # type: ignore[method-assign,assignment]
    _listening.append(heard)
    try:
        yield heard
    finally:
        _listening.remove(heard)
        PipelineError.__init__ = original  # type: ignore[method-assign]
    assert heard >= set(codes), f"never raised: {', '.join(sorted(set(codes) - heard))}"


def told(output: str) -> str:
    """What a command of ours wrote: the codes in it were raised by the product, in another process."""
    for heard in _listening:
        heard.update(_TOLD.findall(output))
    return output


def _by_the_product(frame: FrameType | None) -> bool:
    """An error that comes out of a document or a pickle is whose who reads it: the parent of the child that raised."""
    while frame is not None and frame.f_globals.get("__name__") == errors.__name__:
        frame = frame.f_back
    return frame is not None and str(frame.f_globals.get("__name__")).startswith(_PRODUCT)


def promised(root: Path) -> dict[str, list[str]]:
    """Every code that a test below `root` promises to provoke, with the places; read, not run."""
    found: dict[str, list[str]] = {}
    for file in sorted(root.rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.raises_code":
                for argument in node.args:
                    assert isinstance(argument, ast.Constant), f"{file}:{node.lineno}: a code is written out"
                    found.setdefault(argument.value, []).append(f"{file.relative_to(root)}:{node.lineno}")
    return found
