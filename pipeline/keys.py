"""Storage keys (DESIGN §7): every key of the bucket is made here, from `[A-Za-z0-9._/-]` alone.

A user's file name is metadata and never becomes part of a key.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from datetime import date
from functools import lru_cache

from pipeline.tasks import AudioRendition, AudioTask, Rung, TranscodeTask, to_json

PRIVATE = "private"
PUBLIC = "transcoded"

EVENTS = f"{PRIVATE}/archive/events/"
"""Folder of the archive: no asset's id has seven letters."""
HORIZON = f"{PRIVATE}/archive/horizon.json"
SEAL_KEY = f"{PRIVATE}/seal.key"
"""The key that seals the URLs of sources, where the settings have none; no asset's id has four letters."""

NUMBERS = f"{PRIVATE}/numbers/"
"""Folder of the numbers that were given out: no asset's id has seven letters."""

_OWNER = re.compile(
    rf"(?:{PRIVATE}/|{PUBLIC}/)([A-Za-z0-9]{{11}}|[0-9a-fA-F]{{8}}(?:-[0-9a-fA-F]{{4}}){{3}}-[0-9a-fA-F]{{12}})[./]"
)
_EXTENSION = re.compile(r"\.([A-Za-z0-9]{1,5})$")
_QUERY = re.compile(r"[?#].*", re.DOTALL)


def owner(key: str) -> str | None:
    """The asset that an object belongs to; None where it belongs to no asset."""
    match = _OWNER.match(key)
    return match[1] if match else None


def probe(name: str) -> str:
    """Folder in which `reelway doctor` tries a storage."""
    return f"{PRIVATE}/doctor/{name}/"


def events(day: date, first: str) -> str:
    """Archived events of a day, in UTC; `first` names the first of them, so that the keys sort by time."""
    return f"{EVENTS}{day:%Y/%m/%d}/{first}.ndjson"


def number(kind: str, number: int) -> str:
    """Whoever created it has this number."""
    return f"{NUMBERS}{kind}/{number}"


def source(asset: str, name: str) -> str:
    """`private/<asset>.<ext>`; `name` is the path or URL of the source, of which only a harmless extension is kept."""
    # The end of a URL is its query, which may be a secret.
    match = _EXTENSION.search(_QUERY.sub("", name) if "://" in name else name)
    return f"{PRIVATE}/{asset}.{match[1].lower() if match else 'bin'}"


def sources(asset: str) -> str:
    """Prefix of the source, whatever its extension."""
    return f"{PRIVATE}/{asset}."


def private(asset: str) -> str:
    """Folder of what is known of the asset and of its jobs."""
    return f"{PRIVATE}/{asset}/"


def media(asset: str) -> str:
    return f"{PRIVATE}/{asset}/media.json"


def text(asset: str, name: str) -> str:
    """A text that the source brought, as ingest wrote it."""
    return f"{PRIVATE}/{asset}/text/{name}"


def brought(asset: str) -> str:
    """What was stored as the source, and from where: an attempt that comes later need not bring it again."""
    return f"{PRIVATE}/{asset}/brought.json"


def of_source(asset: str) -> tuple[str, ...]:
    """What goes or stays with the source in the asset's private folder, histories among it."""
    told = (histories(asset), digest(asset))
    return (media(asset), text(asset, ""), brought(asset), place(asset), *told, uploads(asset))


def uploads(asset: str) -> str:
    """Folder of what is brought in parts: a record of each upload, and related files."""
    return f"{PRIVATE}/{asset}/uploads/"


def upload(asset: str, id_: str) -> str:
    """The record of an upload: what its start was told."""
    return f"{uploads(asset)}{id_}.json"


def related(asset: str, id_: str, suffix: str) -> str:
    """A file that somebody brought to an asset that is there: a subtitle, a thumbnail."""
    return f"{uploads(asset)}{id_}.{suffix}"


def place(asset: str) -> str:
    """Where a source lies that was not brought into storage, and which content is meant."""
    return f"{PRIVATE}/{asset}/place.json"


def is_ours(source: str) -> bool:
    """The source is an object of this storage; else it is the name of a place elsewhere."""
    return source.startswith(f"{PRIVATE}/")


def claim(asset: str) -> str:
    """An empty object: somebody has taken this id."""
    return f"{PRIVATE}/{asset}/claim"


def history(asset: str, job: str) -> str:
    return f"{histories(asset)}{job}.json"


def histories(asset: str) -> str:
    return f"{PRIVATE}/{asset}/jobs/"


def digest(asset: str) -> str:
    """Which of the histories tell how the asset stands."""
    return f"{PRIVATE}/{asset}/standing.json"


def tombstone(asset: str) -> str:
    """All that is left of a deleted asset."""
    return f"{PRIVATE}/{asset}/deleted.json"


def references(asset: str) -> str:
    """Folder of the markers of clips that play segments of the asset."""
    return f"{PUBLIC}/{asset}/refs/"


def reference(asset: str, clip: str) -> str:
    """An empty object: the clip plays segments of the asset, or is about to."""
    return f"{references(asset)}{clip}"


def receipt(asset: str, job: str, step: str, fence: str) -> str:
    """One object an attempt: a zombie can write its own, never the winner's."""
    return f"{PRIVATE}/{asset}/receipts/{job}/{step}.{fence}.json"


def public(asset: str) -> str:
    return f"{PUBLIC}/{asset}/"


def track(asset: str, name: str, recipe: str) -> str:
    """Folder of a track's segments."""
    return f"{PUBLIC}/{asset}/{name}/{recipe}/"


def version(asset: str, number: int) -> str:
    """Folder of the n-th presentation."""
    return f"{PUBLIC}/{asset}/presentations/{number:04d}/"


def versions(asset: str) -> str:
    return f"{PUBLIC}/{asset}/presentations/"


def previews(asset: str) -> str:
    """Folder of the previews of cuts that nobody made yet."""
    return f"{PUBLIC}/{asset}/previews/"


def preview(asset: str, name: str) -> str:
    """Folder of one preview: doors of its own, and everything that they name but segments."""
    return f"{previews(asset)}{name}/"


def subtitle(asset: str, name: str, revision: str, suffix: str) -> str:
    """One revision of a text track: `subtitles/<track>/<revision>.vtt`, and its words as `.words.json`. Immutable."""
    return f"{PUBLIC}/{asset}/subtitles/{name}/{revision}.{suffix}"


def hls_door(asset: str) -> str:
    return f"{PUBLIC}/{asset}/video.m3u8"


def dash_door(asset: str) -> str:
    return f"{PUBLIC}/{asset}/video.mpd"


def mp4(asset: str) -> str:
    """What an export made last."""
    return f"{PUBLIC}/{asset}/video.mp4"


def relative(key: str, folder: str) -> str:
    """The way from a folder to an object. A playlist asks for thousands in one other folder."""
    place, _, name = key.rpartition("/")
    way = _way(place, folder)
    return name if way == "." else f"{way}/{name}"


@lru_cache(maxsize=256)
def _way(place: str, folder: str) -> str:
    return posixpath.relpath(place, folder)


def recipe(rendition: Rung | AudioRendition, task: TranscodeTask | AudioTask) -> str:
    """Name of everything that decides the bytes of a track: source, what is known of it, rung, encoder build and grid.

    What is known counts as the bytes do: a picture that an older ingest took for SDR is another one.
    """
    # A sound's rendition holds its stream.
    picture = to_json(task.video) if isinstance(task, TranscodeTask) else ""
    text = "\n".join((to_json(rendition), picture, to_json(task.timeline), task.encoder, task.source_sha256))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
