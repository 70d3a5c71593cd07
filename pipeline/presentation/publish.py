"""Publishing: the protocol by which a version becomes public, whoever races and whoever dies (DESIGN §7).

The law: `presentations/<000n>/presentation.json` is the version. It is written once, create-only, and last: whoever
sees it may rely on everything that it names. The order of a publication is

    1. media playlists and captions, in any order, in a folder of the version's own that is named by a digest of what
       they say;
    2. `presentation.json`, create-only: of many writers of version n one wins;
    3. the doors, by compare-and-swap, never to a lower version.

The digest keeps racers apart: two that composed different versions n write to different folders, so the winner's holds
nothing of the loser's, and two attempts of the same work meet each other's files, which are equal. A crash before 2
leaves files that nothing names (the loser removes its own; the janitor finds the others: whatever lies in a version's
folder beside `presentation.json` and the folder that it names). A crash after 2 leaves doors that lag behind: each is
whole and leads to a whole version, and `mend`, which any later attempt begins with, moves them on.

A publisher may sleep at any point and wake when its job has long ended. So it asks whether the step is still its own
right before the JSON and before each door; what it was about to write at that very moment it may still write, and
whoever learns afterwards that the step was lost tidies behind itself (`pipeline.tidy`).

The doors' text is rendered from the JSON alone, so whoever comes next can finish the work of one who died.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.ports import ObjectNotFound, PreconditionFailed, Storage
from pipeline.presentation.caption_cutting import cut_captions
from pipeline.presentation.dash import render_dash
from pipeline.presentation.edits import in_force
from pipeline.presentation.hls import render_master, render_playlists
from pipeline.presentation.model import SCHEMA, Edit, Effect, Presentation, marked_version
from pipeline.storage.side_by_side import SideBySide
from pipeline.tasks import from_json, to_json

Composer = Callable[[Presentation | None], Presentation]
"""The next version on top of the given one (None: there is none yet). Called once more after every lost race."""


class NoLongerOurs(Exception):
    """The step that publishes was taken over, or its job has ended: nothing more was written."""


def _always() -> bool:
    return True


def _untold() -> None:
    pass


_JSON = "presentation.json"
_VERSION = re.compile(r"(\d{4,})/presentation\.json")
_TAIL = 128 * 1024
"""Bytes at the end of a version that mostly hold all that comes after its tracks."""
_TRIES = 100
"""Races that one publication may lose. Each is another's success, so an asset would need as many jobs at once."""


def publish(
    storage: Storage,
    asset: str,
    effect: Effect,
    compose: Composer,
    *,
    known: Presentation | None = None,
    begin: Callable[[], None] = _untold,
    still_ours: Callable[[], bool] = _always,
    moved: Callable[[], None] = _untold,
) -> Presentation:
    """Make the change `effect` public, once: returns the first version that has it, with the doors at the latest.

    `compose` answers with the next version, with `effect` among its effects; when it raises, nothing was written by
    this call, and nothing will be. `known` is a version that the caller has seen. `begin` is called before anything is
    written, and again after every lost race. `still_ours` is asked before whatever a reader could see is written;
    `NoLongerOurs` is raised when it is not. `moved` is called for every object before the JSON, and may raise to stop.
    Raises what the storage raises; calling again then completes what was begun, and never applies the effect twice.
    """
    for _ in range(_TRIES):
        previous = known = latest(storage, asset, known)
        if previous is not None and effect in previous.effects:
            begin()
            mend(storage, asset, known=previous, still_ours=still_ours)
            return _first_with(storage, effect, previous)
        composed = compose(previous)
        begin()
        presentation, files = _named(composed, _captions(storage, composed, moved))
        if _claim(storage, presentation, files, still_ours, moved):
            mend(storage, asset, known=presentation, still_ours=still_ours)
            return presentation
    raise _contended(asset)


def latest(storage: Storage, asset: str, known: Presentation | None = None) -> Presentation | None:
    """The highest version of the asset, or None where nothing was published yet.

    Costs no more for an asset with ten thousand versions: a door says where to begin. One that leads to what is not
    there is not believed, and whatever lies there is looked through. Whoever knows a version already begins there: as
    long as it is the latest one, that costs a look.
    """
    number = _last(storage, asset, known.version if known else _leads_to(storage, keys.hls_door(asset)))
    if known is not None and number == known.version:
        return known
    found = version(storage, asset, number) if number else None
    if number and found is None:
        numbers = _numbers(storage, asset)
        return _load(storage, asset, max(numbers)) if numbers else None
    return found


def version(storage: Storage, asset: str, number: int) -> Presentation | None:
    """The `number`-th version, or None where there is none. Raises `schema_newer`."""
    try:
        return _load(storage, asset, number)
    except ObjectNotFound:
        return None


