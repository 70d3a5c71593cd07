"""One step on one machine: fetch, run the stage in its sandbox, store, publish, tell the conductor.

Everything that touches keys, uploads and public state happens here, in the parent; the stage sees only files. Whatever
becomes of the attempt, its scratch folder is gone afterwards, and exactly one of finish, fail, hand back or nothing
(the step is no longer ours) reaches the conductor.
"""

from __future__ import annotations

import enum
import hashlib
import logging
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline import keys, plan
from pipeline.conductor import LEASE_S, Answer, Attempt, Caption, Conductor, Published, Subtitled
from pipeline.document import Rendition
from pipeline.download import PUBLIC_WEB, Web
from pipeline.errors import PipelineError
from pipeline.fetch import checksum_of, fetch, local_file
from pipeline.job import Job, JobStatus
from pipeline.media.boxes import scan_segment
from pipeline.places import Places
from pipeline.ports import Clock, ObjectNotFound, PreconditionFailed, ProgressBoard, Storage, StoredObject
from pipeline.presentation.captions import generated_id, generated_track, source_id, source_tracks
from pipeline.presentation.compose import compose
from pipeline.presentation.model import Effect, Presentation, Track
from pipeline.presentation.publish import NoLongerOurs, latest, publish
from pipeline.ranges import Given, Served, serving
from pipeline.sandbox import Child, ChildKilled, ChildLimits, Nursery
from pipeline.stages import STAGES
from pipeline.stages.package import PackageFacts
from pipeline.standing import tombstone
from pipeline.storage.buckets import NO_BUCKETS, Buckets
from pipeline.storage.side_by_side import SideBySide
from pipeline.tasks import (
    PROBE,
    AudioTask,
    IngestFacts,
    IngestTask,
    MediaInfo,
    PackageTask,
    Part,
    PartsFacts,
    Segment,
    SpeechModel,
    SubtitleFacts,
    SubtitleTask,
    Task,
    Timeline,
    TranscodeTask,
    as_data,
    from_json,
    to_json,
)
from pipeline.tidy import tidy_after

log = logging.getLogger("reelway.workbench")


class Verdict(enum.StrEnum):
    """Why an attempt was stopped from outside."""

    LOST = "lost"
    """The step is no longer ours: cancelled, or taken over."""
    STALLED = "stalled"
    """No progress for the stage's stall limit."""
    TIMED_OUT = "timed_out"
    """Longer than the wall limit."""
    HANDED_BACK = "handed_back"
    """The worker is draining."""


