"""The janitor: what has no owner goes, and nothing that has one (DESIGN §6, invariant 9).

Owners, from the strongest: a version of the presentation owns what it names; an open job owns whatever lies under its
asset; a record owns its asset; a clip (`refs/`) owns what it names of the assets that it was cut from, and until it is
published all that it could. Whoever is none of these has a grace time to become one. What is not of a form that this
page knows is left alone.

The order of the questions makes it safe beside jobs that begin meanwhile, even those that end meanwhile: which jobs are
there? is one of them open? what do the versions name, as they are now? And before every batch of objects that goes: has
another job come? One that was accepted after the last question could lose what it needs only by meeting it while that
batch is deleted; ingest comes first and takes longer, and a trim looks once more before it publishes (`patching`).

Run `reelway reconcile` before it where Redis was lost: what was in flight has neither a version nor a record then, and
nothing but the grace time to live.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Any

from pipeline import keys
from pipeline.clips import beside, clips_of, folder, kept_for
from pipeline.errors import PipelineError
from pipeline.ports import Clock, JobStore, ObjectNotFound, Storage, StoredObject
from pipeline.presentation.publish import behind, mend, named
from pipeline.standing import jobs_of, standing, tombstone
from pipeline.upload_record import State, Upload, of_asset

GRACE_S = 24 * 3600.0
"""Longer than any attempt, any publication, and any pause between an upload and its request."""
RECEIPTS_S = 7 * 24 * 3600.0
"""The receipts of a job are read while it runs, to publish what its steps made; then they are kept for people."""

LATE_MS = 3_600_000
"""An upload that is being completed when its time is over still has so long."""


class Reason(enum.StrEnum):
    """Why something had to go, or to be mended."""

    ORPHAN = "orphan"
    """The whole asset: it was never published, and neither a record nor a job knows it."""
    DELETED = "deleted"
    """The whole asset but its tombstone: its deletion was begun and broke off."""
    TRACK = "track"
    """Segments of one recipe that no version names."""
    VERSION = "version"
    """Playlists that lost the race for their version, or whose publisher died."""
    TEXT = "text"
    """A revision of captions that no version names."""
    RECEIPT = "receipt"
    """What the steps of a job said, which ended long ago."""
    CLAIM = "claim"
    """A taken id whose asset is there."""
    EXPORT = "export"
    """A file that was exported of another part than the one that is played: no document names it."""
    PREVIEW = "preview"
    """The preview of a cut: it is for the moment."""
    MARKER = "marker"
    """A clip that played segments of the asset is deleted, or never came to be."""
    DOOR = "door"
    """Doors that led to an earlier version; they were moved, nothing was removed."""
    UPLOAD = "upload"
    """An upload that was neither completed nor cancelled in its time, and parts of objects that nobody completed."""
    UNREADABLE = "unreadable"
    """A version, an upload or a history has a form that is not known here: the asset was left alone."""


Unit = tuple[Reason, str]
"""What goes or stays together: the prefix of its keys, and why it would go."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing without an owner."""

    reason: Reason
    asset: str = ""
    """Empty for uploads."""
    prefixes: tuple[str, ...] = ()
    """What keys of its objects begin with, in the order in which they go; doors by their whole key."""
    objects: int = 0
    bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Belongings:
    """Everything that lies in storage of one asset, in the order of the keys."""

    asset: str
    objects: tuple[StoredObject, ...]

    def find(self, key: str) -> StoredObject | None:
        return next((stored for stored in self.objects if stored.key == key), None)

    def below(self, *prefixes: str) -> tuple[StoredObject, ...]:
        return tuple(stored for stored in self.objects if stored.key.startswith(prefixes))

    @property
    def markers(self) -> Mapping[str, StoredObject]:
        """Of clips, by their ids."""
        return {stored.key.rpartition("/")[2]: stored for stored in self.below(keys.references(self.asset))}


class _Occupied(Exception):
    """Somebody has begun something new with the asset."""


