"""A small world in which everything went right: what `test_verdict` spoils, one thing at a time.

Two assets of the same source came through, the first after a lost worker and with captions; a third was refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import presentations
from builders import a_blueprint, a_profile, a_request, some_ingest_facts

from pipeline import keys
from pipeline.conductor import LEASE_S, Answer, Attempt, Caption, Conductor, Published, Subtitled
from pipeline.document import Rendition
from pipeline.errors import PipelineError
from pipeline.job import Job, Ref, Step
from pipeline.memory import OUTAGE_S, ManualClock, MemoryJobStore
from pipeline.ports import Storage
from pipeline.presentation.compose import compose
from pipeline.presentation.model import Effect, Presentation, Track
from pipeline.presentation.publish import publish
from pipeline.requests import ProcessRequest
from pipeline.storage import open_storage
from pipeline.tasks import Blueprint, IngestFacts
from pipeline.tidy import tidy

FIRST, SECOND, THIRD = "chaos000001", "chaos000002", "chaos000003"


class _Planner:
    """ingest; two parts; package; captions."""

    def first_steps(self, request: ProcessRequest) -> tuple[Step, ...]:
        return (Step(id="ingest", stage="ingest"),)

    def grow(self, job: Job, facts: IngestFacts) -> tuple[Blueprint, tuple[Step, ...]]:
        parts = (Step(id="transcode-000", stage="transcode"), Step(id="audio-1-en", stage="audio"))
        package = Step(id="package", stage="package", needs=tuple(part.id for part in parts))
        captions = Step(id="subtitle", stage="subtitle", needs=("package",), optional=True)
        return a_blueprint(), (*parts, package, *((captions,) if job.asset == FIRST else ()))


@dataclass(kw_only=True)
class Aftermath:
    """The log and the bucket of a world that went well."""

    root: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    promised: set[str] = field(default_factory=set)

    @property
    def storage(self) -> Storage:
        return open_storage(self.root.as_uri())

    def live(self) -> Aftermath:
        """Everything that happens, in the order in which it does."""
        clock = ManualClock()
        store = MemoryJobStore(clock)
        conductor = Conductor(store, clock, _Planner(), {"default": a_profile()}, base_url="https://media.example")
        life = _Life(conductor=conductor, clock=clock, storage=self.storage)
        for number, asset in enumerate((FIRST, SECOND, THIRD), start=1):
            job = conductor.accept(a_request(id=f"job-{number}", asset_id=asset))
            self.promised.add(job.id)
            if asset == THIRD:
                life.refuse(job)
            else:
                life.make(job)
            life.tidy(job.id)
        self.events = store.events
        return self


@dataclass(kw_only=True)
class _Life:
    conductor: Conductor
    clock: ManualClock
    storage: Storage

    def make(self, job: Job) -> None:
        self.storage.put(f"{keys.PRIVATE}/{job.asset}.mp4", b"source")
        self.storage.put(keys.media(job.asset), b"{}")
        self._finish(job, "ingest", Answer(ingest=some_ingest_facts(), source=keys.source(job.asset, "clip.mp4")))
        if job.asset == FIRST:
            self._lose(job, "transcode-000")
        tracks = [_of(job.asset, track) for track in (presentations.video_track("360p"), presentations.audio_track())]
        for track, step in zip(tracks, ("transcode-000", "audio-1-en"), strict=True):
            self._part(job, step, track)
        self._add(job, "package", *tracks)
        if job.asset == FIRST:
            text = _of(job.asset, presentations.text_track("text-en-auto"))
            self.storage.put(text.segments[0].key, b"WEBVTT\n")
            self.storage.put(text.segments[0].key.removesuffix(".vtt") + ".words.json", b"{}")
            self._add(job, "subtitle", replace(text, segments=(replace(text.segments[0], size=7),)))

    def refuse(self, job: Job) -> None:
        assert self.conductor.fail(self._begin(job, "ingest"), PipelineError("video_file_broken"))

    def tidy(self, job_id: str) -> None:
        job = self.conductor.store.job(job_id)
        assert job is not None
        assert job.status.ended
        record = self.conductor.store.asset(job.asset)
        tidy(self.storage, job, record.document if record else {})

    def _begin(self, job: Job, step: str, worker: str = "here-1-a") -> Attempt:
        self.clock.advance(1)
        attempt = self.conductor.begin(Ref(job=job.id, step=step), worker)
        assert attempt is not None
        return attempt

    def _finish(self, job: Job, step: str, answer: Answer) -> None:
        assert self.conductor.finish(self._begin(job, step), answer)

    def _lose(self, job: Job, step: str) -> None:
        """Its worker dies, and a sweeper notices."""
        self._begin(job, step, "here-2-b")
        for _ in range(round((LEASE_S + 2 * OUTAGE_S) / 4)):
            self.clock.advance(4)
            for ref in _agenda(self.conductor.store).due(10):
                self.conductor.sweep(ref)

    def _part(self, job: Job, step: str, track: Track) -> None:
        for segment in track.segments:
            self.storage.put(segment.key, bytes(segment.size))
        self.storage.put(track.init, b"init")
        attempt = self._begin(job, step)
        receipt = keys.receipt(job.asset, job.id, step, attempt.fence)
        self.storage.put(receipt, b"{}")
        assert self.conductor.finish(attempt, Answer(facts={"receipt": receipt}))

    def _add(self, job: Job, step: str, *tracks: Track) -> None:
        attempt, effect = self._begin(job, step), Effect(job=job.id, step=step)
        assert self.conductor.publishing(attempt)

        def composed(before: Presentation | None) -> Presentation:
            return compose(before, asset=job.asset, tracks=tracks, effect=effect, duration=presentations.NTSC.duration)

        shown = publish(self.storage, job.asset, effect, composed)
        texts = [track for track in shown.tracks if track.kind == "text"]
        published = Published(
            version=shown.version,
            duration_ms=10_000,
            segments=3,
            renditions=tuple(map(_rendition, (track for track in shown.tracks if track.kind != "text"))),
            captions=tuple(map(_caption, texts)),
        )
        subtitled = Subtitled(track=texts[0].id) if texts else None
        answer = Answer(facts={"version": shown.version}, published=published, subtitled=subtitled)
        assert self.conductor.finish(attempt, answer)


def _agenda(store: Any) -> Any:
    return store


def _of(asset: str, track: Track) -> Track:
    """The track as that of another asset."""
    swap = lambda key: key.replace(presentations.ASSET, asset)  # noqa: E731
    segments = tuple(replace(segment, key=swap(segment.key)) for segment in track.segments)
    return replace(track, init=swap(track.init), segments=segments)


def _rendition(track: Track) -> Rendition:
    kind = "video" if track.kind == "video" else "audio"
    return Rendition(name=track.id, kind=kind, codec=track.codec, bandwidth=track.bandwidth, bytes=track.size)


def _caption(track: Track) -> Caption:
    return Caption(id=track.id, name=track.name, language=track.language, key=track.segments[0].key)


def name_of(event: Mapping[str, Any]) -> str:
    """`asset.ready`."""
    return ".".join(event["type"].split(".")[-3:-1])
