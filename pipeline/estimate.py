"""What an asset will cost before any of it is made: CPU seconds and bytes, by the real plan. Pure.

Both are estimates, and say so. The work is known (pixels that are decoded, scaled and encoded, bits that are written);
its price is that of a core of the machine that it was measured on, and others are easily twice as fast, or half. The
bytes depend on what the picture shows, as CRF is a quality and no bit rate: what the source took for it is the best
hint there is, and what is known for sure is the cap. `benchmarks/estimate.py` compares all of it with real runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.job import Job, Step
from pipeline.media import timeline
from pipeline.media.color import needs_mapping, source_color
from pipeline.plan import AUDIO, INGEST, PACKAGE, SUBTITLE, TRANSCODE
from pipeline.split import makespan, source_megapixels
from pipeline.tasks import AudioRendition, Blueprint, Rung, VideoStream

CPU_WITHIN = 1.6
"""Most real clips take at most so many times the estimate, and at least its part."""
BYTES_WITHIN = 2.0
"""The same of bytes, for about three of four: a still picture takes far less, one that the source saved on more."""

# Seconds of one core, fitted to 21 real clips of 7 codecs at the default profile (a million pixels each).
_DECODE = 0.0063
_SCALE = 0.0009
_ENCODE = 0.0034
_WRITE = 0.115
"""… and for a million bits that the encoder writes."""
_MAP = 0.018
"""… and for a million pixels whose HDR is mapped to SDR, once at the size of the largest rung."""
_DEINTERLACE = 0.004
"""… and for a million pixels that are deinterlaced."""
_STEP_S = 0.06
"""Of the process of any step."""
_SOUND = 0.02
"""For a second of sound."""
_MEASURE = 0.01
"""… and for a second that is measured for its loudness."""
_MEASURED = 2
"""How often it is, mostly: as it is, and as it comes out."""
_READ = 3e-9
"""For a byte of the source: its checksum, and the look at its packets."""
_SEGMENT = 0.002
"""For a segment of a track that is packaged."""
_SPEECH = 0.3
"""For a second of speech that is recognised; larger models take many times that."""

_PRESETS: Mapping[str, tuple[float, float]] = {
    # Times the CPU and times the bits of "veryfast", which is where both were fitted. Measured: superfast and slow.
    "ultrafast": (0.35, 2.7),
    "superfast": (0.55, 1.65),
    "veryfast": (1.0, 1.0),
    "faster": (1.6, 1.0),
    "fast": (2.1, 1.0),
    "medium": (2.5, 1.0),
    "slow": (3.3, 1.05),
    "slower": (6.5, 1.0),
    "veryslow": (11.0, 0.95),
}
_CRF = 23
"""The quality at which the bits were fitted; six more halve them."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """What one track will take in storage."""

    name: str
    bytes: int
    """As a picture of its kind usually takes."""
    most_bytes: int
    """What it cannot pass: the cap of its rung, whatever it shows."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The whole job."""

    steps: Mapping[str, float]
    """CPU seconds of each step, by its id, in the order in which they begin."""
    tracks: tuple[Track, ...]
    ready_s: float
    """Wall time on workers that do nothing else, a core each, with storage that keeps up."""

    @property
    def cpu_s(self) -> float:
        return sum(self.steps.values())

    @property
    def bytes(self) -> int:
        return sum(track.bytes for track in self.tracks)

    @property
    def most_bytes(self) -> int:
        return sum(track.most_bytes for track in self.tracks)


def estimate(job: Job) -> Estimate:
    """Of a job whose plan has grown."""
    drawn = job.blueprint
    assert drawn is not None, "the plan has grown"
    steps = {step.id: _cpu_s(drawn, step) for step in job.steps.values()}
    chunks = len({step.args["first"] for step in job.steps.values() if step.stage == TRANSCODE})
    tracks = [_picture(drawn, rung, chunks) for rung in drawn.rungs]
    return Estimate(
        steps=steps,
        tracks=(*tracks, *(_sound(drawn, rendition) for rendition in drawn.audio)),
        ready_s=_ready_s(job, steps),
    )


# -- bytes ------------------------------------------------------------------------------------------------------------


def _picture(drawn: Blueprint, rung: Rung, chunks: int) -> Track:
    seconds = float(drawn.timeline.duration)
    # The encoder of every chunk begins with a full buffer.
    most = (rung.maxrate * seconds + rung.bufsize * chunks) / 8
    return Track(name=rung.track, bytes=round(_bits_a_second(drawn, rung) * seconds / 8), most_bytes=round(most))


