"""Trim makes few pieces and touches nothing else: what is encoded, what is copied, and where players begin anew."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cut_assets import RUNGS, Asset, Trimmed, made_asset
from cuts import assert_beeps, assert_covers, heard_of, warnings
from makers import make_clip
from running import opened

from pipeline.errors import PipelineError
from pipeline.media.boxes import scan_segment
from pipeline.sandbox import ChildLimits, Nursery
from pipeline.tasks import Patch, Piece, Rung, TrimFacts, from_json, to_json

OTHER_BUILD = (("x264-params", "ref=4"),)
"""More reference frames than the stored recipe: another init segment, as another build may write one."""
TOP, LOW = (rung.track for rung in RUNGS)


@pytest.fixture(scope="module")
def asset(tmp_path_factory: pytest.TempPathFactory) -> Asset:
    """Twelve seconds at 25 with two sounds: segments at 0, 100 and 200, keyframes at 0, 50, 100 …"""
    root = tmp_path_factory.mktemp("asset")
    source = make_clip(root / "clip.mp4", seconds=12, size=(160, 90), languages=("eng", "tam"))
    return made_asset(opened(source), root / "whole")


def pieces(trimmed: Trimmed, track: str) -> tuple[Piece, ...]:
    patch = trimmed.patch(track)
    return (*patch.head, *patch.tail)


def stored_files(trimmed: Trimmed) -> set[str]:
    return {str(path.relative_to(trimmed.root)) for path in trimmed.root.rglob("*") if path.is_file()}


# -- what is made ------------------------------------------------------------------------------------------------------


def test_only_frames_from_a_cut_to_the_nearest_keyframe_are_encoded(asset: Asset, tmp_path: Path) -> None:
    trimmed = asset.trim(tmp_path, 60, 240)

    trimmed.assert_exact()
    assert trimmed.task.kept == (100, 200)
    assert trimmed.facts.encoded == 40 + 40


def test_what_is_encoded_and_what_is_copied_stand_in_one_piece(asset: Asset, tmp_path: Path) -> None:
    trimmed = asset.trim(tmp_path, 30, 270)
    head, tail = pieces(trimmed, TOP)
    first, last = asset.track(TOP).segments[0], asset.track(TOP).segments[2]

    trimmed.assert_exact()
    assert trimmed.task.kept == (50, 250)
    copied = asset.media(TOP, first)[first.keyframes[1].offset :]
    assert (tmp_path / head.key).read_bytes().endswith(copied)
    assert (tmp_path / tail.key).read_bytes().startswith(asset.media(TOP, last)[: last.keyframes[1].offset])
    for piece in (head, tail):
        data = (tmp_path / piece.key).read_bytes()
        assert all(data[keyframe.offset + 4 : keyframe.offset + 8] == b"moof" for keyframe in piece.keyframes)
        assert [keyframe.tick for keyframe in piece.keyframes] == sorted(k.tick for k in piece.keyframes)


def test_cuts_at_keyframes_need_no_source(asset: Asset, tmp_path: Path) -> None:
    boundaries, inside = asset.trim(tmp_path / "a", 100, 200), asset.trim(tmp_path / "b", 50, 250)

    for trimmed in (boundaries, inside):
        trimmed.assert_exact()
        assert trimmed.facts.encoded == 0
    assert pieces(boundaries, TOP) == ()


def test_the_facts_tell_what_was_stored(asset: Asset, tmp_path: Path) -> None:
    trimmed = asset.trim(tmp_path, 60, 240)
    made = [piece for patch in trimmed.facts.patches for piece in (*patch.head, *patch.tail)]

    assert [patch.track for patch in trimmed.facts.patches] == [track.id for track in asset.tracks]
    assert {piece.key for piece in made} == stored_files(trimmed)
    assert sum(piece.size for piece in made) == trimmed.facts.bytes
    assert all((tmp_path / piece.key).stat().st_size == piece.size for piece in made)
    assert all(
        piece.key == f"{patch.track}/{piece.start}.m4s" for patch in trimmed.facts.patches for piece in patch.head
    )


def test_the_same_trim_makes_the_same_bytes(asset: Asset, tmp_path: Path) -> None:
    """Its pieces have the same keys, so they had better be the same."""
    digests = [
        {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.m4s")}
        for root in (asset.trim(tmp_path / name, 61, 239).root for name in "ab")
    ]

    assert digests[0] == digests[1] != {}


def test_no_piece_is_longer_than_a_segment(asset: Asset, tmp_path: Path) -> None:
    """Also where everything is encoded: players were promised a longest segment."""
    trimmed = asset.trim(tmp_path, 70, 120)

    trimmed.assert_exact()
    assert trimmed.facts.encoded == 50
    assert [piece.start for piece in pieces(trimmed, TOP)] == [70_000, 100_000]


def test_a_sound_alone_is_cut_at_its_frames(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "clip.m4a", codec=None, seconds=11)
    asset = made_asset(opened(source), tmp_path / "whole")

    trimmed = asset.trim(tmp_path / "cut", 100, 400)

    (sound,) = trimmed.sounds
    start, end = (frame / asset.clip.timeline.rate for frame in (100, 400))
    assert_covers(sound, start, end)
    assert_beeps(sound, start, end)
    assert warnings(sound) == ""
    assert trimmed.facts.encoded == 0


def test_sound_is_the_sound_that_was_there(asset: Asset, tmp_path: Path) -> None:
    """Frames are copied: between the cuts the samples are those of the uncut track, to the bit."""
    trimmed, whole = asset.trim(tmp_path, 60, 240), asset.trim(tmp_path / "whole", 0, 300)
    for cut, uncut in zip(trimmed.sounds, whole.sounds, strict=True):
        begin = scan_segment(cut[0].media, cut[0].init).start
        samples = heard_of(cut)
        # The first frame of a decoder has nothing to overlap with.
        assert np.array_equal(samples[1024:], heard_of(uncut)[begin + 1024 : begin + len(samples)])


# -- another init segment ----------------------------------------------------------------------------------------------


def test_where_the_encoder_writes_another_init_segment_players_begin_anew(asset: Asset, tmp_path: Path) -> None:
    trimmed = asset.trim(tmp_path, 30, 270, options=OTHER_BUILD)

    trimmed.assert_exact()
    for track in (TOP, LOW):
        assert trimmed.patch(track).seams == (50_000, 250_000)
        assert [bool(piece.init) for piece in pieces(trimmed, track)] == [True, False, False, True]
        assert (tmp_path / f"{track}/init.mp4").read_bytes() != asset.init(track)
    for track in ("audio-1-en", "audio-2-ta"):
        seams = trimmed.patch(track).seams
        assert all(0 <= at - seam * 48_000 < 1024 for at, seam in zip(seams, (2, 10), strict=True))
        assert {piece.start for piece in pieces(trimmed, track)} >= set(seams)
        assert not any(piece.init for piece in pieces(trimmed, track))
    assert "".join(map(warnings, trimmed.pictures)) == ""


@pytest.mark.parametrize("first", [300, 200])
def test_a_stretch_that_is_shorter_than_a_frame_of_sound_has_one(tmp_path: Path, first: int) -> None:
    """At 59.94 a cut one frame behind a keyframe: no frame of sound begins between."""
    source = make_clip(tmp_path / "clip.mp4", size=(160, 90), rate=Fraction(60000, 1001), seconds=13)
    fast = made_asset(opened(source), tmp_path / "whole")

    trimmed = fast.trim(tmp_path / "cut", first, 721, options=OTHER_BUILD)

    trimmed.assert_exact()
    assert trimmed.task.kept[1] == 720
    moments = [[Fraction(seam, scale) for seam in patch.seams] for patch, scale in _timed(trimmed)]
    assert all(abs(a - b) < Fraction(1024, 48_000) for row in moments for a, b in zip(row, moments[0], strict=True))


def _timed(trimmed: Trimmed) -> list[tuple[Patch, int]]:
    return [(patch, trimmed.asset.track(patch.track).timescale) for patch in trimmed.facts.patches]


def test_one_rung_that_does_not_fit_divides_them_all(asset: Asset, tmp_path: Path) -> None:
    other = replace(asset, rungs={**asset.rungs, LOW: replace(asset.rungs[LOW], options=OTHER_BUILD)})

    trimmed = other.trim(tmp_path, 30, 270)

    trimmed.assert_exact()
    assert trimmed.patch(TOP).seams == trimmed.patch(LOW).seams == (50_000, 250_000)
    assert [bool(piece.init) for piece in pieces(trimmed, TOP)] == [False] * 4
    assert f"{TOP}/init.mp4" not in stored_files(trimmed)


def test_a_cut_that_encodes_nothing_has_no_seams_whatever_the_encoder(asset: Asset, tmp_path: Path) -> None:
    trimmed = asset.trim(tmp_path, 50, 250, options=OTHER_BUILD)

    trimmed.assert_exact()
    assert not any(patch.seams for patch in trimmed.facts.patches)


def test_where_everything_is_encoded_there_is_nothing_to_begin_anew_for(asset: Asset, tmp_path: Path) -> None:
    trimmed = asset.trim(tmp_path, 70, 120, options=OTHER_BUILD)

    trimmed.assert_exact()
    assert trimmed.facts.encoded == 50
    assert not any(patch.seams for patch in trimmed.facts.patches)
    assert all(piece.init for piece in pieces(trimmed, TOP))


def test_a_rung_of_another_grid_is_cut_too(asset: Asset, tmp_path: Path) -> None:
    """As another profile would have brought it: segments of three seconds."""
    clip = asset.clip
    grid = replace(clip.timeline, segment=Fraction(3), keyframe=Fraction(3))
    rung = Rung(name="72p", width=128, height=72, crf=23, maxrate=300_000, bufsize=600_000, preset="veryfast")
    late = made_asset(replace(clip, timeline=grid), tmp_path / "late", rungs=(rung,))
    both = replace(
        asset,
        root=tmp_path / "both",
        tracks=(*asset.tracks, late.track(rung.track)),
        rungs={**asset.rungs, rung.track: rung},
    )
    both.root.mkdir()
    for root, names in ((asset.root, [track.id for track in asset.tracks]), (late.root, [rung.track])):
        for name in names:
            (both.root / name).symlink_to(root / name)

    trimmed = both.trim(tmp_path / "same", 20, 300)
    anew = both.trim(tmp_path / "other", 20, 300, options=OTHER_BUILD)

    assert trimmed.task.kept == (150, 300)
    trimmed.assert_exact()
    anew.assert_exact()
    assert {patch.seams[0] for patch in anew.facts.patches} == {150_000, 6 * 48_000 + 768}


# -- running -----------------------------------------------------------------------------------------------------------


def test_progress_goes_from_nothing_to_all(asset: Asset, tmp_path: Path) -> None:
    told: list[float] = []

    asset.trim(tmp_path, 30, 270, tick=told.append)

    assert told == sorted(told)
    assert told[0] == 0


def test_a_trim_that_is_cancelled_ends_at_once(asset: Asset, tmp_path: Path) -> None:
    def cancelled(fraction: float) -> None:
        raise PipelineError("cancelled")

    with pytest.raises(PipelineError, match="cancelled"):
        asset.trim(tmp_path, 30, 270, tick=cancelled)


def test_it_needs_nothing_but_its_inputs(asset: Asset, tmp_path: Path) -> None:
    """In a process without network, which may open no other file; the answer travels as JSON."""
    task = asset.task(30, 270)
    nursery = Nursery(tmp_path)
    nursery.start()
    child = nursery.child()
    out = tmp_path / "out"
    out.mkdir()
    try:
        messages = list(child.run("trim", to_json(task), asset.inputs(task), out, ChildLimits()))
    finally:
        child.close()
        nursery.close()

    facts = from_json(TrimFacts, next(message["facts"] for message in messages if "facts" in message))
    Trimmed(facts=facts, task=task, root=out, asset=asset).assert_exact()
    done = {message["done"] for message in messages if "done" in message}
    assert done == {piece.key for patch in facts.patches for piece in (*patch.head, *patch.tail)}
