"""What a step takes of a machine, estimated from its plan alone.

The figures were measured on noise, the dearest picture there is, and lean to the high side: a step that waits a little
costs less than one that dies, or that takes its neighbours with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import plan
from pipeline.job import Job, Step
from pipeline.media import ladder, timeline
from pipeline.profile import Profile
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
    minutes of it at most. A trim takes the memory of a whole ladder, but scratch for some seconds of it; an export lies
    in scratch as a whole. Sources take none: they are read in place, or by ranges.
    """
    drawn = job.blueprint
    if step.stage == "transcode" and drawn is not None:
        return _transcode(drawn, step)
    if drawn is not None and _cuts(job, step):
        return _trim(drawn, _ladder(job, drawn))
    if step.stage == "export" and drawn is not None:
        return Need(memory=2 * PROCESS, scratch=SMALL_FILES + _whole(drawn, _ladder(job, drawn), step))
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


def _cuts(job: Job, step: Step) -> bool:
    """Whether it makes pieces for an edit: a trim does, and whoever packages new tracks where a part is played."""
    return step.stage == "trim" or (step.stage == "package" and ("start" in step.args or job.kind == "reprocess"))


def _ladder(job: Job, drawn: Blueprint) -> tuple[Rung, ...]:
    """Every rung that the asset may have: the job itself may have drawn some of them, or none."""
    profile = Profile.model_validate(job.profile)
    every = (*drawn.rungs, *plan.rungs(drawn.media, profile, tuple(ladder.BOXES)))
    return tuple({rung.name: rung for rung in every}.values())


def _trim(drawn: Blueprint, rungs: Sequence[Rung]) -> Need:
    """The whole ladder in one decode; at each cut a segment comes as it is stored, and a piece of it is made."""
    video = drawn.media.video
    source = video.width * video.height if video else 0
    rate = sum(rung.maxrate for rung in rungs) + _sound_rate(drawn)
    return Need(
        memory=2 * PROCESS + DECODE * source + ENCODE * sum(rung.width * rung.height for rung in rungs),
        scratch=SMALL_FILES + 4 * _output(rate, float(drawn.timeline.segment)) + _buffers(list(rungs)),
    )


def _whole(drawn: Blueprint, rungs: Sequence[Rung], step: Step) -> int:
    """Bytes of one rung at its highest rate, and of the sounds beside it."""
    asked = [rung.maxrate for rung in rungs if rung.name == step.args.get("rung")]
    rate = max(asked or [rung.maxrate for rung in rungs], default=0)
    sounds = max(1, len(step.args.get("audio", ()))) * _sound_rate(drawn)
    return math.ceil((rate + sounds) * _length(drawn) / 8)


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
