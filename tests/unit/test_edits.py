"""What is played of a presentation is a pure function of its tracks and the edit in force."""

from __future__ import annotations

import itertools
import posixpath
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import m3u8
import presentations
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpegdash.parser import MPEGDASHParser
from presentations import ASSET, NTSC, audio_track, frame_ticks, presentation, text_track, video_track

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.media.timeline import AAC_FRAME
from pipeline.presentation.dash import render_dash
from pipeline.presentation.edits import in_force, insist_on_patches, played, segments_of
from pipeline.presentation.hls import render_master, render_playlists
from pipeline.presentation.model import Presentation, Track
from pipeline.tasks import Timeline

GOLDEN = Path(__file__).parent / "golden" / "edited"
DASH = "{urn:mpeg:dash:schema:mpd:2011}"


@st.composite
def edited(draw: st.DrawFn) -> tuple[Presentation, Timeline, int, int]:
    """Two rungs, a sound and captions, trimmed to some frames [first, end), with seams or without."""
    rate = draw(st.sampled_from([(24000, 1001), (25, 1), (30000, 1001), (60000, 1001), (7, 2)]))
    timeline = Timeline(rate=Fraction(*rate), frames=draw(st.integers(2, 900)))
    first = draw(st.integers(0, timeline.frames - 1))
    end = draw(st.integers(first + 1, timeline.frames))
    seams = draw(st.booleans())
    tracks = [video_track("720p", timeline), video_track("360p", timeline), audio_track(timeline=timeline)]
    whole = presentation(*tracks, text_track(timeline=timeline), timeline=timeline, playlists="1f2e3d4c5b6a")
    return replace(whole, edit=presentations.edit(whole, first, end, seams=seams)), timeline, first, end


def trimmed(first: int, end: int, *tracks: Track, seams: bool = False, timeline: Timeline = NTSC) -> Presentation:
    whole = presentation(*(tracks or (video_track("360p"), audio_track(), text_track())), playlists="1f2e3d4c5b6a")
    return replace(whole, edit=presentations.edit(whole, first, end, seams=seams))


def written(shown: Presentation) -> dict[str, str]:
    """Every file by its storage key."""
    doors = {keys.hls_door(ASSET): render_master(shown), keys.dash_door(ASSET): render_dash(shown)}
    return {**doors, **render_playlists(shown)}


# -- golden files -----------------------------------------------------------------------------------------------------

SOUND = audio_track("audio-1-en", Timeline(rate=Fraction(48_000, AAC_FRAME), frames=470))
CASES = {
    # NTSC: 301 frames, segments at 0, 120 and 240, keyframes every 60.
    "a-piece-each-side": trimmed(31, 262),
    "inside-one-segment": trimmed(130, 190),
    "at-boundaries": trimmed(120, 240),
    "sound-alone": trimmed(100, 400, SOUND),
    "seams": trimmed(31, 262, seams=True),
}


@pytest.mark.parametrize("case", CASES)
def test_an_edited_version_is_written_as_before(case: str) -> None:
    """Golden files: a change here is a change of what players get; look at it, then write them again."""
    for key, text in written(CASES[case]).items():
        assert text == (GOLDEN / case / posixpath.basename(key)).read_text(), key


# -- what is played ---------------------------------------------------------------------------------------------------


def test_without_an_edit_everything_is_played() -> None:
    whole = presentation()

    assert in_force(whole) is None
    assert played(whole).tracks == whole.tracks
    assert (played(whole).start, played(whole).duration) == (Fraction(0), whole.duration)
    assert not played(whole).cut
    assert [len(played(whole).stretches(track)) for track in whole.tracks] == [1] * len(whole.tracks)


def test_a_trim_counts_before_what_a_clip_began_with() -> None:
    whole = presentation()
    base, edit = presentations.edit(whole, 30, 270), presentations.edit(whole, 60, 180)

    assert in_force(replace(whole, base=base)) == base
    assert in_force(replace(whole, base=base, edit=edit)) == edit
    assert played(replace(whole, base=base, edit=edit)).start == edit.start


def test_what_is_played_is_played_again_as_it_is() -> None:
    flat = played(trimmed(31, 262))

    assert played(flat) is flat


