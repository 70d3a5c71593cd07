"""Real events without media: jobs that the conductor leads through a toy plan, on a real Redis."""

from __future__ import annotations

from typing import Any

from builders import a_blueprint, a_profile, a_request, some_ingest_facts

from pipeline.conductor import Answer, Conductor, Published
from pipeline.document import Rendition
from pipeline.errors import PipelineError
from pipeline.events import STREAM, Event
from pipeline.job import Job, Ref, Step
from pipeline.memory import ManualClock
from pipeline.requests import JobRequest
from pipeline.tasks import Blueprint, IngestFacts
from workers.redis_client import Client
from workers.redis_jobs import RedisJobStore

EVENTS_OF_A_STORY = 13
"""How many events one asset of `Teller.tell` makes."""
VERSIONS_OF_A_STORY = 4
"""accepted, ingested, playable, ready."""


class _ToyPlanner:
    """ingest, then package."""

    def first_steps(self, request: JobRequest) -> tuple[Step, ...]:
        return (Step(id="ingest", stage="ingest"),)

    def grow(self, job: Job, facts: IngestFacts) -> tuple[Blueprint, tuple[Step, ...]]:
        return a_blueprint(), (Step(id="package", stage="package", needs=("ingest",)),)


class Teller:
    """Leads jobs through their lives; time moves only here, a second a move."""

    def __init__(self, client: Client) -> None:
        self.clock = ManualClock()
        self.store = RedisJobStore(client)
        self.conductor = Conductor(
            self.store, self.clock, _ToyPlanner(), {"default": a_profile()}, base_url="https://media.example"
        )

    def tell(self, number: int) -> str:
        """A whole life, from acceptance to `asset.ready`. Returns the asset's id."""
        job = self.accept(number)
        self._do(job, "ingest", Answer(ingest=some_ingest_facts(), source=f"private/{job.asset}.mp4"))
        made = Rendition(name="video-720p", kind="video", codec="avc1.64001f", bandwidth=2_900_000, bytes=3_100_000)
        self._do(
            job, "package", Answer(published=Published(version=1, duration_ms=10_000, segments=3, renditions=(made,)))
        )
        return job.asset

    def accept(self, number: int) -> Job:
        self.clock.advance(1)
        return self.conductor.accept(a_request(id=f"job-{number}", asset_id=f"asset{number:06d}", meta={"n": number}))

    def break_(self, number: int) -> str:
        """A life that ends at its source. Returns the asset's id."""
        job = self.accept(number)
        attempt = self.conductor.begin(Ref(job=job.id, step="ingest"), "worker")
        assert attempt is not None
        assert self.conductor.fail(attempt, PipelineError("video_file_broken"))
        return job.asset

    def _do(self, job: Job, step: str, answer: Answer) -> None:
        self.clock.advance(1)
        attempt = self.conductor.begin(Ref(job=job.id, step=step), "worker")
        assert attempt is not None
        self.clock.advance(1)
        assert self.conductor.finish(attempt, answer)


def all_events(client: Client) -> list[Event]:
    """Everything on the stream, read without any consumer."""
    entries: Any = client.xrange(STREAM)
    return [Event.model_validate_json(fields[b"ce"]) for _, fields in entries]
