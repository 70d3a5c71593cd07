"""The plan is a pure function of the job: canned media facts in, steps out; no file is opened."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from pipeline import plan
from pipeline.job import Job, Status
from pipeline.media import timeline
from pipeline.requests import (
    DeleteRequest,
    ExpireRequest,
    JobRequest,
    ProcessRequest,
    RepackageRequest,
    ReprocessRequest,
    SubtitleRequest,
)
from pipeline.tasks import (
    AudioStream,
    IngestFacts,
    IngestTask,
    MediaInfo,
    PackageTask,
    SubtitleTask,
    TranscodeTask,
    VideoStream,
)
from tests.builders import a_profile


def media(
    seconds: int = 60, size: tuple[int, int] = (1920, 1080), *, sound: int = 1, seekable: bool = True
) -> MediaInfo:
    video = VideoStream(
        index=0, codec="h264", width=size[0], height=size[1], rate=Fraction(25), frames=25 * seconds,
        start=Fraction(0), end=Fraction(seconds),
    )  # fmt: skip
    audio = tuple(
        AudioStream(
            index=1 + number, codec="aac", channels=2, layout="stereo", sample_rate=48000, language="en",
            start=Fraction(0), end=Fraction(seconds),
        )
        for number in range(sound)
    )  # fmt: skip
    return MediaInfo(
        format="mp4",
        size=1000,
        duration=Fraction(seconds),
        start=Fraction(0),
        video=video,
        audio=audio,
        seekable=seekable,
    )


def a_job(workers: int = 2, resolutions: tuple[str, ...] = ("1080p", "720p", "240p"), **wishes: Any) -> Job:
    request = ProcessRequest(url="/films/a.mp4", resolutions=resolutions, **wishes)
    return Job(
        id=request.id,
        asset=request.asset_id,
        workers=workers,
        request=request.model_dump(mode="json"),
        profile=a_profile().model_dump(mode="json"),
        steps={step.id: step for step in plan.first_steps(request)},
    )


def grown(info: MediaInfo, job: Job | None = None) -> Job:
    job = job or a_job()
    blueprint, steps = plan.grow(job, IngestFacts(media=info, encoder="x264-165"))
    return replace(job, blueprint=blueprint, steps={**job.steps, **{step.id: step for step in steps}})


def transcodes(job: Job) -> list[TranscodeTask]:
    tasks = [plan.task(job, step) for step in job.steps.values() if step.stage == "transcode"]
    return [task for task in tasks if isinstance(task, TranscodeTask)]


@pytest.mark.parametrize("seconds", [1, 5, 17, 60, 600, 36_000])
@pytest.mark.parametrize("workers", [1, 2, 16])
def test_every_segment_of_every_rung_is_made_exactly_once(seconds: int, workers: int) -> None:
    job = grown(media(seconds), a_job(workers))
    made = [
        (rung.name, number)
        for task in transcodes(job)
        for rung in task.rungs
        for number in range(task.first_segment, task.last_segment)
    ]
    assert job.blueprint is not None
    segments = range(len(timeline.segment_starts(job.blueprint.timeline)))
    assert sorted(made) == sorted((rung.name, number) for rung in job.blueprint.rungs for number in segments)


def test_package_needs_every_part_and_nothing_else_waits() -> None:
    job = grown(media(sound=2))
    parts = {step.id for step in job.steps.values() if step.stage in ("transcode", "audio")}
    assert set(job.steps["package"].needs) == parts
    assert all(not job.steps[part].needs for part in parts)


def test_a_short_clip_uses_every_worker() -> None:
    """One segment cannot be cut in time, so the ladder is split between the steps."""
    tasks = transcodes(grown(media(4), a_job(workers=2)))
    assert len(tasks) == 2
    assert {rung.name for task in tasks for rung in task.rungs} == {"1080p", "720p", "240p"}


@pytest.mark.parametrize(("workers", "steps"), [(2, 300), (10_000, 1000)])
def test_a_long_video_does_not_become_thousands_of_steps(workers: int, steps: int) -> None:
    assert len(transcodes(grown(media(36_000), a_job(workers)))) <= steps


def test_steps_sort_by_name_as_they_lie_in_the_video() -> None:
    """The ready index gives out a job's steps by name: the first chunks first."""
    tasks = transcodes(grown(media(3600), a_job(1000)))

    assert [task.first_segment for task in tasks] == sorted(task.first_segment for task in tasks)
    names = [step.id for step in grown(media(3600), a_job(1000)).steps.values() if step.stage == "transcode"]
    assert names == sorted(names)


