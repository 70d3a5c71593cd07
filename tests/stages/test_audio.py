"""Sound lies where its timestamps say, covers the whole asset, and starts its segments with the picture."""

from __future__ import annotations

import math
import os
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import beep_starts, make_clip
from running import Clip, Made, opened

from pipeline.errors import PipelineError
from pipeline.media.samples import Placed, blocks, continuous
from pipeline.media.timeline import segment_starts

CORPUS = Path(os.environ.get("REELWAY_MEDIA", Path(__file__).parents[2].parent / "shared" / "media"))
RATE = 48_000
AAC_FRAME = Fraction(1024, RATE)


def assert_covers(clip: Clip, made: Made) -> None:
    """From 0 to D rounded up to a frame; each segment begins at the first AAC frame not before the picture's."""
    segments, grid = made.part.segments, clip.timeline
    assert made.part.timescale == RATE
    assert segments[0].start == 0
    assert all(a.start + a.duration == b.start for a, b in pairwise(segments))
    end = segments[-1].start + segments[-1].duration
    assert end == math.ceil(grid.duration / AAC_FRAME) * 1024
    starts = {math.ceil(first / grid.rate / AAC_FRAME) * 1024 for first in segment_starts(grid)}
    assert [segment.start for segment in segments] == sorted(start for start in starts if start < end)
    assert made.part.codec == "mp4a.40.2"
    assert made.warnings() == ""


def beeps(made: Made) -> list[float]:
    return beep_starts(made.sound()[0], RATE)


def level(samples: np.ndarray[Any, Any], start: float, end: float) -> float:
    """Root mean square of one channel between two seconds."""
    return float(np.sqrt(np.mean(samples[round(start * RATE) : round(end * RATE)] ** 2)))


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(60)], ids=str)
def test_sound_covers_the_picture_segment_by_segment(tmp_path: Path, rate: Fraction) -> None:
    clip = opened(make_clip(tmp_path / "clip.mp4", seconds=5, rate=rate), segment=1)
    made = clip.audio(tmp_path)
    assert_covers(clip, made)
    assert beeps(made)[1:5] == pytest.approx([1, 2, 3, 4], abs=0.005)


def test_sound_alone_has_a_grid_of_its_own(tmp_path: Path) -> None:
    clip = opened(make_clip(tmp_path / "clip.m4a", codec=None, seconds=5))
    made = clip.audio(tmp_path)
    assert_covers(clip, made)
    assert [segment.start for segment in made.part.segments] == [0, 188 * 1024]
    assert beeps(made)[1:] == pytest.approx([1, 2, 3, 4], abs=0.005)


@pytest.mark.parametrize(
    ("codec", "suffix", "sample_rate"),
    [
        ("aac", "mkv", 44100), ("libmp3lame", "mkv", 44100), ("libopus", "webm", 48000), ("flac", "mkv", 44100),
        ("pcm_s16le", "mov", 32000), ("ac3", "ts", 48000),
    ],
)  # fmt: skip
def test_any_codec_and_sample_rate_stays_in_time(tmp_path: Path, codec: str, suffix: str, sample_rate: int) -> None:
    video = "libvpx-vp9" if suffix == "webm" else "libx264"
    source = make_clip(tmp_path / f"clip.{suffix}", seconds=3, audio=codec, sample_rate=sample_rate, codec=video)
    clip = opened(source)
    made = clip.audio(tmp_path)
    assert_covers(clip, made)
    assert clip.media.video
    shift = float(clip.media.video.start - clip.timeline.start)
    # Transport streams and MP3 in Matroska do not say how much of the beginning is the encoder's priming.
    assert beeps(made)[-2:] == pytest.approx([1 + shift, 2 + shift], abs=0.026)


def test_late_sound_is_preceded_by_silence(tmp_path: Path) -> None:
    clip = opened(make_clip(tmp_path / "clip.mkv", seconds=4, audio_start=1.5, audio_seconds=2.4))
    made = clip.audio(tmp_path)
    assert_covers(clip, made)
    assert beeps(made) == pytest.approx([2, 3], abs=0.005)
    assert level(made.sound()[0], 0, 1.4) < 1e-4


def test_short_sound_is_followed_by_silence(tmp_path: Path) -> None:
    clip = opened(make_clip(tmp_path / "clip.mp4", seconds=4, audio_seconds=1.5))
    made = clip.audio(tmp_path)
    assert_covers(clip, made)
    assert beeps(made)[1:] == pytest.approx([1], abs=0.005)
    assert level(made.sound()[0], 1.6, 4) < 1e-4


def test_long_sound_is_cut_at_the_end_of_the_asset(tmp_path: Path) -> None:
    clip = opened(make_clip(tmp_path / "clip.mp4", seconds=2, audio_seconds=2.4))
    assert clip.timeline.duration == 2
    assert_covers(clip, clip.audio(tmp_path))


@pytest.mark.parametrize("drift", [Fraction(4, 1000), Fraction(-4, 1000)])
def test_drifting_sound_is_stretched_to_its_timestamps(tmp_path: Path, drift: Fraction) -> None:
    """Twelve seconds at 0.4 % are 48 ms, twice an AAC frame, if nobody cares."""
    clip = opened(make_clip(tmp_path / "clip.mkv", seconds=12, rate=10, audio_drift=drift))
    made = clip.audio(tmp_path)
    assert_covers(clip, made)
    assert beeps(made)[1:12] == pytest.approx(list(range(1, 12)), abs=float(AAC_FRAME))


