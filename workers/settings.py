"""The whole environment, read once.

Every setting is `REELWAY_<NAME>`; `config/README.md` lists them and a test keeps that list complete. A secret may come
as a file in the folder that `REELWAY_SECRETS_DIR` names.
"""

from __future__ import annotations

import os
import tempfile
from importlib import resources
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline.stages import STAGES


def _profiles_dir() -> Path:
    """The profiles that ship with the product: in the wheel, else in the checkout."""
    packaged = Path(str(resources.files("pipeline"))) / "profiles"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parent.parent / "config" / "profiles"


class Settings(BaseSettings):
    """What a process of the fleet needs to know."""

    model_config = SettingsConfigDict(env_prefix="REELWAY_", extra="forbid", frozen=True)

    redis_url: Annotated[
        str, Field(description="Redis that holds jobs and events; its next database holds tickets.")
    ] = "redis://127.0.0.1:6379/0"
    storage_url: Annotated[str, Field(description="`file:///folder` or `s3://bucket/prefix?endpoint=…&region=…`.")] = (
        "file:///var/lib/reelway"
    )
    public_base_url: Annotated[str, Field(description="What the URLs of documents and events begin with.")] = (
        "http://127.0.0.1:8350"
    )
    profiles_dir: Annotated[Path, Field(default_factory=_profiles_dir, description="Folder of encoding profiles.")]
    scratch_dir: Annotated[Path, Field(description="Folder for files that live as long as a step.")] = Path(
        tempfile.gettempdir()
    )
    event_prefix: Annotated[str, Field(description="Reverse-DNS prefix of event types.")] = "dev.reelway"
    stages: Annotated[str, Field(description="Comma-separated stages this process does; empty: all.")] = ""
    workers_hint: Annotated[int, Field(ge=1, description="About how many steps the fleet does at once.")] = Field(
        default_factory=lambda: os.cpu_count() or 1
    )
    local_sources: Annotated[bool, Field(description="Files of this machine may be sources (private fleets only).")] = (
        False
    )
    memory_limit_bytes: Annotated[int, Field(gt=0, description="Address space of one stage process.")] = 4 * 1024**3
    wall_limit_s: Annotated[float, Field(gt=0, description="Longest time of one attempt.")] = 6 * 3600.0
    grace_s: Annotated[
        float, Field(ge=0, description="After SIGTERM, time to finish before steps are handed back.")
    ] = 20.0
    metrics_port: Annotated[int, Field(ge=0, description="Serve Prometheus metrics on this port; 0: not.")] = 0
    log_level: Annotated[str, Field(description="debug, info, warning or error.")] = "info"
    record_days: Annotated[float, Field(gt=0, description="How long Redis keeps the record of an ended job.")] = 7.0

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages that this process does."""
        asked = tuple(name.strip() for name in self.stages.split(",") if name.strip())
        unknown = [name for name in asked if name not in STAGES]
        if unknown:
            raise ValueError(f"unknown stage {unknown[0]!r}; known are {', '.join(STAGES)}")
        return asked or tuple(STAGES)
