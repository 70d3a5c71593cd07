"""An edit's patches: ask the trim stage for the pieces that a cut needs, store them, and say what is played of a track.

Pieces are named by all that decides their bytes. So the same cut asked for again meets the same objects, and an
attempt that comes after one that was killed finds what that one stored.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.held import Asked, Held
from pipeline.parts import stored_segment
from pipeline.ports import ObjectNotFound, PreconditionFailed, Storage
from pipeline.presentation.cutting import Cut, cut, frames_of
from pipeline.presentation.model import Edit, Track
from pipeline.presentation.publish import latest
from pipeline.ranges import Given
from pipeline.recipes import Recipe, recipes
from pipeline.tasks import Blueprint, Patch, Piece, Timeline, TrimFacts, TrimTask, from_json, to_json


@dataclass(frozen=True, kw_only=True)
class Patched:
    """An edit with a patch for every picture and every sound, whose pieces lie in storage."""

    edit: Edit
    encoded: int = 0
    """Frames that were encoded for it, of one rung."""
    bytes: int = 0
    """Of the pieces that were made."""
    reused: bool = False
    """An earlier version has had this edit: nothing was made."""

    @property
    def facts(self) -> Mapping[str, object]:
        """For the record and the event."""
        return {"encoded_frames": self.encoded, "bytes": self.bytes, "reused": self.reused}

    def named(self, trim: int | None) -> Edit:
        """The edit as the trim job of this number asked for it."""
        return replace(self.edit, trim=trim)


def within(base: Edit | None, frames: tuple[int, int], timeline: Timeline) -> tuple[int, int]:
    """The frames that lie in the part of which a clip was made. Raises `trim_range_invalid` where none does."""
    low, high = frames_of(base.start, base.end, timeline) if base else (0, timeline.frames)
    first, end = max(low, frames[0]), min(high, frames[1])
    if first >= end:
        raise PipelineError(
            "trim_range_invalid",
            field="start_time",
            current=float((frames[0] - low) / timeline.rate),
            minimum=0,
            maximum=float((high - low - 1) / timeline.rate),
        )
    return first, end


def patched(
    held: Held[Asked], tracks: Sequence[Track], frames: tuple[int, int], timeline: Timeline, known: Iterable[Edit]
) -> Patched:
    """What plays the output frames [first, end) of these whole tracks. Runs the trim stage if anything is to be made.

    `known` are edits that there were before: one that fits serves again. Raises `cut_needs_source` where frames must be
    encoded, and the source is gone.
    """
    media = [track for track in tracks if track.kind != "text"]
    pictures, sounds = ([track for track in media if track.kind == kind] for kind in ("video", "audio"))
    range_ = frames[0] / timeline.rate, frames[1] / timeline.rate
    beside = None
    for before in (edit for edit in known if edit.range == range_):
        if _fits(before, media):
            return Patched(edit=_of(before, media), reused=True)
        if beside is None and pictures and _serves(before, pictures):
            beside = _of(before, pictures)
    if beside is None:
        return _made(held, media, cut(media, timeline, *frames), timeline, range_)
    made = _made(held, sounds, cut(sounds, timeline, *frames), timeline, range_)
    return replace(made, edit=replace(made.edit, patches=(*beside.patches, *made.edit.patches)))


def _of(edit: Edit, tracks: Sequence[Track]) -> Edit:
    """The edit with the patches of these tracks alone, as nobody's in particular."""
    patches = {patch.track: patch for patch in edit.patches}
    return replace(edit, patches=tuple(patches[track.id] for track in tracks), trim=None)


def _fits(edit: Edit, media: Sequence[Track]) -> bool:
    """It has a patch for every one of the tracks, made for the very segments that they have."""
    inits = {patch.track: patch.init for patch in edit.patches}
    return all(inits.get(track.id) == track.init for track in media)


