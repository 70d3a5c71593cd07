"""The validated shape of `config/organizations.yml`: what each organization may do, so that none is in another's way.

Read by every process that accepts requests or gives out steps; a change is heeded from the next start on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import PipelineError
from pipeline.job import Priority
from pipeline.ports import Quotas
from pipeline.requests import first_wrong_field

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
    max_bytes: Annotated[int | None, Field(ge=1, description="Size of one source; null: the product's limit.")] = None
    max_duration_s: Annotated[
        int | None, Field(ge=1, description="Length of one source in seconds; null: the product's limit.")
    ] = None


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
    def quotas(self) -> Quotas:
        """How many steps each may have under way."""
        return Quotas(
            default=self.default.max_running_steps,
            by_organization={name: each.max_running_steps for name, each in self.organizations.items()},
        )


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
