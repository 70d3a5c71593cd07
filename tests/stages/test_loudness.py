"""A loudness is asked for: the programme comes out as loud as that, by one gain, without a peak above the ceiling.

What comes out is measured by a meter of its own, written from ITU-R BS.1770-5, so that no mistake of the first meter is
measured with itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from builders import a_profile, a_request
from makers import make_clip
from presentations import ASSET
from running import Clip, Folder, Made, ignored, opened
from test_again import Shop

from pipeline.job import JobStatus
from pipeline.media.limiter import PeakMeter, decibels
from pipeline.media.loudness import MOST_GAIN, MOST_LIMITED, Measured, leveled, loudness_of, measured, settled
from pipeline.media.samples import Samples, joined
from pipeline.profile import AudioProfile
from pipeline.sandbox import Nursery
from pipeline.stages.audio import audio
from pipeline.storage.folder import FolderStorage
from pipeline.tasks import AudioRendition, AudioTask, Loudness, PartsFacts, from_json, to_json

CORPUS = Path(__file__).parents[2].parent / "shared" / "media"
RATE = 48_000


# -- programmes --------------------------------------------------------------------------------------------------------


def speech(seconds: int = 12, level: float = 0.1) -> Samples:
    """Syllables four times a second, words with pauses, now and then a loud one."""
    random = np.random.default_rng(1)
    time = np.arange(seconds * RATE) / RATE
    harmonics = (np.sin(2 * np.pi * (120 * n * time + random.random())) / n for n in range(1, 30))
    voice = sum(harmonics) + 0.3 * random.standard_normal(time.size)
    syllables = np.clip(np.sin(2 * np.pi * 4 * time), 0, 1) * (time % 3 < 2.2) * (1 + (time % 5 < 0.3))
    wave = level * syllables * voice
    return np.stack([wave, wave]).astype(np.float32)


def music(seconds: int = 12, level: float = 0.1) -> Samples:
    """A chord that swells, with a beat; left and right differ."""
    random = np.random.default_rng(2)
    time = np.arange(seconds * RATE) / RATE
    swell = 0.3 + 0.7 * np.sin(np.pi * time / seconds) ** 2
    beat = 4 * random.standard_normal(time.size) * np.exp(-(time % 0.5) * 40)
    chord = sum(np.sin(2 * np.pi * pitch * time) for pitch in (220, 277.2, 329.6, 440))
    return np.stack([level * swell * (chord + beat), level * swell * (chord - beat)]).astype(np.float32)


def tone(seconds: float = 12, level: float = 0.1) -> Samples:
    time = np.arange(round(seconds * RATE)) / RATE
    return np.repeat(level * np.sin(2 * np.pi * 997 * time)[None], 2, axis=0).astype(np.float32)


def noise(seconds: int = 12, level: float = 0.1) -> Samples:
    """Pink: an encoder leaves the highest part of white noise out, and a tenth of its loudness with it."""
    white = np.fft.rfft(np.random.default_rng(3).standard_normal((2, seconds * RATE)), axis=1)
    pink = np.fft.irfft(white / np.sqrt(np.arange(1, white.shape[1] + 1)), axis=1)
    return (level * pink / pink.std()).astype(np.float32)


def silence(seconds: int = 3) -> Samples:
    return np.zeros((2, seconds * RATE), np.float32)


def written(path: Path, sound: Samples) -> Path:
    """The programme as a WAV file."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("pcm_f32le", rate=RATE, layout="stereo")
        for number, block in enumerate(joined(iter([sound]), 1024)):
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(block.T).reshape(1, -1), format="flt", layout="stereo")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


# -- the second meter --------------------------------------------------------------------------------------------------


