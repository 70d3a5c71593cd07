"""What storages say of new objects becomes requests, in whatever form it comes; and nothing else does."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.job import Priority
from pipeline.notifications import Arrival, SourceRule, arrivals, news, wish
from pipeline.requests import parse_request


def a_record(event: str = "ObjectCreated:Put", bucket: str = "films", **found: Any) -> dict[str, Any]:
    described = {
        "key": "uploads/my+film%26more.mp4",
        "size": 1024,
        "eTag": "d41d8cd9",
        "sequencer": "0055AED6",
        **found,
    }
    return {"eventSource": "aws:s3", "eventName": event, "s3": {"bucket": {"name": bucket}, "object": described}}


AMAZON = {"Records": [a_record(versionId="v1")]}
EVENT = {
    "version": "0",
    "detail-type": "Object Created",
    "source": "aws.s3",
    "detail": {
        "bucket": {"name": "films"},
        "object": {
            "key": "uploads/my film&more.mp4",
            "size": 1024,
            "etag": "d41d8cd9",
            "version-id": "v1",
            "sequencer": "0055AED6",
        },
        "reason": "PutObject",
    },
}
SNS = {"Type": "Notification", "TopicArn": "arn:…", "Message": json.dumps(AMAZON)}
FORMS = {
    "amazon": AMAZON,
    "minio": {"EventName": "s3:ObjectCreated:Put", "Key": "films/x", "Records": [a_record("s3:ObjectCreated:Put")]},
    "eventbridge": EVENT,
    "sns": SNS,
    "sqs": {"MessageId": "m", "Body": json.dumps(AMAZON)},
    "sqs receive-message": {"Messages": [{"Body": json.dumps(AMAZON)}]},
    "sqs to a function": {"Records": [{"messageId": "m", "eventSource": "aws:sqs", "body": json.dumps(AMAZON)}]},
    "sns to a function": {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": json.dumps(AMAZON)}}]},
    "sns in sqs": {"Body": json.dumps(SNS)},
    "eventbridge in sqs": {"Body": json.dumps(EVENT)},
    "seaweedfs": {
        "key": "/buckets/films/uploads/my film&more.mp4",
        "event_type": "create",
        "message": {"new_entry": {"name": "x", "attributes": {"file_size": 1024, "mtime": 7, "md5": "1B2M"}}},
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_tells_of_the_same_object(form: str) -> None:
    (arrival,) = arrivals(FORMS[form]) or ()

    assert (arrival.bucket, arrival.key) == ("films", "uploads/my film&more.mp4")
    assert arrival.url == "s3://films/uploads/my%20film%26more.mp4"


def test_the_same_content_is_the_same_asset_whoever_carried_the_news() -> None:
    told = {arrivals(FORMS[form]) for form in FORMS if form not in ("minio", "seaweedfs")}

    assert len(told) == 1
    ((arrival,),) = told
    assert arrival.asset == arrivals(AMAZON)[0].asset  # type: ignore[index]
    assert len(arrival.asset) == 11


@pytest.mark.parametrize(
    "other",
    [{"key": "uploads/b.mp4"}, {"eTag": "other"}, {"versionId": "v2"}, {"sequencer": "0055AED7"}, {"bucket": "songs"}],
)
def test_another_object_or_content_is_another_asset(other: dict[str, str]) -> None:
    (before,), (after,) = (arrivals({"Records": [a_record(**changes)]}) or () for changes in ({}, other))

    assert before.asset != after.asset
    assert before.request != after.request


def test_an_object_that_is_told_twice_in_one_breath_comes_once() -> None:
    assert len(arrivals({"Records": [a_record(), a_record(), a_record(key="uploads/b.mp4")]}) or ()) == 2


NOTHING = {
    "a test": {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "films"},
    "a test in SQS": {"Body": json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"})},
    "a deletion": {"Records": [a_record("ObjectRemoved:Delete")]},
    "a restore": {"Records": [a_record("ObjectRestore:Completed")]},
    "a folder": {"Records": [a_record(key="uploads/new/", size=0)]},
    "a folder of some size": {"Records": [a_record(key="uploads/new%2F", size=3)]},
    "an empty object": {"Records": [a_record(size=0)]},
    "no records": {"Records": []},
    "a deletion by EventBridge": {**EVENT, "detail-type": "Object Deleted"},
    "something else by EventBridge": {**EVENT, "source": "aws.ec2"},
    "a subscription": {"Type": "SubscriptionConfirmation", "Token": "t", "Message": "You have chosen …"},
    "a deletion by SeaweedFS": {**FORMS["seaweedfs"], "event_type": "delete"},
    "a part of SeaweedFS": {**FORMS["seaweedfs"], "key": "/buckets/films/.uploads/1/0001.part"},
    "no bucket of SeaweedFS": {**FORMS["seaweedfs"], "key": "/etc/secrets"},
}


@pytest.mark.parametrize("what", NOTHING)
def test_what_brings_no_new_file_tells_of_nothing(what: str) -> None:
    assert arrivals(NOTHING[what]) == ()


@pytest.mark.parametrize(
    "said",
    [
        {"type": "asset.process", "url": "/a.mp4"},
        {"type": "asset.batch", "requests": [], "Records": []},
        {"url": "/a.mp4"},
        [],
        "text",
        None,
        {"Event": "theirs"},
    ],
)
def test_what_is_no_notification_is_not_taken_for_one(said: object) -> None:
    assert arrivals(said) is None


def nested(depth: int) -> dict[str, Any]:
    return {"Body": json.dumps(nested(depth - 1))} if depth else AMAZON


BROKEN = {
    "no list": {"Records": {"s3": 1}},
    "no object": {"Records": ["s3"]},
    "no bucket": {"Records": [{"eventName": "ObjectCreated:Put", "s3": {"object": {"key": "a"}}}]},
    "no key": {"Records": [a_record(key="")]},
    "a key that is no text": {"Records": [a_record(key=["a"])]},
    "half a character": {**EVENT, "detail": {"bucket": {"name": "films"}, "object": {"key": "\ud800"}}},
    "no bucket's name": {"Records": [a_record(bucket="a/../b?x=canary")]},
    "another source": {"Records": [{"eventSource": "aws:dynamodb"}]},
    "no JSON inside": {"Type": "Notification", "Message": "{half"},
    "nothing inside": {"Body": ""},
    "no detail": {"detail-type": "Object Created", "source": "aws.s3"},
    "no message": {"event_type": "create", "key": "/buckets/a/b"},
    "envelopes without end": nested(9),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_looks_like_one_and_is_none_is_refused(what: str) -> None:
    with pytest.raises(PipelineError) as refused:
        arrivals(BROKEN[what])
    assert refused.value.code == "parameter_invalid"
    assert "canary" not in refused.value.message


@pytest.mark.parametrize("broken", [{"eventName": "ObjectCreated:Put", "s3": {}}, "s3", {"body": "{half"}])
def test_one_record_that_cannot_be_read_takes_no_other_with_it(broken: Any) -> None:
    said = {"Records": [a_record(), broken, a_record(key="uploads/b.mp4")]}

    told = news(said)

    assert told is not None
    assert [arrival.key for arrival in told.arrivals] == ["uploads/my film&more.mp4", "uploads/b.mp4"]
    assert told.unreadable is not None
    assert told.unreadable.code == "parameter_invalid"
    with pytest.raises(PipelineError):
        arrivals(said)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["aws.s3", "Object Created"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Records", "s3", "bucket", "object", "key", "name", "Body", "Message", "Sns", "detail"])
            | st.sampled_from(["detail-type", "source", "event_type", "message", "new_entry", "eventName", "Type"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_whatever_is_said_is_arrivals_or_none_or_refused(said: object) -> None:
    with suppress(PipelineError):
        found = arrivals(said)
        assert found is None or all(isinstance(each, Arrival) for each in found)


@given(st.data())
def test_a_damaged_notification_is_no_crash(data: st.DataObject) -> None:
    said = copy.deepcopy(data.draw(st.sampled_from(list(FORMS.values()))))
    at: Any = said
    while isinstance(at, dict | list) and at:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if data.draw(st.booleans()):
            at[key] = data.draw(JSON)
            break
        at = at[key]
    with suppress(PipelineError):
        arrivals(said)


# -- rules ------------------------------------------------------------------------------------------------------------

FILM = Arrival(bucket="films", key="uploads/news/a.mp4", mark="v1")


def test_the_longest_rule_that_names_an_object_says_what_is_made_of_it() -> None:
    rules = {
        "archive": [SourceRule(prefix="s3://films/", priority=Priority.BULK)],
        "newsroom": [
            SourceRule(prefix="s3://films/uploads/news/", profile="fast", in_place=True, resolutions=("240p",)),
            SourceRule(prefix="s3://other/uploads/news/and/more/"),
        ],
    }

    request = wish(FILM, rules)

    assert request is not None
    assert (request.organization, request.profile, request.in_place) == ("newsroom", "fast", True)
    assert (request.url, request.orig_filename) == ("s3://films/uploads/news/a.mp4", "a.mp4")
    assert (request.id, request.asset_id) == (FILM.request, FILM.asset)
    assert parse_request(request.model_dump_json()) == request
    elsewhere = wish(Arrival(bucket="films", key="b.mp4", mark=""), rules)
    assert elsewhere is not None
    assert (elsewhere.organization, elsewhere.priority) == ("archive", Priority.BULK)


@pytest.mark.parametrize("prefix", ["s3://films/uploads/old/", "s3://film/", "s3://films2/", "s3://films/Uploads/"])
def test_without_a_rule_nothing_is_made(prefix: str) -> None:
    assert wish(FILM, {"default": [SourceRule(prefix=prefix)]}) is None


@pytest.mark.parametrize("prefix", ["films/", "s3://films", "s3:///a", "https://films/", "s3://films/?endpoint=x"])
def test_a_rule_names_a_part_of_a_bucket(prefix: str) -> None:
    """`s3://films` alone would name `films-private` as well."""
    with pytest.raises(ValueError, match="prefix"):
        SourceRule(prefix=prefix)
