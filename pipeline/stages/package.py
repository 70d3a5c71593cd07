"""Package: check that the parts of an asset fit together, and name them as the tracks of a presentation.

Nothing is trusted because a step said so: each track must have been made by one encoder and cover [0, D) without a gap,
and every rung must have its boundaries and keyframes where the grid has them, because players switch there blindly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.media.timeline import AAC_FRAME, keyframes, segment_starts
from pipeline.presentation.compose import unique_names
from pipeline.presentation.language_names import language_name
from pipeline.presentation.model import Track
from pipeline.stages.contract import Input, Inputs, Outputs, Tick
from pipeline.tasks import AudioRendition, Blueprint, PackageTask, Part, PartsFacts, Rung, Segment, Timeline, from_json


@dataclass(frozen=True, kw_only=True)
class PackageFacts:
    """What package answers."""

    tracks: tuple[Track, ...]
    """Rungs as the blueprint has them, then the sounds."""


def package(task: PackageTask, inputs: Inputs, out: Outputs, tick: Tick) -> PackageFacts:
    """The tracks of the asset, from receipts: JSON files of `PartsFacts` whose keys are storage keys, by any name.

    Raises `PipelineError("encoder_mismatch")` where the parts of a track were made by different encoders, and
    `PipelineError("parts_incomplete")` where they do not make up the whole track.
    """
    parts: list[Part] = []
    for number, name in enumerate(sorted(inputs), start=1):
        parts += from_json(PartsFacts, _file(inputs[name]).read_bytes()).parts
        tick(number / (len(inputs) + 1))
    tracks = (*_videos(task.blueprint, parts), *_audios(task.blueprint, parts))
    tick(1.0)
    return PackageFacts(tracks=tracks)


def _file(receipt: Input) -> Path:
    assert isinstance(receipt, Path), "what is small is a file"
    return receipt


# -- pictures ---------------------------------------------------------------------------------------------------------


def _videos(blueprint: Blueprint, parts: Iterable[Part]) -> list[Track]:
    return [_video(rung, blueprint.timeline, _whole(rung.track, "video", parts)) for rung in blueprint.rungs]


def _video(rung: Rung, timeline: Timeline, part: Part) -> Track:
    _check_grid(part, timeline)
    return Track(
        id=rung.track,
        kind="video",
        codec=part.codec,
        timescale=part.timescale,
        init=part.init,
        segments=part.segments,
        name=rung.name,
        rung=rung.name,
        width=rung.width,
        height=rung.height,
        frame_rate=timeline.rate,
    )


def _check_grid(part: Part, timeline: Timeline) -> None:
    """Boundaries exactly where the grid has them; keyframes at least there (scene cuts may add some)."""
    ticks = part.timescale / timeline.rate
    starts = [start * ticks for start in segment_starts(timeline)]
    if wrong := set(starts).symmetric_difference(segment.start for segment in part.segments):
        raise _incomplete(part, f"a segment boundary at {_seconds(min(wrong), part)} is not where the grid has one")
    _check_end(part, timeline, Fraction(0))
    made = {keyframe.tick for segment in part.segments for keyframe in segment.keyframes}
    if missing := {frame * ticks for frame in keyframes(timeline)} - made:
        raise _incomplete(part, f"there is no keyframe at {_seconds(min(missing), part)}")


# -- sound ------------------------------------------------------------------------------------------------------------


def _audios(blueprint: Blueprint, parts: Iterable[Part]) -> list[Track]:
    sounds = blueprint.audio
    default = min(sounds, key=_unlikely, default=None)
    return [
        _audio(sound, name, sound is default, blueprint.timeline, _whole(sound.track, "audio", parts))
        for sound, name in zip(sounds, audio_names(sounds), strict=True)
    ]


def _audio(sound: AudioRendition, name: str, default: bool, timeline: Timeline, part: Part) -> Track:
    _check_end(part, timeline, Fraction(AAC_FRAME, sound.sample_rate))
    return Track(
        id=sound.track,
        kind="audio",
        codec=part.codec,
        timescale=part.timescale,
        init=part.init,
        segments=part.segments,
        language=sound.stream.language,
        name=name,
        default=default,
        channels=sound.channels,
        sample_rate=sound.sample_rate,
        role=sound.stream.role,
    )


def _unlikely(sound: AudioRendition) -> tuple[bool, bool]:
    """Sorts the sound first that is heard unless somebody chooses. Matroska calls every track the default."""
    return sound.stream.role in _APART, not sound.stream.default


_APART = {"commentary": "Commentary", "description": "Audio description", "clean": "Without speech"}
"""Sounds for those who ask for them, and what they are called where the source has no better word."""


def audio_names(sounds: Sequence[AudioRendition]) -> list[str]:
    """What a player shows for each sound: its language, and the source's title where the language does not tell."""
    languages = Counter(sound.stream.language for sound in sounds)
    return unique_names([_audio_name(sound, languages[sound.stream.language] > 1) for sound in sounds])


def _audio_name(sound: AudioRendition, shared: bool) -> str:
    # A title alone is often "Stereo" or the name of the program that wrote the file: it helps only to tell apart.
    language, title = language_name(sound.stream.language), " ".join((sound.stream.title or "").split())[:64]
    told = title if title and (shared or language is None) else _APART.get(sound.stream.role)
    return " – ".join(filter(None, (language, told))) or "Audio"


# -- parts ------------------------------------------------------------------------------------------------------------


def _whole(track: str, kind: str, parts: Iterable[Part]) -> Part:
    """The parts of a track as one, its segments in order and contiguous from 0."""
    own = [part for part in parts if part.track == track]
    if not own or not any(part.segments for part in own):
        raise PipelineError("parts_incomplete", track=track, detail="no part of it was made")
    if len({(part.kind, part.codec, part.timescale, part.init_digest) for part in own}) > 1 or own[0].kind != kind:
        raise PipelineError("encoder_mismatch", track=track)
    segments = sorted((segment for part in own for segment in part.segments), key=lambda segment: segment.start)
    whole = Part(
        track=track,
        kind=own[0].kind,
        codec=own[0].codec,
        timescale=own[0].timescale,
        init=min(part.init for part in own),  # equal bytes wherever they lie; the choice only has to be stable
        init_digest=own[0].init_digest,
        segments=tuple(segments),
    )
    _check_contiguous(whole)
    return whole


def _check_contiguous(part: Part) -> None:
    end = 0
    for segment in part.segments:
        if segment.start > end:
            raise _incomplete(part, f"nothing from {_seconds(end, part)} to {_seconds(segment.start, part)}")
        if segment.start < end or segment.duration <= 0:
            raise _incomplete(part, f"two segments at {_seconds(segment.start, part)}")
        end = segment.start + segment.duration


def _check_end(part: Part, timeline: Timeline, tolerance: Fraction) -> None:
    """The track ends with the asset, or later by less than `tolerance` seconds (sound ends with a whole frame)."""
    last: Segment = part.segments[-1]
    over = Fraction(last.start + last.duration, part.timescale) - timeline.duration
    if over < 0 or (over and over >= tolerance):
        raise _incomplete(part, f"it lasts {_seconds(last.start + last.duration, part)} of {_print(timeline.duration)}")


def _incomplete(part: Part, detail: str) -> PipelineError:
    return PipelineError("parts_incomplete", track=part.track, detail=detail)


def _seconds(ticks: int | Fraction, part: Part) -> str:
    return _print(Fraction(ticks) / part.timescale)


def _print(seconds: Fraction) -> str:
    return f"{float(seconds):.3f} s"