def test_missing_packets_are_silence_and_what_follows_is_in_time(tmp_path: Path) -> None:
    clip = opened(make_clip(tmp_path / "clip.mkv", seconds=5, audio_gap=(1.5, 3.5)))
    made = clip.audio(tmp_path)
    assert_covers(clip, made)
    assert beeps(made)[1:] == pytest.approx([1, 4], abs=0.005)
    assert level(made.sound()[0], 1.6, 3.4) < 1e-4


def test_damaged_packets_are_silence(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.ts", seconds=5, codec=None, audio="ac3")
    clip = opened(path)
    data = bytearray(path.read_bytes())
    low, high = len(data) * 3 // 10 // 188 * 188, len(data) * 5 // 10 // 188 * 188
    data[low:high] = bytes(high - low)
    path.write_bytes(data)
    made = clip.audio(tmp_path)
    assert_covers(clip, made)
    assert beeps(made)[-2:] == pytest.approx([3, 4], abs=0.026)
    assert level(made.sound()[0], 1.7, 2.3) < 1e-4


@pytest.mark.raises_code("audio_file_broken")
def test_sound_of_which_nothing_can_be_decoded_is_refused(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.mkv", seconds=2, codec=None, audio="flac")
    clip = opened(path)
    data = bytearray(path.read_bytes())
    start = data.index(b"\x1f\x43\xb6\x75") + 64  # the first cluster
    data[start:] = bytes(len(data) - start)
    path.write_bytes(data)
    with pytest.raises(PipelineError) as caught:
        clip.audio(tmp_path)
    assert caught.value.code == "audio_file_broken"


def test_every_language_is_a_track(tmp_path: Path) -> None:
    """Each stream beeps at its own pitch."""
    clip = opened(make_clip(tmp_path / "clip.mkv", seconds=2, languages=("eng", "fra")))
    for index, pitch in enumerate((1000, 2000)):
        made = clip.audio(tmp_path, index)
        beep = made.sound()[0][RATE : RATE + RATE // 10]
        spectrum = np.abs(np.fft.rfft(beep))
        assert np.argmax(spectrum) * 10 == pytest.approx(pitch, abs=20)
    assert [stream.language for stream in clip.media.audio] == ["en", "fr"]


def test_one_channel_becomes_two_of_the_same_level(tmp_path: Path) -> None:
    clip = opened(make_clip(tmp_path / "clip.mkv", seconds=2, channels=1, audio="flac"))
    sound = clip.audio(tmp_path).sound()
    assert sound.shape[0] == 2
    for channel in sound:
        assert level(channel, 1.01, 1.09) == pytest.approx(0.5 / math.sqrt(2), rel=0.05)


def test_surround_becomes_stereo_without_clipping(tmp_path: Path) -> None:
    """All six channels play at half of full level: front + 0.71 centre + 0.71 back is 1.2, which must not clip."""
    clip = opened(make_clip(tmp_path / "clip.mkv", seconds=3, channels=6, audio="flac"))
    made = clip.audio(tmp_path)
    assert_covers(clip, made)
    assert beeps(made)[1:] == pytest.approx([1, 2], abs=0.005)
    sound = made.sound()
    assert sound.shape[0] == 2
    assert 0.5 < level(sound[0], 1.02, 1.08) < 0.75
    assert np.abs(sound[:, RATE:]).max() < 1.05


def test_a_natural_surround_clip(tmp_path: Path) -> None:
    source = CORPUS / "androidx-media/mka/opus-5.1.mka"
    if not source.exists():
        pytest.skip("the media folder is not here")
    clip = opened(source)
    made = clip.audio(tmp_path)
    assert_covers(clip, made)
    assert level(made.sound()[0], 0, 2.5) > 0.01


# -- arithmetic --------------------------------------------------------------------------------------------------------


def _piece(at: int, *values: float) -> Placed:
    return Placed(at=at, samples=np.array([values], np.float32))


@pytest.mark.parametrize(
    ("pieces", "wanted"),
    [
        ([], [0, 0, 0, 0, 0, 0]),
        ([_piece(0, 1, 2, 3, 4, 5, 6)], [1, 2, 3, 4, 5, 6]),
        ([_piece(2, 1, 2)], [0, 0, 1, 2, 0, 0]),
        ([_piece(-2, 1, 2, 3, 4)], [3, 4, 0, 0, 0, 0]),
        ([_piece(-4, 1, 2), _piece(1, 3)], [0, 3, 0, 0, 0, 0]),
        ([_piece(0, 1, 2, 3), _piece(1, 7, 8, 9, 10)], [1, 2, 3, 9, 10, 0]),
        ([_piece(0, 1, 2, 3), _piece(0, 7, 8)], [1, 2, 3, 0, 0, 0]),
        ([_piece(4, 1, 2, 3, 4)], [0, 0, 0, 0, 1, 2]),
        ([_piece(10**12, 1)], [0, 0, 0, 0, 0, 0]),
    ],
)
def test_pieces_become_one_stream(pieces: list[Placed], wanted: list[float]) -> None:
    got = np.concatenate(list(continuous(iter(pieces), total=6, channels=1)), axis=1)
    assert got.tolist() == [wanted]


@pytest.mark.parametrize("sizes", [[1] * 10, [10], [3, 3, 4], [7, 1, 2], [4, 4, 2]])
def test_blocks_keep_every_sample(sizes: list[int]) -> None:
    numbers = iter(np.arange(10, dtype=np.float32))
    chunks = [np.array([[next(numbers) for _ in range(size)]], np.float32) for size in sizes]
    got = list(blocks(iter(chunks), 4))
    assert [block.shape for block in got] == [(1, 4)] * 3
    assert np.concatenate(got, axis=1).tolist() == [[*range(10), 0, 0]]
