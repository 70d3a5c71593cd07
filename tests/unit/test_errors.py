"""The catalogue: every way to fail has a code, a sentence and a next step, and keeps them on its way."""

from __future__ import annotations

import json
import pickle
import re
import string

import pytest

from pipeline.errors import CATALOGUE, PipelineError
from pipeline.events import ErrorData

REFERENCE_CODES = (
    "parameter_invalid",
    "parameter_not_provided",
    "media_url_unsupported_format",
    "media_url_not_accessible",
    "media_url_file_broken",
    "media_filesize_too_large",
    "video_file_broken",
    "video_file_live",
    "video_resolution_too_low",
    "video_resolution_too_high",
    "video_resolution_invalid_aspect_ratio",
    "video_duration_too_short",
    "video_duration_too_long",
    "video_filesize_too_large",
    "audio_file_broken",
    "audio_duration_too_short",
    "audio_duration_too_long",
    "audio_filesize_too_large",
    "audio_format_unsupported",
)
"""Codes that the reference API has for what a video pipeline can meet."""


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_error_says_what_happened_and_what_to_do(code: str) -> None:
    spec = CATALOGUE[code]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
    assert spec.message.endswith("."), "a message is a sentence"
    assert spec.hint.endswith("."), "a hint is a sentence"


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_error_can_be_filled_and_carried_by_an_event(code: str) -> None:
    """Given values for all of its names, none is left open, and the event's model takes it through JSON unchanged."""
    spec = CATALOGUE[code]
    names = {name for text in (spec.message, spec.hint) for _, name, _, _ in string.Formatter().parse(text) if name}
    error = PipelineError(code, **dict.fromkeys(names, "value"))
    assert "?" not in error.message + error.hint
    assert "{" not in error.message + error.hint
    document = json.loads(json.dumps(error.document()))
    assert ErrorData.model_validate(document).model_dump() == error.document()


@pytest.mark.parametrize("code", REFERENCE_CODES)
def test_codes_of_the_reference_are_final(code: str) -> None:
    """They speak of the source or of the request, which another try would find just the same."""
    assert not CATALOGUE[code].retryable


@pytest.mark.parametrize("code", ["storage_unavailable", "storage_full", "queue_unavailable", "stalled"])
def test_what_may_pass_is_tried_again(code: str) -> None:
    assert PipelineError(code).retryable


def test_a_value_that_is_missing_prints_as_a_question_mark() -> None:
    error = PipelineError("media_filesize_too_large", current_size=7)
    assert error.message == "The source has 7 bytes; at most ? are accepted."


def test_an_unknown_code_is_a_programming_error() -> None:
    with pytest.raises(KeyError):
        PipelineError("no_such_code")


def test_an_error_survives_the_way_between_processes() -> None:
    error = PipelineError("worker_lost", log="oom-killer: pid 7", losses=3, step="transcode-000")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code, copy.params, copy.log) == (error.code, error.params, error.log)
    assert str(copy) == str(error) == "worker_lost: The worker was lost while it did transcode-000 (losses: 3)."


def test_an_error_survives_the_record_without_what_is_for_the_log_only() -> None:
    error = PipelineError("storage_unavailable", log="secret-host:9000 refused", reason="timeout")
    document = error.document()
    assert "secret-host" not in json.dumps(document)
    assert PipelineError.from_document(document).document() == document
