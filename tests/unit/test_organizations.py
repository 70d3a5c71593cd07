"""The file that says what each organization may do: what is in it is checked, and the example is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from pipeline.errors import PipelineError
from pipeline.job import Priority
from pipeline.organizations import Organization, Organizations, load_organizations, schema

CONFIG = Path(__file__).resolve().parents[2] / "config"
EXAMPLE = CONFIG / "organizations.example.yml"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "organizations.yml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_nobody_has_a_limit_of_its_own() -> None:
    anybody = load_organizations(None).of("anybody")
    assert anybody == Organization()
    assert anybody.priorities == tuple(Priority)
    assert load_organizations(None).quotas.default is None


def test_the_example_is_valid_and_its_defaults_are_the_products() -> None:
    loaded = load_organizations(EXAMPLE)

    assert loaded.of("anybody") == Organization()
    assert loaded.of("trial").max_open_jobs == 20
    assert loaded.of("archive").priorities == (Priority.BULK,)
    assert loaded.quotas.by_organization == {"newsroom": None, "archive": 16, "trial": 2}


def test_the_schema_takes_the_example_and_no_misspelling_of_it() -> None:
    validator = Draft202012Validator(json.loads((CONFIG / "organizations.schema.json").read_text(encoding="utf-8")))
    example = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))

    assert validator.is_valid(example)
    assert not validator.is_valid({"default": {"max_runing_steps": 3}})
    assert schema() == validator.schema


def test_who_is_named_has_what_the_file_says_and_nothing_of_the_default(tmp_path: Path) -> None:
    text = "default: {max_open_jobs: 3}\norganizations: {acme: {max_running_steps: 2}}\n"
    loaded = load_organizations(written(tmp_path, text))

    assert loaded.of("other").max_open_jobs == 3
    assert (loaded.of("acme").max_open_jobs, loaded.of("acme").max_running_steps) == (10_000, 2)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("default: {max_runing_steps: 3}", "default.max_runing_steps"),
        ("organizations: {acme: {max_open_jobs: 0}}", "organizations.acme.max_open_jobs"),
        ("organizations: {acme: {priorities: [urgent]}}", "organizations.acme.priorities"),
        ("organizations: {acme: {priorities: []}}", "organizations.acme.priorities"),
        ("organizations: {'a b': {}}", "organizations"),
        ("default: [", "organizations.yml"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        load_organizations(written(tmp_path, text))
    assert caught.value.code == "parameter_invalid"
    assert reason in caught.value.message


def test_an_empty_file_is_none_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    assert load_organizations(written(tmp_path, "")) == Organizations()
    with pytest.raises(PipelineError, match="parameter_invalid"):
        load_organizations(tmp_path / "nosuch.yml")
