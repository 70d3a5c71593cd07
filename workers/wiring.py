"""The composition root: everything replaceable is put together here and nowhere else."""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from pipeline import plan
from pipeline.conductor import Conductor
from pipeline.download import Web
from pipeline.errors import PipelineError
from pipeline.guard import Allowance, Guard, ports_of
from pipeline.held import BenchLimits
from pipeline.memory import SystemClock
from pipeline.organizations import Organizations, load_organizations
from pipeline.ports import Storage
from pipeline.profile import load_profiles
from pipeline.sandbox import ChildLimits
from pipeline.seal import Seal, keys_of
from pipeline.storage import open_storage
from pipeline.storage.buckets import Buckets
from pipeline.tasks import SpeechModel
from workers.progress import RedisProgress
from workers.redis_client import Client, connect
from workers.redis_jobs import RedisJobStore
from workers.registry import Registry
from workers.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Control:
    """What sends requests and watches jobs: no media, no queue."""

    settings: Settings
    redis: Client
    store: RedisJobStore
    conductor: Conductor
    progress: RedisProgress
    storage: Storage
    registry: Registry
    organizations: Organizations

    def fleet_size(self) -> int:
        """About how many steps the fleet does at once, for the plans of jobs that are accepted now.

        As many as its workers do; more where a setting says that more come when there is work.
        """
        hinted = "workers_hint" in self.settings.model_fields_set
        return max(self.registry.slots(), self.settings.workers_hint if hinted else 1)


def control(settings: Settings) -> Control:
    """The control side on the Redis and the storage that the settings name. Connects when it is used."""
    client = connect(settings.redis_url)
    store = RedisJobStore(client, event_prefix=settings.event_prefix, keep_s=round(settings.record_days * 86_400))
    clock = SystemClock()
    storage = open_storage(settings.storage_url)
    conductor = Conductor(
        store,
        clock,
        plan,
        load_profiles(settings.profiles_dir),
        base_url=settings.public_base_url,
        seal=Seal(keys_of(settings.seal_key.get_secret_value()), storage),
        when_busy=settings.trim_when_busy,
    )
    return Control(
        settings=settings,
        redis=client,
        store=store,
        conductor=conductor,
        # A connection of its own: a Redis that is silent must not hold up the work that reports.
        progress=RedisProgress(connect(settings.redis_url, timeout_s=0.5)),
        storage=storage,
        registry=Registry(client),
        organizations=load_organizations(settings.organizations_file),
    )


def fleet_settings(*, stored: bool = False, **changes: Any) -> Settings:
    """The settings of a command that asks a running fleet: where it stores, the fleet itself says, unless we were told.

    Raises `setting_invalid`. A Redis that does not answer, or a fleet without workers, says nothing. `stored`: the
    command is about what is stored, so it does not go on with a storage that nobody named: it raises
    `queue_unavailable`, or `setting_invalid`.
    """
    settings = Settings.read(**changes)
    unsaid = {"storage_url", "public_base_url"} - settings.model_fields_set
    if unsaid:
        with connect(settings.redis_url, timeout_s=2.0) as client, _said_nothing(allowed=not stored):
            for record in Registry(client).workers():
                said = {name: getattr(record, name) for name in unsaid}
                settings = Settings.read(**changes, **{name: value for name, value in said.items() if value})
                break
    if stored and "storage_url" not in settings.model_fields_set:
        detail = "no worker is there to say where the fleet stores"
        raise PipelineError("setting_invalid", name="REELWAY_STORAGE_URL", detail=detail)
    return settings


def _said_nothing(*, allowed: bool) -> AbstractContextManager[None]:
    return suppress(PipelineError) if allowed else nullcontext()


def broker_url(redis_url: str) -> str:
    """The tickets' database: the one after the records', so that dramatiq's KEYS never walks our keys."""
    parts = urlsplit(redis_url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    path, last = parts.path, parts.path.strip("/")
    # As the client reads it: a socket's path names no database, and `db` in the query goes before the path.
    if parts.scheme == "unix" or "db" in query:
        query["db"] = str(int(query.get("db", "0")) + 1)
    else:
        path = f"/{int(last) + 1 if last.isdigit() else 1}"
    # Put together by hand: `urlunsplit` writes `unix:/path`, which the client does not take.
    return f"{parts.scheme}://{parts.netloc}{path}" + (f"?{urlencode(query)}" if query else "")


def worker_name() -> str:
    """Host, process and a nonce: unique even where containers share names and process ids."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


def web(settings: Settings) -> Web:
    """How sources come from the web, and from where they may."""
    guard = Guard(allow=Allowance.of(settings.source_allow), ports=ports_of(settings.source_ports))
    return Web(guard=guard, longest_s=settings.source_time_limit_s)


def source_buckets(settings: Settings) -> Buckets:
    return Buckets.of(settings.source_buckets, settings.storage_url)


def child_limits(settings: Settings) -> ChildLimits:
    return ChildLimits(memory_bytes=settings.memory_limit_bytes, cpu_s=settings.cpu_limit_s)


def bench_limits(settings: Settings) -> BenchLimits:
    """What one attempt may take on this machine."""
    return BenchLimits(
        child=child_limits(settings),
        wall_s=settings.wall_limit_s,
        local_sources=settings.local_sources,
        web=web(settings),
        buckets=source_buckets(settings),
    )


def speech_model(settings: Settings) -> SpeechModel:
    """The speech model of this machine. More threads than four gain next to nothing: memory is what is slow."""
    return SpeechModel(
        name=settings.speech_model,
        cache=str(settings.speech_cache),
        device=settings.speech_device,
        compute_type=settings.speech_compute_type,
        threads=settings.speech_threads or min(4, os.cpu_count() or 1),
    )