def _serves(edit: Edit, pictures: Sequence[Track]) -> bool:
    """Its pictures serve beside sounds that were made since: nobody begins anew anywhere."""
    return _fits(edit, pictures) and not any(patch.seams for patch in edit.patches)


def _made(
    held: Held[Asked], media: Sequence[Track], cuts: Cut, timeline: Timeline, range_: tuple[Fraction, Fraction]
) -> Patched:
    inits = {track.id: track.init for track in media}
    if not cuts.encodes and not any(each.divided for each in cuts.cuts):
        bare = (Patch(track=each.track, first=each.first, last=each.last) for each in cuts.cuts)
        return Patched(edit=_edit(range_, bare, inits))
    task = _task(held, media, cuts, timeline)
    shelf = _Shelf(task=task, inits=inits, storage=held.storage)
    facts = from_json(TrimFacts, held.run(_inputs(held, task, inits, cuts), shelf.keep, stage="trim", task=task))
    shelf.refill()
    edit = _edit(range_, map(shelf.stored, facts.patches), inits)
    return Patched(edit=edit, encoded=facts.encoded, bytes=facts.bytes)


def _edit(range_: tuple[Fraction, Fraction], patches: Iterable[Patch], inits: Mapping[str, str]) -> Edit:
    own = tuple(replace(patch, init=inits[patch.track]) for patch in patches)
    return Edit(start=range_[0], end=range_[1], patches=own)


# -- the stage --------------------------------------------------------------------------------------------------------


def _task(held: Held[Asked], media: Sequence[Track], cuts: Cut, timeline: Timeline) -> TrimTask:
    """What the stage is asked: all pictures in one decode, each by its own recipe."""
    job = held.attempt.job
    assert job.blueprint is not None, "a job that cuts knows the media"
    pictures = [track for track in media if track.kind == "video"]
    known = recipes(pictures if cuts.encodes else (), job, held.conductor.store, held.storage)
    drawn = _drawn(known.values()) or job.blueprint
    return TrimTask(
        asset=held.task.asset,
        source=job.source,
        start=cuts.first / timeline.rate,
        stop=cuts.end / timeline.rate,
        timeline=_grid(drawn.timeline, timeline, cuts),
        video=drawn.media.video,
        seekable=drawn.media.seekable,
        encoder=held.tools.nursery.build() or job.blueprint.encoder,
        source_sha256=drawn.media.sha256,
        first=cuts.first,
        end=cuts.end,
        kept=cuts.kept,
        cuts=tuple(replace(each, rung=known[each.track].rung) if each.track in known else each for each in cuts.cuts),
    )


def _drawn(known: Iterable[Recipe]) -> Blueprint | None:
    """All rungs are encoded from one decode: what is known of the source is what was known for the first of them."""
    return next((recipe.drawn for recipe in sorted(known, key=lambda recipe: not recipe.known)), None)


def _grid(drawn: Timeline, now: Timeline, cuts: Cut) -> Timeline:
    """The grid on which the tracks were made, as long as it counts the same frames: it says where the source begins."""
    return drawn if drawn.rate == now.rate and cuts.end <= drawn.frames else now


def _inputs(held: Held[Asked], task: TrimTask, inits: Mapping[str, str], cuts: Cut) -> Mapping[str, Given]:
    """Every divided track's init segment and divided segments as files; the source where frames are encoded."""
    small: dict[str, str] = {}
    for each in task.cuts:
        if each.divided or (cuts.encodes and each.kind == "video"):
            small[f"{each.track}/init.mp4"] = inits[each.track]
        small |= {f"{each.track}/{segment.start}.m4s": segment.key for segment in each.divided}
    inputs = held.copies(small)
    return {**inputs, "source": _source(held, task, inits)} if cuts.encodes else inputs


