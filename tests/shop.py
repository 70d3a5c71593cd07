"""One worker with real stages on a real storage, over records in memory: whatever is asked for is done at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from builders import a_profile
from cuts import Appended, Stream, assert_exact
from storages import Interrupted

from pipeline import keys, plan
from pipeline.conductor import Attempt, Conductor
from pipeline.doorman import Doorman
from pipeline.held import BenchLimits
from pipeline.job import Job, JobStatus
from pipeline.memory import ManualClock, MemoryJobStore, MemoryProgress, SystemClock
from pipeline.organizations import Organizations
from pipeline.ports import Body, Moved, Storage, StoredObject
from pipeline.presentation.edits import Played, played
from pipeline.presentation.model import Presentation
from pipeline.presentation.publish import latest, version
from pipeline.profile import VideoProfile
from pipeline.requests import Request
from pipeline.sandbox import Nursery
from pipeline.tasks import Timeline
from pipeline.tidy import tidy_after
from pipeline.workbench import Workbench

ALL = ("ingest", "transcode", "audio", "package", "subtitle", "trim", "export")

SOFT = a_profile(name="soft", video=VideoProfile(preset="veryfast", crf=33))
"""Another recipe for every rung."""


class Diary(Interrupted):
    """A storage that remembers how often each object was written, and which were removed."""

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.written: Counter[str] = Counter()
        self.removed: list[str] = []

    def put(
        self,
        key: str,
        body: Body,
        *,
        absent: bool = False,
        match: str | None = None,
        moved: Moved | None = None,
    ) -> StoredObject:
        stored = super().put(key, body, absent=absent, match=match, moved=moved)
        self.written[key] += 1
        return stored

    def delete(self, prefix: str, *, moved: Moved | None = None) -> int:
        count = super().delete(prefix, moved=moved)
        self.removed += [prefix] * count
        return count


class Shop:
    """A doorman, and a worker of all stages."""

    def __init__(self, storage: Storage, nursery: Nursery) -> None:
        self.clock = ManualClock()
        self.store = MemoryJobStore(self.clock)
        self.storage = storage
        self.conductor = Conductor(self.store, self.clock, plan, {"default": a_profile(), "soft": SOFT})
        self.doorman = Doorman(self.conductor, storage, Organizations())
        limits = BenchLimits(local_sources=True)
        self.bench = Workbench(self.conductor, storage, MemoryProgress(), SystemClock(), nursery, limits=limits)
        self.ran: list[str] = []

    def ask(self, request: Request) -> str:
        """Only ask."""
        (id_,) = self.doorman.handle(request)
        return id_

    def do(self, request: Request, *stages: str) -> Job:
        """Ask, and let workers of these stages (of all) do what there is to do, however often it takes."""
        id_ = self.ask(request)
        self.work(*stages)
        return self.job(id_)

    def done(self, request: Request) -> Job:
        """… which must succeed."""
        job = self.do(request)
        assert (job.status, job.error) == (JobStatus.SUCCEEDED, None), (job, self.ran)
        return job

    def work(self, *stages: str) -> None:
        self.ran.clear()
        for _ in range(20):
            for attempt in self.begun(*stages):
                self.ran.append(f"{attempt.step.stage}: {self.bench.run(attempt)}")
            if not self.later():
                return

    def begun(self, *stages: str) -> Iterator[Attempt]:
        """Step after step, as long as one is ready."""
        while refs := self.store.take(dict.fromkeys(stages or ALL, 9)):
            for ref in refs:
                if (attempt := self.conductor.begin(ref, "w1")) is not None:
                    yield attempt

    def later(self) -> bool:
        """Half a minute later. False: nobody has anything left to do."""
        for _ in range(8):  # nobody's lease is judged by whoever has just woken up
            self.clock.advance(4)
            self.store.due(0)
        return self.sweep()

    def sweep(self) -> bool:
        """A sweeper looks around. False: there was nothing to look at."""
        refs = list(self.store.due(99))
        for ref in refs:
            ended = self.conductor.sweep(ref)
            if ended is not None:
                tidy_after(self.store, self.storage, ended)
                self.conductor.tidied(ended)
        return bool(refs)

    def job(self, id_: str) -> Job:
        job = self.store.job(id_)
        assert job is not None
        return job

    def now(self, asset: str) -> Presentation:
        found = latest(self.storage, asset)
        assert found is not None
        return found

    def document(self, asset: str) -> Mapping[str, Any]:
        record = self.store.asset(asset)
        assert record is not None
        return record.document

    def events(self, type_: str) -> list[Mapping[str, Any]]:
        return [event["data"] for event in self.store.events if event["type"].endswith(f".{type_}.v1")]


# -- what is seen -----------------------------------------------------------------------------------------------------


def streams(storage: Storage, seen: Played, kind: str) -> list[Stream]:
    """The tracks of one kind as a player appends them."""
    return [
        [
            Appended(init=storage.get(stretch.init), media=storage.get(segment.key))
            for stretch in seen.stretches(track)
            for segment in stretch.segments
        ]
        for track in seen.tracks
        if track.kind == kind
    ]


def assert_shows(storage: Storage, shown: Presentation, frames: range, timeline: Timeline) -> None:
    """Every rung shows these frames of the clip and no others, and every sound fits them."""
    seen = played(shown)
    pictures, sounds = streams(storage, seen, "video"), streams(storage, seen, "audio")
    assert_exact(pictures, sounds, range(timeline.frames), frames, timeline)


def manifests(storage: Storage, asset: str, number: int) -> Sequence[str]:
    """What the playlists and captions of a version say, but for its own number and the names of its folder."""
    shown = version(storage, asset, number)
    assert shown is not None
    texts = []
    for stored in sorted(storage.list(shown.folder), key=lambda stored: stored.key):
        name, text = stored.key.removeprefix(shown.folder), storage.get(stored.key).decode()
        texts.append(f"{name}\n{text}")
    return texts


def objects(storage: Storage, asset: str) -> Iterator[str]:
    """Whatever media lies there of an asset."""
    for stored in storage.list(keys.public(asset)):
        if stored.key.endswith((".m4s", "init.mp4")):
            yield stored.key


def seconds(frame: int, rate: Fraction | int = 25) -> float:
    return float(frame / Fraction(rate))
