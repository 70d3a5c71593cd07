"""Objects that others bring to a folder in parts: files that they write, and that become one object at the end.

    .reelway/uploads/<key>/.<handle>/00001    the first part
    .reelway/uploads/<key>/.<handle>/whole-…  all of them, which is linked to its place

The URL of a part is a `file:` URL of this machine. A part appears at once where it is written under another name and
renamed; one that is being written is a part of another size until it is whole. Names that are no number are no part.

As long as the parts are there, the link tells the object that came of them from any other, were it of the same bytes.
On a file system without links a completion that was killed is not known again; nothing is lost by that but the upload.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from pipeline.blocks import file_blocks
from pipeline.ports import Begun, ObjectNotFound, PreconditionFailed, StoredObject, StoredPart
from pipeline.storage.naming import check_key

_PART = re.compile(r"\d{5}")
_WHOLE = "whole-"


class _Objects(Protocol):
    """What it needs of the storage that the objects are in."""

    def adopt(self, key: str, file: Path) -> StoredObject: ...

    def stat(self, key: str) -> StoredObject | None: ...

    def local_path(self, key: str) -> Path | None: ...


class FolderMultipart:
    """See the port. `root` is where the parts lie; no file becomes part of `objects` but by a completion."""

    def __init__(self, root: Path, objects: _Objects, translated: Callable[[], AbstractContextManager[None]]) -> None:
        self._root = root
        self._objects = objects
        self._translated = translated

    def begin(self, key: str, name: str) -> str:
        handle = secrets.token_hex(12)
        with self._translated():
            self._folder(key, handle).mkdir(parents=True)
        return handle

    def url(self, key: str, handle: str, number: int, size: int, expires_s: int) -> str:
        """A `file:` URL. It never expires: whoever can use it can write to the folder."""
        return (self._folder(key, handle) / f"{number:05d}").as_uri()

    def parts(self, key: str, handle: str, number: int | None = None) -> Iterator[StoredPart]:
        with self._translated():
            for path in self._files(key, handle):
                if number in (None, int(path.name)):
                    try:
                        yield StoredPart(number=int(path.name), size=path.stat().st_size, etag=_md5(path))
                    except FileNotFoundError:
                        raise ObjectNotFound(key) from None

    def complete(self, key: str, handle: str, name: str, parts: Sequence[StoredPart]) -> StoredObject:
        folder = self._folder(key, handle)
        try:
            with self._translated(), _assembled(key, folder, parts) as whole:
                return self._objects.adopt(key, whole)
        except PreconditionFailed:
            made = self.completed(key, handle, name)
            if made is None:
                raise
            return made

    def completed(self, key: str, handle: str, name: str) -> StoredObject | None:
        """The object, as long as the parts are there."""
        path = self._objects.local_path(key)
        assert path is not None
        with self._translated(), suppress(FileNotFoundError, NotADirectoryError):
            if any(path.samefile(whole) for whole in self._folder(key, handle).glob(f"{_WHOLE}*")):
                return self._objects.stat(key)
        return None

    def abort(self, key: str, handle: str) -> None:
        folder = self._folder(key, handle)
        with self._translated():
            # All parts at once: whoever lists them meanwhile must not find some of them missing.
            gone = folder.with_name(f"{folder.name}.gone")
            with suppress(FileNotFoundError):
                folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            with suppress(OSError):  # others are brought to the same key, or below it
                for empty in folder.relative_to(self._root).parents:
                    (self._root / empty).rmdir()

    def begun(self) -> Iterator[Begun]:
        with self._translated():
            for place, folders, _ in os.walk(self._root):
                for name in [name for name in folders if name.startswith(".")]:
                    folders.remove(name)
                    key = Path(place).relative_to(self._root).as_posix()
                    with suppress(FileNotFoundError):  # completed or given up since it was listed
                        age_s = time.time() - _touched(Path(place) / name)
                        yield Begun(key=key, handle=name.removeprefix("."), age_s=age_s)

    def _folder(self, key: str, handle: str) -> Path:
        return self._root / check_key(key) / f".{handle}"

    def _files(self, key: str, handle: str) -> list[Path]:
        try:
            return sorted(path for path in self._folder(key, handle).iterdir() if _PART.fullmatch(path.name))
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectNotFound(key) from None


@contextmanager
def _assembled(key: str, folder: Path, parts: Sequence[StoredPart]) -> Iterator[Path]:
    """The parts as one synced file, which stays where all goes well. Raises `ObjectNotFound` where one is not what it
    was."""
    path = folder / f"{_WHOLE}{secrets.token_hex(8)}"
    try:
        with path.open("xb") as file:
            for block in _poured(key, folder, parts):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        yield path
    except FileNotFoundError:  # the folder went: it was given up
        raise ObjectNotFound(key) from None
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _poured(key: str, folder: Path, parts: Sequence[StoredPart]) -> Iterator[bytes]:
    """All bytes of the parts. Raises `ObjectNotFound` where one is not what it was."""
    for part in parts:
        digest = hashlib.md5(usedforsecurity=False)
        try:
            for block in file_blocks(folder / f"{part.number:05d}"):
                digest.update(block)
                yield block
        except FileNotFoundError:
            raise ObjectNotFound(key) from None
        if digest.hexdigest() != part.etag:
            raise ObjectNotFound(key)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _touched(folder: Path) -> float:
    times = [folder.stat().st_mtime]
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return max(times)
