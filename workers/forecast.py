"""What would be made of a file, and what it would cost: the real plan, not run, and an estimate of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.estimate import BYTES_WITHIN, CPU_WITHIN, Estimate, estimate
from pipeline.job import Job
from pipeline.plan import first_steps, grow
from pipeline.profile import Profile
from pipeline.requests import ProcessRequest
from pipeline.tasks import Blueprint, IngestFacts, MediaInfo
from workers.facts import channels
from workers.screen import counted, length, size

BASIS = "An estimate: half to twice of it is usual, some take far less; `at most` is sure (docs/how-to/any-source.md)."
"""How far it may be trusted, in words."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A job that nobody has asked for, and what it would cost."""

    name: str
    """Of the file."""
    job: Job
    estimate: Estimate

    @property
    def drawn(self) -> Blueprint:
        assert self.job.blueprint is not None, "its plan has grown"
        return self.job.blueprint


def forecast(file: Path, request: ProcessRequest, media: MediaInfo, profile: Profile, *, workers: int) -> Forecast:
    """What the request would become on so many workers."""
    job = Job(
        id=request.id,
        asset=request.asset_id,
        workers=workers,
        request=request.model_dump(mode="json"),
        profile=profile.model_dump(mode="json"),
        steps={step.id: step for step in first_steps(request)},
    )
    blueprint, steps = grow(job, IngestFacts(media=media, encoder=""))
    grown = replace(job, blueprint=blueprint).with_steps(*steps)
    return Forecast(name=file.name, job=grown, estimate=estimate(grown))


# -- as JSON ----------------------------------------------------------------------------------------------------------


def document(said: Forecast) -> dict[str, Any]:
    """Everything, for scripts. Times are seconds, sizes bytes, rates bits a second."""
    drawn, costs = said.drawn, said.estimate
    sizes = {track.name: {"bytes": track.bytes, "most_bytes": track.most_bytes} for track in costs.tracks}
    return {
        "file": said.name,
        "duration_s": round(float(drawn.timeline.duration), 3),
        "frame_rate": round(float(drawn.timeline.rate), 3),
        "workers": said.job.workers,
        "video": [
            {
                "track": rung.track,
                "width": rung.width,
                "height": rung.height,
                "crf": rung.crf,
                "maxrate": rung.maxrate,
                **sizes[rung.track],
            }
            for rung in drawn.rungs
        ],
        "audio": [
            {
                "track": sound.track,
                "language": sound.stream.language,
                "bitrate": sound.bitrate,
                "channels": sound.channels,
                **sizes[sound.track],
            }
            for sound in drawn.audio
        ],
        "text": [
            {"language": text.language, "codec": text.codec, "title": text.title, "cues": text.cues}
            for text in drawn.media.text
            if text.file is not None
        ],
        "steps": [
            {"id": step.id, "stage": step.stage, "needs": list(step.needs), "cpu_s": round(costs.steps[step.id], 2)}
            for step in said.job.steps.values()
        ],
        "estimate": {
            "cpu_s": round(costs.cpu_s, 1),
            "ready_s": round(costs.ready_s, 1),
            "bytes": costs.bytes,
            "most_bytes": costs.most_bytes,
            "cpu_within": CPU_WITHIN,
            "bytes_within": BYTES_WITHIN,
            "basis": BASIS,
        },
    }


# -- for people -------------------------------------------------------------------------------------------------------


def show(console: Console, said: Forecast) -> None:
    drawn, costs = said.drawn, said.estimate
    head = f"{said.name}  {length(float(drawn.timeline.duration))} · {size(drawn.media.size)}"
    console.print(head, markup=False, highlight=False, soft_wrap=True)
    console.print()
    tracks = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("track", "what it is", "about", "at most"):
        tracks.add_column(name, justify="right" if name.startswith("a") else "left", overflow="fold")
    sizes = {track.name: track for track in costs.tracks}
    for name, words in _tracks(drawn):
        track = sizes.get(name)
        tracks.add_row(name, words, size(track.bytes) if track else "", size(track.most_bytes) if track else "")
    console.print(tracks, highlight=False)
    console.print()
    for title, line in _lines(said):
        console.print(f"{title:<9} {line}", markup=False, highlight=False, soft_wrap=True)


def _tracks(drawn: Blueprint) -> Iterator[tuple[str, str]]:
    for rung in drawn.rungs:
        cap = f"at most {rung.maxrate / 1000:g} kb/s"
        yield rung.track, f"{rung.width}×{rung.height} · H.264 CRF {rung.crf:g}, {cap}"
    for sound in drawn.audio:
        yield sound.track, f"AAC {sound.bitrate / 1000:g} kb/s · from {sound.stream.codec} {channels(sound.stream)}"
    for text in drawn.media.text:
        if text.file is not None:
            yield f"text {text.language}", f"{counted(text.cues, 'cue')} · from {text.codec}"


def _lines(said: Forecast) -> Iterator[tuple[str, str]]:
    costs, workers = said.estimate, said.job.workers
    yield "steps", f"{len(said.job.steps)}: {_counted(said.job)}"
    ready = f"ready after about {costs.ready_s:.0f} s on {counted(workers, 'worker')}"
    yield "cpu", f"about {costs.cpu_s:.0f} s of one core; {ready}"
    yield "storage", f"about {size(costs.bytes)}, at most {size(costs.most_bytes)}"
    yield "note", BASIS


def _counted(job: Job) -> str:
    counts: Mapping[str, int] = Counter(step.stage for step in job.steps.values())
    return ", ".join(f"{count} {stage}" for stage, count in counts.items())
