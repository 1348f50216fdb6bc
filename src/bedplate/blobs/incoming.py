"""Content on its way in: written to a file of its own while its digest is computed, put in place when it is whole."""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from bedplate import files, ids
from bedplate.errors import StorageError
from bedplate.ids import Digest

_PREFIX = ".incoming."
_SYNC_EVERY = 32 << 20
"""Bytes after which what is written is synced: one sync of gigabytes would hold up everybody else's commits."""


class Incoming:
    """One content that is being received, of any size; a context manager that leaves nothing behind unless it was kept.

    ``write`` until it is whole, ``seal`` to learn its digest, ``keep`` to put it in place.
    """

    def __init__(self, folder: Path, place: Callable[[Path, Digest, int], None]) -> None:
        """``place(file, digest, size)`` puts the synced file where its digest belongs, safely."""
        self.size = 0
        """Bytes written so far."""
        self._place = place
        self._hashed = hashlib.sha256()
        self._digest: Digest | None = None
        self._unsynced = 0
        self._path = folder / f"{_PREFIX}{ids.new_id('tmp')}"
        self._descriptor = -1
        try:
            files.make_folder(folder)
            self._descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._refused(error) from error

    def write(self, piece: bytes) -> None:
        """Add a piece.

        Raises:
            StorageError: the disk is full or refuses.
        """
        self._hashed.update(piece)
        try:
            view = memoryview(piece)
            while view:
                view = view[os.write(self._descriptor, view) :]
            self._unsynced += len(piece)
            if self._unsynced >= _SYNC_EVERY:
                os.fdatasync(self._descriptor)
                self._unsynced = 0
        except OSError as error:
            raise self._refused(error) from error
        self.size += len(piece)

    def seal(self) -> Digest:
        """The digest of what was written, which is on disk from now on and complete.

        Raises:
            StorageError: the disk is full or refuses.
        """
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._refused(error) from error
        self._close()
        self._digest = Digest(f"sha256:{self._hashed.hexdigest()}")
        return self._digest

    def keep(self) -> None:
        """Put it in place; when it returns the content is safe. It must be sealed.

        Raises:
            StorageError: the disk or the object store refuses.
            UnavailableError: the object store does not answer.
        """
        assert self._digest is not None, "content is sealed before it is kept"
        try:
            self._place(self._path, self._digest, self.size)
        except OSError as error:
            raise self._refused(error) from error

    def discard(self) -> None:
        """Forget it, if it was not kept."""
        self._close()
        files.discard(self._path)

    def __enter__(self) -> "Incoming":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _refused(self, error: OSError) -> StorageError:
        fix = "free some space or mend the permissions, then send it again: nothing was half kept"
        return StorageError(f"cannot write: {error.strerror}", where=str(self._path.parent), fix=fix)


def leftovers(folder: Path, seconds: float) -> int:
    """Remove what killed writers left in a folder and did not touch for ``seconds``; returns how many files."""
    before, removed = time.time() - seconds, 0
    for path in folder.glob(".*"):
        try:
            if path.is_file() and path.stat().st_mtime < before:
                path.unlink()
                removed += 1
        except FileNotFoundError:
            continue
    return removed
