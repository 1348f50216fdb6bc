"""The key-value port of online features: bytes under a namespace and a key, each batch atomic and on disk.

``open`` gives the store behind a location. Values are opaque here; who writes them says what they mean.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from bedplate.online.lmdb_store import LmdbOnline

__all__ = ["LmdbOnline", "Online", "open"]


class Online(Protocol):
    """What every implementation does; one contract suite runs on all of them."""

    def get(self, namespace: str, key: bytes) -> bytes | None:
        """The value under ``key``, or None."""

    def get_many(self, namespace: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values under ``keys``, in their order, from one moment."""

    def put_many(
        self, namespace: str, items: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]], *, replace: bool = False
    ) -> int:
        """Store all of ``items`` or none, on disk before it returns; gives the namespace's new version.

        With ``replace`` the namespace afterwards holds ``items`` and nothing else.
        """

    def delete(self, namespace: str, keys: Iterable[bytes]) -> int:
        """Forget ``keys``; gives the namespace's new version."""

    def erase(self, namespace: str, keys: Iterable[bytes]) -> int:
        """Forget ``keys``, and leave no byte of theirs on the disk; gives the namespace's new version."""

    def version(self, namespace: str) -> int:
        """How many batches changed the namespace; 0 when it was never written."""

    def count(self, namespace: str) -> int:
        """How many keys the namespace holds."""

    def close(self) -> None:
        """Let go of files and memory."""


def open(location: Path, *, read_only: bool = False) -> Online:
    """The store in folder ``location``; replicas open it with ``read_only``.

    Raises:
        StorageError: it cannot be opened.
    """
    return LmdbOnline(location, read_only=read_only)
