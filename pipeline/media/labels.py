"""What a stream says of itself: names, kinds, codec profiles. None of it is believed where packets or frames know."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from pipeline.tasks import AttachedPicture, SoundRole

_ROLES: tuple[tuple[Disposition, SoundRole], ...] = (
    (Disposition.comment, "commentary"),
    (Disposition.visual_impaired | Disposition.descriptions, "description"),
    (Disposition.clean_effects, "clean"),
    (Disposition.dub, "dub"),
)
_NO_PICTURE = Disposition.attached_pic | Disposition.timed_thumbnails
_LONGEST_TITLE = 200
"""Characters."""
_WITH_FIELDS = frozenset(("h264", "mpeg2video", "mpeg4", "vc1"))
"""Codecs whose frames may be interlaced, each for itself."""
_TALLEST_WITH_FIELDS = 1088
"""Lines: nobody makes larger pictures of fields."""
_PCM = re.compile(r"pcm_[suf](\d+)(be|le)?(_planar)?")


def decodable(stream: Stream) -> bool:
    """Whether this build of libav has a decoder; PyAV has no context where it has none."""
    return cast(object, stream.codec_context) is not None


def stands_still(stream: Stream) -> bool:
    """Whether it is cover art, or some other picture beside the media."""
    return bool(stream.disposition & _NO_PICTURE)


def pictures(container: InputContainer) -> tuple[AttachedPicture, ...]:
    """The pictures that stand still beside the media."""
    return tuple(
        AttachedPicture(
            index=stream.index,
            codec=stream.codec_context.codec.canonical_name,
            width=stream.width,
            height=stream.height,
        )
        for stream in container.streams.video
        if decodable(stream) and stands_still(stream)
    )


def title(stream: Stream) -> str | None:
    """As a person may read it: no control characters, not too long; None for nothing."""
    text = stream.metadata.get("title") or ""
    return "".join(char for char in text.strip() if char.isprintable())[:_LONGEST_TITLE] or None


def role(stream: Stream) -> SoundRole:
    """By its dispositions; the first that says more than `main`."""
    return next((name for flags, name in _ROLES if stream.disposition & flags), "main")


def profile(stream: Stream) -> str | None:
    """The codec's profile by libav's name."""
    return stream.codec_context.profile


def level(stream: Stream) -> int | None:
    """The codec's level as its standard writes it: 41 is 4.1 of H.264, 153 is 5.1 of HEVC."""
    found = stream.codec_context.level
    return found if found > 0 else None  # libav's "unknown" is -99


def codec_tag(stream: Stream) -> str:
    """Four characters; empty where the tag is a number, as for AAC in AVI (0x00ff): PyAV cannot read those."""
    try:
        return str(stream.codec_tag)
    except UnicodeDecodeError:
        return ""


def may_have_fields(stream: VideoStream) -> bool:
    """Whether some of its frames may be interlaced."""
    return stream.codec_context.codec.canonical_name in _WITH_FIELDS and stream.height <= _TALLEST_WITH_FIELDS


def first_with_fields(frames: Iterable[av.VideoFrame]) -> av.VideoFrame | None:
    """The first interlaced frame."""
    return next((frame for frame in frames if frame.interlaced_frame), None)


def sample_bits(stream: AudioStream) -> int | None:
    """Bits of one sample of a codec that keeps every sample; None for the others, and where nobody says."""
    codec, extra = stream.codec_context.codec.canonical_name, stream.codec_context.extradata or b""
    if match := _PCM.fullmatch(codec):
        return int(match[1])
    if codec == "flac" and len(extra) >= 14:  # STREAMINFO, RFC 9639 §8.2: 5 bits across two bytes, less one
        return ((extra[12] & 1) << 4 | extra[13] >> 4) + 1
    if codec == "alac" and len(extra) >= 18:  # ALACSpecificConfig.bitDepth, behind the atom's 12 bytes
        return extra[17]
    return None
