"""What tests of stages share: the process that starts children, and stages that misbehave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import stages
from pipeline.sandbox import Nursery


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Its children know the stages of `evil` beside ours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        nursery = Nursery(tmp_path_factory.mktemp("scratch"))
        nursery.start()
        yield nursery
        nursery.close()


@pytest.fixture
def turn(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """`turn(stage, function)`: from now on the stage does what `evil.function` does."""

    def turn(stage: str, function: str) -> None:
        entry = replace(stages.STAGES[stage], function=f"evil:{function}")
        monkeypatch.setitem(stages.STAGES, stage, entry)  # type: ignore[arg-type]

    return turn
