"""The fleets that stay: the workers of one machine (`reelway worker`), and a whole fleet on it (`reelway up`).

Both are kept by a `Supervisor` until a signal ends them. `up` brings what a fleet needs besides: a Redis, a folder, and
the page that plays what is in it; started again, it goes on with what was there, however the last run ended.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rich.console import Console

from pipeline.errors import PipelineError
from workers.console import command
from workers.serve import Server, serve
from workers.settings import PREFIX, Settings
from workers.standing_redis import standing_redis
from workers.supervisor import Supervisor, cores, keep_until_told
from workers.wiring import control

MARGIN_S = 10.0
"""What a worker may take beyond its grace time, to hand back and to close."""
LOCK = "up.lock"
LOG = "workers.log"


def work(settings: Settings, processes: int | None) -> int:
    """The workers of this machine, until a signal, or until nothing is left for them. Returns the exit code.

    Raises `parameter_invalid` where no worker could start with these settings, and `storage_differs`.
    """
    # A wrong setting ends the command, not every worker again and again.
    control(settings).registry.check_storage(settings.storage_url)
    ours = {"stages": settings.stages, "drain": str(settings.drain).lower()}
    workers = Supervisor(
        processes=processes or cores(),
        environment=_environments(settings, ours),
        until_done=settings.drain,
        grace_s=settings.grace_s + MARGIN_S,
    )
    return keep_until_told(workers)


def up(data: Path, processes: int | None, port: int) -> int:
    """A whole fleet on this machine, until a signal. Returns the exit code.

    Raises `parameter_invalid` where one is up in `data` already, the port of the page is taken or no worker could start
    with these settings, `storage_differs`, and what `standing_redis` raises.
    """
    settings = _settings(data)
    wired = control(settings)
    with ExitStack() as stack:
        stack.enter_context(_alone(data))
        page = _page(settings, port)
        if page is not None:
            stack.enter_context(page)
        own = stack.enter_context(standing_redis(settings.redis_url, data / "redis"))
        wired.registry.check_storage(settings.storage_url)
        log = stack.enter_context((data / LOG).open("ab"))
        count = processes or cores()
        workers = Supervisor(
            processes=count,
            environment=_environments(settings, _ours(settings, page, count, own_redis=own)),
            output=log,
            grace_s=settings.grace_s + MARGIN_S,
        )
        Station(settings=settings, data=data, page=page, own_redis=own, processes=count).show()
        return keep_until_told(workers)


def _settings(data: Path) -> Settings:
    """Those of the environment; the storage lies in `data` unless they name another."""
    settings = Settings.read()
    if "storage_url" in settings.model_fields_set:
        return settings
    return Settings.read(storage_url=(data.absolute() / "storage").as_uri())


def _ours(settings: Settings, page: Server | None, count: int, *, own_redis: bool) -> Mapping[str, str]:
    """What differs for the workers from the settings of the environment."""
    ours = {"storage_url": settings.storage_url, "drain": "false", "stages": ""}
    if "workers_hint" not in settings.model_fields_set:
        ours["workers_hint"] = str(count)
    if page is not None and "public_base_url" not in settings.model_fields_set:
        ours["public_base_url"] = page.url.rstrip("/")
    ours["local_sources"] = str(_local_sources(settings, own_redis)).lower()
    return ours


def _local_sources(settings: Settings, own_redis: bool) -> bool:
    """Files of this machine may be sources: as we were told, else where nobody elsewhere sends requests."""
    return settings.local_sources if "local_sources" in settings.model_fields_set else own_redis


def _environments(settings: Settings, ours: Mapping[str, str]) -> Callable[[int], Mapping[str, str]]:
    """The whole environment of each worker: the command's, with our settings in place of its own."""

    def environment(number: int) -> Mapping[str, str]:
        port = {"metrics_port": str(settings.metrics_port + number)} if settings.metrics_port else {}
        return {**os.environ, **{f"{PREFIX}{name.upper()}": value for name, value in {**ours, **port}.items()}}

    return environment


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Two fleets in one folder would pull it from under each other."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / LOCK).open("a")
    except OSError as error:
        raise PipelineError("parameter_invalid", detail=f"--data {data} is no folder: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PipelineError("parameter_invalid", detail=f"a fleet is up in {data} already") from None
        yield


def _page(settings: Settings, port: int) -> Server | None:
    """The page of what is in the storage, where that is a folder."""
    parts = urlsplit(settings.storage_url)
    if parts.scheme != "file":
        return None
    folder = Path(unquote(parts.path))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return serve(folder, None, port=port)
    except OSError as error:
        detail = f"port {port} cannot be served ({error.strerror}); choose another with --port"
        raise PipelineError("parameter_invalid", detail=detail) from error


@dataclass(frozen=True, kw_only=True)
class Station:
    """A fleet that is up, for a person."""

    settings: Settings
    data: Path
    page: Server | None
    own_redis: bool
    processes: int

    def show(self) -> None:
        """What is where, and what to type next."""
        console = Console()
        noun = "worker" if self.processes == 1 else "workers"
        console.print(f"Reelway is up with {self.processes} {noun}. Ctrl-C stops it; what is waiting is kept.")
        for name, said in self._places():
            console.print(f"  {name:<8} {said}", highlight=False, markup=False, soft_wrap=True)
        console.print("Next, in another terminal:")
        console.print(f"  {self._next()}", highlight=False, markup=False, soft_wrap=True)

    def _places(self) -> Iterator[tuple[str, str]]:
        if self.page is not None:
            yield "player", self.page.url
        yield "storage", self.settings.storage_url
        kept = f" (ours, kept in {self.data / 'redis'})" if self.own_redis else ""
        yield "Redis", f"{_shown(self.settings.redis_url)}{kept}"
        yield "log", str(self.data / LOG)

    def _next(self) -> str:
        usual = Settings.model_fields["redis_url"].default
        where = "" if self.settings.redis_url == usual else f"{PREFIX}REDIS_URL={_shown(self.settings.redis_url)} "
        source = "my.mp4" if _local_sources(self.settings, self.own_redis) else "https://…/my.mp4"
        return f"{where}{command()} submit {source} --wait"


def _shown(url: str) -> str:
    """The URL without what is secret in it."""
    parts = urlsplit(url)
    name, at, place = parts.netloc.rpartition("@")
    hidden = f"{name.partition(':')[0]}:…{at}" if at else ""
    query = f"?{parts.query}" if parts.query and "password" not in parts.query else ""
    return f"{parts.scheme}://{hidden}{place}{parts.path}{query}"
