"""Trim, revert, versions, clip and export as people type them: on a folder with nothing running, and on a fleet."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from unittest.mock import Mock, patch

import av
import pytest
from assets import MadeAsset
from catalogue import told
from commands import Said
from needs import Require
from pages import wait_for
from playwright.sync_api import Browser
from redis_server import running_server

from pipeline.conductor import Attempt
from pipeline.errors import PipelineError
from pipeline.requests import ExportRequest, TrimRequest
from pipeline.workbench import Workbench
from workers.alone import alone
from workers.cli import main
from workers.serve import players_dir, serve
from workers.solo import carry_out


@dataclass(frozen=True, kw_only=True)
class Place:
    """An asset of ten seconds in 25 frames each, and where commands find it: in a folder, or in a fleet."""

    asset: str
    root: Path
    """Where the asset's objects lie."""
    where: tuple[str, ...] = ()
    """Options that every command gets."""
    environment: dict[str, str] = field(default_factory=dict)

    def reelway(self, *words: str) -> Said:
        """The command, in this process: loading it takes longer than what it does."""
        out, error = io.StringIO(), io.StringIO()
        before = signal.getsignal(signal.SIGTERM)
        try:
            with (
                patch.dict(os.environ, {"COLUMNS": "300", **self.environment}),
                patch("sys.argv", ["reelway", *words, *self.where]),
                patch("sys.stdin", io.StringIO()),
                redirect_stdout(out),
                redirect_stderr(error),
            ):
                main()
        except SystemExit as ended:
            return Said(code=int(ended.code or 0), out=out.getvalue(), error=told(error.getvalue()))
        finally:
            signal.signal(signal.SIGTERM, before)
        raise AssertionError("a command ends the program")

    def changed(self, word: str, *words: str) -> Said:
        """A command that changes something, followed to its end; it went well."""
        said = self.reelway(word, *words, "--wait")
        assert said.code == 0, said.error
        return said

    def frames(self, asset: str | None = None) -> list[int]:
        """So many frames are played, of each picture: as the HLS door says."""
        door = self.root / "transcoded" / (asset or self.asset) / "video.m3u8"
        names = re.findall(r"^(?!#)(\S+)$", door.read_text(), re.MULTILINE)
        lists = [(door.parent / name).read_text() for name in names]
        seconds = [sum(map(Fraction, re.findall(r"#EXTINF:([0-9.]+)", text))) for text in lists]
        return [round(each * 25) for each in seconds]

    def versions(self, asset: str | None = None) -> list[tuple[int, float, str]]:
        rows = self.reelway("versions", asset or self.asset, "--json").data
        assert [row["shown"] for row in rows] == [True] + [False] * (len(rows) - 1)
        return [(row["version"], row["duration"], row["brought_by"]) for row in rows]

    def objects(self) -> dict[str, bytes]:
        """Everything that is public but for the doors, which are rewritten."""
        files = [file for file in self.root.rglob("transcoded/**/*") if file.is_file()]
        doors = ("video.m3u8", "video.mpd")
        return {str(file.relative_to(self.root)): file.read_bytes() for file in files if file.name not in doors}


@pytest.fixture
def folder(asset_folder: MadeAsset, tmp_path: Path) -> Place:
    """An asset in a folder of its own."""
    root = shutil.copytree(asset_folder.root, tmp_path / "out")
    return Place(asset=asset_folder.id, root=root, where=("--out", str(root)))


