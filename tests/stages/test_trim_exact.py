"""Two hundred cuts and more of nine kinds of sources: every rung shows just the wanted frames, and the sound fits them.

Each source is transcoded once and cut often. What is compared is what a player would append: init and segments of the
stage's answer, decoded from the first byte to the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cut_assets import Asset, made_asset
from cut_kinds import KINDS, random_cuts, told
from cuts import wanted_frames, warnings
from makers import make_clip
from running import opened

from pipeline.presentation.cutting import frames_of

RANDOM = 25
"""Cuts of each source."""


@pytest.fixture(scope="module", params=KINDS)
def asset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Asset:
    kind, root = KINDS[request.param], tmp_path_factory.mktemp("asset")
    source = make_clip(root / f"clip.{kind.suffix}", **{"size": (160, 90), **kind.made})
    clip = opened(source, segment=kind.segment, keyframe=kind.keyframe)
    assert clip.media.video
    assert bool(clip.media.video.open_gop) == kind.open_gop
    assert clip.media.video.constant == ("pts" not in kind.made)
    made = made_asset(clip, root / "whole")
    assert sorted(set(made.numbers)) == list(range(clip.media.video.frames)) or "pts" in kind.made
    return made


def test_a_cut_anywhere_is_exact_in_every_rung(asset: Asset, tmp_path: Path) -> None:
    timeline, done = asset.clip.timeline, 0
    for start, stop in random_cuts(timeline.duration, timeline.frames):
        shown = wanted_frames(start, stop, timeline)
        if not shown:
            continue
        with told(start, stop):
            assert frames_of(start, stop, timeline) == (shown.start, shown.stop)
            trimmed = asset.trim(tmp_path / str(done), shown.start, shown.stop)
            trimmed.assert_exact()
            if done % 8 == 0:
                assert "".join(map(warnings, [*trimmed.pictures, *trimmed.sounds])) == ""
        done += 1
        if done == RANDOM:
            return


def edges(asset: Asset) -> Iterator[range]:
    """Cuts at every kind of place where something begins or ends."""
    timeline = asset.clip.timeline
    picture = next(track for track in asset.tracks if track.kind == "video")
    ticks = timeline.timescale / timeline.rate
    starts = [int(segment.start / ticks) for segment in picture.segments]
    keys = [int(keyframe.tick / ticks) for segment in picture.segments for keyframe in segment.keyframes]
    inner = next(key for key in keys if key not in starts and key > starts[1])
    last = timeline.frames
    yield from (range(last), range(1), range(last - 1, last), range(1, last), range(last - 1))
    yield from (range(starts[1], starts[2]), range(starts[1], last), range(starts[1] - 1, starts[1] + 1))
    yield from (range(inner, last), range(inner, starts[2]), range(starts[1], inner), range(inner - 1, inner + 1))
    yield from (range(inner, inner + 1), range(inner - 1, inner), range(inner + 2, inner + 5))
    yield range(starts[1] + 1, starts[2] - 1)


def test_a_cut_where_something_begins_or_ends_is_exact(asset: Asset, tmp_path: Path) -> None:
    for number, shown in enumerate(edges(asset)):
        with told(shown.start, shown.stop):
            trimmed = asset.trim(tmp_path / str(number), shown.start, shown.stop)
            trimmed.assert_exact()


def test_a_cut_by_another_build_of_the_encoder_is_exact(asset: Asset, tmp_path: Path) -> None:
    """Its init segment is another one (more reference frames): players begin anew at each seam."""
    timeline = asset.clip.timeline
    for number, (start, stop) in zip(range(3), random_cuts(timeline.duration, -timeline.frames), strict=False):
        if shown := wanted_frames(start, stop, timeline):
            with told(start, stop):
                trimmed = asset.trim(tmp_path / str(number), shown.start, shown.stop, options=OTHER_BUILD)
                trimmed.assert_exact()


def test_a_cut_beside_a_keyframe_by_another_build_is_exact(asset: Asset, tmp_path: Path) -> None:
    """What is encoded on either side is a frame long: a stretch of its own, in every track."""
    timeline = asset.clip.timeline
    picture = next(track for track in asset.tracks if track.kind == "video")
    keys = [int(each.tick * timeline.rate / timeline.timescale) for s in picture.segments for each in s.keyframes]
    for number, end in enumerate(keys[-2:]):
        with told(keys[1] - 1, end + 1):
            trimmed = asset.trim(tmp_path / str(number), keys[1] - 1, end + 1, options=OTHER_BUILD)
            trimmed.assert_exact()


OTHER_BUILD = (("x264-params", "ref=4"),)
