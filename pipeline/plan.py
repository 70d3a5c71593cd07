"""plan(job, media, profile) → steps: the only place that knows the order.

Pure: the same job gives the same plan on every machine, because everything it depends on (profile, media facts,
encoder build, hint of the fleet's size) lies in the job. A plan starts as `ingest` and grows, in the commit that
settles it, into `transcode` and `audio` steps and the `package` step that needs them all; what adds to the published
asset, as `subtitle` does, needs `package`, is optional, and keeps nobody from watching. Asked of a ready asset, a stage
comes alone: `package` and `subtitle` as the only step of a job, `transcode` and `audio` by a `reprocess`. A step holds
only *which part* it makes; what to make stands once, in the job's blueprint, so that the record stays small at a
thousand steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Literal

from pipeline import cuts, keys
from pipeline.job import Job, Step
from pipeline.media import ladder, languages, rates
from pipeline.profile import Profile
from pipeline.requests import (
    ClipRequest,
    DuplicateRequest,
    ExportRequest,
    JobRequest,
    ProcessRequest,
    RepackageRequest,
    ReprocessRequest,
    RevertTrimRequest,
    RollBackRequest,
    SubtitleRequest,
    TrimRequest,
    request_of,
)
from pipeline.split import STEP_S, cost, split
from pipeline.tasks import (
    AudioRendition,
    AudioStream,
    AudioTask,
    Blueprint,
    ExportTask,
    IngestFacts,
    IngestTask,
    MediaInfo,
    PackageTask,
    ReviseTask,
    Rung,
    SubtitleTask,
    Task,
    TranscodeTask,
    TrimTask,
)

INGEST = "ingest"
TRANSCODE = "transcode"
AUDIO = "audio"
PACKAGE = "package"
SUBTITLE = "subtitle"
TRIM = "trim"
EXPORT = "export"

ADDED_S = 0.05
"""Seconds of one core that a second of sound or of speech takes, about."""


def first_steps(request: JobRequest) -> tuple[Step, ...]:
    """What is known at acceptance: a source must be brought in and understood; a stage that is asked for alone."""
    if isinstance(request, ProcessRequest | ReprocessRequest):
        return (Step(id=INGEST, stage=INGEST, weight=0.05),)
    if type(request) not in _ALONE:
        return ()
    stage, args = _ALONE[type(request)](request)
    return (Step(id=stage, stage=stage, args=args),)


def _trim_alone(request: TrimRequest) -> tuple[str, Mapping[str, Any]]:
    return (PACKAGE, {"change": "preview"}) if request.preview else (TRIM, {})


def _export_alone(request: ExportRequest) -> tuple[str, Mapping[str, Any]]:
    return EXPORT, {
        "rung": request.resolution,
        "audio": list(request.audio),
        "captions": list(request.captions),
    }


_ALONE: Mapping[type[Any], Callable[[Any], tuple[str, Mapping[str, Any]]]] = {
    RepackageRequest: lambda _: (PACKAGE, {}),
    SubtitleRequest: lambda request: (SUBTITLE, {"language": request.language}),
    TrimRequest: _trim_alone,
    RevertTrimRequest: lambda _: (PACKAGE, {"change": "revert"}),
    RollBackRequest: lambda request: (PACKAGE, {"change": "roll_back", "version": request.version}),
    ClipRequest: lambda request: (TRIM, {"of": request.asset_id}),
    DuplicateRequest: lambda request: (TRIM, {"of": request.asset_id}),
    ExportRequest: _export_alone,
}
"""Stage and arguments of what is asked of a ready asset. The range of a trim or a clip is settled at acceptance."""


def grow(job: Job, facts: IngestFacts) -> tuple[Blueprint, tuple[Step, ...]]:
    """The rest of the plan, once the source is known."""
    profile = Profile.model_validate(job.profile)
    request = request_of(job.request)
    assert isinstance(request, ProcessRequest | ReprocessRequest), "nothing else has an ingest step"
    drawn = blueprint(facts, profile, request)
    if isinstance(request, ReprocessRequest):
        drawn = _to_be_made(drawn, request, facts.present)
        if not (drawn.rungs or drawn.audio):
            return drawn, ()
    parts = (*_transcode_steps(drawn, job.workers), *_audio_steps(drawn))
    additions = tuple(_subtitle_steps(drawn, request))
    weight = sum(step.weight for step in (*parts, *additions))
    parts, additions = (
        tuple(_weighed(step, 0.93 * step.weight / weight) for step in steps) for steps in (parts, additions)
    )
    package = Step(
        id=PACKAGE, stage=PACKAGE, args=_shown(drawn, request), needs=tuple(part.id for part in parts), weight=0.02
    )
    return drawn, (*parts, package, *additions)


def _shown(drawn: Blueprint, request: ProcessRequest | ReprocessRequest) -> Mapping[str, Any]:
    """The part that the first version plays. Raises `trim_range_invalid`: how long the source is, is known by now."""
    if not (isinstance(request, ProcessRequest) and request.given):
        return {}
    return cuts.as_args(*cuts.settle(request, drawn.timeline))


def blueprint(facts: IngestFacts, profile: Profile, request: ProcessRequest | ReprocessRequest) -> Blueprint:
    """Decide the whole output: grid, rungs and sound tracks."""
    media = facts.media
    return Blueprint(
        media=media,
        timeline=rates.timeline_of(media, segment=profile.segment_seconds, keyframe=profile.keyframe_seconds),
        rungs=rungs(media, profile, request.resolutions or profile.resolutions),
        audio=audio_renditions(media, profile),
        encoder=facts.encoder,
    )


def _to_be_made(drawn: Blueprint, request: ReprocessRequest, present: Sequence[str]) -> Blueprint:
    """Of a ready asset: everything of the stages that are asked for again, else what it lacks."""
    if request.again:
        return replace(
            drawn,
            rungs=drawn.rungs if TRANSCODE in request.again else (),
            audio=drawn.audio if AUDIO in request.again else (),
        )
    return replace(
        drawn,
        rungs=tuple(rung for rung in drawn.rungs if rung.track not in present),
        audio=tuple(sound for sound in drawn.audio if sound.track not in present),
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
        AudioRendition(
            track=f"audio-{number}-{stream.language.lower()}",
            stream=stream,
            bitrate=profile.audio.bitrate,
            loudness=profile.audio.loudness,
        )
        for number, stream in enumerate(media.audio, start=1)
    )


# -- the steps of the parts -------------------------------------------------------------------------------------------


def _transcode_steps(drawn: Blueprint, workers: int) -> Iterator[Step]:
    for part in split(drawn, workers) if drawn.rungs else ():
        yield Step(
            id=f"{TRANSCODE}-{part.name}",
            stage=TRANSCODE,
            args={"first": part.chunk.first, "last": part.chunk.last, "rungs": [rung.name for rung in part.rungs]},
            weight=cost(drawn, part),
        )


def _audio_steps(drawn: Blueprint) -> Iterator[Step]:
    for rendition in drawn.audio:
        yield Step(
            id=rendition.track,
            stage=AUDIO,
            args={"track": rendition.track},
            weight=float(drawn.timeline.duration) * ADDED_S + STEP_S,
        )


def _subtitle_steps(drawn: Blueprint, request: ProcessRequest | ReprocessRequest) -> Iterator[Step]:
    """Captions are added to an asset that can be watched already: they must not keep anybody waiting."""
    if isinstance(request, ProcessRequest) and request.generate_subtitle and drawn.media.audio:
        yield Step(
            id=SUBTITLE,
            stage=SUBTITLE,
            args={"language": request.language},
            needs=(PACKAGE,),
            optional=True,
            weight=float(drawn.timeline.duration) * ADDED_S + STEP_S,
        )


def _weighed(step: Step, weight: float) -> Step:
    return replace(step, weight=round(weight, 6))


# -- what a step is asked ---------------------------------------------------------------------------------------------


def task(job: Job, step: Step) -> Task:
    """The whole task of a step: its few arguments and the job's blueprint."""
    return _TASKS[step.stage](job, step.args)