class Janitor:
    """Goes through a storage, once a call of `sweep`. `open_jobs` tells whether an asset has a job that has not ended.

    Any number of them may run at once, beside any number of workers. Raises what the storage and the store raise; what
    was found until then is removed, and the next run goes on.
    """

    def __init__(
        self,
        storage: Storage,
        store: JobStore,
        open_jobs: Callable[[str], bool],
        clock: Clock,
        *,
        grace_s: float = GRACE_S,
        receipts_s: float = RECEIPTS_S,
        dry_run: bool = False,
    ) -> None:
        self.storage = storage
        self.store = store
        self.open_jobs = open_jobs
        self.clock = clock
        self.grace_s = grace_s
        self.receipts_s = receipts_s
        self.dry_run = dry_run

    def sweep(self) -> Iterator[Finding]:
        """Every finding when it is done (or with `dry_run`: would be). Stopping to read it stops the janitor.

        Memory is one asset's listing, however many there are.
        """
        # The parts before the records, which say whose they are.
        if count := self.storage.sweep_uploads(self.grace_s, abandoned=self._abandoned, dry_run=self.dry_run):
            yield Finding(reason=Reason.UPLOAD, objects=count)
        for held in belongings(self.storage):
            yield from self.look_after(held)

    def look_after(self, held: Belongings) -> Iterator[Finding]:
        """One asset."""
        moment = self._moment(held.asset)
        if self.open_jobs(held.asset):
            return
        try:
            findings = self._findings(held)
        except ObjectNotFound:  # it is being deleted this very moment
            return
        except (PipelineError, ValueError, LookupError, TypeError) as error:
            if isinstance(error, PipelineError) and error.code != "schema_newer":
                raise
            yield Finding(reason=Reason.UNREADABLE, asset=held.asset, objects=len(held.objects))
            return
        yield from (finding for finding in findings if self._settle(finding, moment))

    def _moment(self, asset: str) -> tuple[int, int]:
        """Up to where the store has told the asset's story: no job comes without an event."""
        record = self.store.asset(asset)
        return (record.epoch, record.sequence) if record else (0, 0)

    # -- what is found ------------------------------------------------------------------------------------------------

    def _findings(self, held: Belongings) -> tuple[Finding, ...]:
        """Raises `schema_newer`, and whatever comes of reading what is broken."""
        latest, names = self._named(held.asset)
        stale = frozenset(clip for clip, marker in held.markers.items() if self._is_stale(clip, marker))
        # Whoever came meanwhile is not stale, so this is a question for after the others.
        clips = frozenset(clips_of(self.storage, held.asset)) - stale
        markers = [_finding(Reason.MARKER, held, (key,), held.below(key)) for key in _markers(held.asset, stale)]
        if _to_be_finished(held):
            return self._unburied(held, clips) or tuple(markers)
        if not latest:
            return self._orphaned(held, clips) or (*markers, *self._expired(held))
        garbage = (*self._unnamed(held, names, clips), *self._exported(held))
        return (*self._expired(held), *markers, *garbage, *self._doors(held.asset, latest))

    def _named(self, asset: str) -> tuple[int, frozenset[Unit]]:
        """The latest version, 0 where there is none, and the units that any version names: fewer than the objects."""
        latest, units = 0, set[Unit]()
        for number, names in named(self.storage, asset):
            latest = max(latest, number)
            units.update(unit for unit in map(_unit, names) if unit is not None)
        return latest, frozenset(units)

    def _is_stale(self, clip: str, marker: StoredObject) -> bool:
        """The clip is deleted, or never came to be, and nobody is at work on it: whoever tries it again, also one whose
        record tells of a failure, puts its markers again."""
        if not self._older((marker,), self.grace_s) or self.open_jobs(clip):
            return False
        if tombstone(self.storage, clip) is not None:
            return True
        return next(iter(self.storage.list(keys.versions(clip))), None) is None

    def _is_wanted_again(self, key: str) -> bool:
        """It is the marker of a clip that somebody makes after all."""
        marker = self.storage.stat(key) if _MARKER.fullmatch(key) else None
        return marker is not None and not self._is_stale(key.rpartition("/")[2], marker)

    def _unburied(self, held: Belongings, clips: frozenset[str]) -> tuple[Finding, ...]:
        """What is left of a deleted asset, but for what clips play. What came after the tombstone came from a zombie,
        and may still grow."""
        stone = keys.tombstone(held.asset)
        left = tuple(stored for stored in held.objects if stored.key not in (stone, *_markers(held.asset, clips)))
        late = tuple(stored for stored in left if stored.modified_ms > _when(held.find(stone)))
        if not left or not self._older(late, self.grace_s):
            return ()
        kept = kept_for(self.storage, held.asset, clips)
        if kept is None:
            return ()
        left = tuple(stored for stored in left if folder(stored.key) not in kept)
        public = tuple(beside((stored.key for stored in left), held.asset, kept)) if clips else _public(held.asset)
        private = sorted({_unit_of_private(stored.key) for stored in left if stored.key.startswith(keys.PRIVATE)})
        # Of the markers the living ones were left out already: what is left of them goes one by one.
        stale = [stored.key for stored in left if stored.key.startswith(keys.references(held.asset))] if clips else []
        return (_finding(Reason.DELETED, held, (*public, *private, *stale), left),) if left else ()

    def _orphaned(self, held: Belongings, clips: frozenset[str]) -> tuple[Finding, ...]:
        known = held.find(keys.tombstone(held.asset)) or self.store.asset(held.asset) is not None
        if known or clips or not self._older(held.objects, self.grace_s):
            return ()
        if any(map(self._alive, self._uploads(held))):
            return ()
        prefixes = (*_public(held.asset), f"{keys.PRIVATE}/{held.asset}/", f"{keys.PRIVATE}/{held.asset}.")
        return (_finding(Reason.ORPHAN, held, prefixes, held.objects),)

    def _unnamed(self, held: Belongings, names: frozenset[Unit], clips: frozenset[str]) -> Iterator[Finding]:
        """What lies beside the versions of a living asset."""
        kept = kept_for(self.storage, held.asset, clips)
        for unit, found in groupby(held.objects, key=lambda stored: _unit(stored.key)):
            objects = tuple(found)
            if unit is None or unit in names or _is_clips(unit, kept):
                continue
            reason, prefix = unit
            if self._older(objects, self.receipts_s if reason is Reason.RECEIPT else self.grace_s):
                yield _finding(reason, held, (prefix,), objects)

    def _exported(self, held: Belongings) -> Iterator[Finding]:
        """The file of an export that no document names any more, because another part is played since."""
        file = held.find(keys.mp4(held.asset))
        if file is not None and self._older((file,), self.grace_s) and self._is_left(file.key):
            yield _finding(Reason.EXPORT, held, (file.key,), (file,))

    def _is_left(self, file: str) -> bool:
        """Neither the record nor storage names the file, and not only since a moment ago. Where neither says anything
        of the asset, nobody knows."""
        asset = keys.owner(file) or ""
        record, told = self.store.asset(asset), standing(self.storage, asset)
        documents = [each.document for each in (record, told) if each is not None and each.document]
        changed_ms = max((int(document["lastmod"]) for document in documents), default=self.clock.now_ms())
        return self._is_past(changed_ms, self.grace_s) and not any(_leads_to(document, file) for document in documents)

    def _doors(self, asset: str, version: int) -> Iterator[Finding]:
        if late := behind(self.storage, asset, version):
            yield Finding(reason=Reason.DOOR, asset=asset, prefixes=late, objects=len(late))

    def _older(self, objects: tuple[StoredObject, ...], seconds: float) -> bool:
        return self._is_past(max((stored.modified_ms for stored in objects), default=0), seconds)

    def _is_past(self, moment_ms: int, seconds: float) -> bool:
        return moment_ms < self.clock.now_ms() - seconds * 1000

    # -- uploads ------------------------------------------------------------------------------------------------------

    def _abandoned(self, key: str, handle: str) -> bool | None:
        """Whether the upload to which these parts belong was given up; None: they belong to none, or it is gone."""
        asset = keys.owner(key)
        try:
            uploads = tuple(of_asset(self.storage, asset)) if asset else ()
        except PipelineError as error:
            if error.code != "schema_newer":
                raise
            return False  # they may be of the one that cannot be read here
        for upload in uploads:
            if upload.handle == handle:
                return upload.state is State.COMPLETED or not self._alive(upload)
        return None

    def _alive(self, upload: Upload) -> bool:
        return upload.alive(self.clock.now_ms() - LATE_MS)

    def _uploads(self, held: Belongings) -> Iterator[Upload]:
        return of_asset(self.storage, held.asset) if held.below(keys.uploads(held.asset)) else iter(())

    def _expired(self, held: Belongings) -> Iterator[Finding]:
        """Uploads whose time is over. What was completed stays; what broke off in the middle of it goes."""
        for upload in self._uploads(held):
            if not self._alive(upload):
                record = keys.upload(held.asset, upload.id)
                prefixes = (upload.key, record) if self._is_left_over(held, upload) else (record,)
                yield _finding(Reason.UPLOAD, held, prefixes, held.below(*prefixes))

    def _is_left_over(self, held: Belongings, upload: Upload) -> bool:
        """What lies under its key came of a completion that broke off, and nobody reads it: the jobs of the asset have
        their source from elsewhere."""
        if upload.state is State.COMPLETED:
            return False
        if upload.relationship is not None:  # only a complete one is ever used
            return True
        below = held.below(upload.key)  # `a.mp` begins `a.mp4`, and what is deleted is a prefix
        if [stored.key for stored in below] != [upload.key]:
            return False
        sources = {job.source for job in jobs_of(self.store, self.storage, held.asset)} - {""}
        return bool(sources) and upload.key not in sources

    # -- what is done -------------------------------------------------------------------------------------------------

    def _settle(self, finding: Finding, moment: tuple[int, int]) -> bool:
        """Do what the finding says. False: since that moment another job has come, and nothing (more) was done."""
        if finding.reason is Reason.DOOR:
            if not self.dry_run:
                mend(self.storage, finding.asset)
            return True

        def insist() -> None:
            if self.open_jobs(finding.asset) or self._moment(finding.asset) != moment:
                raise _Occupied

        try:
            for prefix in finding.prefixes:
                insist()
                if self._is_wanted_again(prefix):
                    raise _Occupied
                if not self.dry_run:
                    self.storage.delete(prefix, moved=insist)
        except _Occupied:
            return False
        return True


