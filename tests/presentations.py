"""Builders of presentations: full defaults, name only what the test is about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

from pipeline import keys
from pipeline.media.timeline import AAC_FRAME, audio_frames, audio_segment_starts, keyframes, segment_starts
from pipeline.presentation import captions
from pipeline.presentation.compose import compose
from pipeline.presentation.model import Edit, Effect, Presentation, Track
from pipeline.tasks import Keyframe, Part, Patch, Piece, Segment, Timeline

ASSET = "8x7k2m9qpza"
NTSC = Timeline(rate=Fraction(30000, 1001), frames=301)
"""Ten seconds and a frame at 29.97: the last segment is not whole, and no segment lasts exactly four seconds."""


def frame_ticks(timeline: Timeline) -> int:
    """What an output frame lasts in the timescale of the pictures."""
    return int(timeline.timescale / timeline.rate)


def video_track(name: str = "720p", timeline: Timeline = NTSC, *, recipe: str = "0a1b2c", **changes: Any) -> Track:
    """A rung on the grid, every segment as large as its picture and length make it."""
    height = int(name.removesuffix("p"))
    width = height * 16 // 9 // 2 * 2
    starts = segment_starts(timeline)
    bytes_per_frame = width * height // 200
    segments = tuple(
        _video_segment(timeline, start, end, f"{keys.track(ASSET, f'video-{name}', recipe)}", bytes_per_frame)
        for start, end in zip(starts, (*starts[1:], timeline.frames), strict=True)
    )
    fields: dict[str, Any] = {
        "id": f"video-{name}",
        "kind": "video",
        "codec": "avc1.64001f",
        "timescale": timeline.timescale,
        "init": f"{keys.track(ASSET, f'video-{name}', recipe)}init.mp4",
        "segments": segments,
        "name": name,
        "rung": name,
        "width": width,
        "height": height,
        "frame_rate": timeline.rate,
    }
    return Track(**(fields | changes))


def _video_segment(timeline: Timeline, start: int, end: int, folder: str, bytes_per_frame: int) -> Segment:
    forced = [frame for frame in keyframes(timeline) if start <= frame < end]
    return Segment(
        start=start * frame_ticks(timeline),
        duration=(end - start) * frame_ticks(timeline),
        key=f"{folder}{start * frame_ticks(timeline)}.m4s",
        size=(end - start) * bytes_per_frame,
        keyframes=tuple(
            Keyframe(
                tick=frame * frame_ticks(timeline),
                offset=(frame - start) * bytes_per_frame,
                size=bytes_per_frame * 3 // 4,
            )
            for frame in forced
        ),
    )


def audio_track(id: str = "audio-1-en", timeline: Timeline = NTSC, *, recipe: str = "3d4e5f", **changes: Any) -> Track:
    """Stereo AAC at 128 kb/s that covers the timeline in whole frames."""
    folder = keys.track(ASSET, id, recipe)
    starts = audio_segment_starts(timeline, 48_000)
    ends = (*starts[1:], audio_frames(timeline, 48_000))
    fields: dict[str, Any] = {
        "id": id,
        "kind": "audio",
        "codec": "mp4a.40.2",
        "timescale": 48_000,
        "init": f"{folder}init.mp4",
        "segments": tuple(
            Segment(
                start=start * AAC_FRAME,
                duration=(end - start) * AAC_FRAME,
                key=f"{folder}{start * AAC_FRAME}.m4s",
                size=(end - start) * 341,
            )
            for start, end in zip(starts, ends, strict=True)
        ),
        "language": "en",
        "name": "English",
        "default": True,
        "channels": 2,
        "sample_rate": 48_000,
    }
    return Track(**(fields | changes))


def text_track(id: str = "text-en", timeline: Timeline = NTSC, **changes: Any) -> Track:
    """English captions of 1 200 bytes."""
    flags = {name: changes.pop(name) for name in ("default", "forced", "hearing_impaired") if name in changes}
    fields: dict[str, Any] = {"language": "en", "name": "English", "size": 1200, "duration": timeline.duration}
    made = captions.text_track(id, key=keys.subtitle(ASSET, id, "6f7a8b", "vtt"), **(fields | changes))
    return replace(made, **flags)


def part(track: Track, *, digest: str = "same", segments: Sequence[Segment] | None = None) -> Part:
    """What the steps that made a track answer: all of it, or these segments."""
    assert track.kind != "text"
    return Part(
        track=track.id,
        kind=track.kind,
        codec=track.codec,
        timescale=track.timescale,
        init=track.init,
        init_digest=digest,
        segments=tuple(track.segments if segments is None else segments),
    )


def presentation(*tracks: Track, timeline: Timeline = NTSC, **changes: Any) -> Presentation:
    """Version 1 of an asset with two rungs, English and Tamil, if no tracks are given."""
    made = compose(
        None,
        asset=ASSET,
        tracks=tracks
        or (
            video_track("720p", timeline),
            video_track("360p", timeline),
            audio_track(timeline=timeline),
            audio_track("audio-2-ta", timeline, language="ta", name="Tamil", default=False),
        ),
        effect=Effect(job="job-1", step="package"),
        duration=timeline.duration,
        segment=timeline.segment,
    )
    return Presentation(**(vars(made) | changes))


def edit(shown: Presentation, first: int, end: int, *, seams: bool = False, recipe: str = "9c8b7a") -> Edit:
    """What a trim to the output frames [first, end) makes of these tracks; of a sound alone, to its AAC frames.

    `seams`: the encoder of today writes another init segment.
    """
    pictures = shown.video
    rate = (pictures[0].frame_rate if pictures else None) or Fraction(48_000, AAC_FRAME)
    start, stop = first / rate, end / rate
    between = [at for at in _common_keyframes(shown) if start <= at <= stop]
    # Where no keyframe lies between, all is encoded, for one init segment, which is taken for the track's here.
    joints = [at for at in (between[0], between[-1]) if start < at < stop] if seams and between else []
    encoded = [(start, between[0]), (between[-1], stop)] if joints else []
    patches = [
        _patch(track, start, stop, tuple(dict.fromkeys(joints)), tuple(encoded), recipe)
        for track in shown.tracks
        if track.kind != "text"
    ]
    return Edit(start=start, end=stop, patches=tuple(patches))


Spans = tuple[tuple[Fraction, Fraction], ...]


def _common_keyframes(shown: Presentation) -> list[Fraction]:
    each = [
        {Fraction(keyframe.tick, track.timescale) for segment in track.segments for keyframe in segment.keyframes}
        for track in shown.video
    ]
    return sorted(set.intersection(*each)) if each else []


def _patch(
    track: Track, start: Fraction, stop: Fraction, joints: tuple[Fraction, ...], encoded: Spans, recipe: str
) -> Patch:
    last = track.segments[-1].start + track.segments[-1].duration
    played = _tick(track, start, down=True), min(_tick(track, stop), last)
    # A stretch has a frame of sound, however short it is.
    seams = tuple(min(_tick(track, joint), played[1] - (AAC_FRAME if track.kind == "audio" else 1)) for joint in joints)
    near = [each for each in track.segments if each.start < played[1] and each.start + each.duration > played[0]]
    # A seam may lie inside of a sound's segment that no cut divides.
    whole = [each for each in near if _whole(each, (*played, *seams))]
    pieces = [
        piece
        for segment in near
        if segment not in whole
        for piece in _pieces(track, segment, played, seams, encoded, recipe)
    ]
    own = (whole[0].start, whole[-1].start + 1) if whole else (played[0], played[0])
    return Patch(
        track=track.id,
        first=own[0],
        last=own[1],
        head=tuple(each for each in pieces if each.start < own[0] or not whole),
        tail=tuple(each for each in pieces if whole and each.start > own[0]),
        seams=seams,
        init=track.init,
    )


def _whole(segment: Segment, ticks: Sequence[int]) -> bool:
    """None of the ticks lies inside of it."""
    return not any(segment.start < tick < segment.start + segment.duration for tick in ticks)


def _tick(track: Track, at: Fraction, *, down: bool = False) -> int:
    """The frame that holds a moment, or the first one after it, in ticks."""
    frame = AAC_FRAME if track.kind == "audio" else 1
    count = at * track.timescale / frame
    return frame * (math.floor(count) if down else math.ceil(count))


def _pieces(
    track: Track, segment: Segment, range_: tuple[int, int], seams: tuple[int, ...], encoded: Spans, recipe: str
) -> list[Piece]:
    """What is played of a segment, as pieces between the seams."""
    start, end = max(segment.start, range_[0]), min(segment.start + segment.duration, range_[1])
    ends = sorted({start, *(seam for seam in seams if start < seam < end), end})
    return [_piece(track, segment, span, encoded, recipe) for span in pairwise(ends)]


def _piece(track: Track, segment: Segment, span: tuple[int, int], encoded: Spans, recipe: str) -> Piece:
    start, end = span
    folder = keys.track(ASSET, track.id, recipe)
    size = segment.size * (end - start) // segment.duration
    ticks = sorted({start, *(each.tick for each in segment.keyframes if start <= each.tick < end)})
    keyframes = tuple(Keyframe(tick=tick, offset=size * (tick - start) // (end - start), size=700) for tick in ticks)
    own_init = track.kind == "video" and any(a * track.timescale <= start < b * track.timescale for a, b in encoded)
    return Piece(
        start=start,
        duration=end - start,
        key=f"{folder}{start}.m4s",
        size=size,
        keyframes=keyframes if track.kind == "video" else (),
        init=f"{folder}init.mp4" if own_init else "",
    )
