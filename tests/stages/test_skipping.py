"""What cannot be seeked is read from its beginning, but decoded only from the last keyframe that is needed."""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from itertools import islice
from pathlib import Path

import pytest
from makers import make_clip, read_frame_number
from running import opened

from pipeline.media import skipping
from pipeline.media.frames import Decoded, FrameSource

OPEN = {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=25:min-keyint=2:scenecut=0"}
CLOSED = {"x264-params": "keyint=25:min-keyint=25:scenecut=0"}


def decoded_from(path: Path, second: Fraction, count: int, passed: list[int]) -> list[Decoded]:
    """The first frames that come out when reading on to this second of the asset."""
    clip = opened(path)
    assert clip.media.video
    assert not clip.media.seekable
    with closing(FrameSource(path, clip.media.video)) as source:
        frames = source.frames_after(clip.media.video.start + second, lambda: passed.append(1))
        return list(islice(frames, count))


@pytest.mark.parametrize("options", [CLOSED, OPEN], ids=["closed", "open"])
def test_decoding_begins_at_the_keyframe_before(tmp_path: Path, options: dict[str, str]) -> None:
    path, passed = make_clip(tmp_path / "clip.ts", seconds=8, options=options, audio=None), []

    frames = decoded_from(path, Fraction(6), 60, passed)

    shown = [read_frame_number(each.frame) for each in frames]
    assert 120 <= shown[0] <= 150
    assert shown == list(range(shown[0], shown[0] + len(shown)))
    assert len(passed) >= 150


def test_a_picture_with_one_keyframe_is_decoded_from_there(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.ts", seconds=3, options={"x264-params": "keyint=1000:scenecut=0"}, audio=None)

    assert [read_frame_number(each.frame) for each in decoded_from(path, Fraction(2), 3, [])] == [0, 1, 2]


def test_no_more_waits_than_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a keyframe is too far away, what waited for it is decoded after all."""
    path = make_clip(tmp_path / "clip.ts", seconds=8, options=CLOSED, audio=None)
    monkeypatch.setattr(skipping, "_HELD", 2000)

    shown = [read_frame_number(each.frame) for each in decoded_from(path, Fraction(6), 30, [])]

    assert shown[0] <= 125
    assert shown == list(range(shown[0], shown[0] + 30))


def test_a_moment_behind_the_end_gives_the_last_frames(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.ts", seconds=4, options=CLOSED, audio=None)

    assert [read_frame_number(each.frame) for each in decoded_from(path, Fraction(60), 99, [])][-1] == 99
