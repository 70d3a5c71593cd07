"""What may be unusual about a source, as stable words with a sentence each: for the person who wonders why it looks so.

A note is no refusal: everything here is served, and comes out right. `notes` finds the words that follow from the
facts; those that only the reading of the file can tell (`pipeline.media.symptoms`) are handed to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from itertools import pairwise

from pipeline.media.color import source_color
from pipeline.media.pixels import chroma, transparent
from pipeline.tasks import MediaInfo, VideoStream

SPARSE_S = 10
"""Seconds between two keyframes that are called sparse: a seek has to decode so much for nothing."""
APART_S = 0.5
"""Seconds by which picture and sound may begin or end apart before it is said."""
HIGH_RATE = 60
"""Frames a second; above, the output has fewer."""

SENTENCES: Mapping[str, str] = {
    # -- the file and its clock
    "broken_timestamps": "Timestamps are missing, repeat themselves or go back.",
    "clock_joined": "The clock starts anew in the middle: the parts were laid end to end.",
    "damaged": "Packets are marked as damaged, or the first ones do not decode.",
    "edit_list": "An edit list cuts parts out, or plays them at another speed.",
    "ends_apart": "Picture and sound end more than half a second apart.",
    "header_lies": "The header says less than there is, or another frame rate: packets were counted instead.",
    "negative_timestamps": "Presentation begins before the time 0 of the file.",
    "starts_apart": "Picture and sound begin more than half a second apart.",
    "timestamp_wrap": "The clock of the transport stream overflows in the middle.",
    "truncated": "The file ends before its header says.",
    "unseekable": "Seeking is not reliable: the whole picture is made in one piece.",
    # -- the picture's frames
    "begins_inside": "The first frame is no keyframe: the recording begins inside a group of pictures.",
    "high_rate": "More than 60 frames a second: the output has fewer.",
    "interlaced": "Frames are two fields of different moments: they are deinterlaced.",
    "open_gop": "Frames before a keyframe in time come after it in the file.",
    "size_changes": "The size or format of the picture changes on the way.",
    "sparse_keyframes": "More than 10 s lie between two keyframes.",
    "variable_rate": "The distances between frames vary: the output has a constant rate.",
    # -- the picture's shape
    "anamorphic": "Pixels are not square: the output is scaled so that they are.",
    "aspect_disagrees": "Container and picture disagree about the shape of a pixel; the container's word counts.",
    "mirrored": "The display matrix swaps left and right.",
    "odd_size": "Width or height is odd.",
    "rotated": "The display matrix turns the picture.",
    # -- the picture's samples
    "chroma_422": "Colour has half of the picture's width and its whole height.",
    "chroma_444": "Colour is as fine as brightness.",
    "dolby_vision": "The picture is Dolby Vision.",
    "full_range": "Samples use their whole range (0 to 255).",
    "hdr": "The picture is HDR (PQ or HLG): it is mapped to SDR.",
    "ten_bit": "Samples have more than eight bits.",
    "transparent": "The picture has an alpha channel: it is shown on black.",
    # -- the streams
    "cover_art": "A picture that stands still is attached; it is no video.",
    "no_picture": "There is only sound.",
    "no_sound": "There is only a picture.",
    "several_pictures": "There is more than one picture: the default one is served, else the largest.",
    "several_sounds": "There is more than one sound track.",
    "stream_left_out": "A stream that should be picture or sound cannot be decoded, or never came.",
    "surround": "A sound track has more than two channels.",
    # -- the text (`pipeline.media.texts` finds it)
    "captions_708_only": "There are captions of CEA-708 without those of CEA-608: no text track is made of them.",
    "text_in_pictures": "Subtitles are pictures, as on DVD: no text track is made of them.",
    "text_too_much": "There is more text than a viewer could read: the end of it is left out.",
    "text_unreadable": "A text track cannot be read: it is left out.",
}
"""What every word means."""

_PictureRule = Callable[[VideoStream], bool]
_PICTURE: Mapping[str, _PictureRule] = {
    "anamorphic": lambda video: video.sample_aspect_ratio != 1,
    "chroma_422": lambda video: chroma(video.pix_fmt) == "422",
    "chroma_444": lambda video: chroma(video.pix_fmt) == "444",
    "dolby_vision": lambda video: video.dolby_vision is not None,
    "full_range": lambda video: video.color.range == "pc",
    "hdr": lambda video: source_color(video).hdr,
    "high_rate": lambda video: video.rate > HIGH_RATE,
    "interlaced": lambda video: video.interlaced,
    "mirrored": lambda video: video.mirrored,
    "odd_size": lambda video: bool(video.width % 2 or video.height % 2),
    "open_gop": lambda video: bool(video.open_gop),
    "rotated": lambda video: video.rotation != 0,
    "ten_bit": lambda video: video.bits > 8,
    "transparent": lambda video: transparent(video.pix_fmt),
    "variable_rate": lambda video: not video.constant,
}
_Rule = Callable[[MediaInfo], bool]
_WHOLE: Mapping[str, _Rule] = {
    "cover_art": lambda media: bool(media.pictures),
    "ends_apart": lambda media: _apart(media, [stream.end for stream in (media.video, *media.audio) if stream]),
    "negative_timestamps": lambda media: media.start < 0,
    "no_picture": lambda media: media.video is None,
    "no_sound": lambda media: not media.audio,
    "several_sounds": lambda media: len(media.audio) > 1,
    "sparse_keyframes": lambda media: longest_gop(media) > SPARSE_S,
    "starts_apart": lambda media: _apart(media, [stream.start for stream in (media.video, *media.audio) if stream]),
    "surround": lambda media: any(stream.channels > 2 for stream in media.audio),
    "unseekable": lambda media: not media.seekable,
}


def notes(media: MediaInfo, symptoms: Iterable[str] = ()) -> tuple[str, ...]:
    """Every word that holds, sorted. `media` has its keyframes; `symptoms` are words that reading the file told."""
    found = {word for word, holds in _WHOLE.items() if holds(media)}
    if media.video is not None:
        found |= {word for word, holds in _PICTURE.items() if holds(media.video)}
    return tuple(sorted(found.union(symptoms)))


def longest_gop(media: MediaInfo) -> float:
    """Seconds from one keyframe to the next, or to the end, at most; 0 without a picture."""
    if media.video is None:
        return 0
    times = [media.video.start, *(time for time in media.keyframes if time > media.video.start), media.video.end]
    return float(max(later - earlier for earlier, later in pairwise(times)))


def _apart(media: MediaInfo, times: list[Fraction]) -> bool:
    return media.video is not None and max(times) - min(times) > APART_S