def versions(storage: Storage, asset: str) -> Iterator[tuple[int, int]]:
    """(number, when it was published in milliseconds since 1970) of every version, newest first, as they are asked for.

    Each costs a look, none is loaded.
    """
    newest = latest(storage, asset)
    for number in range(newest.version if newest else 0, 0, -1):
        if (stored := storage.stat(_json_key(asset, number))) is not None:
            yield number, stored.modified_ms


def edits(storage: Storage, asset: str, number: int) -> tuple[Edit, ...]:
    """What the `number`-th version plays, and would after a revert; none where everything, or there is no such version.

    The tracks of a long asset are megabytes: what comes after them is read alone. Raises `schema_newer`.
    """
    said = _end(storage, _json_key(asset, number)) or version(storage, asset, number)
    return tuple(edit for edit in (said.edit, said.base) if edit is not None) if said is not None else ()


def mend(
    storage: Storage,
    asset: str,
    *,
    known: Presentation | None = None,
    still_ours: Callable[[], bool] = _always,
) -> Presentation | None:
    """Move doors that lag behind to the latest version, and return it. Idempotent; any worker may do it at any time.

    Raises `NoLongerOurs` where a door is to be moved and `still_ours` says no. `known` is as `latest` takes it.
    """
    presentation = latest(storage, asset, known)
    if presentation is not None:
        for key, text in render_doors(presentation).items():
            _flip(storage, key, text, presentation, still_ours)
    return presentation


def behind(storage: Storage, asset: str, version: int) -> tuple[str, ...]:
    """The doors that lead to a lower version, or nowhere."""
    return tuple(key for key in (keys.hls_door(asset), keys.dash_door(asset)) if _leads_to(storage, key) < version)


def named(storage: Storage, asset: str) -> Iterator[tuple[int, frozenset[str]]]:
    """What every version names, as keys: its own JSON, the folder of its playlists (with a slash at its end), and every
    object that it says anything of. One after the other: those of all could be more than memory holds.

    Raises `schema_newer` where a version has a form that is not known here.
    """
    for number in _numbers(storage, asset):
        data = json.loads(storage.get(_json_key(asset, number)))
        _known_form(data, asset, number)
        folder = f"{keys.version(asset, number)}{data['playlists']}/"
        yield number, frozenset({_json_key(asset, number), folder, *_texts(data)})


def render_doors(presentation: Presentation) -> dict[str, str]:
    """The stable doors of the asset, by storage key."""
    return {
        keys.hls_door(presentation.asset): render_master(presentation),
        keys.dash_door(presentation.asset): render_dash(presentation),
    }


# -- a version --------------------------------------------------------------------------------------------------------


def _numbers(storage: Storage, asset: str) -> list[int]:
    """Every version of the asset, in no order."""
    root = keys.versions(asset)
    found = (_VERSION.fullmatch(stored.key.removeprefix(root)) for stored in storage.list(root))
    return [int(match[1]) for match in found if match]


def _last(storage: Storage, asset: str, known: int) -> int:
    """The last version from `known` on, each of which was made on the one before: there is none without it."""

    def there(number: int) -> bool:
        return storage.stat(_json_key(asset, number)) is not None

    step = 1
    while there(known + step):
        known, step = known + step, step * 2
    while step > 1:
        step //= 2
        known += step if there(known + step) else 0
    return known


