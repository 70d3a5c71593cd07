"""Who sent a request, as far as one that may be broken tells: enough to answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import PipelineError
from pipeline.requests import AssetId, RequestId, Wish

_ID: TypeAdapter[str] = TypeAdapter(RequestId)
_ASSET: TypeAdapter[str] = TypeAdapter(AssetId)


@dataclass(frozen=True, kw_only=True)
class Sender:
    """What could be read of a request; None and the defaults stand for what could not."""

    request: str | None = None
    asset: str | None = None
    organization: str = "default"
    meta: Mapping[str, Any] = field(default_factory=dict)


def sender_of(body: bytes | None) -> Sender:
    """Whatever of it is in order; a piece that is not is left out, and does not harm the others."""
    try:
        said = json.loads(body or b"")
    except (ValueError, RecursionError):
        return Sender()
    if not isinstance(said, dict):
        return Sender()
    ids = said.get("ids")
    asset = said.get("asset_id") or (ids[0] if isinstance(ids, list) and len(ids) == 1 else None)
    return Sender(
        request=_valid(_ID, said.get("id")),
        asset=_valid(_ASSET, asset),
        organization=_envelope(organization=said.get("organization")).organization,
        meta=_envelope(meta=said.get("meta")).meta,
    )


def asset_of(error: PipelineError) -> str | None:
    """The asset that an error names."""
    return _valid(_ASSET, error.params.get("asset"))


def _envelope(**pieces: object) -> Wish:
    try:
        return Wish.model_validate({"type": "", **pieces})
    except ValidationError:
        return Wish(type="")


def _valid(adapter: TypeAdapter[str], value: object) -> str | None:
    try:
        return adapter.validate_python(value)
    except ValidationError:
        return None
