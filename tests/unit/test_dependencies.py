"""What we depend on, we use; and the lock holds each package once."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

IMPORTED_AS = {
    "dramatiq": "dramatiq",
    "redis": "redis",
    "av": "av",
    "boto3": "boto3",
    "cryptography": "cryptography",
    "webvtt-py": "webvtt",
    "faster-whisper": "faster_whisper",
    "prometheus-client": "prometheus_client",
    "pydantic": "pydantic",
    "pydantic-settings": "pydantic_settings",
    "structlog": "structlog",
    "typer": "typer",
    "rich": "rich",
    "pyyaml": "yaml",
}
"""Distribution → package, for every core dependency."""


def load(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / name).read_text())


def imported_packages() -> set[str]:
    """The first word of everything that the product imports."""
    files = [file for package in ("pipeline", "workers") for file in (ROOT / package).rglob("*.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    taken_from = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.partition(".")[0] for name in plain | taken_from}


def test_the_table_is_what_the_project_depends_on() -> None:
    required = load("pyproject.toml")["project"]["dependencies"]
    names = {re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower() for requirement in required}  # type: ignore[index]

    assert names == set(IMPORTED_AS)


@pytest.mark.parametrize("distribution", IMPORTED_AS)
def test_every_core_dependency_is_imported_by_the_product(distribution: str) -> None:
    assert IMPORTED_AS[distribution] in imported_packages()


def test_the_lock_holds_each_package_once() -> None:
    """Two versions of a package mean that two machines run two programs."""
    versions = Counter(package["name"] for package in load("uv.lock")["package"])

    assert [name for name, count in versions.items() if count > 1] == []


def test_the_lock_of_the_players_names_no_registry() -> None:
    """So that npm takes them from whichever registry the user's settings name."""
    assert "resolved" not in (ROOT / "package-lock.json").read_text()
