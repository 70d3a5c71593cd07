"""What an asset has been through, when something else than this release wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest
from front import ASSET, Front

from pipeline import keys, past

LATER = 9_999_999_999_999


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return Front(tmp_path / "root")


def test_a_digest_that_was_removed_is_drawn_up_again_with_what_an_older_worker_wrote_beside_it(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the changelog says to do after workers of two releases were at work on one storage."""
    front.ready()
    front.ask("expire", id="theirs", asset_id=ASSET, expire_at=LATER)
    with monkeypatch.context() as older:
        older.setattr(past, "_note", lambda *_: None)
        front.live()
    front.forget()
    assert not told(front, "theirs")

    front.storage.delete(keys.digest(ASSET))
    front.ask("trim", id="ours", asset_id=ASSET, start_time=1)
    front.live()

    assert front.document()["expire_at"] == LATER
    assert front.storage.stat(keys.digest(ASSET))
    front.forget()
    front.ask("trim", id="again", asset_id=ASSET, start_time=2)
    assert front.document()["expire_at"] == LATER


def told(front: Front, job: str) -> bool:
    """A request hears of this job, without reading every history."""
    return job in {each.id for each in past.decisive(front.storage, ASSET).past}
