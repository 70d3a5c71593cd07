"""What follows from a key alone: whether it is one, and how its object is served.

Every storage asks here, so that a key that one of them takes is a key for all of them, and a file in a folder behind a
web server is described in the same words as an object in a bucket.
"""

from __future__ import annotations

import re

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_PREFIX = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]*(/|$))*")

_MAX_KEY = 1024
"""S3's limit in bytes."""
_MAX_NAME = 255
"""What a file system takes for one component."""

_CONTENT_TYPES = {
    "m3u8": "application/vnd.apple.mpegurl",  # RFC 8216 §4
    "mpd": "application/dash+xml",
    "m4s": "video/iso.segment",
    "mp4": "video/mp4",
    "m4a": "audio/mp4",
    "vtt": "text/vtt; charset=utf-8",
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
}

_PRIVATE = "private, no-store"
_IMMUTABLE = "public, max-age=31536000, immutable"
# A door changes at a flip. Its etag makes the question cheap, so a cache asks again after a few seconds: a viewer who
# starts inside them gets the version before, which is complete.
_DOOR = "public, max-age=5, must-revalidate"


def check_key(key: str) -> str:
    """`key`, if it is one: components of `[A-Za-z0-9._-]` that do not begin with a dot, joined by single slashes.

    So there is no `..`, no hidden file and no absolute path. Raises `ValueError`: keys are ours, a bad one is a bug.
    """
    names = key.split("/")
    if not _KEY.fullmatch(key) or len(key) > _MAX_KEY or max(map(len, names)) > _MAX_NAME:
        raise ValueError(f"not a storage key: {key!r}")
    return key


def check_prefix(prefix: str) -> str:
    """`prefix`, if a key can begin with it: a key, a key with a slash after it, or nothing. Raises `ValueError`."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"no storage key begins with {prefix!r}")
    return prefix


def content_type(key: str) -> str:
    return _CONTENT_TYPES.get(key.rpartition(".")[2], "application/octet-stream")


def cache_control(key: str) -> str:
    """Private objects are for us alone; of the public ones segments and versions never change, doors do (DESIGN §7)."""
    area, _, path = key.partition("/")
    if area == "private":
        return _PRIVATE
    return _IMMUTABLE if _immutable(path) else _DOOR


def _immutable(path: str) -> bool:
    """`<asset>/<track>/<recipe>/<name>`, `<asset>/presentations/…`; a door lies higher or has its own folder."""
    names = path.split("/")
    return len(names) >= 4 and names[1] not in ("thumbnails", "sprite", "subtitles")
