"""What hostile media could do to a stage ends as a coded error; the worker and its scratch are unharmed."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import evil
import pytest
from builders import a_profile, a_request
from needs import Require

from pipeline import plan, stages
from pipeline.conductor import Attempt, Conductor
from pipeline.errors import PipelineError
from pipeline.held import BenchLimits
from pipeline.job import Status
from pipeline.memory import MemoryJobStore, MemoryProgress, SystemClock
from pipeline.sandbox import Child, ChildKilled, ChildLimits, Nursery
from pipeline.storage import open_storage
from pipeline.tasks import AudioRendition, AudioStream, AudioTask, Timeline, to_json
from pipeline.workbench import Workbench
from workers import doctor

SMALL = ChildLimits(memory_bytes=1024**3, file_bytes=8 * 1024**2)


@pytest.fixture
def nursery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nursery]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    nursery = Nursery(tmp_path)
    nursery.start()
    yield nursery
    nursery.close()


def a_task(source: str = "source") -> str:
    from fractions import Fraction

    stream = AudioStream(
        index=0, codec="aac", channels=2, layout="stereo", sample_rate=48000, start=Fraction(0), end=Fraction(1)
    )
    rendition = AudioRendition(track="audio-1-und", stream=stream, bitrate=128_000)
    timeline = Timeline(rate=Fraction(25), frames=25)
    return to_json(AudioTask(asset="asset000001", source=source, rendition=rendition, timeline=timeline))


def run(nursery: Nursery, tmp_path: Path, source: str = "source") -> None:
    """Run the (turned) audio stage to its end, and reap its child."""
    out = tmp_path / "out"
    out.mkdir()
    child = nursery.child()
    try:
        for _ in child.run("audio", a_task(source), {}, out, SMALL):
            pass
    finally:
        child.close()


@pytest.mark.parametrize(
    ("function", "code", "reason"),
    [
        ("crash", "stage_crashed", "SIGSEGV"),
        ("abort", "stage_crashed", "SIGABRT"),
        ("leave", "stage_crashed", "exit code 3"),
        ("misbehave", "stage_failed", "ValueError"),
    ],
)
def test_a_child_that_ends_badly_is_a_coded_error(
    function: str, code: str, reason: str, nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path
) -> None:
    turn("audio", function)
    with pytest.raises(PipelineError) as caught:
        run(nursery, tmp_path)
    assert (caught.value.code, caught.value.params["reason"]) == (code, reason)


@pytest.mark.raises_code("stage_out_of_memory")
def test_a_memory_bomb_is_out_of_memory(nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path) -> None:
    turn("audio", "bomb")
    with pytest.raises(PipelineError) as caught:
        run(nursery, tmp_path)
    assert caught.value.code == "stage_out_of_memory"
    assert caught.value.params["limit_bytes"] == SMALL.memory_bytes


@pytest.mark.parametrize("function", ["load_more", "swallow", "explain"])
def test_whatever_a_library_says_without_memory_is_out_of_memory(
    function: str, nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path
) -> None:
    turn("audio", function)
    with pytest.raises(PipelineError) as caught:
        run(nursery, tmp_path)
    assert caught.value.code == "stage_out_of_memory"


def test_what_libav_has_no_memory_for_is_damage_where_there_is_memory(
    nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path
) -> None:
    """It says so of sizes and counts that only a broken header asks for."""
    turn("audio", "doubt")
    with pytest.raises(PipelineError) as caught:
        run(nursery, tmp_path)
    assert caught.value.code == "media_url_file_broken"


def test_libav_writes_its_log_without_the_interpreter(
    nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path
) -> None:
    """Through PyAV, a decoder's thread would wait for the interpreter's lock, and whoever closes the decoder for it."""
    turn("audio", "complain")
    with pytest.raises(PipelineError) as caught:
        run(nursery, tmp_path)
    assert caught.value.params["detail"] == "None"
    assert "words of a decoder" in str(caught.value.log)


def test_a_log_without_an_end_begins_anew(nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path) -> None:
    turn("audio", "chatter")
    (tmp_path / "out").mkdir()
    child = nursery.child()
    sizes: list[int] = []
    messages = child.run("audio", a_task(), {}, tmp_path / "out", SMALL)
    with pytest.raises(PipelineError) as caught:
        sizes.extend(os.fstat(child._log.fileno()).st_size for _ in messages)
    child.close()
    assert caught.value.params["detail"] == "done"
    assert 0 < max(sizes) < 64 * 200_000 / 2
    assert "one more line of it" in str(caught.value.log)


def test_a_header_that_takes_for_ever_is_a_broken_file(
    nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path
) -> None:
    turn("audio", "linger")
    with pytest.raises(PipelineError) as caught:
        run(nursery, tmp_path)
    assert (caught.value.code, caught.value.retryable) == ("media_url_file_broken", False)


def test_a_limit_below_what_python_itself_takes_is_out_of_memory(nursery: Nursery, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    child = nursery.child()
    with pytest.raises(PipelineError) as caught:
        list(child.run("audio", a_task(), {}, tmp_path / "out", replace(SMALL, memory_bytes=1024**2)))
    child.close()
    assert caught.value.code == "stage_out_of_memory"


@pytest.mark.raises_code("stage_out_of_time")
def test_processor_time_without_an_end_is_out_of_time(
    nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path
) -> None:
    turn("audio", "spin")
    (tmp_path / "out").mkdir()
    child = nursery.child()
    with pytest.raises(PipelineError) as caught:
        list(child.run("audio", a_task(), {}, tmp_path / "out", replace(SMALL, cpu_s=1)))
    child.close()
    assert (caught.value.code, caught.value.retryable) == ("stage_out_of_time", False)
    assert caught.value.params["limit_s"] == 1


def test_a_child_reaches_nothing_but_its_inputs_and_outputs(
    nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path, require: Require
) -> None:
    child = nursery.child()
    child.hello()
    child.close()
    require(all(child.held.values()), f"this system holds only {child.held}")
    secret, source, out = tmp_path / "others" / "secret", tmp_path / "source.bin", tmp_path / "out"
    for folder in (secret.parent, out):
        folder.mkdir()
    secret.write_bytes(b"canary")
    source.write_bytes(b"anything")
    turn("audio", "try_everything")

    child = nursery.child()
    with pytest.raises(PipelineError) as caught:
        list(child.run("audio", a_task(str(secret)), {"source": source}, out, SMALL))
    child.close()

    assert caught.value.params.get("detail") == "nothing", caught.value.log
    assert (secret.read_bytes(), (out / "inside").read_bytes()) == (b"canary", b"what a stage makes")


_FILTERED = """
import ctypes, os, socket, sys, threading
from pipeline.stages.confinement import filter_calls, drop_rights

