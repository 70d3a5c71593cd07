"""Values with full defaults: a test names only what it is about."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from pipeline.profile import AudioProfile, Profile, RungProfile, VideoProfile
from pipeline.requests import RESOLUTIONS, ProcessRequest
from pipeline.tasks import AudioStream, Blueprint, IngestFacts, MediaInfo, Timeline, VideoStream


def a_request(**changes: Any) -> ProcessRequest:
    """A request for `clip.mp4`, as `request-1` for the asset `asset000001`."""
    return ProcessRequest(**{"id": "request-1", "asset_id": "asset000001", "url": "/videos/clip.mp4", **changes})


def a_profile(**changes: Any) -> Profile:
    """A profile with every rung, named `default`."""
    fields: dict[str, Any] = {
        "name": "default",
        "description": "For tests.",
        "resolutions": ("240p", "720p"),
        "video": VideoProfile(preset="veryfast", crf=23),
        "ladder": {name: RungProfile(maxrate=1_000_000) for name in RESOLUTIONS},
        "audio": AudioProfile(bitrate=128_000),
    }
    return Profile(**{**fields, **changes})


def a_video(**changes: Any) -> VideoStream:
    """Ten seconds of 1080p25 H.264."""
    fields: dict[str, Any] = {
        "index": 0,
        "codec": "h264",
        "width": 1920,
        "height": 1080,
        "rate": Fraction(25),
        "frames": 250,
        "start": Fraction(0),
        "end": Fraction(10),
    }
    return VideoStream(**{**fields, **changes})


def a_sound(**changes: Any) -> AudioStream:
    """Ten seconds of stereo AAC."""
    fields: dict[str, Any] = {
        "index": 1,
        "codec": "aac",
        "channels": 2,
        "layout": "stereo",
        "sample_rate": 48000,
        "language": "en",
        "start": Fraction(0),
        "end": Fraction(10),
    }
    return AudioStream(**{**fields, **changes})


def a_media(**changes: Any) -> MediaInfo:
    """A ten-second MP4 with picture and sound, 4 096 bytes."""
    fields: dict[str, Any] = {
        "format": "mov,mp4,m4a,3gp,3g2,mj2",
        "size": 4096,
        "duration": Fraction(10),
        "start": Fraction(0),
        "video": a_video(),
        "audio": (a_sound(),),
    }
    return MediaInfo(**{**fields, **changes})


def some_ingest_facts(**changes: Any) -> IngestFacts:
    return IngestFacts(media=a_media(**changes), encoder="x264-164")


def a_blueprint(**changes: Any) -> Blueprint:
    """What a plan draws for `a_media`, without rungs: tests of the control plane need none."""
    fields: dict[str, Any] = {"media": a_media(), "timeline": Timeline(rate=Fraction(25), frames=250)}
    return Blueprint(**{**fields, **changes})
