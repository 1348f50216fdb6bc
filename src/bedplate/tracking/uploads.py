"""Uploads in parts: each part is kept by itself until the whole is named, so what breaks off is carried on."""

import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import NamedTuple

from bedplate import clock, ids
from bedplate.blobs import Incoming
from bedplate.errors import ConflictError, InputError, NotFoundError
from bedplate.ids import Digest
from bedplate.store import Store, Transaction
from bedplate.store.artifacts import ArtifactRow, PartRow, UploadRow
from bedplate.tracking import paths
from bedplate.tracking.actors import Actor
from bedplate.tracking.artifacts import Artifacts, name_content
from bedplate.tracking.contents import Contents

MOST_PARTS = 10_000
ABANDONED = timedelta(days=1)
"""After so long without a part an upload is given up."""


class Part(NamedTuple):
    """A part as its client knows it: its number, from 1 on, and the digest that it was answered with."""

    number: int
    digest: str


class Uploads:
    """The uploads in parts of a home."""

    def __init__(self, store: Store, contents: Contents, artifacts: Artifacts) -> None:
        self._store, self._contents, self._artifacts = store, contents, artifacts
        self._locks = [threading.Lock() for _ in range(16)]

    def begin(self, workspace: str, path: str, parts: int, *, by: Actor) -> UploadRow:
        """Begin the upload of an artifact in so many parts.

        Raises:
            InputError: no artifact may have this name, or there are too many parts.
            ConflictError: a folder has the name, or a file has one of the names above it.
        """
        if not 1 <= parts <= MOST_PARTS:
            raise InputError(f"an upload has 1 to {MOST_PARTS} parts, not {parts}", fix="send larger parts")
        name = self._artifacts.expect(workspace, path)
        return self._store.writer.submit(lambda tx: tx.uploads.begin(workspace, name, by=by.name)).result()

    def expect(self, workspace: str, upload: str, number: int) -> UploadRow:
        """The upload that a part can be put into, before anything of the part is received.

        Raises:
            NotFoundError: the workspace has no such upload.
            ConflictError: it is complete.
            InputError: no part has this number.
        """
        if not 1 <= number <= MOST_PARTS:
            raise InputError(f"parts are numbered from 1 to {MOST_PARTS}", fix="number them from 1 on")
        with self._store.read() as tx:
            return _open(tx, workspace, upload)

    def put_part(self, workspace: str, upload: str, number: int, incoming: Incoming) -> Digest:
        """Keep a part; the same number again replaces it. When it returns, the part is safe.

        Raises:
            NotFoundError: the workspace has no such upload.
            ConflictError: it is complete.
            StorageError: the disk is full or refuses; nothing has changed then.
        """
        digest = incoming.seal()

        def keep(tx: Transaction) -> None:
            _open(tx, workspace, upload, lock=True)
            tx.uploads.put_part(upload, number, digest, incoming.size)

        with self._contents.admitted(digest):
            incoming.keep()
            self._store.writer.submit(keep).result()
        return digest

    def complete(
        self, workspace: str, path: str, upload: str, parts: Sequence[Part], *, by: Actor
    ) -> ArtifactRow | None:
        """Name the parts, one behind the other, as one artifact. Doing it again in the same way changes nothing.

        Raises:
            NotFoundError: the workspace has no such upload of this artifact.
            InputError: the parts are not those that were kept.
            ConflictError: a folder has the name, or a file has one of the names above it; or a part was replaced
                meanwhile.
            StorageError: the disk is full or refuses; the upload can be completed later.
        """
        name, receipt = paths.check(path), ids.digest_of([list(part) for part in parts])
        with self._locks[hash(upload) % len(self._locks)]:  # a client that lost patience asks again
            with self._store.read() as tx:
                row = _of(tx, workspace, name, upload)
                kept = tx.uploads.parts(upload)
            if row.digest is not None:
                return self._completed(row, receipt)
            chosen = _chosen(kept, parts)
            self._artifacts.expect(workspace, row.path)
            with self._contents.receive() as whole:
                for piece in self._pieces(chosen):
                    whole.write(piece)
                digest = whole.seal()
                with self._contents.admitted(digest):
                    whole.keep()

                    def finish(tx: Transaction) -> ArtifactRow:
                        _open(tx, workspace, upload, lock=True)
                        if _chosen(tx.uploads.parts(upload), parts) != chosen:
                            raise ConflictError("a part was replaced meanwhile", fix="complete it again")
                        tx.uploads.finish(upload, digest, receipt)
                        return name_content(tx, workspace, row.path, digest, whole.size, by=by)

                    return self._store.writer.submit(finish).result()

    def abort(self, workspace: str, path: str, upload: str) -> None:
        """Give an upload up; the artifact of one that is complete stays.

        Raises:
            NotFoundError: the workspace has no such upload of this artifact.
            InputError: no artifact may have this name.
        """
        name = paths.check(path)

        def drop(tx: Transaction) -> None:
            if _of(tx, workspace, name, upload, lock=True).digest is None:
                tx.uploads.drop(upload)

        self._store.writer.submit(drop).result()

    def forget(self, abandoned: timedelta = ABANDONED, *, dry_run: bool = False) -> int:
        """Give up uploads that nobody carried on, and forget those that were completed; returns how many."""
        before, forgotten = clock.milliseconds(clock.now() - abandoned), 0
        if dry_run:
            with self._store.read() as tx:
                return len(tx.uploads.stale(before, limit=1_000_000))
        while True:
            with self._store.transaction() as tx:
                stale = tx.uploads.stale(before)
                for row in stale:
                    tx.uploads.drop(row.id)
            if not stale:
                return forgotten
            forgotten += len(stale)

    def _completed(self, row: UploadRow, receipt: Digest) -> ArtifactRow | None:
        if row.receipt != receipt:
            raise InputError("this upload was completed with other parts", where=row.path, fix="begin a new one")
        with self._store.read() as tx:
            return tx.artifacts.find(row.workspace, row.path)

    def _pieces(self, parts: Sequence[PartRow]) -> Iterator[bytes]:
        for part in parts:
            content = self._contents.read(part.digest)
            try:
                yield from content
            finally:
                content.close()


def _of(tx: Transaction, workspace: str, path: str, upload: str, *, lock: bool = False) -> UploadRow:
    row = tx.uploads.get(workspace, upload, lock=lock)
    if row.path != path:
        raise NotFoundError(f"Upload {upload} is not one of {path}", fix="name the artifact that it was begun for")
    return row


def _open(tx: Transaction, workspace: str, upload: str, *, lock: bool = False) -> UploadRow:
    row = tx.uploads.get(workspace, upload, lock=lock)
    if row.digest is not None:
        raise ConflictError(f"upload {upload} is complete", fix="begin a new one")
    return row


def _chosen(kept: Sequence[PartRow], parts: Sequence[Part]) -> list[PartRow]:
    """The kept parts that a client names, which must be in order and have the digests that it was told."""
    if not parts:
        raise InputError("no part is named", fix="name every part with the ETag that it was answered with")
    by_number = {part.number: part for part in kept}
    chosen, last = [], 0
    for number, digest in parts:
        if number <= last:
            raise InputError(f"part {number} does not follow part {last}", fix="name each part once, in order")
        part = by_number.get(number)
        if part is None or part.digest != digest:
            raise InputError(f"part {number} is not the one that was kept", fix="send it again, or name its ETag")
        chosen.append(part)
        last = number
    return chosen
