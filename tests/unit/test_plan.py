"""The plan is a pure function of the job: canned media facts in, steps out; no file is opened."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from pipeline import plan
from pipeline.job import Job, Status
from pipeline.media import timeline
from pipeline.requests import ProcessRequest
from pipeline.tasks import AudioStream, IngestFacts, MediaInfo, SubtitleTask, TranscodeTask, VideoStream
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


def test_a_long_video_does_not_become_thousands_of_steps() -> None:
    assert len(transcodes(grown(media(36_000)))) <= plan.MAX_CHUNKS


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
