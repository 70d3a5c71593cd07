"""Ingest: learn what a source is, and refuse what cannot be served before anything is made of it.

The workbench has brought the source to a local file; this stage only looks at it. The long form of what it learned,
with the time of every keyframe, becomes an object beside the source; the record gets the short one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.media.encoder import fingerprint
from pipeline.media.probe import probe
from pipeline.stages.contract import Inputs, Outputs, Tick
from pipeline.tasks import IngestFacts, IngestTask, MediaInfo, from_json, to_json

MEDIA = "media.json"
"""The output: the whole `MediaInfo` as JSON."""


def ingest(task: IngestTask, inputs: Inputs, out: Outputs, tick: Tick) -> IngestFacts:
    """What the file `inputs["source"]` is, and which encoder this worker has. Raises what `probe` raises.

    Where an earlier job has learned it already, that is believed: `inputs["media"]` is its output.
    """
    if isinstance(media_file := inputs.get("media"), Path):
        known = from_json(MediaInfo, media_file.read_bytes())
        return IngestFacts(media=replace(known, keyframes=()), encoder=fingerprint())
    media = replace(probe(inputs["source"], task.limits, tick), sha256=task.sha256)
    out.path(MEDIA).write_text(to_json(media), encoding="utf-8")
    out.done(MEDIA)
    return IngestFacts(media=replace(media, keyframes=()), encoder=fingerprint())
