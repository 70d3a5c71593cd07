"""The trim step of a clip: the first version of a new asset, which plays segments of another one.

Its tracks are the other asset's, whole; its `base` is the part that it is of. What may go with the other asset is
copied: captions, and what is known of the source. The markers that keep the segments come first of all
(`pipeline.clips`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

from pipeline import keys
from pipeline.answers import Answer
from pipeline.clips import mark, owners, unmark
from pipeline.errors import PipelineError
from pipeline.held import Held
from pipeline.patching import patched, within
from pipeline.ports import ObjectNotFound, PreconditionFailed, Storage
from pipeline.presentation.compose import compose
from pipeline.presentation.cutting import frames_of
from pipeline.presentation.model import Presentation, Track
from pipeline.presentation.publish import latest
from pipeline.publishing import effect_of, heard, make_public, numbered, shown, trimmed_to
from pipeline.standing import tombstone
from pipeline.tasks import TrimTask


def clip(held: Held[TrimTask]) -> Answer:
    """Do the step."""
    # One that is there was published by an attempt that died before it could say so.
    first = _first(held) if latest(held.storage, held.task.asset) is None else None
    brought = make_public(held, lambda _: _insist(first))
    return Answer(
        facts={"version": brought.version, "cpu_s": held.cpu_s},
        published=shown(held, brought),
        trimmed=trimmed_to(brought),
    )


def _insist(first: Presentation | None) -> Presentation:
    assert first is not None, "nobody else publishes anything of a clip before it is there"
    return first


def _first(held: Held[TrimTask]) -> Presentation:
    """The first version. Raises `asset_deleted`."""
    task, parent = held.task, _marked(held)
    _keep_facts(held.storage, task)
    frames = within(parent.base, frames_of(task.start, task.stop, task.timeline), task.timeline)
    return compose(
        None,
        asset=task.asset,
        tracks=tuple(_own(held, parent.tracks)),
        effect=effect_of(held),
        duration=parent.duration,
        segment=Fraction(parent.target_duration),
        heard=heard(held),
        # What the other asset plays may be that very part, with pieces that are kept by the markers: of a duplicate of
        # a clip it is, and its source may be gone.
        base=patched(held, parent.tracks, frames, task.timeline, filter(None, (parent.edit, parent.base))).edit,
    )


def _marked(held: Held[TrimTask]) -> Presentation:
    """What is cut, once its segments are kept for the clip. Raises `asset_deleted`."""
    task = held.task
    parent = latest(held.storage, task.of)
    keepers = {task.of, *owners(parent)} if parent else set()
    mark(held.storage, task.asset, keepers)
    # After the markers: a deletion looks for them after it wrote this.
    if parent is None or tombstone(held.storage, task.of) is not None:
        unmark(held.storage, task.asset, keepers)
        raise PipelineError("asset_deleted", asset=task.of)
    return parent


def _keep_facts(storage: Storage, task: TrimTask) -> None:
    """What is known of the source, for the day when something is made of it again."""
    with suppress(ObjectNotFound, PreconditionFailed):
        storage.put(keys.media(task.asset), storage.get(keys.media(task.of)), absent=True)


def _own(held: Held[TrimTask], tracks: tuple[Track, ...]) -> Iterator[Track]:
    """The tracks, text as a copy with a number of its own."""
    for track in tracks:
        yield numbered(held, _copied(held.storage, held.task, track)) if track.kind == "text" else track
        held.moved()


def _copied(storage: Storage, task: TrimTask, track: Track) -> Track:
    """The captions, and the words behind them where there are any."""
    (text,) = track.segments
    revision = text.key.rpartition("/")[2].partition(".")[0]
    stem = text.key.removesuffix("vtt")
    for suffix in ("words.json", "vtt"):
        with suppress(PreconditionFailed):
            copy = keys.subtitle(task.asset, track.id, revision, suffix)
            if suffix == "vtt" or storage.stat(stem + suffix) is not None:
                storage.put(copy, storage.get(stem + suffix), absent=True)
    return replace(track, segments=(replace(text, key=copy),))
