"""Where the files of tables lie: a local folder or an object store, with the same few durable operations.

A ``put`` has reached the disk, name included, when it returns. Paths here are made by us; names that users chose are
turned into digests before they come this far.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from bedplate.errors import StorageError
from bedplate.ids import new_id


class Folder(Protocol):
    """A folder of files, addressed by ``/``-separated paths relative to it."""

    url: str
    """What Delta calls the place."""
    local: bool
    """Whether files need syncing, and a torn one can exist."""

    def put(self, path: str, data: bytes | memoryview) -> None:
        """Write a whole file, durable on return and never seen half written."""

    def get(self, path: str) -> bytes | None:
        """The file's content, None where there is none."""

    def size(self, path: str) -> int | None:
        """The file's size in bytes, None where there is none."""

    def modified(self, path: str) -> datetime | None:
        """When the file was written last, by the clock of where it lies; None where there is none."""

    def files(self, path: str) -> list[str]:
        """Names of the files directly under ``path``, sorted; empty where there is no such folder."""

    def delete(self, path: str) -> None:
        """Remove a file; no error where there is none."""

    def child(self, name: str) -> "Folder":
        """The folder ``name`` inside this one."""

    def children(self) -> list[str]:
        """Names of the folders directly inside, sorted."""

    def lock(self) -> AbstractContextManager[object]:
        """Held while a commit is made and acknowledged, by one thread of one process at a time."""


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create a folder and the missing ones above it, durably."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with suppress(FileExistsError):
        path.mkdir()
    sync_folder(path.parent)


