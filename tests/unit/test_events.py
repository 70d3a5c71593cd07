"""Events as consumers see them: CloudEvents, as their models and the AsyncAPI document say."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from front import ASSET, Front
from jsonschema import Draft7Validator, Draft202012Validator
from needs import Require
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from worlds import World

from pipeline import asyncapi
from pipeline.errors import PipelineError
from pipeline.events import EVENTS, PREFIX, AssetData, ErrorData, Event, RefusalData, StepData, envelope, seal
from pipeline.job import EventDraft
from pipeline.memory import ManualClock, MemoryJobStore
from pipeline.requests import META_BYTES, REQUESTS, parse_request

ROOT = Path(__file__).resolve().parents[2]
OFFICIAL_SCHEMA = ROOT / "node_modules" / "@asyncapi" / "specs" / "schemas" / "3.0.0.json"
DOCUMENT = asyncapi.document()
MESSAGES: Mapping[str, Any] = DOCUMENT["components"]["messages"]
REGISTRY: Registry[Any] = Registry().with_resource("doc", DRAFT202012.create_resource(DOCUMENT))


@pytest.fixture(scope="module")
def emitted(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every event of some lively worlds, a refusal, which no job brings, and the end of an asset."""
    worlds = [World(random.Random(seed).randrange) for seed in range(12)]
    for world in worlds:
        world.run()
    store = MemoryJobStore(ManualClock())
    refusal = RefusalData(request="r-1", error=ErrorData.model_validate(PipelineError("parameter_invalid").document()))
    store.append("asset000001", a_draft(type="request.refused", data=refusal.model_dump(mode="json")))
    front = Front(tmp_path_factory.mktemp("front"))
    front.ready()
    _cut(front)
    front.ask("delete", ids=[ASSET])
    front.live()
    return [event for world in worlds for event in world.books.events()] + store.events + front.events


def _cut(front: Front) -> None:
    """Trims, clips and exports, each made and each cancelled."""
    wishes: list[tuple[str, dict[str, Any]]] = [
        ("trim", {"start_time": 1, "preview": True}),
        ("trim", {"start_time": 1}),
        ("revert_trim", {}),
        ("clip", {"new_id": "cl1p0000001", "end_time": 4}),
        ("export", {}),
    ]
    for wish, fields in wishes:
        front.ask(wish, asset_id=ASSET, **fields)
        front.live(seconds=5)
    for wish, fields in (("trim", {"end_time": 2}), ("clip", {"new_id": "cl1p0000002", "end_time": 2}), ("export", {})):
        front.ask(wish, asset_id=ASSET, **fields)
        front.ask("cancel", asset_id=fields.get("new_id", ASSET))
        front.live(seconds=5)


def a_draft(**changes: Any) -> EventDraft:
    return EventDraft(**{"id": "e-1", "type": "step.started", "data": {"job": "j"}, **changes})


def sealed(draft: EventDraft, *, sequence: int = 1, now_ms: int = 0) -> str:
    body = envelope(draft, asset="asset000001", job="j", organization="default", now_ms=now_ms, prefix=PREFIX)
    return seal(body, sequence=sequence, epoch=3)


# -- what is emitted --------------------------------------------------------------------------------------------------


def test_every_type_of_the_table_is_emitted(emitted: list[dict[str, Any]]) -> None:
    assert {Event.model_validate(event).name for event in emitted} == set(EVENTS)


def test_every_emitted_event_is_what_its_model_says(emitted: list[dict[str, Any]]) -> None:
    for said in emitted:
        event = Event.model_validate(said)
        model = EVENTS[event.name][0]
        assert isinstance(event.payload, model)
        assert set(said["data"]) <= set(model.model_fields), f"{event.name} says more than its model"
        assert set(said) <= set(Event.model_fields), f"{event.name} has more attributes than the envelope"


def test_every_emitted_event_is_what_the_asyncapi_document_says(emitted: list[dict[str, Any]]) -> None:
    validators = {name: _validator(f"#/components/messages/{name}/payload") for name in EVENTS}
    for said in emitted:
        validators[Event.model_validate(said).name].validate(said)


def test_every_emitted_event_is_a_cloudevent(emitted: list[dict[str, Any]]) -> None:
    """The CloudEvents SDK reads each as a structured message, and gives back the same attributes and data."""
    for said in emitted:
        message = HTTPMessage(headers={"content-type": "application/cloudevents+json"}, body=json.dumps(said).encode())
        read = from_structured_event(message)
        assert isinstance(read, CloudEvent)
        assert read.get_id() == said["id"]
        assert read.get_type() == said["type"]
        assert read.get_subject() == said["subject"]
        assert read.get_extension("sequence") == said["sequence"]
        assert read.get_extension("epoch") == said["epoch"]
        assert read.get_data() == said["data"]
        assert json.loads(JSONFormat().write(read))["data"] == said["data"]


def test_failures_name_their_error_in_the_event(emitted: list[dict[str, Any]]) -> None:
    told = [Event.model_validate(event) for event in emitted]
    failures = [e for e in told if e.name in ("step.failed", "step.retrying", "asset.failed", "asset.cancelled")]
    assert failures
    for event in failures:
        payload = event.payload
        assert isinstance(payload, AssetData | StepData)
        assert payload.error is not None
        assert PipelineError(payload.error.code, **payload.error.params).message == payload.error.message


