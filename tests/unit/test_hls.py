"""HLS playlists say exactly what the presentation says, in the words of RFC 8216."""

from __future__ import annotations

import posixpath
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import m3u8
import pytest
from hypothesis import given
from hypothesis import strategies as st
from presentations import ASSET, NTSC, audio_track, presentation, text_track, video_track

from pipeline import keys
from pipeline.presentation.hls import render_master, render_playlists
from pipeline.presentation.model import Presentation, Track, marked_version
from pipeline.tasks import Segment, Timeline

GOLDEN = Path(__file__).parent / "golden"

TIMELINES = st.builds(
    lambda rate, frames, segment, cuts: Timeline(rate=rate, frames=frames, segment=segment, cuts=tuple(cuts)),
    st.sampled_from(
        [Fraction(*rate) for rate in ((24000, 1001), (24, 1), (25, 1), (30000, 1001), (50, 1), (60000, 1001))]
    ),
    st.integers(1, 2000),
    st.sampled_from([Fraction(2), Fraction(4), Fraction(6)]),
    st.lists(st.fractions(0, 40, max_denominator=1000), max_size=3),
)


def _playlist(shown: Presentation, name: str) -> m3u8.M3U8:
    return m3u8.loads(render_playlists(shown)[f"{shown.folder}{name}.m3u8"])


def _master(shown: Presentation) -> m3u8.M3U8:
    return m3u8.loads(render_master(shown))


def _everything(shown: Presentation) -> dict[str, str]:
    """Every playlist by its storage key, the master at its door among them."""
    return {keys.hls_door(shown.asset): render_master(shown), **render_playlists(shown)}


def test_two_rungs_and_two_languages_are_written_as_before() -> None:
    """Golden files: a change here is a change of what players get; look at it, then write them again."""
    shown = presentation(playlists="1f2e3d4c5b6a")
    written = _everything(shown)

    assert sorted(written) == sorted([keys.hls_door(ASSET), *(f"{shown.folder}{name}" for name in (
        "video-720p.m3u8", "video-720p.iframes.m3u8", "video-360p.m3u8", "video-360p.iframes.m3u8",
        "audio-1-en.m3u8", "audio-2-ta.m3u8",
    ))])  # fmt: skip
    for key in (keys.hls_door(ASSET), f"{shown.folder}video-720p.m3u8", f"{shown.folder}video-720p.iframes.m3u8"):
        assert written[key] == (GOLDEN / "hls" / posixpath.basename(key)).read_text()


def captioned(**changes: Any) -> Presentation:
    """A rung, a sound, and captions by a person and by a machine."""
    generated = replace(text_track("text-en-auto", name="English (auto-generated)"), auto_generated=True)
    return presentation(video_track("360p"), audio_track(), text_track(), generated, **changes)


def test_captions_are_written_as_before() -> None:
    shown = captioned(playlists="1f2e3d4c5b6a")
    written = _everything(shown)

    for key in (keys.hls_door(ASSET), f"{shown.folder}text-en-auto.m3u8"):
        assert written[key] == (GOLDEN / "hls" / "captioned" / posixpath.basename(key)).read_text()


def test_captions_can_be_told_apart_and_every_variant_has_them() -> None:
    master = _master(captioned())

    texts = [media for media in master.media if media.type == "SUBTITLES"]
    assert [(m.name, m.language, m.default, m.autoselect, m.forced, m.characteristics) for m in texts] == [
        ("English", "en", "NO", "YES", "NO", None),
        ("English (auto-generated)", "en", "NO", "YES", "NO", "public.machine-generated"),
    ]
    assert {playlist.stream_info.subtitles for playlist in master.playlists} == {texts[0].group_id}
    sound = _master(presentation(audio_track(), text_track()))
    assert sound.playlists[0].stream_info.subtitles == texts[0].group_id


def test_forced_text_and_text_for_the_deaf_say_what_they_are() -> None:
    """One of each kind of a language is offered by itself, and forced text always is (authoring specification §5)."""
    texts = [
        text_track("text-1-en", default=True),
        text_track("text-2-en", name="English – Signs", forced=True),
        text_track("text-3-en", name="English – Songs", forced=True),
        text_track("text-4-en", name="English (CC)", hearing_impaired=True),
        text_track("text-5-en", name="English (2)"),
    ]

    said = [media for media in _master(presentation(video_track(), *texts)).media if media.type == "SUBTITLES"]

    assert [(m.default, m.autoselect, m.forced) for m in said] == [
        ("YES", "YES", "NO"),
        ("NO", "YES", "YES"),
        ("NO", "YES", "YES"),
        ("NO", "YES", "NO"),
        ("NO", "NO", "NO"),
    ]
    assert [media.characteristics for media in said] == [
        *(None, None, None),
        "public.accessibility.transcribes-spoken-dialog,public.accessibility.describes-music-and-sound",
        None,
    ]


