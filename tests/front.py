"""A fleet behind a doorman, with everything in memory but the storage: its workers make tracks out of nothing.

What a worker is asked is what the real plan asks; what it answers and publishes is what the real one would.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from books import Books, MemoryBooks
from builders import a_media, a_profile, a_request
from presentations import audio_track, edit, part, presentation, text_track, video_track

from pipeline import keys, plan
from pipeline.answers import Answer, Exported, Previewed, Reverted, Subtitled
from pipeline.conductor import Attempt, Conductor, WhenBusy
from pipeline.doorman import Doorman
from pipeline.errors import PipelineError
from pipeline.job import Job, Ref
from pipeline.memory import ManualClock, MemoryJobStore
from pipeline.organizations import Organization, Organizations
from pipeline.ports import Ledger, Storage
from pipeline.presentation.compose import compose, roll_back
from pipeline.presentation.cutting import frames_of
from pipeline.presentation.model import Edit, Effect, Presentation, Track
from pipeline.presentation.publish import latest, publish
from pipeline.presentation.publish import version as version_of
from pipeline.publishing import edited, published, trimmed_to
from pipeline.requests import ProcessRequest, parse_request
from pipeline.storage.folder import FolderStorage
from pipeline.tasks import (
    AudioTask,
    ExportTask,
    IngestFacts,
    IngestTask,
    MediaInfo,
    PackageTask,
    Part,
    PartsFacts,
    ReviseTask,
    SubtitleTask,
    Task,
    Timeline,
    TranscodeTask,
    TrimTask,
    from_json,
    to_json,
)
from pipeline.tidy import tidy_after

ASSET = "8x7k2m9qpza"
"""The asset that `tests/presentations.py` makes tracks for."""
STAGES = ("ingest", "transcode", "audio", "package", "subtitle", "trim", "export")


class Front:
    """A doorman, a conductor, and workers that do what is ready when they are told to."""

    def __init__(
        self,
        root: Path,
        *,
        clock: ManualClock | None = None,
        books: Callable[[ManualClock], Books] = lambda clock: MemoryBooks(MemoryJobStore(clock)),
        when_busy: WhenBusy = "refuse",
        **organizations: Organization,
    ) -> None:
        self.clock = clock or ManualClock()
        self.books = books(self.clock)
        self.storage: Storage = FolderStorage(root)
        profiles = {name: a_profile(name=name) for name in ("default", "cinema")}
        nonces = itertools.count(1)
        self.conductor = Conductor(
            self.books.store,
            self.clock,
            plan,
            profiles,
            when_busy=when_busy,
            nonce=lambda: str(next(nonces)),
            jitter=lambda: 0.5,
        )
        self.doorman = Doorman(
            self.conductor, self.storage, Organizations(organizations=organizations), fleet_size=lambda: 3
        )
        self.done: list[Task] = []
        """What the workers were asked, in their order."""

    # -- what callers do ----------------------------------------------------------------------------------------------

    def ask(self, type_: str, **fields: Any) -> tuple[str, ...]:
        """Send a request, as the stream would bring it."""
        return self.doorman.handle(parse_request(json.dumps({"type": f"asset.{type_}", **fields})))

    def process(self, **fields: Any) -> Job:
        """A new asset, accepted and not begun."""
        (id_,) = self.doorman.handle(request_for(**fields))
        return self.job(id_)

    def ready(self, **fields: Any) -> Job:
        """An asset that plays, and whose job has ended and is tidied."""
        job = self.process(**fields)
        self.live()
        self.done.clear()
        return self.job(job.id)

    def refusal(self, type_: str, **fields: Any) -> PipelineError:
        """The error that answers a request, which says nothing to anybody."""
        before = self.events
        try:
            jobs = self.ask(type_, **fields)
        except PipelineError as error:
            assert self.events == before, "a refused request changed something"
            return error
        raise AssertionError(f"it was not refused: {jobs}")

    # -- what the fleet does ------------------------------------------------------------------------------------------

    def live(self, *, stages: Collection[str] = STAGES, seconds: float = 60) -> None:
        """Workers of these stages and a sweeper live for a while."""
        while seconds > 0:
            self.work(stages)
            self.sweep()
            self.clock.advance(1)
            seconds -= 1

    def work(self, stages: Collection[str] = STAGES) -> None:
        """Do everything that is ready."""
        while refs := self.store.take(dict.fromkeys(stages, 9)):
            for ref in refs:
                attempt = self.conductor.begin(ref, "w1")
                if attempt is not None:
                    self.do(attempt)

    def begin(self, job: str, step: str) -> Attempt:
        attempt = self.conductor.begin(Ref(job=job, step=step), "w1")
        assert attempt is not None
        return attempt

    def do(self, attempt: Attempt) -> None:
        task = plan.task(attempt.job, attempt.step)
        self.done.append(task)
        assert self.conductor.finish(attempt, self._answer(attempt, task))

    def sweep(self, storage: Storage | None = None) -> None:
        """One round of a sweeper."""
        for ref in self.store.due(100):
            job = self.conductor.sweep(ref)
            if job is not None:
                tidy_after(self.store, storage or self.storage, job)
                self.conductor.tidied(job)

    def forget(self) -> None:
        """Redis is lost, with everything in it."""
        self.books = MemoryBooks(MemoryJobStore(self.clock))
        self.conductor.store = self.doorman.store = self.store

    # -- what is seen -------------------------------------------------------------------------------------------------

    @property
    def store(self) -> Ledger:
        return self.books.store

    @property
    def events(self) -> list[dict[str, Any]]:
        """Everything that was told so far."""
        return list(self.books.events())

    def accepted(self) -> list[str]:
        """Jobs, in the order in which they were accepted."""
        return [event["data"]["job"] for event in self.events if event["type"] == "dev.reelway.asset.accepted.v1"]

    def job(self, id_: str) -> Job:
        job = self.store.job(id_)
        assert job is not None
        return job

    def document(self, asset: str = ASSET) -> dict[str, Any]:
        record = self.store.asset(asset)
        assert record is not None
        return dict(record.document)

    def shown(self, asset: str = ASSET) -> Presentation:
        presentation = latest(self.storage, asset)
        assert presentation is not None
        return presentation

    def tracks(self) -> list[str]:
        return [track.id for track in self.shown().tracks]

    def told(self, since: int = 0) -> list[str]:
        types = [event["type"] for event in self.events[since:]]
        return [type_.removeprefix("dev.reelway.").removesuffix(".v1") for type_ in types]

    def left(self) -> list[str]:
        return [stored.key for stored in self.storage.list("")]

    # -- the workers' answers -----------------------------------------------------------------------------------------

    def _answer(self, attempt: Attempt, task: Task) -> Answer:
        match task:
            case IngestTask():
                return self._ingested(task)
            case TranscodeTask():
                tracks = [video_track(rung.name, task.timeline, recipe=attempt.ref.job) for rung in task.rungs]
                return self._made(attempt, [part(track) for track in tracks])
            case AudioTask():
                return self._made(attempt, [part(audio_track(task.rendition.track, task.timeline))])
            case PackageTask():
                return self._packaged(attempt, task)
            case SubtitleTask():
                return self._subtitled(attempt, task.timeline)
            case TrimTask():
                return self._trimmed(attempt, task)
            case ReviseTask():
                return self._revised(attempt, task)
            case ExportTask():
                return self._exported(task)

    def _ingested(self, task: IngestTask) -> Answer:
        shown = latest(self.storage, task.asset)
        if not task.known:
            self.storage.put(task.source, b"media")
        if not task.known or self.storage.stat(keys.media(task.asset)) is None:  # also of an upload, which is there
            self.storage.put(keys.media(task.asset), to_json(a_media()).encode())
        media = from_json(MediaInfo, self.storage.get(keys.media(task.asset)))
        present = tuple(track.id for track in shown.tracks) if shown and task.known else ()
        return Answer(ingest=IngestFacts(media=media, encoder="x264-164", present=present), source=task.source)

    def _made(self, attempt: Attempt, parts: Sequence[Part]) -> Answer:
        key = keys.receipt(attempt.job.asset, attempt.ref.job, attempt.ref.step, attempt.fence)
        self.storage.put(key, to_json(PartsFacts(parts=tuple(parts), media_s=Fraction(10))).encode())
        for made in parts:
            for piece in (made.init, *(segment.key for segment in made.segments)):
                self.storage.put(piece, b"segment")
        return Answer(facts={"receipt": key})

    def _packaged(self, attempt: Attempt, task: PackageTask) -> Answer:
        drawn = task.blueprint
        pictures = [video_track(rung.name, drawn.timeline, recipe=attempt.ref.job) for rung in drawn.rungs]
        sounds = [audio_track(sound.track, drawn.timeline) for sound in drawn.audio]
        part_of = {}
        if task.trimmed is not None:
            part_of = {"edit": _edit(presentation(*pictures, *sounds), task.trimmed, drawn.timeline)}
        shown = self._publish(attempt, [*pictures, *sounds], drawn.timeline, replaces=task.replaces, **part_of)
        return Answer(facts={"version": shown.version}, published=published(shown))

    def _subtitled(self, attempt: Attempt, timeline: Timeline) -> Answer:
        track = text_track("text-en-auto", timeline=timeline)
        self.storage.put(track.segments[0].key, b"WEBVTT\n")
        shown = self._publish(attempt, [track], timeline)
        return Answer(published=published(shown), subtitled=Subtitled(track=track.id))

    def _trimmed(self, attempt: Attempt, task: TrimTask) -> Answer:
        """Of a clip: its first version, made of the other asset's tracks."""
        of = self.shown(task.of or task.asset)
        made = _edit(of, (task.start, task.stop), task.timeline)
        if task.of:
            shown = self._publish(attempt, of.tracks, task.timeline, base=made)
        else:
            shown = self._publish(attempt, (), task.timeline, edit=replace(made, trim=attempt.job.number))
        return Answer(published=published(shown), trimmed=trimmed_to(shown))

    def _revised(self, attempt: Attempt, task: ReviseTask) -> Answer:
        now = self.shown(task.asset)
        if task.change == "preview":
            keys_ = {f"{kind}_key": keys.preview(now.asset, "p") + f"video.{kind}" for kind in ("hls", "dash")}
            return Answer(previewed=Previewed(**keys_, start=task.start, end=task.stop or now.duration))
        wanted = (
            replace(now, edit=None) if task.change == "revert" else version_of(self.storage, now.asset, task.version)
        )
        assert wanted is not None
        shown = self._made_public(attempt, lambda last: roll_back(last or now, wanted, effect=effect_of(attempt)))
        return Answer(published=published(shown), reverted=Reverted(version=shown.version))

    def _exported(self, task: ExportTask) -> Answer:
        now = self.shown(task.asset)
        file = Exported(
            key=f"{keys.public(now.asset)}video.mp4",
            size=4096,
            duration_ms=published(now).duration_ms,
            version=now.version,
            edit=edited(now),
            rung=task.rung or now.video[0].rung,
        )
        return Answer(exported=file)

    def _publish(self, attempt: Attempt, tracks: Sequence[Track], timeline: Timeline, **changes: Any) -> Presentation:
        record = self.store.asset(attempt.job.asset)
        assert record is not None
        return self._made_public(
            attempt,
            lambda last: compose(
                last,
                asset=attempt.job.asset,
                tracks=tracks,
                effect=effect_of(attempt),
                duration=timeline.duration,
                heard=(record.epoch, record.sequence),
                **changes,
            ),
        )

    def _made_public(self, attempt: Attempt, composer: Callable[[Presentation | None], Presentation]) -> Presentation:
        assert self.conductor.publishing(attempt)
        return publish(self.storage, attempt.job.asset, effect_of(attempt), composer)


def effect_of(attempt: Attempt) -> Effect:
    return Effect(job=attempt.ref.job, step=attempt.ref.step)


def _edit(whole: Presentation, asked: tuple[Fraction, Fraction | None], timeline: Timeline) -> Edit:
    return edit(whole, *frames_of(*asked, timeline))


def request_for(**fields: Any) -> ProcessRequest:
    return a_request(**{"asset_id": ASSET, "resolutions": ("240p", "720p"), **fields})
