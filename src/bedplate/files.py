"""Writing a file so that it is there whole, or not at all, also after the power failed."""

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

from bedplate.errors import InputError, StorageError

_MAKING = threading.Lock()


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write, sync, rename into place, sync the folder.

    Raises:
        StorageError: the disk is full or refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        make_folder(path.parent)
        descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        discard(temporary)
        raise StorageError(
            f"cannot write: {error.strerror}", where=str(path), fix="free some space or mend the folder, then try again"
        ) from error


def check_file(path: Path) -> None:
    """That a file could be written there, before work whose result it is to hold.

    Raises:
        InputError: it is a folder.
        StorageError: its folder is not there and cannot be made.
    """
    if path.is_dir():
        raise InputError("this is a folder", where=str(path), fix="give the path of a file in it")
    try:
        make_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"cannot write: {error.strerror}", where=str(path), fix="give the path of a file that can be written"
        ) from error


def secret(path: Path) -> bytes:
    """The 32 random bytes that this file keeps; made at the first call. Raises as :func:`write`."""
    with _MAKING:
        if not path.exists():
            write(path, secrets.token_bytes(32))
        return path.read_bytes()


def make_folder(path: Path) -> None:
    """Make a private folder and what is missing above it, each synced into its parent."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make what was created or renamed in a folder survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def brief(path: Path) -> Iterator[str]:
    """A name of a file that is short enough for the address of a socket, however long its path is."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)


def discard(path: Path) -> None:
    """Remove a temporary file, if it is there and can be removed: the error that led here is the one to tell."""
    with contextlib.suppress(OSError):
        path.unlink()
