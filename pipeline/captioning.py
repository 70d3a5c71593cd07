"""Text tracks: the subtitle step, and the text that a source brought. Both are stored as revisions, create-only."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pipeline import keys
from pipeline.answers import Answer, Subtitled
from pipeline.held import Held
from pipeline.ports import ObjectNotFound, PreconditionFailed, Storage
from pipeline.presentation.captions import generated_id, generated_track, source_id, source_tracks
from pipeline.presentation.model import Track
from pipeline.presentation.publish import latest
from pipeline.publishing import publish_tracks, shown
from pipeline.tasks import PackageTask, SubtitleFacts, SubtitleTask, Timeline, as_data, from_json

log = logging.getLogger("reelway.workbench")

_TEXT_FILES = {"vtt": "captions.vtt", "words.json": "words.json"}
"""Suffix in storage → output of the subtitle stage."""


def subtitle(held: Held[SubtitleTask]) -> Answer:
    """Do the step."""
    inputs = {"source": held.source(held.task.source)}

    def keep(name: str, path: Path) -> None:
        # The name of a revision follows from all of its files, so they wait until the last one is there.
        path.replace(held.scratch / name)

    return _answer(held, from_json(SubtitleFacts, held.run(inputs, keep)))


def _answer(held: Held[SubtitleTask], heard: SubtitleFacts) -> Answer:
    said = {
        **as_data(heard),
        "speech_s": round(float(heard.speech_s), 3),
        "media_s": round(float(heard.media_s), 3),
        "cpu_s": held.cpu_s,
    }
    if not heard.speech:
        return Answer(facts=said, subtitled=Subtitled())
    track = _stored_text(held, heard.language, held.task.timeline)
    presentation = publish_tracks(held, (track,), held.task.timeline)
    # An earlier attempt may have published before it died, and have heard something else.
    brought = min((text for text in presentation.text if text.auto_generated), key=lambda text: text.id != track.id)
    return Answer(
        facts={**said, "track": brought.id, "captions": brought.segments[0].key, "version": presentation.version},
        published=shown(held, presentation),
        subtitled=Subtitled(track=brought.id),
    )


def _stored_text(held: Held[SubtitleTask], language: str, timeline: Timeline) -> Track:
    """Store a revision: captions and the words behind them."""
    files = {suffix: (held.scratch / name).read_bytes() for suffix, name in _TEXT_FILES.items()}
    stored = stored_revision(held.storage, held.task.asset, generated_id(language), files)
    return generated_track(language, key=stored["vtt"], size=len(files["vtt"]), duration=timeline.duration)


def brought_texts(held: Held[PackageTask]) -> tuple[Track, ...]:
    """The text that the source brought, for the first version: later ones keep it, or have lost it on purpose."""
    task, stored = held.task, {}
    texts = task.blueprint.media.text
    if not any(text.file for text in texts) or latest(held.storage, task.asset) is not None:
        return ()
    for number, text in enumerate(texts, start=1):
        if text.file is None:
            continue
        try:
            body = held.storage.get(keys.text(task.asset, text.file))
        except ObjectNotFound:  # an asset is worth more than its text
            log.warning("text is gone", extra={"action": "text.lost", "ref": str(held.attempt.ref)})
            continue
        id_ = source_id(number, text.language)
        stored[id_] = stored_revision(held.storage, task.asset, id_, {"vtt": body})["vtt"], len(body)
        held.moved()
    return source_tracks(texts, stored, duration=task.blueprint.timeline.duration)


def stored_revision(storage: Storage, asset: str, track: str, files: Mapping[str, bytes]) -> Mapping[str, str]:
    """Store the files of one revision of a text track, create-only; returns their keys. Both by suffix."""
    revision = hashlib.sha256(b"".join(files.values())).hexdigest()[:12]
    stored = {suffix: keys.subtitle(asset, track, revision, suffix) for suffix in files}
    for suffix, body in files.items():
        with suppress(PreconditionFailed):  # an earlier attempt stored the same bytes there
            storage.put(stored[suffix], body, absent=True)
    return stored