class Stopped(Exception):
    """The attempt ends now, for this reason."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        super().__init__(verdict.value)


@dataclass(frozen=True, kw_only=True)
class BenchLimits:
    """What one attempt may take."""

    child: ChildLimits = field(default_factory=ChildLimits)
    wall_s: float = 6 * 3600.0
    local_sources: bool = False
    """Sources may be files of this machine (a private fleet); never where strangers send requests."""
    web: Web = PUBLIC_WEB
    """How sources come from the web, and from where they may."""
    buckets: Buckets = NO_BUCKETS
    """Buckets from which sources may come."""

    @property
    def places(self) -> Places:
        """From where sources may be used in place."""
        return Places(buckets=self.buckets, local=self.local_sources)


class Watch:
    """Keeps the lease while the work moves, and ends the child when it must not go on."""

    def __init__(self, conductor: Conductor, attempt: Attempt, clock: Clock, *, stall_s: float, wall_s: float) -> None:
        self._conductor = conductor
        self._attempt = attempt
        self._clock = clock
        self._stall_s = stall_s
        self._deadline = clock.monotonic() + wall_s
        self._moved = clock.monotonic()
        self._child: Child | None = None
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self.verdict: Verdict | None = None
        self._thread = threading.Thread(target=self._keep, name=f"lease-{attempt.ref}", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def moved(self) -> None:
        """There was progress."""
        self._moved = self._clock.monotonic()

    def guard(self, child: Child) -> None:
        """End this child when the verdict falls."""
        with self._lock:
            self._child = child
        self.check_child()

    def check_child(self) -> None:
        if self.verdict is not None and self._child is not None:
            self._child.kill()

    def check(self) -> None:
        """Raises `Stopped` when the attempt must not go on."""
        if self.verdict is not None:
            raise Stopped(self.verdict)

    def stop(self, verdict: Verdict) -> None:
        with self._lock:
            self.verdict = self.verdict or verdict
        self.check_child()

    def _keep(self) -> None:
        while not self._ended.wait(LEASE_S / 3):
            now = self._clock.monotonic()
            if now - self._moved > self._stall_s:
                self.stop(Verdict.STALLED)
            elif now > self._deadline:
                self.stop(Verdict.TIMED_OUT)
            with suppress(PipelineError):  # Redis is away: that is an outage, not a loss; the next round asks again
                if not self._conductor.renew(self._attempt):
                    self.stop(Verdict.LOST)
            if self.verdict is not None:
                return


@dataclass
class _Attempt:
    """What the handlers of one attempt share."""

    attempt: Attempt
    task: Task
    scratch: Path
    watch: Watch
    child_cpu_s: float = 0.0
    renamed: dict[str, Segment] = field(default_factory=dict)
    """Segments that storage held already with other bytes, described as they are stored."""

    def moved(self) -> None:
        """There was progress. Raises `Stopped` when the attempt must not go on."""
        self.watch.moved()
        self.watch.check()


class Workbench:
    """Does steps. One instance serves all slots of a worker."""

    def __init__(
        self,
        conductor: Conductor,
        storage: Storage,
        progress: ProgressBoard,
        clock: Clock,
        nursery: Nursery,
        *,
        limits: BenchLimits = BenchLimits(),
        speech: SpeechModel | None = None,
    ) -> None:
        self.conductor = conductor
        self.storage = storage
        self.progress = progress
        self.clock = clock
        self.nursery = nursery
        self.scratch = nursery.scratch
        self.limits = limits
        self.speech = speech or SpeechModel()
        self._watches: dict[str, list[Watch]] = {}
        self._lock = threading.Lock()
        self._ending = False

    # -- from outside -------------------------------------------------------------------------------------------------

    def stop_job(self, job_id: str) -> None:
        """The job has ended: whatever runs of it here ends within a moment."""
        for watch in self._of(job_id):
            watch.stop(Verdict.LOST)

    def hand_back_all(self) -> None:
        """The worker is draining: every attempt ends and goes back unharmed, also one that is about to start."""
        with self._lock:
            self._ending = True
            watches = [watch for held in self._watches.values() for watch in held]
        for watch in watches:
            watch.stop(Verdict.HANDED_BACK)

    def _of(self, job_id: str) -> list[Watch]:
        with self._lock:
            return list(self._watches.get(job_id, ()))

    # -- one attempt --------------------------------------------------------------------------------------------------

    def run(self, attempt: Attempt, stopped: threading.Event | None = None) -> str:
        """Do the step and commit its outcome. Returns the outcome for the metrics: `succeeded`, a code, `lost` …

        `stopped`: set by whoever called `stop_job`, perhaps before this attempt could be found by it.
        """
        entry = STAGES[attempt.step.stage]
        with (
            tempfile.TemporaryDirectory(prefix="step-", dir=self.scratch, ignore_cleanup_errors=True) as folder,
            Watch(self.conductor, attempt, self.clock, stall_s=entry.stall_s, wall_s=self.limits.wall_s) as watch,
        ):
            self._register(attempt, watch)
            if stopped is not None and stopped.is_set():
                watch.stop(Verdict.LOST)
            try:
                outcome = self._outcome(attempt, Path(folder), watch, entry.stall_s)
            finally:
                self._forget(attempt, watch)
        if outcome == Verdict.LOST:
            self._tidy_behind(attempt)
        return outcome

    def _tidy_behind(self, attempt: Attempt) -> None:
        """Where nothing of the job may stay, storage was tidied, perhaps before our last object came: again."""
        try:
            job = self.conductor.store.job(attempt.ref.job)
            if job is None or not job.status.ended:
                return
            if job.status is not JobStatus.SUCCEEDED or tombstone(self.storage, job.asset) is not None:
                tidy_after(self.conductor.store, self.storage, job)
        except PipelineError as error:
            log.warning("cannot tidy", extra={"action": "tidy.failed", "ref": str(attempt.ref), "code": error.code})

    def _outcome(self, attempt: Attempt, folder: Path, watch: Watch, stall_s: float) -> str:
        try:
            answer = self._work(attempt, folder, watch)
        except Stopped as stopped:
            return self._stopped(attempt, stopped.verdict, stall_s)
        except ObjectNotFound as missing:  # removed under our hands: by whoever tidied, if the step was lost
            return self._failed(attempt, PipelineError("storage_unavailable", reason=f"{missing} is gone"))
        except PipelineError as error:
            return self._failed(attempt, error)
        return "succeeded" if self._insist(lambda: self.conductor.finish(attempt, answer)) else Verdict.LOST.value

    def _failed(self, attempt: Attempt, error: PipelineError) -> str:
        log.warning(
            "step failed",
            extra={"action": "step.failed", "ref": str(attempt.ref), "code": error.code, "detail": error.log},
        )
        return error.code if self._insist(lambda: self.conductor.fail(attempt, error)) else Verdict.LOST.value

    @staticmethod
    def _insist(commit: Callable[[], bool]) -> bool:
        """Commit an outcome through an outage of the store: the work is done, only the record does not know it yet."""
        for pause_s in (*([0.5] * 20), *([2.0] * 300)):
            try:
                return commit()
            except PipelineError as error:
                if not error.retryable:
                    raise
                threading.Event().wait(pause_s)
        return commit()

    def _stopped(self, attempt: Attempt, verdict: Verdict, stall_s: float) -> str:
        stage = attempt.step.stage
        stalled = PipelineError("stalled", stage=stage, seconds=round(stall_s))
        timed_out = PipelineError("timed_out", stage=stage, seconds=round(self.limits.wall_s))
        commits: Mapping[Verdict, Callable[[], bool]] = {
            Verdict.HANDED_BACK: lambda: self.conductor.hand_back(attempt),
            Verdict.STALLED: lambda: self.conductor.fail(attempt, stalled),
            Verdict.TIMED_OUT: lambda: self.conductor.fail(attempt, timed_out),
        }
        kept = verdict in commits and self._insist(commits[verdict])
        return verdict.value if kept else Verdict.LOST.value

    def _work(self, attempt: Attempt, folder: Path, watch: Watch) -> Answer:
        task = self._here(plan.task(attempt.job, attempt.step))
        held = _Attempt(attempt=attempt, task=task, scratch=folder, watch=watch)
        inputs = self._inputs(held)
        watch.check()
        store, answer = self._handlers[type(task)]
        facts = self._run_stage(held, inputs, lambda name, path: store(self, held, name, path))
        watch.check()
        return answer(self, held, facts)

    def _here(self, task: Task) -> Task:
        """The task with what only this machine knows."""
        return replace(task, model=self.speech) if isinstance(task, SubtitleTask) else task

    def _run_stage(self, held: _Attempt, inputs: Mapping[str, Given], store: Callable[[str, Path], None]) -> str:
        """Run the stage's child to its end; returns its facts as JSON."""
        out = held.scratch / "out"
        out.mkdir()
        facts = ""
        with serving(inputs.values()), SideBySide(held.moved) as several:
            child = self.nursery.child(inputs.values())
            try:
                held.watch.guard(child)
                stage = held.attempt.step.stage
                for message in child.run(stage, to_json(held.task), inputs, out, self.limits.child):
                    held.watch.check()
                    if "tick" in message:
                        held.watch.moved()
                        self.progress.report(held.attempt.ref, message["tick"])
                    elif "done" in message:
                        _keep(several, store, message["done"], _inside(out, message["done"]))
                        held.watch.moved()
                    facts = message.get("facts", facts)
            except ChildKilled:
                held.watch.check()
                raise PipelineError("stage_crashed", stage=held.attempt.step.stage, reason="killed") from None
            finally:
                held.child_cpu_s = child.cpu_s
                child.kill()
                child.close()
        return facts

    # -- inputs -------------------------------------------------------------------------------------------------------

    def _inputs(self, held: _Attempt) -> Mapping[str, Given]:
        task = held.task
        if isinstance(task, PackageTask):
            return self._copies(held, task.receipts)
        if isinstance(task, IngestTask) and task.known:
            return self._known(held, task)
        if isinstance(task, IngestTask):
            task = replace(task, url=self._url(held.attempt.job, task))
            if task.in_place:
                checksum = self.limits.places.register(self.storage, task, held.moved)
                held.task = replace(task, sha256=checksum, url="")
                return {"source": self._source(held, task.source)}
            checksum = fetch(
                self.storage,
                task,
                local=self.limits.local_sources,
                moved=held.moved,
                web=self.limits.web,
                buckets=self.limits.buckets,
            )
            # A URL may hold a secret, and the stage needs none.
            held.task = replace(task, sha256=checksum, url="")
            at_hand = local_file(task.url) if self.limits.local_sources else None
            if at_hand is not None:  # it was read just now, and need not come back from storage
                return {"source": self.storage.local_path(task.source) or at_hand.absolute()}
        return {"source": self._source(held, task.source)}

    def _url(self, job: Job, task: IngestTask) -> str:
        """The source's whole URL: nobody but who fetches it opens what is sealed."""
        return self.conductor.seal.open(job.sealed, job.asset) if job.sealed else task.url

    def _known(self, held: _Attempt, task: IngestTask) -> Mapping[str, Given]:
        """What an earlier job learned of the source; else the source itself, to be learned again.

        That is where it is lost, and where an older release learned less than this one wants to know.
        """
        media = keys.media(task.asset)
        if self.storage.stat(media) is not None:
            copy = self._copy(held, media)
            if _learned_enough(copy):
                return {"media": copy}
        held.task = replace(task, sha256=self._checksum(held, task.source))
        return {"source": self._source(held, task.source)}

    def _checksum(self, held: _Attempt, key: str) -> str:
        if keys.is_ours(key):
            return checksum_of(self.storage, key, held.moved)
        return self.limits.places.checksum(self.storage, held.task.asset, held.moved)

    def _source(self, held: _Attempt, key: str) -> Given:
        """The object in place where storage is a folder; else the stage reads what it needs of it, and no more."""
        if not keys.is_ours(key):
            return self._placed(held)
        path = self.storage.local_path(key)
        if path is not None:
            return path
        stored = self.storage.stat(key)
        if stored is None:
            raise ObjectNotFound(key)
        return Served(self.storage, stored, held.watch.moved)

    def _placed(self, held: _Attempt) -> Given:
        """The source that stays where it lies, with the content that it had at ingest."""
        source = self.limits.places.source(self.storage, held.task.asset)
        if isinstance(source, Path):
            return source
        stored = StoredObject(key=source.key, size=source.size, etag=source.etag, modified_ms=0)
        # Its own name is somebody else's choice.
        name = keys.source(held.task.asset, source.key).rpartition("/")[2]
        return Served(source, stored, held.watch.moved, name=name)

    def _copies(self, held: _Attempt, names: Sequence[str]) -> Mapping[str, Path]:
        """Small objects as files, by their numbers. Some at a time: a round trip takes longer than the bytes."""
        inputs: dict[str, Path] = {}

        def copy(number: int, name: str) -> None:
            inputs[str(number)] = self._copy(held, name)

        with SideBySide(held.moved) as several:
            for number, name in enumerate(names):
                several.do(partial(copy, number, name))
        return inputs

    def _copy(self, held: _Attempt, key: str) -> Path:
        path = self.storage.local_path(key)
        if path is None:
            path = held.scratch / hashlib.sha256(key.encode()).hexdigest()[:16]
            path.write_bytes(self.storage.get(key))
        return path

    # -- ingest -------------------------------------------------------------------------------------------------------

    def _store_private(self, held: _Attempt, name: str, path: Path) -> None:
        """`media.json`: the long form of what ingest learned; the others are the text that the source brought."""
        asset = held.task.asset
        assert name == "media.json" or _TEXT.fullmatch(name), name
        self.storage.put(keys.media(asset) if name == "media.json" else keys.text(asset, name), path)

    def _ingested(self, held: _Attempt, facts: str) -> Answer:
        learned = from_json(IngestFacts, facts)
        assert isinstance(held.task, IngestTask)
        if held.task.known:
            shown = latest(self.storage, held.task.asset)
            learned = replace(learned, present=tuple(track.id for track in shown.tracks) if shown else ())
        media = learned.media
        return Answer(
            facts={
                "media": keys.media(held.task.asset),
                "bytes": media.size,
                "duration_s": round(float(media.duration), 3),
                "cpu_s": held.child_cpu_s,
            },
            ingest=learned,
            source=held.task.source,
        )

    # -- segments -----------------------------------------------------------------------------------------------------

    def _store_segment(self, held: _Attempt, name: str, path: Path) -> None:
        """Create-only: a segment that is there already was made by the same recipe, and stays."""
        key = self._folder(held, name) + name.partition("/")[2]
        try:
            self.storage.put(key, path, absent=True)
        except PreconditionFailed:
            stored = self.storage.get(key)
            if stored == path.read_bytes():
                return
            if name.endswith("/init.mp4"):
                raise PipelineError("encoder_mismatch", track=name.partition("/")[0]) from None
            held.renamed[name] = self._stored_segment(key, stored)

    def _stored_segment(self, key: str, stored: bytes) -> Segment:
        """Describe a segment that another attempt stored, from its own bytes."""
        init = self.storage.get(f"{key.rpartition('/')[0]}/init.mp4")
        scan = scan_segment(stored, init)
        return Segment(start=scan.start, duration=scan.duration, key=key, size=len(stored), keyframes=scan.keyframes)

    def _folder(self, held: _Attempt, name: str) -> str:
        """Storage folder of the track that an output belongs to."""
        task, track = held.task, name.partition("/")[0]
        if isinstance(task, AudioTask):
            return keys.track(task.asset, track, keys.recipe(task.rendition, task))
        assert isinstance(task, TranscodeTask)
        rung = next(rung for rung in task.rungs if rung.track == track)
        return keys.track(task.asset, track, keys.recipe(rung, task))

    def _parts_made(self, held: _Attempt, facts: str) -> Answer:
        """The receipt describes what storage holds; it is written before the commit that names it."""
        made = from_json(PartsFacts, facts)
        parts = tuple(self._stored_part(held, part) for part in made.parts)
        attempt = held.attempt
        key = keys.receipt(held.task.asset, attempt.ref.job, attempt.ref.step, attempt.fence)
        self.storage.put(key, to_json(replace(made, parts=parts)).encode())
        segments = [segment for part in parts for segment in part.segments]
        return Answer(
            facts={
                "receipt": key,
                "segments": len(segments),
                "bytes": sum(segment.size for segment in segments),
                "media_s": round(float(made.media_s), 3),
                "cpu_s": held.child_cpu_s,
                **({"loudness": as_data(made.loudness)} if made.loudness else {}),
            }
        )

    def _stored_part(self, held: _Attempt, part: Part) -> Part:
        folder = self._folder(held, f"{part.track}/")
        segments = tuple(
            held.renamed.get(f"{part.track}/{segment.key}", replace(segment, key=folder + segment.key))
            for segment in part.segments
        )
        return replace(part, init=folder + part.init, segments=segments)

    # -- publishing ---------------------------------------------------------------------------------------------------

    def _no_outputs(self, held: _Attempt, name: str, path: Path) -> None:
        raise AssertionError(f"{held.attempt.step.stage} has no outputs, but made {name}")

    def _packaged(self, held: _Attempt, facts: str) -> Answer:
        packaged = from_json(PackageFacts, facts)
        assert isinstance(held.task, PackageTask)
        task = held.task
        tracks = (*packaged.tracks, *self._brought_texts(held, task))
        presentation = self._publish(held, tracks, task.blueprint.timeline, replaces=task.replaces)
        return Answer(facts={"version": presentation.version}, published=self._shown(presentation))

    def _brought_texts(self, held: _Attempt, task: PackageTask) -> tuple[Track, ...]:
        """The text that the source brought, for the first version: later ones keep it, or have lost it on purpose."""
        texts, stored = task.blueprint.media.text, {}
        if not any(text.file for text in texts) or latest(self.storage, task.asset) is not None:
            return ()
        for number, text in enumerate(texts, start=1):
            if text.file is None:
                continue
            try:
                body = self.storage.get(keys.text(task.asset, text.file))
            except ObjectNotFound:  # an asset is worth more than its text
                log.warning("text is gone", extra={"action": "text.lost", "ref": str(held.attempt.ref)})
                continue
            id_ = source_id(number, text.language)
            stored[id_] = self._stored_revision(task.asset, id_, {"vtt": body})["vtt"], len(body)
            held.moved()
        return source_tracks(texts, stored, duration=task.blueprint.timeline.duration)

    def _publish(
        self, held: _Attempt, tracks: tuple[Track, ...], timeline: Timeline, *, replaces: Sequence[str] = ()
    ) -> Presentation:
        """Make the next version with these tracks in it public. Returns the version that brought them."""
        effect = Effect(job=held.attempt.ref.job, step=held.attempt.ref.step)

        def next_version(previous: Presentation | None) -> Presentation:
            return compose(
                previous,
                asset=held.task.asset,
                tracks=tracks,
                duration=timeline.duration,
                segment=timeline.segment,
                effect=effect,
                heard=self._heard(held.task.asset),
                replaces=replaces,
            )

        if not self.conductor.publishing(held.attempt):
            raise Stopped(Verdict.LOST)
        try:
            return publish(
                self.storage,
                held.task.asset,
                effect,
                next_version,
                still_ours=lambda: self.conductor.renew(held.attempt),
                moved=held.moved,
            )
        except NoLongerOurs:
            raise Stopped(Verdict.LOST) from None

    def _heard(self, asset: str) -> tuple[int, int]:
        """(epoch, sequence) of the asset's last event."""
        record = self.conductor.store.asset(asset)
        return (record.epoch, record.sequence) if record else (0, 0)

    def _shown(self, brought: Presentation) -> Published:
        """What the document says from now on: the latest version holds what others brought meanwhile as well."""
        shown = published(latest(self.storage, brought.asset) or brought)
        return replace(shown, version=brought.version, shown=shown.version)

    # -- captions -----------------------------------------------------------------------------------------------------

    def _keep_text(self, held: _Attempt, name: str, path: Path) -> None:
        """The name of a revision follows from all of its files, so they wait until the last one is there."""
        path.replace(held.scratch / name)

    def _subtitled(self, held: _Attempt, facts: str) -> Answer:
        heard = from_json(SubtitleFacts, facts)
        assert isinstance(held.task, SubtitleTask)
        said = {
            **as_data(heard),
            "speech_s": round(float(heard.speech_s), 3),
            "media_s": round(float(heard.media_s), 3),
        }
        said["cpu_s"] = held.child_cpu_s
        if not heard.speech:
            return Answer(facts=said, subtitled=Subtitled())
        track = self._stored_text(held, heard.language, held.task.timeline)
        presentation = self._publish(held, (track,), held.task.timeline)
        # An earlier attempt may have published before it died, and have heard something else.
        shown = min((text for text in presentation.text if text.auto_generated), key=lambda text: text.id != track.id)
        return Answer(
            facts={**said, "track": shown.id, "captions": shown.segments[0].key, "version": presentation.version},
            published=self._shown(presentation),
            subtitled=Subtitled(track=shown.id),
        )

    def _stored_text(self, held: _Attempt, language: str, timeline: Timeline) -> Track:
        """Store a revision: captions and the words behind them, create-only."""
        files = {suffix: (held.scratch / name).read_bytes() for suffix, name in _TEXT_FILES.items()}
        stored = self._stored_revision(held.task.asset, generated_id(language), files)
        return generated_track(language, key=stored["vtt"], size=len(files["vtt"]), duration=timeline.duration)

    def _stored_revision(self, asset: str, track: str, files: Mapping[str, bytes]) -> Mapping[str, str]:
        """Store the files of one revision of a text track, create-only; returns their keys. Both by suffix."""
        revision = hashlib.sha256(b"".join(files.values())).hexdigest()[:12]
        stored = {suffix: keys.subtitle(asset, track, revision, suffix) for suffix in files}
        for suffix, body in files.items():
            with suppress(PreconditionFailed):  # an earlier attempt stored the same bytes there
                self.storage.put(stored[suffix], body, absent=True)
        return stored

    _handlers: Mapping[type[Any], tuple[Callable[..., None], Callable[..., Answer]]] = {
        IngestTask: (_store_private, _ingested),
        TranscodeTask: (_store_segment, _parts_made),
        AudioTask: (_store_segment, _parts_made),
        PackageTask: (_no_outputs, _packaged),
        SubtitleTask: (_keep_text, _subtitled),
    }

    # -- bookkeeping --------------------------------------------------------------------------------------------------

    def _register(self, attempt: Attempt, watch: Watch) -> None:
        with self._lock:
            self._watches.setdefault(attempt.ref.job, []).append(watch)
            ending = self._ending
        if ending:  # it had begun in the record, and `hand_back_all` could not find it yet
            watch.stop(Verdict.HANDED_BACK)

    def _forget(self, attempt: Attempt, watch: Watch) -> None:
        with self._lock:
            held = self._watches[attempt.ref.job]
            held.remove(watch)
            if not held:
                del self._watches[attempt.ref.job]

    def close(self) -> None:
        self.nursery.close()
        with suppress(OSError):
            shutil.rmtree(self.scratch)


