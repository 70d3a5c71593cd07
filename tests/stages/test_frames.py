"""Which source frame every output frame shows: by the numbers that the frames show, for rates of every kind."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from fields import telecine
from films import Picture
from makers import draw, make_clip, read_frame_number
from running import Clip, Made, opened

from pipeline.media.timeline import JITTER_S, segment_starts

FILM, NTSC, FAST = Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001)


def numbers(*made: Made) -> list[int]:
    return [read_frame_number(frame) for one in made for frame in one.frames()]


def in_pieces(clip: Clip, root: Path, cuts: Sequence[int]) -> list[int]:
    return numbers(*(clip.transcode(root / f"from-{a}", first=a, last=b)[1][0] for a, b in pairwise(cuts)))


# -- variable rates ----------------------------------------------------------------------------------------------------


def jittered(count: int, kept: float = 1) -> list[Fraction]:
    """Thirty frames a second of a phone: each up to a millisecond off its place, some left out."""
    dice = random.Random(7)
    places = [0, *(n for n in range(1, count) if dice.random() < kept)]
    return [max(Fraction(0), Fraction(n, 30) + Fraction(dice.randint(-90, 90), 90_000)) for n in places]


def irregular(count: int) -> list[Fraction]:
    dice = random.Random(11)
    return [Fraction(ticks, 90_000) for ticks in accumulate([0, *(dice.randint(90, 9000) for _ in range(count))])]


def with_holds(times: Sequence[Fraction], *holds: tuple[int, Fraction]) -> list[Fraction]:
    """From each of these frames on, so many seconds later."""
    return [time + sum(seconds for place, seconds in holds if n >= place) for n, time in enumerate(times)]


VARIABLE = {
    "frames left out": jittered(120, kept=0.9),
    "half of the frames": jittered(180, kept=0.5),
    "irregular": irregular(80),
    "long holds": with_holds(jittered(60), (1, Fraction(3, 2)), (30, Fraction(7, 3)), (59, Fraction(2))),
    "slides": [Fraction(0), Fraction(1, 7), Fraction(23, 10), Fraction(47, 11), Fraction(5)],
    "two rates": [Fraction(n, 60) for n in range(60)] + [1 + Fraction(n, 24) for n in range(60)],
}


def test_a_trembling_clock_loses_no_frame_where_some_were_dropped(tmp_path: Path) -> None:
    """Half of the frames of a phone's recording lie a moment after their place; each of them is shown all the same."""
    clip = opened(make_clip(tmp_path / "clip.mp4", pts=jittered(120, kept=0.95), gop=17, audio=None), segment=1)

    _, (whole,) = clip.transcode(tmp_path / "whole")

    assert clip.media.video is not None
    assert not clip.media.video.constant
    assert sorted(set(numbers(whole))) == list(range(clip.media.video.frames))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("name", VARIABLE)
