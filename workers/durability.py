"""Whether the Redis of a fleet keeps what it was told: it holds the jobs, so what it forgets is lost work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import redis

from workers.embedded import MINIMUM
from workers.finding import Finding
from workers.redis_client import connect

ASKED = ("appendonly", "appendfsync", "maxmemory-policy")
_PATIENCE_S = 3.0


def keeps_everything(url: str) -> Finding:
    """What is to be said about the Redis that the settings name. The finding shows no address: it may hold a secret."""
    try:
        with connect(url, timeout_s=_PATIENCE_S) as client:
            server = client.info("server")
            said = _settings(client)
    except (redis.RedisError, ValueError) as error:
        reason = type(error).__name__
        return _finding("missing", f"REELWAY_REDIS_URL: no Redis answers ({reason})", "start it, or correct the URL")
    version = str(server["redis_version"])
    if tuple(map(int, version.split(".")[:2])) < MINIMUM:
        return _finding("missing", f"Redis {version} of REELWAY_REDIS_URL is too old", "use Redis 6.2 or newer")
    if said is None:
        detail = f"Redis {version} of REELWAY_REDIS_URL does not say how it keeps data"
        return _finding("warning", detail, "look in its settings for: appendonly yes, maxmemory-policy noeviction")
    risks = list(_risks(said))
    return _finding(
        "warning" if risks else "ok",
        "; ".join(risk for risk, _ in risks) or f"Redis {version} of REELWAY_REDIS_URL keeps what it is told",
        ", ".join(f"CONFIG SET {setting}" for _, setting in risks),
    )


def _settings(client: Any) -> Mapping[str, str] | None:
    """None: it may not be asked, as with many Redis services."""
    try:
        found = {name: client.config_get(name) for name in ASKED}
    except redis.ResponseError:
        return None
    return {name: str(value.get(name, "")) for name, value in found.items()}


def _risks(said: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is wrong, and the setting that mends it."""
    if said["appendonly"] != "yes":
        yield "it forgets jobs when it is killed", "appendonly yes"
    if said["appendfsync"] != "always":
        yield "it may forget the last seconds when it is killed", "appendfsync always"
    if said["maxmemory-policy"] != "noeviction":
        yield "it throws jobs away when it is full", "maxmemory-policy noeviction"


def _finding(state: str, detail: str, mend: str) -> Finding:
    return Finding(name="Redis", state=state, detail=detail, mend=mend)
