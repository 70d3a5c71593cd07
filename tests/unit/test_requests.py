"""The door: what a request may say, and how it is told what is wrong."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
from builders import a_request
from pydantic import ValidationError

from pipeline.conductor import refusal
from pipeline.requests import (
    LAST_MS,
    META_BYTES,
    REQUESTS,
    RESOLUTIONS,
    BatchRequest,
    DeleteRequest,
    DuplicateRequest,
    ExportRequest,
    ProcessRequest,
    ReprocessRequest,
    Request,
    exact,
    new_asset_id,
    parse_request,
    request_of,
)


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


# -- every other request ----------------------------------------------------------------------------------------------


def parsed(type_: str, **fields: Any) -> Request:
    return parse_request(json.dumps({"type": f"asset.{type_}", **fields}))


def _wrong(type_: str, **fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        parsed(type_, **fields)
    said = refusal(caught.value)
    return str(said.params.get("detail", said.message))


def test_a_request_says_what_it_is() -> None:
    assert "type" in _reason_of('{"id": "r-1"}')
    assert "nosuch" in _reason_of('{"type": "asset.nosuch"}')


def _reason_of(text: str) -> str:
    with pytest.raises(ValidationError) as caught:
        parse_request(text)
    return str(caught.value)


@pytest.mark.parametrize("type_", [name.partition(".")[2] for name in REQUESTS])
def test_a_misspelt_option_of_any_request_does_not_pass_silently(type_: str) -> None:
    assert "Extra inputs are not permitted" in _reason_of(json.dumps({"type": f"asset.{type_}", "no_such": 1}))


def test_reprocess_is_told_what_to_make_in_one_way() -> None:
    again = parsed("reprocess", asset_id="abcdefghijk", stages=["audio", "audio"])
    assert isinstance(again, ReprocessRequest)
    assert again.stages == again.again == ("audio",)
    assert "needs everything" in _wrong("reprocess", asset_id="abcdefghijk", profile="hq")
    assert "leave out stages" in _wrong("reprocess", asset_id="abcdefghijk", everything=True, stages=["audio"])
    assert _wrong("reprocess", asset_id="abcdefghijk", stages=["sprite"]).startswith("asset.reprocess.stages")
    assert "unknown resolution" in _wrong("reprocess", asset_id="abcdefghijk", resolutions="9p")


@pytest.mark.parametrize("type_", ["trim", "clip"])
def test_a_part_has_one_end_at_least(type_: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parsed(type_, asset_id="abcdefghijk")

    assert refusal(caught.value).document()["params"] == {"parameter": "start_time"}
    assert parsed(type_, asset_id="abcdefghijk", end_time=0), "whether there is such a part is seen at the asset"


@pytest.mark.parametrize("value", [True, "30", [1], {}])
def test_a_time_is_a_number(value: object) -> None:
    assert "start_time" in _wrong("trim", asset_id="abcdefghijk", start_time=value)


def test_a_time_is_the_number_that_was_written() -> None:
    assert [exact(value) for value in (0.1, 30.0, 1e-9, 123456.789)] == [
        Fraction(1, 10),
        30,
        Fraction(1, 10**9),
        Fraction(123456789, 1000),
    ]


def test_a_clip_is_another_asset() -> None:
    assert "new_id" in _wrong("clip", asset_id="abcdefghijk", new_id="abcdefghijk", end_time=3)
    first, second = (parsed("duplicate", asset_id="abcdefghijk") for _ in range(2))
    assert isinstance(first, DuplicateRequest)
    assert isinstance(second, DuplicateRequest)
    assert first.new_id != second.new_id != "abcdefghijk"


def test_an_export_names_tracks_by_what_they_are_called_anywhere() -> None:
    asked = parsed("export", asset_id="abcdefghijk", audio=["en", "audio-1-en", "en"], captions=["4095"])

    assert isinstance(asked, ExportRequest)
    assert (asked.audio, asked.captions) == (("en", "audio-1-en"), ("4095",))
    assert "audio" in _wrong("export", asset_id="abcdefghijk", audio=["../x"])


def test_only_versions_from_one_on_can_be_gone_back_to() -> None:
    assert "version" in _wrong("roll_back", asset_id="abcdefghijk", version=0)


def test_a_batch_names_its_members_so_that_sent_twice_it_is_the_same() -> None:
    batch = parsed("batch", id="b", organization="acme", requests=[{"url": "/1"}, {"id": "mine", "url": "/2"}])
    assert isinstance(batch, BatchRequest)
    assert [(member.id, member.organization) for member in batch.requests] == [("b-1", "acme"), ("mine", "acme")]


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        ([], "at least 1 item"),
        ([{"url": "/1", "id": "x"}, {"url": "/2", "id": "x"}], "the same id"),
        ([{"url": "/1", "asset_id": "abcdefghijk"}, {"url": "/2", "asset_id": "abcdefghijk"}], "the same asset_id"),
        ([{"url": "/1", "organization": "acme"}], "the organization of the batch"),
        ([{"url": "/1"}, {"title": "no url"}], "lacks requests.1.url"),
        (["/1"], "requests.0"),
        ("/1", "requests"),
    ],
)
def test_a_batch_is_in_order_as_a_whole(requests: object, reason: str) -> None:
    assert reason in _wrong("batch", requests=requests)


def test_whom_to_delete_is_said_once_each() -> None:
    request = parsed("delete", ids=["abcdefghijk", "abcdefghijl", "abcdefghijk"])
    assert isinstance(request, DeleteRequest)
    assert request.ids == ("abcdefghijk", "abcdefghijl")
    assert "ids" in _wrong("delete", ids=[])
    assert "ids" in _wrong("delete", ids=["../../../etc"])


@pytest.mark.parametrize("at", [-1, "soon", 1.5, LAST_MS + 1])
def test_an_end_is_a_time_in_milliseconds(at: object) -> None:
    assert "expire_at" in _wrong("expire", asset_id="abcdefghijk", expire_at=at)


def test_a_job_tells_what_was_asked() -> None:
    request = parsed("reprocess", asset_id="abcdefghijk", everything=True, meta={"k": 1})
    assert request_of(json.loads(request.model_dump_json())) == request
