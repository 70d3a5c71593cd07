"""Publishing keeps its law whoever races and whoever dies: the doors always lead to a whole version."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import presentations
import pytest
from presentations import ASSET, NTSC, audio_track, text_track, video_track
from storages import Interrupted

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.ports import Moved, ObjectNotFound, PreconditionFailed, Storage, StoredObject
from pipeline.presentation.compose import compose
from pipeline.presentation.hls import render_playlists
from pipeline.presentation.model import Edit, Effect, Presentation, marked_version
from pipeline.presentation.publish import NoLongerOurs, latest, mend, publish, render_doors
from pipeline.storage.folder import FolderStorage
from pipeline.tasks import from_json

DOORS = (keys.hls_door(ASSET), keys.dash_door(ASSET))


@pytest.fixture(scope="module", autouse=True)
def no_power_cut() -> Iterator[None]:
    """Nothing here is about the disk, and some thousand versions are written to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "root")


def effect(number: int) -> Effect:
    return Effect(job="job", step=f"audio-{number}")


def add_sound(number: int) -> Callable[[Presentation | None], Presentation]:
    """The composer of a step that brings one more sound, and a picture of its own making in place of the last one."""

    def composer(previous: Presentation | None) -> Presentation:
        sound = audio_track(f"audio-{number}-en", name=f"Sound {number}", default=False)
        return compose(
            previous,
            asset=ASSET,
            tracks=(video_track(recipe=f"{number:06x}"), sound),
            effect=effect(number),
            duration=NTSC.duration,
        )

    return composer


def publish_sound(storage: Storage, number: int) -> Presentation:
    return publish(storage, ASSET, effect(number), add_sound(number))


# -- what must hold at every moment -----------------------------------------------------------------------------------


def door_version(storage: Storage, key: str) -> int:
    try:
        return marked_version(storage.get(key).decode())
    except ObjectNotFound:
        return 0


def assert_doors_lead_to_whole_versions(storage: Storage) -> None:
    """What a door says, and every playlist that it leads to, is what the JSON of its version says."""
    for door in DOORS:
        text = storage.get(door).decode() if storage.stat(door) else ""
        if version := marked_version(text):
            stored = from_json(Presentation, storage.get(f"{keys.version(ASSET, version)}presentation.json"))
            assert text == render_doors(stored)[door]
            assert door == DOORS[1] or linked(text) == set(render_playlists(stored))
            for key, playlist in render_playlists(stored).items():
                assert storage.get(key).decode() == playlist, "a mix of two versions"


def linked(master: str) -> set[str]:
    """The storage keys of the playlists that a master names."""
    uris = re.findall(r'URI="([^"]+)"', master) + [line for line in master.splitlines() if not line.startswith("#")]
    return {keys.public(ASSET) + uri for uri in uris}


def assert_settled(storage: Storage, effects: set[int], *others: str) -> None:
    """Everything that was asked for is public, once, and the doors lead to it. `others`: what brought no sound."""
    assert_doors_lead_to_whole_versions(storage)
    last = latest(storage, ASSET)
    assert last is not None
    assert sorted(each.step for each in last.effects) == sorted([*(effect(each).step for each in effects), *others])
    assert {track.id for track in last.audio} == {f"audio-{number}-en" for number in effects}
    assert [door_version(storage, door) for door in DOORS] == [last.version, last.version]


# -- the plain way ----------------------------------------------------------------------------------------------------


def test_nothing_is_published_at_first(storage: Storage) -> None:
    assert latest(storage, ASSET) is None
    assert mend(storage, ASSET) is None
    assert list(storage.list("")) == []


def test_versions_follow_each_other(storage: Storage) -> None:
    first = publish_sound(storage, 1)
    second = publish_sound(storage, 2)

    assert (first.version, second.version) == (1, 2)
    assert latest(storage, ASSET) == second
    assert_settled(storage, {1, 2})


def test_the_first_version_stays_as_it_was(storage: Storage) -> None:
    """A player that is in the middle of it plays on."""
    publish_sound(storage, 1)
    before = {each.key: storage.get(each.key) for each in storage.list(keys.version(ASSET, 1))}

    publish_sound(storage, 2)

    assert {key: storage.get(key) for key in before} == before


def publish_captions(storage: Storage, text: bytes, name: str = "captions") -> Presentation:
    made = Effect(job="job", step=name)
    track = text_track(size=len(text))
    storage.put(track.segments[0].key, text)
    return publish(
        storage,
        ASSET,
        made,
        lambda last: compose(last, asset=ASSET, tracks=(track,), effect=made, duration=NTSC.duration),
    )


