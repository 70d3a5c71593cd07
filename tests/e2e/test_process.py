"""`reelway process` as a user meets it: what it makes, what it refuses, and what is left when it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pytest
from av.video.frame import VideoFrame
from catalogue import told
from makers import make_clip

COMMAND = [sys.executable, "-m", "workers.cli", "process"]
PATIENCE_S = 240.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """A `reelway process` under way: its process, its output folder and its events file."""

    process: subprocess.Popen[str]
    out: Path
    events_file: Path

    def events(self) -> list[dict[str, Any]]:
        """What it has written so far; a line that is still being written is not counted."""
        text = self.events_file.read_text(encoding="utf-8") if self.events_file.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def types(self) -> list[str]:
        return [event["type"].removeprefix("dev.reelway.").removesuffix(".v1") for event in self.events()]

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event that is wanted, as soon as it is written."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for event in self.events():
                if wanted(event):
                    return event
            if self.process.poll() is not None:
                break
            time.sleep(0.02)  # a look, not a hope: the deadline is what fails
        raise AssertionError(f"it never came; there was {self.types()}, {self.process.communicate()}")

    def end(self) -> tuple[int, str, str]:
        """(exit code, stdout, stderr), once it has ended."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, told(err)

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.out)) for path in self.out.rglob("*") if path.is_file())

    def processes(self) -> list[int]:
        """Whatever still runs with this output folder in its environment or on its command line (Linux)."""
        marker, found = str(self.out).encode(), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                words = b"".join(read(entry / name) for name in ("environ", "cmdline"))
                if marker in words:
                    found.append(int(entry.name))
        return found


def read(file: Path) -> bytes:
    """What is readable of a file in /proc: a worker hides its environment, and processes come and go."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Starts runs, and ends what a failed test leaves of them."""
    runs: list[Run] = []

    def start(source: Path | str, *options: str, out: Path | None = None, **environment: str) -> Run:
        out, events = out or tmp_path / f"out-{len(runs)}", tmp_path / f"events-{len(runs)}.jsonl"
        command = [*COMMAND, str(source), "--out", str(out), "--events", str(events), "--profile", "fast", *options]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        runs.append(Run(process=process, out=out, events_file=events))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()


def a_long_encode(folder: Path) -> Path:
    """A clip that one step takes some seconds to encode (one segment, one rung)."""
    return make_clip(folder / "clip.mp4", seconds=4, rate=50, size=(1280, 720), audio=None)


HARD = ("--resolutions", "720p", "--profile", "hq")


def test_json_prints_the_document_alone_and_the_events_tell_the_story(
    start: Callable[..., Run], tmp_path: Path
) -> None:
    run = start(make_clip(tmp_path / "clip.mp4", seconds=2), "--json", "--title", "A clip", "--resolutions", "240p")
    code, out, _ = run.end()
    document = json.loads(out)
    assert code == 0
    assert (document["title"], document["video"]["status"], document["video"]["duration_ms"]) == (
        "A clip",
        "Completed",
        2000,
    )
    assert run.types()[0] == "asset.accepted"
    assert [type_ for type_ in run.types() if type_ in ("asset.ingested", "asset.playable", "asset.ready")] == [
        "asset.ingested",
        "asset.playable",
        "asset.ready",
    ]
    assert [int(event["sequence"]) for event in run.events()] == list(range(1, len(run.events()) + 1))
    assert run.events()[-1]["data"]["asset"] == document
    assert run.processes() == []


