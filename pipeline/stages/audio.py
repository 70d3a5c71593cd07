"""audio: one whole sound track as AAC, never cut into chunks.

An encoder needs the sound before to encode the sound after, so seams would be heard. Segments start where the picture's
do, at the next AAC frame; the track covers [0, D), rounded up to whole frames. Where a loudness is asked for, the whole
sound is decoded twice, or three times: a gain that is right for all of it is known only at its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from av.audio.frame import AudioFrame
from av.packet import Packet

from pipeline.media import timeline as grid
from pipeline.media.codecs import AudioEncoder, aac
from pipeline.media.limiter import CEILING_DB, amplitude
from pipeline.media.loudness import Measured, bends, leveled, loudness_of, measured, settled
from pipeline.media.samples import Samples, blocks, continuous
from pipeline.media.sound import Heard, decoded, placed
from pipeline.stages.contract import Input, Inputs, Outputs, Tick
from pipeline.stages.pulse import Pulse
from pipeline.stages.track_files import TrackFiles
from pipeline.tasks import AudioTask, Loudness, PartsFacts

_MEASURING, _MEASURING_AGAIN = (0.0, 0.3), (0.3, 0.5)
"""From where to where the progress goes while the sound is measured, and where it has to be measured again."""


def audio(task: AudioTask, inputs: Inputs, out: Outputs, tick: Tick) -> PartsFacts:
    """Make the sound track of the task. `inputs["source"]` is the source.

    Raises `audio_file_broken` where nothing of the sound can be decoded, and what `tick` raises.
    """
    rendition, timeline = task.rendition, task.timeline
    rate, count = rendition.sample_rate, grid.audio_frames(timeline, rendition.sample_rate)
    encoder = AudioEncoder(aac(rendition))
    files = TrackFiles(
        out,
        track=rendition.track,
        kind="audio",
        template=encoder.template,
        timescale=rate,
        boundaries=[start * grid.AAC_FRAME for start in grid.audio_segment_starts(timeline, rate)],
    )
    pulse = Pulse(tick)
    loudness, begun = None, 0.0
    if rendition.loudness is not None:
        loudness = _loudness(task, inputs["source"], rendition.loudness, pulse)
        begun = _MEASURING_AGAIN[1] if bends(loudness) else _MEASURING[1]
    for number, samples in enumerate(_blocks(task, inputs["source"], loudness, pulse)):
        files.write(_kept(encoder.encode(_frame(samples, number, task)), count))
        pulse(begun + (1 - begun) * number / count)
    files.write(_kept(encoder.encode(None), count), last=True)
    pulse(1.0)
    return PartsFacts(parts=(files.part(),), media_s=timeline.duration, loudness=loudness)


def _loudness(task: AudioTask, source: Input, target: float, pulse: Pulse) -> Loudness:
    """How loud the whole programme is, and the gain that it gets."""
    rate = task.rendition.sample_rate
    loudness = loudness_of(measured(_counted(task, source, pulse, _MEASURING), sample_rate=rate), target)
    stretches = _halves(*_MEASURING_AGAIN)

    def again(loudness: Loudness) -> Measured:
        programme = leveled(_counted(task, source, pulse, next(stretches)), loudness, sample_rate=rate)
        return measured(programme, sample_rate=rate)

    return settled(loudness, target, again) if bends(loudness) else loudness


def _halves(first: float, last: float) -> Iterator[tuple[float, float]]:
    """The first half of a stretch, then half of what is left, and so on: nobody knows how often."""
    while True:
        middle = (first + last) / 2
        yield first, middle
        first = middle


def _counted(task: AudioTask, source: Input, pulse: Pulse, stretch: tuple[float, float]) -> Iterator[Samples]:
    """The whole programme, and how far it is as progress through the stretch."""
    (first, last), total, position = stretch, _total(task), 0
    for chunk in _sound(task, source, pulse, ceiling=None):
        position += chunk.shape[1]
        pulse(first + (last - first) * position / total)
        yield chunk


def _blocks(task: AudioTask, source: Input, loudness: Loudness | None, pulse: Pulse) -> Iterator[Samples]:
    """The samples of every AAC frame of [0, D)."""
    if loudness is None or loudness.integrated is None:
        sound = _sound(task, source, pulse, ceiling=amplitude(CEILING_DB))
    else:
        sound = leveled(_sound(task, source, pulse, ceiling=None), loudness, sample_rate=task.rendition.sample_rate)
    return blocks(sound, grid.AAC_FRAME)


def _sound(task: AudioTask, source: Input, pulse: Pulse, *, ceiling: float | None) -> Iterator[Samples]:
    """The sound of [0, D) as it is, but for peaks above `ceiling` that folding channels together made."""
    rendition = task.rendition
    pieces = placed(
        _pulsed(decoded(source, rendition.stream), pulse),
        origin=task.timeline.start,
        sample_rate=rendition.sample_rate,
        channels=rendition.channels,
        ceiling=ceiling,
    )
    return continuous(pieces, total=_total(task), channels=rendition.channels)


def _total(task: AudioTask) -> int:
    """Samples of whole AAC frames. The last is filled up with what the source has beyond D, not cut to silence, which
    could be heard."""
    return grid.audio_frames(task.timeline, task.rendition.sample_rate) * grid.AAC_FRAME


def _pulsed(frames: Iterator[Heard], pulse: Pulse) -> Iterator[Heard]:
    for heard in frames:
        pulse()
        yield heard


def _frame(samples: Samples, number: int, task: AudioTask) -> AudioFrame:
    frame = AudioFrame.from_ndarray(samples.copy(), format="fltp", layout=aac(task.rendition).layout)
    frame.sample_rate = task.rendition.sample_rate
    frame.pts, frame.time_base = number * grid.AAC_FRAME, Fraction(1, task.rendition.sample_rate)
    return frame


def _kept(packets: Sequence[Packet[Any]], count: int) -> list[Packet[Any]]:
    """The packets of [0, D), each one frame long.

    The encoder's first packet is priming and begins at -1024: in a fragmented file its time would wrap around, and
    players hang on it. Without it the first 21 ms fade in.
    """
    kept = []
    for packet in packets:
        if packet.pts is not None and 0 <= packet.pts < count * grid.AAC_FRAME:
            packet.duration = grid.AAC_FRAME
            kept.append(packet)
    return kept
