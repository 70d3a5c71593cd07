"""The workbench around the stages: what it fetches, publishes and leaves, whoever sleeps, dies or cancels meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from builders import a_media, a_profile, a_request
from presentations import ASSET, audio_track, part, video_track
from storages import Interrupted

from pipeline import keys, plan
from pipeline.conductor import Answer, Attempt, Conductor
from pipeline.errors import PipelineError
from pipeline.held import BenchLimits
from pipeline.job import JOB_LEVEL, Job, JobStatus, Ref
from pipeline.memory import ManualClock, MemoryJobStore, MemoryProgress
from pipeline.ports import Storage, StoredObject
from pipeline.presentation.compose import compose
from pipeline.presentation.model import Effect, Presentation, marked_version
from pipeline.presentation.publish import latest, publish
from pipeline.sandbox import Nursery
from pipeline.storage.folder import FolderStorage
from pipeline.tasks import IngestFacts, PartsFacts, TranscodeTask, to_json
from pipeline.tidy import tidy
from pipeline.workbench import Workbench

DOORS = (keys.hls_door(ASSET), keys.dash_door(ASSET))
SHA256 = "0f" * 32


class House:
    """A job all of whose parts are stored, so that its package step is next; and a worker that may do it."""

    def __init__(self, root: Path, nursery: Nursery, wrap: Callable[[Storage], Storage] = lambda inner: inner) -> None:
        self.clock = ManualClock()
        self.store = MemoryJobStore(self.clock)
        self.conductor = Conductor(self.store, self.clock, plan, {"default": a_profile()})
        self.inner = FolderStorage(root)
        self.storage = wrap(self.inner)
        limits = BenchLimits(local_sources=True)
        progress = MemoryProgress()
        self.bench = Workbench(self.conductor, self.storage, progress, self.clock, nursery, limits=limits)
        self.id = self.conductor.accept(a_request(asset_id=ASSET, url=str(root.parent / "clip.mp4"))).id

    @property
    def job(self) -> Job:
        job = self.store.job(self.id)
        assert job is not None
        return job

    def begin(self, step: str, worker: str = "worker-1") -> Attempt:
        attempt = self.conductor.begin(Ref(job=self.id, step=step), worker)
        assert attempt is not None
        return attempt

    def make_parts(self) -> House:
        """Everything before the package step is done, as if workers had done it."""
        self.inner.put(keys.source(ASSET, "clip.mp4"), b"media")
        facts = IngestFacts(media=a_media(sha256=SHA256), encoder="x264-164")
        assert self.conductor.finish(self.begin("ingest"), Answer(ingest=facts))
        drawn = self.job.blueprint
        assert drawn is not None
        pictures = [part(video_track(rung.name, drawn.timeline)) for rung in drawn.rungs]
        made = PartsFacts(parts=(*pictures, part(audio_track(timeline=drawn.timeline))), media_s=Fraction(10))
        receipt = keys.receipt(ASSET, self.id, "all", "1-made")
        self.inner.put(receipt, to_json(made).encode())
        # Which step made which part is of no interest to package: it reads all receipts that there are.
        facts_of = iter([{"receipt": receipt}])
        for step in self.job.steps["package"].needs:
            assert self.conductor.finish(self.begin(step), Answer(facts=next(facts_of, {})))
        return self

    def lose_lease(self) -> None:
        """Time passes in which only sweepers look around; the one who holds the step hears nothing of it."""
        for _ in range(8):
            self.clock.advance(4)
            self.store.due(0)
        for ref in self.store.due(10):
            self.conductor.sweep(ref)

    def fail_elsewhere(self) -> None:
        """Another worker takes the step over, and fails for good; a sweeper tidies."""
        self.lose_lease()
        other = self.begin("package", "worker-2")
        assert self.conductor.fail(other, PipelineError("storage_forbidden", reason="no"))
        self.tidy()

    def tidy(self) -> None:
        assert self.job.status.ended
        tidy(self.inner, self.job, self.document())

    def document(self) -> dict[str, Any]:
        record = self.store.asset(ASSET)
        assert record is not None
        return dict(record.document)

    def events(self, type_: str) -> list[dict[str, Any]]:
        return [event["data"] for event in self.store.events if event["type"].endswith(f".{type_}.v1")]


def everything(storage: Storage) -> list[str]:
    return [stored.key for stored in storage.list("")]


def shown(storage: Storage) -> list[int]:
    return [marked_version(storage.get(door).decode()) for door in DOORS]


def add_sound(storage: Storage, name: str, house: House) -> Presentation:
    """Another job's step brings a sound track."""
    effect = Effect(job="other", step=name)
    drawn = house.job.blueprint
    assert drawn is not None
    track = audio_track(name, drawn.timeline, name=name, default=False)
    return publish(
        storage,
        ASSET,
        effect,
        lambda last: compose(last, asset=ASSET, tracks=(track,), effect=effect, duration=drawn.timeline.duration),
    )


