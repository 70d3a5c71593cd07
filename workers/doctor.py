"""`reelway doctor`: what is missing on this machine, and how to mend it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.errors import PipelineError
from workers.durability import keeps_everything
from workers.finding import Finding
from workers.proof import prove


def run(as_json: bool, storage_url: str | None = None) -> int:
    """Run every check and print a table. Returns 1 when something needed is missing.

    A storage is proved if it is named: here, or by the environment.
    """
    findings = [check() for check in CHECKS]
    if url := storage_url or _named_storage():
        findings += prove(url)
    if as_json:
        sys.stdout.write(json.dumps([finding.__dict__ for finding in findings], indent=2) + "\n")
    else:
        _print(findings)
    return 1 if any(finding.state == "missing" for finding in findings) else 0


def _named_storage() -> str | None:
    """The storage of the settings, but for the default, which a newcomer's machine does not have."""
    from workers.settings import Settings

    with suppress(PipelineError):  # the check of the settings says what is wrong
        settings = Settings.read()
        return settings.storage_url if "storage_url" in settings.model_fields_set else None
    return None


def _print(findings: list[Finding]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    marks = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "missing": "[red]✗[/]"}
    for finding in findings:
        table.add_row(marks[finding.state], finding.name, escape(finding.detail), escape(finding.mend))
    Console().print(table)


def _python() -> Finding:
    supported = sys.version_info >= (3, 11)
    return Finding(
        name="Python",
        state="ok" if supported else "missing",
        detail=platform.python_version(),
        mend="" if supported else "install Python 3.11 or newer",
    )


def _codecs() -> Finding:
    import av

    missing = [name for name in ("libx264", "aac") if name not in av.codecs_available]
    return Finding(
        name="encoders",
        state="missing" if missing else "ok",
        detail=f"PyAV {av.__version__}, FFmpeg libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}",
        mend=f"reinstall PyAV from its wheel: {', '.join(missing)} is missing" if missing else "",
    )


def _settings() -> Finding:
    from workers.settings import Settings, unknown_variables

    unknown = unknown_variables(os.environ)
    try:
        Settings.read()
    except PipelineError as error:
        return Finding(name="settings", state="missing", detail=error.message, mend=error.hint)
    return Finding(
        name="settings",
        state="warning" if unknown else "ok",
        detail=f"unknown: {', '.join(unknown)}" if unknown else "every REELWAY_ variable is known",
        mend="correct the spelling or unset them; config/README.md lists every setting" if unknown else "",
    )


def _seal() -> Finding:
    """Who can open the URLs of sources that lie sealed in records."""
    from pipeline.seal import keys_of
    from workers.settings import Settings

    try:
        settings = Settings.read()
    except PipelineError as error:  # the check of the settings says what is wrong
        return Finding(name="seal", state="warning", detail=error.message)
    own = len(keys_of(settings.seal_key.get_secret_value()))
    if own:
        more = f", and {own - 1} more open what was sealed before" if own > 1 else ""
        return Finding(name="seal", state="ok", detail=f"source URLs are sealed by REELWAY_SEAL_KEY{more}")
    shared = settings.storage_url.startswith("s3://")
    return Finding(
        name="seal",
        state="warning" if shared else "ok",
        detail="source URLs are sealed by the fleet's own key, private/seal.key of its storage",
        mend="set REELWAY_SEAL_KEY if anybody else may read private/ of the bucket" if shared else "",
    )


def _redis() -> Finding:
    """The Redis that the settings name; else the one that commands for one machine start."""
    from workers.settings import Settings

    with suppress(PipelineError):  # the check of the settings says what is wrong
        settings = Settings.read()
        if "redis_url" in settings.model_fields_set:
            return keeps_everything(settings.redis_url)
    return _own_redis()


def _own_redis() -> Finding:
    from workers.embedded import find_server

    try:
        server = find_server()
    except PipelineError as error:
        return Finding(name="Redis", state="missing", detail=error.message, mend="install redis-server 6.2 or newer")
    return Finding(
        name="Redis",
        state="warning" if server.kind == "fakeredis" else "ok",
        detail=f"{server.kind} {server.path or ''}".strip(),
        mend="install redis-server 6.2 or newer: this one keeps nothing" if server.kind == "fakeredis" else "",
    )


def _sandbox() -> Finding:
    from pipeline.sandbox import Nursery

    with tempfile.TemporaryDirectory() as folder:
        nursery = Nursery(Path(folder))
        child = nursery.child()
        child.hello()
        child.close()
        nursery.close()
    missing = [name for name, held in child.held.items() if not held]
    return Finding(
        name="sandbox",
        state="warning" if missing else "ok",
        detail=f"stage processes have {'no network' if child.network == 'none' else 'a network'}, "
        f"{'start no programs' if child.held['filter'] else 'may start programs'}, "
        f"{'open only the files of their step' if child.held['files'] else 'may open what the worker may'}",
        mend="; ".join(_SANDBOX_MENDS[name] for name in missing),
    )


_SANDBOX_MENDS = {
    "namespace": "allow unprivileged user namespaces, or isolate the workers' network",
    "filter": "allow seccomp (Linux on x86-64 or arm64)",
    "files": "enable Landlock (Linux 5.13 or newer)",
}


def _players() -> Finding:
    from workers.serve import players_dir

    found = players_dir()
    return Finding(
        name="players",
        state="ok" if found else "warning",
        detail=str(found) if found else "not installed",
        mend="" if found else "make install (the page plays where the browser knows HLS itself)",
    )


def _speech() -> Finding:
    from pipeline.media.speech import locate, shown_name
    from workers.settings import Settings
    from workers.wiring import speech_model

    try:
        model = speech_model(Settings.read())
        found = locate(model)
    except PipelineError as error:
        return Finding(name="speech", state="warning", detail=error.message, mend=error.hint)
    return Finding(name="speech", state="ok", detail=f"{shown_name(model)} in {found}")


def _scratch() -> Finding:
    from workers.settings import Settings

    folder = Path(tempfile.gettempdir())
    with suppress(PipelineError):
        folder = Settings.read().scratch_dir
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        mend = "make the folder, or set REELWAY_SCRATCH_DIR to another"
        return Finding(name="scratch", state="missing", detail=f"{folder}: {error.strerror}", mend=mend)
    return Finding(
        name="scratch",
        state="ok" if free > 5e9 else "warning",
        detail=f"{free / 1e9:.0f} GB free in {folder}",
        mend="" if free > 5e9 else "set REELWAY_SCRATCH_DIR to a disk with more room",
    )


CHECKS: tuple[Callable[[], Finding], ...] = (
    _python,
    _settings,
    _seal,
    _codecs,
    _redis,
    _sandbox,
    _speech,
    _players,
    _scratch,
)
