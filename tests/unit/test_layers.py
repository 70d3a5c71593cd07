"""Imports point downhill (DESIGN §4). The tables below are the map; a new module takes its place in them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LAYERS: tuple[tuple[str, ...], ...] = (
    ("workers.reference",),
    ("workers.cli", "workers.__main__"),
    ("workers.commands",),  # what a word of the command does; a module a topic
    (
        "workers.demo",
        "workers.corpus",
        "workers.doctor",
        "workers.durability",
        "workers.forecast",
        "workers.station",
        "workers.tail",
        "workers.uploading",
    ),  # what a command does, if it is more than a few lines
    ("workers.console",),
    ("workers.local", "workers.solo"),
    ("workers.main", "workers.process", "workers.private"),
    ("workers.standing_redis",),
    ("workers.supervisor",),
    ("workers.embedded",),
    ("workers.wiring",),
    ("workers",),  # the actors and everything that stands beside them
    ("workers.redis_jobs", "workers.tickets"),
    ("workers.redis_client", "workers.switchboard", "workers.metrics", "workers.logs"),
    ("workers.settings",),
    (
        "pipeline.conductor",
        "pipeline.workbench",
        "pipeline.watch",
        "pipeline.held",
        "pipeline.ingesting",
        "pipeline.parts",
        "pipeline.packaging",
        "pipeline.publishing",
        "pipeline.captioning",
        "pipeline.editing",
        "pipeline.clipping",
        "pipeline.exporting",
        "pipeline.patching",
        "pipeline.recipes",
        "pipeline.memory",
        "pipeline.ready",
        "pipeline.fetch",
        "pipeline.download",
        "pipeline.exchange",
        "pipeline.pace",
        "pipeline.guard",
        "pipeline.addresses",
        "pipeline.sandbox",
        "pipeline.ranges",
        "pipeline.tidy",
        "pipeline.seal",
        "pipeline.places",
        "pipeline.acceptance",
        "pipeline.answers",
        "pipeline.edit_facts",
        "pipeline.trims",
        "pipeline.numbers",
        "pipeline.doorman",
        "pipeline.standing",
        "pipeline.past",
        "pipeline.clips",
        "pipeline.janitor",
        "pipeline.estimate",
        "pipeline.uploads",
        "pipeline.upload_start",
        "pipeline.upload_record",
        "pipeline.archive",
        "pipeline.reconcile",
    ),
    ("pipeline.plan", "pipeline.stages"),
    ("pipeline.reference",),
    ("pipeline.organizations", "pipeline.split", "pipeline.cuts"),
    ("pipeline.notifications",),
    ("pipeline.presentation", "pipeline.media", "pipeline.storage"),
    ("pipeline.ports",),
    ("pipeline.asyncapi",),
    ("pipeline.upload_wire",),
    ("pipeline.events", "pipeline.document", "pipeline.profile", "pipeline.requests"),
    ("pipeline.job",),
    ("pipeline.tasks", "pipeline.keys", "pipeline.attachments", "pipeline.blocks", "pipeline.sizes"),
    ("pipeline.errors",),
    ("pipeline",),  # the package itself: nothing is in it, and so nothing happens when it is imported
)
"""From the top of the hill to its foot. Its longest prefix places a module; it imports from its own layer or lower."""

KNOWS_NOTHING_OF = {
    "pipeline.media": ("pipeline.job", "pipeline.ports", "pipeline.events", "pipeline.profile", "pipeline.requests"),
    "pipeline.presentation": ("pipeline.job", "pipeline.events", "pipeline.profile", "pipeline.requests"),
    "pipeline.stages": ("pipeline.job", "pipeline.ports", "pipeline.plan", "pipeline.storage", "pipeline.keys"),
}
"""Stricter than the layers: media and stages are functions of files, a presentation is data (DESIGN §3.4, §10)."""

AT_HOME = {
    # The demo makes its own clip, and the doctor looks whether the library loads.
    "av": ("pipeline.media", "pipeline.stages", "workers.demo", "workers.doctor"),
    "boto3": ("pipeline.storage",),
    "botocore": ("pipeline.storage",),
    "cryptography": ("pipeline.seal",),
    "dramatiq": ("workers",),
    "redis": ("workers",),
    "faster_whisper": ("pipeline.media", "pipeline.stages"),
    "prometheus_client": ("workers",),
}
"""Who may import a library: the control plane knows no media, the data plane knows no queue."""

CONTROL_PLANE = {"tasks", "job", "plan", "events", "profile", "conductor", "requests", "document", "keys", "ports"}
CONTROL_PLANE |= {"errors", "memory", "ready"}

NO_NAMES = {"utils", "util", "helpers", "manager", "service", "base", "common", "misc"}


@dataclass(frozen=True, kw_only=True)
class Import:
    """One import statement."""

    importer: str
    imported: str
    place: str
    """`file:line`."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the product by its name."""
    files = [file for package in ("pipeline", "workers") for file in (ROOT / package).rglob("*.py")]
    return {_name(file): file for file in files}