# -- publishing -------------------------------------------------------------------------------------------------------


def test_a_package_step_publishes(tmp_path: Path, nursery: Nursery) -> None:
    house = House(tmp_path / "root", nursery).make_parts()

    assert house.bench.run(house.begin("package")) == "succeeded"

    assert house.job.status is JobStatus.SUCCEEDED
    assert shown(house.inner) == [1, 1]


def test_a_version_stores_the_last_event_that_was_told_before_it(tmp_path: Path, nursery: Nursery) -> None:
    """A rebuilt record starts above it (invariant 3)."""
    house = House(tmp_path / "root", nursery).make_parts()
    attempt = house.begin("package")
    record = house.store.asset(ASSET)
    assert record is not None
    assert record.sequence > 0

    house.bench.run(attempt)

    version = latest(house.inner, ASSET)
    assert version is not None
    assert (version.epoch, version.sequence) == (record.epoch, record.sequence)


@pytest.mark.slow
def seen_by_a_reader(key: str) -> bool:
    return key in DOORS or key.endswith("presentation.json")


def test_a_worker_that_sleeps_while_its_job_fails_leaves_nothing_of_it(tmp_path: Path, nursery: Nursery) -> None:
    """Between any two operations the step is taken over, fails for good and is tidied; then the sleeper wakes."""
    counted = House(tmp_path / "count", nursery, Interrupted).make_parts()
    assert counted.bench.run(counted.begin("package")) == "succeeded"
    assert isinstance(counted.storage, Interrupted)
    first = counted.storage.count
    assert first > 10
    for moment in range(1, first + 1):
        house = House(tmp_path / str(moment), nursery, Interrupted).make_parts()
        assert isinstance(house.storage, Interrupted)
        written: list[str] = []

        def sleep(
            count: int, operation: str, key: str, moment: int = moment, house: House = house, written: Any = written
        ) -> None:
            if count == moment:
                house.fail_elsewhere()
                # Another thread of the sleeper may just be storing a playlist; it is gone when the sleeper has ended.
                assert not [left for left in everything(house.inner) if seen_by_a_reader(left)]
            elif count > moment and operation == "put" and seen_by_a_reader(key):
                written.append(key)

        house.storage.before = sleep
        assert house.bench.run(house.begin("package")) == "lost", moment
        assert written == [], "it went on to write what a reader could see"
        assert everything(house.inner) == [], moment


def test_a_worker_that_sleeps_while_another_finishes_its_step_harms_nothing(tmp_path: Path, nursery: Nursery) -> None:
    house = House(tmp_path / "root", nursery, Interrupted).make_parts()
    assert isinstance(house.storage, Interrupted)

    def sleep(_: int, operation: str, key: str) -> None:
        if operation == "put" and key == DOORS[0]:
            house.storage.before = lambda *_: None  # type: ignore[attr-defined]
            house.lose_lease()
            assert house.bench.run(house.begin("package", "worker-2")) == "succeeded"

    house.storage.before = sleep
    assert house.bench.run(house.begin("package")) == "lost"

    assert house.job.status is JobStatus.SUCCEEDED
    house.tidy()
    assert shown(house.inner) == [1, 1]
    assert len(house.events("asset.ready")) == 1