def _first_with(storage: Storage, effect: Effect, known: Presentation) -> Presentation:
    """The version that brought the effect. `known` has it: those between keep it, and those before it have it not."""
    first, none, step = known, 0, 1

    def look(number: int) -> None:
        nonlocal first, none
        seen = version(storage, known.asset, number)
        if seen is not None and effect in seen.effects:
            first = seen
        else:
            none = number

    # Mostly it is one of the latest: who asks for an older one doubles the stride.
    while none == 0 and first.version > 1:
        look(max(1, known.version - step))
        step *= 2
    while first.version - none > 1:
        look((first.version + none) // 2)
    return first


def _captions(storage: Storage, presentation: Presentation, moved: Callable[[], None]) -> dict[str, bytes]:
    """The stored captions by track."""
    texts = {}
    for track in presentation.text:
        texts[track.id] = storage.get(track.segments[0].key)
        moved()
    return texts


def _named(presentation: Presentation, captions: Mapping[str, bytes]) -> tuple[Presentation, Mapping[str, bytes]]:
    """With the name of its playlists' folder, and a nonce that no other attempt has; and what lies in that folder."""
    # What a playlist says depends on how deep its folder lies, not on its name: any name serves to render them.
    nameless = replace(presentation, playlists="-")
    files = _files(nameless, captions)
    whole = replace(presentation, playlists=_digest(files), nonce=secrets.token_hex(8))
    return whole, {whole.folder + key.removeprefix(nameless.folder): body for key, body in files.items()}


def _files(presentation: Presentation, captions: Mapping[str, bytes]) -> dict[str, bytes]:
    """What lies in the version's own folder, by storage key. `captions` are the stored ones, by track."""
    texts = {presentation.captions(track): captions[track.id] for track in presentation.text}
    if edit := in_force(presentation):
        texts = {key: cut_captions(text, *edit.range) for key, text in texts.items()}
    return texts | {key: text.encode() for key, text in render_playlists(presentation).items()}


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for key, body in sorted(files.items()):
        digest.update(f"{key} {len(body)}\n".encode() + body)
    return digest.hexdigest()[:12]


def _claim(
    storage: Storage,
    presentation: Presentation,
    files: Mapping[str, bytes],
    still_ours: Callable[[], bool],
    moved: Callable[[], None],
) -> bool:
    """Write the version. False: another has it; nothing of ours is left behind."""
    with SideBySide(moved) as several:
        for key, body in files.items():
            several.do(partial(_keep, storage, key, body))
    _insist_on(still_ours)
    if _create(storage, presentation):
        return True
    winner = _load(storage, presentation.asset, presentation.version)
    if winner.nonce == presentation.nonce:  # our own write, whose reply was lost
        return True
    if winner.folder != presentation.folder:
        # Whoever else wrote there composed the same version, and has lost it too.
        storage.delete(presentation.folder)
    return False


def _keep(storage: Storage, key: str, body: bytes) -> None:
    with suppress(PreconditionFailed):  # an earlier attempt of the same work wrote the same there
        storage.put(key, body, absent=True)


def _create(storage: Storage, presentation: Presentation) -> bool:
    key, body = _json_key(presentation.asset, presentation.version), to_json(presentation).encode()
    try:
        storage.put(key, body, absent=True)
    except PreconditionFailed:
        return False
    except PipelineError as error:
        if error.code != "storage_unavailable" or storage.stat(key) is None:
            raise
        return False  # it is there: our own, or another's
    return True


def _load(storage: Storage, asset: str, number: int) -> Presentation:
    text = storage.get(_json_key(asset, number))
    try:
        found = from_json(Presentation, text)
    except ValueError:  # a newer form need not be readable
        _known_form(json.loads(text), asset, number)
        raise
    _known_form(vars(found), asset, number)
    return found


@dataclass(frozen=True, kw_only=True)
class _End:
    """What a stored version says after its tracks."""

    edit: Edit | None
    base: Edit | None
    schema: int


def _end(storage: Storage, key: str) -> _End | None:
    """None where it is not to be had without the rest: a form that is older or newer, or there is nothing."""
    if (stored := storage.stat(key)) is None:
        return None
    tail = storage.get(key, max(0, stored.size - _TAIL))
    # Inside of a JSON text quotes are escaped: this is a name, and no track has a field of that name.
    _, name, rest = tail.partition(b'"edit":')
    with suppress(ValueError):
        end = from_json(_End, b"{" + name + rest)
        return end if end.schema <= SCHEMA else None
    return None


def _known_form(data: Mapping[str, Any], asset: str, number: int) -> None:
    if (found := int(data["schema"])) > SCHEMA:
        raise PipelineError("schema_newer", what=f"presentation {number} of {asset}", found=found, known=SCHEMA)


def _texts(data: object) -> Iterator[str]:
    """Every text in JSON data: a field that this worker does not know may name an object, too."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, Mapping):
        for value in data.values():
            yield from _texts(value)
    elif isinstance(data, list):
        for value in data:
            yield from _texts(value)


def _json_key(asset: str, number: int) -> str:
    return keys.version(asset, number) + _JSON


# -- the doors --------------------------------------------------------------------------------------------------------


def _insist_on(still_ours: Callable[[], bool]) -> None:
    if not still_ours():
        raise NoLongerOurs


def _leads_to(storage: Storage, door: str) -> int:
    """The version that a door leads to; 0 where there is no door, or it does not say."""
    try:
        return marked_version(storage.get(door).decode(errors="replace"))
    except ObjectNotFound:
        return 0


def _flip(storage: Storage, key: str, text: str, presentation: Presentation, still_ours: Callable[[], bool]) -> None:
    """Point a door to this version, unless it leads to it or to a higher one already."""
    for _ in range(_TRIES):
        with suppress(PreconditionFailed, ObjectNotFound):  # somebody moved it meanwhile: look again
            # The etag first: if the door moves before it is read, the swap fails.
            seen = storage.stat(key)
            if seen is None:
                _insist_on(still_ours)
                storage.put(key, text.encode(), absent=True)
            elif marked_version(storage.get(key).decode(errors="replace")) < presentation.version:
                _insist_on(still_ours)
                storage.put(key, text.encode(), match=seen.etag)
            return
    raise _contended(presentation.asset)


def _contended(asset: str) -> PipelineError:
    return PipelineError("storage_unavailable", reason=f"too many writers publish {asset} at once")
