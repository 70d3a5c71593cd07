"""How the next version of a presentation follows from the last: tracks are replaced or added, and the range that is
played; effects only grow.

Pure. Everything that must hold *between* the tracks of a version is settled here, whoever brought them and in whatever
order: names that a player can tell apart, one default sound, one TARGETDURATION that every segment keeps, and an edit
that knows every picture and sound.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

from pipeline.errors import PipelineError
from pipeline.presentation.edits import in_force, insist_on_patches, settled
from pipeline.presentation.model import SCHEMA, Edit, Effect, Presentation, Track
from pipeline.tasks import Segment


class Same(enum.Enum):
    """That nothing is asked for: None would be a wish."""

    SAME = "same"
    """As in the version before."""


SAME = Same.SAME
FIRST_EFFECTS, LAST_EFFECTS = 16, 240
"""So many effects a version remembers from the first and of the latest. A step asks for its own while it runs, and
that many others do not come between; and the first ones tell who made the asset."""
FORGOTTEN = Effect(job="", step="")
"""Stands where effects were forgotten. It is no job's: whoever asks whether some jobs made all there is hears no."""


def compose(
    previous: Presentation | None,
    *,
    asset: str,
    tracks: Iterable[Track] = (),
    effect: Effect,
    duration: Fraction,
    segment: Fraction = Fraction(4),
    heard: tuple[int, int] = (0, 0),
    replaces: Collection[str] = (),
    edit: Edit | Same | None = SAME,
    base: Edit | None = None,
    pieces: Sequence[Edit] = (),
) -> Presentation:
    """The version after `previous` (None: the first) with `tracks` in it, in place of those with the same id.

    Of the kinds that it `replaces` the version has no other tracks than these. `edit` is what it plays from now on,
    None: everything, or of a clip as much as `base` says, which the first version brings. `pieces` are patches for
    tracks that the edits do not know yet, each for the range of its edit; those of tracks that are gone go.

    An effect that `previous` has already is not applied again: `previous` itself is the answer. `duration` is D in
    seconds, `segment` the nominal segment duration S in seconds, `heard` the (epoch, sequence) of the asset's last
    event: what is remembered of it never goes back. Raises `PipelineError`: `parts_incomplete` where a track has no
    segments, or what is played of it has gaps; `edit_changed`, which is tried again, where the range in force has no
    patch for a picture or a sound: it was set, or the track came, since these pieces were made.
    """
    if previous is not None and effect in previous.effects:
        return previous
    first = Presentation(asset=asset, duration=duration, target_duration=math.ceil(segment), tracks=(), base=base)
    last = previous or first
    every = _settle(_replaced(last.tracks, tuple(tracks), replaces))
    stale = _made_again(last.tracks, every)
    changed = replace(
        last,
        duration=duration,
        tracks=every,
        # What is set was made for these tracks; what was there may have been made for others.
        edit=_edit(last.edit, every, pieces, stale) if edit is SAME else _edit(edit, every, pieces),
        base=_edit(last.base, every, pieces, stale),
    )
    if (range_ := in_force(changed)) is not None:
        insist_on_patches(asset, range_, every)
    return _following(last, changed, effect, heard)


def roll_back(
    previous: Presentation, wanted: Presentation, *, effect: Effect, heard: tuple[int, int] = (0, 0)
) -> Presentation:
    """The version after `previous` that shows what `wanted`, an earlier one, shows: its tracks, its edit, everything.

    An effect that `previous` has already is not applied again: `previous` itself is the answer.
    """
    return previous if effect in previous.effects else _following(previous, wanted, effect, heard)


def _following(last: Presentation, shown: Presentation, effect: Effect, heard: tuple[int, int]) -> Presentation:
    """The version after `last`, which shows what `shown` does."""
    epoch, sequence = max((last.epoch, last.sequence), heard)
    return replace(
        shown,
        version=last.version + 1,
        target_duration=_target_duration(last.target_duration, shown),
        effects=_remembered((*last.effects, effect)),
        epoch=epoch,
        sequence=sequence,
        nonce="",
        playlists="",
        schema=SCHEMA,
    )


