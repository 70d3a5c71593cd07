"""How the command that followed a job says how it ended."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import PipelineError
from workers.commands.fleet import conclude
from workers.console import tell

HINT = "the workers may read no files"


@pytest.mark.parametrize(
    ("code", "hinted"),
    [
        ("source_forbidden", True),
        ("media_url_not_accessible", True),
        ("media_url_file_broken", False),
        ("trim_range_invalid", False),
        ("stage_crashed", False),
    ],
)
def test_what_else_may_help_is_said_where_the_source_could_not_be_read(
    code: str, hinted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    job: Any = SimpleNamespace(error=PipelineError(code).document())
    with pytest.raises(SystemExit) as ended:
        conclude(job, if_unread=HINT)

    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.startswith(f"error: {code}: ")
    assert (HINT in said) is hinted


def test_a_time_is_named_as_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line it is an option's, in a line of a file a field's."""
    error = PipelineError("trim_range_invalid", field="end_time", current=400.0, minimum=5, maximum=10.12)
    tell(error)
    tell(error, where="line 3")
    typed, written = capsys.readouterr().err.splitlines()

    assert re.search(r" --end is 400\.0: choose 5 to 10\.12 \(seconds\)", typed)
    assert "line 3: end_time is 400.0" in written