def test_a_second_door_that_is_refused_leaves_nothing_public(tmp_path: Path, nursery: Nursery) -> None:
    house = House(tmp_path / "root", nursery, Interrupted).make_parts()
    assert isinstance(house.storage, Interrupted)

    def refuse(_: int, operation: str, key: str) -> None:
        if operation == "put" and key == DOORS[1]:
            raise PipelineError("storage_forbidden", reason="this door not")

    house.storage.before = refuse
    assert house.bench.run(house.begin("package")) == "storage_forbidden"
    assert house.inner.stat(DOORS[0])

    assert house.document()["video"]["status"] == "Error"
    assert house.conductor.sweep(Ref(job=house.id, step=JOB_LEVEL)) is not None
    house.tidy()
    assert everything(house.inner) == []


def test_a_retry_tells_the_version_that_it_brought_and_shows_the_latest(tmp_path: Path, nursery: Nursery) -> None:
    """The first attempt dies when its version is written; somebody else adds to it before the second one."""
    house = House(tmp_path / "root", nursery, Interrupted).make_parts()
    assert isinstance(house.storage, Interrupted)

    def fail(_: int, operation: str, key: str) -> None:
        if operation == "put" and key == DOORS[0]:
            raise PipelineError("storage_unavailable", reason="for a moment")

    house.storage.before = fail
    assert house.bench.run(house.begin("package")) == "storage_unavailable"
    house.storage.before = lambda *_: None
    assert add_sound(house.inner, "audio-2-ta", house).version == 2
    house.lose_lease()

    assert house.bench.run(house.begin("package")) == "succeeded"

    assert house.job.steps["package"].facts["version"] == 1
    assert {told["version"] for told in house.events("track.ready")} == {1}
    assert "audio-2-ta" in {made["name"] for made in house.document()["video"]["renditions"]}
    assert shown(house.inner) == [2, 2]


# -- the source -------------------------------------------------------------------------------------------------------


class Slow(Interrupted):
    """A storage that is cancelled while it copies the source."""

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.meanwhile: Callable[[], None] = lambda: None
        self.copied = False

    def put(self, key: str, body: bytes | Path, **how: Any) -> StoredObject:
        if isinstance(body, Path):
            self.meanwhile()
        stored = super().put(key, body, **how)
        self.copied = self.copied or isinstance(body, Path)
        return stored


def test_a_cancelled_job_ends_its_copy_of_the_source_in_the_middle(tmp_path: Path, nursery: Nursery) -> None:
    house = House(tmp_path / "root", nursery, Slow)
    with (tmp_path / "clip.mp4").open("wb") as file:
        file.truncate(64 * 1024**2)
    assert isinstance(house.storage, Slow)

    def cancel() -> None:
        assert house.conductor.cancel(house.id)
        house.bench.stop_job(house.id)

    house.storage.meanwhile = cancel
    assert house.bench.run(house.begin("ingest")) == "lost"

    assert not house.storage.copied
    assert everything(house.inner) == []


def test_a_job_that_ended_before_the_bench_knew_of_it_is_not_begun(tmp_path: Path, nursery: Nursery) -> None:
    house = House(tmp_path / "root", nursery)
    (tmp_path / "clip.mp4").write_bytes(b"anything")
    attempt, stopped = house.begin("ingest"), threading.Event()
    assert house.conductor.cancel(house.id)
    stopped.set()

    assert house.bench.run(attempt, stopped) == "lost"

    assert everything(house.inner) == []


def test_the_checksum_of_the_source_is_part_of_every_recipe(tmp_path: Path, nursery: Nursery) -> None:
    house = House(tmp_path / "root", nursery).make_parts()
    steps = house.job.steps
    tasks = [plan.task(house.job, step) for step in steps.values() if step.stage in ("transcode", "audio")]

    assert {task.source_sha256 for task in tasks} == {SHA256}  # type: ignore[union-attr]
    task = next(task for task in tasks if isinstance(task, TranscodeTask))
    other = replace(task, source_sha256="other")
    names = {keys.recipe(each.rungs[0], each) for each in (task, other)}
    assert len(names) == 2
