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
    """The newest document of every asset, oldest asset first; those that are deleted, or half so, are none."""
    newest: dict[str, Mapping[str, Any]] = {}
    deleted: set[str] = set()
    for stored in storage.list(f"{keys.PRIVATE}/"):
        asset_id = stored.key.split("/")[1]
        if stored.key == keys.tombstone(asset_id):
            deleted.add(asset_id)
        if "/jobs/" in stored.key:
            document = json.loads(storage.get(stored.key))["document"]
            known = newest.get(document["id"])
            if known is None or document["version"] > known["version"]:
                newest[document["id"]] = document
    alive = (load(document) for id_, document in newest.items() if id_ not in deleted)
    yield from sorted(alive, key=lambda document: document.created)


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