@pytest.fixture(scope="module")
def fleet(asset_folder: MadeAsset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A fleet of one worker that never heard of the asset which lies in its storage."""
    folder = tmp_path_factory.mktemp("fleet")
    root = shutil.copytree(asset_folder.root, folder / "storage")
    (folder / "scratch").mkdir()
    with running_server() as server, (folder / "worker.log").open("wb") as log:
        environment = {
            "REELWAY_REDIS_URL": server.url(),
            "REELWAY_STORAGE_URL": root.as_uri(),
            "REELWAY_SCRATCH_DIR": str(folder / "scratch"),
            "REELWAY_LOCAL_SOURCES": "true",
            "REELWAY_GRACE_S": "0",
        }
        command = [sys.executable, "-m", "workers.main"]
        worker = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
        try:
            yield Place(asset=asset_folder.id, root=root, environment=environment)
        finally:
            worker.send_signal(signal.SIGTERM)
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


# -- a folder ---------------------------------------------------------------------------------------------------------


def test_a_trim_is_shown_and_undone_and_nothing_that_was_there_changes(folder: Place) -> None:
    before = folder.objects()
    trimmed = folder.reelway("trim", folder.asset, "--start", "2.5", "--end", "0:07.9")
    shown, reverted = folder.frames(), folder.reelway("revert", folder.asset)

    assert trimmed.code == reverted.code == 0, trimmed.error + reverted.error
    assert shown == [135] * 3
    assert "trim 1 is done (version 2" in trimmed.out
    assert "plays   0:05.400 (from 0:02.520 to 0:07.920 of 0:10.120)" in trimmed.out
    assert "plays   0:10.120 (all of it)" in reverted.out
    assert folder.frames() == [253] * 3
    assert before.items() <= folder.objects().items()


def test_what_is_printed_to_undo_a_trim_undoes_it(folder: Place) -> None:
    said = folder.changed("trim", folder.asset, "--end", "5")
    (command,) = [line.split(maxsplit=1)[1] for line in said.out.splitlines() if line.startswith("undo")]
    bare = replace(folder, where=())

    assert bare.reelway(*shlex.split(command)[1:]).code == 0
    assert folder.frames() == [253] * 3


def test_every_version_may_be_gone_back_to(folder: Place) -> None:
    folder.changed("trim", folder.asset, "--start", "4")
    folder.changed("trim", folder.asset, "--start", "2", "--end", "6")
    folder.changed("revert", folder.asset)
    folder.changed("revert", folder.asset, "--to", "2")

    assert folder.frames() == [153] * 3
    assert folder.versions() == [
        (5, 6.12, "revert to 2"),
        (4, 10.12, "revert"),
        (3, 4.0, "trim 2"),
        (2, 6.12, "trim 1"),
        (1, 10.12, "process"),
    ]


def test_a_person_sees_the_versions(folder: Place) -> None:
    folder.changed("trim", folder.asset, "--start", "4", "--end", "6")
    first, second = folder.reelway("versions", folder.asset).out.splitlines()[1:]

    assert first.split()[:2] == ["*", "2"]
    assert "0:04.000 – 0:06.000" in first
    assert "trim 1" in first
    assert second.split()[0] == "1"
    assert "all" in second


def test_the_trims_of_an_asset_are_told_as_in_the_reference(folder: Place) -> None:
    assert folder.reelway("trims", folder.asset, "--json").data == []
    made = folder.reelway("trim", folder.asset, "--end", "0:05", "--json")
    folder.changed("trim", folder.asset, "--start", "1")
    newest, oldest = folder.reelway("trims", folder.asset, "--json").data

    assert made.data == oldest
    assert (oldest["id"], oldest["start_time"], oldest["end_time"]) == (1, None, 5.0)
    assert (newest["id"], newest["start_time"], newest["end_time"]) == (2, 1.0, None)
    assert (newest["status"], newest["status_display"]) == (3, "Completed")
    assert "Completed" in folder.reelway("trims", folder.asset).out


def test_a_trim_that_fails_is_told_as_one_that_does_not(folder: Place) -> None:
    with patch("pipeline.workbench.Workbench.run", side_effect=ZeroDivisionError):
        said = folder.reelway("trim", folder.asset, "--end", "5", "--json")
    (trim,) = folder.reelway("trims", folder.asset, "--json").data

    assert (said.code, said.refusal) == (1, "stage_failed")
    assert json.loads(said.out) == trim
    assert (trim["id"], trim["status"], trim["error"]["code"]) == (1, 4, "stage_failed")


def test_the_number_of_a_trim_is_known_without_a_look_at_those_before(folder: Place) -> None:
    folder.changed("trim", folder.asset, "--end", "5")
    with patch("pipeline.standing.past_of", side_effect=AssertionError("an asset may have thousands")):
        said = folder.changed("trim", folder.asset, "--start", "2")
        with pytest.raises(AssertionError, match="thousands"):
            folder.reelway("trims", folder.asset)

    assert "trim 2 is done" in said.out


@pytest.mark.raises_code("asset_busy")
def test_two_commands_do_not_change_an_asset_at_once(folder: Place) -> None:
    """Each would begin with what was there before the other, and know nothing of it."""
    with alone(folder.root / ".reelway", folder.asset):
        refused = [
            folder.reelway(word, folder.asset, *options)
            for word, *options in (("trim", "--end", "5"), ("revert",), ("export",))
        ]
        clip = folder.reelway("clip", folder.asset, "--end", "5", "--id", "theclip0001")
    folder.changed("trim", folder.asset, "--end", "5")

    assert [(said.code, said.out, said.refusal) for said in refused] == [(1, "", "asset_busy")] * 3
    assert clip.code == 0, clip.error
    assert folder.frames() == [125] * 3
    assert not list((folder.root / ".reelway").glob("*.changing"))


def test_a_preview_changes_nothing(folder: Place) -> None:
    said = folder.reelway("trim", folder.asset, "--start", "5", "--end", "6", "--preview")
    lines = dict(line.split(maxsplit=1) for line in said.out.splitlines())
    urls = folder.reelway("trim", folder.asset, "--start", "5", "--end", "6", "--preview", "--json").data

    assert said.code == 0, said.error
    assert Path(lines["HLS"]).read_text().startswith("#EXTM3U")
    assert Path(lines["DASH"]).is_file()
    assert "--preview" in lines["play"]
    assert lines["plays"] == "0:04.000 (from 0:04.000 to 0:08.000)"
    assert urls["hls_url"].endswith(lines["HLS"].removeprefix(str(folder.root)))
    assert folder.frames() == [253] * 3
    assert [row[0] for row in folder.versions()] == [1]
    assert folder.reelway("trims", folder.asset, "--json").data == []


def test_a_preview_plays_on_the_page_of_its_asset(folder: Place, browser: Browser, require: Require) -> None:
    require(players_dir(), "the players are not installed (make install)")
    said = folder.reelway("trim", folder.asset, "--start", "5", "--end", "6", "--preview").out
    with serve(folder.root, folder.asset) as server, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{server.page(said.split()[-1])}&player=hls.js")
        wait_for(page, "window.reelway?.ready && element('video').duration > 0")
        seconds = page.evaluate("element('video').duration")

    assert seconds == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("name", ["nope", "..", "../.."])
def test_a_preview_that_nobody_made_is_a_wrong_call(folder: Place, name: str) -> None:
    with patch("webbrowser.open", side_effect=AssertionError("there is nothing to see")):
        said = folder.reelway("play", folder.asset, "--preview", name)

    assert (said.code, said.refusal) == (2, "parameter_invalid")
    assert f"has no preview {name}" in said.error


def test_a_clip_is_an_asset_that_can_be_trimmed_and_reverted(folder: Place) -> None:
    made = folder.changed(
        "clip", folder.asset, "--start", "2", "--end", "8", "--id", "theclip0001", "--title", "A clip"
    )
    clip = [folder.frames("theclip0001")]
    for words in (("trim", "theclip0001", "--start", "1", "--end", "3"), ("revert", "theclip0001")):
        folder.changed(*words)
        clip.append(folder.frames("theclip0001"))
    listed = {row["id"]: row for row in map(json.loads, folder.reelway("ls", "--json").out.splitlines())}

    assert "theclip0001 is a clip of" in made.out
    assert clip == [[150] * 3, [50] * 3, [150] * 3]
    assert folder.frames() == [253] * 3
    assert (listed["theclip0001"]["title"], listed["theclip0001"]["video"]["duration_ms"]) == ("A clip", 6000)
    assert folder.versions("theclip0001")[-1] == (1, 6.0, f"clip of {folder.asset}")
    trimmed = folder.reelway("versions", "theclip0001", "--json").data[1]
    assert (trimmed["start_time"], trimmed["end_time"]) == (1.0, 3.0)


def test_a_duplicate_plays_all_of_it(folder: Place) -> None:
    said = folder.reelway("duplicate", folder.asset, "--json").data

    assert said["id"] != folder.asset
    assert folder.frames(said["id"]) == [253] * 3


def test_an_export_is_one_file_of_what_is_played(folder: Place) -> None:
    folder.changed("trim", folder.asset, "--start", "2", "--end", "6")
    said = folder.reelway("export", folder.asset, "--resolution", "360p")
    with av.open(said.out.strip()) as file:
        (picture,) = file.streams.video
        frames = sum(1 for _ in file.decode(picture))
        sounds = len(file.streams.audio)

    assert (picture.height, frames, sounds) == (360, 100, 1)


def test_what_is_processed_with_a_range_plays_that_first(folder: Place) -> None:
    (kept,) = (folder.root / "private").glob(f"{folder.asset}.*")
    source = shutil.copy(kept, folder.root.parent)
    options = ("--resolutions", "240p", "--profile", "fast", "--id", "trimmed0001", "--start", "2", "--end", "0:06")
    said = folder.reelway("process", source, *options, "--json").data
    first = folder.frames("trimmed0001")
    folder.changed("revert", "trimmed0001")

    assert said["video"]["duration_ms"] == 4000
    assert (first, folder.frames("trimmed0001")) == ([100], [253])
    told = folder.reelway("trims", "trimmed0001").error
    assert "trimmed0001 was trimmed when it came (0:02.000 to 0:06.000), and never since" in told
    assert "was never trimmed" in folder.reelway("trims", folder.asset).error


BAD_RANGES = {
    "negative": ("--start", "-5"),
    "negative, as a clock says it": ("--start=-0:05",),
    "reversed": ("--start", "6", "--end", "2"),
    "nothing": ("--start", "3", "--end", "3"),
    "less than a frame": ("--start", "3.01", "--end", "3.03"),
    "behind the end": ("--start", "10.5"),
    "beyond the end": ("--end", "10.5"),
    "no number": ("--start", "nan"),
    "no end of it": ("--end", "inf"),
}


@pytest.mark.raises_code("trim_range_invalid")
@pytest.mark.parametrize("range_", BAD_RANGES.values(), ids=BAD_RANGES)
def test_a_range_that_is_none_is_refused(folder: Place, range_: tuple[str, ...]) -> None:
    for word in (("trim",), ("trim", "--preview"), ("clip", "--id", "theclip0001")):
        said = folder.reelway(word[0], folder.asset, *range_, *word[1:])

        assert (said.code, said.out) == (2, ""), said.error
        assert said.refusal == "trim_range_invalid"
        assert re.search(r"(--start|--end) is \S+: choose \S+ to ", said.error), "in the words of the command"
    assert [row[0] for row in folder.versions()] == [1]
    assert not list(folder.root.rglob("*theclip0001*"))


def test_the_last_frame_may_be_asked_for_as_generously_as_its_end(folder: Place) -> None:
    """Whoever reads 10.1 or 10.13 s off a player means the end."""
    folder.changed("trim", folder.asset, "--start", "5", "--end", "10.15")

    assert folder.frames() == [128] * 3


@pytest.mark.raises_code("not_trimmed", "version_not_found", "export_track_not_found")
@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (("trim",), "parameter_not_provided", 2),
        (("trim", "--start", "soon"), "parameter_invalid", 2),
        (("clip", "--start", "1", "--id", "no"), "parameter_invalid", 2),
        (("revert", "--to", "0"), "parameter_invalid", 2),
        (("revert",), "not_trimmed", 1),
        (("revert", "--to", "7"), "version_not_found", 1),
        (("export", "--resolution", "1080p"), "export_track_not_found", 1),
        (("export", "--audio", "tlh"), "export_track_not_found", 1),
    ],
)
def test_a_wrong_wish_is_one_coded_line(folder: Place, words: tuple[str, ...], code: str, exit_code: int) -> None:
    # All of the codes of this test, whichever the wish: the mark is about the product, not about one row.
    for each in (("revert",), ("revert", "--to", "7"), ("export", "--audio", "tlh")):
        folder.reelway(each[0], folder.asset, *each[1:])
    said = folder.reelway(words[0], folder.asset, *words[1:])

    assert (said.code, said.out, said.refusal) == (exit_code, "", code)
    assert [row[0] for row in folder.versions()] == [1]


@pytest.mark.parametrize("word", ["trim", "revert", "versions", "trims", "export", "clip", "duplicate"])
def test_of_an_asset_that_is_not_there_nothing_is_left(folder: Place, word: str) -> None:
    before = sorted(folder.root.rglob("*"))
    said = folder.reelway(word, "nosuchasset", *(("--end", "5") if word in ("trim", "clip") else ()))

    assert (said.code, said.refusal) == (1, "asset_not_found")
    assert sorted(folder.root.rglob("*")) == before


def test_what_is_lacking_is_named_as_it_is_typed(folder: Place) -> None:
    said = folder.reelway("trim", folder.asset)

    assert (said.code, said.refusal) == (2, "parameter_not_provided")
    assert "lacks --start or --end. `" in said.error
    assert "trim --help` shows what is taken" in said.error


def test_a_folder_that_is_not_there_is_a_wrong_call(folder: Place, tmp_path: Path) -> None:
    nowhere = Place(asset=folder.asset, root=tmp_path, where=("--out", str(tmp_path / "nowhere")))

    for words in (("trim", folder.asset, "--end", "5"), ("versions", folder.asset), ("trims", folder.asset)):
        assert nowhere.reelway(*words).code == 2
    assert not (tmp_path / "nowhere").exists()


def test_where_no_fleet_answers_the_folder_is_hinted_at(folder: Place) -> None:
    nobody = Place(asset=folder.asset, root=folder.root, environment={"REELWAY_REDIS_URL": "unix:///nowhere.sock"})

    for words in (("trim", folder.asset, "--end", "5"), ("versions", folder.asset)):
        said = nobody.reelway(*words)
        assert (said.code, said.refusal) == (1, "queue_unavailable")
        assert "--out" in said.error


def test_an_id_that_is_taken_is_no_clips(folder: Place) -> None:
    folder.changed("duplicate", folder.asset, "--id", "theclip0001")
    said = folder.reelway("clip", folder.asset, "--end", "5", "--id", "theclip0001")
    (folder.root / "transcoded/theclip0002").mkdir()
    (folder.root / "transcoded/theclip0002/init.mp4").write_bytes(b"what a killed command left")
    half = folder.reelway("clip", folder.asset, "--end", "5", "--id", "theclip0002")

    assert (said.code, said.refusal) == (2, "asset_exists")
    assert "delete" not in said.error, "it is finished, and somebody's"
    assert (half.code, half.refusal) == (2, "parameter_invalid")
    assert "delete private/theclip0002*" in half.error
    assert folder.frames("theclip0001") == [253] * 3


def test_an_interrupt_cancels_the_trim_and_the_asset_plays_as_before(folder: Place) -> None:
    looks = Mock(side_effect=[KeyboardInterrupt, *[None] * 1000])
    result = carry_out(TrimRequest(asset_id=folder.asset, start_time=2.5), folder.root.as_uri(), look=looks)

    assert result is not None
    assert result.interrupted
    assert result.job.error is not None
    assert result.job.error["code"] == "cancelled"
    assert folder.frames() == [253] * 3


def test_an_interrupt_ends_the_command_with_130(folder: Place) -> None:
    with patch("workers.screen.Screen.__call__", side_effect=[KeyboardInterrupt, *[None] * 1000]):
        said = folder.reelway("trim", folder.asset, "--start", "2.5")

    assert (said.code, said.out) == (130, "")
    assert "interrupted" in said.error
    assert folder.frames() == [253] * 3
    (trim,) = folder.reelway("trims", folder.asset, "--json").data
    assert (trim["status_display"], trim["error"]["code"]) == ("Failed", "cancelled")


def test_an_error_that_nobody_knows_is_told_as_a_failed_step(folder: Place) -> None:
    with patch("pipeline.workbench.Workbench.run", side_effect=ZeroDivisionError):
        result = carry_out(ExportRequest(asset_id=folder.asset), folder.root.as_uri(), look=lambda *_: None)

    assert result is not None
    assert result.job.error is not None
    assert (result.job.error["code"], result.interrupted) == ("stage_failed", False)


def test_hands_that_fail_hold_nobody_up(folder: Place) -> None:
    with patch("pipeline.conductor.Conductor.begin", side_effect=ZeroDivisionError), pytest.raises(ZeroDivisionError):
        carry_out(ExportRequest(asset_id=folder.asset), folder.root.as_uri(), look=lambda *_: None)


def test_a_step_that_fails_for_the_moment_is_tried_again(folder: Place) -> None:
    run, tries = Workbench.run, []

    def at_first_in_vain(bench: Workbench, attempt: Attempt) -> str:
        tries.append(attempt.step.attempt)
        if len(tries) > 1:
            return run(bench, attempt)
        bench.conductor.fail(attempt, PipelineError("storage_unavailable", reason="it is away"))
        return "storage_unavailable"

    with patch("pipeline.workbench.Workbench.run", at_first_in_vain):
        said = folder.changed("trim", folder.asset, "--start", "4", "--end", "6")

    assert tries == [1, 2]
    assert "trim 1 is done" in said.out


# -- a fleet ----------------------------------------------------------------------------------------------------------


def test_a_fleet_does_the_same(fleet: Place) -> None:
    trimmed = fleet.changed("trim", fleet.asset, "--start", "2.5", "--end", "7.9")
    shown = fleet.frames()
    status = fleet.reelway("status", fleet.asset)
    reverted = fleet.changed("revert", fleet.asset, "--json").data
    rolled_back = fleet.changed("revert", fleet.asset, "--to", "2")

    (trim,) = fleet.reelway("trims", fleet.asset, "--json").data
    assert trimmed.out == f"{trim['id']}\n"
    assert "plays   0:05.400 (from 0:02.520 to 0:07.920)" in trimmed.error
    assert re.search(r"undo .* revert " + fleet.asset, trimmed.error)
    assert "back at version 2" in rolled_back.error
    assert (shown, fleet.frames()) == ([135] * 3, [135] * 3)
    assert f"0:02.520 to 0:07.920 (trim {trim['id']})" in status.out
    assert (reverted["video"]["edit"], reverted["video"]["duration_ms"]) == (None, 10120)
    assert rolled_back.out == f"{fleet.asset}\n"
    assert [row[2] for row in fleet.versions()][:3] == ["revert to 2", "revert", f"trim {trim['id']}"]
    assert f"trim {trim['id']}" in fleet.reelway("history", fleet.asset).out
    fleet.changed("revert", fleet.asset)


def test_a_fleet_previews_clips_and_exports(fleet: Place) -> None:
    preview = fleet.reelway("trim", fleet.asset, "--start", "5", "--end", "6", "--preview", "--json").data
    clip = fleet.changed("clip", fleet.asset, "--start", "2", "--end", "8").out.strip()
    mp4 = fleet.changed("export", clip).out.strip()

    assert (fleet.root / "transcoded" / preview["hls_url"].partition("/transcoded/")[2]).is_file()
    assert fleet.frames(clip) == [150] * 3
    assert mp4.endswith(f"/transcoded/{clip}/video.mp4")
    assert f"clip of {fleet.asset}" in fleet.reelway("status", clip).out


@pytest.mark.raises_code("trim_range_invalid", "asset_not_found", "not_trimmed")
def test_a_fleet_refuses_the_same(fleet: Place) -> None:
    for range_ in BAD_RANGES.values():
        said = fleet.reelway("trim", fleet.asset, *range_)
        assert (said.code, said.out, said.refusal) == (2, "", "trim_range_invalid")
    assert (fleet.reelway("trim", fleet.asset).code, fleet.reelway("revert", fleet.asset).code) == (2, 1)
    assert fleet.reelway("trim", "nosuchasset", "--end", "5").refusal == "asset_not_found"
    assert fleet.reelway("versions", "nosuchasset").refusal == "asset_not_found"


@pytest.mark.raises_code("asset_not_ready")
def test_an_asset_that_failed_cannot_be_trimmed(fleet: Place, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video at all" * 100)
    broken = fleet.reelway("submit", str(tmp_path / "broken.mp4"), "--id", "brokenclip1", "--wait")
    assert "REELWAY_LOCAL_SOURCES" not in broken.error, "it was read"

    for words in (("trim", "--end", "5"), ("clip", "--end", "5"), ("export",), ("revert",)):
        assert fleet.reelway(words[0], "brokenclip1", *words[1:]).refusal == "asset_not_ready"
    assert fleet.reelway("versions", "brokenclip1").refusal == "asset_not_ready"


@pytest.mark.raises_code("asset_busy")
def test_a_second_trim_while_one_waits_is_refused(fleet: Place) -> None:
    assert fleet.reelway("queues", "pause", "trim").code == 0
    try:
        first = fleet.reelway("trim", fleet.asset, "--end", "5", "--json").data
        second = fleet.reelway("trim", fleet.asset, "--end", "6")
        (open_,) = [each for each in fleet.reelway("trims", fleet.asset, "--json").data if each["status"] == 1]
        why = fleet.reelway("why", fleet.asset).out
        assert fleet.reelway("cancel", fleet.asset).code == 0
    finally:
        assert fleet.reelway("queues", "resume", "trim").code == 0
    afterwards = fleet.reelway("why", fleet.asset).out

    assert (second.code, second.refusal) == (1, "asset_busy")
    assert (first["id"], first["status_display"]) == (open_["id"], "Pending")
    assert f"(trim {first['id']}) is active" in why
    assert "trim is paused" in why
    assert f"Its last job (trim {first['id']}) ended with cancelled" in afterwards
