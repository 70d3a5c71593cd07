"""A presentation: timeline and tracks of one version of an asset (DESIGN §9).

HLS and DASH manifests are rendered from it. Publishing, adding a caption, trimming and reverting all mean: compose the
next presentation and render it again; no media is rewritten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from pipeline import keys
from pipeline.tasks import Patch, Segment, SoundRole

SCHEMA = 2
"""Grows when the stored form changes; a worker that meets a newer one hands its step back."""

_MARK = "reelway presentation "


@dataclass(frozen=True, kw_only=True)
class Track:
    """One stream of segments that a player can choose."""

    id: str
    """`video-720p`, `audio-1-en`: unique, and the folder of its segments."""
    kind: Literal["video", "audio", "text"]
    codec: str
    """RFC 6381."""
    timescale: int
    init: str
    """Storage key of the init segment; empty for text, which has none."""
    segments: tuple[Segment, ...]
    """Of text: one, the whole WebVTT file on the source's timeline. Each version has its own rendering of it."""
    language: str = "und"
    name: str = ""
    """What a player shows; unique among the tracks of its kind."""
    default: bool = False
    rung: str | None = None
    width: int | None = None
    height: int | None = None
    frame_rate: Fraction | None = None
    channels: int | None = None
    sample_rate: int | None = None
    role: SoundRole = "main"
    """What a sound is for."""
    auto_generated: bool = False
    """Text that a machine heard."""
    forced: bool = False
    """Text for those who understand the sound: of what they could not (another language, signs)."""
    hearing_impaired: bool = False
    """Text for those who do not hear: of all that is heard."""
    number: int | None = None
    """Of text: what the world calls it by, claimed once and for all assets; None: from before there were numbers."""

    @property
    def size(self) -> int:
        """Bytes of all media segments."""
        return sum(segment.size for segment in self.segments)

    @property
    def duration(self) -> Fraction:
        """Seconds."""
        return Fraction(sum(segment.duration for segment in self.segments), self.timescale)

    @property
    def bandwidth(self) -> int:
        """Peak bits a second, as `peak_bandwidth` says."""
        return peak_bandwidth(((segment.duration, segment.size) for segment in self.segments), self.timescale)

    @property
    def average_bandwidth(self) -> int:
        """Mean bits a second over the whole track, rounded up."""
        return mean_bandwidth(((segment.duration, segment.size) for segment in self.segments), self.timescale)


def peak_bandwidth(pieces: Iterable[tuple[int, int]], timescale: int) -> int:
    """Peak bits a second of (ticks, bytes) pieces in a row, rounded up (RFC 8216 §4.1, "peak segment bit rate").

    The peak is taken over every run of pieces that lasts 0.5 to 1.5 times the longest piece. A last segment of a single
    frame, which is all keyframe, thus does not count alone: it would claim some twenty times the true rate.
    """
    row = list(pieces)
    longest = max((ticks for ticks, _ in row), default=0)
    most, time = 0, 1  # bytes in so many ticks
    for first in range(len(row)):
        ticks = size = 0
        for more_ticks, more_bytes in row[first:]:
            ticks, size = ticks + more_ticks, size + more_bytes
            if 2 * ticks > 3 * longest:
                break
            if 2 * ticks >= longest and size * time > most * ticks:
                most, time = size, ticks
    return -(-most * 8 * timescale // time)


def mean_bandwidth(pieces: Iterable[tuple[int, int]], timescale: int) -> int:
    """Mean bits a second of (ticks, bytes) pieces, rounded up."""
    row = list(pieces)
    ticks, size = sum(ticks for ticks, _ in row), sum(size for _, size in row)
    return -(-size * 8 * timescale // ticks) if ticks else 0


@dataclass(frozen=True, kw_only=True)
class Edit:
    """The range of the source's timeline that is played, and what it needs beside the tracks' own segments.

    Everything else (tracks, captions) stays on the source's timeline: an edit is applied when a version is rendered.
    """

    start: Fraction
    """Seconds, at an output frame: the first one that is shown."""
    end: Fraction
    """Seconds, at an output frame: the first one that is no longer shown."""
    patches: tuple[Patch, ...] = ()
    """One for every picture and every sound."""
    trim: int | None = None
    """Number of the trim job that asked for it; None: none did."""

    @property
    def range(self) -> tuple[Fraction, Fraction]:
        return self.start, self.end


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Which step brought which change: an effect that a presentation already has is not applied again."""

    job: str
    step: str


@dataclass(frozen=True, kw_only=True)
class Presentation:
    """The n-th version of everything playable about an asset."""

    asset: str
    version: int = 0
    duration: Fraction
    """Seconds; D of the timeline, whatever part of it is played."""
    target_duration: int
    """HLS TARGETDURATION, the same for every playlist of every version."""
    tracks: tuple[Track, ...]
    edit: Edit | None = None
    """What a trim left of it; None: everything is played, or as much as `base` says."""
    base: Edit | None = None
    """Of a clip: its part of the source's timeline. A trim cuts inside of it, a revert goes back to it."""
    effects: tuple[Effect, ...] = ()
    nonce: str = ""
    """Tells the writer of this version its own work when the reply to the write was lost."""
    epoch: int = 0
    """Of `sequence`; 0 where nothing was known of the asset's events."""
    sequence: int = 0
    """Last event sequence of the asset when this was composed: a rebuilt record starts above it, in a new epoch."""
    playlists: str = ""
    """Name of the folder of this version's playlists below the version's own: a digest of what they say."""
    schema: int = SCHEMA

    @property
    def folder(self) -> str:
        """Storage folder of this version's playlists, with a slash at its end."""
        version = keys.version(self.asset, self.version)
        return f"{version}{self.playlists}/" if self.playlists else version

    @property
    def mark(self) -> str:
        """The comment in a door that tells whose it is."""
        return f"{_MARK}{self.version}"

    @property
    def video(self) -> tuple[Track, ...]:
        """Video tracks, largest picture first."""
        tracks = [track for track in self.tracks if track.kind == "video"]
        return tuple(sorted(tracks, key=lambda track: -(track.width or 0) * (track.height or 0)))

    @property
    def audio(self) -> tuple[Track, ...]:
        return tuple(track for track in self.tracks if track.kind == "audio")

    @property
    def text(self) -> tuple[Track, ...]:
        return tuple(track for track in self.tracks if track.kind == "text")

    def captions(self, track: Track) -> str:
        """Storage key of this version's own rendering of a text track."""
        return f"{self.folder}{track.id}.vtt"


def marked_version(door: str) -> int:
    """The version that a door's text belongs to; 0 where it does not say."""
    digits = re.match(r"\d+", door.partition(_MARK)[2])
    return int(digits[0]) if digits else 0