libc = ctypes.CDLL(None, use_errno=True)
socket.socket().close()
drop_rights(libc)
libc.prctl(38, 1, 0, 0, 0)
print(filter_calls(libc))
for reach in (socket.socket, socket.socketpair, os.fork):
    try:
        reach()
        print("reached")
    except PermissionError:
        print("refused")
thread = threading.Thread(target=print, args=("a thread runs",))
thread.start()
thread.join()
"""


def test_where_there_is_no_namespace_a_filter_keeps_the_network_away(require: Require) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FILTERED],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    held, *rest = done.stdout.splitlines()
    require(held == "True", "this system knows no seccomp")
    assert rest == ["refused", "refused", "refused", "a thread runs"]


def test_without_its_walls_a_process_reaches_much(tmp_path: Path) -> None:
    """Else the test above would test nothing."""
    secret = tmp_path / "others" / "secret"
    secret.parent.mkdir()
    secret.write_bytes(b"canary")

    names = ["read", "list", "passwords", "fork", "socket", "local socket", "signal", "create", "write", "remove"]

    assert [name for name in names if evil._reached(lambda name=name: evil._REACHES[name](secret))] == names


def test_an_endless_file_is_stopped_at_its_limit(
    nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path
) -> None:
    turn("audio", "flood")
    with pytest.raises(PipelineError):
        run(nursery, tmp_path)
    assert (tmp_path / "out" / "endless").stat().st_size <= SMALL.file_bytes


def test_a_child_knows_no_secret(nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path) -> None:
    turn("audio", "tell")
    with pytest.raises(PipelineError) as caught:
        run(nursery, tmp_path)
    assert "PATH" in str(caught.value.params["detail"])
    assert "AWS" not in str(caught.value.params["detail"])


_SPIED_ON = """
import ctypes, os
from pathlib import Path
from pipeline.sandbox import hide

