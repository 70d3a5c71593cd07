"""Reconcile: bring a store that was lost or put back to an older state to what storage says.

Storage is the truth of what is public, and holds for every asset the histories of its jobs, its presentations and,
when it is deleted, its tombstone. Of an asset that the store knows in an older state, the record is written again: a
new epoch, and sequences above every one that storage knows of. What was published without the store's remembering it is
told once more. Of those that the store does not know at all, only what expires, or was published and never told, is
brought back: a record that has expired is nothing unusual, and whoever asks for the asset brings it back. `everything`
brings back the others as well. Jobs that the store still knows go on by themselves; what they had published they
recognise by its effects. A job that only the lost store knew is gone: its asset shows as unfinished, and wants to be
asked for again.

Idempotent: any number may run, beside working machines.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pipeline import document as documents
from pipeline import keys
from pipeline.acceptance import is_there
from pipeline.clips import parents_of
from pipeline.conductor import Conductor
from pipeline.document import AssetDocument
from pipeline.doorman import Doorman
from pipeline.errors import PipelineError
from pipeline.janitor import belongings
from pipeline.job import AssetRecord, EventDraft
from pipeline.ports import ObjectNotFound, Storage
from pipeline.presentation.publish import mend
from pipeline.publishing import published
from pipeline.requests import DeleteRequest, DuplicateRequest, ExpireRequest, ProcessRequest
from pipeline.standing import Standing, standing


class Outcome(enum.StrEnum):
    """What was found of an asset whose record is not as storage says."""

    RESTORED = "restored"
    """The store did not know it."""
    RENEWED = "renewed"
    """The store knew an older state of it."""
    DELETED = "deleted"
    """It is deleted, and the store did not know."""
    UNFINISHED = "unfinished"
    """Its first job was lost with the store before anything was published: ask for it again, or let the janitor go."""
    UNREADABLE = "unreadable"
    """It has a form that this program does not know."""


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """One asset that was not as storage says, and is now (or with `dry_run`: would be)."""

    asset: str
    outcome: Outcome


class Reconciliation:
    """Goes through a storage, once a call of `run`. Raises what the storage and the store raise, and `queue_full`."""

    def __init__(self, doorman: Doorman, *, everything: bool = False, dry_run: bool = False) -> None:
        self.doorman = doorman
        self.conductor: Conductor = doorman.conductor
        self.storage: Storage = doorman.storage
        self.everything = everything
        self.dry_run = dry_run

    def run(self) -> Iterator[Reconciled]:
        """Every asset that is not as storage says, when it is mended. Stopping to read it stops the work."""
        for held in belongings(self.storage):
            outcome = self._look_after(held.asset)
            if outcome is not None:
                yield Reconciled(asset=held.asset, outcome=outcome)

    def _look_after(self, asset: str) -> Outcome | None:
        try:
            return self._compared(asset)
        except ObjectNotFound:  # it is removed at this very moment
            return None
        except PipelineError as error:
            if error.code not in ("schema_newer", "asset_deleted"):
                raise
            return Outcome.UNREADABLE if error.code == "schema_newer" else None
        except (ValueError, LookupError, TypeError):
            return Outcome.UNREADABLE

    def _compared(self, asset: str) -> Outcome | None:
        """Raises `asset_deleted` where its deletion is under way."""
        found = standing(self.storage, asset)
        known = self.conductor.store.asset(asset)
        record = known if is_there(known) else None
        if found is not None and found.deleted is not None:
            return self._buried(found, record)
        if found is None or (found.document is None and found.presentation is None):
            return Outcome.UNFINISHED if record is None else None
        return self._restored(found, record)

    def _buried(self, found: Standing, record: AssetRecord | None) -> Outcome | None:
        """A store that knows a deleted asset as it was before would let requests for it in."""
        if record is None or documents.load(record.document).deleted:
            return None
        if not self.dry_run:
            request = DeleteRequest(id=f"deleted-{found.asset}-{found.deleted}", ids=(found.asset,))
            self.doorman.handle(request)
        return Outcome.DELETED

    def _restored(self, found: Standing, record: AssetRecord | None) -> Outcome | None:
        document = self._document(found)
        if record is not None and record.version >= document.version and record.sequence >= found.sequence:
            return None
        if record is None and not self.everything and not self._wanted(found, document):
            return None
        if not self.dry_run:
            self.doorman.check_room()
            self._restore(found, replace(_record(found, document), version=_above(document, record)))
        return Outcome.RESTORED if record is None else Outcome.RENEWED

    @staticmethod
    def _wanted(found: Standing, document: AssetDocument) -> bool:
        """It must be known without being asked for: it expires, or the world has not heard of its latest version."""
        if found.document is None or document.expire_at:
            return True
        told = documents.load(found.document).presentation
        return found.presentation is not None and found.presentation.version > told

    def _restore(self, found: Standing, record: AssetRecord) -> None:
        document = documents.load({**record.document, "version": record.version})
        if not self.conductor.store.restore(replace(record, document=document.model_dump(mode="json"))):
            return  # somebody else did
        mend(self.storage, found.asset)
        data: dict[str, Any] = {"asset": document.model_dump(mode="json"), "meta": document.meta}
        draft = EventDraft(
            id=f"reconcile.{found.asset}.{record.version}.asset.updated", type="asset.updated", data=data
        )
        self.conductor.store.append(found.asset, draft)
        if document.expire_at:
            id_ = f"expire-{found.asset}-{record.version}"
            self.doorman.handle(ExpireRequest(id=id_, asset_id=found.asset, expire_at=document.expire_at))

    def _document(self, found: Standing) -> AssetDocument:
        """The newest document that storage knows, with what was published after it."""
        document = documents.load(found.document) if found.document else self._from_nothing(found)
        presentation = found.presentation
        if presentation is None or presentation.version <= document.presentation:
            return document
        shown = documents.completed(self.conductor.shown(document, published(presentation)))
        return documents.stamped(shown, version=document.version + 1, now_ms=self.conductor.clock.now_ms())

    def _from_nothing(self, found: Standing) -> AssetDocument:
        """Of an asset whose first job had published and not ended: what was asked is lost, what was made is not."""
        now, base_url = self.conductor.clock.now_ms(), self.conductor.base_url
        if (of := self._cut_from(found.asset)) is not None:
            clip = DuplicateRequest(asset_id=of.id, new_id=found.asset)
            return documents.cut_out(clip, of, base_url=base_url, now_ms=now)
        request = ProcessRequest(asset_id=found.asset, url=found.source or keys.source(found.asset, ""))
        return documents.not_started(request, resolutions=(), base_url=base_url, now_ms=now)

    def _cut_from(self, asset: str) -> AssetDocument | None:
        """Of a clip what is known of the asset that it was cut from; of a clip of a clip that is the one that is a clip
        itself."""
        parents = sorted(parents_of(self.storage, asset))
        if not parents:
            return None
        parent = max(parents, key=lambda each: len(parents_of(self.storage, each)))
        return self._document(standing(self.storage, parent) or Standing(asset=parent))


def _record(found: Standing, document: AssetDocument) -> AssetRecord:
    return AssetRecord(
        id=found.asset, document=document.model_dump(mode="json"), version=1, epoch=0, sequence=found.sequence
    )


def _above(document: AssetDocument, record: AssetRecord | None) -> int:
    """A version of the document that nobody has seen with another content."""
    return max(document.version, (record.version if record else 0) + 1)
