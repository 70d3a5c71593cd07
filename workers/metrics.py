"""What a worker counts. Base units, bounded labels, and every label at zero from the first second."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from pipeline.errors import CATALOGUE, PipelineError
from pipeline.stages import STAGES

BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600)
"""Seconds: from a package step to hours of video."""
OUTCOMES = ("succeeded", "failed", "lost", "handed_back", "stalled", "timed_out")


class WorkerMetrics:
    """The metrics of one worker process."""

    def __init__(self, stages: tuple[str, ...] = tuple(STAGES), registry: CollectorRegistry = REGISTRY) -> None:
        self.steps = Counter("reelway_steps", "Attempts that ended.", ("stage", "outcome"), registry=registry)
        self.errors = Counter("reelway_step_errors", "Failed attempts by code.", ("stage", "code"), registry=registry)
        self.seconds = Histogram(
            "reelway_step_duration_seconds", "Wall time of an attempt.", ("stage",), buckets=BUCKETS, registry=registry
        )
        self.running = Gauge("reelway_steps_running", "Attempts under way.", ("stage",), registry=registry)
        self.deliveries = Counter(
            "reelway_tickets", "Tickets received, by what became of them.", ("stage", "result"), registry=registry
        )
        for stage in stages:
            self._zero(stage)

    def _zero(self, stage: str) -> None:
        self.seconds.labels(stage)
        self.running.labels(stage)
        for outcome in OUTCOMES:
            self.steps.labels(stage, outcome)
        for code in CATALOGUE:
            self.errors.labels(stage, code)
        for result in ("begun", "refused"):
            self.deliveries.labels(stage, result)

    def ended(self, stage: str, outcome: str, seconds: float) -> None:
        """Count one attempt; `outcome` is one of `OUTCOMES` or an error code."""
        self.steps.labels(stage, outcome if outcome in OUTCOMES else "failed").inc()
        if outcome in CATALOGUE:
            self.errors.labels(stage, outcome).inc()
        self.seconds.labels(stage).observe(seconds)


def serve(port: int) -> None:
    """Serve `/metrics` on loopback and every other address of the machine. Raises `setting_invalid`."""
    try:
        start_http_server(port)
    except (OSError, OverflowError) as error:  # the latter: there is no such port
        detail = f"port {port} cannot be served: {getattr(error, 'strerror', None) or error}"
        raise PipelineError("setting_invalid", name="REELWAY_METRICS_PORT", detail=detail) from error
