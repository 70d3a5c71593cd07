"""Builders of presentations: full defaults, name only what the test is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from pipeline import keys
from pipeline.media.timeline import AAC_FRAME, audio_frames, audio_segment_starts, keyframes, segment_starts
from pipeline.presentation import captions
from pipeline.presentation.compose import compose
from pipeline.presentation.model import Effect, Presentation, Track
from pipeline.tasks import Keyframe, Part, Segment, Timeline

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
