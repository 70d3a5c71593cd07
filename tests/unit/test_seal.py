"""What is sealed opens with its key and for its asset alone; a key can be changed while something waits."""

from __future__ import annotations

import os
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from storages import Interrupted

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.seal import Key, Seal, keys_of
from pipeline.storage.folder import FolderStorage
from workers import doctor
from workers.settings import Settings
from workers.wiring import control

URL = "https://bucket.example/film.mp4?X-Signature=canary5ecret"
ASSET = "asset000001"


def refusal(seal: Seal, sealed: str, asset: str = ASSET) -> PipelineError:
    with pytest.raises(PipelineError) as failed:
        seal.open(sealed, asset)
    assert failed.value.code == "source_seal_broken"
    assert "canary" not in f"{failed.value.message} {failed.value.hint} {failed.value.params}"
    return failed.value


def test_what_is_sealed_opens_again_and_tells_nothing_meanwhile() -> None:
    seal = Seal([Key.new()])

    sealed = seal.close(URL, ASSET)

    assert seal.open(sealed, ASSET) == URL
    assert "canary" not in sealed
    assert seal.close(URL, ASSET) != sealed, "two jobs with the same URL are not known by it"


def test_it_opens_for_its_asset_alone() -> None:
    seal = Seal([Key.new()])

    assert "another asset" in refusal(seal, seal.close(URL, ASSET), "asset000002").message


@pytest.mark.parametrize("place", [5, 12, 40, -2])
def test_a_changed_text_does_not_open(place: int) -> None:
    seal = Seal([Key.new()])
    sealed = seal.close(URL, ASSET)
    changed = sealed[:place] + ("A" if sealed[place] != "A" else "B") + sealed[place:][1:]

    refusal(seal, changed)


@pytest.mark.parametrize("sealed", ["", "1", "1.", "1.00000000.", "9.name.body", "https://plain.example/", "1.a.ü"])
def test_what_is_no_sealed_text_is_an_error_and_no_crash(sealed: str) -> None:
    refusal(Seal([Key.new()]), sealed)


def test_a_key_is_changed_while_something_waits() -> None:
    old, new = Key.new(), Key.new()
    waiting = Seal([old]).close(URL, ASSET)
    changed = Seal([new, old])

    assert changed.open(waiting, ASSET) == URL
    sealed = changed.close(URL, ASSET)
    assert Seal([new]).open(sealed, ASSET) == URL
    assert old.name in refusal(Seal([new]), waiting).message, "it says which key is missing"


def test_without_a_key_of_its_own_a_fleet_has_one_in_its_storage(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    one, another = Seal(storage=storage), Seal(storage=storage)
    assert list(storage.list("")) == [], "nothing is made before it is needed"

    sealed = one.close(URL, ASSET)

    assert another.open(sealed, ASSET) == URL
    assert one.open(another.close(URL, ASSET), ASSET) == URL
    assert [stored.key for stored in storage.list("")] == [keys.SEAL_KEY]


def test_of_many_that_make_it_at_once_one_makes_it_for_all(tmp_path: Path) -> None:
    seals = [Seal(storage=FolderStorage(tmp_path)) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        sealed = list(pool.map(lambda seal: seal.close(URL, ASSET), seals))

    assert {seals[0].open(text, ASSET) for text in sealed} == {URL}


def test_opening_makes_no_key_and_a_key_that_is_gone_is_said(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    sealed = Seal(storage=storage).close(URL, ASSET)
    storage.delete(keys.SEAL_KEY)

    refusal(Seal(storage=storage), sealed)

    assert list(storage.list("")) == []


def test_a_fleet_that_was_given_a_key_opens_what_it_sealed_with_its_own(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    sealed = Seal(storage=storage).close(URL, ASSET)
    given = Seal([Key.new()], storage)

    assert given.open(sealed, ASSET) == URL
    assert given.close(URL, ASSET).split(".")[1] == given.own[0].name


def test_a_stored_key_that_is_none_is_said(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    storage.put(keys.SEAL_KEY, b"canary, not a key")

    with pytest.raises(PipelineError) as failed:
        Seal(storage=storage).close(URL, ASSET)
    assert failed.value.code == "source_seal_broken"
    assert "canary" not in failed.value.message


def test_a_storage_that_is_away_is_its_own_error(tmp_path: Path) -> None:
    def away(_: int, operation: str, key: str) -> None:
        raise PipelineError("storage_unavailable", reason="away")

    with pytest.raises(PipelineError) as failed:
        Seal(storage=Interrupted(FolderStorage(tmp_path), away)).close(URL, ASSET)
    assert failed.value.code == "storage_unavailable"


def test_keys_of_a_setting() -> None:
    one, two = Key.new(), Key.new()

    assert keys_of(f" {one.text}, {two.text} ,") == (one, two)
    assert keys_of("") == ()
    assert keys_of(one.text.replace("+", "-").replace("/", "_").rstrip("\n")) == (one,)
    assert one.text not in repr(one) and one.secret.hex() not in repr(one)  # noqa: PT018


@pytest.mark.parametrize("text", ["password-canary", "QUJD", "é" * 32, "A" * 100])
def test_a_setting_that_is_no_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError, match="openssl rand") as failed:
        keys_of(text)
    assert text not in str(failed.value)


# -- what the processes make of it ------------------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The developer's own settings are of no interest here."""
    for name in [name for name in os.environ if name.startswith("REELWAY_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_a_key_comes_from_the_environment_or_from_a_file_and_is_shown_nowhere(
    bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = Key.new()
    (tmp_path / "REELWAY_SEAL_KEY").write_text(f"{key.text}\n")
    bare.setenv("REELWAY_SECRETS_DIR", str(tmp_path))
    settings = Settings.read()

    assert keys_of(settings.seal_key.get_secret_value()) == (key,)
    assert key.text not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"


def test_a_wrong_key_stops_the_process_with_a_line_that_does_not_show_it(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("REELWAY_SEAL_KEY", "canary-no-key")

    with pytest.raises(PipelineError) as failed:
        Settings.read()

    assert "REELWAY_SEAL_KEY" in failed.value.message
    assert "canary" not in "".join(traceback.format_exception(failed.value))


def test_processes_with_the_same_storage_open_what_one_of_them_sealed(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings.read(storage_url=tmp_path.as_uri())
    one, another = (control(settings).conductor.seal for _ in range(2))

    assert another.open(one.close(URL, ASSET), ASSET) == URL


@pytest.mark.parametrize(
    ("environment", "state", "says"),
    [
        ({}, "ok", "private/seal.key"),
        ({"REELWAY_STORAGE_URL": "s3://bucket"}, "warning", "private/seal.key"),
        ({"REELWAY_SEAL_KEY": Key.new().text, "REELWAY_STORAGE_URL": "s3://bucket"}, "ok", "REELWAY_SEAL_KEY"),
        ({"REELWAY_SEAL_KEY": f"{Key.new().text},{Key.new().text}"}, "ok", "1 more"),
    ],
)
def test_the_doctor_says_whose_key_it_is(
    environment: dict[str, str], state: str, says: str, bare: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        bare.setenv(name, value)

    found = doctor._seal()

    assert (found.state, says in found.detail) == (state, True)
    assert environment.get("REELWAY_SEAL_KEY", "nothing") not in f"{found}"
