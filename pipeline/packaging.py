"""The package step: name the parts as tracks, and publish them.

Where only a part of the asset is played, the new tracks need their pieces for its cuts before they can be shown: these
are made within the step, for all tracks at once, so that all are cut alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from pipeline.answers import Answer
from pipeline.captioning import brought_texts
from pipeline.editing import edits_of
from pipeline.held import Held
from pipeline.patching import patched, within
from pipeline.presentation.compose import SAME, compose
from pipeline.presentation.cutting import frames_of
from pipeline.presentation.model import Edit, Presentation, Track
from pipeline.presentation.publish import latest
from pipeline.publishing import effect_of, in_rounds, publish_tracks, shown
from pipeline.stages.package import PackageFacts
from pipeline.tasks import PackageTask, from_json


def package(held: Held[PackageTask]) -> Answer:
    """Do the step."""
    task = held.task
    receipts = held.copies({str(number): key for number, key in enumerate(task.receipts)})
    packaged = from_json(PackageFacts, held.run(receipts, held.no_outputs))
    tracks = (*packaged.tracks, *brought_texts(held))
    presentation = in_rounds(held, partial(_public, held, tracks))
    return Answer(facts={"version": presentation.version}, published=shown(held, presentation))


def _public(held: Held[PackageTask], tracks: tuple[Track, ...]) -> Presentation:
    now = latest(held.storage, held.task.asset)
    return publish_tracks(
        held,
        tracks,
        held.task.blueprint.timeline,
        replaces=held.task.replaces,
        edit=_first_edit(held, now, tracks) or SAME,
        pieces=tuple(_pieces(held, now, tracks)),
        known=now,
    )


def _first_edit(held: Held[PackageTask], now: Presentation | None, tracks: tuple[Track, ...]) -> Edit | None:
    """What the first version plays, where it was asked for a part; None: everything."""
    task, timeline = held.task, held.task.blueprint.timeline
    if task.trimmed is None or now is not None:
        return None
    frames = within(None, frames_of(*task.trimmed, timeline), timeline)
    return patched(held, tracks, frames, timeline, ()).edit


def _pieces(held: Held[PackageTask], now: Presentation | None, tracks: tuple[Track, ...]) -> Iterator[Edit]:
    """Patches of all tracks for every range that is played, or would be after a revert."""
    if now is None or effect_of(held) in now.effects:
        return
    timeline, every = held.task.blueprint.timeline, _together(held, now, tracks)
    for edit in (now.edit, now.base):
        if edit is not None:
            made = patched(held, every, frames_of(*edit.range, timeline), timeline, edits_of(held.storage, now))
            yield replace(made.edit, start=edit.start, end=edit.end)


def _together(held: Held[PackageTask], now: Presentation, tracks: tuple[Track, ...]) -> tuple[Track, ...]:
    """All tracks of the next version, whole."""
    whole = replace(now, edit=None, base=None)
    timeline = held.task.blueprint.timeline
    return compose(
        whole,
        asset=now.asset,
        tracks=tracks,
        effect=effect_of(held),
        duration=timeline.duration,
        replaces=held.task.replaces,
    ).tracks