def _name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports() -> tuple[Import, ...]:
    """Every import, also those inside functions and those for type checkers: knowing is knowing."""
    return tuple(dict.fromkeys(found for name in modules() for found in _imports_of(name)))


def _imports_of(name: str) -> Iterator[Import]:
    file = modules()[name]
    for node in ast.walk(ast.parse(file.read_text())):
        for imported in _imported(node, name):
            place = f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            yield Import(importer=name, imported=imported, place=place)


def _imported(node: ast.AST, importer: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{importer} imports relatively: write the whole name"
        module = node.module or ""
        for alias in node.names:
            # `from pipeline import keys` imports the module pipeline.keys, `from pipeline.keys import source` too.
            whole = f"{module}.{alias.name}"
            yield whole if whole in modules() else module


def below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def layer(module: str) -> tuple[int, str]:
    """Number of the layer (0 is the top) and the entry of the table that decides it."""
    entries = [(entry, number) for number, layer in enumerate(LAYERS) for entry in layer if below(module, entry)]
    entry, number = max(entries, key=lambda found: len(found[0]))
    return number, entry


def test_every_module_of_the_library_has_its_place() -> None:
    homeless = [name for name in modules() if name != "pipeline" and layer(name)[1] == "pipeline"]

    assert not homeless, f"add to LAYERS in {Path(__file__).name}: {homeless}"


def test_imports_point_downhill() -> None:
    uphill = [
        f"{found.place}: {found.importer} may not import {found.imported}, which stands higher"
        for found in imports()
        if found.imported in modules() and layer(found.imported)[0] < layer(found.importer)[0]
    ]
    assert not uphill, "\n" + "\n".join(uphill)


def test_no_two_modules_need_each_other() -> None:
    graph: dict[str, set[str]] = {name: set() for name in modules()}
    for found in imports():
        if found.imported in graph and found.imported != found.importer:
            graph[found.importer].add(found.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' → '.join(reversed(error.args[1]))}")


@pytest.mark.parametrize("who", KNOWS_NOTHING_OF)
def test_media_and_presentations_know_no_job(who: str) -> None:
    known = [
        f"{found.place}: {found.importer} may not know {found.imported}"
        for found in imports()
        if below(found.importer, who) and any(below(found.imported, what) for what in KNOWS_NOTHING_OF[who])
    ]
    assert not known, "\n" + "\n".join(known)


@pytest.mark.parametrize("library", AT_HOME)
def test_a_library_stays_where_it_is_at_home(library: str) -> None:
    astray = [
        f"{found.place}: only {' and '.join(AT_HOME[library])} may import {library}"
        for found in imports()
        if below(found.imported, library) and not any(below(found.importer, home) for home in AT_HOME[library])
    ]
    assert not astray, "\n" + "\n".join(astray)


def test_the_control_plane_loads_without_media_and_infrastructure() -> None:
    """Not only by the text of the imports: what they import in turn is loaded too."""
    names = [f"pipeline.{name}" for name in sorted(CONTROL_PLANE) if f"pipeline.{name}" in modules()]
    assert "pipeline.tasks" in names
    program = f"import sys, {', '.join(names)}\nprint(*sorted(set(sys.modules) & {set(AT_HOME)}))"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert loaded.stdout.split() == []


def test_no_module_is_called_after_nothing() -> None:
    assert not [name for name in modules() if NO_NAMES & set(name.split("."))]