def _remembered(effects: tuple[Effect, ...]) -> tuple[Effect, ...]:
    if len(effects) <= FIRST_EFFECTS + LAST_EFFECTS:
        return effects
    return (*effects[:FIRST_EFFECTS], FORGOTTEN, *effects[-LAST_EFFECTS:])


def _edit(
    edit: Edit | None, tracks: Sequence[Track], pieces: Sequence[Edit], stale: Collection[str] = ()
) -> Edit | None:
    return None if edit is None else settled(edit, tracks, pieces, stale)


def _made_again(old: Iterable[Track], new: Iterable[Track]) -> set[str]:
    """Tracks that keep their id and have another init segment."""
    inits = {track.id: track.init for track in old}
    return {track.id for track in new if inits.get(track.id, track.init) != track.init}


def _replaced(old: Sequence[Track], new: Sequence[Track], whole: Collection[str]) -> tuple[Track, ...]:
    """`old` with each track of `new` in the place of its namesake, the others after them.

    Of the kinds in `whole` nothing old stays that has no namesake.
    """
    kept = {track.id for track in new}
    left = [track for track in old if track.kind not in whole or track.id in kept]
    by_id = {track.id: track for track in (*left, *new)}
    return tuple(by_id.values())


def _settle(tracks: tuple[Track, ...]) -> tuple[Track, ...]:
    if not tracks:
        raise PipelineError("parts_incomplete", track="the presentation", detail="it has no tracks")
    for track in tracks:
        if not track.segments:
            raise PipelineError("parts_incomplete", track=track.id, detail="it has no segments")
    audio = [track for track in tracks if track.kind == "audio"]
    text = [track for track in tracks if track.kind == "text"]
    defaults = {
        next((track.id for track in audio if track.default), audio[0].id if audio else None),
        # A group has at most one (RFC 8216 §4.3.4.1.1), and text may do without.
        next((track.id for track in text if track.default), None),
    }
    names = _names(audio, "Audio") | _names(text, "Captions")
    return tuple(
        replace(
            track,
            name=names.get(track.id, track.name),
            default=track.id in defaults if track.kind in ("audio", "text") else track.default,
        )
        for track in tracks
    )


def _names(tracks: Sequence[Track], nameless: str) -> dict[str, str]:
    """The name of every track of one kind, by id."""
    given = unique_names([track.name or nameless for track in tracks])
    return {track.id: name for track, name in zip(tracks, given, strict=True)}


def unique_names(names: Sequence[str]) -> list[str]:
    """The names in their order, those that were there already with a number: `English`, `English (2)`.

    Players tell the tracks of a group apart by NAME alone (RFC 8216 §4.3.4.1.1).
    """
    given: list[str] = []
    for name in names:
        choices = (name or "Audio", *(f"{name or 'Audio'} ({number})" for number in range(2, len(names) + 2)))
        given.append(next(choice for choice in choices if choice not in given))
    return given


def _target_duration(usual: int, shown: Presentation) -> int:
    """Whole seconds that no segment, rounded to the nearest second, exceeds (RFC 8216 §4.3.3.1).

    `usual` is S rounded up, and then what the version before had, so all versions agree. Only at rates below some two
    frames a second do segments outgrow it. A piece is never longer than the segment of which it is one.
    """
    longest = max(_durations(shown), default=Fraction(0))
    return max(usual, math.floor(longest + Fraction(1, 2)))


def _durations(shown: Presentation) -> Iterator[Fraction]:
    """Seconds of every segment of a picture or sound, whether it is played or not, and of the pieces in force."""
    # Text is one segment as long as the asset; its playlists have a target of their own (RFC 8216 §6.2.4).
    media = {track.id: track for track in shown.tracks if track.kind != "text"}
    for track in media.values():
        yield from _seconds(track, track.segments)
    for patch in edit.patches if (edit := in_force(shown)) else ():
        yield from _seconds(media[patch.track], (*patch.head, *patch.tail))


def _seconds(track: Track, segments: Iterable[Segment]) -> Iterator[Fraction]:
    return (Fraction(segment.duration, track.timescale) for segment in segments)
