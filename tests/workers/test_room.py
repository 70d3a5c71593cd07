"""Admission: what a step needs, what the machine has, and what becomes of a step that does not fit."""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import structlog
from builders import a_blueprint, a_media, a_profile, a_video
from redis_server import RedisServer

from pipeline.errors import PipelineError
from pipeline.job import Job, Ref, Step
from pipeline.tasks import Rung, SpeechModel, Timeline
from workers import promises as promised
from workers.machine import Machine
from workers.needs import MB, Need, need
from workers.promises import Promises
from workers.registry import Registry, WorkerRecord
from workers.room import LONG_WAIT_S, WAIT_S, Reserve, Room

GB = 1000 * MB
LADDER = {"1080p": (1920, 1080), "720p": (1280, 720), "480p": (854, 480), "360p": (640, 360), "240p": (426, 240)}
Usage = namedtuple("Usage", "total used free")


def rungs(*names: str) -> tuple[Rung, ...]:
    sizes = {name: LADDER[name] for name in names or LADDER}
    return tuple(
        Rung(name=name, width=width, height=height, crf=23, maxrate=2 * MB, bufsize=4 * MB, preset="veryfast")
        for name, (width, height) in sizes.items()
    )


def a_job(*, seconds: int = 600, width: int = 1920, height: int = 1080, encoder: str = "ours") -> Job:
    media = a_media(video=a_video(width=width, height=height))
    timeline = Timeline(rate=Fraction(25), frames=25 * seconds)
    drawn = a_blueprint(media=media, timeline=timeline, rungs=rungs(), encoder=encoder)
    return Job(id="job", asset="asset000001", blueprint=drawn)


def a_step(stage: str = "transcode", id_: str = "step", **args: Any) -> Step:
    return Step(id=id_, stage=stage, args=args or {"first": 0, "last": 4, "rungs": list(LADDER)})


def needed(job: Job, step: Step, model: str = "tiny.en", compute_type: str = "int8") -> Need:
    return need(job, step, SpeechModel(name=model, compute_type=compute_type))


# -- what a step needs ------------------------------------------------------------------------------------------------


def test_a_1080p_step_of_five_rungs_needs_some_400_mb_and_the_length_changes_nothing() -> None:
    short, long = (needed(a_job(seconds=seconds), a_step()) for seconds in (60, 3600))

    assert 400 * MB <= short.memory <= 500 * MB
    assert short == long


def test_more_pixels_need_more_and_fewer_rungs_less() -> None:
    large = needed(a_job(width=3840, height=2160), a_step())
    usual = needed(a_job(), a_step())
    one = needed(a_job(), a_step(first=0, last=4, rungs=["240p"]))

    assert large.memory > usual.memory > one.memory
    assert usual.scratch > one.scratch


def test_a_step_of_the_whole_film_keeps_five_minutes_of_it_here_at_most() -> None:
    whole = needed(a_job(seconds=36_000), a_step(first=0, last=9000, rungs=list(LADDER)))

    assert whole.scratch < 600 * MB, "ten hours at 10 Mbit/s would be 45 GB"


def test_a_larger_speech_model_needs_more() -> None:
    tiny, large, exact = (
        needed(a_job(), a_step("subtitle"), model, kind).memory
        for model, kind in (("tiny.en", "int8"), ("large-v3", "int8"), ("large-v3", "float32"))
    )

    assert tiny < GB < large < exact


def test_a_model_that_is_a_folder_needs_what_lies_in_it(tmp_path: Path) -> None:
    with (tmp_path / "model.bin").open("wb") as file:
        file.truncate(3 * GB)

    assert needed(a_job(), a_step("subtitle"), str(tmp_path)).memory > 3 * GB


def ready(kind: str, seconds: int = 600) -> Job:
    """Asked of an asset that is there: of its rungs the job has drawn only some."""
    job = a_job(seconds=seconds)
    assert job.blueprint is not None
    few = replace(job.blueprint, rungs=rungs("240p"))
    return replace(job, kind=kind, profile=a_profile().model_dump(mode="json"), blueprint=few)


def test_a_trim_needs_a_whole_ladder_and_little_scratch_however_long_the_film_is() -> None:
    short, long = (needed(ready("trim", seconds), Step(id="trim", stage="trim")) for seconds in (60, 36_000))

    assert short == long
    assert short.memory > needed(a_job(), a_step()).memory
    assert short.scratch < 200 * MB


def test_whoever_packages_what_is_played_in_part_needs_as_much_as_a_trim() -> None:
    trim = needed(ready("trim"), Step(id="trim", stage="trim"))

    assert needed(ready("reprocess"), Step(id="package", stage="package")) == trim
    assert needed(ready("process"), Step(id="package", stage="package", args={"start": "0"})) == trim
    revert = needed(ready("revert_trim"), Step(id="package", stage="package", args={"change": "revert"}))
    assert revert.memory < trim.memory


