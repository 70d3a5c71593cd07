"""Ingest: learn what a source is, and refuse what cannot be served before anything is made of it.

The workbench has brought the source to a local file; this stage only looks at it. The long form of what it learned,
with the time of every keyframe, becomes an object beside the source; the record gets the short one. The text that the
source brought becomes files of its own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.media.encoder import fingerprint
from pipeline.media.probe import probe
from pipeline.stages.contract import Inputs, Outputs, Tick
from pipeline.tasks import IngestFacts, IngestTask, MediaInfo, from_json, to_json

MEDIA = "media.json"
"""An output: the whole `MediaInfo` as JSON. The others are WebVTT, by the names that it says (`TextStream.file`)."""


def ingest(task: IngestTask, inputs: Inputs, out: Outputs, tick: Tick) -> IngestFacts:
    """What the file `inputs["source"]` is, and which encoder this worker has. Raises what `probe` raises.

    Where an earlier job has learned it already, that is believed: `inputs["media"]` is its output.
    """
    if isinstance(media_file := inputs.get("media"), Path):
        known = from_json(MediaInfo, media_file.read_bytes())
        return IngestFacts(media=replace(known, keyframes=()), encoder=fingerprint())

    def keep(name: str, content: str) -> None:
        out.path(name).write_text(content, encoding="utf-8")
        out.done(name)
        tick(1)

    media = replace(probe(inputs["source"], task.limits, tick, keep), sha256=task.sha256)
    # The facts name the texts, so they come last.
    keep(MEDIA, to_json(media))
    return IngestFacts(media=replace(media, keyframes=()), encoder=fingerprint())