_OUTPUT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)?")


def _learned_enough(media: Path) -> bool:
    """Whether this release may believe it."""
    with suppress(ValidationError):
        return from_json(MediaInfo, media.read_bytes()).probe >= PROBE
    return False


def _inside(folder: Path, name: str) -> Path:
    """The file of an output; what a child says is not believed: no way out of its folder, and no link."""
    path = folder / name
    if not _OUTPUT.fullmatch(name) or path.resolve() != folder.resolve() / name:
        raise PipelineError("stage_failed", stage="sandbox", reason="an output outside of its folder")
    return path


def _keep(several: SideBySide, store: Callable[[str, Path], None], name: str, path: Path) -> None:
    """Store an output beside others, while the stage goes on; scratch holds no more than these."""

    def stored() -> None:
        store(name, path)
        path.unlink(missing_ok=True)

    if name.endswith("/init.mp4"):
        stored()  # a segment that is there already is described with it
    else:
        several.do(stored)


_TEXT = re.compile(r"text-\d{1,3}\.vtt")
"""Outputs of ingest beside its facts."""
_TEXT_FILES = {"vtt": "captions.vtt", "words.json": "words.json"}
"""Suffix in storage → output of the subtitle stage."""


def published(presentation: Presentation) -> Published:
    """What the document and the events say of a presentation."""
    tracks = [*presentation.video, *presentation.audio]
    return Published(
        version=presentation.version,
        duration_ms=round(presentation.duration * 1000),
        segments=max((len(track.segments) for track in tracks), default=0),
        renditions=tuple(
            Rendition(
                name=track.id,
                kind="video" if track.kind == "video" else "audio",
                codec=track.codec,
                width=track.width,
                height=track.height,
                frame_rate=round(float(track.frame_rate), 3) if track.frame_rate else None,
                language=track.language if track.kind == "audio" else None,
                bandwidth=track.bandwidth,
                bytes=track.size,
            )
            for track in tracks
        ),
        captions=tuple(
            Caption(
                id=track.id,
                name=track.name,
                language=track.language,
                key=track.segments[0].key,
                auto_generated=track.auto_generated,
            )
            for track in presentation.text
        ),
    )
