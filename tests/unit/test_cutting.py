"""Cutting: which frames a range means, and what of every track is played whole, copied or encoded again."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from presentations import NTSC, audio_track, frame_ticks, text_track, video_track

from pipeline.media.timeline import AAC_FRAME
from pipeline.presentation.cutting import Cut, cut, frames_of
from pipeline.presentation.model import Track
from pipeline.tasks import Keyframe, Timeline

PAL = Timeline(rate=Fraction(25), frames=500)
"""Twenty seconds: segments at 0, 100, 200 …, keyframes at 0, 50, 100 …"""
TICKS = frame_ticks(PAL)


def ladder(timeline: Timeline = PAL) -> list[Track]:
    return [video_track("720p", timeline), video_track("360p", timeline), audio_track(timeline=timeline)]


def with_keyframes(track: Track, *frames: int) -> Track:
    """The track with further keyframes, as scene cuts make them."""
    segments = []
    for segment in track.segments:
        inside = [n for n in frames if segment.start <= n * TICKS < segment.start + segment.duration]
        more = [Keyframe(tick=n * TICKS, offset=100 + n, size=1) for n in inside]
        segments.append(replace(segment, keyframes=tuple(sorted((*segment.keyframes, *more), key=lambda k: k.tick))))
    return replace(track, segments=tuple(segments))


def played(made: Cut, track: Track, number: int) -> list[tuple[int, int]]:
    """What is played of a track, in order: (start, end) of divided and whole segments, in ticks."""
    each = made.cuts[number]
    whole = [segment for segment in track.segments if each.first <= segment.start < each.last]
    rows = [(s.start, s.start + s.duration) for s in (*whole, *each.divided)]
    return sorted((max(start, each.start), min(end, each.end)) for start, end in rows)


# -- frames ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "stop", "wanted"),
    [
        (None, None, (0, 301)),
        ("0", "1", (0, 30)),  # frame 29 is at 0.9676, frame 30 at 1.001
        ("1", "1.001", (30, 30)),
        ("1", "1.0011", (30, 31)),
        ("0.033367", "0.066733", (1, 2)),  # frames 1 and 2, as people write them: one rounded up, one down
        ("0.0334", None, (2, 301)),  # a little after frame 1
        ("5", "10.05", (150, 301)),
        ("5", "99", (150, 301)),  # what is beyond the end is cut off
        ("99", None, (301, 301)),
    ],
)
def test_a_range_means_the_frames_that_begin_in_it(
    start: str | None, stop: str | None, wanted: tuple[int, int]
) -> None:
    times = [None if time is None else Fraction(time) for time in (start, stop)]

    assert frames_of(*times, NTSC) == wanted


@given(st.integers(0, 300))
def test_a_frame_s_own_time_means_that_frame(frame: int) -> None:
    exact = frame / NTSC.rate

    assert frames_of(exact, None, NTSC) == (frame, 301)
    assert frames_of(Fraction(str(round(float(exact), 6))), None, NTSC)[0] == frame


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_from_each_cut_to_the_nearest_keyframe_frames_are_encoded() -> None:
    made = cut(ladder(), PAL, 110, 440)

    assert made.encodes
    assert made.kept == (150, 400)
    for picture in made.cuts[:2]:
        assert (picture.start, picture.end) == (110 * TICKS, 440 * TICKS)
        assert (picture.first, picture.last) == (200 * TICKS, 400 * TICKS)
        assert [segment.start for segment in picture.divided] == [100 * TICKS, 400 * TICKS]


def test_cuts_at_keyframes_encode_nothing() -> None:
    at_boundaries, inside = cut(ladder(), PAL, 100, 300), cut(ladder(), PAL, 150, 350)

    assert not at_boundaries.encodes
    assert not inside.encodes
    assert at_boundaries.cuts[0].divided == ()
    assert [segment.start for segment in inside.cuts[0].divided] == [100 * TICKS, 300 * TICKS]


def test_the_whole_timeline_is_played_as_it_is() -> None:
    made = cut(ladder(NTSC), NTSC, 0, 301)

    assert not made.encodes
    assert all(each.divided == () for each in made.cuts)


@pytest.mark.parametrize("shown", [(110, 140), (130, 170), (199, 201), (7, 8), (499, 500)])
def test_without_a_stored_gop_between_the_cuts_everything_is_encoded(shown: tuple[int, int]) -> None:
    made = cut(ladder(), PAL, *shown)

    assert made.kept[0] == made.kept[1] == made.end
    assert made.cuts[0].first == made.cuts[0].last


def test_a_scene_cut_that_all_pictures_have_saves_encoding() -> None:
    pictures = [with_keyframes(track, 115, 120) for track in ladder()[:2]]
    one = [with_keyframes(pictures[0], 112), pictures[1]]

    assert cut(pictures, PAL, 110, 440).kept[0] == 115
    assert cut(one, PAL, 110, 440).kept[0] == 115


def test_two_keyframes_in_one_fragment_cannot_be_divided() -> None:
    tracks = [with_keyframes(track, 120) for track in ladder()[:2]]
    segment = tracks[0].segments[1]
    shared = tuple(replace(k, offset=segment.keyframes[0].offset) for k in segment.keyframes[:2])
    segments = list(tracks[0].segments)
    segments[1] = replace(segment, keyframes=(*shared, *segment.keyframes[2:]))

    assert cut([replace(tracks[0], segments=tuple(segments)), tracks[1]], PAL, 110, 440).kept[0] == 150


def test_pictures_of_two_grids_are_cut_where_both_can_be() -> None:
    """A rung that came with another profile: segments of six seconds, a keyframe every three."""
    other = video_track("480p", replace(PAL, segment=Fraction(6), keyframe=Fraction(3)))
    made = cut([ladder()[0], other], PAL, 60, 440)

    assert made.kept == (150, 300)
    assert [segment.start // TICKS for segment in made.cuts[0].divided] == [0, 100, 300, 400]
    assert [segment.start // TICKS for segment in made.cuts[1].divided] == [0, 300]
    assert (made.cuts[1].first // TICKS, made.cuts[1].last // TICKS) == (150, 300)


# -- sound -------------------------------------------------------------------------------------------------------------


def test_sound_covers_the_picture_in_whole_frames() -> None:
    sound = cut(ladder(), PAL, 110, 440).cuts[2]

    assert sound.kind == "audio"
    assert sound.start % AAC_FRAME == sound.end % AAC_FRAME == 0
    assert 0 <= 110 * 1920 - sound.start < AAC_FRAME
    assert 0 <= sound.end - 440 * 1920 < AAC_FRAME


def test_an_asset_without_a_picture_is_cut_at_its_frames() -> None:
    timeline = Timeline(rate=Fraction(48000, AAC_FRAME), frames=600)
    made = cut([audio_track(timeline=timeline)], timeline, 200, 401)

    assert not made.encodes
    assert (made.cuts[0].start, made.cuts[0].end) == (200 * AAC_FRAME, 401 * AAC_FRAME)
    assert [segment.start // AAC_FRAME for segment in made.cuts[0].divided] == [188, 375]


def test_text_is_not_cut_here() -> None:
    assert len(cut([*ladder(), text_track()], PAL, 110, 440).cuts) == 3


# -- everything --------------------------------------------------------------------------------------------------------


@given(st.data())
def test_what_is_played_has_no_gap_and_nothing_twice(data: st.DataObject) -> None:
    rate = data.draw(st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(10)]))
    timeline = Timeline(rate=rate, frames=data.draw(st.integers(1, 700)))
    first = data.draw(st.integers(0, timeline.frames - 1))
    end = data.draw(st.integers(first + 1, timeline.frames))
    tracks = ladder(timeline)

    made = cut(tracks, timeline, first, end)

    assert first <= made.kept[0] <= made.kept[1] <= end
    for number, track in enumerate(tracks):
        rows = played(made, track, number)
        assert all(a[1] == b[0] for a, b in pairwise(rows))
        assert (rows[0][0], rows[-1][1]) == (made.cuts[number].start, made.cuts[number].end)
        assert all(start < stop for start, stop in rows)