@pytest.mark.raises_code("edit_changed")
def test_a_picture_that_the_edit_does_not_know_is_not_played_whole() -> None:
    shown = trimmed(31, 262)
    other = replace(shown, tracks=(*shown.tracks, video_track("720p")))

    with pytest.raises(PipelineError) as caught:
        played(other)

    assert (caught.value.code, caught.value.retryable) == ("edit_changed", True)


@given(edited())
def test_pictures_are_played_from_the_first_frame_to_the_last_without_a_gap(
    case: tuple[Presentation, Timeline, int, int],
) -> None:
    shown, timeline, first, end = case
    flat = played(shown)

    assert flat.duration == (end - first) / timeline.rate
    for track in flat.video:
        ends = [segment.start + segment.duration for segment in track.segments]
        assert [segment.start for segment in track.segments] == [first * frame_ticks(timeline), *ends[:-1]]
        assert ends[-1] == end * frame_ticks(timeline)
        assert [segment.keyframes[0].tick for segment in track.segments] == [each.start for each in track.segments]
    for track in flat.audio:
        ends = [segment.start + segment.duration for segment in track.segments]
        assert [segment.start for segment in track.segments[1:]] == ends[:-1]
        assert 0 <= flat.start * 48_000 - track.segments[0].start < AAC_FRAME


@given(edited())
def test_every_track_begins_anew_at_the_same_moments(case: tuple[Presentation, Timeline, int, int]) -> None:
    flat = played(case[0])

    media = [*flat.video, *flat.audio]
    moments = [[Fraction(each.start, track.timescale) for each in flat.stretches(track)] for track in media]
    assert len({len(each) for each in moments}) == 1
    for starts in zip(*moments, strict=True):
        assert max(starts) - min(starts) < Fraction(AAC_FRAME, 48_000)
    for track in media:
        stretches = flat.stretches(track)
        assert [segment for stretch in stretches for segment in stretch.segments] == list(track.segments)
        for stretch in stretches:
            assert {getattr(segment, "init", "") or track.init for segment in stretch.segments} == {stretch.init}


def test_a_stretch_of_a_single_frame_has_sound() -> None:
    """At 59.94 a frame is shorter than one of AAC: the seam of the sound lies before that of the picture then."""
    timeline = Timeline(rate=Fraction(60000, 1001), frames=900)
    whole = presentation(video_track("360p", timeline), audio_track(timeline=timeline), timeline=timeline)
    edit = presentations.edit(whole, 100, 721, seams=True)

    insist_on_patches(ASSET, edit, whole.tracks)

    picture, sound = edit.patches
    assert picture.seams[-1] == 720 * frame_ticks(timeline)
    assert Fraction(-AAC_FRAME, 48_000) < Fraction(sound.seams[-1], 48_000) - 720 / timeline.rate < 0


# -- HLS --------------------------------------------------------------------------------------------------------------


def _extinfs(text: str) -> list[Fraction]:
    return [Fraction(said) for said in re.findall(r"#EXTINF:([0-9.]+),", text)]


@given(edited())
def test_durations_add_up_to_what_is_played_under_the_target_of_all_versions(
    case: tuple[Presentation, Timeline, int, int],
) -> None:
    shown = case[0]
    flat, playlists = played(shown), render_playlists(shown)
    whole = replace(shown, edit=None)

    said = {posixpath.basename(key): _extinfs(text) for key, text in playlists.items()}
    duration = Fraction(round(flat.duration * 10**6), 10**6)
    for name in ("video-720p.m3u8", "video-720p.iframes.m3u8", "video-360p.m3u8", "text-en.m3u8"):
        assert sum(said[name]) == duration, name
    assert 0 <= sum(said["audio-1-en.m3u8"]) - duration + Fraction(AAC_FRAME, 48_000) < Fraction(3 * AAC_FRAME, 48_000)
    targets = {re.findall(r"TARGETDURATION:(\d+)", text)[0] for key, text in playlists.items() if "text" not in key}
    assert targets == {str(whole.target_duration)}
    media = [value for name, values in said.items() if "text" not in name for value in values]
    assert max(round(value) for value in media) <= whole.target_duration


