"""The assets of a folder, from the folder alone: no server and no memory of the run that made them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline import keys
from pipeline.document import AssetDocument, load
from pipeline.errors import PipelineError
from pipeline.ports import Storage


def assets(storage: Storage) -> Iterator[AssetDocument]:
    """The newest document of every asset, oldest asset first."""
    newest: dict[str, Mapping[str, Any]] = {}
    for stored in storage.list(f"{keys.PRIVATE}/"):
        if "/jobs/" in stored.key:
            document = json.loads(storage.get(stored.key))["document"]
            known = newest.get(document["id"])
            if known is None or document["version"] > known["version"]:
                newest[document["id"]] = document
    yield from sorted((load(document) for document in newest.values()), key=lambda document: document.created)


def asset(storage: Storage, asset_id: str | None) -> AssetDocument:
    """One asset; without an id the newest one. Raises `asset_not_found`."""
    found = [document for document in assets(storage) if asset_id in (None, document.id)]
    if not found:
        raise PipelineError("asset_not_found", asset=asset_id or "in this folder")
    return found[-1]
