"""Every code of the error catalogue is raised by the product in a test, from what a user would meet."""

from __future__ import annotations

from pathlib import Path

import pytest
from catalogue import promised, provoking, told

from pipeline.errors import CATALOGUE, PipelineError
from pipeline.media.ladder import sizes

TESTS = Path(__file__).resolve().parents[1]


def test_every_code_is_provoked_by_a_test() -> None:
    """A code without a test that is marked with it is not known to happen: provoke it, or delete it."""
    assert sorted(set(CATALOGUE) - set(promised(TESTS))) == []


def test_no_test_promises_a_code_that_does_not_exist() -> None:
    assert {code: places for code, places in promised(TESTS).items() if code not in CATALOGUE} == {}


def test_a_promise_that_is_not_kept_fails() -> None:
    with pytest.raises(AssertionError, match="never raised: parameter_invalid"), provoking("parameter_invalid"):
        PipelineError("parameter_invalid")  # made by the test itself: that proves nothing


def test_what_the_product_raises_is_heard_and_so_is_what_a_command_says() -> None:
    with provoking("parameter_invalid", "job_not_found", "speech_model_missing") as heard:
        with pytest.raises(PipelineError):
            sizes((640, 360), ["no such rung"])
        told("error: job_not_found: There is no such job: x. …\nwarning: no subtitle: speech_model_missing: The …\n")

    assert heard == {"parameter_invalid", "job_not_found", "speech_model_missing"}
    with pytest.raises(PipelineError):
        sizes((640, 360), ["no such rung"])
    assert "parameter_invalid" in heard
    assert PipelineError.__init__.__qualname__ == "PipelineError.__init__", "nothing is left of the listening"
