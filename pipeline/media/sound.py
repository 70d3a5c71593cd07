"""From packets to sound that lies where its timestamps say, without a gap, from t = 0 to D.

The law: sample k of what comes out is what the source plays at k / rate. Where the source has nothing (it starts late,
ends early, a packet is damaged or missing) there is silence; where its clock drifts from its timestamps it is
stretched, too little to be heard.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream as AvAudioStream
from av.container import InputContainer
from av.filter import Graph
from av.filter.context import FilterContext
from av.stream import Discard

from pipeline.errors import PipelineError
from pipeline.media import sources
from pipeline.media.sources import Source, open_source
from pipeline.tasks import AudioStream

Samples = np.ndarray[Any, np.dtype[np.float32]]
"""(channels, samples), -1 to 1."""

_JUMP = Fraction(6, 10)
"""Part of a frame's duration by which the next one may miss its end and still belong to it: less than the whole frame
that a damaged packet takes away, more than what containers round."""
_JUMP_RANGE = (Fraction(5, 1000), Fraction(50, 1000))
"""Seconds; bounds of it for containers with very short and very long frames."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """A decoded frame and its time in seconds of the source's clock."""

    time: Fraction
    frame: AudioFrame

    @property
    def duration(self) -> Fraction:
        return Fraction(self.frame.samples, self.frame.sample_rate)


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Samples and the output sample that the first of them is; may be negative, before t = 0."""

    at: int
    samples: Samples


def decoded(source: Source, audio: AudioStream) -> Iterator[Heard]:
    """Every frame of the stream that can be decoded, in the file's order. Raises `audio_file_broken` if none can."""
    heard = False
    with closing(open_source(source)) as container:
        stream = _stream(container, audio)
        end = audio.start
        for frame in _frames(container, stream):
            heard = True
            time = end if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
            yield Heard(time=time, frame=frame)
            end = time + Fraction(frame.samples, frame.sample_rate)
    if not heard:
        raise PipelineError("audio_file_broken", log="no frame could be decoded")


def placed(frames: Iterator[Heard], *, origin: Fraction, sample_rate: int, channels: int) -> Iterator[Placed]:
    """The frames in the output's rate and channels, each at its place; `origin` is the source time of output sample 0.

    Frames that follow each other are resampled together, and a drift between their timestamps and their samples is
    evened out; at a jump or a change of format the next run begins.
    """
    run: _Run | None = None
    for heard in frames:
        if run is None or not run.continues(heard):
            if run is not None:
                yield from run.finish()
            run = _Run(heard, origin=origin, sample_rate=sample_rate, channels=channels)
        yield from run.push(heard)
    if run is not None:
        yield from run.finish()


def continuous(pieces: Iterator[Placed], *, total: int, channels: int) -> Iterator[Samples]:
    """Exactly `total` samples: silence where there is no piece; where pieces overlap, the earlier one stays."""
    position = 0
    for piece in pieces:
        for silence in _silence(min(piece.at, total) - position, channels):
            yield silence
            position += silence.shape[1]
        fresh = piece.samples[:, max(0, position - piece.at) : max(0, total - piece.at)]
        if fresh.shape[1]:
            yield fresh
            position += fresh.shape[1]
        if position >= total:
            return
    yield from _silence(total - position, channels)


def blocks(chunks: Iterator[Samples], size: int) -> Iterator[Samples]:
    """The same samples in blocks of `size`; the last one is filled up with silence."""
    waiting: list[Samples] = []
    count = 0
    for chunk in chunks:
        waiting.append(chunk)
        count += chunk.shape[1]
        if count >= size:
            joined = np.concatenate(waiting, axis=1)
            for first in range(0, count - size + 1, size):
                yield joined[:, first : first + size]
            waiting, count = [joined[:, count - count % size :]], count % size
    if count:
        rest = np.concatenate(waiting, axis=1)
        yield np.pad(rest, ((0, 0), (0, size - count)))


