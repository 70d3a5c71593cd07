"""The MPD says exactly what the presentation says, by ISO/IEC 23009-1."""

from __future__ import annotations

import itertools
import posixpath
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from mpegdash.parser import MPEGDASHParser
from presentations import ASSET, NTSC, audio_track, presentation, text_track, video_track

from pipeline import keys
from pipeline.presentation.dash import render_dash
from pipeline.presentation.model import Presentation, Track, marked_version
from pipeline.tasks import Timeline

GOLDEN = Path(__file__).parent / "golden"

TIMELINES = st.builds(
    lambda rate, frames, cuts: Timeline(rate=rate, frames=frames, cuts=tuple(cuts)),
    st.sampled_from([Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(50)]),
    st.integers(1, 3000),
    st.lists(st.fractions(0, 60, max_denominator=1000), max_size=3),
)


def _representations(text: str) -> dict[str, Any]:
    """The parsed representations by track id."""
    period = MPEGDASHParser.parse(text).periods[0]
    return {each.id: each for one_set in period.adaptation_sets for each in one_set.representations}


def _timeline(segments: Any) -> list[tuple[int, int]]:
    """(start, duration) of every segment that a SegmentTimeline tells."""
    told = []
    for run in segments.segment_timelines[0].Ss:
        told += [(run.t + number * run.d, run.d) for number in range((run.r or 0) + 1)]
    return told


def _fetched(representation: Any) -> list[str]:
    """The storage keys that a player asks for, the init segment first."""
    if representation.segment_templates:
        template = representation.segment_templates[0]
        media = [template.media.replace("$Time$", str(start)) for start, _ in _timeline(template)]
        uris = [template.initialization, *media]
    else:
        listed = representation.segment_lists[0]
        uris = [listed.initializations[0].source_url, *(url.media for url in listed.segment_urls)]
    return [posixpath.normpath(keys.public(ASSET) + uri) for uri in uris]


def _stored(track: Track) -> list[str]:
    return [track.init, *(segment.key for segment in track.segments)]


def test_two_rungs_and_two_languages_are_written_as_before() -> None:
    """A golden file: a change here is a change of what players get; look at it, then write it again."""
    assert render_dash(presentation(playlists="1f2e3d4c5b6a")) == (GOLDEN / "video.mpd").read_text()


def test_captions_are_written_as_before() -> None:
    shown = presentation(video_track("360p"), audio_track(), text_track(), playlists="1f2e3d4c5b6a")

    assert render_dash(shown) == (GOLDEN / "captioned.mpd").read_text()


def test_captions_are_a_file_beside_the_media() -> None:
    shown = presentation(video_track("360p"), text_track(), text_track("text-und", language="und", name="Signs"))

    sets = MPEGDASHParser.parse(render_dash(shown)).periods[0].adaptation_sets[1:]

    assert [(one.content_type, one.mime_type, one.lang) for one in sets] == [
        ("text", "text/vtt", "en"),
        ("text", "text/vtt", None),
    ]
    urls = [one.representations[0].base_urls[0].base_url_value for one in sets]
    assert [keys.public(ASSET) + url for url in urls] == [shown.captions(track) for track in shown.text]
    assert "isoff-live" in render_dash(shown)


def test_a_text_has_a_role_by_what_it_is_for() -> None:
    shown = presentation(
        video_track("360p"),
        text_track("text-1-en", default=True),
        text_track("text-2-en", forced=True),
        text_track("text-3-en", hearing_impaired=True),
    )

    sets = MPEGDASHParser.parse(render_dash(shown)).periods[0].adaptation_sets[1:]

    assert [[role.value for role in one.roles] for one in sets] == [
        ["subtitle", "main"],
        ["forced-subtitle"],
        ["caption"],
    ]


@given(timeline=TIMELINES)
def test_a_player_asks_for_every_segment_in_its_time(timeline: Timeline) -> None:
    shown = presentation(timeline=timeline)
    representations = _representations(render_dash(shown))

    for track in shown.tracks:
        representation = representations[track.id]
        assert _fetched(representation) == _stored(track)
        template = representation.segment_templates[0]
        assert template.timescale == track.timescale
        assert _timeline(template) == [(segment.start, segment.duration) for segment in track.segments]


