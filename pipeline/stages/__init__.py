"""The index of the stages: what the pipeline can do with media.

Each is a function of files in a module of its own, imported only in the process that runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pipeline.stages.contract import Stage
from pipeline.tasks import AudioTask, ExportTask, IngestTask, PackageTask, SubtitleTask, TranscodeTask, TrimTask


@dataclass(frozen=True, kw_only=True)
class StageEntry:
    """One stage: its task, where its function lives, and how long it may go without progress."""

    task: type[Any]
    function: str
    """`module:name`"""
    stall_s: float = 60.0


def load(function: str) -> Stage:
    """The stage that `module:name` names."""
    module, _, name = function.partition(":")
    stage: Stage = getattr(import_module(module), name)
    return stage


STAGES: Mapping[str, StageEntry] = {
    "ingest": StageEntry(task=IngestTask, function="pipeline.stages.ingest:ingest"),
    "transcode": StageEntry(task=TranscodeTask, function="pipeline.stages.transcode:transcode"),
    "audio": StageEntry(task=AudioTask, function="pipeline.stages.audio:audio"),
    "package": StageEntry(task=PackageTask, function="pipeline.stages.package:package"),
    # A large model on a slow machine may think for minutes about what it hears at once.
    "subtitle": StageEntry(task=SubtitleTask, function="pipeline.stages.subtitle:subtitle", stall_s=600.0),
    "trim": StageEntry(task=TrimTask, function="pipeline.stages.trim:trim"),
    "export": StageEntry(task=ExportTask, function="pipeline.stages.export:export"),
}
