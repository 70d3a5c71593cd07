"""Clips: who plays objects of whom, and what stays for them when that asset is deleted.

The presentation of a clip names objects of the asset that it was cut from; of a clip of a clip, those of the first one,
and maybe the pieces at the cuts of the one between. At each of these assets lies a marker,
`transcoded/<asset>/refs/<clip>`, from before the clip is published until it is deleted. A clip's first version names
everything of others that any later one does: its range never grows.

The law: a clip writes its markers, then looks whether the asset that it is cut from is deleted; a deletion writes the
tombstone, then looks for markers. Of the two one sees the other. It is enough to look at that one asset: where a first
one is deleted already, the clip between holds it, and gives it free only after its own tombstone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress

from pipeline import keys
from pipeline.ports import ObjectNotFound, Storage
from pipeline.presentation.model import Presentation

_KEY = re.compile(rf'"({keys.PUBLIC}/[A-Za-z0-9._/-]+)"')


def mark(storage: Storage, clip: str, parents: Iterable[str]) -> None:
    """Say that the clip will play objects of these assets. Anybody may, twice as well; and then looks whether the asset
    that it is cut from is deleted."""
    for parent in sorted(set(parents) - {clip}):
        storage.put(keys.reference(parent, clip), b"")


def unmark(storage: Storage, clip: str, parents: Iterable[str]) -> None:
    """The clip plays nothing of these assets any more."""
    for parent in parents:
        storage.delete(keys.reference(parent, clip))


def clips_of(storage: Storage, asset: str) -> tuple[str, ...]:
    """Clips that have a marker at the asset: they play objects of it, are about to, or were."""
    return tuple(stored.key.rpartition("/")[2] for stored in storage.list(keys.references(asset)))


def parents_of(storage: Storage, asset: str) -> frozenset[str]:
    """The assets of which it names objects: none, unless it is a clip that was published."""
    owners = {keys.owner(key) for key in _names(storage, asset) or ()} - {asset, None}
    return frozenset(owner for owner in owners if owner)


def owners(shown: Presentation) -> frozenset[str]:
    """The assets whose objects whoever plays this plays: those of its tracks and of the pieces at its cuts. Text is not
    shared: each has its own."""
    media = [track for track in shown.tracks if track.kind != "text"]
    inits = (track.init for track in media)
    firsts = (segment.key for track in media for segment in track.segments[:1])
    patches = [patch for edit in (shown.edit, shown.base) if edit for patch in edit.patches]
    pieces = (key for patch in patches for piece in (*patch.head, *patch.tail) for key in (piece.key, piece.init))
    return frozenset(owner for key in (*inits, *firsts, *pieces) if (owner := keys.owner(key)))


def kept_for(storage: Storage, asset: str, clips: Iterable[str]) -> frozenset[str] | None:
    """The folders of the asset's objects that these clips name. None: one of them has not said yet what it plays."""
    kept: set[str] = set()
    for clip in clips:
        names = _names(storage, clip)
        if names is None:
            return None
        kept |= {folder(key) for key in names if key.startswith(keys.public(asset))}
    return frozenset(kept)


def beside(objects: Iterable[str], asset: str, kept: Collection[str]) -> Iterator[str]:
    """Prefixes of everything public of the asset that lies neither in these folders nor among the markers: of whole
    folders, the highest; of single objects, their keys."""
    root = keys.public(asset)
    stay = {above for each in (*kept, keys.references(asset)) for above in _above(each, root)} | {root}
    seen: set[str] = set()
    for key in objects:
        if not key.startswith(root) or folder(key) in kept or key.startswith(keys.references(asset)):
            continue
        prefix = next((above for above in _above(folder(key), root) if above not in stay), key)
        if prefix not in seen and not any(each.startswith(prefix) for each in stay):
            seen.add(prefix)
            yield prefix


def folder(key: str) -> str:
    return key.rpartition("/")[0] + "/"


def _above(path: str, root: str) -> list[str]:
    """The folders on the way from below `root` to `path`, the highest first."""
    names = path.removeprefix(root).split("/")[:-1]
    return [root + "/".join(names[: count + 1]) + "/" for count in range(len(names))]


def _names(storage: Storage, asset: str) -> frozenset[str] | None:
    """What the first version names; None where there is none."""
    with suppress(ObjectNotFound):
        text = storage.get(f"{keys.version(asset, 1)}presentation.json").decode()
        return frozenset(match[1] for match in _KEY.finditer(text))
    return None