@given(timeline=TIMELINES)
def test_runs_of_equal_segments_are_told_once(timeline: Timeline) -> None:
    text = render_dash(presentation(video_track(timeline=timeline), timeline=timeline))

    runs = [dict(re.findall(r'(\w)="(\d+)"', line)) for line in re.findall(r"<S .*/>", text)]
    assert all(first["d"] != second["d"] for first, second in itertools.pairwise(runs))


@given(timeline=TIMELINES)
def test_the_duration_is_that_of_the_presentation(timeline: Timeline) -> None:
    shown = presentation(timeline=timeline)

    said = re.search(r'mediaPresentationDuration="PT([0-9.]+)S"', render_dash(shown))

    assert said is not None
    assert Fraction(said[1]) == Fraction(round(shown.duration * 10**6), 10**6)


def test_a_gap_is_told() -> None:
    """Players jump over what is told, and stop at what is not."""
    track = video_track(timeline=replace(NTSC, rate=Fraction(25), frames=500))
    holed = replace(track, segments=(track.segments[0], *track.segments[2:]))

    template = _representations(render_dash(presentation(holed)))[track.id].segment_templates[0]

    assert _timeline(template) == [(segment.start, segment.duration) for segment in holed.segments]


def test_the_rungs_of_a_codec_are_one_set_and_every_sound_its_own() -> None:
    shown = presentation(
        video_track("720p"),
        video_track("480p", id="video-480p-hevc", codec="hvc1.1.6.L90.90"),
        video_track("360p"),
        audio_track(),
        audio_track("audio-2-und", language="und", name="Audio", default=False),
    )

    mpd = MPEGDASHParser.parse(render_dash(shown))

    assert mpd.type == "static"
    sets = mpd.periods[0].adaptation_sets
    assert [[each.id for each in one.representations] for one in sets] == [
        ["video-720p", "video-360p"],
        ["video-480p-hevc"],
        ["audio-1-en"],
        ["audio-2-und"],
    ]
    assert [one.lang for one in sets] == [None, None, "en", None]
    assert [one.roles[0].value if one.roles else None for one in sets] == [None, None, "main", "alternate"]
    assert {one.segment_alignment for one in sets} == {True}


def test_a_representation_tells_picture_and_sound() -> None:
    representations = _representations(render_dash(presentation()))

    picture, sound = representations["video-720p"], representations["audio-1-en"]
    assert (picture.width, picture.height, picture.frame_rate) == (1280, 720, "30000/1001")
    assert picture.codecs == "avc1.64001f"
    assert sound.audio_sampling_rate == "48000"
    assert sound.audio_channel_configurations[0].value == "2"


def test_segments_from_several_folders_are_listed_one_by_one() -> None:
    """After a trim a track has patches beside the segments it had."""
    shown = presentation()
    track = shown.video[0]
    patch = replace(track.segments[0], key=f"{keys.track(ASSET, track.id, 'patch')}0.m4s")
    mixed = replace(track, segments=(patch, *track.segments[1:]))
    shown = replace(shown, tracks=tuple(mixed if each is track else each for each in shown.tracks))

    text = render_dash(shown)

    representation = _representations(text)[track.id]
    assert _fetched(representation) == _stored(mixed)
    assert _timeline(representation.segment_lists[0]) == [(each.start, each.duration) for each in track.segments]
    assert _representations(text)["video-360p"].segment_templates
    assert "isoff-main" in text
    assert "isoff-live" not in text


def test_a_clip_reaches_into_the_asset_it_came_from() -> None:
    shown = Presentation(**(vars(presentation()) | {"asset": "other000000"}))

    assert f'media="../{ASSET}/video-720p/0a1b2c/$Time$.m4s"' in render_dash(shown)


def test_the_door_says_its_version() -> None:
    assert marked_version(render_dash(presentation(version=207))) == 207


def test_a_name_cannot_break_the_document() -> None:
    shown = presentation(video_track(), audio_track(name="<\"&'> ]]>"))

    period = MPEGDASHParser.parse(render_dash(shown)).periods[0]

    assert len(period.adaptation_sets) == 2


def test_whole_seconds_are_written_without_a_fraction() -> None:
    timeline = replace(NTSC, rate=Fraction(25), frames=250)

    assert 'mediaPresentationDuration="PT10S"' in render_dash(presentation(timeline=timeline))