def test_a_source_that_cannot_be_seeked_is_one_chunk() -> None:
    assert {(task.first_segment, task.last_segment) for task in transcodes(grown(media(60, seekable=False)))} == {
        (0, 15)
    }


def test_the_plan_is_the_same_on_every_machine() -> None:
    job = a_job(workers=7)
    assert grown(media(90), job) == grown(media(90), job)


def test_weights_add_up_to_the_whole_job() -> None:
    job = grown(media(61, sound=3))
    assert sum(step.weight for step in job.steps.values()) == pytest.approx(1.0, abs=1e-4)


def test_sound_alone_has_no_transcode_step() -> None:
    job = grown(replace(media(), video=None))
    assert [step.stage for step in job.steps.values()] == ["ingest", "audio", "package"]
    assert all(step.status is Status.WAITING for step in job.steps.values() if step.stage != "ingest")


def test_a_source_below_every_asked_rung_gets_one_of_its_own_size() -> None:
    job = grown(media(size=(320, 178)), a_job(resolutions=("720p",)))
    assert job.blueprint is not None
    assert [(rung.name, rung.width, rung.height) for rung in job.blueprint.rungs] == [("178p", 320, 178)]


# -- captions ---------------------------------------------------------------------------------------------------------


def subtitle_task(job: Job) -> SubtitleTask:
    task = plan.task(job, job.steps["subtitle"])
    assert isinstance(task, SubtitleTask)
    return task


def sounds(*languages: str, default: int = 0) -> tuple[AudioStream, ...]:
    one = media().audio[0]
    return tuple(
        replace(one, index=1 + number, language=language, default=number == default)
        for number, language in enumerate(languages)
    )


