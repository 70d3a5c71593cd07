"""The page about trims: its requests are requests, its commands are commands, its codes and events are ours."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from typer.main import get_command

from pipeline.errors import CATALOGUE
from pipeline.events import EVENTS, TrimStatus
from pipeline.requests import Request
from workers.cli import app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "trim.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^    (reelway .*)$|`(reelway [a-z]+ [A-Z][^`]*)`", PAGE, re.MULTILINE)
STANDS_FOR = {"ID": "k3v9x0q2m7a", "VERSION": "2", "DIR": "assets"}


def test_every_request_of_the_page_is_one() -> None:
    lines = BLOCKS[0].splitlines()
    types = [TypeAdapter[Request](Request).validate_json(line).type for line in lines]

    assert len(set(types)) == len(types) - 1  # a trim, and a preview of one


def test_a_trim_looks_as_on_the_page() -> None:
    shown = json.loads(BLOCKS[1])

    assert TrimStatus.model_validate(shown).model_dump(mode="json", exclude_none=True) == shown


@pytest.mark.parametrize("line", [one or other for one, other in COMMANDS])
def test_every_command_of_the_page_is_one(line: str) -> None:
    word, *words = (STANDS_FOR.get(each, each) for each in shlex.split(line)[1:])
    command: Any = get_command(app)

    command.commands[word].make_context(word, words)  # which ends the program where an option is none


def test_every_code_and_every_event_of_the_page_is_ours() -> None:
    rows = re.findall(r"^\| (`.*?`) \|", PAGE.partition("## From your API")[2], re.MULTILINE)
    names = re.findall(r"`([a-z_.]+)`", " ".join(rows))

    assert len(names) > 10
    assert set(names) - {"status"} <= {*CATALOGUE, *EVENTS}
