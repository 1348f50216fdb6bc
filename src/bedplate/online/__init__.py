"""The key-value port of online features: bytes under a namespace and a key, each batch atomic and on disk.

``open`` gives the store behind a location. Values are opaque here; who writes them says what they mean.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from bedplate.online.keys import Get, check_namespace
from bedplate.online.lmdb_store import LmdbOnline
from bedplate.online.server_store import ServerOnline, shown
from bedplate.settings import ONLINE_SCHEMES

__all__ = ["LmdbOnline", "Online", "Scoped", "ServerOnline", "is_address", "open", "shown"]


class Online(Protocol):
    """What every implementation does; one contract suite runs on all of them.

    ``waits``: a read waits for another machine, so nothing that must not wait calls it.
    """

    waits: bool

    def get(self, namespace: str, key: bytes) -> bytes | None:
        """The value under ``key``, or None."""

    def getter(self, namespace: str) -> Get:
        """:meth:`get` of one namespace, for whoever reads it often."""

    def get_many(self, namespace: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values under ``keys``, in their order, from one moment."""

    def put_many(
        self, namespace: str, items: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]], *, replace: bool = False
    ) -> int:
        """Store all of ``items`` or none, as durably as the store is; gives the namespace's new version.

        With ``replace`` the namespace afterwards holds ``items`` and nothing else.
        """

    def delete(self, namespace: str, keys: Iterable[bytes]) -> int:
        """Forget ``keys``; gives the namespace's new version."""

    def erase(self, namespace: str, left: Mapping[bytes, bytes | None]) -> int:
        """Forget what is under these keys, and leave no byte of it on the disk; gives the namespace's new version.

        Under each key is what ``left`` says from then on, or nothing.
        """

    def items(self, namespace: str) -> Iterator[tuple[bytes, bytes]]:
        """Every key and its value, in no order that means anything."""

    def version(self, namespace: str) -> int:
        """How many batches changed the namespace; 0 when it was never written."""

    def count(self, namespace: str) -> int:
        """How many keys the namespace holds."""

    def close(self) -> None:
        """Let go of files and memory."""


class _Names(dict[str, str]):
    """The namespace of the whole store that each namespace of a use case is."""

    def __init__(self, use_case: str) -> None:
        super().__init__()
        self._use_case = use_case

    def __missing__(self, namespace: str) -> str:
        check_namespace(namespace)
        made = self[namespace] = f"{self._use_case}/{namespace}"
        return made


class Scoped:
    """The part of a store that is one use case's: views of the same name in two use cases are two namespaces."""

    def __init__(self, store: Online, use_case: str) -> None:
        self._store = store
        self.waits = store.waits
        self._names = _Names(use_case)

    def get(self, namespace: str, key: bytes) -> bytes | None:
        """As :meth:`Online.get`."""
        return self._store.get(self._names[namespace], key)

    def getter(self, namespace: str) -> Get:
        """As :meth:`Online.getter`."""
        return self._store.getter(self._names[namespace])

    def get_many(self, namespace: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """As :meth:`Online.get_many`."""
        return self._store.get_many(self._names[namespace], keys)

    def put_many(
        self, namespace: str, items: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]], *, replace: bool = False
    ) -> int:
        """As :meth:`Online.put_many`."""
        return self._store.put_many(self._names[namespace], items, replace=replace)

    def delete(self, namespace: str, keys: Iterable[bytes]) -> int:
        """As :meth:`Online.delete`."""
        return self._store.delete(self._names[namespace], keys)

    def erase(self, namespace: str, left: Mapping[bytes, bytes | None]) -> int:
        """As :meth:`Online.erase`."""
        return self._store.erase(self._names[namespace], left)

    def items(self, namespace: str) -> Iterator[tuple[bytes, bytes]]:
        """As :meth:`Online.items`."""
        return self._store.items(self._names[namespace])

    def version(self, namespace: str) -> int:
        """As :meth:`Online.version`."""
        return self._store.version(self._names[namespace])

    def count(self, namespace: str) -> int:
        """As :meth:`Online.count`."""
        return self._store.count(self._names[namespace])

    def close(self) -> None:
        """Let go of the whole store."""
        self._store.close()


def is_address(location: str) -> bool:
    """Whether this names a server rather than a folder."""
    return location.partition("://")[0] in ONLINE_SCHEMES


def open(location: Path | str, *, read_only: bool = False) -> Online:
    """The store in a folder, or on the server at an address; replicas open it with ``read_only``.

    Raises:
        InputError, MissingExtraError, UnavailableError: as :class:`ServerOnline`.
        StorageError: it cannot be opened.
    """
    if is_address(str(location)):
        return ServerOnline(str(location), read_only=read_only)
    return LmdbOnline(Path(location), read_only=read_only)
