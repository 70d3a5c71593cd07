"""Many channels become two ears: each as loud as ITU-R BS.775 wants it, dialogue above all, and nothing clips."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from running import opened

from pipeline.errors import PipelineError
from pipeline.media.limiter import PeakMeter, amplitude, decibels, limited
from pipeline.media.samples import Samples, continuous, joined
from pipeline.media.sound import Heard, placed

RATE = 48_000
FULL, HALF, QUARTER, NONE = 1.0, math.sqrt(0.5), 0.5, 0.0

FIVE = {"FL": (FULL, NONE), "FR": (NONE, FULL), "FC": (HALF, HALF), "LFE": (NONE, NONE)}
FRONT = [FIVE["FL"], FIVE["FR"]]
SIDES = {"SL": (HALF, NONE), "SR": (NONE, HALF)}
BACKS = {"BL": (HALF, NONE), "BR": (NONE, HALF)}
ABOVE = {
    "TFL": (HALF, NONE), "TFR": (NONE, HALF), "TFC": (QUARTER, QUARTER), "TC": (QUARTER, QUARTER),
    "TBL": (HALF, NONE), "TBR": (NONE, HALF), "TBC": (QUARTER, QUARTER), "TSL": (HALF, NONE), "TSR": (NONE, HALF),
}  # fmt: skip
BELOW = {"BFC": (QUARTER, QUARTER), "BFL": (HALF, NONE), "BFR": (NONE, HALF)}
MORE = {"FLC": (FULL, NONE), "FRC": (NONE, FULL), "BC": (QUARTER, QUARTER), "LFE2": (NONE, NONE)}


def pitch(number: int) -> int:
    """Hz of the tone of a channel: whole periods in a tenth of a second, none a multiple of another's."""
    return 400 + 170 * number


def tones(channels: int, *, seconds: float = 1, level: float = 0.1) -> Samples:
    """A tone of its own for every channel."""
    time = np.arange(round(seconds * RATE)) / RATE
    return np.stack([level * np.sin(2 * np.pi * pitch(n) * time) for n in range(channels)]).astype(np.float32)


def heard(sound: Samples, layout: str, *, start: float = 0) -> Iterator[Heard]:
    """The sound as a decoder gives it."""
    for number, block in enumerate(joined(iter([sound]), 1024)):
        # Packed: PyAV 18.1 miscounts the planes of eight channels and more.
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(block.T).reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = RATE
        yield Heard(time=Fraction(start) + Fraction(number * 1024, RATE), frame=frame)


def folded(frames: Iterator[Heard], *, seconds: float = 1, channels: int = 2, ceiling: float | None = None) -> Samples:
    pieces = placed(frames, origin=Fraction(0), sample_rate=RATE, channels=channels, ceiling=ceiling)
    return np.concatenate(list(continuous(pieces, total=round(seconds * RATE), channels=channels)), axis=1)


