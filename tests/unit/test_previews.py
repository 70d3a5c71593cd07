"""A preview shows a cut at once: whole segments, from where they lie, in a folder of its own."""

from __future__ import annotations

import posixpath
import re
from dataclasses import replace
from fractions import Fraction

import m3u8
import presentations
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mpegdash.parser import MPEGDASHParser
from presentations import ASSET, NTSC, audio_track, frame_ticks, presentation, text_track, video_track

from pipeline import keys
from pipeline.media.timeline import AAC_FRAME
from pipeline.presentation.edits import played
from pipeline.presentation.model import Presentation, Track
from pipeline.presentation.previews import preview, render_preview
from pipeline.tasks import Timeline

CAPTIONS = b"WEBVTT\n\n00:00:03.000 --> 00:00:05.004\nAcross the cut\n\n00:00:09.000 --> 00:00:09.500\nThe end\n"


def whole(*tracks: Track, timeline: Timeline = NTSC) -> Presentation:
    usual = (video_track("720p", timeline), video_track("360p", timeline), audio_track(timeline=timeline))
    return presentation(*(tracks or (*usual, text_track(timeline=timeline))), timeline=timeline, playlists="1f2e3d")


def starts(shown: Presentation, id: str) -> list[int]:
    return [segment.start for track in played(shown).tracks if track.id == id for segment in track.segments]


def test_it_plays_every_segment_that_has_a_part_of_the_range() -> None:
    """Segments of this asset begin at 0, 4.004 and 8.008 s."""
    shown = preview(whole(), Fraction(5), Fraction(7))

    assert starts(shown, "video-720p") == starts(shown, "video-360p") == [120120]
    assert starts(shown, "audio-1-en") == [192512]
    assert shown.edit is not None
    assert shown.edit.range == (Fraction("4.004"), Fraction("8.008"))
    assert starts(preview(whole(), Fraction(4), Fraction("8.1")), "video-720p") == [0, 120120, 240240]
    assert starts(preview(whole(), Fraction("4.004"), Fraction("8.008")), "video-720p") == [120120]


@given(st.integers(2, 900), st.data())
def test_it_covers_the_range_with_what_is_stored(frames: int, data: st.DataObject) -> None:
    timeline = replace(NTSC, frames=frames)
    first = data.draw(st.integers(0, frames - 1))
    end = data.draw(st.integers(first + 1, frames))
    stored = whole(timeline=timeline)

    flat = played(preview(stored, first / NTSC.rate, end / NTSC.rate))

    own = {segment.key for track in stored.tracks for segment in track.segments}
    for track in (*flat.video, *flat.audio):
        assert {segment.key for segment in track.segments} <= own
        ends = [segment.start + segment.duration for segment in track.segments]
        assert [segment.start for segment in track.segments[1:]] == ends[:-1]
    for track in flat.video:
        assert track.segments[0].start <= first * frame_ticks(timeline) < ends_of(track)[0]
        assert ends_of(track)[-1] >= end * frame_ticks(timeline) > track.segments[-1].start
        assert flat.start == Fraction(track.segments[0].start, track.timescale)
        assert flat.end == Fraction(ends_of(track)[-1], track.timescale)
    for track in flat.audio:
        assert abs(track.segments[0].start - flat.start * 48_000) < 2 * AAC_FRAME
        assert abs(ends_of(track)[-1] - flat.end * 48_000) < 2 * AAC_FRAME


def ends_of(track: Track) -> list[int]:
    return [segment.start + segment.duration for segment in track.segments]


def test_sound_alone_begins_and_ends_it() -> None:
    shown = preview(whole(audio_track()), Fraction(5), Fraction(7))

    assert shown.edit is not None
    assert shown.edit.range == (Fraction(192512, 48_000), Fraction(385024, 48_000))


@pytest.mark.parametrize("seams", [False, True])
def test_of_a_clip_it_shows_nothing_that_is_not_the_clips(seams: bool) -> None:
    """What lies before a clip was left out on purpose."""
    stored = whole()
    clip = replace(stored, asset="c0000000001", base=presentations.edit(stored, 31, 262, seams=seams))
    allowed = {segment.key for track in played(clip).tracks for segment in track.segments}

    for first, end in [(31, 40), (31, 262), (60, 200), (130, 190), (241, 262)]:
        flat = played(preview(clip, first / NTSC.rate, end / NTSC.rate))

        assert {segment.key for track in flat.tracks for segment in track.segments} <= allowed
        assert flat.start <= first / NTSC.rate
        assert flat.end >= end / NTSC.rate
        assert len({len(flat.stretches(track)) for track in (*flat.video, *flat.audio)}) == 1
        assert render_preview(preview(clip, flat.start, flat.end), "p", {"text-en": CAPTIONS})


