"""A preview: the range of a cut as it can be shown at once, from segments that are there, before anything is encoded.

It begins and ends where segments do, and lies in a folder of its own beside the versions. It is none of them, and no
door of the asset leads to it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from pipeline import keys
from pipeline.media.timeline import AAC_FRAME
from pipeline.presentation.caption_cutting import cut_captions
from pipeline.presentation.dash import render_dash
from pipeline.presentation.edits import played, segments_of
from pipeline.presentation.hls import render_master, render_playlists
from pipeline.presentation.model import Edit, Presentation, Track
from pipeline.tasks import Patch, Piece, Segment

Range = tuple[Fraction, Fraction]
"""Seconds from which and to which."""


def preview(presentation: Presentation, start: Fraction, end: Fraction) -> Presentation:
    """The presentation with an edit that plays every segment that overlaps [start, end), and nothing that was made for
    an edit; of a clip nothing that is not the clip's.

    Times are seconds of the source's timeline. The edit says what it begins and ends with: whole segments of the
    pictures, or of the sounds where there are none.
    """
    pictures = [track for track in presentation.tracks if track.kind == "video"]
    media = [track for track in presentation.tracks if track.kind != "text"]
    # A trim takes the place of the one before; what a clip began with bounds every one of them.
    whole = {track.id: _whole(track) for track in media}
    whole |= {patch.track: patch for patch in base.patches} if (base := presentation.base) else {}
    # Sound follows the pictures: these begin and end the preview, and each of its stretches, where there are any.
    leading = pictures or media
    lead = _span(leading, whole, (start, end))
    stretches = _stretches(leading[0], whole[leading[0].id], lead)
    patches = tuple(_shown(track, whole[track.id], lead, stretches) for track in media)
    return replace(presentation, edit=Edit(start=lead[0], end=lead[1], patches=patches))


def _whole(track: Track) -> Patch:
    return Patch(track=track.id, first=track.segments[0].start, last=track.segments[-1].start + 1)


def _span(tracks: Sequence[Track], whole: Mapping[str, Patch], wanted: Range) -> Range:
    """Seconds from the first to the end of the last segment of these tracks that overlaps the range.

    Where they are of several grids a segment of one may reach into another one's next, which is played then as well.
    """
    while True:
        near = [(track, _overlapping(track, segments_of(track, whole[track.id]), wanted)) for track in tracks]
        first = min(Fraction(row[0].start, track.timescale) for track, row in near)
        last = max(Fraction(row[-1].start + row[-1].duration, track.timescale) for track, row in near)
        reach = min(first, wanted[0]), max(last, wanted[1])
        if reach == wanted:
            return first, last
        wanted = reach


def _overlapping(track: Track, segments: Sequence[Segment], wanted: Range) -> list[Segment]:
    """Which of them have a part in the range: at least one."""
    first, last = math.floor(wanted[0] * track.timescale), math.ceil(wanted[1] * track.timescale)
    # A sound's segment begins up to a frame after the picture's: the one before it shares no more than that.
    slack = 0 if track.kind == "video" else AAC_FRAME
    shared = [min(each.start + each.duration, last) - max(each.start, first) for each in segments]
    near = [each for each, ticks in zip(segments, shared, strict=True) if ticks > slack]
    return near or [segments[shared.index(max(shared))]]


def _stretches(track: Track, whole: Patch, wanted: Range) -> tuple[int, int]:
    """The first and the last stretch that have a part in the range, counted from 0."""
    near = _overlapping(track, segments_of(track, whole), wanted)
    return bisect_right(whole.seams, near[0].start), bisect_right(whole.seams, near[-1].start)


def _shown(track: Track, whole: Patch, wanted: Range, stretches: tuple[int, int]) -> Patch:
    """What is played in the range, of the patch: something of each of these stretches, and of no other."""
    low, high = stretches
    among = [each for each in segments_of(track, whole) if low <= bisect_right(whole.seams, each.start) <= high]
    near, seams = _overlapping(track, among, wanted), whole.seams[low:high]
    first, last = near[0].start, near[-1].start
    if seams:
        # However little of a stretch is shown: a piece may be shorter than a frame of sound.
        first = min(first, max(each.start for each in among if each.start < seams[0]))
        last = max(last, seams[-1])
    near = [each for each in among if first <= each.start <= last]
    own = [each.start for each in near if not isinstance(each, Piece)]
    return replace(
        whole,
        first=own[0] if own else first,
        last=own[-1] + 1 if own else first,
        head=tuple(piece for piece in whole.head if piece in near),
        tail=tuple(piece for piece in whole.tail if piece in near),
        seams=seams,
    )


def render_preview(shown: Presentation, name: str, captions: Mapping[str, bytes]) -> dict[str, bytes]:
    """All files of what `preview` answered, by storage key, below `keys.preview(asset, name)`: the doors `video.m3u8`
    and `video.mpd`, playlists, and captions. `captions` are the stored ones, by track."""
    folder = keys.preview(shown.asset, name)
    flat = replace(played(shown), door=folder, files=folder)
    doors = {f"{folder}video.m3u8": render_master(flat), f"{folder}video.mpd": render_dash(flat)}
    texts = {flat.captions(track): cut_captions(captions[track.id], flat.start, flat.end) for track in flat.text}
    return texts | {key: text.encode() for key, text in (doors | render_playlists(flat)).items()}