def test_an_export_lies_in_scratch_as_a_whole() -> None:
    film, hour = (
        needed(ready("export", seconds), Step(id="export", stage="export", args={"rung": "720p", "audio": []}))
        for seconds in (7200, 3600)
    )

    assert film.memory == hour.memory < 200 * MB
    assert 7200 * MB / 8 < film.scratch < 1.2 * 7200 * MB / 8, "two hours at 1 Mbit/s"


@pytest.mark.parametrize("stage", ["ingest", "package", "audio", "transcode", "subtitle", "trim", "export"])
def test_every_step_needs_something_also_before_anything_is_known(stage: str) -> None:
    bare = replace(a_job(), blueprint=None)

    assert needed(bare, Step(id="step", stage=stage)).memory > 0


# -- what the machine has ---------------------------------------------------------------------------------------------


def a_machine(
    folder: Path, *, total: int = 8 * GB, available: int = 4 * GB, groups: Mapping[str, Mapping[str, str]] | None = None
) -> Machine:
    proc, cgroups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True, exist_ok=True)
    (proc / "meminfo").write_text(f"MemTotal: {total // 1024} kB\nMemAvailable: {available // 1024} kB\n")
    (proc / "self" / "cgroup").write_text("4:memory:/old\n0::/pod/worker\n")
    for name, files in (groups or {}).items():
        (cgroups / name).mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (cgroups / name / file).write_text(text)
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    return Machine(scratch=scratch, proc=proc, cgroups=cgroups)


def a_group(limit: str, used: int = 0, cached: int = 0) -> dict[str, str]:
    return {"memory.max": limit, "memory.current": str(used), "memory.stat": f"anon 1\ninactive_file {cached}\n"}


def test_without_a_limit_the_kernels_own_figure_counts(tmp_path: Path) -> None:
    memory = a_machine(tmp_path, groups={"pod/worker": a_group("max")}).memory()

    assert memory is not None
    assert round(memory.free / GB, 3) == 4
    assert round(memory.total / GB, 3) == 8


def test_the_narrowest_group_counts_and_cached_files_give_way(tmp_path: Path) -> None:
    groups = {"pod": a_group(str(GB), used=900 * MB, cached=300 * MB), "pod/worker": a_group("max")}
    memory = a_machine(tmp_path, groups=groups).memory()

    assert memory is not None
    assert (memory.total, memory.free) == (GB, 400 * MB)


def test_this_machine_tells_something() -> None:
    memory = Machine(scratch=Path("/")).memory()

    assert memory is None or 0 < memory.free <= memory.total
    assert Machine(scratch=Path("/")).disk().total > 0


def test_a_system_that_does_not_tell_is_not_judged(tmp_path: Path) -> None:
    assert Machine(scratch=tmp_path, proc=tmp_path / "none", cgroups=tmp_path / "none").memory() is None


# -- what may begin ---------------------------------------------------------------------------------------------------


class World:
    """A machine with a room; `say` is what its encoder calls itself."""

    def __init__(self, folder: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.registry = Registry(server.client())
        self.disk = Usage(total=500 * GB, used=0, free=100 * GB)
        self.say = "ours"
        monkeypatch.setattr("shutil.disk_usage", lambda _path: self.disk)

    def room(self, name: str = "a", *, available: int = 4 * GB, total: int = 8 * GB, patience_s: float = 600) -> Room:
        own = self.folder / f"reelway-{name}"
        own.mkdir(exist_ok=True)
        return Room(
            a_machine(self.folder, available=available, total=total),
            Promises(own),
            self.registry,
            build=lambda: self.say,
            reserve=Reserve(memory=256 * MB, scratch=512 * MB),
            speech=SpeechModel(),
            encoder_patience_s=patience_s,
        )


@pytest.fixture
def world(tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, redis_server, monkeypatch)


def test_what_fits_begins(world: World) -> None:
    room = world.room()

    assert room.fits(a_job(), a_step()) is None
    assert room.refused == {}


def test_a_sibling_that_stands_still_lets_nobody_wait_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promised, "PATIENCE_S", 0.1)
    stopped, room = world.room("stopped"), world.room()

    with stopped.promises.alone():
        assert room.fits(a_job(), a_step()) == WAIT_S

    assert "holds the promises" in room.refused["job/step"]
    assert room.fits(a_job(), a_step()) is None