class _Run:
    """A run of frames that follow each other, through one resampler."""

    def __init__(self, first: Heard, *, origin: Fraction, sample_rate: int, channels: int) -> None:
        self._at = round((first.time - origin) * sample_rate)
        self._format = _format(first.frame)
        self._end = first.time
        self._slack = Fraction(0)
        self._graph, self._source, self._sink = _resampler(first.frame, sample_rate, channels)

    def continues(self, heard: Heard) -> bool:
        return _format(heard.frame) == self._format and abs(heard.time - self._end) <= self._slack

    def push(self, heard: Heard) -> Iterator[Placed]:
        shortest, longest = _JUMP_RANGE
        self._slack = min(max(heard.duration * _JUMP, shortest), longest)
        self._end = heard.time + heard.duration
        frame = heard.frame
        # A time base as fine as the samples of any rate: the resampler compares the two.
        frame.pts, frame.time_base = round(heard.time * _TICKS), Fraction(1, _TICKS)
        self._source.push(frame)
        yield from self._pulled()

    def finish(self) -> Iterator[Placed]:
        self._source.push(None)
        yield from self._pulled()

    def _pulled(self) -> Iterator[Placed]:
        while True:
            try:
                frame: Any = self._sink.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            samples = frame.to_ndarray()
            yield Placed(at=self._at, samples=samples)
            self._at += samples.shape[1]


_TICKS = 1_000_000


def _resampler(frame: AudioFrame, sample_rate: int, channels: int) -> tuple[Graph, FilterContext, FilterContext]:
    graph = Graph()
    graph.threads = 1
    source = graph.add(
        "abuffer",
        f"time_base=1/{_TICKS}:sample_rate={frame.sample_rate}:sample_fmt={frame.format.name}"
        f":channel_layout={frame.layout.name}",
    )
    node = source
    for name, arguments in _sound_filters(frame.layout.nb_channels, sample_rate, channels):
        following = graph.add(name, arguments)
        node.link_to(following)
        node = following
    sink = graph.add("abuffersink")
    node.link_to(sink)
    graph.configure()
    return graph, source, sink


def _sound_filters(source_channels: int, sample_rate: int, channels: int) -> list[tuple[str, str]]:
    layout = {1: "mono", 2: "stereo"}[channels]
    filters = []
    if source_channels == 1 and channels == 2:
        # swresample would take 3 dB off, as if the one loudspeaker were to become two.
        filters.append(("pan", "stereo|c0=c0|c1=c0"))
    # async: up to 1000 samples a second more or less keep the sound at its timestamps; min_comp: five milliseconds are
    # rounding, not drift. Jumps never come here. Downmix in float, so that dialogue (the centre) keeps its level
    # instead of everything being turned down by the sum of the coefficients …
    filters.append(("aresample", f"{sample_rate}:async=1000:min_comp=0.005:ochl={layout}:osf=fltp"))
    if source_channels > channels:
        # … and what then is too loud is limited instead of clipped; latency=1 takes its look-ahead off again.
        filters.append(("alimiter", "limit=0.97:level=0:latency=1"))
    filters.append(("aformat", f"sample_fmts=fltp:channel_layouts={layout}:sample_rates={sample_rate}"))
    return filters


def _stream(container: InputContainer, audio: AudioStream) -> AvAudioStream:
    stream = container.streams[audio.index] if audio.index < len(container.streams) else None
    if not isinstance(stream, AvAudioStream) or stream.codec_context is None:
        raise PipelineError("audio_file_broken", log=f"stream {audio.index} is no sound")
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    return stream


def _frames(container: InputContainer, stream: AvAudioStream) -> Iterator[AudioFrame]:
    """Every frame that can be decoded and holds sound."""
    frames: Iterator[AudioFrame] = sources.decoded(container, stream)
    return (frame for frame in frames if frame.samples > 0 and frame.sample_rate > 0)


def _silence(count: int, channels: int) -> Iterator[Samples]:
    """`count` samples of silence, in pieces: a gap of hours must not be held in memory."""
    while count > 0:
        size = min(count, 1 << 16)
        yield np.zeros((channels, size), np.float32)
        count -= size


def _format(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate
