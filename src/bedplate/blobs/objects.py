"""Artifacts in an object store: S3, or anything that speaks its protocol."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore import exceptions
from obstore.store import from_url

from bedplate import files, ids
from bedplate.blobs.incoming import Incoming, leftovers
from bedplate.blobs.port import BLOCK, Content, check, key, part, take
from bedplate.errors import BedplateError, NotFoundError, StorageError, UnavailableError
from bedplate.ids import Digest

if TYPE_CHECKING:
    from obstore import GetResult  # in its stubs only
    from obstore.store import ClientConfig, RetryConfig

_PREFIX = "blobs"
_CHUNK = 8 << 20
_CHUNKS = 9_000
"""An object store takes 10,000 parts of one object."""
_AT_ONCE = 3


class ObjectBlobs:
    """One object per artifact, below ``blobs/`` of the given address."""

    def __init__(self, address: str, options: Mapping[str, Any] | None = None, spool: Path | None = None) -> None:
        """``options`` are those of the object store: ``endpoint``, ``region``, ``access_key_id`` and so on.

        Content whose digest is not known yet is written to the folder ``spool`` first, or to a temporary one.
        """
        self._address = address
        self._spool = spool
        given: dict[str, Any] = dict(options or {})
        client: ClientConfig = {
            "connect_timeout": timedelta(seconds=5),
            "timeout": timedelta(seconds=60),
            "allow_http": str(given.get("endpoint", "")).startswith("http://"),
        }
        retry: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
        with self._translated():
            # The options are whatever the scheme of the address takes; an unknown one is refused there.
            self._store = from_url(address, config=given, client_options=client, retry_config=retry)  # type: ignore[call-overload]

    def put(self, data: bytes) -> Digest:
        digest = ids.digest_bytes(data)
        if not self._holds(digest, len(data)):
            with self._translated():
                obstore.put(self._store, _path(digest), data)
        return digest

    def put_file(self, path: Path) -> Digest:
        try:
            digest = ids.digest_file(path)
            self._place(path, digest, path.stat().st_size)
        except OSError as error:
            raise StorageError(f"{error.strerror}", where=str(path), fix="check that the file can be read") from error
        return digest

    def put_pieces(self, pieces: Iterable[bytes]) -> Digest:
        return take(self.receive(), pieces)

    def receive(self) -> Incoming:
        if self._spool is None:
            self._spool = Path(tempfile.mkdtemp(prefix="bedplate-spool-"))
        return Incoming(self._spool, self._place)

    def _place(self, file: Path, digest: Digest, size: int) -> None:
        if not self._holds(digest, size):
            chunk = max(_CHUNK, size // _CHUNKS + 1)
            with self._translated():
                obstore.put(self._store, _path(digest), file, chunk_size=chunk, max_concurrency=_AT_ONCE)

    def get(self, digest: Digest) -> bytes:
        with self._translated(digest):
            data = bytes(obstore.get(self._store, _path(digest)).bytes())
        check(digest, ids.digest_bytes(data), self._address)
        return data

    def fetch(self, digest: Digest, to: Path) -> None:
        hashed = hashlib.sha256()
        temporary = to.with_name(f".{to.name}.{os.getpid()}.tmp")
        try:
            files.make_folder(to.parent)
            descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "wb") as writer, self._translated(digest):
                for block in obstore.get(self._store, _path(digest)).stream(min_chunk_size=1 << 20):
                    hashed.update(block)
                    writer.write(block)
                writer.flush()
                os.fsync(writer.fileno())
            check(digest, Digest(f"sha256:{hashed.hexdigest()}"), self._address)
            temporary.replace(to)
            files.sync_folder(to.parent)
        except OSError as error:
            raise StorageError(f"{error.strerror}", where=str(to), fix="check the disk and its free space") from error
        finally:
            files.discard(temporary)

    def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> Content:
        if start == 0 and stop is None:
            with self._translated(digest):
                result = obstore.get(self._store, _path(digest))
            return self._content(self._pieces(result), int(result.meta["size"]), digest)
        size = self.size(digest)
        begin, end = part(size, start, stop)
        if begin == end:
            return self._content(iter(()), size, None)
        with self._translated(digest):
            result = obstore.get(self._store, _path(digest), options={"range": (begin, end)})
        return self._content(self._pieces(result), size, digest if (begin, end) == (0, size) else None)

    def _content(self, pieces: Iterator[bytes], size: int, digest: Digest | None) -> Content:
        return Content(pieces, size, digest=digest, where=self._address, close=lambda: None)

    def _pieces(self, result: "GetResult") -> Iterator[bytes]:
        with self._translated():
            for block in result.stream(min_chunk_size=BLOCK):
                yield bytes(block)

    def size(self, digest: Digest) -> int:
        size = self._size(digest)
        if size is None:
            raise self._missing(digest)
        return size

    def has(self, digest: Digest) -> bool:
        return self._size(digest) is not None

    def digests(self) -> Iterator[Digest]:
        with self._translated():
            for batch in obstore.list(self._store, prefix=_PREFIX):
                for item in batch:
                    name = Digest("sha256:" + str(item["path"]).rpartition("/")[2])
                    if ids.is_digest(name):
                        yield name

    def delete(self, digest: Digest) -> None:
        with self._translated():
            try:
                obstore.delete(self._store, _path(digest))
            except (exceptions.NotFoundError, FileNotFoundError):
                return

    def tidy(self, seconds: float) -> int:
        return 0 if self._spool is None else leftovers(self._spool, seconds)

    def _holds(self, digest: Digest, size: int) -> bool:
        return self._size(digest) == size

    def _size(self, digest: Digest) -> int | None:
        with self._translated():
            try:
                return int(obstore.head(self._store, _path(digest))["size"])
            except (exceptions.NotFoundError, FileNotFoundError):
                return None

    @contextmanager
    def _translated(self, digest: Digest | None = None) -> Iterator[None]:
        try:
            yield
        except (exceptions.NotFoundError, FileNotFoundError) as error:
            raise self._missing(digest) from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError) as error:
            raise StorageError(
                "the object store refuses us", where=self._address, fix="check its key and the rights on the bucket"
            ) from error
        except (exceptions.BaseError, ValueError) as error:
            raise self._unreachable(error) from error

    def _missing(self, digest: Digest | None) -> NotFoundError:
        return NotFoundError(f"no artifact {digest}", where=self._address, fix="run the stage that makes it again")

    def _unreachable(self, error: Exception) -> BedplateError:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return UnavailableError(f"the object store does not answer: {line}", where=self._address, fix="try again")


def _path(digest: Digest) -> str:
    return f"{_PREFIX}/{key(digest)}"