def test_every_version_has_its_own_captions(storage: Storage) -> None:
    """So that nobody who plays one version reads the words of another."""
    publish_sound(storage, 1)
    first = publish_captions(storage, b"WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nHello\n")
    second = publish_captions(storage, b"WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nGood bye\n", "correction")
    third = publish_sound(storage, 2)

    shown = [storage.get(version.captions(version.text[0])) for version in (first, second, third)]
    assert [text.split(b"\n")[3] for text in shown] == [b"Hello", b"Good bye", b"Good bye"]
    assert_doors_lead_to_whole_versions(storage)


def test_two_versions_that_differ_only_in_what_captions_say_lie_apart(storage: Storage) -> None:
    """Racers compose the same number; the loser must not take the winner's words for its own."""
    publish_sound(storage, 1)
    first = publish_captions(storage, b"WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nHello\n")
    storage.delete(keys.version(ASSET, 2))
    for door in DOORS:
        storage.delete(door)

    other = publish_captions(storage, b"WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nHollo\n")

    assert (first.version, other.version) == (2, 2)
    assert first.folder != other.folder


def change_range(storage: Storage, edit: Edit | None, name: str) -> Presentation:
    made = Effect(job="job", step=name)
    return publish(
        storage,
        ASSET,
        made,
        lambda last: compose(last, asset=ASSET, effect=made, duration=NTSC.duration, edit=edit),
    )


def test_captions_of_a_trimmed_version_are_cut_and_come_back_with_a_revert(storage: Storage) -> None:
    stored = b"WEBVTT\n\n00:00:02.002 --> 00:00:04.000\nHello\n\n00:00:09.500 --> 00:00:10.000\nGood bye\n"
    publish_sound(storage, 1)
    whole = publish_captions(storage, stored)

    trimmed = change_range(storage, presentations.edit(whole, 90, 262), "trim")
    reverted = change_range(storage, None, "revert")

    shown = [storage.get(version.captions(version.text[0])) for version in (whole, trimmed, reverted)]
    assert shown[0] == shown[2] == stored
    assert shown[1] == (
        b"WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:270270\n\n00:00:00.000 --> 00:00:00.997\nHello\n"
    )
    assert storage.get(whole.text[0].segments[0].key) == stored
    assert_settled(storage, {1}, "captions", "trim", "revert")


def test_an_effect_is_published_once(storage: Storage) -> None:
    first = publish_sound(storage, 1)

    assert publish_sound(storage, 1) == first
    assert_settled(storage, {1})


def test_a_later_attempt_is_told_the_version_that_brought_its_effect(storage: Storage) -> None:
    """Whatever came on top of it meanwhile."""
    versions = [publish_sound(storage, number) for number in (1, 2, 3, 4)]

    assert [publish_sound(storage, number) for number in (1, 2, 3, 4)] == versions
    assert_settled(storage, {1, 2, 3, 4})


def test_more_versions_than_four_digits(storage: Storage) -> None:
    publish_sound(storage, 1)
    body = json.loads(storage.get(f"{keys.version(ASSET, 1)}presentation.json"))
    storage.put(f"{keys.version(ASSET, 10_000)}presentation.json", json.dumps(body | {"version": 10_000}).encode())
    storage.put(f"{keys.version(ASSET, 9_999)}presentation.json", json.dumps(body | {"version": 9_999}).encode())
    for door in DOORS:
        storage.put(door, storage.get(door).replace(b"presentation 1", b"presentation 9999"))

    assert publish_sound(storage, 2).version == 10_001
    assert_settled(storage, {1, 2})


@pytest.mark.raises_code("schema_newer")
def test_a_newer_form_is_left_to_a_newer_worker(storage: Storage) -> None:
    publish_sound(storage, 1)
    key = f"{keys.version(ASSET, 2)}presentation.json"
    storage.put(key, json.dumps({"schema": 99, "reels": []}).encode())

    with pytest.raises(PipelineError) as caught:
        publish_sound(storage, 2)

    assert (caught.value.code, caught.value.retryable) == ("schema_newer", True)


def test_doors_that_lag_behind_are_mended_and_others_left_alone(storage: Storage) -> None:
    publish_sound(storage, 1)
    old = [storage.get(door) for door in DOORS]
    publish_sound(storage, 2)
    right = [storage.get(door) for door in DOORS]
    storage.put(DOORS[0], old[0])
    storage.delete(DOORS[1])

    mend(storage, ASSET)
    assert [storage.get(door) for door in DOORS] == right

    higher = right[0].replace(b"presentation 2", b"presentation 3")
    storage.put(DOORS[0], higher)
    mend(storage, ASSET)
    assert storage.get(DOORS[0]) == higher