def test_another_user_on_the_same_scratch_disk_is_no_obstacle(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = world.room("theirs")
    monkeypatch.setattr("os.getuid", lambda: 12345)
    ours = world.room()

    with theirs.promises.alone():
        assert ours.fits(a_job(), a_step()) is None


def test_too_little_memory_makes_it_wait(world: World) -> None:
    room = world.room(available=500 * MB)

    assert room.fits(a_job(), a_step()) == WAIT_S
    assert room.refused["job/step"].startswith("memory: ")


def test_too_little_disk_makes_it_wait(world: World) -> None:
    world.disk = Usage(total=500 * GB, used=0, free=512 * MB)
    room = world.room()

    assert room.fits(a_job(), a_step()) == WAIT_S
    assert room.refused["job/step"].startswith("scratch disk: ")


def test_what_no_machine_can_hold_waits_longer_and_is_said_every_time(world: World) -> None:
    room = world.room(total=600 * MB, available=600 * MB)
    world.registry.beat(replace(somebody_with("ours"), name="other", memory_bytes=300 * MB))

    with structlog.testing.capture_logs() as said:
        assert room.fits(a_job(), a_step()) == LONG_WAIT_S
        assert room.fits(a_job(), a_step()) == LONG_WAIT_S
    assert [line["action"] for line in said] == ["step.too_large"] * 2
    assert {line["log_level"] for line in said} == {"warning"}
    assert "the machine has" in room.refused["job/step"]


@pytest.mark.parametrize("given", [GB, None])
def test_what_a_larger_machine_can_hold_soon_goes_there(world: World, given: int | None) -> None:
    room = world.room(total=600 * MB, available=600 * MB)
    world.registry.beat(replace(somebody_with("ours"), name="other", memory_bytes=given))

    assert room.fits(a_job(), a_step()) == WAIT_S


def test_a_machine_knows_what_it_can_give_at_most(world: World) -> None:
    most = world.room(total=8 * GB).most

    assert most is not None
    assert round(most.memory / GB, 1) == 7.7
    assert most.scratch == 500 * GB - 512 * MB


def test_what_was_promised_counts_until_it_is_taken_or_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    room = world.room(available=GB)
    first, second = a_step(id_="first"), a_step(id_="second")

    assert room.fits(a_job(), first) is None
    assert room.fits(a_job(), second) == WAIT_S
    room.leave(Ref(job="job", step="first"))
    assert room.fits(a_job(), second) is None
    monkeypatch.setattr(promised, "GROWN_S", 0.0)
    assert room.fits(a_job(), first) is None, "by now the kernel counts what the second took"


def test_processes_of_one_machine_know_of_each_other(world: World) -> None:
    """What becomes ready is offered to all of them in the same moment, and each sees the same free gigabyte."""
    one, other = world.room("a", available=GB), world.room("b", available=GB)

    assert one.fits(a_job(), a_step(id_="first")) is None
    assert other.fits(a_job(), a_step(id_="second")) == WAIT_S
    one.leave(Ref(job="job", step="first"))
    assert other.fits(a_job(), a_step(id_="second")) is None


def test_asking_twice_promises_once(world: World) -> None:
    """A begin whose commit meets another one decides again."""
    room = world.room(available=GB)

    assert room.fits(a_job(), a_step()) is None
    assert room.fits(a_job(), a_step()) is None


def test_what_a_process_that_dies_now_wrote_harms_nobody(world: World) -> None:
    room = world.room()
    broken = world.folder / "reelway-dying"
    broken.mkdir()
    (broken / promised.FILE).write_text(json.dumps([{}])[:-1])

    assert room.fits(a_job(), a_step()) is None


def test_a_scratch_disk_that_takes_nothing_makes_it_wait(world: World) -> None:
    room = world.room()
    (world.folder / "reelway-a").rmdir()

    assert room.fits(a_job(), a_step()) == WAIT_S
    assert room.refused["job/step"].startswith("scratch disk: ")


# -- another build of the encoder -------------------------------------------------------------------------------------


def somebody_with(build: str) -> WorkerRecord:
    return WorkerRecord(name=build, host="there", pid=1, stages=("transcode",), slots=1, build=build)


@pytest.mark.parametrize("stage", ["transcode", "audio"])
def test_another_build_leaves_the_encoding_to_those_who_have_it(world: World, stage: str) -> None:
    world.registry.beat(somebody_with("theirs"))
    room = world.room()

    assert room.fits(a_job(encoder="theirs"), a_step(stage)) == WAIT_S
    assert "theirs" in room.refused["job/step"]


@pytest.mark.parametrize(("stage", "ours"), [("package", "ours"), ("subtitle", "ours"), ("transcode", "")])
def test_what_does_not_depend_on_the_encoder_is_done(world: World, stage: str, ours: str) -> None:
    world.say = ours

    assert world.room().fits(a_job(encoder="theirs"), a_step(stage)) is None


@pytest.mark.raises_code("encoder_unavailable")
def test_a_build_that_is_gone_for_good_fails_the_step(world: World) -> None:
    """Nobody will ever finish what it began; the asset has to be made again."""
    room = world.room(patience_s=-1)

    with pytest.raises(PipelineError) as raised:
        room.fits(a_job(encoder="theirs"), a_step())

    assert raised.value.code == "encoder_unavailable"
    assert not raised.value.retryable
    assert "reelway retry" in raised.value.hint
