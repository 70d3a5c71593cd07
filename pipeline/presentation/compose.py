"""How the next version of a presentation follows from the last: tracks are replaced or added, effects only grow.

Pure. Everything that must hold *between* the tracks of a version is settled here, whoever brought them and in whatever
order: names that a player can tell apart, one default sound, one TARGETDURATION that every segment keeps.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

from pipeline.errors import PipelineError
from pipeline.presentation.model import Effect, Presentation, Track


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
) -> Presentation:
    """The version after `previous` (None: the first) with `tracks` in it, in place of those with the same id.

    Of the kinds that it `replaces` the version has no other tracks than these.

    An effect that `previous` has already is not applied again: `previous` itself is the answer. `duration` is D in
    seconds, `segment` the nominal segment duration S in seconds, `heard` the (epoch, sequence) of the asset's last
    event: what is remembered of it never goes back. Raises `PipelineError("parts_incomplete")` where a track has no
    segments.
    """
    if previous is not None and effect in previous.effects:
        return previous
    last = previous or Presentation(asset=asset, duration=duration, target_duration=math.ceil(segment), tracks=())
    settled = _settle(_replaced(last.tracks, tuple(tracks), replaces))
    epoch, sequence = max((last.epoch, last.sequence), heard)
    return replace(
        last,
        version=last.version + 1,
        duration=duration,
        target_duration=_target_duration(last.target_duration, settled),
        tracks=settled,
        effects=(*last.effects, effect),
        epoch=epoch,
        sequence=sequence,
        nonce="",
        playlists="",
    )


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


def _target_duration(usual: int, tracks: Iterable[Track]) -> int:
    """Whole seconds that no segment, rounded to the nearest second, exceeds (RFC 8216 §4.3.3.1).

    `usual` is S rounded up, and then what the version before had, so all versions agree. Only at rates below some two
    frames a second do segments outgrow it.
    """
    # Text is one segment as long as the asset; its playlists have a target of their own (RFC 8216 §6.2.4).
    media = (track for track in tracks if track.kind != "text")
    durations = (Fraction(piece.duration, track.timescale) for track in media for piece in track.segments)
    return max(usual, math.floor(max(durations, default=Fraction(0)) + Fraction(1, 2)))
