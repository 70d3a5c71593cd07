"""The composition root: everything replaceable is put together here and nowhere else."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode, urlsplit

from pipeline import plan
from pipeline.conductor import Conductor
from pipeline.memory import SystemClock
from pipeline.ports import Storage
from pipeline.profile import load_profiles
from pipeline.sandbox import ChildLimits
from pipeline.storage import open_storage
from pipeline.tasks import SpeechModel
from workers.progress import RedisProgress
from workers.redis_client import Client, connect
from workers.redis_jobs import RedisJobStore
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


def control(settings: Settings) -> Control:
    """The control side on the Redis and the storage that the settings name. Connects when it is used."""
    client = connect(settings.redis_url)
    store = RedisJobStore(client, event_prefix=settings.event_prefix, keep_s=round(settings.record_days * 86_400))
    clock = SystemClock()
    conductor = Conductor(
        store,
        clock,
        plan,
        load_profiles(settings.profiles_dir),
        base_url=settings.public_base_url,
    )
    return Control(
        settings=settings,
        redis=client,
        store=store,
        conductor=conductor,
        # A connection of its own: a Redis that is silent must not hold up the work that reports.
        progress=RedisProgress(connect(settings.redis_url, timeout_s=0.5)),
        storage=open_storage(settings.storage_url),
    )


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


def child_limits(settings: Settings) -> ChildLimits:
    return ChildLimits(memory_bytes=settings.memory_limit_bytes)


def speech_model(settings: Settings) -> SpeechModel:
    """The speech model of this machine. More threads than four gain next to nothing: memory is what is slow."""
    return SpeechModel(
        name=settings.speech_model,
        cache=str(settings.speech_cache),
        device=settings.speech_device,
        compute_type=settings.speech_compute_type,
        threads=settings.speech_threads or min(4, os.cpu_count() or 1),
    )
