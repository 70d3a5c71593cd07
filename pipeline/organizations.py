"""The validated shape of `config/organizations.yml`: what each organization may do, so that none is in another's way.

Read by every process that accepts requests or gives out steps; a change is heeded from the next start on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import PipelineError
from pipeline.job import Priority
from pipeline.media.formats import FORMATS
from pipeline.notifications import SourceRule
from pipeline.ports import Quotas
from pipeline.requests import first_wrong_field
from pipeline.tasks import Limits


def known_formats(value: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Raises `ValueError` for a word that names no container that we read."""
    for word in value or ():
        if word not in FORMATS:
            raise ValueError(f"unknown format {word!r}; known are {', '.join(FORMATS)}")
    return value


Resolution = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$")]
"""`WIDTHxHEIGHT`."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Organization(BaseModel):
    """What one organization may do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_running_steps: Annotated[
        int | None, Field(ge=1, description="Steps that the fleet does for it at once; null: no limit.")
    ] = None
    max_open_jobs: Annotated[
        int | None, Field(ge=1, description="Jobs that have not ended; one more is refused. null: no limit.")
    ] = 10_000
    priorities: Annotated[tuple[Priority, ...], Field(min_length=1, description="Priorities that it may ask for.")] = (
        tuple(Priority)
    )

    # What its sources may be: in place of the limit of the same name that the settings give the fleet.
    max_bytes: Annotated[
        int | None, Field(ge=0, description="Largest source; 0: any. null, here and below: as the settings say.")
    ] = None
    max_video_bytes: Annotated[int | None, Field(ge=0, description="Largest source that has a picture; 0: any.")] = None
    max_audio_bytes: Annotated[int | None, Field(ge=0, description="Largest source that has none; 0: any.")] = None
    min_duration_s: Annotated[float | None, Field(ge=0, description="Shortest source, seconds; 0: any.")] = None
    max_duration_s: Annotated[float | None, Field(ge=0, description="Longest source, seconds; 0: any.")] = None
    min_audio_duration_s: Annotated[
        float | None, Field(ge=0, description="Shortest source without a picture, seconds; 0: as any other.")
    ] = None
    max_audio_duration_s: Annotated[
        float | None, Field(ge=0, description="Longest source without a picture, seconds; 0: as any other.")
    ] = None
    min_resolution: Annotated[
        Resolution | None, Field(description="Smallest picture, `640x360`: it turns with the picture.")
    ] = None
    max_resolution: Annotated[
        Resolution | None, Field(description="Largest picture, `3840x2160`: it turns with the picture.")
    ] = None
    max_aspect_ratio: Annotated[
        float | None, Field(ge=0, description="Longer side of the picture by its shorter side; 0: any.")
    ] = None
    formats: Annotated[
        tuple[str, ...] | None, AfterValidator(known_formats), Field(description="Containers, `[mp4, webm]`; []: all.")
    ] = None
    audio_formats: Annotated[
        tuple[str, ...] | None, Field(description="Codecs of sources without a picture, `[aac, mp3]`; []: all.")
    ] = None
    live: Annotated[
        bool | None, Field(description="Take what a server says is a live stream, until it ends by itself.")
    ] = None
    keep_refused: Annotated[
        bool | None, Field(description="Keep the private copy of a refused source as long as its record.")
    ] = None

    sources: Annotated[
        tuple[SourceRule, ...], Field(description="Parts of buckets: what a storage tells of there is made.")
    ] = ()

    def limits(self, fleet: Limits) -> Limits:
        """What its sources may be: its own limits in the place of the fleet's."""
        return with_own(fleet, self.model_dump(include=set(Limits.__dataclass_fields__), exclude_none=True))


class Organizations(BaseModel):
    """The whole file: what holds for everybody, and for some by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: Annotated[Organization, Field(description="Whoever is not named below.")] = Organization()
    organizations: Annotated[
        dict[Name, Organization], Field(description="By name; what is left out here is not taken from the default.")
    ] = {}

    def of(self, name: str) -> Organization:
        """What this organization may do."""
        return self.organizations.get(name, self.default)

    @property
    def sources(self) -> Mapping[str, Sequence[SourceRule]]:
        """What is made of objects that a storage tells of, by organization."""
        return {"default": self.default.sources, **{name: each.sources for name, each in self.organizations.items()}}

    @property
    def quotas(self) -> Quotas:
        """How many steps each may have under way."""
        return Quotas(
            default=self.default.max_running_steps,
            by_organization={name: each.max_running_steps for name, each in self.organizations.items()},
        )


def with_own(limits: Limits, own: Mapping[str, Any]) -> Limits:
    """`limits` with others in their place, as files and settings write them: 0 is no limit, a resolution a word."""
    return replace(limits, **{name: _meant(value) for name, value in own.items()})


def _meant(value: Any) -> Any:
    if isinstance(value, str):
        width, height = value.split("x")
        return int(width), int(height)
    return value if isinstance(value, bool | tuple) else value or None


def load_organizations(path: Path | None) -> Organizations:
    """The file's content; without a file nobody has a limit of its own.

    Raises `PipelineError("parameter_invalid")` naming file and field.
    """
    if path is None:
        return Organizations()
    try:
        return Organizations.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except ValidationError as error:
        raise PipelineError("parameter_invalid", detail=f"{path.name}: {first_wrong_field(error)}") from error
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise PipelineError("parameter_invalid", detail=f"{path.name}: {' '.join(str(error).split())}") from error


def schema() -> dict[str, Any]:
    """The JSON Schema of the file, for editors and CI."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Organizations.model_json_schema()}
