"""The checker of the chaos runs finds what is wrong: a checker that finds nothing may check nothing."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aftermath import FIRST, SECOND, THIRD, Aftermath, name_of
from presentations import edit
from verdict import gather, judge, markers, named, orphans

from pipeline import keys
from pipeline.presentation.model import Presentation
from pipeline.presentation.publish import latest
from pipeline.tasks import from_json, to_json

Spoil = Callable[[Aftermath], None]


@pytest.fixture
def world(tmp_path: Path) -> Aftermath:
    return Aftermath(root=tmp_path).live()


def rules(world: Aftermath) -> set[str]:
    return {finding.rule for finding in judge(gather(world.events, world.storage, world.promised))}


def test_a_world_that_went_well_is_clean(world: Aftermath) -> None:
    evidence = gather(world.events, world.storage, world.promised)
    assert [str(finding) for finding in (*judge(evidence), *orphans(evidence))] == []
    assert {name_of(event) for event in world.events} >= {"step.retrying", "asset.failed", "subtitle.completed"}


# -- a log with one thing wrong ---------------------------------------------------------------------------------------


def find(world: Aftermath, name: str, asset: str = FIRST, **data: Any) -> dict[str, Any]:
    """The first event of this name whose data say so."""
    return next(
        event
        for event in world.events
        if name_of(event) == name and event["subject"] == asset and data.items() <= event["data"].items()
    )


def renumbered(world: Aftermath) -> None:
    """Give every asset its sequences again, so that only what was meant is wrong."""
    counts: dict[str, int] = {}
    for event in world.events:
        counts[event["subject"]] = counts.get(event["subject"], 0) + 1
        event["sequence"] = f"{counts[event['subject']]:020d}"


def again(world: Aftermath, event: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The event once more, right behind itself, under an id of its own."""
    copied = copy.deepcopy(event) | {"id": f"{event['id']}.again"}
    copied["data"] |= changes
    world.events.insert(world.events.index(event) + 1, copied)
    renumbered(world)
    return copied


def move(world: Aftermath, event: dict[str, Any], *, before: dict[str, Any]) -> None:
    world.events.remove(event)
    world.events.insert(world.events.index(before), event)
    renumbered(world)


def an_event_is_missing(world: Aftermath) -> None:
    world.events.remove(find(world, "step.finished", step="audio-1-en"))


def a_sequence_is_repeated(world: Aftermath) -> None:
    find(world, "step.finished", step="audio-1-en")["sequence"] = f"{1:020d}"


def an_id_is_repeated(world: Aftermath) -> None:
    find(world, "step.finished", step="package")["id"] = find(world, "step.finished", step="ingest")["id"]


def a_job_never_ends(world: Aftermath) -> None:
    at = world.events.index(find(world, "asset.ready"))
    del world.events[at : at + 2]
    renumbered(world)


def a_request_is_never_heard_of(world: Aftermath) -> None:
    world.promised.add("job-9")


def a_job_ends_twice(world: Aftermath) -> None:
    again(world, find(world, "asset.ready"))


def a_job_is_accepted_twice(world: Aftermath) -> None:
    again(world, find(world, "asset.accepted"))


def a_step_goes_on_after_the_end(world: Aftermath) -> None:
    world.events.append(copy.deepcopy(find(world, "step.started", step="package")))
    world.events[-1]["id"] += ".again"
    renumbered(world)


def a_step_begins_before_its_needs_are_settled(world: Aftermath) -> None:
    began = find(world, "step.started", step="package")
    move(world, began, before=find(world, "step.finished", step="audio-1-en"))


def an_attempt_is_counted_twice(world: Aftermath) -> None:
    find(world, "step.started", step="transcode-000", attempt=2)["data"]["attempt"] = 1


def a_zombie_finishes_its_step(world: Aftermath) -> None:
    find(world, "step.finished", step="transcode-000")["data"].update(attempt=1, worker="here-2-b")


def a_zombie_finishes_in_the_name_of_another(world: Aftermath) -> None:
    facts = find(world, "step.finished", step="transcode-000")["data"]["facts"]
    facts["receipt"] = facts["receipt"].replace(".2-", ".1-")


def a_step_finishes_twice(world: Aftermath) -> None:
    again(world, find(world, "step.finished", step="audio-1-en"))