@given(edited())
def test_playlists_begin_anew_together_and_name_what_is_played(case: tuple[Presentation, Timeline, int, int]) -> None:
    shown = case[0]
    flat, playlists = played(shown), render_playlists(shown)

    counts = set()
    for track in (*flat.video, *flat.audio):
        key = f"{shown.folder}{track.id}.m3u8"
        playlist = m3u8.loads(playlists[key])
        counts.add(sum(segment.discontinuity for segment in playlist.segments))
        named = [_at(shown.folder, segment.uri) for segment in playlist.segments]
        assert named == [segment.key for segment in track.segments]
        inits = [_at(shown.folder, each.uri) for each in playlist.segment_map]
        assert inits == [stretch.init for stretch in flat.stretches(track)]
    for track in flat.video:
        frames = m3u8.loads(playlists[f"{shown.folder}{track.id}.iframes.m3u8"])
        counts.add(sum(segment.discontinuity for segment in frames.segments))
        assert len(frames.segments) == sum(len(segment.keyframes) for segment in track.segments)
    assert len(counts) == 1
    master = m3u8.loads(render_master(shown))
    bandwidths = {each.stream_info.bandwidth for each in master.playlists}
    assert bandwidths == {track.bandwidth + flat.audio[0].bandwidth for track in flat.video}


def _at(folder: str, uri: str) -> str:
    return posixpath.normpath(posixpath.join(folder, uri))


# -- DASH -------------------------------------------------------------------------------------------------------------


@given(edited())
def test_periods_follow_each_other_and_name_what_is_played(case: tuple[Presentation, Timeline, int, int]) -> None:
    shown = case[0]
    flat, text = played(shown), render_dash(shown)

    assert len(MPEGDASHParser.parse(text).periods) == len(flat.stretches(flat.video[0]))
    root = ElementTree.fromstring(text)
    periods = root.findall(f"{DASH}Period")
    spans = [(_seconds(period.get("start")), _seconds(period.get("duration"))) for period in periods]
    assert [start for start, _ in spans] == [0, *itertools.accumulate(lasts for _, lasts in spans)][:-1]
    assert sum(lasts for _, lasts in spans) == _seconds(root.get("mediaPresentationDuration"))
    shapes = {tuple((one.get("id"), *(rep.get("id") for rep in one.iter(f"{DASH}Representation"))) for one in period)
              for period in periods}  # fmt: skip
    assert len(shapes) == 1
    for track in (*flat.video, *flat.audio):
        assert [name for period in periods for name in _named(period, track)] == [each.key for each in track.segments]
        for period, stretch in zip(periods, flat.stretches(track), strict=True):
            clock = _clock(period, track)
            begins = flat.start + _seconds(period.get("start"))
            assert abs(Fraction(int(clock.get("presentationTimeOffset", "0")), track.timescale) - begins) < Fraction(
                1, 40_000
            )
            late = Fraction(stretch.start - int(clock.get("presentationTimeOffset", "0")), track.timescale)
            assert late == 0 if track.kind == "video" else abs(late) < Fraction(AAC_FRAME, 48_000)


def _seconds(iso: str | None) -> Fraction:
    return Fraction((iso or "").removeprefix("PT").removesuffix("S"))


def _clock(period: ElementTree.Element, track: Track) -> ElementTree.Element:
    (found,) = (one for one in period.iter(f"{DASH}Representation") if one.get("id") == track.id)
    (clock,) = (each for name in ("SegmentTemplate", "SegmentList") for each in found.iter(f"{DASH}{name}"))
    return clock


def _named(period: ElementTree.Element, track: Track) -> list[str]:
    """The storage keys of a Representation's segments."""
    clock, starts = _clock(period, track), []
    for run in clock.iter(f"{DASH}S"):
        start, lasts = int(run.get("t", "")), int(run.get("d", ""))
        starts += [start + lasts * number for number in range(int(run.get("r", "0")) + 1)]
    urls = [each.get("media", "") for each in clock.iter(f"{DASH}SegmentURL")]
    named = urls or [clock.get("media", "").replace("$Time$", str(start)) for start in starts]
    assert len(named) == len(starts)
    return [_at(keys.public(ASSET), name) for name in named]


