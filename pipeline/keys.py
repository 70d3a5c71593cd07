"""Storage keys (DESIGN §7): every key of the bucket is made here, from `[A-Za-z0-9._/-]` alone.

A user's file name is metadata and never becomes part of a key.
"""

from __future__ import annotations

import hashlib
import re

from pipeline.tasks import AudioRendition, Rung, Timeline, to_json

PRIVATE = "private"
PUBLIC = "transcoded"

_EXTENSION = re.compile(r"\.([A-Za-z0-9]{1,5})$")


def source(asset: str, name: str) -> str:
    """`private/<asset>.<ext>`; `name` is the path of the source, of which only a harmless extension is kept."""
    match = _EXTENSION.search(name)
    return f"{PRIVATE}/{asset}.{match[1].lower() if match else 'bin'}"


def media(asset: str) -> str:
    return f"{PRIVATE}/{asset}/media.json"


def claim(asset: str) -> str:
    """An empty object: somebody has taken this id."""
    return f"{PRIVATE}/{asset}/claim"


def history(asset: str, job: str) -> str:
    return f"{PRIVATE}/{asset}/jobs/{job}.json"


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


def subtitle(asset: str, name: str, revision: str, suffix: str) -> str:
    """One revision of a text track: `subtitles/<track>/<revision>.vtt`, and its words as `.words.json`. Immutable."""
    return f"{PUBLIC}/{asset}/subtitles/{name}/{revision}.{suffix}"


def hls_door(asset: str) -> str:
    return f"{PUBLIC}/{asset}/video.m3u8"


def dash_door(asset: str) -> str:
    return f"{PUBLIC}/{asset}/video.mpd"


def recipe(rendition: Rung | AudioRendition, timeline: Timeline, encoder: str, source_sha256: str) -> str:
    """Name of everything that decides the bytes of a track: source, rung, encoder build and grid."""
    text = "\n".join((to_json(rendition), to_json(timeline), encoder, source_sha256))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