# -- races ------------------------------------------------------------------------------------------------------------


def test_eight_publishers_at_once_lose_nothing_and_a_reader_sees_whole_versions(storage: Storage) -> None:
    start, stop = threading.Barrier(9), threading.Event()

    def run(number: int) -> Presentation:
        start.wait()
        return publish_sound(storage, number)

    def read() -> list[tuple[int, int]]:
        start.wait()
        seen = []
        while not stop.is_set():
            seen.append((door_version(storage, DOORS[0]), door_version(storage, DOORS[1])))
            assert_doors_lead_to_whole_versions(storage)
        return seen

    with ThreadPoolExecutor(9) as pool:
        reader = pool.submit(read)
        publishers = [pool.submit(run, number) for number in range(1, 9)]
        try:
            versions = {publisher.result().version for publisher in publishers}
        finally:
            stop.set()
        seen = reader.result()

    assert versions == set(range(1, 9))
    for door in zip(*seen, strict=True):
        assert list(door) == sorted(door), "a door went back"
    assert_settled(storage, set(range(1, 9)))


def test_losers_leave_no_files_behind(storage: Storage) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: publish_sound(storage, number), range(1, 9)))

    for version in range(1, 9):
        names = {
            each.key.removeprefix(keys.version(ASSET, version)) for each in storage.list(keys.version(ASSET, version))
        }
        assert len({name.partition("/")[0] for name in names}) == 2, names


def _operations(tmp_path: Path) -> int:
    """How many storage operations it takes to publish on top of a version."""
    inner = FolderStorage(tmp_path / "count")
    publish_sound(inner, 1)
    counted = Interrupted(inner)
    publish_sound(counted, 2)
    return counted.count


@pytest.mark.parametrize("others", [1, 2])
def test_another_publication_between_any_two_operations_is_built_upon(tmp_path: Path, others: int) -> None:
    operations = _operations(tmp_path)
    assert operations > 10
    for moment in range(1, operations + 1):
        inner = FolderStorage(tmp_path / str(moment))
        publish_sound(inner, 1)

        def interlope(count: int, *_: str, inner: Storage = inner, moment: int = moment) -> None:
            if count == moment:
                for other in range(others):
                    publish_sound(inner, 10 + other)
            assert_doors_lead_to_whole_versions(inner)

        publish_sound(Interrupted(inner, interlope), 2)

        assert_settled(inner, {1, 2, *(10 + other for other in range(others))})


def test_the_same_step_twice_at_once_is_published_once(tmp_path: Path) -> None:
    """A worker that was thought dead publishes between any two operations of its successor."""
    for moment in range(1, _operations(tmp_path) + 1):
        inner = FolderStorage(tmp_path / str(moment))
        publish_sound(inner, 1)

        def zombie(count: int, *_: str, inner: Storage = inner, moment: int = moment) -> None:
            if count == moment:
                publish_sound(inner, 2)

        publish_sound(Interrupted(inner, zombie), 2)

        assert_settled(inner, {1, 2})
        last = latest(inner, ASSET)
        assert last is not None
        assert last.version == 2


# -- deaths -----------------------------------------------------------------------------------------------------------


class Died(BaseException):
    """The process is gone: nothing after this runs."""


@pytest.mark.parametrize("base", [False, True])
def test_a_death_between_any_two_operations_is_made_good_by_the_next_attempt(tmp_path: Path, base: bool) -> None:
    operations = _operations(tmp_path)
    for moment in range(1, operations + 1):
        inner = FolderStorage(tmp_path / str(moment))
        if base:
            publish_sound(inner, 1)

        def die(count: int, *_: str, moment: int = moment) -> None:
            if count >= moment:
                raise Died

        try:
            publish_sound(Interrupted(inner, die), 2)
        except Died:
            assert_doors_lead_to_whole_versions(inner)
        publish_sound(inner, 2)

        assert_settled(inner, {1, 2} if base else {2})


def test_a_death_is_made_good_by_whoever_publishes_next(tmp_path: Path) -> None:
    """The one who died never comes back; another job's publication finds a whole state and goes on."""
    for moment in range(1, _operations(tmp_path) + 1):
        inner = FolderStorage(tmp_path / str(moment))
        publish_sound(inner, 1)

        def die(count: int, *_: str, moment: int = moment) -> None:
            if count >= moment:
                raise Died

        with pytest.raises(Died):
            publish_sound(Interrupted(inner, die), 2)
        publish_sound(inner, 3)

        last = latest(inner, ASSET)
        assert last is not None
        assert_settled(inner, {1, 3} | ({2} if effect(2) in last.effects else set()))


