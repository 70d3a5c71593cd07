"""What is played of a presentation: its tracks, less what the edit in force leaves out.

A presentation keeps its tracks whole, on the source's timeline, always. An edit names a range of it and brings a patch
for every picture and sound: pieces for its cuts, and from where to where the track's own segments serve. Whoever shows
an asset, or copies what it shows, begins with `played`; without an edit that is the presentation itself.

Pure. A player's clock begins at `Played.start`, while the media go on telling the time of the source.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.media.timeline import AAC_FRAME
from pipeline.presentation.model import Edit, Presentation, Track
from pipeline.tasks import Patch, Piece, Segment


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Segments of a track in a row that one init segment serves: at the next one a player has to begin anew."""

    init: str
    """Storage key."""
    segments: tuple[Segment, ...]

    @property
    def start(self) -> int:
        """Ticks."""
        return self.segments[0].start

    @property
    def end(self) -> int:
        """Ticks."""
        return self.segments[-1].start + self.segments[-1].duration


@dataclass(frozen=True, kw_only=True)
class Played(Presentation):
    """A presentation as it is played: its pictures and sounds have those segments alone, and `duration` is theirs.

    Text is whole still, on the source's timeline. Nothing of this is stored.
    """

    start: Fraction
    """Seconds of the source's timeline at which a player's clock says 0."""
    cut: bool
    """Whether an edit is in force."""
    seams: Mapping[str, tuple[int, ...]]
    """Ticks at which another stretch begins, by track; as many in every picture and sound."""
    door: str
    """Folder of the doors that are rendered, with a slash at its end."""
    files: str
    """Folder of the playlists, with a slash at its end."""

    @property
    def folder(self) -> str:
        return self.files

    @property
    def end(self) -> Fraction:
        """Seconds of the source's timeline at which it is over."""
        return self.start + self.duration

    def stretches(self, track: Track) -> tuple[Stretch, ...]:
        """The segments of one of its tracks between the seams; one stretch where there are none."""
        seams = self.seams.get(track.id, ())
        rows: list[list[Segment]] = [[] for _ in range(len(seams) + 1)]
        for segment in track.segments:
            rows[bisect_right(seams, segment.start)].append(segment)
        return tuple(Stretch(init=_init(track, row), segments=tuple(row)) for row in rows)


def in_force(presentation: Presentation) -> Edit | None:
    """The edit by which it is played: a trim's, else the one that a clip began with; None: everything is."""
    return presentation.edit or presentation.base


def played(presentation: Presentation) -> Played:
    """What is played of it. Raises `PipelineError("edit_changed")` where the edit knows nothing of a track."""
    if isinstance(presentation, Played):
        return presentation
    edit = in_force(presentation)
    patches = {patch.track: patch for patch in edit.patches} if edit else {}
    same = {
        **vars(presentation),
        "edit": None,
        "base": None,
        "cut": edit is not None,
        "door": keys.public(presentation.asset),
        "files": presentation.folder,
    }
    if edit is None:
        return Played(**same, start=Fraction(0), seams={})
    tracks = tuple(_patched(presentation, track, patches) for track in presentation.tracks)
    changed = {"tracks": tracks, "duration": edit.end - edit.start}
    return Played(**same | changed, start=edit.start, seams={each.track: each.seams for each in edit.patches})


def _patched(presentation: Presentation, track: Track, patches: Mapping[str, Patch]) -> Track:
    if track.kind == "text":
        return track
    if track.id not in patches:
        raise PipelineError("edit_changed", asset=presentation.asset, track=track.id)
    return replace(track, segments=segments_of(track, patches[track.id]))


def segments_of(track: Track, patch: Patch) -> tuple[Segment, ...]:
    """What the patch plays of the track: its pieces, and between them the track's own segments."""
    own = (segment for segment in track.segments if patch.first <= segment.start < patch.last)
    return (*patch.head, *own, *patch.tail)


def _init(track: Track, segments: Sequence[Segment]) -> str:
    first = segments[0] if segments else None
    return first.init if isinstance(first, Piece) and first.init else track.init


# -- what an edit needs -----------------------------------------------------------------------------------------------


def settled(edit: Edit, tracks: Iterable[Track], more: Iterable[Edit], stale: Collection[str] = ()) -> Edit:
    """The edit with the patches that `more` has for the same range, and none that fits no track.

    A patch belongs to the init segment that its track had; where it does not say, it is trusted unless its track is
    `stale`.
    """
    media = {track.id: track for track in tracks if track.kind != "text"}
    new = [patch for other in more if other.range == edit.range for patch in other.patches]
    old = [patch for patch in edit.patches if patch.init or patch.track not in stale]
    fitting = {
        patch.track: patch
        for patch in (*old, *new)
        if patch.track in media and patch.init in ("", media[patch.track].init)
    }
    return replace(edit, patches=tuple(fitting[name] for name in media if name in fitting))


def insist_on_patches(asset: str, edit: Edit, tracks: Sequence[Track]) -> None:
    """Raises `edit_changed` where a picture or a sound has no patch, or they do not agree where a player begins anew,
    and `parts_incomplete` where what is played has a gap."""
    patches = {patch.track: patch for patch in edit.patches}
    media = [track for track in tracks if track.kind != "text"]
    for track in media:
        if track.id not in patches or not _together(media[0], track, patches):
            raise PipelineError("edit_changed", asset=asset, track=track.id)
    for track in media:
        if detail := _mistake(edit, track, patches[track.id]):
            raise PipelineError("parts_incomplete", track=track.id, detail=detail)


def _together(one: Track, other: Track, patches: Mapping[str, Patch]) -> bool:
    """Whether both begin anew at the same moments, but for a frame of sound."""
    moments = [[Fraction(seam, track.timescale) for seam in patches[track.id].seams] for track in (one, other)]
    slack = max(0 if track.kind == "video" else Fraction(AAC_FRAME, track.timescale) for track in (one, other))
    return len(moments[0]) == len(moments[1]) and all(abs(a - b) <= slack for a, b in zip(*moments, strict=True))


def _mistake(edit: Edit, track: Track, patch: Patch) -> str | None:
    segments = segments_of(track, patch)
    starts = [segment.start for segment in segments]
    ends = [segment.start + segment.duration for segment in segments]
    begins = {*starts[:1], *patch.seams}
    if len(begins) <= len(patch.seams) or not begins.issubset(starts):
        return "a stretch of the edit is empty"
    if any(end != start for end, start in zip(ends, starts[1:], strict=False)):
        return "the edit leaves a gap between its pieces"
    wanted = [edit.start * track.timescale, edit.end * track.timescale]
    if track.kind == "video" and [starts[0], ends[-1]] != wanted:
        return "the edit does not begin and end with its pictures"
    return None
