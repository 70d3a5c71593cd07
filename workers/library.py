"""The assets of a folder, from the folder alone: no server and no memory of the run that made them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline import keys
from pipeline.document import AssetDocument, load
from pipeline.errors import PipelineError
from pipeline.ports import PreconditionFailed, Storage


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


def asset(storage: Storage, asset_id: str) -> AssetDocument:
    """One asset. Raises `asset_not_found`."""
    for document in assets(storage):
        if document.id == asset_id:
            return document
    raise PipelineError("asset_not_found", asset=asset_id)


def taken(storage: Storage, asset_id: str) -> bool:
    """Something lies under this id already."""
    prefixes = (f"{keys.PRIVATE}/{asset_id}.", f"{keys.PRIVATE}/{asset_id}/", keys.public(asset_id))
    return any(next(iter(storage.list(prefix)), None) is not None for prefix in prefixes)


def claim(storage: Storage, asset_id: str) -> bool:
    """Take a free id, so that of two commands that want it one gets it. It is given back by removing the asset."""
    try:
        storage.put(keys.claim(asset_id), b"", absent=True)
    except PreconditionFailed:
        return False
    return True