def spy():
    if os.fork() == 0:
        for name in ("environ", "mem"):
            try:
                with Path(f"/proc/{os.getppid()}/{name}").open("rb") as file:
                    found = name == "mem" or b"canary" in file.read()
            except PermissionError:
                found = False
            print(name, found, flush=True)
        os._exit(0)
    os.wait()

if os.geteuid() == 0:  # root may read everything
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
ctypes.CDLL(None).prctl(4, 1)  # as it is where nobody has changed the user
spy()
hide()
spy()
"""


def test_a_child_cannot_read_the_secrets_of_its_worker(nursery: Nursery, require: Require) -> None:
    """Neither its environment nor its memory, though both run as the same user."""
    require(sys.platform.startswith("linux"), "only Linux shows processes as files")
    done = subprocess.run(
        [sys.executable, "-c", _SPIED_ON],
        env={"AWS_SECRET_ACCESS_KEY": "canary", "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    before, after = done.stdout.splitlines()[:2], done.stdout.splitlines()[2:]
    assert before[0] == "environ True", "else this test would test nothing"
    assert after == ["environ False", "mem False"]
    assert ctypes.CDLL(None).prctl(3) == 0, "whoever has started a nursery hides"


def test_the_doctor_says_what_holds(require: Require) -> None:
    found = doctor._sandbox()
    require(found.state == "ok", f"this system holds less: {found.detail}")
    assert found.detail == "stage processes have no network, start no programs, open only the files of their step"


def test_a_child_has_no_network(
    nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path, require: Require
) -> None:
    child = nursery.child()
    network = child.hello()
    child.close()
    require(network == "none", "this system lets nobody leave the network")
    turn("audio", "call_home")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        with pytest.raises(PipelineError):
            run(nursery, tmp_path, source=str(listener.getsockname()[1]))
        with pytest.raises(TimeoutError):
            listener.accept()


def test_the_nursery_lives_on_after_a_crash(nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path) -> None:
    turn("audio", "crash")
    with pytest.raises(PipelineError):
        run(nursery, tmp_path)
    child = nursery.child()
    assert child.hello() in ("none", "open")
    child.close()


def test_a_nursery_that_was_killed_is_replaced(nursery: Nursery) -> None:
    first = nursery.child()
    first.hello()
    os.kill(os.getpgid(nursery_pid(first)), signal.SIGKILL)
    second = nursery.child()
    assert second.hello() in ("none", "open")
    first.close()
    second.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_only_its_worker_ends_a_nursery_and_its_children(number: signal.Signals, nursery: Nursery) -> None:
    """Who ends a worker may send the signal to everything that belongs to it: it still has its grace time."""
    child = nursery.child()
    child.hello()
    mother = nursery_pid(child)
    for pid in (child.pid, mother):
        os.kill(pid, number)

    later = nursery.child()
    later.hello()

    assert (nursery_pid(later), nursery_pid(child)) == (mother, mother)
    assert Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    child.close()
    later.close()


def test_a_nursery_that_stands_still_is_replaced(nursery: Nursery) -> None:
    first = nursery.child()
    first.hello()
    still = nursery_pid(first)
    stand_still(nursery, still)

    second = nursery.child()
    second.hello()

    assert nursery_pid(second) != still
    first.close()
    second.close()


def test_a_nursery_that_answers_too_late_is_not_heard_any_more(nursery: Nursery) -> None:
    child = nursery.child()
    child.hello()
    still = nursery_pid(child)
    stand_still(nursery, still)
    child.close()
    with suppress(ProcessLookupError):
        os.kill(still, signal.SIGCONT)

    later = nursery.child()

    assert later.hello() in ("none", "open")
    later.close()


def stand_still(nursery: Nursery, pid: int) -> None:
    """Its nursery says nothing any more, and it need not be waited for so long."""
    assert nursery._control is not None
    assert nursery._control.gettimeout(), "it would be waited for without an end"
    nursery._control.settimeout(0.2)
    os.kill(pid, signal.SIGSTOP)


@pytest.mark.raises_code("stage_failed")
def test_a_child_that_ends_no_message_is_ended(
    nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.sandbox._LONGEST_MESSAGE", 1 << 20)
    turn("audio", "babble")

    with pytest.raises(PipelineError) as caught:
        run(nursery, tmp_path)

    assert (caught.value.code, caught.value.params["reason"]) == ("stage_failed", "a message without end")


@pytest.mark.raises_code("stage_interrupted")
def test_a_child_that_goes_with_its_nursery_was_interrupted(
    nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path
) -> None:
    """Not out of memory: it is worth another try."""
    turn("audio", "hang")
    (tmp_path / "out").mkdir()
    child = nursery.child()
    messages = child.run("audio", a_task(), {}, tmp_path / "out", SMALL)
    while "done" not in next(messages):
        pass
    os.kill(nursery_pid(child), signal.SIGKILL)
    with pytest.raises(PipelineError) as caught:
        list(messages)
    child.close()
    assert (caught.value.code, caught.value.retryable) == ("stage_interrupted", True)


def test_a_new_nursery_is_not_asked_for_children_of_the_old_one(
    nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path
) -> None:
    turn("audio", "hang")
    old = nursery.child()
    old.hello()
    os.kill(nursery_pid(old), signal.SIGKILL)
    new = nursery.child()
    new.hello()
    mother = nursery_pid(new)

    old.close()

    assert Path(f"/proc/{new.pid}").exists()
    new.close()
    newest = nursery.child()
    newest.hello()
    assert nursery_pid(newest) == mother
    newest.close()


def nursery_pid(child: Child) -> int:
    """The parent of a child, which is the nursery."""
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])


# -- on the workbench --------------------------------------------------------------------------------------------------


class Bench:
    """A workbench on memory and a folder, with one job whose ingest step has begun."""

    def __init__(self, nursery: Nursery, root: Path, **limits: object) -> None:
        source = root / "clip.mp4"
        source.write_bytes(b"anything")
        clock = SystemClock()
        self.store = MemoryJobStore(clock)
        self.conductor = Conductor(self.store, clock, plan, {"default": a_profile()})
        storage = open_storage((root / "storage").as_uri())
        bench_limits = BenchLimits(child=SMALL, local_sources=True, **limits)  # type: ignore[arg-type]
        self.bench = Workbench(self.conductor, storage, MemoryProgress(), clock, nursery, limits=bench_limits)
        self.job = self.conductor.accept(a_request(url=str(source)))
        (ref,) = self.store.take({"ingest": 1})
        attempt = self.conductor.begin(ref, "worker-1")
        assert attempt is not None
        self.attempt: Attempt = attempt

    def status(self) -> Status:
        job = self.store.job(self.job.id)
        assert job is not None
        return job.steps["ingest"].status

    def error(self) -> str | None:
        job = self.store.job(self.job.id)
        assert job is not None
        return str((job.steps["ingest"].error or {}).get("code"))


def left_in(scratch: Path) -> list[str]:
    return [path.name for path in scratch.iterdir() if path.name.startswith(("step-", "child-"))]


@pytest.mark.raises_code("stage_crashed")
def test_a_crash_fails_the_step_and_leaves_no_scratch(
    nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path
) -> None:
    turn("ingest", "crash")
    bench = Bench(nursery, tmp_path)
    assert bench.bench.run(bench.attempt) == "stage_crashed"
    assert (bench.status(), bench.error()) == (Status.FAILED, "stage_crashed")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("function", ["break_out", "link_out"])
def test_an_output_outside_of_its_folder_is_refused_and_left_alone(
    function: str, nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path
) -> None:
    turn("ingest", function)
    bench = Bench(nursery, tmp_path)
    assert bench.bench.run(bench.attempt) == "stage_failed"
    assert (tmp_path / "clip.mp4").read_bytes() == b"anything"
    assert Path("/etc/hostname").exists()
    assert not list((tmp_path / "storage").rglob("media.json"))


@pytest.mark.raises_code("stalled")
def test_a_hang_is_stalled_and_tried_again(
    nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn("ingest", "hang")
    monkeypatch.setitem(stages.STAGES, "ingest", replace(stages.STAGES["ingest"], stall_s=0.1))  # type: ignore[arg-type]
    monkeypatch.setattr("pipeline.watch.LEASE_S", 0.3)
    bench = Bench(nursery, tmp_path)
    assert bench.bench.run(bench.attempt) == "stalled"
    assert (bench.status(), bench.error()) == (Status.RETRYING, "stalled")
    assert left_in(tmp_path) == []


@pytest.mark.raises_code("timed_out")
def test_work_without_an_end_is_timed_out(
    nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn("ingest", "busy")
    monkeypatch.setattr("pipeline.watch.LEASE_S", 0.3)
    bench = Bench(nursery, tmp_path, wall_s=0.5)
    assert bench.bench.run(bench.attempt) == "timed_out"
    assert (bench.status(), bench.error()) == (Status.FAILED, "timed_out")


@pytest.mark.parametrize("function", ["hang", "busy", "children"])
def test_a_cancelled_job_ends_its_child_at_once(
    function: str, nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path
) -> None:
    turn("ingest", function)
    bench = Bench(nursery, tmp_path)
    outcome: list[str] = []
    thread = threading.Thread(target=lambda: outcome.append(bench.bench.run(bench.attempt)))
    thread.start()
    assert bench.conductor.cancel(bench.job.id)
    bench.bench.stop_job(bench.job.id)
    thread.join(timeout=30)
    while not outcome and thread.is_alive():
        bench.bench.stop_job(bench.job.id)
        thread.join(timeout=0.1)
    assert outcome == ["lost"]
    assert left_in(tmp_path) == []


def test_a_drain_hands_the_step_back_unharmed(
    nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path
) -> None:
    turn("ingest", "busy")
    bench = Bench(nursery, tmp_path)
    outcome: list[str] = []
    thread = threading.Thread(target=lambda: outcome.append(bench.bench.run(bench.attempt)))
    thread.start()
    while not outcome:
        bench.bench.hand_back_all()
        thread.join(timeout=0.05)
    job = bench.store.job(bench.job.id)
    assert job is not None
    assert (outcome, job.steps["ingest"].status) == (["handed_back"], Status.READY)
    assert (job.steps["ingest"].losses, job.steps["ingest"].retries) == (0, 0)


def test_a_step_that_begins_while_everything_is_handed_back_goes_back_as_well(nursery: Nursery, tmp_path: Path) -> None:
    bench = Bench(nursery, tmp_path)

    bench.bench.hand_back_all()

    assert bench.bench.run(bench.attempt) == "handed_back"
    assert bench.status() == Status.READY


def test_killing_a_child_twice_is_fine(nursery: Nursery, turn: Callable[[str, str], None], tmp_path: Path) -> None:
    turn("audio", "hang")
    child = nursery.child()
    (tmp_path / "out").mkdir()
    messages = child.run("audio", a_task(), {}, tmp_path / "out", SMALL)
    while "done" not in next(messages):
        pass
    child.kill()
    child.kill()
    with pytest.raises(ChildKilled):
        list(messages)
    child.close()