def test_a_retry_says_who_failed_and_when_it_goes_on(emitted: list[dict[str, Any]]) -> None:
    retries = [event["data"] for event in emitted if event["type"] == f"{PREFIX}.step.retrying.v1"]
    assert all(data["worker"] for data in retries)
    waits = {data["retry_in_s"] for data in retries if data["error"]["code"] == "storage_unavailable"}
    assert 1.0 in waits
    assert all(0.5 <= wait <= 60 for wait in waits)
    assert waits


# -- the envelope -----------------------------------------------------------------------------------------------------


def test_the_seal_adds_sequence_and_epoch_and_nothing_else() -> None:
    event = json.loads(sealed(a_draft(data={"title": 'Käse "1" 字'}), sequence=7, now_ms=1_767_225_600_123))
    assert event == {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/reelway/default",
        "type": "dev.reelway.step.started.v1",
        "subject": "asset000001",
        "time": "2026-01-01T00:00:00.123Z",
        "datacontenttype": "application/json",
        "correlationid": "j",
        "sequence": "00000000000000000007",
        "epoch": 3,
        "data": {"title": 'Käse "1" 字'},
    }


def test_sequences_sort_as_text() -> None:
    texts = [json.loads(sealed(a_draft(), sequence=number))["sequence"] for number in (1, 9, 10, 99, 100, 12_345)]
    assert texts == sorted(texts)


def test_an_event_is_read_back_as_it_was_meant() -> None:
    event = Event.model_validate_json(sealed(a_draft(type="asset.ready"), sequence=2, now_ms=1_500))
    assert event.name == "asset.ready"
    assert event.time == datetime.fromtimestamp(1.5, UTC)
    assert (event.subject, event.correlationid, event.epoch) == ("asset000001", "j", 3)


def test_a_consumer_is_not_broken_by_a_field_that_it_does_not_know() -> None:
    """A newer Reelway may say more; what was there stays."""
    later = {**json.loads(sealed(a_draft())), "traceparent": "00-abc", "data": {**_example("step.started"), "new": 1}}
    payload = Event.model_validate(later).payload
    assert isinstance(payload, StepData)
    assert payload.step == "transcode-000"


# -- the AsyncAPI document --------------------------------------------------------------------------------------------


def test_every_reference_in_the_document_leads_somewhere() -> None:
    found = set(_references(DOCUMENT))
    assert found
    for reference in found:
        assert _resolve(reference), reference


def test_every_schema_is_one() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft7Validator.check_schema(schema)


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_has_an_example_that_is_valid(name: str) -> None:
    examples = MESSAGES[name]["examples"]
    assert examples
    for example in examples:
        _validator(f"#/components/messages/{name}/payload").validate(example["payload"])


@pytest.mark.parametrize("name", REQUESTS)
def test_an_example_of_a_request_is_taken_as_it_stands(name: str) -> None:
    message = MESSAGES[name]
    request = parse_request(json.dumps(message["examples"][0]["payload"]))
    assert (request.type, request.id) == (name, "example")
    assert message["summary"].endswith(".")
    assert "`" not in message["summary"][:1]


@pytest.mark.parametrize("name", EVENTS)
def test_an_example_of_an_event_is_an_event(name: str) -> None:
    event = Event.model_validate(MESSAGES[name]["examples"][0]["payload"])
    assert event.name == name
    assert set(event.data) <= set(EVENTS[name][0].model_fields)
    assert len(json.dumps(event.data["meta"])) <= META_BYTES


def test_the_schemas_tell_a_wrong_event_from_a_right_one() -> None:
    """A schema that accepts everything would pass every other test here."""
    right = MESSAGES["asset.ready"]["examples"][0]["payload"]
    validator = _validator("#/components/messages/asset.ready/payload")
    wrong = [
        {**right, "type": "dev.reelway.asset.failed.v1"},
        {key: value for key, value in right.items() if key != "sequence"},
        {**right, "data": {**right["data"], "asset": {**right["data"]["asset"], "video": None}}},
        {**right, "epoch": "one"},
    ]
    assert validator.is_valid(right)
    assert not [event for event in wrong if validator.is_valid(event)]


def test_the_channels_are_the_three_streams() -> None:
    addresses = {channel["address"]: set(channel["messages"]) for channel in DOCUMENT["channels"].values()}
    assert addresses == {
        "reelway:events": set(EVENTS),
        "reelway:requests": set(REQUESTS),
        "reelway:progress": {"step.progress"},
    }
    assert {operation["action"] for operation in DOCUMENT["operations"].values()} == {"send", "receive"}


def test_the_document_fits_the_official_schema(require: Require) -> None:
    require(OFFICIAL_SCHEMA.exists(), "the schema of AsyncAPI 3.0 comes with `make install`")
    Draft7Validator(json.loads(OFFICIAL_SCHEMA.read_text(encoding="utf-8"))).validate(DOCUMENT)


def _validator(reference: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"doc{reference}"}, registry=REGISTRY)


def _example(name: str) -> dict[str, Any]:
    data: dict[str, Any] = MESSAGES[name]["examples"][0]["payload"]["data"]
    return data


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _resolve(reference: str) -> Any:
    assert reference.startswith("#/")
    value: Any = DOCUMENT
    for part in reference[2:].split("/"):
        value = value[part]
    return value
