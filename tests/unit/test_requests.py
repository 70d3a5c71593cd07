"""The door: what a request may say, and how it is told what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from builders import a_request
from pydantic import ValidationError

from pipeline.conductor import refusal
from pipeline.requests import META_BYTES, RESOLUTIONS, ProcessRequest, new_asset_id


def test_a_source_is_all_that_must_be_said() -> None:
    request = ProcessRequest(url="/videos/clip.mp4")
    assert request.profile == "default"
    assert request.resolutions == ()
    assert request.id != ProcessRequest(url="/videos/clip.mp4").id


@pytest.mark.parametrize(
    "asset_id", ["abcdefghijk", "AB3defGHIjk", "01234567890", "9328558d-e0a5-4093-b3b9-8f15ad1550d8"]
)
def test_a_caller_may_bring_its_own_asset_id(asset_id: str) -> None:
    assert a_request(asset_id=asset_id).asset_id == asset_id


@pytest.mark.parametrize(
    "asset_id",
    ["", "short", "twelvechars1", "../../../etc", "abcdefghij/", "abcdefghij\n", "äbcdefghijk", "٣٣٣٣٣٣٣٣٣٣٣"],
)
def test_an_asset_id_that_could_not_be_a_key_is_refused(asset_id: str) -> None:
    assert _reason(asset_id=asset_id).startswith("asset_id: an asset id is 11 characters")


def test_made_asset_ids_are_valid_and_differ() -> None:
    made = {new_asset_id() for _ in range(100)}
    assert len(made) == 100
    for asset_id in made:
        assert a_request(asset_id=asset_id).asset_id == asset_id == asset_id.lower()


@pytest.mark.parametrize("id_", ["", "a b", "a/b", "x" * 65, "line\n"])
def test_a_request_id_is_a_plain_name(id_: str) -> None:
    assert _reason(id=id_).startswith("id: ")


def test_a_misspelt_option_does_not_pass_silently() -> None:
    assert _reason(resolution="720p") == "resolution: Extra inputs are not permitted"


def test_resolutions_come_as_a_list_or_as_the_references_comma_separated_string() -> None:
    assert a_request(resolutions=["240p", "720p"]).resolutions == ("240p", "720p")
    assert a_request(resolutions="240p, 720p,").resolutions == ("240p", "720p")
    assert a_request(resolutions=["720p", "720p"]).resolutions == ("720p",)


@pytest.mark.parametrize("resolutions", [["999p"], "240p,999p", "720P"])
def test_an_unknown_resolution_is_named_with_the_known_ones(resolutions: object) -> None:
    reason = _reason(resolutions=resolutions)
    assert reason.startswith("resolutions: unknown resolution '")
    assert reason.endswith(", ".join(RESOLUTIONS))


def test_meta_is_kept_as_it_is_up_to_its_limit() -> None:
    fitting = {"k": "x" * (META_BYTES - len('{"k": ""}'))}
    assert a_request(meta=fitting).meta == fitting
    assert _reason(meta={"k": fitting["k"] + "x"}).startswith("meta: meta may have at most 4096 bytes")


def test_meta_is_counted_in_bytes_not_in_characters() -> None:
    assert a_request(meta={"k": "字" * 1300}).meta
    assert "at most" in _reason(meta={"k": "字" * 1400})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"bytes", "\ud800"])
def test_meta_that_no_event_could_carry_is_refused(value: object) -> None:
    assert _reason(meta={"k": value}).startswith("meta: ")


@pytest.mark.parametrize("field", ["url", "title", "orig_filename", "external_id"])
def test_text_that_no_event_could_carry_is_refused(field: str) -> None:
    """A file name that is not UTF-8 comes from the system with lone surrogates."""
    assert _reason(**{field: "clip-\udcff.mp4"}) == f"{field}: not valid Unicode text"


def test_a_refusal_is_one_readable_sentence() -> None:
    with pytest.raises(ValidationError) as caught:
        a_request(resolutions=["999p"])
    error = refusal(caught.value)
    assert error.code == "parameter_invalid"
    assert not error.retryable
    assert error.message == (
        "The request is not valid: resolutions: unknown resolution '999p'; "
        "known are 240p, 360p, 480p, 540p, 720p, 1080p."
    )


def test_a_refusal_does_not_repeat_what_may_be_a_secret() -> None:
    with pytest.raises(ValidationError) as caught:
        ProcessRequest.model_validate({"url": ["https://user:hunter2@example.com/clip.mp4"]})
    assert "hunter2" not in str(refusal(caught.value).document())


def test_a_request_that_is_no_json_is_refused_in_one_sentence_too() -> None:
    with pytest.raises(ValidationError) as caught:
        ProcessRequest.model_validate_json("{")
    assert refusal(caught.value).message.startswith("The request is not valid: Invalid JSON")


@pytest.mark.parametrize("language", ["en", "deu", "pt-BR", "zh-Hans-CN"])
def test_captions_have_a_language(language: str) -> None:
    assert a_request(generate_subtitle=True, language=language).language == language


@pytest.mark.parametrize("language", ["", "english", "e", "en_US", "en-", "../x"])
def test_what_is_no_language_tag_is_refused(language: str) -> None:
    assert _reason(generate_subtitle=True, language=language).startswith("language: ")


def test_a_language_without_captions_is_a_mistake() -> None:
    assert "needs generate_subtitle" in _reason(language="de")


def _reason(**changes: Any) -> str:
    """What is wrong with the request, as the refusal says it."""
    with pytest.raises(ValidationError) as caught:
        a_request(**changes)
    return str(refusal(caught.value).params["detail"])
