"""What is known of an upload: one small object beside its asset, `private/<asset>/uploads/<upload>.json`.

It holds what its start was told and what became of it: no URL of a part, and nothing that is secret. Which parts are
there the storage itself says. Every change compares what it was based on, so of a completion and a cancellation that
meet one wins, and both know which.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.ports import ObjectNotFound, Storage
from pipeline.requests import asset_of

SCHEMA = 1


class State(enum.StrEnum):
    """How far it is."""

    OPEN = "open"
    """Parts are being brought."""
    COMPLETED = "completed"
    """They are one object; a cancel comes too late."""
    CANCELLED = "cancelled"
    """It is being cleaned up."""


class Upload(BaseModel):
    """One upload."""

    model_config = ConfigDict(frozen=True)

    schema_: int = Field(default=SCHEMA, alias="schema")
    id: str
    asset: str
    """The asset that comes of it; of a related upload the parent."""
    organization: str
    key: str
    """Where the object lies when it is complete."""
    handle: str
    """What the storage calls it."""
    file_name: str
    file_size: int
    """Bytes."""
    content_type: str
    part_bytes: int
    """Of every part but the last."""
    started_ms: int
    expires_ms: int
    """Not completed by then, it goes with its parts."""
    relationship: Literal["subtitle", "thumbnail"] | None = None
    request: Mapping[str, Any] = {}
    """The request that starts the job; empty where none is started."""
    state: State = State.OPEN

    @property
    def sizes(self) -> Mapping[int, int]:
        """Bytes of every part by its number."""
        count = -(-self.file_size // self.part_bytes)
        last = self.file_size - (count - 1) * self.part_bytes
        return {number: last if number == count else self.part_bytes for number in range(1, count + 1)}

    def alive(self, now_ms: int) -> bool:
        """It has not been given up, and nothing of it may go."""
        return self.state is not State.CANCELLED and now_ms < self.expires_ms


def load(storage: Storage, upload: str) -> tuple[Upload, str]:
    """The upload with this id, and the etag of its record. Raises `upload_not_found`, `schema_newer`."""
    with suppress(ValueError):  # what can be no key is no upload
        key = keys.upload(asset_of(upload), upload)
        stored = storage.stat(key)
        if stored is not None and (found := _read(storage, key)) is not None:
            return found, stored.etag
    raise PipelineError("upload_not_found", upload=upload)


def of_asset(storage: Storage, asset: str) -> Iterator[Upload]:
    """Every upload of the asset that has a record. Raises `schema_newer`."""
    for stored in storage.list(keys.uploads(asset)):
        if stored.key.endswith(".json") and (found := _read(storage, stored.key)) is not None:
            yield found


def save(storage: Storage, upload: Upload, *, match: str | None = None) -> str:
    """Write the record, a new one where there is nothing to `match`. Returns its etag. Raises `PreconditionFailed`."""
    body = upload.model_dump_json(by_alias=True).encode()
    return storage.put(keys.upload(upload.asset, upload.id), body, absent=match is None, match=match).etag


def remove(storage: Storage, upload: Upload) -> None:
    storage.delete(keys.upload(upload.asset, upload.id))


def _read(storage: Storage, key: str) -> Upload | None:
    """None: it is gone by now, or what lies there is no record that is known here."""
    with suppress(ObjectNotFound, ValueError):
        said = json.loads(storage.get(key))
        found = said.get("schema") if isinstance(said, dict) else None
        if isinstance(found, int) and found > SCHEMA:  # before the rest, which may say anything
            raise PipelineError("schema_newer", what=key, found=found, known=SCHEMA)
        return Upload.model_validate(said)
    return None
