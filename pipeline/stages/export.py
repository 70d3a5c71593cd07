"""export: one progressive MP4 of what is played, by copying the samples of its tracks.

Nothing is decoded. The tracks come as they lie in storage, on the source's clock; the file begins at 0, and the sound
stays where it was to the sample, by an edit list. Samples are written in the order of their times, so that a player
that loads the file from its beginning has picture and sound together.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from operator import itemgetter
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.media import timed_text
from pipeline.media.boxes import Box, BoxError, Sample, find, timescale
from pipeline.media.mp4_index import IndexedTrack, SampleTable
from pipeline.media.parameter_sets import alike, in_band, named_in_band
from pipeline.media.progressive import ProgressiveFile, Stored
from pipeline.media.whole_track import Fragment, Readable, description, fragments
from pipeline.stages.contract import Input, Inputs, Outputs, Tick
from pipeline.stages.pulse import Pulse
from pipeline.tasks import ExportFacts, ExportTask, ExportTrack

NAME = "video.mp4"
_CHUNK = Fraction(1, 2)
"""Seconds of one track that lie together: a player that finds them further apart than a second reads here and there."""
_TRACK_ROOM = 1024
"""Bytes of the index that a track takes without samples, at most, but for its description and its name."""
_CHUNKS_A_SECOND = 4
"""Twice what there are, because GOPs end where they like."""
_CHUNK_ROOM = 20
"""Bytes of the index for a chunk …"""
_SAMPLE_ROOM = {"video": 16, "audio": 4, "text": 12}
"""… and for a sample, at most."""

Chunk = tuple[Fraction, IndexedTrack, list[Stored]]
"""(seconds since the beginning of the file, whose it is, what lies together)"""


@dataclass(frozen=True, kw_only=True)
class _Feed:
    """What one track brings."""

    track: IndexedTrack
    chunks: Iterator[Chunk]
    room: int
    """Bytes that it may take in the index."""


def export(task: ExportTask, inputs: Inputs, out: Outputs, tick: Tick) -> ExportFacts:
    """Write `video.mp4`. `inputs` has every track of the task by its id.

    Raises `export_not_possible` where a track changes its format midway, and what `tick` raises.
    """
    pulse = Pulse(tick)
    try:
        with ExitStack() as opened, out.path(NAME).open("w+b") as file:
            feeds = _feeds(task, inputs, opened)
            made = ProgressiveFile(file, room=sum(feed.room for feed in feeds) + _TRACK_ROOM)
            for seconds, track, chunk in heapq.merge(*(feed.chunks for feed in feeds), key=itemgetter(0)):
                made.write(track, chunk)
                pulse(float(seconds / _duration(task)))
            tracks = [feed.track for feed in feeds]
            size = made.finish(tracks, _movie_timescale(tracks), pulse)
    except BoxError as error:
        raise _not_possible(task, str(error)) from error
    tick(1.0)
    out.done(NAME)
    return ExportFacts(size=size, duration=_duration(task))


def _duration(task: ExportTask) -> Fraction:
    return task.end - task.start


def _movie_timescale(tracks: list[IndexedTrack]) -> int:
    """The picture's, so that its frames are counted exactly; else the sound's."""
    return min(tracks, key=lambda track: ("video", "audio", "text").index(track.kind)).timescale


def _not_possible(task: ExportTask, detail: str) -> PipelineError:
    return PipelineError("export_not_possible", asset=task.asset, detail=detail)


# -- tracks -----------------------------------------------------------------------------------------------------------


def _feeds(task: ExportTask, inputs: Inputs, opened: ExitStack) -> list[_Feed]:
    """Pictures and sounds first looked at, as text is placed on the picture; in the order of the task."""
    media = {t.track: _Media(task, t, _open(inputs[t.track], opened)) for t in task.tracks if t.kind != "text"}
    if not media:
        raise _not_possible(task, "it has neither picture nor sound")
    size = next((medium.size for medium in media.values() if medium.kind == "video"), (640, 360))
    return [
        media[track.track].feed() if track.track in media else _text(task, track, inputs[track.track], size)
        for track in task.tracks
    ]


def _open(given: Input, opened: ExitStack) -> Readable:
    return opened.enter_context(given.open("rb")) if isinstance(given, Path) else given.open()


def _enabled(task: ExportTask, track: ExportTrack) -> bool:
    """Whether it is on unless somebody chooses: of sounds one is, of captions only what is said to be."""
    others = [other for other in task.tracks if other.kind == track.kind]
    chosen = next((other for other in others if other.default), others[0])
    return track is chosen and (track.kind != "text" or track.default)


class _Media:
    """A picture or a sound, as a fragmented file."""

    def __init__(self, task: ExportTask, track: ExportTrack, file: Readable) -> None:
        self._task = task
        self._track = track
        self._rest = fragments(file)
        self._first = next(self._rest, None)
        if self._first is None:
            raise BoxError(f"{track.track} is empty")
        self.kind = track.kind
        self._init = self._first.init
        self._timescale = timescale(self._init)
        self._place = _place(self._init)

    @property
    def size(self) -> tuple[int, int]:
        """Pixels, as it is shown."""
        width, height = (int.from_bytes(self._place[at : at + 4], "big") >> 16 for at in (36, 40))
        return width, height

    def feed(self) -> _Feed:
        assert self._first is not None
        stsd = description(self._init)
        track = IndexedTrack(
            kind=self.kind,
            timescale=self._timescale,
            description=named_in_band(stsd) if self._track.seamed else stsd,
            table=SampleTable(),
            start=round(self._task.start * self._timescale),
            end=round(self._task.end * self._timescale),
            language=self._track.language,
            name=self._track.name,
            enabled=_enabled(self._task, self._track),
            place=self._place,
        )
        samples = round((track.end - track.start) / max(self._first.samples[0].duration, 1)) + 8
        return _Feed(track=track, chunks=self._chunks(track), room=_room(self._task, track, samples))

    def _chunks(self, track: IndexedTrack) -> Iterator[Chunk]:
        assert self._first is not None
        for fragment in chain([self._first], self._rest):
            sets = self._parameter_sets(fragment)
            view = memoryview(fragment.data)
            for samples in _together(fragment, round(_CHUNK * self._timescale)):
                seconds = Fraction(samples[0].decode - track.start, self._timescale)
                yield seconds, track, [_stored(sample, view, sets) for sample in samples]

    def _parameter_sets(self, fragment: Fragment) -> bytes:
        """What its keyframes bring with them. Raises where it does not fit to what came before it."""
        if fragment.init is not self._init:
            self._check(fragment.init)
            self._init = fragment.init
        return in_band(fragment.init) if self._track.seamed else b""

    def _check(self, init: bytes) -> None:
        if timescale(init) != self._timescale:
            raise _not_possible(self._task, f"the clock of {self._track.track} changes midway")
        same = description(init) == description(self._init)
        if not same and not (self._track.seamed and alike(init, self._init)):
            raise _not_possible(self._task, f"pieces of {self._track.track} were made by different encoders")


def _together(fragment: Fragment, ticks: int) -> Iterator[list[Sample]]:
    """The samples of a fragment, some at a time."""
    group: list[Sample] = []
    for sample in fragment.samples:
        if group and sample.decode >= group[0].decode + ticks:
            yield group
            group = []
        group.append(sample)
    yield group


def _stored(sample: Sample, data: memoryview, sets: bytes) -> Stored:
    view = data[sample.offset : sample.offset + sample.size]
    if len(view) != sample.size:
        raise BoxError(f"a sample of {sample.size} bytes has {len(view)}")
    return Stored(sample=sample, data=sets + bytes(view) if sets and sample.sync else view)


def _place(init: bytes) -> bytes:
    """Matrix, width and height: the last 44 bytes of `tkhd` (14496-12 §8.3.2)."""
    header: Box = find(init, b"moov", b"trak", b"tkhd")
    return init[header.end - 44 : header.end]


def _room(task: ExportTask, track: IndexedTrack, samples: int) -> int:
    chunks = round(_duration(task) * _CHUNKS_A_SECOND) + 8 if track.kind != "text" else samples
    named = len(track.description) + len(track.name.encode())
    return _TRACK_ROOM + named + samples * _SAMPLE_ROOM[track.kind] + chunks * _CHUNK_ROOM


# -- captions ---------------------------------------------------------------------------------------------------------


def _text(task: ExportTask, track: ExportTrack, given: Input, size: tuple[int, int]) -> _Feed:
    """WebVTT that begins at 0."""
    assert isinstance(given, Path), "what is small is a file"
    place, tall = timed_text.place(*size)
    end = round(_duration(task) * timed_text.TIMESCALE)
    indexed = IndexedTrack(
        kind="text",
        timescale=timed_text.TIMESCALE,
        description=timed_text.description(size[0], tall),
        table=SampleTable(),
        start=0,
        end=end,
        language=track.language,
        name=track.name,
        enabled=_enabled(task, track),
        place=place,
    )
    try:
        cues = timed_text.cues_of(given.read_text("utf-8"))
    except ValueError as error:
        raise _not_possible(task, f"the captions {track.track} cannot be read ({error})") from error
    samples = list(timed_text.samples(cues, end))
    return _Feed(track=indexed, chunks=_text_chunks(indexed, samples), room=_room(task, indexed, len(samples)))


def _text_chunks(track: IndexedTrack, samples: list[tuple[int, int, bytes]]) -> Iterator[Chunk]:
    for start, end, data in samples:
        sample = Sample(tick=start, decode=start, duration=end - start, offset=0, size=len(data), sync=True, moof=0)
        yield Fraction(start, track.timescale), track, [Stored(sample=sample, data=data)]
