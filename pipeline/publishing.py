"""Making a version public: the effect protocol between the record and storage (DESIGN §7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import TypeVar

from pipeline.answers import Caption, Edited, Published, Trimmed
from pipeline.document import Rendition
from pipeline.errors import PipelineError
from pipeline.held import Asked, Held
from pipeline.numbers import TRACK
from pipeline.presentation.compose import SAME, Same, compose
from pipeline.presentation.edits import Played, in_force, played
from pipeline.presentation.model import Edit, Effect, Presentation, Track
from pipeline.presentation.publish import Composer, NoLongerOurs, latest, publish
from pipeline.tasks import Timeline
from pipeline.watch import Stopped, Verdict

ROUNDS = 3
"""How often pieces are made within one attempt, where what is played changes meanwhile."""
Made = TypeVar("Made")


def effect_of(held: Held[Asked]) -> Effect:
    """What the step's version is known by: the same for every attempt."""
    return Effect(job=held.attempt.ref.job, step=held.attempt.ref.step)


def publish_tracks(
    held: Held[Asked],
    tracks: tuple[Track, ...],
    timeline: Timeline,
    *,
    replaces: Sequence[str] = (),
    edit: Edit | Same = SAME,
    pieces: Sequence[Edit] = (),
    known: Presentation | None = None,
) -> Presentation:
    """Make the next version with these tracks in it public. Returns the version that brought them.

    `edit` is what it plays from now on, `pieces` are patches for the tracks in the range that it plays already. `known`
    is a version that the caller has seen.
    """

    def next_version(previous: Presentation | None) -> Presentation:
        return compose(
            previous,
            asset=held.task.asset,
            tracks=_numbered(held, tracks, previous),
            duration=timeline.duration,
            segment=timeline.segment,
            effect=effect_of(held),
            heard=heard(held),
            replaces=replaces,
            edit=edit,
            pieces=pieces,
        )

    return make_public(held, next_version, known=known)


def _numbered(held: Held[Asked], tracks: Sequence[Track], previous: Presentation | None) -> tuple[Track, ...]:
    """Text that is made again keeps its number, as it keeps its id."""
    known = {track.id: track.number for track in previous.text} if previous else {}
    return tuple(
        track
        if track.kind != "text"
        else replace(track, number=known[track.id])
        if known.get(track.id)
        else numbered(held, track)
        for track in tracks
    )


def numbered(held: Held[Asked], track: Track) -> Track:
    """A text track with a number that nothing else has."""
    return replace(track, number=held.tools.numbers.claim(TRACK, f"{held.task.asset}/{track.id}"))


def in_rounds(held: Held[Asked], make: Callable[[], Made]) -> Made:
    """Make pieces and publish them; and again, a few times, where they fit no longer what was there by then."""
    for _ in range(ROUNDS - 1):
        try:
            return make()
        except PipelineError as error:
            if error.code != "edit_changed" or _announced(held):
                raise
    return make()


def _announced(held: Held[Asked]) -> bool:
    """The step cannot be cancelled any more: it had better begin anew than take its time."""
    job = held.conductor.store.job(held.attempt.ref.job)
    return job is None or job.steps[held.attempt.ref.step].exposed


def make_public(held: Held[Asked], composer: Composer, *, known: Presentation | None = None) -> Presentation:
    """Make the next version public, once. Returns the first version that has the step's effect.

    It is announced when it is composed: what keeps it from that comes before. `known` is a version that the caller has
    seen.
    """
    try:
        return publish(
            held.storage,
            held.task.asset,
            effect_of(held),
            partial(_composed, composer),
            known=known,
            begin=partial(_announce, held),
            still_ours=lambda: held.conductor.renew(held.attempt),
            moved=held.moved,
        )
    except NoLongerOurs:
        raise Stopped(Verdict.LOST) from None


def _composed(composer: Composer, previous: Presentation | None) -> Presentation:
    try:
        return composer(previous)
    except PipelineError as error:
        # It is asked where the effect is not there, and after a version that another has written.
        error.unwritten = True
        raise


def _announce(held: Held[Asked]) -> None:
    if not held.conductor.publishing(held.attempt):
        raise Stopped(Verdict.LOST)


def there(held: Held[Asked]) -> Presentation:
    """What is public of the asset. Raises `asset_not_ready` where nothing is."""
    return ready(held, latest(held.storage, held.task.asset))


def ready(held: Held[Asked], found: Presentation | None) -> Presentation:
    """What was found of the asset. Raises `asset_not_ready` where it is nothing."""
    if found is None:
        raise PipelineError("asset_not_ready", asset=held.task.asset, detail="nothing of it is published")
    return found


def heard(held: Held[Asked]) -> tuple[int, int]:
    """(epoch, sequence) of the asset's last event."""
    record = held.conductor.store.asset(held.task.asset)
    return (record.epoch, record.sequence) if record else (0, 0)


def shown(held: Held[Asked], brought: Presentation) -> Published:
    """What the document says from now on: the latest version holds what others brought meanwhile as well."""
    now = published(latest(held.storage, brought.asset, brought) or brought)
    return replace(now, version=brought.version, shown=now.version)


def published(presentation: Presentation) -> Published:
    """What the document and the events say of a presentation: of what is played of it."""
    seen = played(presentation)
    tracks = [*seen.video, *seen.audio]
    return Published(
        version=seen.version,
        duration_ms=round(seen.duration * 1000),
        segments=max((len(track.segments) for track in tracks), default=0),
        edit=edited(presentation),
        renditions=tuple(map(_rendition, tracks)),
        captions=tuple(_caption(seen, track) for track in seen.text),
    )


def _rendition(track: Track) -> Rendition:
    return Rendition(
        name=track.id,
        kind="video" if track.kind == "video" else "audio",
        codec=track.codec,
        width=track.width,
        height=track.height,
        frame_rate=round(float(track.frame_rate), 3) if track.frame_rate else None,
        language=track.language if track.kind == "audio" else None,
        bandwidth=track.bandwidth,
        bytes=track.size,
    )


def _caption(seen: Played, track: Track) -> Caption:
    return Caption(
        id=track.id,
        name=track.name,
        language=track.language,
        # Cut and shifted, it is the version's own.
        key=seen.captions(track) if seen.cut else track.segments[0].key,
        auto_generated=track.auto_generated,
        number=track.number,
    )


def edited(presentation: Presentation) -> Edited | None:
    """The part that a trim left, on the asset's own timeline."""
    edit = presentation.edit
    if edit is None:
        return None
    start, end = own_times(presentation, edit)
    return Edited(start=start, end=end, trim=edit.trim)


def trimmed_to(brought: Presentation) -> Trimmed:
    """What a trim made of it, or of what part a clip is; on the asset's own timeline."""
    edit = in_force(brought)
    assert edit is not None, "it was composed with one"
    start, end = own_times(brought, edit)
    return Trimmed(version=brought.version, start=start, end=end)


def own_times(presentation: Presentation, edit: Edit) -> tuple[Fraction, Fraction]:
    """(start, end) as a caller counts, who sees of a clip only that."""
    offset = presentation.base.start if presentation.base else Fraction(0)
    return edit.start - offset, edit.end - offset
