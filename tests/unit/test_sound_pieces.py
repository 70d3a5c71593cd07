"""The pieces of a sound: where a player begins anew, each stretch of pictures has sound of its own."""

from __future__ import annotations

import struct
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from presentations import audio_track, frame_ticks, video_track
from running import Folder

from pipeline.media.boxes import Sample
from pipeline.media.fragments import sound
from pipeline.media.timeline import AAC_FRAME, keyframes
from pipeline.presentation.cutting import cut
from pipeline.presentation.edits import segments_of
from pipeline.presentation.model import Track
from pipeline.stages.pieces import PieceFiles, Stored
from pipeline.stages.sound_pieces import sound_pieces
from pipeline.tasks import Keyframe, Segment, Timeline

FAST = Timeline(rate=Fraction(60000, 1001), frames=900)
"""A frame is shorter than one of AAC."""


def _box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), kind) + b"".join(content)


INIT = _box(b"moov", _box(b"mvex", _box(b"trex", struct.pack(">IIIIII", 0, 1, 1, AAC_FRAME, 0, 0))))


class Synthetic(Stored):
    """A track of frames that have a byte each."""

    @property
    def init(self) -> bytes:
        return INIT

    def media(self, segment: Segment) -> bytes:
        ticks = range(segment.start, segment.start + segment.duration, AAC_FRAME)
        frames = [
            Sample(tick=tick, decode=tick, duration=AAC_FRAME, offset=0, size=1, sync=True, moof=0) for tick in ticks
        ]
        return sound(b"f", frames, INIT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pieces")


@st.composite
def cuts(draw: st.DrawFn) -> tuple[Timeline, tuple[int, ...], int, int]:
    """A timeline, scene cuts in it, and output frames [first, end): often one that is beside a keyframe."""
    rate = Fraction(*draw(st.sampled_from([(60000, 1001), (60, 1), (50, 1), (30000, 1001), (7, 1)])))
    frames = draw(st.integers(4, int(rate * 40)))
    segment, keyframe = draw(st.sampled_from([(4, 2), (2, 1), (6, 3)]))
    timeline = Timeline(rate=rate, frames=frames, segment=Fraction(segment), keyframe=Fraction(keyframe))
    near = st.builds(int.__add__, st.sampled_from([*keyframes(timeline), frames]), st.integers(-3, 3))
    anywhere = st.one_of(near, st.integers(0, frames)).map(lambda frame: min(max(frame, 0), frames))
    first, end = sorted(draw(st.lists(anywhere, min_size=2, max_size=2, unique=True)))
    return timeline, tuple(draw(st.lists(anywhere, max_size=3))), first, end


@example((FAST, (), 300, 721))  # no frame of sound begins between the last keyframe and the end
@example((FAST, (), 200, 721))
@example((FAST, (721,), 700, 723))  # … nor between two keyframes
@given(cuts())
def test_each_stretch_has_sound_within_a_frame_of_the_pictures(
    folder: Path, case: tuple[Timeline, tuple[int, ...], int, int]
) -> None:
    timeline, scenes, first, end = case
    heard = audio_track(timeline=timeline)
    made = cut((with_keyframes(video_track("360p", timeline), timeline, scenes), heard), timeline, first, end)
    low, high = made.kept
    seams = [frame / timeline.rate for frame in (low, high) if first < frame < end]
    stored = Synthetic(cut=made.cuts[1], inputs={})

    patch = sound_pieces(stored, PieceFiles(Folder(root=folder), stored.cut), seams)

    segments = segments_of(heard, patch)
    assert all(a.start + a.duration == b.start for a, b in pairwise(segments))
    assert (segments[0].start, segments[-1].start + segments[-1].duration) == (stored.cut.start, stored.cut.end)
    assert len(patch.seams) == len(seams)
    begins = [segments[0].start, *patch.seams]
    assert begins == sorted(set(begins))
    assert set(begins) <= {segment.start for segment in segments}
    assert all(abs(place - seam * 48_000) < AAC_FRAME for place, seam in zip(patch.seams, seams, strict=True))


def with_keyframes(track: Track, timeline: Timeline, frames: tuple[int, ...]) -> Track:
    """The track with further keyframes, as scene cuts make them."""
    ticks = {frame * frame_ticks(timeline) for frame in frames}
    segments = []
    for segment in track.segments:
        known = {keyframe.tick for keyframe in segment.keyframes}
        more = {tick for tick in ticks if segment.start <= tick < segment.start + segment.duration} - known
        every = (*segment.keyframes, *(Keyframe(tick=tick, offset=-tick, size=1) for tick in more))
        segments.append(replace(segment, keyframes=tuple(sorted(every, key=lambda each: each.tick))))
    return replace(track, segments=tuple(segments))
