"""Where an edit divides the tracks of a presentation: what is played as it is, what is copied, what is encoded again.

Pure, and the data decides: segments and keyframes are those that are stored, wherever the grid would have them. All
pictures are cut alike, at keyframes that they have in common, so that one decode of the source serves every rung and a
player may change rungs across a cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pipeline.media.timeline import AAC_FRAME
from pipeline.presentation.model import Track
from pipeline.tasks import Segment, Timeline, TrackCut

_FORGIVEN = Fraction(1, 1_000_000)
"""Seconds by which a time may lie behind a frame and still mean it: people write 0.033367 for 1001/30000."""
_BETWEEN_SEAMS = Fraction(2 * AAC_FRAME, 48_000)
"""Seconds that stored GOPs last at least to be kept between encoded ones: a frame of sound begins there, surely."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How an edit cuts all the tracks of a presentation."""

    first: int
    end: int
    """Output frames [first, end) are played."""
    kept: tuple[int, int]
    """Output frames between which stored GOPs serve (`TrimTask.kept`); all of them where there is no picture."""
    cuts: tuple[TrackCut, ...]
    """One for every picture and every sound, in the order of the tracks; rungs are left out, the model has none."""

    @property
    def encodes(self) -> bool:
        """Whether any frame has to be encoded again, from the source."""
        return self.kept != (self.first, self.end)


def frames_of(start: Fraction | None, stop: Fraction | None, timeline: Timeline) -> tuple[int, int]:
    """(first, end): output frames with start <= pts < stop, in seconds; None stands for the beginning and the end.

    What lies outside of the timeline is cut off, so the range may be empty; what a request may ask for is settled at
    the door.
    """
    first = 0 if start is None else _frame(start, timeline)
    return first, timeline.frames if stop is None else _frame(stop, timeline)


def cut(tracks: Iterable[Track], timeline: Timeline, first: int, end: int) -> Cut:
    """How to play only the output frames [first, end) of these whole tracks; text is not cut here."""
    media = [track for track in tracks if track.kind != "text"]
    pictures = [track for track in media if track.kind == "video"]
    kept = _kept(pictures, timeline, first, end) if pictures else (first, end)
    cuts = tuple(
        _picture(track, timeline, (first, end), kept)
        if track.kind == "video"
        else _sound(track, timeline, (first, end), kept)
        for track in media
    )
    return Cut(first=first, end=end, kept=kept, cuts=cuts)


def _frame(time: Fraction, timeline: Timeline) -> int:
    return min(max(math.ceil((time - _FORGIVEN) * timeline.rate), 0), timeline.frames)


def _kept(pictures: Sequence[Track], timeline: Timeline, first: int, end: int) -> tuple[int, int]:
    """The first and the last keyframe in [first, end] that all pictures have; (end, end) without GOPs between them, or
    with too little between two seams."""
    common = set.intersection(*(set(_openings(track, timeline, first, end)) for track in pictures))
    low, high = min(common, default=end), max(common, default=end)
    lonely = first < low and high < end and (high - low) / timeline.rate < _BETWEEN_SEAMS
    return (low, high) if low < high and not lonely else (end, end)


def _openings(track: Track, timeline: Timeline, first: int, end: int) -> Iterator[int]:
    """Frames in [first, end] before which the bytes of a track can be divided: its keyframes, and its end."""
    low, high = math.ceil(_ticks(first, track, timeline)), math.floor(_ticks(end, track, timeline))
    for tick in _fragments(track):
        if low <= tick <= high:
            yield from _on_grid(tick, track, timeline)


def _fragments(track: Track) -> Iterator[int]:
    """Ticks at which a fragment begins with a keyframe, and the end of the track."""
    for segment in track.segments:
        # Where keyframes share a fragment only the first can be cut at.
        yield from {keyframe.offset: keyframe.tick for keyframe in reversed(segment.keyframes)}.values()
    yield _end(track.segments[-1])


def _on_grid(tick: int, track: Track, timeline: Timeline) -> Iterator[int]:
    """The frame that begins at this tick, if one does."""
    frame = tick * timeline.rate / track.timescale
    if frame.denominator == 1:
        yield frame.numerator


def _picture(track: Track, timeline: Timeline, played: tuple[int, int], kept: tuple[int, int]) -> TrackCut:
    start, end, *between = (round(_ticks(frame, track, timeline)) for frame in (*played, *kept))
    return _track_cut(track, (start, end), (between[0], between[1]))


def _sound(track: Track, timeline: Timeline, played: tuple[int, int], kept: tuple[int, int]) -> TrackCut:
    """Sound covers the picture in whole AAC frames.

    Also its segments across the seams of the pictures come as divided: if the encoder of today writes another init
    segment, a player begins anew there, in every track.
    """
    begins, ends = (_ticks(frame, track, timeline) for frame in played)
    start, end = _at_or_before(begins, track), _at_or_after(ends, track)
    low, high = start, end
    if kept[0] < kept[1]:
        # However short what follows a seam is, it has a frame of sound.
        seams = [min(_at_or_after(_ticks(frame, track, timeline), track), end - _step(track)) for frame in kept]
        low, high = seams[0] if kept[0] != played[0] else start, seams[1] if kept[1] != played[1] else end
    return _track_cut(track, (start, end), (low, high))


def _track_cut(track: Track, played: tuple[int, int], kept: tuple[int, int]) -> TrackCut:
    """All in ticks: the segments inside of `kept` are whole, others that are played at all are divided."""
    start, end = played
    whole = [segment for segment in track.segments if kept[0] <= segment.start and _end(segment) <= kept[1]]
    first, last = (whole[0].start, _end(whole[-1])) if whole else (end, end)
    divided = tuple(
        segment
        for segment in track.segments
        if segment.start < end and _end(segment) > start and not first <= segment.start < last
    )
    assert track.kind != "text"
    return TrackCut(
        track=track.id,
        kind=track.kind,
        timescale=track.timescale,
        start=start,
        end=end,
        first=first,
        last=last,
        divided=divided,
    )


def _at_or_before(time: Fraction, track: Track) -> int:
    """Where the AAC frame begins that holds this moment (ticks); of a track that begins later, its beginning."""
    for segment in reversed(track.segments):
        if segment.start <= time:
            return min(segment.start + math.floor((time - segment.start) / _step(track)) * _step(track), _end(segment))
    return track.segments[0].start


def _at_or_after(time: Fraction, track: Track) -> int:
    """Where the first AAC frame begins that is not before this moment (ticks), or the track ends."""
    for segment in track.segments:
        if time <= _end(segment):
            frames = math.ceil(max(time - segment.start, Fraction(0)) / _step(track))
            return min(segment.start + frames * _step(track), _end(segment))
    return _end(track.segments[-1])


def _step(track: Track) -> int:
    """Ticks of an AAC frame."""
    return AAC_FRAME * track.timescale // (track.sample_rate or track.timescale)


def _ticks(frame: int, track: Track, timeline: Timeline) -> Fraction:
    return frame * track.timescale / timeline.rate


def _end(segment: Segment) -> int:
    return segment.start + segment.duration
