"""The validated shape of `config/profiles/*.yml`: ladders and encoder settings as data.

A profile is frozen into the job at acceptance, so a later change of the file changes nothing that is under way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.errors import PipelineError
from pipeline.requests import RESOLUTIONS, first_wrong_field

Preset = Literal[
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
]


class RungProfile(BaseModel):
    """Rate limits of one rung."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    maxrate: Annotated[int, Field(gt=0, description="Peak bits a second (VBV).")]
    crf: Annotated[float | None, Field(ge=0, le=51, description="Overrides the profile's crf.")] = None


class VideoProfile(BaseModel):
    """How pictures are encoded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Annotated[Preset, Field(description="x264 preset.")]
    crf: Annotated[float, Field(ge=0, le=51, description="Constant quality; maxrate caps it.")]
    bufsize_seconds: Annotated[float, Field(gt=0, description="VBV buffer in seconds of maxrate.")] = 2.0
    profile: Annotated[str, Field(description="H.264 profile.")] = "high"
    options: Annotated[dict[str, str], Field(description="Further encoder options.")] = {}


class AudioProfile(BaseModel):
    """How sound is encoded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bitrate: Annotated[int, Field(gt=0, description="Bits a second of a stereo track.")]
    loudness: Annotated[
        float | None, Field(ge=-40, le=-5, description="Integrated loudness in LUFS (EBU R128); null: as it is.")
    ] = None


class Profile(BaseModel):
    """One file of `config/profiles`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    description: str
    resolutions: Annotated[
        tuple[Annotated[str, Field(json_schema_extra={"enum": [*RESOLUTIONS]})], ...],
        Field(min_length=1, description="Rungs when the request names none."),
    ]
    segment_seconds: Annotated[Fraction, Field(gt=0, description="Nominal duration of a segment.")] = Fraction(4)
    keyframe_seconds: Annotated[Fraction, Field(gt=0, description="Distance of forced keyframes.")] = Fraction(2)
    video: VideoProfile
    ladder: Annotated[
        dict[str, RungProfile],
        Field(
            description="Every rung by name, asked for or not.",
            json_schema_extra={"propertyNames": {"enum": [*RESOLUTIONS]}, "required": [*RESOLUTIONS]},
        ),
    ]
    audio: AudioProfile

    @field_validator("ladder")
    @classmethod
    def _complete(cls, value: dict[str, RungProfile]) -> dict[str, RungProfile]:
        missing = [name for name in RESOLUTIONS if name not in value]
        if missing:
            raise ValueError(f"the ladder lacks {', '.join(missing)}")
        _refuse_unknown(value)
        return value

    @field_validator("resolutions")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _refuse_unknown(value)
        return value


def _refuse_unknown(names: Iterable[str]) -> None:
    unknown = [name for name in names if name not in RESOLUTIONS]
    if unknown:
        raise ValueError(f"unknown resolution {unknown[0]!r}; known are {', '.join(RESOLUTIONS)}")


def load_profiles(folder: Path) -> Mapping[str, Profile]:
    """Every profile of a folder by name. Raises `PipelineError("parameter_invalid")` naming file and field."""
    profiles = {}
    for path in sorted(folder.glob("*.yml")):
        try:
            profile = Profile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            raise PipelineError("parameter_invalid", detail=f"{path.name}: {first_wrong_field(error)}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise PipelineError("parameter_invalid", detail=f"{path.name}: {' '.join(str(error).split())}") from error
        if profile.name != path.stem:
            raise PipelineError("parameter_invalid", detail=f"{path.name}: name: must be {path.stem!r}, as the file's")
        profiles[profile.name] = profile
    return profiles


def schema() -> dict[str, Any]:
    """The JSON Schema of a profile, for editors and CI."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Profile.model_json_schema()}
