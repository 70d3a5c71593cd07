"""A version plays a range that knows all of its tracks, and every version can come back."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import presentations
import pytest
from hypothesis import given
from hypothesis import strategies as st
from presentations import ASSET, NTSC, audio_track, presentation, text_track, video_track

from pipeline.errors import PipelineError
from pipeline.presentation.compose import FIRST_EFFECTS, FORGOTTEN, LAST_EFFECTS, SAME, Same, compose, roll_back
from pipeline.presentation.edits import in_force, played
from pipeline.presentation.hls import render_playlists
from pipeline.presentation.model import SCHEMA, Edit, Effect, Presentation, Track
from pipeline.tasks import from_json, to_json


def following(
    previous: Presentation | None, *tracks: Track, step: str = "step", edit: Edit | Same | None = SAME, **more: Any
) -> Presentation:
    effect = Effect(job="job", step=step)
    return compose(previous, asset=ASSET, tracks=tracks, effect=effect, duration=NTSC.duration, edit=edit, **more)


def whole() -> Presentation:
    return presentation(video_track("360p"), audio_track())


def knows(edit: Edit | None) -> list[str]:
    return [patch.track for patch in edit.patches] if edit else []


# -- trim and revert --------------------------------------------------------------------------------------------------


def test_a_trim_is_a_version_with_an_edit_and_a_revert_is_one_without() -> None:
    before = whole()
    edit = presentations.edit(before, 31, 262)

    trimmed = following(before, step="trim", edit=edit)
    reverted = following(trimmed, step="revert", edit=None)

    assert (trimmed.version, trimmed.edit, trimmed.tracks) == (2, edit, before.tracks)
    assert (reverted.version, reverted.edit, reverted.tracks) == (3, None, before.tracks)
    assert (trimmed.duration, played(trimmed).duration) == (before.duration, edit.end - edit.start)
    assert {each.target_duration for each in (before, trimmed, reverted)} == {before.target_duration}


def test_captions_come_to_a_trimmed_asset_as_to_any_other() -> None:
    trimmed = following(whole(), step="trim", edit=presentations.edit(whole(), 31, 262))

    assert following(trimmed, text_track(), step="captions").edit == trimmed.edit


def test_a_trim_that_was_made_before_a_picture_came_is_made_again() -> None:
    edit = presentations.edit(whole(), 31, 262)
    more = following(whole(), video_track("720p"), step="rung")

    with pytest.raises(PipelineError) as caught:
        following(more, step="trim", edit=edit)

    assert (caught.value.code, caught.value.retryable) == ("edit_changed", True)
    assert caught.value.params["track"] == "video-720p"


@pytest.mark.parametrize("track", [video_track("360p", recipe="ffffff"), audio_track(recipe="ffffff")])
def test_a_patch_of_a_track_that_was_made_again_since_does_not_fit_it(track: Track) -> None:
    """Nor does it where a trim was made before, and published after."""
    edit = presentations.edit(whole(), 31, 262)
    trimmed, again = following(whole(), step="trim", edit=edit), following(whole(), track, step="again")

    with pytest.raises(PipelineError, match="edit_changed"):
        following(trimmed, track, step="again")
    with pytest.raises(PipelineError, match="edit_changed"):
        following(again, step="trim", edit=edit)


def test_a_patch_that_does_not_say_for_what_it_was_made_is_trusted_until_its_track_is_made_again() -> None:
    edit = presentations.edit(whole(), 31, 262)
    nameless = replace(edit, patches=tuple(replace(patch, init="") for patch in edit.patches))

    trimmed = following(whole(), step="trim", edit=nameless)

    assert following(trimmed, text_track(), step="captions").edit == nameless
    with pytest.raises(PipelineError, match="edit_changed"):
        following(trimmed, video_track("360p", recipe="ffffff"), step="again")


def test_a_new_track_brings_its_pieces_along() -> None:
    trimmed = following(whole(), step="trim", edit=presentations.edit(whole(), 31, 262))
    more = presentation(video_track("360p", recipe="ffffff"), audio_track(), video_track("720p"))
    pieces = presentations.edit(more, 31, 262, recipe="eeeeee")

    with pytest.raises(PipelineError, match="edit_changed"):
        following(trimmed, *more.tracks, step="rungs")
    shown = following(trimmed, *more.tracks, step="rungs", pieces=[pieces])

    assert shown.edit == pieces
    assert knows(shown.edit) == ["video-360p", "audio-1-en", "video-720p"]


def test_pieces_for_another_range_are_of_no_use() -> None:
    trimmed = following(whole(), step="trim", edit=presentations.edit(whole(), 31, 262))
    pieces = presentations.edit(presentation(video_track("720p")), 32, 262)

    with pytest.raises(PipelineError, match="edit_changed"):
        following(trimmed, video_track("720p"), step="rung", pieces=[pieces])


def test_patches_go_with_their_tracks() -> None:
    both = presentation(video_track("360p"), video_track("720p"), audio_track())
    trimmed = following(both, step="trim", edit=presentations.edit(both, 31, 262))

    shown = following(trimmed, video_track("360p"), step="fewer", replaces=("video",))

    assert knows(shown.edit) == ["video-360p", "audio-1-en"]
    assert [track.id for track in shown.tracks] == ["video-360p", "audio-1-en"]


def test_the_first_version_may_be_a_trimmed_one() -> None:
    edit = presentations.edit(whole(), 31, 262)

    first = following(None, *whole().tracks, edit=edit)

    assert (first.version, first.edit) == (1, edit)


# -- clips ------------------------------------------------------------------------------------------------------------


def test_a_clip_goes_back_to_what_it_began_with() -> None:
    base, edit = presentations.edit(whole(), 31, 262), presentations.edit(whole(), 60, 130)

    clip = following(None, *whole().tracks, base=base)
    trimmed = following(clip, step="trim", edit=edit)
    reverted = following(trimmed, step="revert", edit=None)

    assert [in_force(each) for each in (clip, trimmed, reverted)] == [base, edit, base]
    assert {each.base for each in (clip, trimmed, reverted)} == {base}


def test_a_new_track_of_a_trimmed_clip_may_bring_pieces_for_both_ranges() -> None:
    base, edit = presentations.edit(whole(), 31, 262), presentations.edit(whole(), 60, 130)
    trimmed = following(following(None, *whole().tracks, base=base), step="trim", edit=edit)
    rung = presentation(video_track("360p"), video_track("720p"))

    shown = following(
        trimmed,
        video_track("720p"),
        step="rung",
        pieces=[presentations.edit(rung, 31, 262), presentations.edit(rung, 60, 130)],
    )

    assert knows(shown.edit) == knows(shown.base) == ["video-360p", "audio-1-en", "video-720p"]


# -- roll back --------------------------------------------------------------------------------------------------------


def test_a_roll_back_is_a_new_version_that_shows_what_an_earlier_one_did() -> None:
    first = whole()
    trimmed = following(first, step="trim", edit=presentations.edit(first, 31, 262))
    captioned = following(trimmed, text_track(), step="captions", heard=(1, 7))

    back = roll_back(captioned, trimmed, effect=Effect(job="back", step="package"), heard=(1, 9))

    assert (back.version, back.tracks, back.edit) == (4, trimmed.tracks, trimmed.edit)
    assert (back.epoch, back.sequence) == (1, 9)
    assert back.effects == (*captioned.effects, Effect(job="back", step="package"))
    assert (back.nonce, back.playlists) == ("", "")


def test_a_roll_back_happens_once() -> None:
    first = whole()
    effect = Effect(job="back", step="package")
    back = roll_back(following(first, text_track()), first, effect=effect)

    assert roll_back(back, first, effect=effect) is back


CHANGES = st.lists(st.sampled_from(["trim", "shorter", "seams", "revert", "captions", "rung", "back"]), max_size=8)


@given(CHANGES, st.integers(0, 10))
def test_whatever_happened_every_version_can_come_back_with_the_same_playlists(changes: list[str], to: int) -> None:
    shown = [whole()]
    for number, change in enumerate(changes):
        shown.append(_changed(shown, change, f"{number}"))

    back = roll_back(shown[-1], shown[to % len(shown)], effect=Effect(job="back", step="package"))

    assert back.version == len(shown) + 1
    assert _said(back) == _said(shown[to % len(shown)])


def _changed(shown: list[Presentation], change: str, step: str) -> Presentation:
    last = shown[-1]
    ranges = {"trim": (31, 262, False), "shorter": (130, 190, False), "seams": (31, 262, True)}
    if change in ranges:
        first, end, seams = ranges[change]
        return following(last, step=step, edit=presentations.edit(last, first, end, seams=seams))
    if change == "back":
        return roll_back(last, shown[len(shown) // 2], effect=Effect(job="job", step=step))
    if change == "captions":
        return following(last, text_track(), step=step)
    if change == "rung":
        rung = video_track("720p")
        edits = [
            presentations.edit(replace(last, tracks=(*last.tracks, rung)), *_frames(last.edit), seams=seams)
            for seams in (False, True)
            if last.edit and any(patch.seams for patch in last.edit.patches) == seams
        ]
        return following(last, rung, step=step, pieces=edits)
    return following(last, step=step, edit=None)


def _frames(edit: Edit) -> tuple[int, int]:
    return round(edit.start * NTSC.rate), round(edit.end * NTSC.rate)


def _said(shown: Presentation) -> dict[str, str]:
    return render_playlists(replace(shown, version=1, playlists="same"))


# -- what is remembered -----------------------------------------------------------------------------------------------


def test_effects_stay_few_and_say_where_some_were_forgotten() -> None:
    """The first ones and the latest; between them one that is nobody's, so that nobody takes the rest for all."""
    shown = whole()
    for number in range(400):
        shown = following(shown, step=f"{number}")

    assert shown.version == 401
    assert len(shown.effects) == FIRST_EFFECTS + 1 + LAST_EFFECTS
    assert [each.step for each in shown.effects[:2]] == ["package", "0"]
    assert shown.effects[FIRST_EFFECTS] == FORGOTTEN
    assert [each.step for each in shown.effects[FIRST_EFFECTS + 1 :]] == [str(number) for number in range(160, 400)]
    assert not {"job", "job-1"}.issuperset(effect.job for effect in shown.effects)


def test_as_many_effects_as_may_be_are_kept_whole() -> None:
    shown = whole()
    for number in range(FIRST_EFFECTS + LAST_EFFECTS - 1):
        shown = following(shown, step=f"{number}")

    assert len(shown.effects) == shown.version == FIRST_EFFECTS + LAST_EFFECTS
    assert FORGOTTEN not in shown.effects


def test_a_version_of_the_first_form_is_understood_and_followed_by_one_of_todays() -> None:
    """An older worker must not read what follows: it knows nothing of edits, and would show everything."""
    old = replace(whole(), schema=1)
    text = to_json(old).replace('"edit":null,"base":null,', "")
    assert "edit" not in text

    read = from_json(Presentation, text)

    assert read == old
    assert following(read, step="more").schema == SCHEMA
    assert roll_back(following(read, step="more"), read, effect=Effect(job="back", step="package")).schema == SCHEMA


def test_an_edit_survives_json() -> None:
    trimmed = replace(whole(), edit=presentations.edit(whole(), 31, 262, seams=True), base=Edit(
        start=Fraction(1, 3), end=Fraction(2)
    ))  # fmt: skip

    assert from_json(Presentation, to_json(trimmed)) == trimmed
