"""Numbers are given out once, whatever the storage is, whoever asks at the same time, and whatever is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from s3_server import S3Server
from storages import Interrupted

from pipeline import keys
from pipeline.numbers import Numbers, claim
from pipeline.ports import PreconditionFailed, Storage, StoredObject
from pipeline.storage import open_storage
from pipeline.storage.folder import FolderStorage


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "folder":
        return FolderStorage(tmp_path / "root")
    server: S3Server = request.getfixturevalue("shared_s3")
    prefix = "".join(char if char.isalnum() else "-" for char in request.node.name)
    return open_storage(f"s3://reelway/{prefix}?endpoint=http://127.0.0.1:{server.port}&region=us-east-1")


def owners(storage: Storage, kind: str = "trim") -> dict[int, str]:
    prefix = f"{keys.NUMBERS}{kind}/"
    return {int(stored.key.removeprefix(prefix)): storage.get(stored.key).decode() for stored in storage.list(prefix)}


def test_numbers_begin_with_one_in_each_kind_and_say_whose_they_are(storage: Storage) -> None:
    numbers = Numbers(storage)

    assert [numbers.claim("trim", owner) for owner in ("a", "b", "c")] == [1, 2, 3]
    assert numbers.claim("track", "a") == 1
    assert owners(storage) == {1: "a", 2: "b", 3: "c"}


def test_who_asks_again_has_the_same_number(storage: Storage) -> None:
    numbers = Numbers(storage)
    first = numbers.claim("trim", "a")
    numbers.claim("trim", "b")

    assert numbers.claim("trim", "a") == first
    assert owners(storage) == {1: "a", 2: "b"}


def test_a_claim_that_nobody_heard_of_is_not_made_twice(storage: Storage) -> None:
    """The process that claimed it died before it told anybody."""
    Numbers(storage).claim("trim", "a")

    assert Numbers(storage).claim("trim", "a") == 1
    assert Numbers(storage).claim("trim", "b") == 2


def test_many_at_once_have_a_number_each_and_leave_no_gap(storage: Storage) -> None:
    """Of several processes, none of which knows the others."""
    fleet = [Numbers(storage) for _ in range(4)]
    names = [f"job-{number}" for number in range(40)]

    with ThreadPoolExecutor(max_workers=8) as pool:
        given = list(pool.map(lambda at: fleet[at % 4].claim("trim", names[at]), range(40)))

    assert sorted(given) == list(range(1, 41))
    assert owners(storage) == dict(sorted(zip(given, names, strict=True)))


def test_whoever_remembers_nothing_finds_the_end_in_a_few_looks(storage: Storage) -> None:
    for number in range(1, 101):
        storage.put(keys.number("trim", number), b"old")
    looks: list[str] = []
    watched = Interrupted(storage, lambda _count, operation, _key: looks.append(operation))

    assert claim(watched, "trim", "new") == 101
    assert len(looks) < 20, "galloping, and not one by one"
    looks.clear()
    assert claim(watched, "trim", "next", hint=101) == 102
    assert looks == ["stat", "stat", "get", "put"]


@pytest.mark.parametrize("hint", [3, 7, 500])
def test_a_memory_that_is_behind_or_of_another_storage_does_no_harm(storage: Storage, hint: int) -> None:
    for number in range(1, 8):
        storage.put(keys.number("trim", number), b"old")

    assert claim(storage, "trim", "new", hint=hint) == 8


def test_a_claim_whose_reply_was_lost_is_ours_and_one_that_came_before_us_is_not(tmp_path: Path) -> None:
    inner = FolderStorage(tmp_path)

    def first_put(owner: str) -> Callable[..., StoredObject]:
        def put(key: str, body: bytes, **_: Any) -> StoredObject:
            del storage.put  # type: ignore[attr-defined]
            inner.put(key, owner.encode(), absent=True)
            failed = PreconditionFailed()
            failed.resent = True
            raise failed

        return put

    storage: Any = FolderStorage(tmp_path)
    storage.put = first_put("me")
    assert claim(storage, "trim", "me") == 1
    storage.put = first_put("another")
    assert claim(storage, "trim", "me too") == 3
    assert owners(inner) == {1: "me", 2: "another", 3: "me too"}