def _source(held: Held[Asked], task: TrimTask, inits: Mapping[str, str]) -> Given:
    owners = dict.fromkeys([*(owner for init in inits.values() if (owner := keys.owner(init))), task.asset])
    # Where a source lies in place is known of the asset that it was brought for: of a clip, that is another one.
    holder = next((asset for asset in owners if held.storage.stat(keys.place(asset)) is not None), task.asset)
    try:
        if not task.source:
            raise ObjectNotFound(task.asset)
        return held.source(task.source, holder)
    except ObjectNotFound:
        raise _needs_source(held, task) from None


def _needs_source(held: Held[Asked], task: TrimTask) -> PipelineError:
    """Says how much of what was asked for needs none, as the caller counts who asked for it."""
    asset = (held.task.of if isinstance(held.task, TrimTask) else "") or task.asset
    shown = latest(held.storage, asset)
    offset = shown.base.start if shown and shown.base else Fraction(0)
    start, end = (round(float(frame / task.timeline.rate - offset), 6) for frame in task.kept)
    inside = f"from {start} to {end} s, say" if start < end else "of this part none lies inside"
    return PipelineError("cut_needs_source", asset=asset, inside=inside)


# -- the pieces -------------------------------------------------------------------------------------------------------


@dataclass
class _Shelf:
    """Where the pieces of one cut lie."""

    task: TrimTask
    inits: Mapping[str, str]
    storage: Storage
    met: dict[str, bytes] = field(default_factory=dict)
    """What storage held already, as it was made now."""
    other: set[str] = field(default_factory=set)
    """Pieces that storage held already with other bytes."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, name: str, path: Path) -> None:
        """Create-only: what is there already was made by the same recipe, and stays."""
        self._keep(name, path.read_bytes())

    def _keep(self, name: str, made: bytes) -> None:
        try:
            self.storage.put(self._key(name), made, absent=True)
        except PreconditionFailed:
            differs = self._differs(name, made)
            if differs and name.endswith("/init.mp4"):
                raise PipelineError("encoder_mismatch", track=name.partition("/")[0]) from None
            with self.lock:
                self.met[name] = made
                self.other |= {name} if differs else set()

    def _differs(self, name: str, made: bytes) -> bool:
        try:
            return self.storage.get(self._key(name)) != made
        except ObjectNotFound:
            return False  # it went this moment: `refill` puts it again

    def refill(self) -> None:
        """Put again what was there and went meanwhile: of pieces that no version named, a janitor who had asked before
        this job came may be in the middle of their deletion."""
        for name, made in tuple(self.met.items()):
            if self.storage.stat(self._key(name)) is None:
                self.other.discard(name)
                self._keep(name, made)

    def stored(self, patch: Patch) -> Patch:
        """The patch as storage holds it."""
        head, tail = (tuple(self._stored(patch.track, piece) for piece in row) for row in (patch.head, patch.tail))
        return replace(patch, head=head, tail=tail)

    def _stored(self, track: str, piece: Piece) -> Piece:
        key, init = self._key(piece.key), self._key(piece.init) if piece.init else ""
        if piece.key not in self.other:
            return replace(piece, key=key, init=init)
        found = stored_segment(self.storage, key, self.storage.get(key), init=init or self.inits[track])
        # Of a sound every frame could be one, and none is wanted as such.
        return Piece(**vars(found) | {"keyframes": found.keyframes if piece.keyframes else ()}, init=init)

    def _key(self, name: str) -> str:
        track, _, file = name.partition("/")
        return keys.track(self.task.asset, track, self._recipe(track)) + file

    def _recipe(self, track: str) -> str:
        """Name of all that decides the bytes of a track's pieces.

        Also the other pictures: where one of them needs an init segment of its own, all tracks are divided there.
        """
        cuts = [each for each in self.task.cuts if each.kind == "video" or each.track == track]
        inits = [self.inits[each.track] for each in cuts]
        # Whose job it is and where the source lies decides nothing, nor how a moment was written.
        same = replace(self.task, asset="", source="", start=Fraction(0), stop=None, of="", cuts=tuple(cuts))
        return hashlib.sha256("\n".join((track, *inits, to_json(same))).encode()).hexdigest()[:12]
