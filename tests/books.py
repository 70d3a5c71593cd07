"""A store, and what a test may read in its books besides: what is due, what is ready, what was said."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from pipeline.job import Ref
from pipeline.memory import MemoryJobStore
from pipeline.ports import Ledger
from pipeline.ready import Place


class Books(Protocol):
    """Looks at a store from behind: never fails, changes nothing."""

    @property
    def store(self) -> Ledger: ...

    def due(self) -> Collection[Ref]:
        """Whatever somebody will look at."""

    def ready(self) -> Mapping[Ref, Place]:
        """Whatever may begin, of all stages, and where it stands."""

    def out(self) -> Mapping[Ref, Place]:
        """Whatever was taken and counts for its organization."""

    def events(self) -> list[dict[str, Any]]:
        """Every event in the order of the commits."""


class MemoryBooks:
    """The books of the store in memory, or of a mutant of it."""

    def __init__(self, store: MemoryJobStore) -> None:
        self.store = store

    def due(self) -> Mapping[Ref, int]:
        return self.store._due

    def ready(self) -> Mapping[Ref, Place]:
        return self.store.queue.ready

    def out(self) -> Mapping[Ref, Place]:
        return self.store.queue.out

    def events(self) -> list[dict[str, Any]]:
        return self.store.events
