"""Content by digest that is removed when nothing names it, and never while somebody may still want it.

Names and bytes lie in two places, so no transaction covers both. The rules that make up for it:

- Content that loses its last name is *condemned*, with the time, in the transaction that takes the name away. What was
  never named, because somebody was killed before naming it, is condemned when a collection finds it.
- It is removed once it was condemned for a grace period, still has no name, and nobody in this process reads it or is
  about to name it. That happens within the transaction that looks, and holds the row of the condemned.
- Whoever brings content in *pardons* it first, and only then looks whether the bytes are there. A removal that is under
  way holds that row, so the look comes after it, and what was removed is written again.

A home has one owner, so every reader and writer is in one process. Should two processes meet, the grace period stands
between bringing content in and naming it.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice

import msgspec

from bedplate import clock, ids
from bedplate.blobs import Blobs, Content, Incoming
from bedplate.ids import Digest
from bedplate.store import Store, Transaction

GRACE = timedelta(days=1)
_BATCH = 500
_AT_ONCE = 16
"""How many are removed in one transaction: everybody who writes waits for it."""


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """What a collection found. ``waiting`` content has no name and is within its grace period."""

    seen: int
    waiting: int
    removed: int
    bytes: int
    leftovers: int


class Contents:
    """Content by digest, as whoever names it uses it."""

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self._store, self._blobs = store, blobs
        self._guard = threading.Lock()
        self._held: Counter[Digest] = Counter()

    def put(self, data: bytes) -> Digest:
        """Keep bytes that will be named within the grace period; when it returns they are safe."""
        with self.admitted(ids.digest_bytes(data)):
            return self._blobs.put(data)

    def get(self, digest: Digest) -> bytes:
        """The bytes, checked against their digest.

        Raises:
            NotFoundError: they are not here.
            IntegrityError: what is here is something else.
        """
        with self._holding(digest):
            return self._blobs.get(digest)

    def receive(self) -> Incoming:
        """Begin to take content in. It is kept within :meth:`admitted`."""
        return self._blobs.receive()

    @contextmanager
    def admitted(self, digest: Digest) -> Iterator[None]:
        """Within the block content may be put in place and named: nothing removes it."""
        with self._holding(digest):
            with self._store.read() as tx:
                condemned = tx.condemned.since(digest) is not None
            if condemned:
                with self._store.transaction() as tx:
                    tx.condemned.pardon(digest)
            yield

    def read(self, digest: Digest, start: int = 0, stop: int | None = None) -> Content:
        """The bytes in pieces; until the content is closed nothing removes them.

        Raises:
            NotFoundError: they are not here.
            InputError: there are no such bytes.
        """
        self._hold(digest)
        try:
            content = self._blobs.read(digest, start, stop)
        except BaseException:
            self._release(digest)
            raise
        content.on_close(lambda: self._release(digest))
        return content

    # ------------------------------------------------------------------------------------------------- collecting

    def collect(self, grace: timedelta = GRACE, *, dry_run: bool = False) -> Sweep:
        """Remove content that had no name for ``grace``, and what killed writers left. A dry run changes nothing.

        Raises:
            StorageError: the place refuses.
            UnavailableError: the database or the object store does not answer.
        """
        leftovers = 0 if dry_run else self._blobs.tidy(max(grace.total_seconds(), 3600.0))
        before = clock.milliseconds(clock.now() - grace)
        with self._store.read() as tx:
            mentioned = tx.condemned.mentioned()
        seen, nameless = self._mark(mentioned, dry_run=dry_run)
        removed = size = 0
        for digests in self._due(before, mentioned):
            started = time.monotonic()
            for freed in self._remove(digests, before, mentioned, dry_run=dry_run):
                removed, size = removed + 1, size + freed
            time.sleep(min(0.1, time.monotonic() - started))  # let those write who waited
        return Sweep(seen=seen, waiting=nameless - removed, removed=removed, bytes=size, leftovers=leftovers)

    def _mark(self, mentioned: set[Digest], *, dry_run: bool) -> tuple[int, int]:
        """Condemn what is here without a name; how much is here, and how much of it has none."""
        all_ = self._blobs.digests()
        seen = nameless = 0
        while batch := list(islice(all_, _BATCH)):
            seen += len(batch)
            with self._store.read() as tx:
                found = self._nameless(tx, batch, mentioned)
                new = found - tx.condemned.known(batch)
            nameless += len(found)
            if new and not dry_run:
                with self._store.transaction() as tx:
                    tx.condemned.condemn(sorted(self._nameless(tx, sorted(new), mentioned)), again=False)
        return seen, nameless

    def _nameless(self, tx: Transaction, digests: list[Digest], mentioned: set[Digest]) -> set[Digest]:
        return set(digests) - mentioned - tx.condemned.named(digests)

    def _due(self, before: int, mentioned: set[Digest]) -> Iterator[list[Digest]]:
        last = ""
        while True:
            with self._store.read() as tx:
                page = tx.condemned.due(before, after=last)
            if not page:
                return
            last = page[-1]
            for start in range(0, len(page), _AT_ONCE):
                yield page[start : start + _AT_ONCE]

    def _remove(self, digests: list[Digest], before: int, mentioned: set[Digest], *, dry_run: bool) -> Iterator[int]:
        """Remove those that are still condemned and nameless; the size of each one removed."""
        sizes = []
        with (self._store.read if dry_run else self._store.transaction)() as tx:
            for digest in digests:
                since = tx.condemned.since(digest, lock=not dry_run)
                if since is None or since > before:
                    continue
                named = digest not in self._nameless(tx, [digest], mentioned)
                if not named:
                    if self._held[digest]:
                        continue
                    if self._blobs.has(digest):
                        sizes.append(self._blobs.size(digest))
                        if not dry_run:
                            self._blobs.delete(digest)
                if not dry_run:
                    tx.condemned.pardon(digest)
        yield from sizes

    # -------------------------------------------------------------------------------------------------- who uses it

    @contextmanager
    def _holding(self, digest: Digest) -> Iterator[None]:
        self._hold(digest)
        try:
            yield
        finally:
            self._release(digest)

    def _hold(self, digest: Digest) -> None:
        with self._guard:
            self._held[digest] += 1

    def _release(self, digest: Digest) -> None:
        with self._guard:
            self._held[digest] -= 1
            if not self._held[digest]:
                del self._held[digest]
