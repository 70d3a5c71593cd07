"""The whole environment, read once.

Every setting is `REELWAY_<NAME>`; `config/README.md` lists them and a test keeps that list complete. A setting may also
come as a file of that name in the folder that `REELWAY_SECRETS_DIR` names, so that no secret stands in an environment.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict
from redis.connection import parse_url

from pipeline.document import holds_secret
from pipeline.errors import PipelineError
from pipeline.guard import Allowance, ports_of
from pipeline.organizations import Resolution, known_formats, with_own
from pipeline.seal import keys_of
from pipeline.stages import STAGES
from pipeline.storage.buckets import Buckets
from pipeline.tasks import USUAL_LIMITS, Limits

PREFIX = "REELWAY_"
SECRETS_DIR = "REELWAY_SECRETS_DIR"
OTHER_VARIABLES: Mapping[str, str] = {
    SECRETS_DIR: "Folder with settings as files, for what is secret; the environment goes before it.",
    "REELWAY_PLAYERS": "Folder with the players of `reelway play`, where they are not in their usual place.",
    "REELWAY_MEDIA": "For the tests: folder of real media files.",
    "REELWAY_CHROMIUM": "For the tests: the Chromium to play with.",
}
"""What is read from the environment beside the settings."""


def _profiles_dir() -> Path:
    """The profiles that ship with the product: in the wheel, else in the checkout."""
    packaged = Path(str(resources.files("pipeline"))) / "profiles"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parent.parent / "config" / "profiles"


def _hub_cache() -> Path:
    """Where the hub's own tools put what they download."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