def gain(ear: np.ndarray[Any, Any], number: int, *, level: float = 0.1) -> float:
    """How much of channel `number` is in this ear."""
    middle = ear[RATE // 5 : RATE * 4 // 5]
    wave = np.exp(-2j * np.pi * pitch(number) * np.arange(middle.size) / RATE)
    return float(2 * abs(np.dot(middle, wave)) / middle.size / level)


def gains(sound: Samples, channels: int) -> list[tuple[float, float]]:
    return [(gain(sound[0], n), gain(sound[1], n)) for n in range(channels)]


@pytest.mark.parametrize(
    ("layout", "wanted"),
    [
        ("mono", {"FC": (FULL, FULL)}),
        ("stereo", {"FL": (FULL, NONE), "FR": (NONE, FULL)}),
        ("downmix", {"DL": (FULL, NONE), "DR": (NONE, FULL)}),
        ("3.0", FIVE),
        ("2.1", FIVE),
        ("quad", FIVE | BACKS),
        ("quad(side)", FIVE | SIDES),
        ("4.0", FIVE | MORE),
        ("5.0", FIVE | BACKS),
        ("5.1", FIVE | BACKS),
        ("5.1(side)", FIVE | SIDES),
        ("6.1", FIVE | SIDES | MORE),
        ("7.1", FIVE | BACKS | SIDES),
        ("7.1(wide)", FIVE | BACKS | MORE),
        ("5.1.4", FIVE | SIDES | BACKS | ABOVE),
        ("22.2", FIVE | BACKS | SIDES | ABOVE | BELOW | MORE),
    ],
)
def test_every_channel_is_as_loud_as_it_should_be(layout: str, wanted: Mapping[str, tuple[float, float]]) -> None:
    names = [channel.name for channel in av.AudioLayout(layout).channels]

    sound = folded(heard(tones(len(names), level=0.02), layout))

    for number, name in enumerate(names):
        got = gain(sound[0], number, level=0.02), gain(sound[1], number, level=0.02)
        assert got == pytest.approx(wanted[name], abs=0.01), name


@pytest.mark.parametrize(
    ("count", "wanted"),
    [
        (1, [(FULL, FULL)]),
        (2, FRONT),
        (3, [*FIVE.values()][:3]),
        (4, [*FRONT, *BACKS.values()]),
        (6, [*FIVE.values(), *BACKS.values()]),
        (8, [*FIVE.values(), *BACKS.values(), *SIDES.values()]),
        (10, [*FRONT, *(4 * [*BACKS.values()])]),
    ],
)
def test_channels_without_a_name_are_taken_for_what_they_mostly_are(
    count: int, wanted: list[tuple[float, float]]
) -> None:
    sound = folded(heard(tones(count), f"{count} channels"))

    for got, expected in zip(gains(sound, count), wanted, strict=True):
        assert got == pytest.approx(expected, abs=0.01)


def test_a_sphere_of_sound_is_heard_from_the_front_and_left_from_right() -> None:
    """Ambisonics: what comes from the left is in the first component and, with the same sign, in the second."""
    (everything,) = tones(1)
    nothing = np.zeros_like(everything)

    front = folded(heard(np.stack([everything, nothing, nothing, everything]), "ambisonic 1"))
    left = folded(heard(np.stack([everything, everything, nothing, nothing]), "ambisonic 1"))

    assert gains(front, 1)[0] == pytest.approx((HALF, HALF), abs=0.01)
    assert gains(left, 1)[0] == pytest.approx((HALF + 0.5, HALF - 0.5), abs=0.01)


def test_effects_alone_are_better_than_silence() -> None:
    names = av.AudioLayout("LFE+LFE2").nb_channels

    sound = folded(heard(tones(names), "LFE+LFE2"))

    assert gains(sound, names) == [pytest.approx((HALF, HALF), abs=0.01)] * 2


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
def test_one_ear_hears_both(layout: str) -> None:
    """For what listens to speech: the same sound on both sides keeps its level."""
    count = av.AudioLayout(layout).nb_channels
    same = np.repeat(tones(1), count, axis=0) if layout != "5.1" else tones(6)

    sound = folded(heard(same, layout), channels=1)

    assert gain(sound[0], 0 if layout != "5.1" else 2) == pytest.approx(FULL if layout != "5.1" else HALF, abs=0.01)


def test_loud_channels_together_are_limited_and_not_clipped() -> None:
    (tone,) = tones(1, level=0.9)

    sound = folded(heard(np.repeat(tone[None], 6, axis=0), "5.1"), ceiling=amplitude(-1))

    meter = PeakMeter()
    meter.feed(sound)
    assert decibels(meter.highest) == pytest.approx(-1, abs=0.05)
    # One sine of that peak, and nothing beside it that clipping would have made.
    spectrum = np.abs(np.fft.rfft(sound[0][RATE // 5 : RATE * 4 // 5]))
    assert np.sort(spectrum)[-4] < spectrum.max() / 1000


def test_a_ceiling_is_for_what_folding_made_and_not_for_the_source() -> None:
    loud = tones(2, level=1.0)
    assert np.allclose(folded(heard(loud, "stereo"), ceiling=amplitude(-1)), loud, atol=1e-6)


def test_a_layout_that_changes_in_the_middle_goes_on_in_time() -> None:
    """A programme in stereo, then in 5.1, then in mono: each second at its place, none with a gap."""
    parts = [("stereo", 2), ("5.1", 6), ("mono", 1)]

    frames = (frame for n, (layout, count) in enumerate(parts) for frame in heard(tones(count), layout, start=n))
    sound = folded(frames, seconds=3)

    first, second, third = (sound[:, n * RATE : (n + 1) * RATE] for n in range(3))
    assert gains(first, 2) == [pytest.approx((1, 0), abs=0.01), pytest.approx((0, 1), abs=0.01)]
    assert gains(second, 3)[2] == pytest.approx((HALF, HALF), abs=0.01)
    assert gains(third, 1)[0] == pytest.approx((1, 1), abs=0.01)
    windows = np.abs(sound[0]).reshape(-1, RATE // 100).max(axis=1)
    assert windows.min() > 0.02


@pytest.mark.parametrize(
    ("codec", "suffix", "layout", "layout_read"),
    [
        ("ac3", "ts", "5.1(side)", "5.1(side)"),
        ("eac3", "mp4", "5.1(side)", "5.1(side)"),
        ("aac", "mp4", "5.1", "5.1"),
        ("aac", "mp4", "7.1", "7.1"),
        ("libopus", "webm", "7.1", "7.1"),
        ("flac", "flac", "7.1", "7.1"),
        ("flac", "flac", "quad", "quad"),
        ("pcm_s24le", "wav", "6.1", "6.1"),
        ("pcm_s16le", "mkv", "5.1", "6 channels"),
        ("pcm_s16le", "avi", "mono", "1 channels"),
        ("pcm_f32le", "mov", "hexagonal", "hexagonal"),
    ],
)
def test_surround_files_keep_their_dialogue(
    tmp_path: Path, codec: str, suffix: str, layout: str, layout_read: str
) -> None:
    path, names = tmp_path / f"clip.{suffix}", [channel.name for channel in av.AudioLayout(layout).channels]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE, layout=layout)
        if codec not in ("flac",) and not codec.startswith("pcm"):
            stream.bit_rate = 384_000
        resampler = av.AudioResampler(format=stream.codec_context.format.name, layout=layout, rate=RATE)
        for frame in heard(tones(len(names), seconds=1.2), layout):
            frame.frame.pts, frame.frame.time_base = round(frame.time * RATE), Fraction(1, RATE)
            for same in resampler.resample(frame.frame):
                container.mux(stream.encode(same))
        container.mux(stream.encode(None))
    clip = opened(path)

    assert (clip.media.audio[0].channels, clip.media.audio[0].layout) == (len(names), layout_read)
    made = clip.audio(tmp_path)
    sound = made.sound()
    if "FC" in names:
        centre, wanted = names.index("FC"), FULL if layout == "mono" else HALF
        assert (gain(sound[0], centre), gain(sound[1], centre)) == pytest.approx((wanted, wanted), rel=0.06)
    if "LFE" in names:
        assert gain(sound[0], names.index("LFE")) < 0.02
    if "FL" in names:
        assert (gain(sound[0], 0), gain(sound[1], 0)) == pytest.approx((FULL, NONE), abs=0.06)


def test_more_channels_than_can_be_folded_are_refused() -> None:
    with pytest.raises(PipelineError) as caught:
        folded(heard(tones(65), "65 channels"))
    assert caught.value.code == "audio_format_unsupported"


# -- the limiter -------------------------------------------------------------------------------------------------------


def loud_and_soft(seconds: int = 3) -> Samples:
    time = np.arange(seconds * RATE) / RATE
    burst = 2.5 * np.sin(2 * np.pi * 11_025.3 * time) * (time % 1 < 0.1)
    return np.stack([burst + 0.3 * np.sin(2 * np.pi * 40 * time), 0.2 * np.sin(2 * np.pi * 40 * time)]).astype(
        np.float32
    )


def limit(sound: Samples, size: int) -> Samples:
    blocks = (sound[:, at : at + size] for at in range(0, sound.shape[1], size))
    return np.concatenate(list(limited(blocks, ceiling=amplitude(-1), sample_rate=RATE)), axis=1)


def test_no_peak_between_samples_is_above_the_ceiling() -> None:
    meter = PeakMeter()
    meter.feed(limit(loud_and_soft(), 1024))
    assert decibels(meter.highest) <= -0.99


def test_what_is_soft_stays_as_it_is_and_where_it_is() -> None:
    sound = loud_and_soft()
    quiet = slice(RATE // 4, RATE * 3 // 4)
    assert np.array_equal(limit(sound, 1000)[:, quiet], sound[:, quiet])


@pytest.mark.parametrize("size", [1, 700, 16_384, 200_000])
def test_the_size_of_the_blocks_makes_no_difference(size: int) -> None:
    sound = loud_and_soft()[:, : RATE // 5]
    assert np.allclose(limit(sound, size), limit(sound, 1024), atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 5, 13, 1000])
def test_very_short_sound_comes_out_whole(count: int) -> None:
    sound = loud_and_soft()[:, :count]
    blocks = iter([sound]) if count else iter(())
    assert sum(chunk.shape[1] for chunk in limited(blocks, ceiling=0.5, sample_rate=RATE)) == count
