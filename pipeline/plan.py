"""plan(job, media, profile) → steps: the only place that knows the order.

Pure: the same job gives the same plan on every machine, because everything it depends on (profile, media facts,
encoder build, hint of the fleet's size) lies in the job. A plan starts as `ingest` and grows, in the commit that
settles it, into `transcode` and `audio` steps and the `package` step that needs them all. A step holds only *which
part* it makes; what to make stands once, in the job's blueprint, so that the record stays small at a thousand steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import keys
from pipeline.job import Job, Step
from pipeline.media import ladder, rates, timeline
from pipeline.profile import Profile
from pipeline.requests import ProcessRequest
from pipeline.tasks import (
    AudioRendition,
    AudioTask,
    Blueprint,
    IngestFacts,
    IngestTask,
    Limits,
    MediaInfo,
    PackageTask,
    Rung,
    Task,
    TranscodeTask,
)

INGEST = "ingest"
TRANSCODE = "transcode"
AUDIO = "audio"
PACKAGE = "package"

CHUNK_SEGMENTS = 4
"""Segments of a chunk: 16 s cost about 3 % more CPU than a whole-file encode, and lose little when a worker dies."""
MAX_CHUNKS = 300
"""A long video gets longer chunks, not thousands of steps."""

# Relative costs, measured per pixel of output at the default preset; only their ratio matters to the choice of a split.
_DECODE = 0.3
_STEP_OVERHEAD_S = 0.5


def first_steps(request: ProcessRequest) -> tuple[Step, ...]:
    """What is known at acceptance: the source must be brought in and understood."""
    return (Step(id=INGEST, stage=INGEST, weight=0.05),)


def grow(job: Job, facts: IngestFacts) -> tuple[Blueprint, tuple[Step, ...]]:
    """The rest of the plan, once the source is known."""
    profile = Profile.model_validate(job.profile)
    request = ProcessRequest.model_validate(job.request)
    drawn = blueprint(facts, profile, request)
    parts = (*_transcode_steps(drawn, job.workers), *_audio_steps(drawn))
    weight = sum(part.weight for part in parts)
    parts = tuple(_weighed(part, 0.93 * part.weight / weight) for part in parts)
    package = Step(id=PACKAGE, stage=PACKAGE, needs=tuple(part.id for part in parts), weight=0.02)
    return drawn, (*parts, package)


def blueprint(facts: IngestFacts, profile: Profile, request: ProcessRequest) -> Blueprint:
    """Decide the whole output: grid, rungs and sound tracks."""
    media = facts.media
    return Blueprint(
        media=media,
        timeline=rates.timeline_of(media, segment=profile.segment_seconds, keyframe=profile.keyframe_seconds),
        rungs=rungs(media, profile, request.resolutions or profile.resolutions),
        audio=audio_renditions(media, profile),
        encoder=facts.encoder,
    )


def rungs(media: MediaInfo, profile: Profile, asked: Sequence[str]) -> tuple[Rung, ...]:
    """The rungs that this source fills, largest first."""
    if media.video is None:
        return ()
    return tuple(_rung(profile, *size) for size in ladder.sizes(media.video.display_size, asked))


def _rung(profile: Profile, name: str, width: int, height: int) -> Rung:
    limits = profile.ladder.get(name) or profile.ladder[_smallest_box(width * height)]
    return Rung(
        name=name,
        width=width,
        height=height,
        crf=limits.crf if limits.crf is not None else profile.video.crf,
        maxrate=limits.maxrate,
        bufsize=round(limits.maxrate * profile.video.bufsize_seconds),
        preset=profile.video.preset,
        profile=profile.video.profile,
        options=tuple(profile.video.options.items()),
    )


def _smallest_box(pixels: int) -> str:
    """The rung whose limits suit a source that is smaller than every asked rung."""
    boxes = sorted(ladder.BOXES.items(), key=lambda item: item[1][0] * item[1][1])
    return next((name for name, (width, height) in boxes if width * height >= pixels), boxes[-1][0])


def audio_renditions(media: MediaInfo, profile: Profile) -> tuple[AudioRendition, ...]:
    return tuple(
        AudioRendition(track=f"audio-{number}-{stream.language.lower()}", stream=stream, bitrate=profile.audio.bitrate)
        for number, stream in enumerate(media.audio, start=1)
    )


# -- splitting the picture --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """A run of segments [first, last)."""

    first: int
    last: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Split:
    """One way to share the picture's work: runs of segments × groups of rungs."""

    chunks: tuple[_Chunk, ...]
    groups: tuple[tuple[Rung, ...], ...]


def _transcode_steps(drawn: Blueprint, workers: int) -> Iterator[Step]:
    if not drawn.rungs:
        return
    split = min(_splits(drawn, workers), key=lambda candidate: _makespan(drawn, candidate, workers))
    for (number, chunk), (group, members) in itertools.product(enumerate(split.chunks), enumerate(split.groups)):
        yield Step(
            id=f"{TRANSCODE}-{number:03d}" + (f"-{group}" if len(split.groups) > 1 else ""),
            stage=TRANSCODE,
            args={"first": chunk.first, "last": chunk.last, "rungs": [rung.name for rung in members]},
            weight=_cost(drawn, chunk, members),
        )


