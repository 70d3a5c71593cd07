"""What a source may be: its facts against its job's limits, with the codes and values of the reference."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.media.limits import check
from pipeline.media.playlists import is_live
from pipeline.organizations import Organization, with_own
from pipeline.tasks import USUAL_LIMITS, AudioStream, Limits, MediaInfo, VideoStream

END = Fraction(41, 4)
SOUND = AudioStream(index=1, codec="aac", channels=2, layout="stereo", sample_rate=48000, start=Fraction(0), end=END)


def a_picture(width: int, height: int, **facts: Any) -> VideoStream:
    return VideoStream(
        index=0,
        codec="h264",
        width=width,
        height=height,
        **{"rate": Fraction(25), "frames": 256, "start": Fraction(0), "end": END, **facts},
    )


def a_film(width: int = 1280, height: int = 720, **facts: Any) -> MediaInfo:
    return replace(a_song(), video=a_picture(width, height, **facts))


def a_song(**facts: Any) -> MediaInfo:
    return MediaInfo(
        **{
            "format": "mov,mp4,m4a,3gp,3g2,mj2",
            "size": 5000,
            "duration": END,
            "start": Fraction(0),
            "audio": (SOUND,),
            **facts,
        }
    )


def refusal(media: MediaInfo, **limits: Any) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        check(media, Limits(**limits))
    assert not caught.value.retryable
    assert "?" not in caught.value.message + caught.value.hint, "every value is there"
    return caught.value


# -- by how much ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "limits", "params"),
    [
        (
            "video_resolution_too_low",
            {"min_resolution": (1920, 1080)},
            {"minimum_resolution": "1920x1080", "maximum_resolution": "8192x8192", "current_resolution": "1280x720"},
        ),
        (
            "video_resolution_too_high",
            {"min_resolution": (64, 64), "max_resolution": (640, 360)},
            {"minimum_resolution": "64x64", "maximum_resolution": "640x360", "current_resolution": "1280x720"},
        ),
        (
            "video_resolution_invalid_aspect_ratio",
            {"max_aspect_ratio": 1.5},
            {"maximum_aspect_ratio": 1.5, "current_resolution": "1280x720"},
        ),
        ("video_duration_too_short", {"min_duration_s": 11}, {"minimum_duration": 11, "current_duration": 10.25}),
        (
            "video_duration_too_long",
            {"min_duration_s": 4, "max_duration_s": 10.0},
            {"minimum_duration": 4, "maximum_duration": 10, "current_duration": 10.25},
        ),
        ("video_filesize_too_large", {"max_video_bytes": 4999}, {"maximum_size": 4999, "current_size": 5000}),
        (
            "media_url_unsupported_format",
            {"formats": ("matroska", "avi")},
            {
                "detected_format": "mov,mp4,m4a,3gp,3g2,mj2",
                "supported_formats": "matroska, avi",
                "wanted": "one of: matroska, avi (whoever runs this takes no others: `formats` in "
                "docs/reference/limits.md)",
            },
        ),
    ],
)
def test_a_film_outside_a_limit_is_refused_and_told_by_how_much(
    code: str, limits: dict[str, Any], params: dict[str, Any]
) -> None:
    error = refusal(a_film(), **limits)
    assert (error.code, error.params) == (code, params)


@pytest.mark.parametrize(
    ("code", "limits", "params"),
    [
        ("audio_duration_too_short", {"min_duration_s": 11}, {"minimum_duration": 11, "current_duration": 10.25}),
        ("audio_duration_too_short", {"min_audio_duration_s": 12}, {"minimum_duration": 12, "current_duration": 10.25}),
        (
            "audio_duration_too_long",
            {"max_audio_duration_s": 10, "max_duration_s": 20},
            {"minimum_duration": 0, "maximum_duration": 10, "current_duration": 10.25},
        ),
        ("audio_filesize_too_large", {"max_audio_bytes": 4000}, {"maximum_size": 4000, "current_size": 5000}),
        (
            "audio_format_unsupported",
            {"audio_formats": ("mp3", "flac")},
            {"format": "aac", "supported_formats": "mp3, flac"},
        ),
    ],
)
def test_so_is_a_song(code: str, limits: dict[str, Any], params: dict[str, Any]) -> None:
    error = refusal(a_song(), **limits)
    assert (error.code, error.params) == (code, params)


def test_limits_of_sound_alone_do_not_touch_a_film_nor_those_of_films_a_song() -> None:
    check(a_film(), Limits(max_audio_bytes=1, min_audio_duration_s=99, max_audio_duration_s=1, audio_formats=("mp3",)))
    check(a_song(), Limits(max_video_bytes=1, min_resolution=(9999, 9999), max_aspect_ratio=1))


def test_what_is_exactly_at_a_limit_is_accepted() -> None:
    duration = float(END)
    check(
        a_film(),
        Limits(
            max_video_bytes=5000,
            min_duration_s=duration,
            max_duration_s=duration,
            min_resolution=(1280, 720),
            max_resolution=(1280, 720),
            max_aspect_ratio=16 / 9,
            formats=("mp4",),
        ),
    )


def test_a_resolution_turns_with_the_picture_and_counts_as_it_is_shown() -> None:
    """A portrait film is not too narrow, a turned one counts upright, one with wide pixels as wide as it is shown."""
    check(a_film(720, 1280), Limits(min_resolution=(1280, 720), max_resolution=(1280, 720)))
    check(a_film(rotation=90), Limits(min_resolution=(720, 1280)))
    check(a_film(960, 720, sample_aspect_ratio=Fraction(4, 3)), Limits(min_resolution=(1280, 720)))

    turned = refusal(a_film(rotation=90), min_resolution=(1280, 800))
    assert turned.params["current_resolution"] == "720x1280"
    assert refusal(a_film(4000, 16), min_resolution=(64, 64)).code == "video_resolution_too_low"


# -- whose limits -----------------------------------------------------------------------------------------------------


def test_the_usual_limits_refuse_no_picture_that_can_be_encoded() -> None:
    for width, height in ((1, 1), (2, 2), (4000, 16), (16, 4000), (8192, 8192)):
        check(a_film(width, height), USUAL_LIMITS)


def test_an_organizations_limits_take_the_place_of_the_fleets_tighter_or_wider() -> None:
    fleet = Limits(max_bytes=100, max_duration_s=60, min_resolution=(64, 64), formats=("mp4",), keep_refused=True)
    own = Organization(max_bytes=1000, max_duration_s=0, max_resolution="1920x1080", formats=(), keep_refused=False)

    limits = own.limits(fleet)

    assert (limits.max_bytes, limits.max_duration_s) == (1000, None)
    assert (limits.min_resolution, limits.max_resolution) == ((64, 64), (1920, 1080))
    assert (limits.formats, limits.keep_refused) == ((), False)
    assert Organization().limits(fleet) == fleet


def test_every_limit_but_those_against_bombs_can_be_an_organizations() -> None:
    assert set(Limits.__dataclass_fields__) - set(Organization.model_fields) == {"max_pixels", "max_streams"}


def test_zero_is_no_limit_and_no_is_no() -> None:
    limits = with_own(Limits(live=True), {"max_bytes": 0, "min_duration_s": 0.0, "live": False})
    assert (limits.max_bytes, limits.min_duration_s, limits.live) == (None, None, False)


# -- playlists that do not end ----------------------------------------------------------------------------------------

MEDIA = b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:812\n#EXTINF:4,\n812.ts\n#EXTINF:4,\n813.ts\n"
MPD = b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"\n  type=%b minimumUpdatePeriod="PT2S"></MPD>'


@pytest.mark.parametrize(
    ("manifest", "live"),
    [
        (MEDIA, True),
        (MEDIA.replace(b"\n", b"\r\n"), True),
        (MEDIA.replace(b"#EXTINF", b"#EXT-X-PLAYLIST-TYPE:EVENT\n#EXTINF", 1), True),
        (MEDIA + b"#EXT-X-ENDLIST\n", False),
        (MEDIA.replace(b"#EXTINF", b"#EXT-X-PLAYLIST-TYPE:VOD\n#EXTINF", 1), False),
        (b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlow.m3u8\n", False),
        (b"#EXTM3U\n#EXTINF:123,A song\nsong.mp3\n", False),
        (MPD % b'"dynamic"', True),
        (MPD % b"'dynamic'", True),
        (MPD % b'"static"', False),
        (b"<MPD></MPD> dynamic", False),
    ],
)
def test_a_playlist_is_live_where_it_says_that_more_is_to_come(manifest: bytes, live: bool) -> None:
    assert is_live(manifest) is live