def an_asset_is_ready_though_a_step_failed(world: Aftermath) -> None:
    event = find(world, "step.finished", step="audio-1-en")
    event["type"] = event["type"].replace("finished", "failed")


def an_asset_is_ready_without_a_step(world: Aftermath) -> None:
    world.events = [event for event in world.events if event["data"].get("step") != "subtitle"]
    renumbered(world)


def a_track_is_announced_twice(world: Aftermath) -> None:
    again(world, find(world, "track.ready", track="video-360p"))


def captions_are_announced_twice(world: Aftermath) -> None:
    again(world, find(world, "subtitle.completed"))


def an_event_names_another_version(world: Aftermath) -> None:
    find(world, "step.finished", step="package")["data"]["facts"]["version"] = 2


def nobody_says_what_was_published(world: Aftermath) -> None:
    del find(world, "step.finished", step="package")["data"]["facts"]["version"]


def a_document_goes_back(world: Aftermath) -> None:
    find(world, "asset.updated", SECOND)["data"]["asset"]["version"] = 7


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (an_event_is_missing, "gap"),
        (a_sequence_is_repeated, "gap"),
        (an_id_is_repeated, "envelope"),
        (a_job_never_ends, "lost"),
        (a_request_is_never_heard_of, "lost"),
        (a_job_ends_twice, "ended twice"),
        (a_job_is_accepted_twice, "accepted"),
        (a_step_goes_on_after_the_end, "after the end"),
        (a_step_begins_before_its_needs_are_settled, "step"),
        (an_attempt_is_counted_twice, "step"),
        (a_zombie_finishes_its_step, "step"),
        (a_zombie_finishes_in_the_name_of_another, "step"),
        (a_step_finishes_twice, "step"),
        (an_asset_is_ready_though_a_step_failed, "step"),
        (an_asset_is_ready_without_a_step, "step"),
        (a_track_is_announced_twice, "told twice"),
        (captions_are_announced_twice, "told twice"),
        (an_event_names_another_version, "published"),
        (nobody_says_what_was_published, "published"),
        (a_document_goes_back, "document"),
    ],
)
def test_a_log_with_one_thing_wrong_is_found(world: Aftermath, spoil: Spoil, rule: str) -> None:
    world.events = copy.deepcopy(world.events)

    spoil(world)

    assert rule in rules(world)


# -- a bucket with one thing wrong ------------------------------------------------------------------------------------


def version(world: Aftermath, number: int = 1, asset: str = FIRST) -> Presentation:
    return from_json(Presentation, world.storage.get(f"{keys.version(asset, number)}presentation.json"))


def rewrite(world: Aftermath, key: str, change: Callable[[str], str]) -> None:
    world.storage.put(key, change(world.storage.get(key).decode()).encode())


def a_segment_is_missing(world: Aftermath) -> None:
    world.storage.delete(version(world).video[0].segments[1].key)


def a_segment_is_torn(world: Aftermath) -> None:
    world.storage.put(version(world).audio[0].segments[0].key, b"torn")


def an_init_segment_is_missing(world: Aftermath) -> None:
    world.storage.delete(version(world).video[0].init)


def a_playlist_is_missing(world: Aftermath) -> None:
    world.storage.delete(f"{version(world).folder}video-360p.m3u8")


def a_playlist_is_that_of_another_version(world: Aftermath) -> None:
    rewrite(world, f"{version(world).folder}video-360p.m3u8", lambda text: text.replace("EXTINF", "EXT-X-GAP"))


def captions_are_missing(world: Aftermath) -> None:
    shown = version(world, 2)
    world.storage.delete(shown.captions(shown.text[0]))


def a_version_is_missing(world: Aftermath) -> None:
    world.storage.delete(f"{keys.version(FIRST, 1)}presentation.json")


def an_effect_is_published_twice(world: Aftermath) -> None:
    body = world.storage.get(f"{keys.version(FIRST, 2)}presentation.json").replace(b'"version":2', b'"version":3')
    world.storage.put(f"{keys.version(FIRST, 3)}presentation.json", body)


def a_door_is_ahead_of_its_version(world: Aftermath) -> None:
    rewrite(world, keys.hls_door(FIRST), lambda text: text.replace("presentation 2", "presentation 3"))