@given(timeline=TIMELINES)
def test_captions_last_as_long_as_the_asset_under_a_target_of_their_own(timeline: Timeline) -> None:
    shown = presentation(video_track(timeline=timeline), text_track(timeline=timeline), timeline=timeline)

    playlist = _playlist(shown, "text-en")
    media = _playlist(shown, "video-720p")

    assert [segment.uri for segment in playlist.segments] == ["text-en.vtt"]
    assert playlist.segments[0].duration == pytest.approx(float(timeline.duration), abs=1e-6)
    assert playlist.target_duration >= round(playlist.segments[0].duration)
    assert media.target_duration == presentation(video_track(timeline=timeline), timeline=timeline).target_duration


@given(timeline=TIMELINES)
def test_durations_add_up_and_keep_the_target(timeline: Timeline) -> None:
    """The sum of all EXTINF is the duration to the microsecond, and none rounds to more than TARGETDURATION."""
    shown = presentation(timeline=timeline)
    durations = {
        name: [Fraction(text) for text in re.findall(r"#EXTINF:([0-9.]+),", playlist)]
        for name, playlist in render_playlists(shown).items()
    }
    for track in shown.tracks:
        assert sum(durations[f"{shown.folder}{track.id}.m3u8"]) == Fraction(round(track.duration * 10**6), 10**6)
    for track in shown.video:
        assert sum(durations[f"{shown.folder}{track.id}.iframes.m3u8"]) == sum(
            durations[f"{shown.folder}{track.id}.m3u8"]
        )
    assert max(round(duration) for row in durations.values() for duration in row) <= shown.target_duration
    assert {playlist.count(f"#EXT-X-TARGETDURATION:{shown.target_duration}\n") for playlist in
            render_playlists(shown).values()} == {1}  # fmt: skip


@given(timeline=TIMELINES, digest=st.sampled_from(["", "1f2e3d4c5b6a"]))
def test_every_uri_leads_to_an_object_of_the_presentation(timeline: Timeline, digest: str) -> None:
    shown = presentation(timeline=timeline, playlists=digest)
    written = _everything(shown)
    known = set(written)
    for track in shown.tracks:
        known |= {track.init, *(segment.key for segment in track.segments)}

    for key, text in written.items():
        uris = re.findall(r'URI="([^"]+)"', text) + [line for line in text.splitlines() if not line.startswith("#")]
        assert uris
        assert {posixpath.normpath(posixpath.join(posixpath.dirname(key), uri)) for uri in uris} <= known


