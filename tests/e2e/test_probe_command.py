"""`reelway probe`: what ingest would learn of a file, with nothing running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from makers import make_clip
from texts import Said, TextIn, make_text_clip

from pipeline.tasks import MediaInfo, from_json


def reelway(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workers", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe")
    return make_clip(folder / "my clip.mov", seconds=1, rotation=90, languages=("eng", "ger"))


def test_json_is_the_whole_of_what_was_learned(clip: Path) -> None:
    done = reelway("probe", clip, "--json")

    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    media = from_json(MediaInfo, line)
    assert media.video is not None
    assert (media.video.rotation, media.video.frames) == (90, 25)
    assert [sound.language for sound in media.audio] == ["en", "de"]
    assert media.keyframes
    assert media.notes == ("rotated", "several_sounds")


def test_a_person_reads_streams_oddities_and_what_would_be_made(clip: Path) -> None:
    done = reelway("probe", clip)

    assert done.returncode == 0, done.stderr
    said = done.stdout
    for word in ("320×180, shown 180×320", "25 fps", "aac LC", "rotated: The display matrix turns", "no, rotation:"):
        assert word in said
    assert "180p at 25 fps and 2 sound tracks" in said
    assert f"plan '{clip}'" in said


def test_a_refusal_is_one_coded_line(tmp_path: Path) -> None:
    text = tmp_path / "film.mp4"
    text.write_text("Dear diary, this is no film.\n" * 100)

    for words in (("probe", text), ("probe", text, "--json")):
        done = reelway(*words)
        assert done.returncode == 1
        assert done.stderr.startswith("error: media_url_unsupported_format:")
        assert len(done.stderr.splitlines()) == 1
        assert bool(done.stdout) is ("--json" in words)


@pytest.mark.parametrize("command", ["probe", "plan"])
def test_a_refusal_as_json_is_the_error(command: str, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_text("Dear diary, this is no film.\n" * 100)

    done = reelway(command, tmp_path / "film.mp4", "--json")

    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert said.keys() == {"error"}
    assert said["error"].keys() == {"code", "message", "params", "hint", "retryable"}
    assert said["error"]["code"] == "media_url_unsupported_format"


@pytest.mark.parametrize(
    ("name", "limit", "code"),
    [
        ("MIN_DURATION_S", "60", "video_duration_too_short"),
        ("MAX_BYTES", "1000", "media_filesize_too_large"),
        ("FORMATS", "matroska", "media_url_unsupported_format"),
    ],
)
def test_what_the_limits_refuse_is_shown_and_said(clip: Path, name: str, limit: str, code: str) -> None:
    for words in (("probe", clip), ("probe", clip, "--json")):
        done = reelway(*words, **{f"REELWAY_SOURCE_{name}": limit})

        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {code}: ")
        if "--json" in words:
            said = json.loads(done.stdout)
            assert (said["video"]["frames"], said["error"]["code"]) == (25, code)
        else:
            assert "320×180, shown 180×320" in done.stdout
            assert f"refused   {code}: nothing is made of it" in done.stdout
            assert "makes" not in done.stdout


def test_a_wrong_call_names_the_help() -> None:
    done = reelway("upload", "nothing.mp4")

    assert done.returncode == 2
    assert done.stderr.startswith("error: parameter_invalid:")
    assert done.stderr.endswith(" upload --help` shows what is taken.\n")


def test_what_does_not_exist_is_said(tmp_path: Path) -> None:
    done = reelway("probe", tmp_path / "nothing.mp4")

    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "media_url_not_accessible" in done.stderr
    assert "there is no such file" in done.stderr


def test_one_of_a_kind_and_less_than_a_second_are_said_well(tmp_path: Path) -> None:
    text = TextIn(codec="subrip", said=[Said(start=0, end=0.3, text="Hello.")])

    done = reelway("probe", make_text_clip(tmp_path / "short.mkv", text, seconds=Fraction(2, 5), gop=100))

    assert done.returncode == 0, done.stderr
    for words in ("· 0:00.4 ·", "10 frames, 1 keyframe\n", "1 cue ·", "1 sound track and 1 text track;"):
        assert words in f"{done.stdout}\n"


def test_an_unknown_profile_is_a_wrong_call(clip: Path) -> None:
    done = reelway("probe", clip, "--profile", "cinema")

    assert done.returncode == 2
    assert "profile_unknown" in done.stderr


def test_nothing_is_left_behind(clip: Path, tmp_path: Path) -> None:
    done = reelway("probe", clip, "--json", TMPDIR=str(tmp_path))

    assert json.loads(done.stdout)["format"].startswith("mov")
    assert list(tmp_path.iterdir()) == []
