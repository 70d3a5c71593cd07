"""The steps that make segments: store each create-only under its recipe, and write down what storage holds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline import keys
from pipeline.answers import Answer
from pipeline.errors import PipelineError
from pipeline.held import Held
from pipeline.media.boxes import scan_segment
from pipeline.ports import PreconditionFailed, Storage
from pipeline.tasks import (
    AudioTask,
    Part,
    PartsFacts,
    Segment,
    TranscodeTask,
    as_data,
    from_json,
    to_json,
)


def make_parts(held: Held[TranscodeTask] | Held[AudioTask]) -> Answer:
    """Do a transcode or an audio step."""
    store = _Store(task=held.task, storage=held.storage)
    facts = held.run({"source": held.source(held.task.source)}, store.keep)
    return _answer(held, store, from_json(PartsFacts, facts))


def _answer(held: Held[TranscodeTask] | Held[AudioTask], store: _Store, made: PartsFacts) -> Answer:
    """The receipt describes what storage holds; it is written before the commit that names it."""
    parts = tuple(store.stored(part) for part in made.parts)
    attempt = held.attempt
    key = keys.receipt(held.task.asset, attempt.ref.job, attempt.ref.step, attempt.fence)
    held.storage.put(key, to_json(replace(made, parts=parts)).encode())
    segments = [segment for part in parts for segment in part.segments]
    return Answer(
        facts={
            "receipt": key,
            "segments": len(segments),
            "bytes": sum(segment.size for segment in segments),
            "media_s": round(float(made.media_s), 3),
            "cpu_s": held.cpu_s,
            **({"loudness": as_data(made.loudness)} if made.loudness else {}),
        }
    )


@dataclass
class _Store:
    """Where the segments of one attempt lie."""

    task: TranscodeTask | AudioTask
    storage: Storage
    renamed: dict[str, Segment] = field(default_factory=dict)
    """Segments that storage held already with other bytes, described as they are stored."""

    def keep(self, name: str, path: Path) -> None:
        """Create-only: a segment that is there already was made by the same recipe, and stays."""
        key = self._folder(name) + name.partition("/")[2]
        try:
            self.storage.put(key, path, absent=True)
        except PreconditionFailed:
            stored = self.storage.get(key)
            if stored == path.read_bytes():
                return
            if name.endswith("/init.mp4"):
                raise PipelineError("encoder_mismatch", track=name.partition("/")[0]) from None
            self.renamed[name] = stored_segment(self.storage, key, stored)

    def stored(self, part: Part) -> Part:
        """The part as storage holds it."""
        folder = self._folder(f"{part.track}/")
        segments = tuple(
            self.renamed.get(f"{part.track}/{segment.key}", replace(segment, key=folder + segment.key))
            for segment in part.segments
        )
        return replace(part, init=folder + part.init, segments=segments)

    def _folder(self, name: str) -> str:
        """Storage folder of the track that an output belongs to."""
        task, track = self.task, name.partition("/")[0]
        if isinstance(task, AudioTask):
            return keys.track(task.asset, track, keys.recipe(task.rendition, task))
        rung = next(rung for rung in task.rungs if rung.track == track)
        return keys.track(task.asset, track, keys.recipe(rung, task))


def stored_segment(storage: Storage, key: str, stored: bytes, *, init: str = "") -> Segment:
    """Describe a segment that another attempt stored, from its own bytes.

    `init` is the key of its init segment; empty: it lies beside it.
    """
    scan = scan_segment(stored, storage.get(init or f"{key.rpartition('/')[0]}/init.mp4"))
    return Segment(start=scan.start, duration=scan.duration, key=key, size=len(stored), keyframes=scan.keyframes)