def test_captions_of_an_edited_version_are_one_file_also_in_several_periods() -> None:
    """shaka-player and dash.js disagree about the times of a file without segments in a later Period."""
    shown = CASES["seams"]

    root = ElementTree.fromstring(render_dash(shown))

    files = []
    for period in root.iter(f"{DASH}Period"):
        (clock,) = period.findall(f"{DASH}AdaptationSet[@contentType='text']/{DASH}Representation/{DASH}SegmentList")
        assert Fraction(clock.get("presentationTimeOffset", "0")) == _seconds(period.get("start")) * 10**6
        files += [_at(keys.public(ASSET), each.get("media", "")) for each in clock]
    assert files == [shown.captions(shown.text[0])] * 3


# -- a clip -----------------------------------------------------------------------------------------------------------


def test_a_clip_names_the_segments_of_the_asset_that_it_was_cut_from() -> None:
    whole = trimmed(31, 262)
    clip = replace(whole, asset="c0000000001", edit=None, base=whole.edit)

    playlists, doors = render_playlists(clip), (render_master(clip), render_dash(clip))

    track = played(clip).video[0]
    key = f"{keys.version('c0000000001', 1)}1f2e3d4c5b6a/{track.id}.m3u8"
    uris = [segment.uri for segment in m3u8.loads(playlists[key]).segments]
    assert uris[0].startswith(f"../../../../{ASSET}/")
    assert [_at(posixpath.dirname(key), uri) for uri in uris] == [segment.key for segment in track.segments]
    assert f'"presentations/0001/1f2e3d4c5b6a/{track.id}.iframes.m3u8"' in doors[0]
    assert f'media="../{ASSET}/{track.id}/' in doors[1]
    assert "presentations/0001/1f2e3d4c5b6a/text-en.vtt" in doors[1]


# -- what an edit needs -----------------------------------------------------------------------------------------------


@given(edited())
def test_what_a_trim_makes_is_enough(case: tuple[Presentation, Timeline, int, int]) -> None:
    shown = case[0]
    assert shown.edit is not None

    insist_on_patches(ASSET, shown.edit, shown.tracks)


def test_a_gap_between_pieces_is_not_published() -> None:
    shown = trimmed(31, 262)
    assert shown.edit is not None
    picture, sound = shown.edit.patches

    for broken, detail in (
        (replace(picture, head=()), "does not begin and end with its pictures"),
        (replace(picture, tail=()), "does not begin and end with its pictures"),
        (replace(picture, last=picture.first), "a gap"),
        (replace(picture, head=(), tail=(), last=picture.first), "is empty"),
    ):
        with pytest.raises(PipelineError, match=detail) as caught:
            insist_on_patches(ASSET, replace(shown.edit, patches=(broken, sound)), shown.tracks)
        assert caught.value.code == "parts_incomplete"


def test_tracks_that_begin_anew_at_other_moments_do_not_fit_together() -> None:
    plain, seamed = trimmed(31, 262).edit, CASES["seams"].edit
    assert plain is not None
    assert seamed is not None

    with pytest.raises(PipelineError, match="edit_changed"):
        insist_on_patches(ASSET, replace(plain, patches=(plain.patches[0], seamed.patches[1])), trimmed(31, 262).tracks)


def test_seams_that_lie_seconds_apart_do_not_fit_together() -> None:
    """As many here as there: the pieces of another grid, cut for the same range."""
    shown = CASES["seams"]
    assert shown.edit is not None
    picture, sound = shown.edit.patches
    late = replace(sound, seams=(sound.seams[0] + AAC_FRAME, *sound.seams[1:]))

    with pytest.raises(PipelineError) as caught:
        insist_on_patches(ASSET, replace(shown.edit, patches=(picture, late)), shown.tracks)

    assert caught.value.code == "edit_changed"


def test_a_patch_plays_pieces_around_the_tracks_own_segments() -> None:
    shown = trimmed(31, 262)
    assert shown.edit is not None

    picture = segments_of(shown.tracks[0], shown.edit.patches[0])

    assert [segment in shown.tracks[0].segments for segment in picture] == [False, True, False]