def a_door_lags_behind(world: Aftermath) -> None:
    rewrite(world, keys.dash_door(FIRST), lambda text: text.replace("presentation 2", "presentation 1"))


def a_door_is_missing(world: Aftermath) -> None:
    world.storage.delete(keys.dash_door(FIRST))


def a_door_leads_nowhere(world: Aftermath) -> None:
    rewrite(world, keys.hls_door(SECOND), lambda text: re.sub(r"video-360p\.m3u8", "video-9p.m3u8", text))


def a_door_cannot_be_parsed(world: Aftermath) -> None:
    world.storage.put(keys.dash_door(SECOND), b"<MPD")


def a_door_opens_on_nothing(world: Aftermath) -> None:
    world.storage.put(keys.hls_door(THIRD), b"#EXTM3U\n")


def something_of_a_failed_asset_is_left(world: Aftermath) -> None:
    world.storage.put(f"{keys.PRIVATE}/{THIRD}.mp4", b"source")


def nothing_of_a_ready_asset_is_public(world: Aftermath) -> None:
    world.storage.delete(keys.public(SECOND))


def a_history_is_missing(world: Aftermath) -> None:
    world.storage.delete(keys.history(SECOND, "job-2"))


def the_same_recipe_made_other_bytes(world: Aftermath) -> None:
    segment = version(world, 1, SECOND).video[0].segments[0]
    world.storage.put(segment.key, b"x" * segment.size)


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (a_segment_is_missing, "missing"),
        (an_init_segment_is_missing, "missing"),
        (a_playlist_is_missing, "missing"),
        (captions_are_missing, "missing"),
        (a_segment_is_torn, "size"),
        (a_playlist_is_that_of_another_version, "playlist"),
        (a_version_is_missing, "versions"),
        (an_effect_is_published_twice, "published twice"),
        (a_door_is_ahead_of_its_version, "door"),
        (a_door_lags_behind, "door"),
        (a_door_is_missing, "door"),
        (a_door_leads_nowhere, "door"),
        (a_door_cannot_be_parsed, "door"),
        (a_door_opens_on_nothing, "door"),
        (something_of_a_failed_asset_is_left, "half"),
        (nothing_of_a_ready_asset_is_public, "half"),
        (a_history_is_missing, "history"),
        (the_same_recipe_made_other_bytes, "bytes"),
    ],
)
def test_a_bucket_with_one_thing_wrong_is_found(world: Aftermath, spoil: Spoil, rule: str) -> None:
    assert latest(world.storage, FIRST) is not None

    spoil(world)

    assert rule in rules(world)


@pytest.mark.parametrize(
    "key",
    [
        f"{keys.PRIVATE}/{FIRST}/receipts/job-1/transcode-000.1-lost.json",
        f"{keys.version(FIRST, 2)}0123456789ab/video-360p.m3u8",
        f"{keys.track(FIRST, 'video-360p', 'other')}0.m4s",
        keys.media("strange0001"),
    ],
)
def test_an_object_without_an_owner_is_found(world: Aftermath, key: str) -> None:
    world.storage.put(key, b"{}")

    assert [orphan.detail for orphan in orphans(gather(world.events, world.storage, world.promised))] == [key]


# -- edits and clips --------------------------------------------------------------------------------------------------


def test_the_pieces_of_an_edit_and_the_marker_of_a_clip_must_be_there(world: Aftermath) -> None:
    """The verdict asks for what it is told to: a clip of the first asset, in the place of the second one's version."""
    first = version(world)
    base = edit(first, 40, 200, seams=True)
    pieces = [piece for patch in base.patches for piece in (*patch.head, *patch.tail)]

    shown = replace(first, asset=SECOND, base=base)

    assert pieces
    assert {piece.key for piece in pieces} | {piece.init for piece in pieces if piece.init} <= named(shown).keys()
    assert keys.reference(FIRST, SECOND) in markers(shown)
    assert markers(first) == set()

    key = f"{keys.version(SECOND, 1)}presentation.json"
    world.storage.put(key, to_json(shown).encode())
    evidence = gather(world.events, world.storage, world.promised)
    found = {finding.detail for finding in judge(evidence) if finding.rule == "missing"}
    assert {f"version 1 names {piece.key}" for piece in pieces} <= found
    assert f"version 1 needs {keys.reference(FIRST, SECOND)}" in found