class Settings(BaseSettings):
    """What a process of the fleet needs to know."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

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
    slots: Annotated[int, Field(ge=1, le=64, description="Steps that one worker process does at once.")] = 1
    workers_hint: Annotated[
        int, Field(ge=1, description="About how many steps the fleet does at once, where more come than are there now.")
    ] = Field(default_factory=lambda: os.cpu_count() or 1)
    organizations_file: Annotated[
        Path | None, Field(description="What each organization may do (`config/organizations.example.yml`).")
    ] = None
    local_sources: Annotated[bool, Field(description="Files of this machine may be sources (private fleets only).")] = (
        False
    )
    source_allow: Annotated[
        str, Field(description="Networks (10.0.0.0/8) and hosts of your own that source URLs may lead to.")
    ] = ""
    source_ports: Annotated[str, Field(description="Ports that source URLs may name; `any`: every one.")] = (
        "80,443,8080,8443"
    )
    source_buckets: Annotated[
        str,
        Field(description="`s3://bucket/prefix?endpoint=…&region=…` that may be read; empty: the storage's bucket."),
    ] = ""
    source_max_bytes: Annotated[int, Field(ge=0, description="Largest source; 0: any.")] = 64 * 1024**3
    source_max_video_bytes: Annotated[int, Field(ge=0, description="Largest source that has a picture; 0: any.")] = 0
    source_max_audio_bytes: Annotated[int, Field(ge=0, description="Largest source that has none; 0: any.")] = 0
    source_min_duration_s: Annotated[float, Field(ge=0, description="Shortest source, seconds; 0: any.")] = 0.0
    source_max_duration_s: Annotated[float, Field(ge=0, description="Longest source, seconds; 0: any.")] = 12 * 3600.0
    source_min_audio_duration_s: Annotated[
        float, Field(ge=0, description="Shortest source without a picture, seconds; 0: as any other.")
    ] = 0.0
    source_max_audio_duration_s: Annotated[
        float, Field(ge=0, description="Longest source without a picture, seconds; 0: as any other.")
    ] = 0.0
    source_min_resolution: Annotated[
        Resolution | None, Field(description="Smallest picture, `640x360`: it turns with the picture.")
    ] = None
    source_max_resolution: Annotated[
        Resolution | None, Field(description="Largest picture, `3840x2160`: it turns with the picture.")
    ] = None
    source_max_aspect_ratio: Annotated[
        float, Field(ge=0, description="Longer side of a picture by its shorter side; 0: any.")
    ] = 0.0
    source_formats: Annotated[str, Field(description="Containers that are taken, `mp4,webm`; empty: all.")] = ""
    source_audio_formats: Annotated[
        str, Field(description="Codecs that are taken where there is no picture, `aac,mp3`; empty: all.")
    ] = ""
    source_live: Annotated[
        bool, Field(description="Take what a server says is a live stream, until it ends by itself.")
    ] = False
    source_keep_refused: Annotated[
        bool, Field(description="Keep the private copy of a refused source as long as its record.")
    ] = False
    upload_days: Annotated[
        float, Field(gt=0, description="An upload that is not complete after so long goes with its parts.")
    ] = 3.0
    upload_url_s: Annotated[
        int, Field(ge=1, le=7 * 86_400, description="How long the URL of a part of an upload is good, in seconds.")
    ] = 3600
    source_time_limit_s: Annotated[float, Field(gt=0, description="Longest time of one download.")] = 4 * 3600.0
    seal_key: Annotated[
        SecretStr,
        Field(
            description="Key that seals the URLs of sources in records (`openssl rand -base64 32`), and after commas "
            "those of before; secret. Empty: one that the fleet makes and keeps as `private/seal.key` of its storage."
        ),
    ] = SecretStr("")
    memory_limit_bytes: Annotated[int, Field(ge=512 * 1024**2, description="Address space of one stage process.")] = (
        4 * 1024**3
    )
    cpu_limit_s: Annotated[int, Field(ge=1, description="Processor time of one stage process, of all its threads.")] = (
        24 * 3600
    )
    memory_reserve_bytes: Annotated[
        int, Field(ge=0, description="Memory of the machine that steps leave free: one that needs more waits.")
    ] = 256 * 1024**2
    scratch_reserve_bytes: Annotated[
        int, Field(ge=0, description="Space on the scratch disk that steps leave free: one that needs more waits.")
    ] = 512 * 1024**2
    admission: Annotated[
        bool, Field(description="Whether a step waits where this machine has no room for it by estimate.")
    ] = True
    encoder_patience_s: Annotated[
        float,
        Field(ge=0, description="A job fails when no worker had the encoder that it began with for so long."),
    ] = 600.0
    wall_limit_s: Annotated[float, Field(gt=0, description="Longest time of one attempt.")] = 6 * 3600.0
    grace_s: Annotated[
        float, Field(ge=0, description="After SIGTERM, time to finish before steps are handed back.")
    ] = 20.0
    drain: Annotated[
        bool, Field(description="End by itself when nothing is left to do for its stages (job-style autoscaling).")
    ] = False
    intake: Annotated[bool, Field(description="Whether this process takes requests off the stream.")] = True
    housekeeping: Annotated[
        bool, Field(description="Whether this process takes turns at archiving events and tidying storage.")
    ] = True
    trim_when_busy: Annotated[
        Literal["refuse", "queue"],
        Field(description="A second trim, revert or roll back of an asset while one runs: `refuse`, or `queue` it."),
    ] = "refuse"
    metrics_port: Annotated[int, Field(ge=0, description="Serve Prometheus metrics on this port; 0: not.")] = 0
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="`debug`, `info`, `warning` or `error`.")
    ] = "info"
    speech_model: Annotated[
        str,
        Field(description="Whisper model for captions: a folder, a downloaded model of the hub, or `tiny.en`."),
    ] = "tiny.en"
    speech_cache: Annotated[
        Path, Field(default_factory=_hub_cache, description="Folder of the hub's downloaded models.")
    ]
    speech_device: Annotated[
        Literal["cpu", "cuda", "auto"], Field(description="What it runs on: `cpu`, `cuda` or `auto`.")
    ] = "cpu"
    speech_compute_type: Annotated[
        str, Field(description="Numbers that it counts with: `int8`, `float16` on a GPU, `float32` …")
    ] = "int8"
    speech_threads: Annotated[int, Field(ge=0, description="Threads that it uses; 0: the cores, at most 4.")] = 0
    record_days: Annotated[float, Field(gt=0, description="How long Redis keeps the record of an ended job.")] = 7.0
    event_days: Annotated[
        float, Field(gt=0, description="How long Redis keeps an event; the archive in storage keeps it on.")
    ] = 7.0

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("redis_url")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            parse_url(value)  # type: ignore[no-untyped-call]
        except ValueError:  # whose words may show a piece of the password
            raise ValueError("it is no redis://host:port/database, rediss://… or unix:///path") from None
        return value

    @field_validator("public_base_url")
    @classmethod
    def _public(cls, value: str) -> str:
        if holds_secret(value):  # every event tells it
            raise ValueError("it is an https:// URL without user, password and query")
        return value

    @field_validator("profiles_dir")
    @classmethod
    def _there(cls, value: Path) -> Path:
        if not value.is_dir():
            raise ValueError(f"there is no folder {value}")
        return value

    @field_validator("stages")
    @classmethod
    def _known(cls, value: str) -> str:
        unknown = [name for name in _names(value) if name not in STAGES]
        if unknown:
            raise ValueError(f"unknown stage {unknown[0]!r}; known are {', '.join(STAGES)}")
        return value

    @field_validator("source_allow")
    @classmethod
    def _places(cls, value: str) -> str:
        Allowance.of(value)
        return value

    @field_validator("source_ports")
    @classmethod
    def _ports(cls, value: str) -> str:
        ports_of(value)
        return value

    @field_validator("seal_key")
    @classmethod
    def _keys(cls, value: SecretStr) -> SecretStr:
        keys_of(value.get_secret_value())
        return value

    @field_validator("source_buckets")
    @classmethod
    def _buckets(cls, value: str) -> str:
        Buckets.of(value, "")
        return value

    @field_validator("source_formats")
    @classmethod
    def _formats(cls, value: str) -> str:
        known_formats(_names(value))
        return value

    @property
    def source_limits(self) -> Limits:
        """What a source may be, of an organization that has no limits of its own."""
        said = {name: getattr(self, f"source_{name}", None) for name in Limits.__dataclass_fields__}
        lists = {"formats": _names(self.source_formats), "audio_formats": _names(self.source_audio_formats)}
        return with_own(USUAL_LIMITS, {name: value for name, value in (said | lists).items() if value is not None})

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages that this process does."""
        return _names(self.stages) or tuple(STAGES)

    @classmethod
    def read(cls, **changes: Any) -> Self:
        """The settings of this process; `changes` go before what the environment says.

        Raises `PipelineError("setting_invalid")` that names the first wrong variable.
        """
        try:
            return cls(**changes)
        except ValidationError as error:
            raise _invalid(error) from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        folder = os.environ.get(SECRETS_DIR)
        if folder and not Path(folder).is_dir():
            # Without it a process would go on with a default, and say only later that it may not.
            raise PipelineError("setting_invalid", name=SECRETS_DIR, detail=f"there is no folder {folder}")
        return init_settings, env_settings, SecretsSettingsSource(settings_cls, secrets_dir=folder or None)


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Variables that look like settings and are none: most are misspelt, and nothing else would tell."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | set(OTHER_VARIABLES)
    return sorted(name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in known)


def _names(value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _invalid(error: ValidationError) -> PipelineError:
    """The first wrong variable. Shows no value: it may be a secret."""
    first = error.errors(include_url=False, include_input=False)[0]
    name = f"{PREFIX}{'.'.join(map(str, first['loc'])).upper()}"
    return PipelineError("setting_invalid", name=name, detail=first["msg"].removeprefix("Value error, "))
