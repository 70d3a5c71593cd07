"""What `asset.ingested` says of a source stays small, whatever the source is."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

from builders import a_media, a_profile, a_request, some_ingest_facts
from toyplans import ToyPlan, ToyPlanner

from pipeline.conductor import Answer, Conductor
from pipeline.events import LONGEST_TITLE, MOST_LISTED, Event, IngestedData, media_facts
from pipeline.job import Ref, Step
from pipeline.media import notes
from pipeline.memory import ManualClock, MemoryJobStore
from pipeline.tasks import AttachedPicture, Light, MediaInfo, Standard, TextStream, from_json, to_json


def a_monster() -> MediaInfo:
    """Everything that a source can have, as much of it as the limits allow."""
    media = a_media()
    assert media.video is not None
    title = "字" * 200
    tag = "x" * 35
    return replace(
        media,
        video=replace(media.video, title=title, language=tag, light=Light(max_content=1000)),
        audio=tuple(replace(media.audio[0], index=n, title=title, language=tag) for n in range(64)),
        text=tuple(TextStream(index=n, codec="subrip", title=title, language=tag) for n in range(64)),
        pictures=tuple(AttachedPicture(index=n, codec="mjpeg", width=640, height=640) for n in range(64)),
        notes=tuple(sorted(notes.SENTENCES)),
        standard=Standard(reasons=("bitrate", "hdr")),
        keyframes=tuple(Fraction(n, 3) for n in range(100_000)),
    )


def test_a_plain_source_is_told_whole() -> None:
    media = a_media()

    facts = media_facts(media)

    assert facts["unlisted"] == 0
    assert from_json(MediaInfo, json.dumps(facts["media"])) == replace(media, keyframes=())


def test_a_monster_is_told_in_some_kilobytes() -> None:
    facts = media_facts(a_monster())

    assert len(json.dumps(facts, ensure_ascii=False).encode()) < 12_000
    told = from_json(MediaInfo, json.dumps(facts["media"]))
    assert (len(told.audio), len(told.text), len(told.pictures)) == (MOST_LISTED,) * 3
    assert facts["unlisted"] == 3 * (64 - MOST_LISTED)
    assert told.keyframes == ()
    assert told.video is not None
    assert told.video.title == "字" * LONGEST_TITLE


def test_the_long_form_keeps_everything() -> None:
    assert from_json(MediaInfo, to_json(a_monster())) == a_monster()


def test_what_was_learned_before_there_were_so_many_fields_is_still_read() -> None:
    """`media.json` of an older version lacks them."""
    old = json.loads(to_json(replace(a_media(), audio=())))
    for name in ("text", "pictures", "others", "notes", "standard"):
        del old[name]
    for name in ("bits", "light", "dolby_vision", "open_gop", "mirrored", "title"):
        del old["video"][name]

    assert from_json(MediaInfo, json.dumps(old)) == replace(a_media(), audio=())


def test_ingested_tells_the_source_and_updated_does_not() -> None:
    clock = ManualClock()
    store = MemoryJobStore(clock)
    plan = ToyPlan(first=(Step(id="ingest", stage="ingest"),), grown=(), fates={})
    conductor = Conductor(store, clock, ToyPlanner({"request-1": plan}), {"default": a_profile()})
    conductor.accept(a_request())
    attempt = conductor.begin(Ref(job="request-1", step="ingest"), "w1")
    assert attempt is not None

    assert conductor.finish(attempt, Answer(ingest=some_ingest_facts(), source="private/asset000001.mp4"))

    told = {Event.model_validate(event).name: event["data"] for event in store.events}
    assert IngestedData.model_validate(told["asset.ingested"]).media == a_media()
    assert "media" not in told["asset.updated"]
