"""Standard input: would the source play everywhere as it is? Recorded for later use; nothing follows from it yet.

The bounds are those that services which copy instead of encode ask for, with keyframes twice as dense as most do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.media.color import source_color
from pipeline.media.notes import longest_gop
from pipeline.media.pixels import chroma
from pipeline.tasks import AudioStream, MediaInfo, Standard, VideoStream

LONGEST_GOP_S = 10
HIGHEST_RATE = 60
LONG_SIDE, SHORT_SIDE = 1920, 1080
MOST_BITS = 8_000_000
"""Bits a second of the picture, on average."""
HIGHEST_SAMPLE_RATE = 48_000

_SURPRISES = frozenset(("edit_list", "negative_timestamps", "starts_apart"))
"""Notes of files that players which ignore edit lists show differently."""
_BROKEN = frozenset(("broken_timestamps", "damaged", "size_changes", "timestamp_wrap", "truncated", "begins_inside"))

SENTENCES: Mapping[str, str] = {
    "audio_channels": "Sound is neither mono nor stereo.",
    "audio_codec": "Sound is not AAC-LC.",
    "bit_depth": "Samples have more than eight bits.",
    "bitrate": "The picture has more than 8 Mbit/s.",
    "chroma": "Colour is not 4:2:0.",
    "container": "The file is no MP4 or MOV.",
    "damaged": "Something is wrong with the file or its timestamps: the notes say what.",
    "edit_list": "Players that ignore edit lists show it differently.",
    "frame_rate": "More than 60 frames a second.",
    "hdr": "The picture is HDR.",
    "interlaced": "The picture is interlaced.",
    "keyframes": "More than 10 s lie between two keyframes.",
    "open_gop": "Groups of pictures are open.",
    "pixel_aspect": "Pixels are not square.",
    "resolution": "The picture is larger than 1080p, or has an odd side.",
    "rotation": "The picture has to be turned or mirrored.",
    "sample_rate": "Sound has more than 48 kHz.",
    "variable_rate": "The frame rate varies.",
    "video_codec": "The picture is not H.264.",
}
"""What every reason means."""

_PictureRule = Callable[[VideoStream], bool]
_PICTURE: Mapping[str, _PictureRule] = {
    "video_codec": lambda video: video.codec != "h264",
    "bit_depth": lambda video: video.bits > 8,
    "chroma": lambda video: chroma(video.pix_fmt) != "420",
    "hdr": lambda video: source_color(video).hdr or video.dolby_vision is not None,
    "interlaced": lambda video: video.interlaced,
    "pixel_aspect": lambda video: video.sample_aspect_ratio != 1,
    "resolution": lambda video: not _fits(video.width, video.height),
    "rotation": lambda video: bool(video.rotation or video.mirrored),
    "variable_rate": lambda video: not video.constant,
    "frame_rate": lambda video: video.rate > HIGHEST_RATE,
    "open_gop": lambda video: bool(video.open_gop),
    "bitrate": lambda video: (video.bitrate or 0) > MOST_BITS,
}
_SoundRule = Callable[[AudioStream], bool]
_SOUND: Mapping[str, _SoundRule] = {
    "audio_codec": lambda sound: (sound.codec, sound.profile) != ("aac", "LC"),
    "audio_channels": lambda sound: sound.channels > 2,
    "sample_rate": lambda sound: sound.sample_rate > HIGHEST_SAMPLE_RATE,
}
_Rule = Callable[[MediaInfo], bool]
_WHOLE: Mapping[str, _Rule] = {
    "container": lambda media: "mp4" not in media.format,
    "keyframes": lambda media: longest_gop(media) > LONGEST_GOP_S,
    "edit_list": lambda media: not _SURPRISES.isdisjoint(media.notes),
    "damaged": lambda media: not _BROKEN.isdisjoint(media.notes),
}


def standard(media: MediaInfo) -> Standard:
    """What keeps the source, with its notes and keyframes, from being played as it is."""
    reasons = {word for word, fails in _WHOLE.items() if fails(media)}
    if media.video is not None:
        reasons |= {word for word, fails in _PICTURE.items() if fails(media.video)}
    for sound in media.audio:
        reasons |= {word for word, fails in _SOUND.items() if fails(sound)}
    return Standard(reasons=tuple(sorted(reasons)))


def _fits(width: int, height: int) -> bool:
    even = width % 2 == 0 and height % 2 == 0
    return even and max(width, height) <= LONG_SIDE and min(width, height) <= SHORT_SIDE