def _sound(drawn: Blueprint, rendition: AudioRendition) -> Track:
    size = round(rendition.bitrate * float(drawn.timeline.duration) / 8)
    return Track(name=rendition.track, bytes=size, most_bytes=round(size * 1.1))


def _bits_a_second(drawn: Blueprint, rung: Rung) -> float:
    """What a rung usually takes. The fit: what a pixel takes grows slower than what it took in the source, and there is
    less in each of many."""
    video = drawn.media.video
    assert video is not None, "there are rungs"
    made, source = rung.width * rung.height / 1e6, source_megapixels(drawn)
    taken = min(max(_bits_a_pixel(drawn, video), 0.0002), 0.25)
    typical = float(0.18 * taken**0.61 * made**-0.27 * source**-0.145)
    quality = 2 ** ((_CRF - rung.crf) / 6) * _PRESETS.get(rung.preset, (1.0, 1.0))[1]
    return min(float(rung.maxrate), typical * quality * made * 1e6 * float(drawn.timeline.rate))


def _bits_a_pixel(drawn: Blueprint, video: VideoStream) -> float:
    """Of the source."""
    bitrate = video.bitrate or drawn.media.size * 8 / max(float(drawn.media.duration), 0.001)
    return bitrate / (video.width * video.height * max(float(video.rate), 1.0))


# -- time -------------------------------------------------------------------------------------------------------------


def _cpu_s(drawn: Blueprint, step: Step) -> float:
    seconds = float(drawn.timeline.duration)
    match step.stage:
        case str(stage) if stage == INGEST:
            return _STEP_S + drawn.media.size * _READ
        case str(stage) if stage == TRANSCODE:
            return _STEP_S + _pictures_s(drawn, step)
        case str(stage) if stage == AUDIO:
            return _STEP_S + seconds * (_SOUND + _measure_s(drawn, step))
        case str(stage) if stage == SUBTITLE:
            return _STEP_S + seconds * _SPEECH
        case str(stage) if stage == PACKAGE:
            segments = len(timeline.segment_starts(drawn.timeline))
            return _STEP_S + segments * _SEGMENT * (len(drawn.rungs) + len(drawn.audio))
    return _STEP_S


def _measure_s(drawn: Blueprint, step: Step) -> float:
    """For a second of the sound that the step makes."""
    sound = next(rendition for rendition in drawn.audio if rendition.track == step.args["track"])
    return _MEASURE * _MEASURED if sound.loudness is not None else 0.0


def _pictures_s(drawn: Blueprint, step: Step) -> float:
    """One chunk of some rungs."""
    video = drawn.media.video
    assert video is not None, "there are rungs"
    bounds = (*timeline.segment_starts(drawn.timeline), drawn.timeline.frames)
    frames = int(bounds[step.args["last"]] - bounds[step.args["first"]])
    seconds = frames / float(drawn.timeline.rate)
    rungs = [rung for rung in drawn.rungs if rung.name in step.args["rungs"]]
    decoded = seconds * float(video.rate) * source_megapixels(drawn)
    largest = max(rung.width * rung.height / 1e6 for rung in rungs)
    mapped = frames * largest * _MAP if needs_mapping(source_color(video)) else 0.0
    whole = decoded * (_DECODE + (_DEINTERLACE if video.interlaced else 0.0))
    return whole + mapped + sum(_rung_s(drawn, rung, frames, seconds) for rung in rungs)


def _rung_s(drawn: Blueprint, rung: Rung, frames: int, seconds: float) -> float:
    made, source = rung.width * rung.height / 1e6, source_megapixels(drawn)
    encode = frames * made * _ENCODE + seconds * _bits_a_second(drawn, rung) / 1e6 * _WRITE
    scale = frames * source * _SCALE if made < source else 0.0
    return encode * _PRESETS.get(rung.preset, (1.0, 1.0))[0] + scale


def _ready_s(job: Job, steps: Mapping[str, float]) -> float:
    """Ingest, then the parts beside each other, then package; what is optional keeps nobody waiting."""
    parts: Sequence[float] = [steps[step.id] for step in job.steps.values() if step.stage in (TRANSCODE, AUDIO)]
    alone = sum(steps[step.id] for step in job.steps.values() if step.stage in (INGEST, PACKAGE))
    return alone + makespan(parts, job.workers) if parts else alone
