"""The estimate follows the plan: more work costs more, no track passes its cap, and what is rushed is not promised."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from builders import a_media, a_profile, a_request, a_sound, a_video

from pipeline.estimate import Estimate
from pipeline.profile import AudioProfile, VideoProfile
from pipeline.tasks import Color, DolbyVision, MediaInfo
from workers.forecast import BASIS, Forecast, document, forecast

BITRATE = 5_000_000
HDR = Color(transfer="smpte2084")


def foreseen(media: MediaInfo | None = None, *, workers: int = 2, profile: Any = None, **wish: Any) -> Forecast:
    said = a_request(**{"resolutions": "1080p,720p,360p", **wish})
    profile = profile or a_profile(video=VideoProfile(preset="veryfast", crf=23))
    return forecast(Path("film.mp4"), said, media or a_film(), profile, workers=workers)


def a_film(seconds: int = 60, **video: Any) -> MediaInfo:
    end = Fraction(seconds)
    picture = a_video(**{"bitrate": BITRATE, "end": end, "frames": 25 * seconds, **video})
    return a_media(duration=end, video=picture, audio=(a_sound(end=end),), size=BITRATE // 8 * seconds)


def estimated(media: MediaInfo | None = None, **how: Any) -> Estimate:
    return foreseen(media, **how).estimate


def test_every_step_of_the_plan_has_its_share() -> None:
    said = foreseen(generate_subtitle=True)

    assert list(said.estimate.steps) == list(said.job.steps)
    assert {step.stage for step in said.job.steps.values()} == {"ingest", "transcode", "audio", "package", "subtitle"}
    assert all(seconds > 0 for seconds in said.estimate.steps.values())
    assert said.estimate.cpu_s == pytest.approx(sum(said.estimate.steps.values()))


@pytest.mark.parametrize(
    "dearer",
    [
        {"media": a_film(120)},
        {"media": a_film(rate=Fraction(50), frames=3000)},
        {"media": a_film(color=Color(transfer="smpte2084"))},
        {"media": a_film(color=Color(primaries="smpte432"))},
        {"media": a_film(dolby_vision=DolbyVision(profile=8, level=1, compatibility=1))},
        {"media": a_film(interlaced=True)},
        {"resolutions": "1080p,720p,480p,360p"},
        {"profile": a_profile(video=VideoProfile(preset="slow", crf=23))},
        {"generate_subtitle": True},
    ],
)
def test_more_work_costs_more(dearer: dict[str, Any]) -> None:
    assert estimated(**dearer).cpu_s > 1.1 * estimated().cpu_s


def test_colours_are_mapped_once_at_the_largest_size() -> None:
    """So a small rung below a large one adds nothing to it."""

    def dearer(resolutions: str) -> float:
        plain, hdr = (estimated(a_film(color=color), resolutions=resolutions, workers=1) for color in (Color(), HDR))
        return hdr.cpu_s - plain.cpu_s

    assert dearer("720p,480p,240p") == pytest.approx(dearer("720p")) != 0
    assert dearer("240p") < dearer("720p") / 4


def test_a_loudness_has_to_be_measured() -> None:
    plain, leveled = (
        estimated(a_media(video=None), profile=a_profile(audio=AudioProfile(bitrate=128_000, loudness=loudness)))
        for loudness in (None, -16)
    )
    assert leveled.cpu_s > 1.3 * plain.cpu_s


def test_twice_the_length_is_about_twice_the_work_and_the_bytes() -> None:
    short, long = estimated(a_film(300)), estimated(a_film(600))

    assert long.cpu_s == pytest.approx(2 * short.cpu_s, rel=0.05)
    assert long.bytes == pytest.approx(2 * short.bytes, rel=0.01)
    assert long.most_bytes == pytest.approx(2 * short.most_bytes, rel=0.1)


def test_more_workers_are_sooner_ready_and_cost_hardly_more() -> None:
    alone, many = estimated(workers=1), estimated(workers=16)

    assert alone.ready_s == pytest.approx(alone.cpu_s)
    assert many.ready_s < alone.ready_s / 4
    assert many.cpu_s < 1.5 * alone.cpu_s


@pytest.mark.parametrize("bitrate", [1, 1000, BITRATE, 10**9])
@pytest.mark.parametrize("crf", [10, 23, 40])
def test_no_track_is_said_to_pass_its_cap(bitrate: int, crf: int) -> None:
    profile = a_profile(video=VideoProfile(preset="veryfast", crf=crf))
    for track in estimated(a_film(bitrate=bitrate), profile=profile).tracks:
        assert 0 < track.bytes < track.most_bytes


def test_a_picture_that_was_hard_for_the_source_is_hard_for_us_and_a_finer_quality_is_larger() -> None:
    usual = estimated().tracks[2].bytes
    finer = a_profile(video=VideoProfile(preset="veryfast", crf=21))

    assert estimated(a_film(bitrate=BITRATE // 4)).tracks[2].bytes < 0.7 * usual
    assert estimated(profile=finer).tracks[2].bytes == pytest.approx(usual * 2 ** (1 / 3), rel=0.01)


def test_a_source_whose_packets_were_not_counted_is_judged_by_its_size() -> None:
    assert estimated(a_film(bitrate=None)).bytes == pytest.approx(estimated().bytes, rel=0.01)


def test_sound_alone_has_no_picture_and_a_picture_alone_no_sound() -> None:
    song = estimated(a_media(video=None))
    silent = estimated(a_media(audio=()))

    assert [track.name for track in song.tracks] == ["audio-1-en"]
    assert song.bytes == pytest.approx(160_000, rel=0.01)
    assert not [track for track in silent.tracks if track.name.startswith("audio")]


def test_what_is_said_says_that_it_is_an_estimate() -> None:
    said = json.loads(json.dumps(document(foreseen())))

    assert said["estimate"]["basis"] == BASIS
    assert BASIS.startswith("An estimate")
    assert (Path(__file__).parents[2] / BASIS.rpartition("(")[2].rstrip(").")).is_file()
    assert [rung["track"] for rung in said["video"]] == ["video-1080p", "video-720p", "video-360p"]
    assert said["estimate"]["bytes"] == sum(track["bytes"] for track in [*said["video"], *said["audio"]])
