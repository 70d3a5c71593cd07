"""The environment: every setting is documented, a wrong one is named, a misspelt one is found."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.reference import write
from pipeline.stages import STAGES
from pipeline.tasks import USUAL_LIMITS, Limits
from workers import doctor
from workers.reference import PAGES
from workers.settings import OTHER_VARIABLES, Settings, unknown_variables

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = [f"REELWAY_{name.upper()}" for name in Settings.model_fields]


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own settings are of no interest here."""
    for name in [name for name in os.environ if name.startswith("REELWAY_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("page", PAGES)
def test_a_generated_page_is_current(page: str) -> None:
    assert (ROOT / page).read_text(encoding="utf-8") == PAGES[page](), "run `python -m workers.reference`"


def test_the_command_writes_every_page(tmp_path: Path) -> None:
    assert {path.relative_to(tmp_path).as_posix() for path in write(tmp_path, PAGES)} == set(PAGES)


@pytest.mark.parametrize("variable", [*VARIABLES, *OTHER_VARIABLES])
def test_every_variable_is_in_the_table_with_its_meaning(variable: str) -> None:
    rows = [line for line in (ROOT / "config" / "README.md").read_text().splitlines() if f"| `{variable}` |" in line]

    assert len(rows) == 1
    assert len(rows[0].rstrip(" |").rpartition("|")[2].split()) >= 3


def test_the_example_sets_every_setting_to_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (ROOT / "config" / "settings.example.env").read_text().splitlines()
    pairs = dict(line.removeprefix("#").split("=", 1) for line in lines if line.startswith("#REELWAY_"))
    defaults = Settings.read()
    for name, value in pairs.items():
        monkeypatch.setenv(name, value)

    assert list(pairs) == VARIABLES
    assert Settings.read() == defaults


def test_everything_that_is_read_from_the_environment_is_known() -> None:
    """Nothing looks past the settings without being listed."""
    files = [file for folder in ("pipeline", "workers", "tests", "scripts") for file in (ROOT / folder).rglob("*.py")]
    read = {
        name for file in files for name in re.findall(r"environ(?:\.get\(|\[)\s*\"(REELWAY_\w+)\"", file.read_text())
    }
    assert "REELWAY_PLAYERS" in read
    assert unknown_variables(dict.fromkeys(read, "1")) == []


@pytest.mark.parametrize(
    "url", ["", "localhost:6379", "http://:hush@h", "redis://:hu/sh@h:6379", "redis://h?socket_timeout=hush"]
)
def test_a_wrong_redis_url_is_named_but_not_shown(url: str) -> None:
    with pytest.raises(PipelineError, match="REELWAY_REDIS_URL") as caught:
        Settings.read(redis_url=url)

    assert caught.value.code == "setting_invalid"
    assert "hu" not in caught.value.message


def test_a_misspelt_variable_is_found() -> None:
    environ = {
        "REELWAY_REDIS_URI": "redis://localhost",
        "REELWAY_REDIS_URL": "redis://localhost",
        "reelway_log_level": "debug",
        "REELWAY_SECRETS_DIR": "/run/secrets",
        "REELWAYLOG": "1",
        "HOME": "/root",
    }
    assert unknown_variables(environ) == ["REELWAY_REDIS_URI"]


def test_the_doctor_names_misspelt_and_wrong_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._settings().state == "ok"
    monkeypatch.setenv("REELWAY_REDIS_URI", "redis://localhost")
    misspelt = doctor._settings()
    monkeypatch.setenv("REELWAY_METRICS_PORT", "x")
    wrong = doctor._settings()

    assert (misspelt.state, misspelt.detail) == ("warning", "unknown: REELWAY_REDIS_URI")
    assert (wrong.state, "REELWAY_METRICS_PORT" in wrong.detail) == ("missing", True)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("REELWAY_WORKERS_HINT", "many", "integer"),
        ("REELWAY_METRICS_PORT", "-1", "greater"),
        ("REELWAY_LOG_LEVEL", "loud", "'info'"),
        ("REELWAY_STAGES", "audio,melt", "unknown stage 'melt'"),
        ("REELWAY_LOCAL_SOURCES", "perhaps", "boolean"),
        ("REELWAY_SECRETS_DIR", "/there/is/none", "/there/is/none"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(PipelineError) as raised:
        Settings.read()

    assert raised.value.code == "setting_invalid"
    assert raised.value.params["name"] == name
    assert said in raised.value.message


def test_what_is_set_is_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELWAY_STAGES", "audio, package")
    monkeypatch.setenv("REELWAY_LOG_LEVEL", "WARNING")
    monkeypatch.setenv("REELWAY_GRACE_S", "")
    settings = Settings.read(redis_url="redis://here/0")

    assert settings.stage_names == ("audio", "package")
    assert settings.log_level == "warning"
    assert settings.grace_s == Settings.model_fields["grace_s"].default
    assert settings.redis_url == "redis://here/0"
    assert Settings.read(stages="").stage_names == tuple(STAGES)


def test_a_secret_may_come_as_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "REELWAY_REDIS_URL").write_text("redis://:hush@redis:6379/0\n")
    (tmp_path / "something-else").write_text("not ours")
    monkeypatch.setenv("REELWAY_SECRETS_DIR", str(tmp_path))
    assert Settings.read().redis_url == "redis://:hush@redis:6379/0"

    monkeypatch.setenv("REELWAY_REDIS_URL", "redis://elsewhere/0")
    assert Settings.read().redis_url == "redis://elsewhere/0"


# -- what a source may be ---------------------------------------------------------------------------------------------


def test_with_nothing_set_a_source_may_be_what_the_product_says() -> None:
    assert Settings.read().source_limits == USUAL_LIMITS


def test_every_limit_is_a_setting_and_zero_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "MAX_BYTES": "0",
        "MAX_VIDEO_BYTES": "9",
        "MAX_AUDIO_BYTES": "8",
        "MIN_DURATION_S": "1.5",
        "MAX_DURATION_S": "0",
        "MIN_AUDIO_DURATION_S": "2",
        "MAX_AUDIO_DURATION_S": "3",
        "MIN_RESOLUTION": "64x64",
        "MAX_RESOLUTION": "3840x2160",
        "MAX_ASPECT_RATIO": "4",
        "FORMATS": "mp4, webm",
        "AUDIO_FORMATS": "aac,mp3",
        "LIVE": "true",
        "KEEP_REFUSED": "true",
    }
    for name, value in said.items():
        monkeypatch.setenv(f"REELWAY_SOURCE_{name}", value)

    assert Settings.read().source_limits == Limits(
        max_bytes=None,
        max_video_bytes=9,
        max_audio_bytes=8,
        min_duration_s=1.5,
        max_duration_s=None,
        min_audio_duration_s=2,
        max_audio_duration_s=3,
        min_resolution=(64, 64),
        max_resolution=(3840, 2160),
        max_aspect_ratio=4,
        formats=("mp4", "webm"),
        audio_formats=("aac", "mp3"),
        live=True,
        keep_refused=True,
    )
    page = (ROOT / "docs" / "reference" / "limits.md").read_text(encoding="utf-8")
    assert [name for name in said if f"| `REELWAY_SOURCE_{name}` | `{name.lower()}` |" not in page] == []


@pytest.mark.parametrize(("name", "value"), [("MIN_RESOLUTION", "640"), ("FORMATS", "mp4,exe"), ("MAX_BYTES", "-1")])
def test_a_limit_that_is_none_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"REELWAY_SOURCE_{name}", value)

    with pytest.raises(PipelineError) as caught:
        Settings.read()
    assert (caught.value.code, caught.value.params["name"]) == ("setting_invalid", f"REELWAY_SOURCE_{name}")
