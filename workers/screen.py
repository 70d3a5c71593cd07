"""What `process` shows: a row a stage on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from pipeline.document import AssetDocument
from pipeline.job import Job, JobStatus
from pipeline.stages import STAGES

LINE_EVERY_S = 3.0


@dataclass(frozen=True, kw_only=True)
class StageView:
    """One stage of a job as a person sees it."""

    stage: str
    fraction: float
    steps: int
    done: int
    started_ms: int | None
    ended_ms: int | None
    media_s: float
    """Length of the asset; 0 while unknown."""

    def note(self, now_ms: int) -> str:
        """`3/4 · 5.2× · ETA 0:12`, as far as it is known."""
        parts = [f"{self.done}/{self.steps}"] if self.steps > 1 else []
        if self.started_ms is None:
            return " · ".join(parts)
        elapsed = max(0.001, ((self.ended_ms or now_ms) - self.started_ms) / 1000)
        if self.media_s and self.fraction > 0:
            parts.append(f"{self.media_s * self.fraction / elapsed:.1f}× realtime")
        if self.ended_ms is not None:
            parts.append(f"{elapsed:.1f} s")
        elif 0.02 < self.fraction < 1:
            parts.append(f"ETA {clock(elapsed * (1 - self.fraction) / self.fraction)}")
        return " · ".join(parts)


def views(job: Job, fractions: Mapping[str, float]) -> list[StageView]:
    """The stages of the job in the order of the pipeline."""
    media_s = float(job.blueprint.timeline.duration) if job.blueprint else 0.0
    shown = []
    for stage in STAGES:
        steps = [step for step in job.steps.values() if step.stage == stage]
        if not steps:
            continue
        total = sum(step.weight for step in steps) or 1.0
        moved = sum(s.weight * (1.0 if s.status.settled else fractions.get(s.id, 0.0)) for s in steps)
        begun = [step.started_ms for step in steps if step.started_ms is not None]
        ended = [step.ended_ms for step in steps if step.ended_ms is not None]
        complete = all(step.status.settled for step in steps)
        shown.append(
            StageView(
                stage=stage,
                fraction=moved / total,
                steps=len(steps),
                done=sum(step.status.settled for step in steps),
                started_ms=min(begun, default=None),
                ended_ms=max(ended) if complete and ended else None,
                media_s=media_s if stage in ("transcode", "audio") else 0.0,
            )
        )
    return shown


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def length(seconds: float) -> str:
    """How long a clip is; tenths where they say something."""
    return clock(seconds) if seconds >= 10 else f"0:{max(seconds, 0.1):04.1f}"


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


class Screen:
    """Live progress on stderr; use as a context manager and call it with the job."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._rows: dict[str, TaskID] = {}
        self._last_line = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
            refresh_per_second=4,
        )

    def __enter__(self) -> Screen:
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._progress.stop()

    def __call__(self, job: Job, fractions: Mapping[str, float]) -> None:
        if self._live:
            self._draw(views(job, fractions))
        elif job.status is JobStatus.SUCCEEDED or time.monotonic() - self._last_line > LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._console.print(self._line(job, fractions), highlight=False)

    def _draw(self, shown: list[StageView]) -> None:
        now_ms = time.time_ns() // 1_000_000
        for view in shown:
            if view.stage not in self._rows:
                self._rows[view.stage] = self._progress.add_task(view.stage, total=1.0, note="")
            self._progress.update(self._rows[view.stage], completed=view.fraction, note=view.note(now_ms))

    @staticmethod
    def _line(job: Job, fractions: Mapping[str, float]) -> str:
        stages = ", ".join(f"{view.stage} {view.fraction:.0%}" for view in views(job, fractions))
        return f"{job.progress(fractions):4.0%}  {stages}"


def size(count: int | None) -> str:
    """Bytes as a person reads them."""
    value = float(count or 0)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def made_table(document: AssetDocument) -> Table:
    """What was made: a row a rendition."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (
        ("track", "left"),
        ("picture", "left"),
        ("codec", "left"),
        ("peak", "right"),
        ("size", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for made in document.video.renditions:
        picture = f"{made.width}×{made.height} {made.frame_rate:g} fps" if made.kind == "video" else made.language or ""
        table.add_row(made.name, picture, made.codec, f"{made.bandwidth / 1000:.0f} kb/s", size(made.bytes))
    return table


def assets_table(documents: list[AssetDocument]) -> Table:
    """The assets of a folder."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("id", "status", "duration", "renditions", "title"):
        table.add_column(name)
    for document in documents:
        video = document.video
        names = " ".join(made.name.removeprefix("video-") for made in video.renditions if made.kind == "video")
        duration = length(video.duration_ms / 1000) if video.duration_ms else ""
        table.add_row(
            document.id, video.status, duration, names or "sound", document.title or document.orig_filename or ""
        )
    return table