def test_the_master_has_every_rung_with_the_loudest_sound() -> None:
    quiet = audio_track("audio-2-ta", language="ta", name="Tamil", default=False)
    quiet = replace(quiet, segments=tuple(replace(each, size=each.size // 4) for each in quiet.segments))
    shown = presentation(video_track("720p"), video_track("360p"), audio_track(), quiet)
    audio_peak, audio_mean = shown.audio[0].bandwidth, shown.audio[0].average_bandwidth
    assert audio_peak > quiet.bandwidth

    master = _master(shown)

    assert master.is_variant
    assert len(master.playlists) == 2
    for playlist in master.playlists:
        info = playlist.stream_info
        track = next(track for track in shown.video if (track.width, track.height) == info.resolution)
        assert info.bandwidth == track.bandwidth + audio_peak
        assert info.average_bandwidth == track.average_bandwidth + audio_mean
        assert info.codecs == "avc1.64001f,mp4a.40.2"
        assert info.frame_rate == 29.97
        assert info.audio == "audio"


def test_sounds_are_told_apart_and_one_is_the_default() -> None:
    commentary = audio_track("audio-3-en", default=False, name="English")
    unknown = audio_track("audio-4-und", default=False, language="und", name="Audio")
    shown = presentation(video_track(), audio_track("audio-2-ta", language="ta", name="Tamil", default=False),
                         commentary, audio_track(), unknown)  # fmt: skip

    media = _master(shown).media

    assert [(m.name, m.language, m.default, m.autoselect, m.channels) for m in media] == [
        ("English (2)", "en", "YES", "YES", "2"),
        ("Tamil", "ta", "NO", "YES", "2"),
        ("English", "en", "NO", "NO", "2"),
        ("Audio", None, "NO", "YES", "2"),
    ]


def test_a_silent_asset_has_no_audio_group() -> None:
    master = render_master(presentation(video_track()))

    assert "EXT-X-MEDIA" not in master
    assert "AUDIO=" not in master
    assert 'CODECS="avc1.64001f"' in master


def test_sound_alone_is_a_variant() -> None:
    timeline = Timeline(rate=Fraction(48_000, 1024), frames=500)
    shown = presentation(
        audio_track("audio-1-ta", timeline, language="ta", name="Tamil", default=False), audio_track(timeline=timeline)
    )

    master = _master(shown)

    assert [playlist.uri for playlist in master.playlists] == ["presentations/0001/audio-1-en.m3u8"]
    assert master.playlists[0].stream_info.codecs == "mp4a.40.2"
    assert master.playlists[0].stream_info.resolution is None
    assert master.media[0].uri == master.playlists[0].uri
    assert [m.name for m in master.media] == ["English", "Tamil"]
    assert "I-FRAME" not in render_master(shown)


def test_a_player_begins_near_two_megabits() -> None:
    """The first variant is the largest that two megabits carry; where none is so small, the smallest."""
    heavy, middle, light = video_track("1080p"), video_track("480p"), video_track("240p")

    first = _master(presentation(light, heavy, middle)).playlists
    assert [playlist.stream_info.resolution[1] for playlist in first] == [480, 1080, 240]
    assert _master(presentation(heavy, video_track("720p"))).playlists[0].stream_info.resolution[1] == 720


def test_an_iframe_playlist_points_into_the_segments() -> None:
    shown = presentation()
    track = shown.video[0]

    playlist = _playlist(shown, "video-720p.iframes")

    assert playlist.is_i_frames_only
    keyframes = [keyframe for segment in track.segments for keyframe in segment.keyframes]
    assert [segment.byterange for segment in playlist.segments] == [f"{k.size}@{k.offset}" for k in keyframes]
    streams = _master(shown).iframe_playlists
    assert [stream.uri for stream in streams] == [
        "presentations/0001/video-720p.iframes.m3u8",
        "presentations/0001/video-360p.iframes.m3u8",
    ]
    assert 0 < streams[0].iframe_stream_info.bandwidth < track.bandwidth


def test_a_short_last_segment_does_not_count_as_the_peak() -> None:
    """A last segment of one frame is all keyframe; as a rate of its own it would be twenty times too high."""
    second = 90_000
    track = Track(
        id="video-360p", kind="video", codec="avc1.64001e", timescale=90_000, init="i",
        segments=(
            Segment(start=0, duration=4 * second, key="a", size=400_000),
            Segment(start=4 * second, duration=4 * second, key="b", size=500_000),
            Segment(start=8 * second, duration=second // 30, key="c", size=60_000),
        ),
    )  # fmt: skip

    assert track.bandwidth == -(-(560_000 * 8 * 30) // 121)  # the second and the third together
    assert track.average_bandwidth == -(-(960_000 * 8 * 30) // 241)


def test_a_segment_alone_has_its_own_rate() -> None:
    track = Track(
        id="v", kind="video", codec="c", timescale=1000, init="i",
        segments=(Segment(start=0, duration=40, key="a", size=1000),),
    )  # fmt: skip

    assert track.bandwidth == track.average_bandwidth == 200_000


def test_the_door_says_its_version() -> None:
    assert marked_version(render_master(presentation(version=12))) == 12
    assert marked_version("#EXTM3U\n") == 0


def test_what_a_name_must_not_hold_is_replaced() -> None:
    shown = presentation(video_track(), audio_track())
    shown = replace(shown, tracks=(shown.tracks[0], replace(shown.tracks[1], name='The "real"\nsound')))

    assert "NAME=\"The 'real' sound\"" in render_master(shown)


@pytest.mark.parametrize("name", ["video-720p", "audio-2-ta"])
def test_a_media_playlist_is_a_complete_vod(name: str) -> None:
    playlist = _playlist(presentation(), name)

    assert playlist.playlist_type == "vod"
    assert playlist.is_endlist
    assert playlist.version == 7
    assert playlist.is_independent_segments
    assert playlist.target_duration == 4
    assert len(playlist.segments) == 3
    assert playlist.segment_map[0].uri.endswith("/init.mp4")
    assert sum(segment.duration for segment in playlist.segments) == pytest.approx(float(NTSC.duration), abs=0.022)