def belongings(storage: Storage) -> Iterator[Belongings]:
    """Every asset that has objects, by id: both areas are listed side by side, and in both an asset's keys stand
    together."""
    both = merge(*(_owned(storage, area) for area in (keys.PRIVATE, keys.PUBLIC)), key=itemgetter(0))
    for asset, found in groupby(both, key=itemgetter(0)):
        yield Belongings(asset=asset, objects=tuple(stored for _, stored in found))


def _owned(storage: Storage, area: str) -> Iterator[tuple[str, StoredObject]]:
    for stored in storage.list(f"{area}/"):
        if asset := keys.owner(stored.key):
            yield asset, stored


def _to_be_finished(held: Belongings) -> bool:
    """There is a tombstone, and the asset has not come to life again: a new life has facts and a version of its own."""
    stone = held.find(keys.tombstone(held.asset))
    if stone is None:
        return False
    facts = held.find(keys.media(held.asset))
    versions = [stored for stored in held.below(keys.versions(held.asset)) if stored.key.endswith("/presentation.json")]
    return _when(facts) < stone.modified_ms or all(_when(stored) < stone.modified_ms for stored in versions)


def _when(stored: StoredObject | None) -> int:
    return stored.modified_ms if stored else 0


def _markers(asset: str, clips: Iterable[str]) -> list[str]:
    return sorted(keys.reference(asset, clip) for clip in clips)