def integrated(sound: Samples) -> float:
    """LUFS by ITU-R BS.1770-5, annex 1: K-weighting (as a frequency response), blocks of 0.4 s, both gates."""
    weighted = np.fft.irfft(np.fft.rfft(sound, axis=1) * _k_weighting(sound.shape[1]), sound.shape[1], axis=1)
    power = np.array(
        [
            np.sum(np.mean(weighted[:, at : at + RATE * 4 // 10] ** 2, axis=1))
            for at in range(0, sound.shape[1] - RATE * 4 // 10 + 1, RATE // 10)
        ]
    )
    loud = power[power > 10 ** ((-70 + 0.691) / 10)]
    return _lufs(loud[loud > loud.mean() / 10])


def _lufs(power: np.ndarray[Any, Any]) -> float:
    return float(-0.691 + 10 * np.log10(power.mean()))


def _k_weighting(size: int) -> np.ndarray[Any, Any]:
    """The response of the two filters of the recommendation at 48 kHz."""
    z = np.exp(-2j * np.pi * np.fft.rfftfreq(size))
    shelf = (1.53512485958697 - 2.69169618940638 * z + 1.19839281085285 * z**2) / (
        1 - 1.69065929318241 * z + 0.73248077421585 * z**2
    )
    high_pass = (1 - 2 * z + z**2) / (1 - 1.99004745483398 * z + 0.99007225036621 * z**2)
    response: np.ndarray[Any, Any] = np.abs(shelf * high_pass)
    return response


def peak(sound: Samples) -> float:
    """dBTP."""
    meter = PeakMeter()
    meter.feed(sound)
    return decibels(meter.highest)


def made(clip: Clip, root: Path, target: float | None, tick: Callable[[float], None] = ignored) -> tuple[Any, Made]:
    stream = clip.media.audio[0]
    rendition = AudioRendition(track="audio-1", stream=stream, bitrate=192_000, loudness=target)
    task = AudioTask(asset="testasset01", source="source", rendition=rendition, timeline=clip.timeline)
    facts = audio(task, {"source": clip.path}, Folder(root=root), tick)
    return facts, Made(part=facts.parts[0], root=root)


def in_blocks(sound: Samples) -> Iterator[Samples]:
    return joined(iter([sound]), 1000)


# -- measuring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sound", [speech(), music(), tone(), noise(), tone(0.5)], ids=lambda sound: str(sound.shape))
def test_two_meters_agree(sound: Samples) -> None:
    found = measured(in_blocks(sound), sample_rate=RATE)
    assert found.integrated == pytest.approx(integrated(sound), abs=0.1)


def test_the_range_needs_a_minute() -> None:
    """Half a minute at each of two levels that are 10 dB apart (EBU Tech 3342, test 1)."""
    programme = np.concatenate([tone(30, 0.1), tone(30, 0.1 * 10**-0.5)], axis=1)
    assert measured(in_blocks(programme[:, : 59 * RATE]), sample_rate=RATE).range is None
    assert measured(in_blocks(programme), sample_rate=RATE).range == pytest.approx(10, abs=1)


def test_a_peak_between_two_samples_is_found() -> None:
    """A quarter of the sampling rate, sampled beside its crests: every sample is 3 dB lower than the wave."""
    wave = np.sin(2 * np.pi * RATE / 4 * np.arange(RATE) / RATE + np.pi / 4).astype(np.float32)
    assert np.abs(wave).max() == pytest.approx(math.sqrt(0.5), abs=1e-3)
    assert peak(wave[None]) == pytest.approx(0, abs=0.1)


# -- the gain ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [-16.0, -23.0])
@pytest.mark.parametrize("programme", [speech, music, tone, noise], ids=lambda programme: programme.__name__)
@pytest.mark.parametrize("level", [0.03, 0.3])
def test_a_programme_comes_out_as_loud_as_was_asked(
    tmp_path: Path, programme: Callable[..., Samples], level: float, target: float
) -> None:
    sound = programme(level=level)
    clip = opened(written(tmp_path / "clip.wav", sound))

    facts, track = made(clip, tmp_path, target)

    out = track.sound()
    assert integrated(out) == pytest.approx(target, abs=0.5)
    assert peak(out) < 2, "the ceiling is -1; an encoder adds a little, and to bursts of noise more"
    assert facts.loudness.integrated == pytest.approx(integrated(sound), abs=0.1)
    assert facts.loudness.true_peak == pytest.approx(peak(sound), abs=0.1)
    assert facts.loudness.gain == pytest.approx(target - integrated(sound), abs=1.5)


@pytest.mark.parametrize(
    "name", ["jfk.wav", "p001.mp3", "fixture2.3gp", "big_buck_bunny_0_30.webm", "opus-5.1.mka", "sample_eac3.mp4"]
)
def test_natural_programmes_come_out_as_loud_as_was_asked(tmp_path: Path, name: str) -> None:
    source = next(CORPUS.rglob(name), None)
    if source is None:
        pytest.skip("the media folder is not here")

    facts, track = made(opened(source), tmp_path, -16)

    out = track.sound()
    assert integrated(out) == pytest.approx(-16, abs=0.5)
    assert facts.loudness.reached == pytest.approx(integrated(out), abs=0.4)
    assert peak(out) < 0.5


def louder(share: float) -> tuple[list[float], Callable[[Loudness], Measured]]:
    """A programme at -30 whose peaks take all but a share of every decibel; and the gains that were tried."""
    tried: list[float] = []

    def again(loudness: Loudness) -> Measured:
        tried.append(loudness.gain)
        return Measured(integrated=-30 + loudness.gain * share, range=None, true_peak=-1)

    return tried, again


@pytest.mark.parametrize(
    ("share", "passes", "reached"),
    [(1.0, 1, -20), (0.75, 3, -20), (0.1, 2, -28.6)],
    ids=["nothing is lost", "much is lost", "the bound comes first"],
)
def test_what_bending_the_peaks_takes_away_is_given_back(share: float, passes: int, reached: float) -> None:
    soft = Loudness(integrated=-30, range=None, true_peak=-7, gain=10, reached=-20)
    tried, again = louder(share)

    found = settled(soft, -20, again)

    assert len(tried) == passes
    assert found.gain == tried[-1] <= MOST_LIMITED + 6
    assert found.reached == pytest.approx(reached, abs=0.5)
    assert found.reached == again(found).integrated


def test_the_gain_is_one_for_the_whole_programme() -> None:
    """A soft and a loud half stay as far apart as they were."""
    sound = np.concatenate([tone(10, 0.01), tone(10, 0.1)], axis=1)

    settled = loudness_of(measured(in_blocks(sound), sample_rate=RATE), -16)
    out = np.concatenate(list(leveled(in_blocks(sound), settled, sample_rate=RATE)), axis=1)

    ratio = out[0][1:-1] / np.where(sound[0][1:-1], sound[0][1:-1], 1)
    assert np.ptp(ratio[np.abs(sound[0][1:-1]) > 1e-4]) < 1e-3


def test_only_peaks_are_bent_and_what_goes_on_between_them_is_not() -> None:
    clicks = tone(10, 0.05)
    clicks[:, RATE::RATE] = 0.9

    settled = loudness_of(measured(in_blocks(clicks), sample_rate=RATE), -16)
    out = np.concatenate(list(leveled(in_blocks(clicks), settled, sample_rate=RATE)), axis=1)

    assert settled.gain > 6
    assert peak(out) <= -0.99
    between = slice(RATE // 4, RATE * 3 // 4)
    assert np.allclose(out[:, between], clicks[:, between] * 10 ** (settled.gain / 20), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("sound", [silence(), tone(0.3), tone(5, 1e-4)], ids=["silence", "short", "faint"])
def test_what_has_no_loudness_is_left_alone(tmp_path: Path, sound: Samples) -> None:
    clip = opened(written(tmp_path / "clip.wav", sound))

    facts, track = made(clip, tmp_path, -16)

    assert facts.loudness.integrated is None
    assert facts.loudness.gain == 0
    out = track.sound()[:, : sound.shape[1]]
    assert np.sqrt(np.mean(out**2)) == pytest.approx(np.sqrt(np.mean(sound**2)), rel=0.1, abs=1e-5)


@pytest.mark.parametrize(
    ("found", "gain"),
    [
        (Measured(integrated=-60, range=None, true_peak=-50), MOST_GAIN),
        (Measured(integrated=-30, range=None, true_peak=-1), MOST_LIMITED),
        (Measured(integrated=-30, range=None, true_peak=+9), 0),
        (Measured(integrated=+30, range=None, true_peak=+33), -40),
        (Measured(integrated=-16, range=None, true_peak=-1), 0),
        (Measured(integrated=-10, range=None, true_peak=0), -6),
    ],
)
def test_the_gain_has_bounds(found: Measured, gain: float) -> None:
    assert loudness_of(found, -16).gain == gain


def test_nothing_is_measured_unless_it_is_asked_for(tmp_path: Path) -> None:
    clip = opened(written(tmp_path / "clip.wav", tone(2, 0.9)))
    facts, track = made(clip, tmp_path, None)
    assert facts.loudness is None
    assert peak(track.sound()[:, RATE // 2 : RATE]) == pytest.approx(decibels(0.9), abs=0.2)


def test_what_was_measured_and_done_travels_with_the_receipt(tmp_path: Path) -> None:
    facts, _ = made(opened(written(tmp_path / "clip.wav", tone(2))), tmp_path, -16)
    assert from_json(type(facts), to_json(facts)) == facts
    assert facts.loudness == Loudness(integrated=-20.01, range=None, true_peak=-20.0, gain=4.01, reached=-16.0)
    assert from_json(type(facts), to_json(replace(facts, loudness=None))).loudness is None


def test_both_passes_are_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never back, and something of either pass."""
    monkeypatch.setattr("pipeline.stages.pulse.Pulse.__call__", lambda self, fraction=None: self._tick(fraction or 0.0))
    told: list[float] = []

    made(opened(written(tmp_path / "clip.wav", tone(3))), tmp_path, -16, told.append)

    counted = [fraction for fraction in told if fraction]
    assert all(earlier <= later for earlier, later in pairwise(counted))
    assert any(fraction < 0.4 for fraction in counted)
    assert any(0.4 < fraction < 1 for fraction in counted)


def test_libavs_meter_says_the_same_of_what_came_out(tmp_path: Path) -> None:
    _, track = made(opened(written(tmp_path / "clip.wav", speech())), tmp_path, -23)
    assert measured(in_blocks(track.sound()), sample_rate=RATE).integrated == pytest.approx(-23, abs=0.5)


# -- where it is recorded ----------------------------------------------------------------------------------------------


def test_the_job_and_its_receipt_say_what_was_measured_and_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two languages, each brought to the target by a gain of its own."""
    loud = a_profile(audio=AudioProfile(bitrate=128_000, loudness=-16))
    monkeypatch.setattr("test_again.a_profile", lambda: loud)
    source = make_clip(tmp_path / "clip.mkv", seconds=2, codec=None, languages=("eng", "fra"))
    (tmp_path / "scratch").mkdir()
    nursery = Nursery(tmp_path / "scratch")
    nursery.start()
    try:
        shop = Shop(FolderStorage(tmp_path / "storage"), nursery)
        job = shop.do(a_request(asset_id=ASSET, url=str(source)), "ingest", "audio", "package")
    finally:
        nursery.close()

    assert job.status is JobStatus.SUCCEEDED
    sounds = [step for step in job.steps.values() if step.stage == "audio"]
    assert len(sounds) == 2
    for step in sounds:
        said = step.facts["loudness"]
        assert said.keys() == {"integrated", "range", "true_peak", "gain", "reached"}
        assert said["gain"] == pytest.approx(-16 - said["integrated"], abs=0.2)
        receipt = from_json(PartsFacts, shop.storage.get(str(step.facts["receipt"])))
        assert receipt.loudness == Loudness(**said)