def a_picture(path: Path, codec: str) -> Path:
    """A real still image, whatever its name says."""
    with av.open(str(path), "w", format="image2") as file:
        stream = file.add_stream(codec, rate=1)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "rgb24" if codec == "png" else "yuvj420p"
        frame = VideoFrame(64, 48, "rgb24")
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def bad_inputs(folder: Path) -> dict[str, tuple[Path, str]]:
    good = make_clip(folder / "good.mp4", seconds=1).read_bytes()
    files = {
        "empty": (b"", "media_url_file_broken"),
        "text": (b"This is a text.\n" * 100, "media_url_unsupported_format"),
        "truncated": (good[: len(good) // 3], "media_url_file_broken"),
        "playlist": (b"ffconcat version 1.0\nfile good.mp4\n", "media_url_unsupported_format"),
    }
    for name, (data, _) in files.items():
        (folder / f"{name}.mp4").write_bytes(data)
    return {
        "missing": (folder / "nowhere.mp4", "media_url_not_accessible"),
        "directory": (folder, "media_url_not_accessible"),
        "png": (a_picture(folder / "png.mp4", "png"), "media_url_unsupported_format"),
        "jpeg": (a_picture(folder / "jpeg.mp4", "mjpeg"), "media_url_unsupported_format"),
        **{name: (folder / f"{name}.mp4", code) for name, (_, code) in files.items()},
    }


@pytest.mark.parametrize("name", ["missing", "directory", "empty", "text", "truncated", "png", "jpeg", "playlist"])
def test_bad_input_ends_with_one_coded_line_and_leaves_nothing(
    name: str, start: Callable[..., Run], tmp_path: Path
) -> None:
    source, expected = bad_inputs(tmp_path)[name]
    run = start(source)
    code, out, err = run.end()
    assert (code, out) == (1, "")
    assert [line for line in err.splitlines() if line.startswith("error: ")] == err.splitlines()[-1:]
    assert err.splitlines()[-1].startswith(f"error: {expected}: ")
    assert "Traceback" not in err
    assert not run.out.exists()
    assert run.types()[-2:] == ["asset.failed", "asset.updated"]
    assert run.events()[-2]["data"]["error"]["code"] == expected


def test_a_wrong_call_is_exit_code_2(start: Callable[..., Run], tmp_path: Path) -> None:
    code, _, err = start(make_clip(tmp_path / "clip.mp4", seconds=1), "--resolutions", "999p").end()
    assert code == 2
    assert "999p" in err


@pytest.mark.slow
def test_a_worker_killed_in_mid_transcode_costs_one_attempt(start: Callable[..., Run], tmp_path: Path) -> None:
    run = start(a_long_encode(tmp_path), *HARD)
    begun = run.wait_for(
        lambda event: event["type"].endswith("step.started.v1") and event["data"]["stage"] == "transcode"
    )
    os.kill(worker_pid(begun), signal.SIGKILL)
    code, _, err = run.end()
    assert code == 0, err
    finished = [e["data"]["step"] for e in run.events() if e["type"].endswith("step.finished.v1")]
    assert len(finished) == len(set(finished))
    assert run.types().count("asset.ready") == 1
    assert run.types().count("step.retrying") == 1
    assert run.processes() == []


@pytest.mark.raises_code("worker_lost")
@pytest.mark.slow
def test_a_step_whose_worker_is_lost_three_times_fails(start: Callable[..., Run], tmp_path: Path) -> None:
    run = start(a_long_encode(tmp_path), *HARD)
    for attempt in (1, 2, 3):
        begun = run.wait_for(
            lambda event, attempt=attempt: (
                event["type"].endswith("step.started.v1")
                and event["data"]["stage"] == "transcode"
                and event["data"]["attempt"] == attempt
            )
        )
        os.kill(worker_pid(begun), signal.SIGKILL)
    code, _, err = run.end()
    assert code == 1
    assert err.splitlines()[-1].startswith("error: worker_lost: ")
    assert run.types().count("asset.failed") == 1
    assert not run.out.exists()
    assert run.processes() == []


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("asset.accepted", signal.SIGINT),
        ("step.started:ingest", signal.SIGINT),
        ("step.started:transcode", signal.SIGINT),
        ("step.started:transcode", signal.SIGTERM),
    ],
)
def test_an_interrupt_leaves_no_process_and_nothing_public(
    moment: str, number: signal.Signals, start: Callable[..., Run], tmp_path: Path
) -> None:
    run = start(a_long_encode(tmp_path), *HARD)
    type_, _, stage = moment.partition(":")
    run.wait_for(lambda event: event["type"].endswith(f"{type_}.v1") and stage in ("", event["data"].get("stage")))
    run.process.send_signal(number)
    code, _, err = run.end()
    assert code == 130, err
    assert "Traceback" not in err
    assert not run.out.exists()
    assert run.types()[-2:] == ["asset.cancelled", "asset.updated"]
    assert run.processes() == []


def test_a_command_killed_outright_leaves_no_process(start: Callable[..., Run], tmp_path: Path) -> None:
    run = start(a_long_encode(tmp_path), *HARD)
    run.wait_for(lambda event: event["type"].endswith("step.started.v1") and event["data"]["stage"] == "transcode")
    run.process.kill()
    run.process.communicate()
    deadline = time.monotonic() + 20
    while run.processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert run.processes() == []
    assert not list(run.out.glob("transcoded/*/video.m*"))


def worker_pid(event: dict[str, Any]) -> int:
    """The process of the worker that an event names: `<host>-<pid>-<nonce>`."""
    return int(event["data"]["worker"].split("-")[-2])


def test_a_command_that_fails_leaves_the_work_of_another_alone(start: Callable[..., Run], tmp_path: Path) -> None:
    """`for f in *; do reelway process "$f" & done`: the folder is new to both, and one of the files is bad."""
    shared = tmp_path / "assets"
    good = start(make_clip(tmp_path / "clip.mp4", seconds=2), "--resolutions", "240p", out=shared)
    good.wait_for(lambda event: event["type"].endswith("asset.accepted.v1"))
    (tmp_path / "bad.mp4").write_text("This is a text.\n")
    bad = start(tmp_path / "bad.mp4", out=shared)
    assert (bad.end()[0], good.end()[0]) == (1, 0)
    assert len(list(shared.glob("transcoded/*/video.m3u8"))) == 1
    assert len(list(shared.glob("private/*.mp4"))) == 1


def test_an_asset_id_that_is_taken_is_refused_and_nothing_changes(start: Callable[..., Run], tmp_path: Path) -> None:
    clip, shared = make_clip(tmp_path / "clip.mp4", seconds=1), tmp_path / "assets"
    options = ("--resolutions", "240p", "--asset-id", "Abcdefgh123")
    assert start(clip, *options, out=shared).end()[0] == 0
    before = {path: path.stat().st_mtime_ns for path in shared.rglob("*.*") if path.is_file()}
    code, _, err = start(make_clip(tmp_path / "other.avi", seconds=1), *options, out=shared).end()
    assert code == 2
    assert "asset_exists: There is an asset Abcdefgh123 already" in err
    assert {path: path.stat().st_mtime_ns for path in shared.rglob("*.*") if path.is_file()} == before


def test_settings_for_a_lasting_fleet_do_not_reach_the_private_one(start: Callable[..., Run], tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", seconds=1)
    assert start(clip, "--resolutions", "240p", REELWAY_STAGES="ingest", REELWAY_METRICS_PORT="1").end()[0] == 0


@pytest.mark.raises_code("workers_unavailable")
def test_workers_that_cannot_start_end_the_command(start: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "dramatiq.py").write_text("raise ImportError('not today')\n")
    run = start(make_clip(tmp_path / "clip.mp4", seconds=1), PYTHONPATH=str(tmp_path))
    code, _, err = run.end()
    assert code == 1
    assert err.splitlines()[-1].startswith("error: workers_unavailable: ")
    assert "not today" in err
    assert not run.out.exists()
    assert run.processes() == []
