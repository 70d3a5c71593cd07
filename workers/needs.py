"""What a step takes of a machine, estimated from its plan alone.

The figures were measured on noise, the dearest picture there is, and lean to the high side: a step that waits a little
costs less than one that dies, or that takes its neighbours with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.job import Job, Step
from pipeline.media import timeline
from pipeline.tasks import Blueprint, Rung, SpeechModel

MB = 1_000_000
PROCESS = 80 * MB
"""A stage's process before it opens anything: Python, PyAV, the codecs."""
DECODE = 32
"""Bytes a source pixel: some twenty pictures of 1.5 bytes a pixel, which the decoder and its threads hold."""
ENCODE = 80
"""Bytes a pixel of a rung: x264's lookahead, its references and their half-pel planes."""
SPEECH = 700 * MB
"""Speech recognition without its weights: windows of sound, and what is being listened to at once."""
SPEECH_PARAMETERS: Mapping[str, int] = {
    "large": 1550 * MB,
    "distil": 760 * MB,
    "medium": 769 * MB,
    "small": 244 * MB,
    "base": 74 * MB,
    "tiny": 39 * MB,
}
"""Of Whisper's models by a word in their names (Radford et al. 2022, table 1)."""
SPEECH_BYTES: Mapping[str, int] = {"int8": 1, "int16": 2, "float16": 2, "bfloat16": 2}
"""Of one parameter; anything else is held as float32."""
BACKLOG_S = 300
"""So many seconds of output lie in scratch at most: the rest was stored and removed meanwhile."""
SMALL_FILES = 50 * MB
"""Logs, facts, captions, manifests."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a step takes, in bytes."""

    memory: int = 0
    scratch: int = 0

    def __add__(self, other: Need) -> Need:
        return Need(memory=self.memory + other.memory, scratch=self.scratch + other.scratch)


def need(job: Job, step: Step, speech: SpeechModel) -> Need:
    """What this step takes where it runs; `speech` is the model of the machine.

    Memory of a transcode step: 80 MB, 32 bytes a source pixel and 80 bytes a pixel of its rungs (1080p in the default
    five rungs: 440 MB), whatever the length. Scratch: its output at the highest rates that the rungs allow, five
    minutes of it at most. Sources take none: they are read in place, or by ranges.
    """
    drawn = job.blueprint
    if step.stage == "transcode" and drawn is not None:
        return _transcode(drawn, step)
    if step.stage == "audio" and drawn is not None:
        return Need(memory=2 * PROCESS, scratch=SMALL_FILES + _output(_sound_rate(drawn), _length(drawn)))
    if step.stage == "subtitle":
        return Need(memory=PROCESS + SPEECH + _weights(speech), scratch=SMALL_FILES)
    return Need(memory=2 * PROCESS, scratch=SMALL_FILES)


def _transcode(drawn: Blueprint, step: Step) -> Need:
    names = step.args.get("rungs")
    rungs = [rung for rung in drawn.rungs if names is None or rung.name in names]
    video = drawn.media.video
    source = video.width * video.height if video else 0
    pixels = sum(rung.width * rung.height for rung in rungs)
    rate = sum(rung.maxrate for rung in rungs)
    return Need(
        memory=PROCESS + DECODE * source + ENCODE * pixels,
        scratch=SMALL_FILES + _output(rate, _seconds(drawn, step)) + _buffers(rungs),
    )


def _buffers(rungs: list[Rung]) -> int:
    """A rung may exceed its rate by its buffer, once."""
    return sum(rung.bufsize for rung in rungs) // 8


def _output(rate: int, seconds: float) -> int:
    """Bytes of `seconds` at `rate` bits a second, as far as they can lie here at once."""
    return math.ceil(rate * min(seconds, BACKLOG_S) / 8)


def _sound_rate(drawn: Blueprint) -> int:
    return max((rendition.bitrate for rendition in drawn.audio), default=0)


def _length(drawn: Blueprint) -> float:
    return float(drawn.timeline.duration)


def _seconds(drawn: Blueprint, step: Step) -> float:
    """Length of the step's run of segments."""
    bounds = (*timeline.segment_starts(drawn.timeline), drawn.timeline.frames)
    first, last = step.args.get("first", 0), step.args.get("last", len(bounds) - 1)
    return float((bounds[last] - bounds[first]) / drawn.timeline.rate)


def _weights(speech: SpeechModel) -> int:
    """Bytes of the model's parameters: of a folder what lies in it, else by its name."""
    folder = Path(speech.name)
    if folder.is_dir():
        return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    known = (count for word, count in SPEECH_PARAMETERS.items() if word in speech.name)
    return next(known, SPEECH_PARAMETERS["large"]) * SPEECH_BYTES.get(speech.compute_type.partition("_")[0], 4)