def _is_clips(unit: Unit, kept: frozenset[str] | None) -> bool:
    """A clip plays it; or could, as long as one has not said what it plays."""
    return unit[0] is Reason.TRACK and (kept is None or unit[1] in kept)


def _leads_to(document: Mapping[str, Any], file: str) -> bool:
    return str(document["video"].get("mp4_url")).endswith(f"/{file}")


def _public(asset: str) -> tuple[str, ...]:
    """The public side, doors first: none leads to what is gone."""
    return (keys.hls_door(asset), keys.dash_door(asset), keys.public(asset))


def _finding(reason: Reason, held: Belongings, prefixes: tuple[str, ...], objects: tuple[StoredObject, ...]) -> Finding:
    size = sum(stored.size for stored in objects)
    return Finding(reason=reason, asset=held.asset, prefixes=prefixes, objects=len(objects), bytes=size)


# -- the forms that may lie beside the versions of a living asset -----------------------------------------------------

_ASSET = r"[A-Za-z0-9-]+"
_FORMS = (
    # A folder goes as a whole; its versions name either much of it or nothing. So do the pieces of one trim.
    (Reason.TRACK, re.compile(rf"{keys.PUBLIC}/{_ASSET}/(?:video|audio|image)-[^/]+/[^/]+/")),
    (Reason.VERSION, re.compile(rf"{keys.PUBLIC}/{_ASSET}/presentations/\d+/[^/]+/")),
    # Captions and the words behind them.
    (Reason.TEXT, re.compile(rf"{keys.PUBLIC}/{_ASSET}/subtitles/[^/]+/[^/.]+\.")),
    (Reason.RECEIPT, re.compile(rf"{keys.PRIVATE}/{_ASSET}/receipts/[^/]+/")),
    (Reason.CLAIM, re.compile(rf"{keys.PRIVATE}/{_ASSET}/claim$")),
    (Reason.PREVIEW, re.compile(rf"{keys.PUBLIC}/{_ASSET}/previews/[^/]+/")),
)


_MARKER = re.compile(rf"{keys.PUBLIC}/{_ASSET}/refs/{_ASSET}")


def _unit(key: str) -> Unit | None:
    """What goes or stays together with this object; None where it always stays."""
    found = ((reason, form.match(key)) for reason, form in _FORMS)
    return next(((reason, match[0]) for reason, match in found if match), None)


def _unit_of_private(key: str) -> str:
    """`private/<asset>.<ext>`, `private/<asset>/<name>` or `private/<asset>/<folder>/`."""
    names = key.split("/")
    return "/".join(names[:3]) + "/" * (len(names) > 3)