# -- zombies ----------------------------------------------------------------------------------------------------------


def test_a_publisher_that_is_no_longer_wanted_writes_nothing_that_a_reader_could_see(tmp_path: Path) -> None:
    """Lost between any two operations: from then on no version and no door is written, but the one under way."""
    for moment in range(1, _operations(tmp_path) + 1):
        inner = FolderStorage(tmp_path / str(moment))
        publish_sound(inner, 1)
        seen: list[str] = []

        def lose(count: int, operation: str, key: str, moment: int = moment, seen: list[str] = seen) -> None:
            if count > moment and operation == "put" and (key in DOORS or key.endswith("presentation.json")):
                seen.append(key)

        wrapped = Interrupted(inner, lose)
        finished = False
        try:
            publish(wrapped, ASSET, effect(2), add_sound(2), still_ours=lambda: wrapped.count < moment)  # noqa: B023
            finished = True
        except NoLongerOurs:
            pass

        assert seen == []
        assert finished == (door_version(inner, DOORS[1]) == 2)
        assert_doors_lead_to_whole_versions(inner)
        publish_sound(inner, 2)
        assert_settled(inner, {1, 2})


def test_a_publisher_that_finds_its_effect_moves_no_door_that_is_not_its_own(storage: Storage) -> None:
    publish_sound(storage, 1)
    old = [storage.get(door) for door in DOORS]
    publish_sound(storage, 2)
    for door, text in zip(DOORS, old, strict=True):
        storage.put(door, text)

    with pytest.raises(NoLongerOurs):
        publish(storage, ASSET, effect(2), add_sound(2), still_ours=lambda: False)

    assert [storage.get(door) for door in DOORS] == old


def test_a_publication_shows_that_it_moves_and_can_be_stopped_before_it_is_one(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def after(calls: int) -> Callable[[], None]:
        left = iter(range(calls))

        def moved() -> None:
            if next(left, None) is None:
                raise Enough

        return moved

    for calls in range(3):
        inner = FolderStorage(tmp_path / str(calls))
        with pytest.raises(Enough):
            publish(inner, ASSET, effect(1), add_sound(1), moved=after(calls))
        assert calls < len(list(inner.list("")))
        assert latest(inner, ASSET) is None


# -- lost replies -----------------------------------------------------------------------------------------------------


class Lossy(Interrupted):
    """Every put takes place, and its reply is lost once a key: as an error, or as the client's own second try."""

    def __init__(self, inner: Storage, *, resends: bool) -> None:
        super().__init__(inner)
        self._resends = resends
        self._lost: set[str] = set()

    def put(
        self,
        key: str,
        body: bytes | Path,
        *,
        absent: bool = False,
        match: str | None = None,
        moved: Moved | None = None,
    ) -> StoredObject:
        stored = super().put(key, body, absent=absent, match=match, moved=moved)
        if key in self._lost:
            return stored
        self._lost.add(key)
        if self._resends and (absent or match is not None):
            raise PreconditionFailed(key)
        raise PipelineError("storage_unavailable", reason="the reply was lost")


def test_a_client_that_sends_again_by_itself_knows_its_own_version(storage: Storage) -> None:
    """Every create-only write answers 412 to its own second try."""
    made = publish_sound(Lossy(storage, resends=True), 1)

    assert made.version == 1
    assert_settled(storage, {1})


def test_lost_replies_cost_attempts_and_nothing_else(storage: Storage) -> None:
    lossy = Lossy(storage, resends=False)
    attempts = 0
    while True:
        attempts += 1
        assert attempts < 20
        try:
            made = publish_sound(lossy, 1)
        except PipelineError:
            continue
        break

    assert made.version == 1
    assert_settled(storage, {1})


def test_a_version_whose_reply_was_lost_is_known_without_another_attempt(storage: Storage) -> None:
    inner = storage

    class LosesTheVersion(Interrupted):
        def put(self, key: str, body: bytes | Path, **how: Any) -> StoredObject:
            stored = super().put(key, body, **how)
            if key.endswith("presentation.json"):
                raise PipelineError("storage_unavailable", reason="the reply was lost")
            return stored

    made = publish_sound(LosesTheVersion(inner), 1)

    assert made.version == 1
    assert_settled(inner, {1})