def _splits(drawn: Blueprint, workers: int) -> Iterator[_Split]:
    """Every split worth comparing: full chunks first; shorter ones and rung groups where workers would stay idle."""
    bounds = (*timeline.segment_starts(drawn.timeline), drawn.timeline.frames)
    segments = len(bounds) - 1
    longest = max(CHUNK_SEGMENTS, -(-segments // MAX_CHUNKS))
    if drawn.media.video is None or not drawn.media.seekable:
        longest = segments
    lengths = [longest] if -(-segments // longest) >= 2 * workers else range(longest, 0, -1)
    for length in lengths:
        if not drawn.media.seekable and length < segments:
            return
        runs = [(at, min(at + length, segments)) for at in range(0, segments, length)]
        chunks = tuple(
            _Chunk(first=first, last=last, seconds=float((bounds[last] - bounds[first]) / drawn.timeline.rate))
            for first, last in runs
        )
        for groups in range(1, min(workers, len(drawn.rungs)) + 1):
            yield _Split(chunks=chunks, groups=_groups(drawn.rungs, groups))


def _groups(ladder_: Sequence[Rung], count: int) -> tuple[tuple[Rung, ...], ...]:
    """The rungs in `count` groups of about the same number of pixels; largest first."""
    groups: list[list[Rung]] = [[] for _ in range(count)]
    for rung in ladder_:
        min(groups, key=lambda group: sum(_pixels(member) for member in group)).append(rung)
    return tuple(tuple(group) for group in groups if group)


def _makespan(drawn: Blueprint, split: _Split, workers: int) -> tuple[float, int]:
    """Estimated time to finish (longest first on `workers`), then the number of steps."""
    costs = sorted((_cost(drawn, *part) for part in itertools.product(split.chunks, split.groups)), reverse=True)
    loads = [0.0] * workers
    for cost in costs:
        loads[loads.index(min(loads))] += cost
    return max(loads), len(costs)


def _cost(drawn: Blueprint, chunk: _Chunk, members: Sequence[Rung]) -> float:
    """Relative cost of a part: seconds × megapixels a frame, decoding included."""
    video = drawn.media.video
    decode = _DECODE * video.width * video.height if video else 0.0
    return chunk.seconds * (decode + sum(_pixels(rung) for rung in members)) / 1e6 + _STEP_OVERHEAD_S


def _pixels(rung: Rung) -> int:
    return rung.width * rung.height


def _audio_steps(drawn: Blueprint) -> Iterator[Step]:
    for rendition in drawn.audio:
        yield Step(
            id=rendition.track,
            stage=AUDIO,
            args={"track": rendition.track},
            weight=float(drawn.timeline.duration) * 0.05 + _STEP_OVERHEAD_S,
        )


def _weighed(step: Step, weight: float) -> Step:
    return Step(id=step.id, stage=step.stage, args=step.args, needs=step.needs, weight=round(weight, 6))


# -- what a step is asked ---------------------------------------------------------------------------------------------


def task(job: Job, step: Step) -> Task:
    """The whole task of a step: its few arguments and the job's blueprint."""
    return _TASKS[step.stage](job, step.args)


def _ingest_task(job: Job, _args: Mapping[str, Any]) -> Task:
    request = ProcessRequest.model_validate(job.request)
    return IngestTask(asset=job.asset, url=request.url, source=keys.source(job.asset, request.url), limits=Limits())


def _transcode_task(job: Job, args: Mapping[str, Any]) -> Task:
    drawn = _drawn(job)
    assert drawn.media.video is not None
    return TranscodeTask(
        asset=job.asset,
        source=_source(job),
        video=drawn.media.video,
        timeline=drawn.timeline,
        rungs=tuple(rung for rung in drawn.rungs if rung.name in args["rungs"]),
        first_segment=args["first"],
        last_segment=args["last"],
        seekable=drawn.media.seekable,
        encoder=drawn.encoder,
    )


def _audio_task(job: Job, args: Mapping[str, Any]) -> Task:
    drawn = _drawn(job)
    rendition = next(rendition for rendition in drawn.audio if rendition.track == args["track"])
    return AudioTask(
        asset=job.asset, source=_source(job), rendition=rendition, timeline=drawn.timeline, encoder=drawn.encoder
    )


def _package_task(job: Job, _args: Mapping[str, Any]) -> Task:
    receipts = tuple(
        str(job.steps[need].facts["receipt"]) for need in job.steps[PACKAGE].needs if "receipt" in job.steps[need].facts
    )
    return PackageTask(asset=job.asset, blueprint=_drawn(job), receipts=receipts)


def _drawn(job: Job) -> Blueprint:
    assert job.blueprint is not None, "a step of the grown plan has a blueprint"
    return job.blueprint


def _source(job: Job) -> str:
    return keys.source(job.asset, str(job.request["url"]))


_TASKS = {INGEST: _ingest_task, TRANSCODE: _transcode_task, AUDIO: _audio_task, PACKAGE: _package_task}