class LocalFolder:
    """A folder on a local disk."""

    local = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def put(self, path: str, data: bytes | memoryview) -> None:
        """Write to a temporary name, sync, rename, sync the folder."""
        target = self.root / path
        temporary = target.parent / f".{new_id('tmp')}"
        try:
            make_folder(target.parent)
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(target)
            sync_folder(target.parent)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise storage_error(error, str(target)) from error

    def get(self, path: str) -> bytes | None:
        """The file's content, None where there is none."""
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise storage_error(error, str(self.root / path)) from error

    def size(self, path: str) -> int | None:
        """The file's size in bytes, None where there is none."""
        try:
            return (self.root / path).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise storage_error(error, str(self.root / path)) from error

    def modified(self, path: str) -> datetime | None:
        """When the file was written last."""
        try:
            return datetime.fromtimestamp((self.root / path).stat().st_mtime, UTC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise storage_error(error, str(self.root / path)) from error

    def files(self, path: str) -> list[str]:
        """Names of the files directly under ``path``."""
        try:
            return sorted(entry.name for entry in os.scandir(self.root / path) if entry.is_file())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error(error, str(self.root / path)) from error

    def delete(self, path: str) -> None:
        """Remove a file."""
        try:
            (self.root / path).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, str(self.root / path)) from error

    def child(self, name: str) -> "LocalFolder":
        """The folder ``name`` inside this one."""
        return LocalFolder(self.root / name)

    def children(self) -> list[str]:
        """Names of the folders directly inside."""
        try:
            return sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error(error, self.url) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """An flock on a file of its own: released by the kernel however the holder ends."""
        name = self.root / "_bedplate" / "lock"
        try:
            make_folder(name.parent)
            file = name.open("ab")
        except OSError as error:
            raise storage_error(error, str(name)) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class ObjectFolder:
    """A prefix of an object store. A put is atomic and durable there; commits are ordered by conditional puts."""

    local = False

    def __init__(self, url: str, options: dict[str, str]) -> None:
        # Loads on use: a home on a local disk never needs it.
        import obstore.store

        self.url = url.rstrip("/")
        self.options = options
        plain: dict[str, Any] = dict(options)
        client: dict[str, Any] = {}
        if plain.pop("aws_allow_http", plain.pop("allow_http", "false")).lower() == "true":
            client["allow_http"] = True
        plain.pop("conditional_put", None)
        plain.pop("aws_conditional_put", None)
        self._store = obstore.store.from_url(self.url, config=plain, client_options=client)  # type: ignore[call-overload]

    def put(self, path: str, data: bytes | memoryview) -> None:
        """Put one object."""
        import obstore

        try:
            obstore.put(self._store, path, bytes(data))
        except obstore.exceptions.BaseError as error:
            raise storage_error(error, f"{self.url}/{path}") from error

    def get(self, path: str) -> bytes | None:
        """The object's content, None where there is none."""
        import obstore

        try:
            return bytes(obstore.get(self._store, path).bytes())
        except FileNotFoundError:
            return None
        except obstore.exceptions.BaseError as error:
            raise storage_error(error, f"{self.url}/{path}") from error

    def size(self, path: str) -> int | None:
        """The object's size in bytes, None where there is none."""
        found = self._head(path)
        return None if found is None else int(found["size"])

    def modified(self, path: str) -> datetime | None:
        """When the object was written last."""
        found = self._head(path)
        return None if found is None else found["last_modified"].astimezone(UTC)

    def _head(self, path: str) -> Any:
        import obstore

        try:
            return obstore.head(self._store, path)
        except FileNotFoundError:
            return None
        except obstore.exceptions.BaseError as error:
            raise storage_error(error, f"{self.url}/{path}") from error

    def files(self, path: str) -> list[str]:
        """Names of the objects directly under ``path``."""
        return sorted(str(entry["path"]).rpartition("/")[2] for entry in self._listing(path)["objects"])

    def delete(self, path: str) -> None:
        """Remove an object."""
        import obstore

        try:
            obstore.delete(self._store, path)
        except FileNotFoundError:
            return
        except obstore.exceptions.BaseError as error:
            raise storage_error(error, f"{self.url}/{path}") from error

    def child(self, name: str) -> "ObjectFolder":
        """The prefix ``name`` inside this one."""
        return ObjectFolder(f"{self.url}/{name}", self.options)

    def children(self) -> list[str]:
        """Names of the prefixes directly inside."""
        return sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in self._listing("")["common_prefixes"])

    def lock(self) -> AbstractContextManager[object]:
        """Nothing to hold: two writers meet at the conditional put of the commit."""
        return nullcontext()

    def _listing(self, path: str) -> Any:
        import obstore

        try:
            return obstore.list_with_delimiter(self._store, path or None)
        except obstore.exceptions.BaseError as error:
            raise storage_error(error, f"{self.url}/{path}") from error


def storage_options_of(address: str, options: Mapping[str, str]) -> dict[str, str]:
    """Options of an object store as both Delta and the store's client read them; those of S3 bear its prefix."""
    prefix = "aws_" if address.startswith(("s3://", "s3a://")) else ""
    found = {prefix + key.lower().removeprefix(prefix): value for key, value in options.items()}
    if found.get(f"{prefix}endpoint", "").startswith("http://"):
        found[f"{prefix}allow_http"] = "true"  # whoever names a plain endpoint means it
    return found


def open_folder(location: Path | str, options: dict[str, str] | None = None) -> Folder:
    """The folder at a local path or at an object store's URL."""
    if isinstance(location, str) and "://" in location and not location.startswith("file://"):
        return ObjectFolder(location, dict(options or {}))
    text = str(location)
    return LocalFolder(Path(text.removeprefix("file://")).absolute())


def storage_error(error: Exception, where: str) -> StorageError:
    """What a user reads when a disk or an object store refused."""
    text = str(error)
    if getattr(error, "errno", None) in (28, 122) or "No space left" in text or "os error 28" in text:
        return StorageError("the disk is full", where=where, fix="free some space and run the same command again")
    return StorageError(
        f"could not be read or written: {text.splitlines()[0] if text else type(error).__name__}",
        where=where,
        fix="check that the storage is there and may be written, then run the same command again",
    )
