"""Subtitle: the speech of one sound track as captions that people can read, with the words behind them.

`words.json` is the transcript as data, and the base of everything else; `captions.vtt` is made of it. Where nobody
speaks there are no captions, and that is an answer, not a failure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

from pipeline.media.cues import CueLimits, Word, build_cues, limits_of
from pipeline.media.speech import Dropped, Segment, Transcript, shown_name, transcribe
from pipeline.media.webvtt import write_webvtt
from pipeline.stages.contract import Inputs, Outputs, Tick
from pipeline.stages.pulse import Pulse
from pipeline.tasks import SubtitleFacts, SubtitleTask, to_json

WORDS = "words.json"
CAPTIONS = "captions.vtt"
SCHEMA = 1
"""Of `words.json`."""


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What the transcript was made with."""

    name: str
    device: str
    compute_type: str


@dataclass(frozen=True, kw_only=True)
class WordsFile:
    """`words.json`. Times are milliseconds of the asset's timeline."""

    schema: int = SCHEMA
    language: str
    spoken: str
    model: ModelSettings
    limits: CueLimits
    """The cues were built with these."""
    words: tuple[Word, ...]
    segments: tuple[Segment, ...]
    dropped: tuple[Dropped, ...]


def subtitle(task: SubtitleTask, inputs: Inputs, out: Outputs, tick: Tick) -> SubtitleFacts:
    """Captions of the task's sound track. `inputs["source"]` is the source. Raises what `transcribe` raises."""
    pulse = Pulse(tick)
    duration = task.timeline.duration

    def progress(seconds: Fraction | None) -> None:
        pulse(None if seconds is None else float(seconds / duration))

    heard = transcribe(
        inputs["source"], task.stream, task.timeline, model=task.model, language=task.language, progress=progress
    )
    cues = _written(heard, task, out) if heard.words else 0
    tick(1.0)
    return SubtitleFacts(
        speech=bool(heard.words),
        language=heard.language,
        spoken=heard.spoken,
        model=shown_name(task.model),
        words=len(heard.words),
        cues=cues,
        speech_s=Fraction(heard.speech_ms, 1000),
        media_s=duration,
        dropped=dict(Counter(piece.reason for piece in heard.dropped)),
    )


def _written(heard: Transcript, task: SubtitleTask, out: Outputs) -> int:
    """Write both outputs; returns the number of cues."""
    limits = limits_of(heard.language)
    cues = build_cues(heard.words, limits, end_ms=int(task.timeline.duration * 1000))
    words = WordsFile(
        language=heard.language,
        spoken=heard.spoken,
        model=ModelSettings(
            name=shown_name(task.model), device=task.model.device, compute_type=task.model.compute_type
        ),
        limits=limits,
        words=heard.words,
        segments=heard.segments,
        dropped=heard.dropped,
    )
    for name, text in ((WORDS, to_json(words)), (CAPTIONS, write_webvtt(cues))):
        out.path(name).write_text(text, encoding="utf-8")
        out.done(name)
    return len(cues)
