"""What a bucket says of its assets, read once and through the `Storage` port alone."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline import keys
from pipeline.ports import Storage, StoredObject
from pipeline.presentation.model import Presentation
from pipeline.tasks import from_json

_VERSION = re.compile(r"presentations/(\d+)/presentation\.json")
_HISTORY = re.compile(r"jobs/([^/]+)\.json")


@dataclass(frozen=True, kw_only=True)
class Belongings:
    """All objects of one asset, the public and the private ones, by storage key."""

    asset: str
    storage: Storage
    objects: Mapping[str, StoredObject]

    @property
    def public(self) -> list[str]:
        return [key for key in self.objects if key.startswith(keys.public(self.asset))]

    @cached_property
    def versions(self) -> dict[int, Presentation]:
        """Every presentation by its number."""
        return {int(match[1]): from_json(Presentation, self.read(key)) for key, match in self._matching(_VERSION)}

    @cached_property
    def histories(self) -> dict[str, Mapping[str, Any]]:
        """What was written at the end of each job, by its id."""
        return {match[1]: json.loads(self.read(key)) for key, match in self._matching(_HISTORY)}

    @property
    def latest(self) -> Presentation | None:
        return self.versions[max(self.versions)] if self.versions else None

    def read(self, key: str) -> bytes:
        return self.storage.get(key)

    def _matching(self, pattern: re.Pattern[str]) -> Iterator[tuple[str, re.Match[str]]]:
        for key in self.objects:
            match = pattern.search(key)
            if match:
                yield key, match


def assets(storage: Storage) -> dict[str, Belongings]:
    """Every asset that has an object, by its id."""
    found: dict[str, dict[str, StoredObject]] = defaultdict(dict)
    for area in (keys.PUBLIC, keys.PRIVATE):
        for stored in storage.list(f"{area}/"):
            name = stored.key.split("/")[1]
            found[name.partition(".")[0]][stored.key] = stored
    return {
        asset: Belongings(asset=asset, storage=storage, objects=objects) for asset, objects in sorted(found.items())
    }
