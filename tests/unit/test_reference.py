"""The generated pages are those that the code makes today."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.reference import PAGES, write

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_current(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == PAGES[name](), "run `python -m pipeline.reference`"


def test_the_command_writes_every_page(tmp_path: Path) -> None:
    assert {path.relative_to(tmp_path).as_posix() for path in write(tmp_path)} == set(PAGES)
    assert all((tmp_path / name).stat().st_size for name in PAGES)
