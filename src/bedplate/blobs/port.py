"""What every place for artifacts offers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from bedplate import ids
from bedplate.errors import InputError, IntegrityError
from bedplate.ids import Digest


class Blobs(Protocol):
    """Artifacts by digest: immutable, so whoever has the digest has the content, and nobody can change it."""

    def put(self, data: bytes) -> Digest:
        """Keep bytes; when it returns they are safe. Known bytes are not written again."""
        ...

    def put_file(self, path: Path) -> Digest:
        """Keep the content of a file, without holding it in memory."""
        ...

    def get(self, digest: Digest) -> bytes:
        """The bytes, checked against their digest.

        Raises:
            NotFoundError: they are not here.
            IntegrityError: what is here is something else.
        """
        ...

    def fetch(self, digest: Digest, to: Path) -> None:
        """Write the bytes to a file, checked; the file appears whole or not at all."""
        ...

    def has(self, digest: Digest) -> bool:
        """Whether the bytes are here."""
        ...

    def digests(self) -> Iterator[Digest]:
        """Everything that is here, in no order."""
        ...

    def delete(self, digest: Digest) -> None:
        """Remove the bytes; nothing happens if they are not here."""
        ...


def key(digest: Digest) -> str:
    """Where a digest's bytes lie, relative to the root: two levels of folders keep each small.

    Raises:
        InputError: the text is no digest, so it must not become a path.
    """
    if not ids.is_digest(digest):
        raise InputError(f"{digest!r} is not a digest", fix="a digest is sha256: and 64 hexadecimal digits")
    name = digest.removeprefix("sha256:")
    return f"{name[:2]}/{name[2:4]}/{name}"


def check(digest: Digest, found: Digest, where: str) -> None:
    """Refuse bytes that are not what their name says.

    Raises:
        IntegrityError: the digests differ.
    """
    if digest != found:
        raise IntegrityError(
            f"the content is {found}, not {digest}", where=where, fix="restore it from a backup, or make it again"
        )
