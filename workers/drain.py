"""Whether anything is left to do for some stages: what a worker asks that ends by itself when its queues are empty.

A step that waits for others is nothing yet: what it waits for is. A step that waits for its *retry* is something, and
only a worker that is alive will wake it. So are a request that nobody has answered, and a deletion that is not done:
they have no step, and whoever ends now may have been the last to look.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from pipeline.acceptance import DELETE
from pipeline.errors import PipelineError
from pipeline.job import JOB_LEVEL, Job, Status
from pipeline.requests import STREAM
from workers.redis_client import answering
from workers.redis_jobs import RedisJobStore

LOOKED_AT = 200
"""Due entries that are looked at for retries, soonest first."""

log = structlog.get_logger("reelway.worker")


class Remainder:
    """What is left for `stages`, and where we take `requests`, for those who do."""

    def __init__(self, store: RedisJobStore, stages: Sequence[str], *, requests: bool) -> None:
        self.store = store
        self.stages = frozenset(stages)
        self.requests = requests

    def none(self) -> bool:
        """Nothing is ready, under way, or about to be tried again. False also while Redis does not answer."""
        try:
            return not (self._asked() or self._queued() or self._scheduled())
        except PipelineError as error:
            log.warning("cannot look", action="drain.failed", code=error.code)
            return False

    def _asked(self) -> bool:
        """Some request is on the stream: one that is answered is deleted from it."""
        with answering():
            return self.requests and bool(self.store.client.xlen(STREAM))

    def _queued(self) -> bool:
        return any(
            queue.taken or (sum(queue.ready.values()) and not queue.paused)
            for queue in self.store.queues()
            if queue.stage in self.stages
        )

    def _scheduled(self) -> bool:
        """Some step of ours waits for its retry, or an asset for its deletion."""
        refs = self.store.scheduled(LOOKED_AT)
        jobs = filter(None, map(self.store.job, sorted({ref.job for ref in refs})))
        deletions = {ref.job for ref in refs if ref.step == JOB_LEVEL}
        return any(self._retrying(job) or (job.id in deletions and _deleting(job)) for job in jobs)

    def _retrying(self, job: Job) -> bool:
        return not job.held and any(
            step.status is Status.RETRYING and step.stage in self.stages for step in job.steps.values()
        )


def _deleting(job: Job) -> bool:
    return job.kind == DELETE and not job.status.ended