def test_captions_are_added_to_what_plays_already() -> None:
    job = grown(media(), a_job(generate_subtitle=True))
    step = job.steps["subtitle"]

    assert (step.stage, step.needs, step.optional) == ("subtitle", ("package",), True)
    assert "subtitle" not in job.steps["package"].needs
    assert sum(each.weight for each in job.steps.values()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("wishes", [{}, {"generate_subtitle": False}])
def test_captions_come_only_when_asked_for(wishes: dict[str, Any]) -> None:
    assert "subtitle" not in grown(media(), a_job(**wishes)).steps


def test_without_sound_there_is_nothing_to_hear() -> None:
    assert "subtitle" not in grown(media(sound=0), a_job(generate_subtitle=True)).steps


@pytest.mark.parametrize(
    ("languages", "default", "asked", "heard"),
    [
        (("de", "en"), 0, None, "en"),
        (("de", "en-gb"), 0, None, "en-gb"),
        (("de", "fr"), 1, None, "fr"),
        (("de", "fr"), 1, "de", "de"),
        (("de", "fr"), 1, "deu", "de"),
        (("de", "fr"), 0, "ta", "de"),
    ],
)
def test_the_sound_that_is_heard_is_in_the_language_or_the_default_one(
    languages: tuple[str, ...], default: int, asked: str | None, heard: str
) -> None:
    info = replace(media(), audio=sounds(*languages, default=default))

    task = subtitle_task(grown(info, a_job(generate_subtitle=True, language=asked)))

    assert task.stream.language == heard
    assert task.language == {None: None, "deu": "de"}.get(asked, asked)


# -- a ready asset ----------------------------------------------------------------------------------------------------

ASSET = "8x7k2m9qpza"


def a_job_of(request: JobRequest, **changes: Any) -> Job:
    steps = {step.id: step for step in plan.first_steps(request)}
    return Job(
        id=request.id,
        asset=ASSET,
        kind=request.kind,
        workers=2,
        request=request.model_dump(mode="json"),
        profile=a_profile().model_dump(mode="json"),
        source=f"private/{ASSET}.mov",
        steps=steps,
        **changes,
    )


def again(job: Job, *present: str) -> Job:
    blueprint, steps = plan.grow(job, IngestFacts(media=media(), encoder="x264-165", present=present))
    return replace(job, blueprint=blueprint, steps={**job.steps, **{step.id: step for step in steps}})


def packaged(job: Job) -> PackageTask:
    task = plan.task(job, job.steps["package"])
    assert isinstance(task, PackageTask)
    return task


def test_a_deletion_and_an_expiry_have_no_steps() -> None:
    assert plan.first_steps(DeleteRequest(ids=(ASSET,))) == ()
    assert plan.first_steps(ExpireRequest(asset_id=ASSET, expire_at=0)) == ()


def test_a_source_that_is_known_is_not_fetched_and_lies_where_it_lay() -> None:
    job = a_job_of(ReprocessRequest(asset_id=ASSET))
    task = plan.task(job, job.steps["ingest"])

    assert isinstance(task, IngestTask)
    assert (task.known, task.url, task.source) == (True, "", f"private/{ASSET}.mov")


def test_only_what_is_missing_is_made_and_stands_in_the_blueprint() -> None:
    job = again(a_job_of(ReprocessRequest(asset_id=ASSET, resolutions=("240p", "480p"))), "video-240p", "audio-1-en")

    assert job.blueprint is not None
    assert [rung.name for rung in job.blueprint.rungs] == ["480p"]
    assert job.blueprint.audio == ()
    assert {step.stage for step in job.steps.values()} == {"ingest", "transcode", "package"}
    assert sum(step.weight for step in job.steps.values()) == pytest.approx(1.0, abs=1e-4)


def test_where_nothing_is_missing_there_is_no_package_step_either() -> None:
    job = again(a_job_of(ReprocessRequest(asset_id=ASSET, resolutions=("240p",))), "video-240p", "audio-1-en")
    assert list(job.steps) == ["ingest"]


@pytest.mark.parametrize(
    ("wish", "stages", "replaced"),
    [
        ({"everything": True}, {"transcode", "audio"}, ("video", "audio")),
        ({"stages": ("transcode",)}, {"transcode"}, ("video",)),
        ({"stages": ("audio",)}, {"audio"}, ("audio",)),
        ({}, {"transcode"}, ()),
    ],
)
def test_what_is_made_again_takes_the_place_of_its_kind(
    wish: dict[str, Any], stages: set[str], replaced: tuple[str, ...]
) -> None:
    job = again(a_job_of(ReprocessRequest(asset_id=ASSET, **wish)), "video-240p", "audio-1-en")
    made = {step.stage for step in job.steps.values()} - {"ingest", "package"}
    parts = {name: replace(step, facts={"receipt": name}) for name, step in job.steps.items() if step.stage in stages}

    assert made == stages
    assert packaged(replace(job, steps={**job.steps, **parts})).replaces == replaced


def test_package_alone_brings_no_track_of_its_own() -> None:
    drawn = again(a_job_of(ReprocessRequest(asset_id=ASSET))).blueprint
    assert drawn is not None
    job = a_job_of(RepackageRequest(asset_id=ASSET), blueprint=drawn)

    task = packaged(job)

    assert [step.needs for step in job.steps.values()] == [()]
    assert (task.receipts, task.blueprint.rungs, task.blueprint.audio) == ((), (), ())
    assert task.blueprint.timeline == drawn.timeline


def test_captions_alone_need_nothing_and_fail_their_job() -> None:
    drawn = again(a_job_of(ReprocessRequest(asset_id=ASSET))).blueprint
    job = a_job_of(SubtitleRequest(asset_id=ASSET, language="deu"), blueprint=drawn)

    step = job.steps["subtitle"]

    assert (step.needs, step.optional) == ((), False)
    assert subtitle_task(job).language == "de"
    assert subtitle_task(job).source == f"private/{ASSET}.mov"