def test_the_last_frame_that_is_not_later_is_shown(tmp_path: Path, name: str, suffix: str) -> None:
    """Every output frame, made in one piece and in several whose seams lie anywhere between the source's keyframes."""
    path = make_clip(tmp_path / f"clip.{suffix}", pts=VARIABLE[name], gop=17, audio=None)
    clip = opened(path, segment=Fraction(7, 10))
    times, tick = stored_times(path)
    _, (whole,) = clip.transcode(tmp_path / "whole")
    shown = numbers(whole)
    pieces = len(segment_starts(clip.timeline))
    assert clip.media.video
    assert not clip.media.video.constant
    # What a container rounds to its ticks is forgiven, and what the clock of a phone trembles; no more.
    forgiven = max(tick, JITTER_S)
    by_law = [max(i for i, t in enumerate(times) if t <= n / clip.timeline.rate + forgiven) for n in range(len(shown))]
    assert shown == by_law
    assert len(shown) == clip.timeline.frames
    assert in_pieces(clip, tmp_path, range(pieces + 1)) == shown
    assert in_pieces(clip, tmp_path / "three", [0, pieces // 3, pieces // 2, pieces]) == shown


def stored_times(path: Path) -> tuple[list[Fraction], Fraction]:
    """When the frames are shown, from the first one on, and how finely that is told."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base
        ticks = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
        return [(tick - ticks[0]) * stream.time_base for tick in ticks], stream.time_base


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_jitter_alone_costs_no_frame(tmp_path: Path, suffix: str) -> None:
    """Half a frame off its place or less, every frame is shown once: the grid is that of the source."""
    clip = opened(make_clip(tmp_path / f"clip.{suffix}", pts=jittered(90), gop=17, audio=None), segment=1)
    _, (whole,) = clip.transcode(tmp_path / "whole")
    assert clip.timeline.rate == 30
    assert numbers(whole) == in_pieces(clip, tmp_path, [0, 1, 2, 3]) == list(range(90))


# -- constant rates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv"])
@pytest.mark.parametrize("rate", [FILM, NTSC, FAST], ids=str)
def test_the_exact_rate_survives_every_clock(tmp_path: Path, rate: Fraction, suffix: str) -> None:
    """Thousandths of a second in Matroska and FLV, 1/90000 in MPEG-TS; seven seconds tell 29.97 from 30."""
    path = make_clip(tmp_path / f"clip.{suffix}", rate=rate, seconds=7, audio=None, options={"preset": "ultrafast"})
    clip = opened(path, segment=2)
    _, (whole,) = clip.transcode(tmp_path / "whole")
    video = clip.media.video
    assert video
    assert (video.rate, video.constant, clip.timeline.rate) == (rate, True, rate)
    assert numbers(whole) == in_pieces(clip, tmp_path, [0, 1, 2, 3, 4]) == list(range(round(7 * rate)))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(
    ("rate", "every"), [(90, 2), (100, 2), (2 * FAST, 2), (120, 2), (144, 3), (4 * FAST, 4), (240, 4)], ids=str
)
def test_of_high_rates_every_nth_frame_is_kept(tmp_path: Path, rate: Fraction, every: int, suffix: str) -> None:
    path = make_clip(tmp_path / f"clip.{suffix}", rate=rate, seconds=2, audio=None, options={"preset": "ultrafast"})
    clip = opened(path, segment=1)
    _, (whole,) = clip.transcode(tmp_path / "whole")
    assert clip.timeline.rate == rate / every
    assert numbers(whole) == in_pieces(clip, tmp_path, [0, 1, 2]) == list(range(0, round(2 * rate), every))


@pytest.mark.parametrize("suffix", ["ts", "mpg"])
def test_film_that_is_repeated_in_fields_is_film(tmp_path: Path, suffix: str) -> None:
    """A DVD's header says 29.97 and its pictures say for how many fields: 23.976 whole frames are what there is."""
    clip = opened(telecine(tmp_path / f"film.{suffix}", [grainy(number) for number in range(72)]), segment=1)
    _, (whole,) = clip.transcode(tmp_path / "whole", "1080p", crf=12)
    video = clip.media.video
    assert video
    assert (video.rate, video.constant, video.frames, video.interlaced) == (FILM, True, 72, False)
    assert float(clip.timeline.duration) == pytest.approx(72 / FILM, abs=0.01)
    assert numbers(whole) == list(range(72))
    assert in_pieces(clip, tmp_path, [0, 1, 2, 3]) == list(range(72))


def grainy(number: int) -> Picture:
    """With so much in it that a picture is not smaller than a packet of a program stream: else two share a time."""
    picture = av.VideoFrame.from_ndarray(draw(number, Fraction(1, 2), (320, 192)), format="yuv444p")
    picture.color_range = 1
    grain = np.random.default_rng(number).integers(-25, 26, (192, 320, 1))
    return np.asarray(np.clip(picture.to_ndarray(format="rgb24") + grain, 0, 255), np.uint8)