def _ingest_task(job: Job, _args: Mapping[str, Any]) -> Task:
    return IngestTask(
        asset=job.asset,
        url=str(job.request.get("url", "")),
        source=_source(job),
        known="url" not in job.request or job.fetched,
        in_place=bool(job.request.get("in_place")),
        limits=job.limits,
    )


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


def _package_task(job: Job, args: Mapping[str, Any]) -> Task:
    if "change" in args:
        return _revise_task(job, args)
    receipts = tuple(
        str(job.steps[need].facts["receipt"]) for need in job.steps[PACKAGE].needs if "receipt" in job.steps[need].facts
    )
    if not receipts:  # asked for alone: the tracks stay what they are
        return PackageTask(asset=job.asset, blueprint=replace(_drawn(job), rungs=(), audio=()), receipts=())
    return PackageTask(
        asset=job.asset,
        blueprint=_drawn(job),
        receipts=receipts,
        replaces=_replaced(job),
        trimmed=_range(args) if "start" in args else None,
    )


def _replaced(job: Job) -> tuple[Literal["video", "audio"], ...]:
    """What is made again takes the place of all that there was of its kind."""
    request = request_of(job.request)
    again = request.again if isinstance(request, ReprocessRequest) else ()
    return tuple(_KINDS[stage] for stage in again)


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


def _trim_task(job: Job, args: Mapping[str, Any]) -> Task:
    drawn = _drawn(job)
    start, stop = _range(args)
    return TrimTask(
        asset=job.asset,
        source=job.source,  # none, where it is gone: cuts at keyframes do without
        start=start,
        stop=stop,
        timeline=drawn.timeline,
        video=drawn.media.video,
        seekable=drawn.media.seekable,
        encoder=drawn.encoder,
        source_sha256=drawn.media.sha256,
        of=args.get("of", ""),
    )


def _revise_task(job: Job, args: Mapping[str, Any]) -> Task:
    start, stop = _range(args)
    return ReviseTask(asset=job.asset, change=args["change"], version=args.get("version", 0), start=start, stop=stop)


def _export_task(job: Job, args: Mapping[str, Any]) -> Task:
    return ExportTask(asset=job.asset, rung=args["rung"], audio=tuple(args["audio"]), captions=tuple(args["captions"]))


def _range(args: Mapping[str, Any]) -> tuple[Fraction, Fraction | None]:
    """Seconds on the source's timeline, as they were settled at acceptance (`pipeline.cuts`); else all of it."""
    stop = args.get("stop")
    return Fraction(args.get("start", "0")), None if stop is None else Fraction(stop)


def _drawn(job: Job) -> Blueprint:
    assert job.blueprint is not None, "a step of the grown plan has a blueprint"
    return job.blueprint


def _source(job: Job) -> str:
    return job.source or keys.source(job.asset, str(job.request["url"]))


_KINDS: Mapping[str, Literal["video", "audio"]] = {TRANSCODE: "video", AUDIO: "audio"}

_TASKS = {
    INGEST: _ingest_task,
    TRANSCODE: _transcode_task,
    AUDIO: _audio_task,
    PACKAGE: _package_task,
    SUBTITLE: _subtitle_task,
    TRIM: _trim_task,
    EXPORT: _export_task,
}
