"""What every place for artifacts offers."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from bedplate import ids
from bedplate.blobs.incoming import Incoming
from bedplate.errors import InputError, IntegrityError
from bedplate.ids import Digest

BLOCK = 1 << 20
"""Bytes of one piece when content is read."""


class Content:
    """The bytes of one artifact, or a part of them, as an iterator of pieces. ``size`` is that of the whole artifact.

    Read from its beginning to its end it is checked before the last piece is handed over: whoever got every piece got
    the artifact. It is opened when it is made, so deleting the artifact does not end a read that has begun; behind the
    last piece it closes itself.
    """

    def __init__(
        self, pieces: Iterator[bytes], size: int, *, digest: Digest | None, where: str, close: Callable[[], None]
    ) -> None:
        """``digest`` is None for a part of an artifact, which cannot be checked."""
        self.size = size
        self._pieces = pieces if digest is None else _checked(pieces, digest, where)
        self._on_close = [close]

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """The next piece.

        Raises:
            IntegrityError: the artifact is damaged; its last piece is withheld.
            StorageError: it cannot be read any further.
        """
        try:
            return next(self._pieces)
        except BaseException:  # there are no more, or none can be had
            self.close()
            raise

    def on_close(self, action: Callable[[], None]) -> None:
        """Call ``action``, once, when the content is closed."""
        self._on_close.append(action)

    def close(self) -> None:
        """Give back what was opened. Doing it twice is fine."""
        while self._on_close:
            self._on_close.pop()()


def _checked(pieces: Iterator[bytes], digest: Digest, where: str) -> Iterator[bytes]:
    hashed, held = hashlib.sha256(), b""
    for piece in pieces:
        if held:
            yield held
        hashed.update(piece)
        held = piece
    check(digest, Digest(f"sha256:{hashed.hexdigest()}"), where)
    if held:
        yield held


class Blobs(Protocol):
    """Artifacts by digest: immutable, so whoever has the digest has the content, and nobody can change it."""

    def put(self, data: bytes) -> Digest:
        """Keep bytes; when it returns they are safe. Known bytes are not written again."""
        ...

    def put_file(self, path: Path) -> Digest:
        """Keep the content of a file, without holding it in memory."""
        ...

    def put_pieces(self, pieces: Iterable[bytes]) -> Digest:
        """Keep content of any size that comes in pieces, without holding it in memory."""
        ...

    def receive(self) -> Incoming:
        """Begin to take content in, for a caller that learns the digest before the content is put in place."""
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

    def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> Content:
        """The bytes in pieces, all of them or those from ``start`` up to, not including, ``stop``.

        Raises:
            NotFoundError: they are not here.
            InputError: there are no such bytes.
        """
        ...

    def size(self, digest: Digest) -> int:
        """How many bytes there are.

        Raises:
            NotFoundError: they are not here.
        """
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

    def tidy(self, seconds: float) -> int:
        """Remove what killed writers left and did not touch for so long; returns how many files that were."""
        ...


def take(incoming: Incoming, pieces: Iterable[bytes]) -> Digest:
    """Receive every piece, then keep the whole."""
    with incoming:
        for piece in pieces:
            incoming.write(piece)
        digest = incoming.seal()
        incoming.keep()
    return digest


def part(size: int, start: int, stop: int | None) -> tuple[int, int]:
    """Where a part of ``size`` bytes begins and ends.

    Raises:
        InputError: there are no such bytes.
    """
    end = size if stop is None else stop
    if not 0 <= start <= end <= size:
        raise InputError(f"there are no bytes {start} to {end} in {size}", fix="ask for bytes that are there")
    return start, end


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
