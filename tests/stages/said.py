"""A stage that hears what a test wants to be said, where a model would take its time. It runs in the sandbox."""

from __future__ import annotations

import json
from fractions import Fraction

from pipeline.stages.contract import Inputs, Outputs, Tick
from pipeline.tasks import SubtitleFacts, SubtitleTask

VTT = "WEBVTT\n\n00:00:00.500 --> 00:00:01.500\nBefore\n\n00:00:03.000 --> 00:00:05.000\nDuring\n"


def subtitle(task: SubtitleTask, inputs: Inputs, out: Outputs, tick: Tick) -> SubtitleFacts:
    """Two cues in English."""
    out.path("words.json").write_text(json.dumps([]))
    out.path("captions.vtt").write_text(VTT)
    for name in ("words.json", "captions.vtt"):
        out.done(name)
    tick(1.0)
    return SubtitleFacts(speech=True, language="en", spoken="en", model="none", words=2, cues=2, media_s=Fraction(12))
