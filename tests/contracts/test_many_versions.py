"""An asset with very many versions is as cheap to look at and to publish to as one with a few, on every storage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from presentations import ASSET, NTSC, audio_track
from s3_server import S3Server
from storages import Interrupted

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.ports import Storage
from pipeline.presentation.compose import compose, roll_back
from pipeline.presentation.model import SCHEMA, Edit, Effect, Presentation
from pipeline.presentation.publish import edits, latest, mend, publish, version, versions
from pipeline.storage import open_storage
from pipeline.storage.folder import FolderStorage
from pipeline.tasks import Patch, Timeline, to_json

MANY = 300
HLS, DASH = keys.hls_door(ASSET), keys.dash_door(ASSET)


def effect(number: int) -> Effect:
    return Effect(job=f"job-{number}", step="package")


def composer(number: int) -> Any:
    def compose_it(previous: Presentation | None) -> Presentation:
        tracks = () if previous else (audio_track(),)
        return compose(previous, asset=ASSET, tracks=tracks, effect=effect(number), duration=NTSC.duration)

    return compose_it


class Counted(Interrupted):
    """Writes down what is asked of a storage."""

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner, lambda _, operation, key: self.asked.append((operation, key)))
        self.asked: list[tuple[str, str]] = []

    @property
    def kinds(self) -> Counter[str]:
        return Counter(operation for operation, _ in self.asked)


@pytest.fixture(scope="module", params=["folder", "s3"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """With 300 versions of an asset, the doors at the last of them."""
    if request.param == "folder":
        storage: Storage = FolderStorage(tmp_path_factory.mktemp("many") / "root")
    else:
        server: S3Server = request.getfixturevalue("shared_s3")
        storage = open_storage(f"s3://reelway/many-versions?endpoint=http://127.0.0.1:{server.port}&region=us-east-1")
    shown = [composer(1)(None)]
    for number in range(2, MANY + 1):
        shown.append(composer(number)(shown[-1]))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: storage.put(_json(each.version), to_json(each).encode()), shown))
    mend(storage, ASSET)
    return storage


@pytest.fixture
def storage(filled: Storage) -> Iterator[Counted]:
    """Whatever a test does, the next one finds the 300 versions and their doors."""
    doors = {key: filled.get(key) for key in (HLS, DASH)}
    yield Counted(filled)
    filled.delete(keys.version(ASSET, MANY + 1))
    for key, text in doors.items():
        filled.put(key, text)


def _json(number: int) -> str:
    return f"{keys.version(ASSET, number)}presentation.json"


def test_the_latest_version_is_found_without_a_list(storage: Counted) -> None:
    shown = latest(storage, ASSET)

    assert shown is not None
    assert shown.version == MANY
    assert storage.kinds == {"get": 2, "stat": 1}


@pytest.mark.parametrize("behind", [1, 2, 7, 100, 299])
def test_a_door_that_lags_behind_is_where_the_search_begins(storage: Counted, behind: int) -> None:
    text = storage.inner.get(HLS).replace(b"presentation 300", b"presentation %d" % (MANY - behind))
    storage.inner.put(HLS, text)

    shown = latest(storage, ASSET)

    assert shown is not None
    assert shown.version == MANY
    assert storage.kinds["list"] == 0
    assert storage.kinds["stat"] <= 2 * behind.bit_length() + 1


def test_lost_doors_are_found_again_and_mended(storage: Counted) -> None:
    before = storage.inner.get(HLS), storage.inner.get(DASH)
    storage.inner.delete(HLS)
    storage.inner.delete(DASH)

    shown = mend(storage, ASSET)

    assert shown is not None
    assert shown.version == MANY
    assert storage.kinds["list"] == 0
    assert storage.kinds["stat"] <= 25
    assert (storage.inner.get(HLS), storage.inner.get(DASH)) == before


@pytest.mark.parametrize("claimed", [301, 302, 10_000])
def test_a_door_that_claims_what_is_not_there_is_not_believed(storage: Counted, claimed: int) -> None:
    storage.inner.put(HLS, storage.inner.get(HLS).replace(b"presentation 300", b"presentation %d" % claimed))

    shown = latest(storage, ASSET)

    assert shown is not None
    assert shown.version == MANY


def test_a_door_that_says_nothing_is_as_good_as_none(storage: Counted) -> None:
    storage.inner.put(HLS, b"#EXTM3U\n")

    shown = latest(storage, ASSET)

    assert shown is not None
    assert shown.version == MANY


@pytest.mark.parametrize("number", [1, 2, 16, 70, 150, 296, 299, 300])
def test_a_late_attempt_learns_the_version_that_brought_its_effect(storage: Counted, number: int) -> None:
    """As long as it is remembered; how many are loaded grows with the logarithm of how old it is."""
    found = publish(storage, ASSET, effect(number), composer(number))

    assert found.version == number
    loaded = [key for operation, key in storage.asked if operation == "get" and key.endswith("presentation.json")]
    assert len(loaded) <= 2 * (MANY - number).bit_length() + 6
    assert storage.kinds["list"] == storage.kinds["put"] == 0


def test_one_version_is_loaded_and_those_that_are_not_there_are_not(storage: Counted) -> None:
    old = version(storage, ASSET, 17)

    assert old is not None
    assert old.version == 17
    assert version(storage, ASSET, MANY + 1) is None
    assert version(storage, ASSET, 0) is None


def test_versions_are_told_newest_first_as_far_as_they_are_asked_for(storage: Counted) -> None:
    newest = list(islice(versions(storage, ASSET), 3))

    assert [number for number, _ in newest] == [300, 299, 298]
    assert all(modified_ms > 1_600_000_000_000 for _, modified_ms in newest)
    assert storage.kinds == {"get": 2, "stat": 1 + 3}
    assert [number for number, _ in versions(storage.inner, ASSET)] == list(range(MANY, 0, -1))


def test_an_asset_without_versions_has_none(storage: Counted) -> None:
    assert latest(storage, "n0thing0000") is None
    assert list(versions(storage, "n0thing0000")) == []
    assert storage.kinds["list"] == 0


def test_publishing_on_top_of_many_versions_costs_as_much_as_on_top_of_one(storage: Counted, tmp_path: Path) -> None:
    few = Counted(FolderStorage(tmp_path / "few"))
    publish(few.inner, ASSET, effect(1), composer(1))
    publish(few, ASSET, effect(2), composer(2))

    shown = publish(storage, ASSET, effect(301), composer(301))

    assert shown.version == MANY + 1
    assert storage.kinds == few.kinds


def test_a_version_long_gone_comes_back(storage: Counted) -> None:
    wanted, made = version(storage, ASSET, 5), Effect(job="back", step="package")
    assert wanted is not None

    shown = publish(storage, ASSET, made, lambda last: roll_back(last or wanted, wanted, effect=made))

    assert (shown.version, shown.tracks) == (MANY + 1, wanted.tracks)
    assert latest(storage, ASSET) == shown


def test_what_versions_play_is_told_without_their_tracks(storage: Counted, tmp_path: Path) -> None:
    """A version of six hours is megabytes, and sixteen of them are looked through for an edit that may serve again."""
    long = Timeline(rate=NTSC.rate, frames=600_000)
    film, sound = FolderStorage(tmp_path), audio_track(timeline=long)
    part = Patch(track=sound.id, first=sound.segments[1].start, last=sound.segments[3].start, init=sound.init)
    start, end = (Fraction(tick, sound.timescale) for tick in (part.first, part.last))
    edit = Edit(start=start, end=end, patches=(part,), trim=7)

    def cut(previous: Presentation | None) -> Presentation:
        tracks = () if previous else (sound,)
        return compose(previous, asset=ASSET, tracks=tracks, effect=effect(9), duration=long.duration, edit=edit)

    publish(film, ASSET, effect(9), cut)
    read: list[int] = []
    seen = Measured(film, read)

    assert edits(seen, ASSET, 1) == (edit,)
    assert sum(read) < film.stat(_json(1)).size / 2  # type: ignore[union-attr]
    assert edits(storage, ASSET, 17) == edits(storage, ASSET, MANY + 1) == ()


class Measured(Interrupted):
    """Counts the bytes that are read."""

    def __init__(self, inner: Storage, read: list[int]) -> None:
        super().__init__(inner)
        self.read = read

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        body = super().get(key, offset, length)
        self.read.append(len(body))
        return body


@pytest.mark.raises_code("schema_newer")
@pytest.mark.parametrize("readable", [True, False])
def test_what_a_version_of_a_newer_form_plays_is_left_to_a_newer_worker(tmp_path: Path, readable: bool) -> None:
    storage = FolderStorage(tmp_path)
    publish(storage, ASSET, effect(1), composer(1))
    said = json.loads(storage.get(_json(1))) | {"schema": SCHEMA + 1} | ({} if readable else {"edit": "another form"})
    storage.put(_json(1), json.dumps(said).encode())

    for look in (lambda: edits(storage, ASSET, 1), lambda: version(storage, ASSET, 1)):
        with pytest.raises(PipelineError, match="schema_newer"):
            look()
