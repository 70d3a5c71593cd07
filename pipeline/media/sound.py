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
from av.audio.layout import AudioLayout
from av.audio.stream import AudioStream as AvAudioStream
from av.container import InputContainer
from av.filter import Graph
from av.filter.context import FilterContext

from pipeline.errors import PipelineError
from pipeline.media import sources
from pipeline.media.downmix import fold
from pipeline.media.formats import MOST_CHANNELS, unsupported_sound
from pipeline.media.limiter import limited
from pipeline.media.samples import Placed, Samples
from pipeline.media.sources import Source, open_source
from pipeline.tasks import AudioStream

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


def placed(
    frames: Iterator[Heard], *, origin: Fraction, sample_rate: int, channels: int, ceiling: float | None = None
) -> Iterator[Placed]:
    """The frames in the output's rate and channels, each at its place; `origin` is the source time of output sample 0.

    Frames that follow each other are resampled together, and a drift between their timestamps and their samples is
    evened out; at a jump or a change of format the next run begins. Where more channels are folded into less, peaks
    above `ceiling` (an amplitude) are limited; None leaves them.
    """
    first = next(frames, None)
    while first is not None:
        run = _Run(first, sample_rate=sample_rate, channels=channels)
        at, samples = round((first.time - origin) * sample_rate), run.samples(frames)
        if ceiling is not None and first.frame.layout.nb_channels > channels:
            samples = limited(samples, ceiling=ceiling, sample_rate=sample_rate)
        for chunk in samples:
            yield Placed(at=at, samples=chunk)
            at += chunk.shape[1]
        first = run.following


class _Run:
    """A run of frames that follow each other, through one resampler."""

    def __init__(self, first: Heard, *, sample_rate: int, channels: int) -> None:
        self._first = first
        self._format = _format(first.frame)
        self._end = first.time
        self._slack = Fraction(0)
        self._graph, self._source, self._sink = _resampler(first.frame, sample_rate, channels)
        self.following: Heard | None = None
        """The frame that did not belong to it any more, once its samples were read."""

    def samples(self, frames: Iterator[Heard]) -> Iterator[Samples]:
        """The samples of its first frame and of those of `frames` that follow it."""
        heard: Heard | None = self._first
        while heard is not None and self._continues(heard):
            self._push(heard)
            yield from self._pulled()
            heard = next(frames, None)
        self.following = heard
        self._source.push(None)
        yield from self._pulled()

    def _continues(self, heard: Heard) -> bool:
        return _format(heard.frame) == self._format and abs(heard.time - self._end) <= self._slack

    def _push(self, heard: Heard) -> None:
        shortest, longest = _JUMP_RANGE
        self._slack = min(max(heard.duration * _JUMP, shortest), longest)
        self._end = heard.time + heard.duration
        frame = heard.frame
        # A time base as fine as the samples of any rate: the resampler compares the two.
        frame.pts, frame.time_base = round(heard.time * _TICKS), Fraction(1, _TICKS)
        self._source.push(frame)

    def _pulled(self) -> Iterator[Samples]:
        while True:
            try:
                frame: Any = self._sink.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            yield _audible(frame.to_ndarray())


def _audible(samples: Samples) -> Samples:
    """Damage may decode to what is no number, or beyond all measure: encoders refuse it."""
    return np.nan_to_num(samples, nan=0.0).clip(-_LOUDEST, _LOUDEST)


_LOUDEST = 64.0
"""Amplitude that is still believed: 36 dB above full scale, of which a gain may yet make something."""
_TICKS = 1_000_000


def _resampler(frame: AudioFrame, sample_rate: int, channels: int) -> tuple[Graph, FilterContext, FilterContext]:
    if frame.layout.nb_channels > MOST_CHANNELS:
        raise unsupported_sound(f"{frame.layout.nb_channels} channels")
    graph = Graph()
    graph.threads = 1
    source = graph.add(
        "abuffer",
        f"time_base=1/{_TICKS}:sample_rate={frame.sample_rate}:sample_fmt={frame.format.name}"
        f":channel_layout={frame.layout.name}",
    )
    node = source
    for name, arguments in _sound_filters(frame.layout, sample_rate, channels):
        following = graph.add(name, arguments)
        node.link_to(following)
        node = following
    sink = graph.add("abuffersink")
    node.link_to(sink)
    graph.configure()
    return graph, source, sink


def _sound_filters(source: AudioLayout, sample_rate: int, channels: int) -> list[tuple[str, str]]:
    layout = {1: "mono", 2: "stereo"}[channels]
    filters = []
    if source.name != layout:
        # In floats, so that loud channels together are not clipped.
        filters += [("aformat", "sample_fmts=fltp"), ("pan", fold(source, channels))]
    # async: up to 1000 samples a second more or less keep the sound at its timestamps; min_comp: five milliseconds are
    # rounding, not drift. Jumps never come here.
    filters.append(("aresample", f"{sample_rate}:async=1000:min_comp=0.005:ochl={layout}:osf=fltp"))
    filters.append(("aformat", f"sample_fmts=fltp:channel_layouts={layout}:sample_rates={sample_rate}"))
    return filters


def _stream(container: InputContainer, audio: AudioStream) -> AvAudioStream:
    stream = container.streams[audio.index] if audio.index < len(container.streams) else None
    if not isinstance(stream, AvAudioStream) or stream.codec_context is None:
        raise PipelineError("audio_file_broken", log=f"stream {audio.index} is no sound")
    sources.read_only(container, stream)
    return stream


def _frames(container: InputContainer, stream: AvAudioStream) -> Iterator[AudioFrame]:
    """Every frame that can be decoded and holds sound."""
    frames: Iterator[AudioFrame] = sources.decoded(container, stream)
    return (frame for frame in frames if frame.samples > 0 and frame.sample_rate > 0)


def _format(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate
