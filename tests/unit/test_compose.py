"""The next version follows from the last, whoever brought which track in whatever order."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from presentations import ASSET, NTSC, audio_track, presentation, text_track, video_track

from pipeline.errors import PipelineError
from pipeline.presentation.compose import compose, unique_names
from pipeline.presentation.model import Effect, Presentation, Track
from pipeline.tasks import Segment, Timeline, from_json, to_json


def _next(
    previous: Presentation | None, *tracks: Track, effect: str = "step", timeline: Timeline = NTSC
) -> Presentation:
    return compose(
        previous,
        asset=ASSET,
        tracks=tracks,
        effect=Effect(job="job", step=effect),
        duration=timeline.duration,
        segment=timeline.segment,
    )


def test_the_first_version_is_number_one() -> None:
    first = _next(None, video_track(), audio_track())

    assert first.version == 1
    assert [track.id for track in first.tracks] == ["video-720p", "audio-1-en"]
    assert first.effects == (Effect(job="job", step="step"),)
    assert (first.duration, first.target_duration) == (NTSC.duration, 4)


def test_a_track_is_replaced_in_its_place_and_a_new_one_comes_last() -> None:
    first = _next(None, video_track("720p"), audio_track())
    again = video_track("720p", recipe="ffffff")

    second = _next(first, video_track("360p"), again, effect="other")

    assert second.version == 2
    assert [track.id for track in second.tracks] == ["video-720p", "audio-1-en", "video-360p"]
    assert second.tracks[0] == again
    assert second.effects == (Effect(job="job", step="step"), Effect(job="job", step="other"))


def test_an_effect_that_is_there_changes_nothing() -> None:
    first = _next(None, video_track())

    assert _next(first, video_track("360p")) is first


def test_a_version_remembers_the_last_event_and_never_an_earlier_one() -> None:
    """A record that was rebuilt counts in a new epoch; one that forgot what it knew does not take the memory away."""

    def heard(previous: Presentation | None, step: str, epoch: int, sequence: int) -> Presentation:
        effect = Effect(job="job", step=step)
        return compose(
            previous,
            asset=ASSET,
            tracks=(video_track(),),
            effect=effect,
            duration=NTSC.duration,
            heard=(epoch, sequence),
        )

    first = heard(None, "a", 1, 17)
    second = heard(first, "b", 2, 3)
    third = heard(second, "c", 1, 20)
    fourth = heard(third, "d", 2, 9)

    assert [(each.epoch, each.sequence) for each in (first, second, third, fourth)] == [(1, 17), (2, 3), (2, 3), (2, 9)]


def test_a_new_version_is_nobodys_yet() -> None:
    """Nonce and playlists belong to the version that was written, not to the one that follows."""
    first = replace(_next(None, video_track()), nonce="abc", playlists="def", epoch=2, sequence=17)

    second = _next(first, audio_track(), effect="other")

    assert (second.nonce, second.playlists) == ("", "")
    assert (second.epoch, second.sequence) == (2, 17)


@given(st.permutations([
    ("audio-1-en", "English", True), ("audio-2-en", "English", False), ("audio-3-en", "English", True),
]))  # fmt: skip
def test_whatever_the_order_names_differ_and_one_sound_is_the_default(sounds: list[tuple[str, str, bool]]) -> None:
    shown: Presentation | None = None
    for id, name, default in sounds:
        shown = _next(shown, audio_track(id, name=name, default=default), effect=id)

    assert shown is not None
    assert [track.default for track in shown.audio].count(True) == 1
    assert len({track.name for track in shown.audio}) == 3


def test_without_a_default_the_first_sound_is_it() -> None:
    shown = _next(None, audio_track("audio-1-en", default=False), audio_track("audio-2-en", default=False))

    assert [track.default for track in shown.audio] == [True, False]


@given(st.lists(st.sampled_from(["", "English", "English (2)", "Tamil"]), max_size=6))
def test_unique_names_are_unique_and_recognisable(names: list[str]) -> None:
    given_names = unique_names(names)

    assert len(set(given_names)) == len(names)
    assert all(after.startswith(before or "Audio") for before, after in zip(names, given_names, strict=True))


def test_a_name_comes_back_with_a_number() -> None:
    assert unique_names(["English", "Tamil", "English", "English"]) == [
        "English",
        "Tamil",
        "English (2)",
        "English (3)",
    ]


@pytest.mark.parametrize("segment", [Fraction(2), Fraction(4), Fraction(6), Fraction(7, 2)])
def test_the_target_duration_follows_from_the_nominal_one(segment: Fraction) -> None:
    """It does not depend on the rate: 4.004 s at 29.97 is still a target of 4."""
    targets = set()
    for rate in (Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(60000, 1001)):
        timeline = Timeline(rate=rate, frames=600, segment=segment)
        targets.add(
            _next(
                None, video_track(timeline=timeline), audio_track(timeline=timeline), timeline=timeline
            ).target_duration
        )

    assert targets == {-(-segment.numerator // segment.denominator)}


def test_at_less_than_a_frame_a_second_segments_outgrow_it() -> None:
    timeline = Timeline(rate=Fraction(3, 10), frames=9)

    assert _next(None, video_track(timeline=timeline), timeline=timeline).target_duration == 7  # two frames of 3.3 s


def test_a_later_version_keeps_the_target_duration() -> None:
    first = _next(None, video_track(), timeline=replace(NTSC, segment=Fraction(6)))

    assert _next(first, audio_track(), effect="other").target_duration == first.target_duration == 6


def test_a_track_without_segments_is_refused() -> None:
    with pytest.raises(PipelineError) as caught:
        _next(None, replace(video_track(), segments=()))

    assert caught.value.code == "parts_incomplete"


def test_a_presentation_survives_json() -> None:
    shown = presentation(nonce="0011", playlists="aabb", epoch=3, sequence=9)

    assert from_json(Presentation, to_json(shown)) == shown


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(1, 10**6)), min_size=1, max_size=12))
def test_the_peak_is_at_least_the_mean_of_full_segments(pieces: list[tuple[int, int]]) -> None:
    """BANDWIDTH is never below the rate of any segment that lasts as long as the longest."""
    starts = list(itertools.accumulate((ticks for ticks, _ in pieces), initial=0))
    track = Track(
        id="v", kind="video", codec="c", timescale=10, init="i",
        segments=tuple(
            Segment(start=start, duration=ticks, key="k", size=size)
            for start, (ticks, size) in zip(starts, pieces, strict=False)
        ),
    )  # fmt: skip
    longest = max(ticks for ticks, _ in pieces)

    assert track.bandwidth >= max(Fraction(size * 80, ticks) for ticks, size in pieces if ticks == longest)
    assert track.bandwidth <= max(-(-size * 80 // ticks) for ticks, size in pieces)


def test_captions_come_and_go_by_id_and_are_named_apart_from_the_sounds() -> None:
    first = _next(None, video_track(), audio_track())
    second = _next(first, text_track(), text_track("text-en-auto"), effect="captions")
    third = _next(second, text_track(name="English for the deaf"), effect="better captions")

    assert [track.name for track in second.text] == ["English", "English (2)"]
    assert [track.name for track in second.audio] == ["English"]
    assert [track.id for track in third.text] == ["text-en", "text-en-auto"]
    assert [track.name for track in third.text] == ["English for the deaf", "English (2)"]
    assert {track.default for track in third.text} == {False}
    assert third.target_duration == first.target_duration


def test_at_most_one_text_is_the_default_one() -> None:
    shown = _next(None, video_track(), text_track("text-1-en", default=True), text_track("text-2-de", default=True))

    assert [track.default for track in shown.text] == [True, False]


def test_what_replaces_a_whole_kind_leaves_nothing_older_of_it() -> None:
    first = _next(None, video_track("720p"), video_track("360p"), audio_track(), text_track())
    again = video_track("720p", recipe="ffffff")

    second = compose(
        first,
        asset=ASSET,
        tracks=[again],
        effect=Effect(job="job", step="again"),
        duration=NTSC.duration,
        replaces=("video",),
    )

    assert [track.id for track in second.tracks] == ["video-720p", "audio-1-en", "text-en"]
    assert second.video == (again,)
    assert first.video != second.video, "the version before is what it was"


def test_the_same_tracks_again_are_a_version_of_their_own() -> None:
    first = _next(None, video_track(), audio_track())
    second = _next(first, effect="repackage")

    assert (second.version, second.tracks) == (2, first.tracks)


def test_a_version_of_nothing_is_refused() -> None:
    with pytest.raises(PipelineError, match="parts_incomplete"):
        _next(None)
