"""Artifacts in a folder."""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from bedplate import files, ids
from bedplate.blobs.incoming import Incoming, leftovers
from bedplate.blobs.port import BLOCK, Content, check, key, part, take
from bedplate.errors import NotFoundError, StorageError
from bedplate.ids import Digest


class DiskBlobs:
    """One file per artifact, readable by its owner only."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, data: bytes) -> Digest:
        digest = ids.digest_bytes(data)
        path = self._root / key(digest)
        # A file of another size was torn before it was acknowledged, or damaged since: writing it again mends it.
        if not path.is_file() or path.stat().st_size != len(data):
            files.write(path, data)
        return digest

    def put_file(self, path: Path) -> Digest:
        try:
            with path.open("rb") as reader:
                return self.put_pieces(iter(lambda: reader.read(BLOCK), b""))
        except OSError as error:
            raise _refused(error, path) from error

    def put_pieces(self, pieces: Iterable[bytes]) -> Digest:
        return take(self.receive(), pieces)

    def receive(self) -> Incoming:
        return Incoming(self._root, self._place)

    def _place(self, file: Path, digest: Digest, size: int) -> None:
        # What is there already is replaced: it is the same content, or was damaged and is mended.
        target = self._root / key(digest)
        files.make_folder(target.parent)
        file.replace(target)
        files.sync_folder(target.parent)

    def get(self, digest: Digest) -> bytes:
        path = self._root / key(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise _missing(digest, self._root) from error
        except OSError as error:
            raise _refused(error, path) from error
        check(digest, ids.digest_bytes(data), str(path))
        return data

    def fetch(self, digest: Digest, to: Path) -> None:
        source = self._root / key(digest)
        if not source.is_file():
            raise _missing(digest, self._root)
        temporary = to.with_name(f".{to.name}.{os.getpid()}.tmp")
        try:
            files.make_folder(to.parent)
            check(digest, _copy(source, temporary), str(source))
            temporary.replace(to)
            files.sync_folder(to.parent)
        except OSError as error:
            raise _refused(error, to) from error
        finally:
            files.discard(temporary)

    def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> Content:
        path = self._root / key(digest)
        try:
            reader = path.open("rb")
        except FileNotFoundError as error:
            raise _missing(digest, self._root) from error
        except OSError as error:
            raise _refused(error, path) from error
        try:
            size = os.fstat(reader.fileno()).st_size
            begin, end = part(size, start, stop)
            reader.seek(begin)
        except BaseException:
            reader.close()
            raise
        whole = (begin, end) == (0, size)
        pieces = _pieces(reader, end - begin, path)
        return Content(pieces, size, digest=digest if whole else None, where=str(path), close=reader.close)

    def size(self, digest: Digest) -> int:
        try:
            return (self._root / key(digest)).stat().st_size
        except FileNotFoundError as error:
            raise _missing(digest, self._root) from error

    def has(self, digest: Digest) -> bool:
        return (self._root / key(digest)).is_file()

    def digests(self) -> Iterator[Digest]:
        for path in self._root.glob("??/??/" + "?" * 64):
            yield Digest(f"sha256:{path.name}")

    def delete(self, digest: Digest) -> None:
        path = self._root / key(digest)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            files.sync_folder(path.parent)

    def tidy(self, seconds: float) -> int:
        folders = (self._root, *self._root.glob("??/??"))
        return sum(leftovers(folder, seconds) for folder in folders)


def _pieces(reader: BinaryIO, length: int, path: Path) -> Iterator[bytes]:
    try:
        while length > 0 and (block := reader.read(min(BLOCK, length))):
            length -= len(block)
            yield block
    except OSError as error:
        raise _refused(error, path) from error
    finally:
        reader.close()


def _copy(source: Path, target: Path) -> Digest:
    """Copy and sync a file, and say its digest: each byte is read once."""
    hashed = hashlib.sha256()
    try:
        descriptor = os.open(target, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        with source.open("rb") as reader, os.fdopen(descriptor, "wb") as writer:
            while block := reader.read(BLOCK):
                hashed.update(block)
                writer.write(block)
            writer.flush()
            os.fsync(writer.fileno())
    except OSError:
        files.discard(target)
        raise
    return Digest(f"sha256:{hashed.hexdigest()}")


def _missing(digest: Digest, root: Path) -> NotFoundError:
    return NotFoundError(f"no artifact {digest}", where=str(root), fix="run the stage that makes it again")


def _refused(error: OSError, path: Path) -> StorageError:
    return StorageError(f"{error.strerror}", where=str(path), fix="check the disk, its free space and the permissions")
