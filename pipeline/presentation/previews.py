"""A preview: the range of a cut as it can be shown at once, from segments that are there, before anything is encoded.

It begins and ends where segments do, and lies in a folder of its own beside the versions. It is none of them, and no
door of the asset leads to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from pipeline import keys
from pipeline.presentation.caption_cutting import cut_captions
from pipeline.presentation.dash import render_dash
from pipeline.presentation.edits import played, segments_of
from pipeline.presentation.hls import render_master, render_playlists
from pipeline.presentation.model import Edit, Presentation, Track
from pipeline.tasks import Patch, Piece

_AAC_FRAME = 1024
"""Samples."""

Range = tuple[Fraction, Fraction]
"""Seconds from which and to which."""


def preview(presentation: Presentation, start: Fraction, end: Fraction) -> Presentation:
    """The presentation with an edit that plays every segment that overlaps [start, end), and nothing that was made for
    an edit; of a clip nothing that is not the clip's.

    Times are seconds of the source's timeline. The edit says what it begins and ends with: whole segments of the
    pictures, or of the sounds where there are none.
    """
    # A trim takes the place of the one before; what a clip began with bounds every one of them.
    whole = {patch.track: patch for patch in base.patches} if (base := presentation.base) else {}
    pictures = [track for track in presentation.tracks if track.kind == "video"]
    media = [track for track in presentation.tracks if track.kind != "text"]
    # Sound follows the pictures: these begin and end the preview, where there are any.
    lead = _span(pictures or media, whole, start, end)
    patches = tuple(_overlapping(track, whole.get(track.id), *lead) for track in media)
    return replace(presentation, edit=Edit(start=lead[0], end=lead[1], patches=patches))


def _span(tracks: Sequence[Track], whole: Mapping[str, Patch], start: Fraction, end: Fraction) -> Range:
    """Seconds from the first to the end of the last segment of these tracks that overlaps the range."""
    found = [_played(track, _overlapping(track, whole.get(track.id), start, end)) for track in tracks]
    return min(first for first, _ in found), max(last for _, last in found)


def _played(track: Track, patch: Patch) -> Range:
    segments = segments_of(track, patch)
    last = segments[-1]
    return Fraction(segments[0].start, track.timescale), Fraction(last.start + last.duration, track.timescale)


def _overlapping(track: Track, whole: Patch | None, start: Fraction, end: Fraction) -> Patch:
    """What is played in the range, of the patch or of the track as it is: at least one segment."""
    first, last = math.floor(start * track.timescale), math.ceil(end * track.timescale)
    whole = whole or Patch(track=track.id, first=track.segments[0].start, last=track.segments[-1].start + 1)
    every = segments_of(track, whole)
    # A sound's segment begins up to a frame after the picture's: the one before it shares no more than that.
    slack = 0 if track.kind == "video" else _AAC_FRAME
    shared = {each: min(each.start + each.duration, last) - max(each.start, first) for each in every}
    near = [each for each in every if shared[each] > slack] or [max(every, key=lambda each: shared[each])]
    own = [each.start for each in near if not isinstance(each, Piece)]
    return replace(
        whole,
        first=own[0] if own else first,
        last=own[-1] + 1 if own else first,
        head=tuple(piece for piece in whole.head if piece in near),
        tail=tuple(piece for piece in whole.tail if piece in near),
        seams=tuple(seam for seam in whole.seams if near[0].start < seam <= near[-1].start),
    )


def render_preview(shown: Presentation, name: str, captions: Mapping[str, bytes]) -> dict[str, bytes]:
    """All files of what `preview` answered, by storage key, below `keys.preview(asset, name)`: the doors `video.m3u8`
    and `video.mpd`, playlists, and captions. `captions` are the stored ones, by track."""
    folder = keys.preview(shown.asset, name)
    flat = replace(played(shown), door=folder, files=folder)
    doors = {f"{folder}video.m3u8": render_master(flat), f"{folder}video.mpd": render_dash(flat)}
    texts = {flat.captions(track): cut_captions(captions[track.id], flat.start, flat.end) for track in flat.text}
    return texts | {key: text.encode() for key, text in (doors | render_playlists(flat)).items()}
