"""The assets of a folder, told from the folder alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from front import ASSET, Front

from pipeline import keys
from pipeline.errors import PipelineError
from workers import library


@pytest.fixture
def front(tmp_path: Path) -> Front:
    front = Front(tmp_path)
    front.ready(title="Lecture 1")
    return front


def test_an_asset_is_shown_with_its_newest_document(front: Front) -> None:
    front.ask("reprocess", asset_id=ASSET, resolutions=["480p"])
    front.live()

    (shown,) = library.assets(front.storage)

    assert shown.model_dump(mode="json") == front.document()
    assert shown == library.asset(front.storage, ASSET)


def test_a_deleted_asset_is_not_shown_also_while_it_is_being_removed(front: Front) -> None:
    front.storage.put(keys.tombstone(ASSET), b"{}")

    assert list(library.assets(front.storage)) == []
    with pytest.raises(PipelineError, match="asset_not_found"):
        library.asset(front.storage, ASSET)


def test_the_id_of_a_deleted_asset_stays_taken(front: Front) -> None:
    front.ask("delete", ids=[ASSET])
    front.live()

    assert library.taken(front.storage, ASSET)