FAST = Timeline(rate=Fraction(60000, 1001), frames=900)
"""A frame is shorter than one of AAC."""


@st.composite
def parts(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """The frames [first, end) of a clip, often beside keyframes, and [low, high) of those."""
    near = st.sampled_from([0, 120, 240, 241, 359, 360, 480, 719, 720, 721, 900]) | st.integers(0, 900)
    first, end = sorted(draw(st.lists(near, min_size=2, max_size=2, unique=True)))
    low = draw(st.sampled_from([first, end - 1]) | st.integers(first, end - 1))
    return first, end, low, draw(st.sampled_from([low + 1, end]) | st.integers(low + 1, end))


@example((100, 721, 100, 721))
@example((100, 721, 720, 721))
@example((100, 721, 719, 720))
@given(parts())
def test_pictures_and_sounds_of_a_clip_begin_anew_as_often(part: tuple[int, int, int, int]) -> None:
    """However little of a stretch is shown: a piece may be shorter than a frame of sound."""
    (first, end, low, high), timeline = part, FAST
    stored = whole(timeline=timeline)
    clip = replace(stored, base=presentations.edit(stored, first, end, seams=True))

    shown = preview(clip, low / timeline.rate, high / timeline.rate)

    flat = played(shown)
    for track in (*flat.video, *flat.audio):
        stretches = flat.stretches(track)
        assert len(stretches) == len(flat.stretches(flat.video[0]))
        ends = ends_of(track)
        assert [segment.start for segment in track.segments[1:]] == ends[:-1]
        for own, leading in zip(stretches, flat.stretches(flat.video[0]), strict=True):
            assert abs(moment(track, own.start) - moment(flat.video[0], leading.start)) <= Fraction(AAC_FRAME, 48_000)
        assert abs(moment(track, ends[-1]) - flat.end) <= Fraction(AAC_FRAME, 48_000)
    assert render_preview(shown, "p", {"text-en": CAPTIONS})


def moment(track: Track, tick: int) -> Fraction:
    return Fraction(tick, track.timescale)


def test_rungs_of_two_grids_show_the_same_part() -> None:
    """One of them came with another profile: it plays from one segment's beginning that both have to another."""
    other = video_track("360p", replace(NTSC, segment=Fraction(6), keyframe=Fraction(3)))
    stored = whole(video_track("720p"), other, audio_track())

    shown = preview(stored, Fraction(1), Fraction(5))

    assert shown.edit is not None
    flat = played(shown)
    assert [(track.segments[0].start, ends_of(track)[-1]) for track in flat.video] == [(0, 301301)] * 2
    assert flat.end == stored.duration
    assert abs(ends_of(flat.audio[0])[-1] - flat.end * 48_000) < AAC_FRAME


def test_a_trim_of_a_trimmed_asset_is_previewed_on_the_whole_of_it() -> None:
    stored = whole()
    trimmed = replace(stored, edit=presentations.edit(stored, 130, 190))

    assert starts(preview(trimmed, Fraction(0), NTSC.duration), "video-720p") == [0, 120120, 240240]


def test_its_files_lie_together_and_lead_to_stored_segments() -> None:
    stored = whole()
    shown = preview(stored, Fraction(5), Fraction(7))
    folder = keys.preview(ASSET, "5-7")

    files = {key: body.decode() for key, body in render_preview(shown, "5-7", {"text-en": CAPTIONS}).items()}

    assert {posixpath.dirname(key) + "/" for key in files} == {folder}
    assert keys.owner(folder) == ASSET
    named = {
        posixpath.normpath(posixpath.join(folder, uri))
        for key, text in files.items()
        if key.endswith(".m3u8")
        for uri in [*re.findall(r'URI="([^"]+)"', text), *(line for line in text.split("\n") if line[:1] not in "#")]
        if uri
    }
    segments = {each.key for track in (*stored.video, *stored.audio) for each in track.segments}
    inits = {track.init for track in (*stored.video, *stored.audio)}
    assert named <= segments | inits | set(files)
    assert named & segments == {each.key for track in played(shown).tracks for each in track.segments} & segments
    assert len(m3u8.loads(files[f"{folder}video.m3u8"]).playlists) == 2
    mpd = MPEGDASHParser.parse(files[f"{folder}video.mpd"])
    template = mpd.periods[0].adaptation_sets[0].representations[0].segment_templates[0]
    assert (template.presentation_time_offset, template.media) == (120120, "../../video-720p/0a1b2c/$Time$.m4s")
    assert files[f"{folder}text-en.vtt"] == (
        "WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:360360\n\n00:00:00.000 --> 00:00:01.000\nAcross the cut\n"
    )
