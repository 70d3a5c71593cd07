"""What the packets of a source show to be odd about it, in words of `pipeline.media.notes`.

Each of these is a matter of the file and not of what is made of it, so the facts have no field for it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream as AvVideoStream

from pipeline.media.edits import edit_lists
from pipeline.media.labels import decodable, stands_still
from pipeline.media.matroska import ends_early
from pipeline.media.sources import Source
from pipeline.media.tracks import Track
from pipeline.tasks import AudioStream, VideoStream

_WRAP = 1 << 33
"""Ticks after which the clock of an MPEG stream begins again (ISO/IEC 13818-1 §2.4.3.7)."""
_TOLD = ("mov", "matroska", "avi", "flv", "asf", "mxf", "wav", "w64", "flac", "aiff", "caf")
"""Formats whose header says a duration; elsewhere libav guesses it."""
_LEAST_LIE = (Fraction(1), Fraction(1, 20))
"""A duration that is wrong by so many seconds, and by this part of it, is no rounding any more."""
_RATE_LIE = Fraction(1, 20)
_ENOUGH = 100
"""Frames: where the header says no rate, libav guesses one from the first of them, and is far off in short files."""
_PRIMING = 4
"""Packets of sound that may be hidden at the beginning: what a codec needs to get going."""

Known = Sequence[tuple[Track, VideoStream | AudioStream]]
"""Every track that is kept, with what it is."""


def symptoms(source: Source, container: InputContainer, known: Known, cuts: int = 0) -> Iterator[str]:
    """The words that hold, some of them twice. `cuts`: how often the clock started anew."""
    if cuts:
        yield "clock_joined"
    for track, stream in known:
        yield from _of_packets(track, cuts)
        yield from _of_clock(container, track)
        if isinstance(stream, VideoStream):
            yield from _of_picture(track, stream)
    yield from _of_header(container, known)
    yield from _of_streams(container, {stream.index for _, stream in known})
    if "mov" in container.format.name and _edited(source, known):
        yield "edit_list"
    if "matroska" in container.format.name and ends_early(source):
        yield "truncated"


def _of_packets(track: Track, cuts: int) -> Iterator[str]:
    # Where parts were joined a packet may be incomplete, and the last frame of one part may meet the first of the next.
    if track.corrupt > cuts or track.failed:
        yield "damaged"
    if track.untimed or track.unordered > cuts or _repeats(track) > cuts:
        yield "broken_timestamps"


def _repeats(track: Track) -> int:
    """Packets that are shown at the same moment as another. Fields may come one by one."""
    return len(track.pts) - len(set(track.pts))


def _of_clock(container: InputContainer, track: Track) -> Iterator[str]:
    # libav unfolds the clock: it counts on above its highest value, or begins below 0.
    mpeg = container.format.name in ("mpegts", "mpeg") and track.pts
    if mpeg and (min(track.pts) < 0 or max(track.pts) >= _WRAP):
        yield "timestamp_wrap"


def _of_header(container: InputContainer, known: Known) -> Iterator[str]:
    """What the header says, against what was counted."""
    if not container.format.name.startswith(_TOLD):
        return
    for track, stream in known:
        if track.stream.duration:
            yield from _lie(track.seconds(track.stream.duration), stream.end - stream.start)
        if isinstance(stream, VideoStream) and _wrong_rate(track, stream):
            yield "header_lies"
    # A text may outlast the picture, and the container lasts as long as the longest of its streams.
    if container.duration and len(container.streams) == len(known):
        starts, ends = [stream.start for _, stream in known], [stream.end for _, stream in known]
        # A file whose clock begins late may count its duration from there, or from 0.
        yield from _lie(Fraction(container.duration, av.time_base), max(ends) - min(starts), max(ends))


def _lie(told: Fraction, *counted: Fraction) -> Iterator[str]:
    if all(abs(told - seconds) > max(_LEAST_LIE[0], _LEAST_LIE[1] * seconds) for seconds in counted):
        yield "truncated" if told > counted[0] else "header_lies"


def _wrong_rate(track: Track, video: VideoStream) -> bool:
    rate = track.stream.average_rate
    known = rate and video.constant and video.frames >= _ENOUGH
    return bool(known and rate and abs(rate - video.rate) > _RATE_LIE * video.rate)


def _of_picture(track: Track, video: VideoStream) -> Iterator[str]:
    frames = [frame for frame in track.frames if isinstance(frame, av.VideoFrame)]
    if len({(frame.width, frame.height, frame.format.name) for frame in frames}) > 1:
        yield "size_changes"
    if track.begins_inside:
        yield "begins_inside"
    stream = track.stream
    inside = stream.codec_context.sample_aspect_ratio if isinstance(stream, AvVideoStream) else None
    if inside and inside != video.sample_aspect_ratio:
        yield "aspect_disagrees"
    if stream.metadata.get("alpha_mode") == "1":  # WebM keeps it beside the picture, where libav's decoder sees none
        yield "transparent"


def _of_streams(container: InputContainer, kept: Container[int]) -> Iterator[str]:
    moving = [stream for stream in container.streams.video if not stands_still(stream)]
    if len(moving) > 1:
        yield "several_pictures"
    lost = [stream for stream in moving if stream.index not in kept]
    never_came = len(lost) == len(moving) and lost  # else one picture was chosen among several
    if never_came or any(not decodable(stream) for stream in lost):
        yield "stream_left_out"
    if any(stream.index not in kept for stream in container.streams.audio):
        yield "stream_left_out"


def _edited(source: Source, known: Known) -> bool:
    """Whether an edit list does more than wait, or leave out what is there for the decoder alone."""
    if any(edits.pieces > 1 or not edits.normal_rate for edits in edit_lists(source)):
        return True
    return any(track.discarded > (_PRIMING if isinstance(stream, AudioStream) else 0) for track, stream in known)
