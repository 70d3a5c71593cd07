"""Profiles: the shipped ones load, and a mistake in one is named by file and field."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import a_profile
from jsonschema import Draft202012Validator

from pipeline.errors import PipelineError
from pipeline.profile import Profile, load_profiles, schema
from pipeline.requests import RESOLUTIONS

SHIPPED = Path(__file__).resolve().parents[2] / "config" / "profiles"


def test_the_shipped_profiles_are_default_fast_and_hq() -> None:
    profiles = load_profiles(SHIPPED)
    assert set(profiles) == {"default", "fast", "hq"}
    assert profiles["default"].resolutions == ("240p", "360p", "480p", "720p", "1080p")


@pytest.mark.parametrize("name", ["default", "fast", "hq"])
def test_a_shipped_profile_makes_sense(name: str) -> None:
    """Keyframes fall on segment boundaries, and every rung may be larger than the one below it."""
    profile = load_profiles(SHIPPED)[name]
    assert (profile.segment_seconds / profile.keyframe_seconds).denominator == 1
    caps = [profile.ladder[rung].maxrate for rung in RESOLUTIONS]
    assert all(lower < higher for lower, higher in pairwise(caps))


@pytest.mark.parametrize("name", ["default", "fast", "hq"])
def test_a_shipped_profile_fits_its_published_schema(name: str) -> None:
    """What an editor checks while somebody types, from the first line of the file."""
    text = (SHIPPED / f"{name}.yml").read_text(encoding="utf-8")
    assert text.splitlines()[0] == "# yaml-language-server: $schema=profile.schema.json"
    Draft202012Validator.check_schema(schema())
    published = json.loads((SHIPPED / "profile.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator(published).validate(yaml.safe_load(text))


@pytest.mark.parametrize("name", ["default", "fast", "hq"])
def test_every_encoder_setting_of_a_shipped_profile_says_why(name: str) -> None:
    """The default explains every setting; the others explain each one in which they differ from it."""
    default, own = (_with_comments(SHIPPED / f"{which}.yml") for which in ("default", name))
    for key, (value, comment) in own.items():
        assert comment or default.get(key, (None, ""))[0] == value, f"{name}.yml: {key} does not say why"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"colour": "blue"}, "colour: Extra inputs are not permitted"),
        ({"video": {"preset": "veryfast", "crf": 23, "tune": "film"}}, "video.tune: Extra inputs are not permitted"),
        ({"video": {"preset": "brisk", "crf": 23}}, "video.preset: "),
        ({"video": {"preset": "veryfast", "crf": 60}}, "video.crf: "),
        ({"resolutions": ["999p"]}, "resolutions: unknown resolution '999p'"),
        ({"resolutions": []}, "resolutions: "),
        ({"segment_seconds": 0}, "segment_seconds: "),
        ({"name": "other"}, "name: must be 'mine'"),
    ],
)
def test_a_mistake_is_refused_with_file_and_field(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    write(tmp_path / "mine.yml", change)
    assert _complaint(tmp_path).startswith(f"mine.yml: {complaint}")


def test_a_ladder_must_have_every_rung_and_no_other(tmp_path: Path) -> None:
    ladder = a_profile().model_dump(mode="json")["ladder"]
    write(tmp_path / "mine.yml", {"ladder": {name: rung for name, rung in ladder.items() if name != "540p"}})
    assert _complaint(tmp_path) == "mine.yml: ladder: the ladder lacks 540p"
    write(tmp_path / "mine.yml", {"ladder": {**ladder, "999p": ladder["540p"]}})
    assert _complaint(tmp_path).startswith("mine.yml: ladder: unknown resolution '999p'")


@pytest.mark.parametrize(
    "content", [b"", b"- a list", b"name: [unclosed", b"name: \xff", b"name: !!python/object:os.x"]
)
def test_a_file_that_is_no_profile_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.yml").write_bytes(content)
    complaint = _complaint(tmp_path)
    assert complaint.startswith("mine.yml: ")
    assert "\n" not in complaint


def test_a_profile_survives_the_record_that_it_is_frozen_into() -> None:
    profile = a_profile(segment_seconds="10/3")
    assert Profile.model_validate(json.loads(json.dumps(profile.model_dump(mode="json")))) == profile


def write(path: Path, change: dict[str, Any]) -> None:
    content = {**a_profile(name="mine").model_dump(mode="json"), **change}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def _complaint(folder: Path) -> str:
    with pytest.raises(PipelineError) as caught:
        load_profiles(folder)
    assert caught.value.code == "parameter_invalid"
    return str(caught.value.params["detail"])


def _with_comments(path: Path) -> dict[str, tuple[str, bool]]:
    """Every `key: value` line of the file but names, with its value and whether a comment stands right above it."""
    found: dict[str, tuple[str, bool]] = {}
    above = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, value = line.strip().partition(":")
        if value and not key.startswith("#") and key not in ("name", "description") and "{" not in value:
            found[key] = (value.strip(), above.startswith("#") or above == "segment_seconds")
        above = "#" if key.startswith("#") else key
    return found
