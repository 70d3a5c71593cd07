"""The storage on a folder. The law: an object appears, changes and disappears whole, whoever dies in the middle.

A write goes to a temporary file beside the objects, is synced, and becomes the object in one step of the file system:

- create-only: `link()`, which fails where there is an object, so one of many writers wins;
- otherwise: `rename()` under the lock, so that nothing moves between comparing an etag and replacing the object.

The etag is (size, modification time in ns, inode), not a hash: asking after a source of ten gigabytes must not read it,
nor may listing an asset read its segments. It is strong all the same, because we set the time ourselves: a replacement
is always dated later than what it replaces, on one machine's clock or another's, so no key has the same etag twice.

`.reelway/` under the root holds the temporary files, the parts of what others bring (`folder_multipart`) and the lock;
no key begins with a dot, so nothing there is ever listed. The lock is `flock`: it dies with its holder.
On a file system that ignores case, keys that differ in case alone are one object.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.ports import Abandoned, Body, Moved, ObjectNotFound, PreconditionFailed, StoredObject, nobody_knows
from pipeline.storage.folder_multipart import FolderMultipart
from pipeline.storage.naming import check_key, check_prefix
from pipeline.storage.unfinished import sweep

HIDDEN = ".reelway"
_ABANDONED_S = 24 * 3600
"""A temporary file that nobody has written to for so long belongs to a process that died."""
_BATCH = 100
"""Objects that a deletion removes before it asks again."""
_COPY_BYTES = 16 * 1024**2
_SYNC_BLOCKS = 16

# Some file systems (exFAT, many network mounts) have no hard links; these are the ways they say so.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
# `copy_file_range` across devices, on old kernels or special files: copy by hand.
_NO_RANGE_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF, errno.ETXTBSY}

_FULL = {errno.ENOSPC, errno.EDQUOT}
# No permission, or a file where a folder is needed: nothing that passes by itself.
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}


class FolderStorage:
    """Objects as files below `root`, which is made when it is first needed. Safe for threads and processes."""

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.abspath(root))
        self._tidied = False
        self.multipart = FolderMultipart(self._root / HIDDEN / "uploads", self, self._translated)

    def __repr__(self) -> str:
        return f"FolderStorage({str(self._root)!r})"

    # -- the port -----------------------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        body: Body,
        *,
        absent: bool = False,
        match: str | None = None,
        moved: Moved | None = None,
    ) -> StoredObject:
        """See the port. A file is copied (its blocks are shared where the file system can), never linked.

        Raises `OSError` where the file `body` cannot be opened: that is the caller's file, not the storage's.
        """
        path = self._path(key)
        if absent and match is not None:
            raise ValueError("an object cannot be absent and match")
        with _source(body) as source, self._translated():
            self._tidy()
            with self._temporary(source, moved) as temporary:
                status = self._create(temporary, path) if absent else self._replace(temporary, path, match)
            return _stored(key, status)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        path = self._path(key)
        if offset < 0 or (length is not None and length < 0):
            raise ValueError("offset and length count bytes from the start")
        with self._translated():
            try:
                with path.open("rb") as file:
                    file.seek(offset)
                    return file.read(-1 if length is None else length)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise ObjectNotFound(key) from None

    def stat(self, key: str) -> StoredObject | None:
        path = self._path(key)
        with self._translated():
            return self._stat(key, path)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        folder, _, start = check_prefix(prefix).rpartition("/")
        with self._translated():
            yield from self._walk(folder + "/" if folder else "", start)

    def delete(self, prefix: str, *, moved: Moved | None = None) -> int:
        """See the port; folders that become empty go as well. Raises `ValueError` on an empty prefix: no wish to delete
        everything is ever meant."""
        if not prefix:
            raise ValueError("an empty prefix would delete everything")
        count = 0
        for number, stored in enumerate(self.list(prefix)):
            if moved is not None and number % _BATCH == 0:
                moved()
            with self._translated(), self._locked():
                with suppress(FileNotFoundError):
                    self._path(stored.key).unlink()
                    count += 1
                self._prune(self._path(stored.key).parent)
        return count

    def presign(self, key: str, expires_s: int) -> str:
        """A `file:` URL. It never expires: whoever can use it can read the folder."""
        return self._path(key).as_uri()

    def sweep_uploads(self, older_than_s: float, *, abandoned: Abandoned = nobody_knows, dry_run: bool = False) -> int:
        """See the port: temporary files of processes that died (a living one writes to its file all the time), and
        parts that nobody put together."""
        count = self._sweep_temporary(older_than_s, dry_run=dry_run)
        return count + sweep(self.multipart, older_than_s, abandoned, dry_run=dry_run)

    def _sweep_temporary(self, older_than_s: float, *, dry_run: bool = False) -> int:
        oldest = time.time() - older_than_s
        count = 0
        with self._translated(), suppress(FileNotFoundError):
            for entry in os.scandir(self._root / HIDDEN / "tmp"):
                with suppress(FileNotFoundError):
                    if entry.stat().st_mtime < oldest:
                        if not dry_run:
                            os.unlink(entry.path)
                        count += 1
        return count

    def local_path(self, key: str) -> Path | None:
        return self._path(key)

    def adopt(self, key: str, file: Path) -> StoredObject:
        """Make a whole and synced file of this storage's own an object, create-only; its name stays where the file
        system has links. Raises `PreconditionFailed`, and `ObjectNotFound` where the file is gone."""
        path = self._path(key)
        with self._translated():
            try:
                return _stored(key, self._create(file, path))
            except FileNotFoundError:
                raise ObjectNotFound(file.name) from None

    # -- writing ------------------------------------------------------------------------------------------------------

    def _create(self, temporary: Path, path: Path) -> os.stat_result:
        # The shared lock keeps `delete` from removing the folder between making it and linking into it.
        with self._locked(shared=True):
            self._make(path.parent)
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise PreconditionFailed(path.name) from None
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
            else:
                _sync(path.parent)
                return temporary.stat()
        return self._create_without_links(temporary, path)

    def _create_without_links(self, temporary: Path, path: Path) -> os.stat_result:
        with self._locked():
            if path.exists():
                raise PreconditionFailed(path.name)
            return self._move(temporary, path)

    def _replace(self, temporary: Path, path: Path, match: str | None) -> os.stat_result:
        with self._locked():
            current = self._stat("", path)
            if match is not None and (current is None or current.etag != match):
                raise PreconditionFailed(path.name)
            if current is not None:
                _date_after(temporary, path)
            return self._move(temporary, path)

    def _move(self, temporary: Path, path: Path) -> os.stat_result:
        self._make(path.parent)
        status = temporary.stat()
        temporary.replace(path)
        _sync(path.parent)
        return status

    @contextmanager
    def _temporary(self, source: bytes | int | Iterator[bytes], moved: Moved | None) -> Iterator[Path]:
        """A synced file in the hidden folder with the content of `source`; gone afterwards, whatever happens."""
        self._make(self._root / HIDDEN / "tmp")
        path = self._root / HIDDEN / "tmp" / secrets.token_hex(12)
        try:
            # 0o666: the umask decides who else may read, as for any file; a web server might.
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
            try:
                _fill(file, source, moved or _untold)
                _date(file, time.time_ns())
                os.fsync(file)
            finally:
                os.close(file)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _tidy(self) -> None:
        """Remove what processes that died left behind, once a process."""
        if not self._tidied:
            self._tidied = True
            self._sweep_temporary(_ABANDONED_S)

    @contextmanager
    def _locked(self, *, shared: bool = False) -> Iterator[None]:
        """The storage's one lock, for as long as a few system calls take. Closing the file gives it back."""
        self._make(self._root / HIDDEN)
        file = os.open(self._root / HIDDEN / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

    def _make(self, folder: Path) -> None:
        """Make `folder`, and sync each new one into its parent: a synced file in a lost folder is lost."""
        if folder.is_dir():
            return
        if folder != folder.parent:
            self._make(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir()
            _sync(folder.parent)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "an object lies where a folder is needed", str(folder))

    def _prune(self, folder: Path) -> None:
        """Remove `folder` and those above it while they are empty, up to the root."""
        with suppress(OSError):
            while folder != self._root:
                folder.rmdir()
                folder = folder.parent

    # -- reading ------------------------------------------------------------------------------------------------------

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _stat(self, key: str, path: Path) -> StoredObject | None:
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _stored(key, status) if path.is_file() else None

    def _walk(self, folder: str, start: str) -> Iterator[StoredObject]:
        """Objects below `folder` whose next name begins with `start`.

        A folder sorts with its slash (`a.b` before `a/b`): that is the order of the whole keys.
        """
        try:
            entries = [entry for entry in os.scandir(self._root / folder) if entry.name.startswith(start)]
        except (FileNotFoundError, NotADirectoryError):
            return
        names = (entry.name + "/" * entry.is_dir() for entry in entries if not entry.name.startswith("."))
        for name in sorted(names):
            if name.endswith("/"):
                yield from self._walk(folder + name, "")
            elif (stored := self._stat(folder + name, self._root / folder / name)) is not None:
                yield stored

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The one border where the system's errors become ours."""
        try:
            yield
        except OSError as error:
            raise _translate(error, self._root) from error


def _translate(error: OSError, root: Path) -> PipelineError:
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    if error.errno in _FULL:
        return PipelineError("storage_full", where=str(root), log=str(error))
    if error.errno in _FORBIDDEN:
        return PipelineError("storage_forbidden", reason=f"{reason} in {root}", log=str(error))
    return PipelineError("storage_unavailable", reason=f"{reason} in {root}", log=str(error))


@contextmanager
def _source(body: Body) -> Iterator[bytes | int | Iterator[bytes]]:
    """Bytes and blocks as they are; a file as an open descriptor."""
    if not isinstance(body, Path):
        yield body
        return
    with body.open("rb") as file:
        yield file.fileno()


def _untold() -> None:
    pass


def _fill(target: int, source: bytes | int | Iterator[bytes], moved: Moved) -> None:
    if isinstance(source, int):
        _copy(source, target, moved)
    elif isinstance(source, bytes):
        _write(target, source)
    else:
        _pour(source, target, moved)


def _write(target: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(target, rest) :]


def _pour(blocks: Iterator[bytes], target: int, moved: Moved) -> None:
    """Write blocks as they come; `moved` hears of every `_COPY_BYTES` of them.

    A thread syncs what is written while more comes: the last sync finds little to do, and a slow disk slows the blocks.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="sync") as pool:
        written, syncing = 0, None
        for block in blocks:
            _write(target, block)
            written += len(block)
            if written >= 4 * _COPY_BYTES:
                if syncing is not None:
                    syncing.result()
                syncing, written = pool.submit(os.fsync, target), 0
                moved()
        if syncing is not None:
            syncing.result()


def _copy(source: int, target: int, moved: Moved) -> None:
    """Copy a whole file. The kernel shares the blocks (reflink) on file systems that can."""
    moved = _synced(target, moved)
    try:
        while os.copy_file_range(source, target, _COPY_BYTES):
            moved()
    except (AttributeError, OSError) as error:  # AttributeError: there is no such call outside Linux
        if isinstance(error, OSError) and error.errno not in _NO_RANGE_COPY:
            raise
    # From where the kernel stopped: usually the end. /proc and some FUSE mounts answer 0 before it.
    while block := os.read(source, _COPY_BYTES):
        _write(target, block)
        moved()


def _synced(target: int, moved: Moved) -> Moved:
    """`moved` for every block of a copy, with what is written so far on the disk now and then.

    Else the last sync would write gigabytes at once, for minutes in which nothing seems to move.
    """
    blocks = count(1)

    def told() -> None:
        if next(blocks) % _SYNC_BLOCKS == 0:
            os.fsync(target)
        moved()

    return told


def _date(file: int | Path, mtime_ns: int) -> None:
    # Our own time: the kernel's is only as fine as its tick, too coarse to tell two writes apart.
    os.utime(file, ns=(mtime_ns, mtime_ns))


def _date_after(new: Path, old: Path) -> None:
    previous = old.stat().st_mtime_ns
    if new.stat().st_mtime_ns <= previous:
        _date(new, previous + 1)


def _sync(folder: Path) -> None:
    """Make a new or renamed entry of `folder` durable."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync a folder and need not
            raise
    finally:
        os.close(file)


def _stored(key: str, status: os.stat_result) -> StoredObject:
    etag = f"{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ino:x}"
    return StoredObject(key=key, size=status.st_size, etag=etag, modified_ms=status.st_mtime_ns // 1_000_000)
