"""plan(job, media, profile) → steps: the only place that knows the order.

Pure: the same job gives the same plan on every machine, because everything it depends on (profile, media facts,
encoder build, hint of the fleet's size) lies in the job. A plan starts as `ingest` and grows, in the commit that
settles it, into `transcode` and `audio` steps and the `package` step that needs them all; what adds to the published
asset, as `subtitle` does, needs `package`, is optional, and keeps nobody from watching. A step holds only *which part*
it makes; what to make stands once, in the job's blueprint, so that the record stays small at a thousand steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline import keys
from pipeline.job import Job, Step
from pipeline.media import ladder, languages, rates, timeline
from pipeline.profile import Profile
from pipeline.requests import ProcessRequest
from pipeline.tasks import (
    AudioRendition,
    AudioStream,
    AudioTask,
    Blueprint,
    IngestFacts,
    IngestTask,
    Limits,
    MediaInfo,
    PackageTask,
    Rung,
    SubtitleTask,
    Task,
    TranscodeTask,
)

INGEST = "ingest"
TRANSCODE = "transcode"
AUDIO = "audio"
PACKAGE = "package"
SUBTITLE = "subtitle"

CHUNK_SEGMENTS = 4
"""Segments of a chunk: 16 s cost about 3 % more CPU than a whole-file encode, and lose little when a worker dies."""
MAX_CHUNKS = 300
"""A long video gets longer chunks, not thousands of steps."""

# Relative costs of a second of video, in encoded megapixels at the default preset (benchmarks/ladder.py); only their
# ratio matters to the choice of a split. Scaling reads the whole source picture once for every rung that is smaller.
_DECODE = 0.35
_SCALE = 0.25
_STEP_OVERHEAD = 0.2


def first_steps(request: ProcessRequest) -> tuple[Step, ...]:
    """What is known at acceptance: the source must be brought in and understood."""
    return (Step(id=INGEST, stage=INGEST, weight=0.05),)


def grow(job: Job, facts: IngestFacts) -> tuple[Blueprint, tuple[Step, ...]]:
    """The rest of the plan, once the source is known."""
    profile = Profile.model_validate(job.profile)
    request = ProcessRequest.model_validate(job.request)
    drawn = blueprint(facts, profile, request)
    parts = (*_transcode_steps(drawn, job.workers), *_audio_steps(drawn))
    additions = tuple(_subtitle_steps(drawn, request))
    weight = sum(step.weight for step in (*parts, *additions))
    parts, additions = (
        tuple(_weighed(step, 0.93 * step.weight / weight) for step in steps) for steps in (parts, additions)
    )
    package = Step(id=PACKAGE, stage=PACKAGE, needs=tuple(part.id for part in parts), weight=0.02)
    return drawn, (*parts, package, *additions)


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
            yield _Split(chunks=chunks, groups=_groups(drawn, groups))


def _groups(drawn: Blueprint, count: int) -> tuple[tuple[Rung, ...], ...]:
    """The rungs in `count` groups of about the same cost; the costliest first."""
    groups: list[list[Rung]] = [[] for _ in range(count)]
    for rung in drawn.rungs:
        min(groups, key=lambda group: sum(_rung_cost(drawn, member) for member in group)).append(rung)
    return tuple(tuple(group) for group in groups if group)


def _makespan(drawn: Blueprint, split: _Split, workers: int) -> tuple[float, int]:
    """Estimated time to finish (longest first on `workers`), then the number of steps."""
    costs = sorted((_cost(drawn, *part) for part in itertools.product(split.chunks, split.groups)), reverse=True)
    loads = [0.0] * workers
    for cost in costs:
        loads[loads.index(min(loads))] += cost
    return max(loads), len(costs)


def _cost(drawn: Blueprint, chunk: _Chunk, members: Sequence[Rung]) -> float:
    """Relative cost of a part, decoding included."""
    decode = _DECODE * _source_megapixels(drawn)
    return chunk.seconds * (decode + sum(_rung_cost(drawn, rung) for rung in members)) + _STEP_OVERHEAD


def _rung_cost(drawn: Blueprint, rung: Rung) -> float:
    """Relative cost of a second of one rung."""
    encode, source = rung.width * rung.height / 1e6, _source_megapixels(drawn)
    return encode + (_SCALE * source if encode < source else 0.0)


def _source_megapixels(drawn: Blueprint) -> float:
    video = drawn.media.video
    return video.width * video.height / 1e6 if video else 0.0


def _audio_steps(drawn: Blueprint) -> Iterator[Step]:
    for rendition in drawn.audio:
        yield Step(
            id=rendition.track,
            stage=AUDIO,
            args={"track": rendition.track},
            weight=float(drawn.timeline.duration) * 0.1 + _STEP_OVERHEAD,
        )


def _subtitle_steps(drawn: Blueprint, request: ProcessRequest) -> Iterator[Step]:
    """Captions are added to an asset that can be watched already: they must not keep anybody waiting."""
    if request.generate_subtitle and drawn.media.audio:
        yield Step(
            id=SUBTITLE,
            stage=SUBTITLE,
            args={"language": request.language},
            needs=(PACKAGE,),
            optional=True,
            weight=float(drawn.timeline.duration) * 0.1 + _STEP_OVERHEAD,
        )


def _weighed(step: Step, weight: float) -> Step:
    return replace(step, weight=round(weight, 6))


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
        source_sha256=drawn.media.sha256,
    )


def _audio_task(job: Job, args: Mapping[str, Any]) -> Task:
    drawn = _drawn(job)
    rendition = next(rendition for rendition in drawn.audio if rendition.track == args["track"])
    return AudioTask(
        asset=job.asset,
        source=_source(job),
        rendition=rendition,
        timeline=drawn.timeline,
        encoder=drawn.encoder,
        source_sha256=drawn.media.sha256,
    )


def _package_task(job: Job, _args: Mapping[str, Any]) -> Task:
    receipts = tuple(
        str(job.steps[need].facts["receipt"]) for need in job.steps[PACKAGE].needs if "receipt" in job.steps[need].facts
    )
    return PackageTask(asset=job.asset, blueprint=_drawn(job), receipts=receipts)


def _subtitle_task(job: Job, args: Mapping[str, Any]) -> Task:
    drawn = _drawn(job)
    language = languages.tag(args["language"]) if args["language"] else None
    return SubtitleTask(
        asset=job.asset,
        source=_source(job),
        stream=_spoken(drawn.media.audio, language or "en"),
        timeline=drawn.timeline,
        language=language,
    )


def _spoken(sounds: Sequence[AudioStream], language: str) -> AudioStream:
    """The sound track to listen to: one in this language, else the default one, else the first."""

    def distance(sound: AudioStream) -> tuple[bool, bool]:
        return sound.language.partition("-")[0] != language.partition("-")[0], not sound.default

    return min(sounds, key=distance)


def _drawn(job: Job) -> Blueprint:
    assert job.blueprint is not None, "a step of the grown plan has a blueprint"
    return job.blueprint


def _source(job: Job) -> str:
    return keys.source(job.asset, str(job.request["url"]))


_TASKS = {
    INGEST: _ingest_task,
    TRANSCODE: _transcode_task,
    AUDIO: _audio_task,
    PACKAGE: _package_task,
    SUBTITLE: _subtitle_task,
}
