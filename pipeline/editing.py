"""The steps that change what is played of an asset: trim, revert, roll back; and the preview of a cut.

No segment changes, and none goes. A trim makes the few pieces that its cuts need, then publishes a version with an edit
in it; a revert publishes one without; to roll back is to publish an earlier one again. Pieces come before the version
that names them: a step that is killed anywhere leaves nothing half public, and the next attempt finds its pieces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from pipeline import keys
from pipeline.answers import Answer, Previewed, Reverted
from pipeline.clipping import clip
from pipeline.errors import PipelineError
from pipeline.held import Held
from pipeline.patching import Patched, patched, within
from pipeline.ports import PreconditionFailed, Storage
from pipeline.presentation.compose import compose, roll_back
from pipeline.presentation.cutting import frames_of
from pipeline.presentation.model import Edit, Presentation
from pipeline.presentation.previews import preview, render_preview
from pipeline.presentation.publish import edits, version
from pipeline.publishing import effect_of, heard, in_rounds, make_public, own_times, ready, shown, there, trimmed_to
from pipeline.storage.side_by_side import SideBySide
from pipeline.tasks import ReviseTask, TrimTask

_VERSIONS = 16
"""So many versions are looked through for an edit that may serve again."""


def trim(held: Held[TrimTask]) -> Answer:
    """Do a trim step, or that of a clip."""
    if held.task.of:
        return clip(held)
    made, brought = in_rounds(held, partial(_public, held))
    return Answer(
        facts={"version": brought.version, **made.facts, "cpu_s": held.cpu_s},
        published=shown(held, brought),
        trimmed=trimmed_to(brought),
    )


def _public(held: Held[TrimTask]) -> tuple[Patched, Presentation]:
    now = there(held)
    made = _made(held, now)
    return made, make_public(held, partial(_with_edit, held, made), known=now)


def _made(held: Held[TrimTask], now: Presentation) -> Patched:
    """The edit, its pieces in storage."""
    task = held.task
    frames = within(now.base, frames_of(task.start, task.stop, task.timeline), task.timeline)
    return patched(held, now.tracks, frames, task.timeline, edits_of(held.storage, now))


def edits_of(storage: Storage, now: Presentation) -> Iterator[Edit]:
    """What has been played of the asset, the newest first: an edit of the same range may serve again."""
    yield from (edit for edit in (now.edit, now.base) if edit is not None)
    for number in range(now.version - 1, max(0, now.version - _VERSIONS), -1):
        yield from edits(storage, now.asset, number)


def _with_edit(held: Held[TrimTask], made: Patched, previous: Presentation | None) -> Presentation:
    assert previous is not None, "versions are never deleted while a job of the asset runs"
    return compose(
        previous,
        asset=previous.asset,
        effect=effect_of(held),
        duration=previous.duration,
        heard=heard(held),
        edit=made.named(held.attempt.job.number),
    )


# -- without a stage --------------------------------------------------------------------------------------------------


def revise(held: Held[ReviseTask]) -> Answer:
    """Do a revert, a roll back or a preview."""
    if held.task.change == "preview":
        return _preview(held)
    change = _reverted if held.task.change == "revert" else _rolled_back
    brought = make_public(held, lambda previous: change(held, ready(held, previous)))
    return Answer(
        facts={"version": brought.version},
        published=shown(held, brought),
        reverted=Reverted(version=brought.version),
    )


def _reverted(held: Held[ReviseTask], previous: Presentation) -> Presentation:
    if previous.edit is None:
        raise PipelineError("not_trimmed", asset=held.task.asset)
    return compose(
        previous,
        asset=previous.asset,
        effect=effect_of(held),
        duration=previous.duration,
        heard=heard(held),
        edit=None,
    )


def _rolled_back(held: Held[ReviseTask], previous: Presentation) -> Presentation:
    wanted = version(held.storage, held.task.asset, held.task.version)
    if wanted is None:
        raise PipelineError(
            "version_not_found",
            asset=held.task.asset,
            version=held.task.version,
            latest=previous.version,
        )
    return roll_back(previous, wanted, effect=effect_of(held), heard=heard(held))


def _preview(held: Held[ReviseTask]) -> Answer:
    """Its name follows from what it shows: the same preview of the same version is the same objects."""
    task, now = held.task, there(held)
    seen = preview(now, task.start, now.duration if task.stop is None else task.stop)
    assert seen.edit is not None, "a preview shows a part"
    name = hashlib.sha256(f"{now.version} {seen.edit.start} {seen.edit.end}".encode()).hexdigest()[:12]
    files = dict(render_preview(seen, name, _texts(held, now)))
    doors = {f"{keys.preview(now.asset, name)}video.{suffix}" for suffix in ("m3u8", "mpd")}
    with SideBySide(held.moved) as several:
        for key in files.keys() - doors:
            several.do(partial(_create, held.storage, key, files[key]))
    for key in sorted(doors):  # also where they are there: it lives on, by its newest object
        held.storage.put(key, files[key])
        held.moved()
    start, end = own_times(now, seen.edit)
    return Answer(
        facts={"version": now.version, "preview": name},
        previewed=Previewed(
            hls_key=f"{keys.preview(now.asset, name)}video.m3u8",
            dash_key=f"{keys.preview(now.asset, name)}video.mpd",
            start=start,
            end=end,
        ),
    )


def _texts(held: Held[ReviseTask], now: Presentation) -> dict[str, bytes]:
    """The stored captions by track."""
    return {track.id: held.storage.get(track.segments[0].key) for track in now.text}


def _create(storage: Storage, key: str, body: bytes) -> None:
    with suppress(PreconditionFailed):  # it was asked for before
        storage.put(key, body, absent=True)
