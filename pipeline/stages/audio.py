"""audio: one whole sound track as AAC, never cut into chunks.

An encoder needs the sound before to encode the sound after, so seams would be heard. Segments start where the picture's
do, at the next AAC frame; the track covers [0, D), rounded up to whole frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from av.audio.frame import AudioFrame
from av.packet import Packet

from pipeline.media import timeline as grid
from pipeline.media.codecs import AudioEncoder, aac
from pipeline.media.sound import Heard, Samples, blocks, continuous, decoded, placed
from pipeline.stages.contract import Input, Inputs, Outputs, Tick
from pipeline.stages.pulse import Pulse
from pipeline.stages.track_files import TrackFiles
from pipeline.tasks import AudioTask, PartsFacts


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
    for number, samples in enumerate(_blocks(task, inputs["source"], count, pulse)):
        files.write(_kept(encoder.encode(_frame(samples, number, task)), count))
        pulse(number / count)
    files.write(_kept(encoder.encode(None), count), last=True)
    pulse(1.0)
    return PartsFacts(parts=(files.part(),), media_s=timeline.duration)


def _blocks(task: AudioTask, source: Input, count: int, pulse: Pulse) -> Iterator[Samples]:
    """The samples of every AAC frame of [0, D)."""
    rendition = task.rendition
    pieces = placed(
        _pulsed(decoded(source, rendition.stream), pulse),
        origin=task.timeline.start,
        sample_rate=rendition.sample_rate,
        channels=rendition.channels,
    )
    # The last frame is filled up with what the source has beyond D; a cut to silence there could be heard.
    total = count * grid.AAC_FRAME
    return blocks(continuous(pieces, total=total, channels=rendition.channels), grid.AAC_FRAME)


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
