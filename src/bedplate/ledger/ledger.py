"""Appending to the ledger, in the transaction of the change itself, and signing what was appended."""

import hashlib
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from bedplate import clock, files, ids
from bedplate.errors import BedplateError, InputError, IntegrityError, NotFoundError
from bedplate.ledger import merkle
from bedplate.ledger.notes import Checkpoint, Signer, Verifier
from bedplate.ledger.tiles import Tiles
from bedplate.store import Store, Transaction
from bedplate.store.ledger import EntryRow

CHECKPOINT_ENTRIES = 256
CHECKPOINT_SECONDS = 60.0
_LONGEST = 32 * 1024
ERASE = "ledger.erase"
_log = logging.getLogger(__name__)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the ledger. ``payload`` is the digest of salt and payload, which are kept apart and can be erased."""

    index: int
    time: str
    actor: str
    auth: str
    action: str
    resource: str
    decision: str
    policies: tuple[str, ...]
    request_id: str
    purpose: str
    payload: str


class Ledger:
    """The audit ledger of one home. One owner process appends; anybody may verify."""

    def __init__(self, store: Store, folder: Path, key: Signer) -> None:
        """Take up the ledger where it was left; what a crash left unsigned is signed now.

        Raises:
            IntegrityError: the database does not continue what was signed.
        """
        self._store, self._folder, self._signer = store, folder, key
        self._tiles = Tiles(folder)
        self._lock = threading.Lock()
        self._arming = threading.Lock()
        self._timer: threading.Timer | None = None
        self._at_once = self._closed = False
        """Whether the timer is about to sign, and whether nothing is to be signed any more."""
        self._signed = self._size = 0
        self.checkpoint()

    def record(
        self,
        tx: Transaction,
        *,
        actor: str,
        action: str,
        resource: str,
        decision: Literal["allow", "deny"] = "allow",
        payload: dict[str, Any] | None = None,
        auth: str = "key",
        policies: Sequence[str] = (),
        request_id: str = "",
        purpose: str = "",
    ) -> int:
        """Append one entry within ``tx`` and return its index. If it cannot be written, neither is the change.

        Raises:
            InputError: the entry would be longer than 32 KiB (the payload is not part of it and may be longer).
        """
        index, joined = tx.ledger.head(lock=True)
        salt, body = os.urandom(16), ids.canonical(payload or {})
        entry = ids.canonical(
            Entry(
                index=index,
                time=clock.timestamp(),
                actor=actor,
                auth=auth,
                action=action,
                resource=resource,
                decision=decision,
                policies=tuple(policies),
                request_id=request_id,
                purpose=purpose,
                payload=payload_digest(salt, body),
            )
        )
        if len(entry) > _LONGEST:
            raise InputError(f"the audit entry has {len(entry)} bytes, at most {_LONGEST} fit", where=action)
        leaf = merkle.leaf_hash(entry)
        _, frontier = merkle.extend(index, split_frontier(joined), [leaf])
        row = EntryRow(index, leaf, entry)
        names = {"actor": actor, "action": action, "resource": resource}
        tx.ledger.append(row, **names, salt=salt, payload=body, frontier=b"".join(frontier))
        tx.after_commit(lambda: self._appended(index + 1))
        return index

    def entry(self, tx: Transaction, index: int) -> tuple[Entry, dict[str, Any] | None]:
        """An entry and its payload, None if that was erased.

        Raises:
            NotFoundError: there is no such entry.
        """
        row = next(iter(tx.ledger.entries(index, index + 1)), None)
        if row is None:
            raise NotFoundError(f"the ledger has no entry {index}")
        kept = tx.ledger.payload(index)
        payload = None if kept is None else msgspec.json.decode(kept[1])
        return msgspec.json.decode(row.entry, type=Entry), payload

    def erase(self, tx: Transaction, index: int, *, actor: str, reason: str) -> int:
        """Forget the payload of an entry; the entry and every proof stay. The erasure is an entry of its own.

        Raises:
            NotFoundError: there is no payload of this entry.
        """
        if not tx.ledger.erase(index):
            raise NotFoundError(f"entry {index} has no payload, or it was erased before")
        return self.record(tx, actor=actor, action=ERASE, resource=erased_resource(index), payload={"reason": reason})

    def checkpoint(self) -> str:
        """Write the tiles and sign what was appended since the last checkpoint. Returns the signed note.

        Raises:
            IntegrityError: the database does not continue what was signed: it was cut, restored to an older state or
                changed. Nothing is signed then.
            StorageError: the disk is full.
        """
        with self._lock:
            return self._checkpoint()

    def prove(self, index: int) -> tuple[str, list[bytes]]:
        """The last signed checkpoint, and the proof that the entry is in its tree."""
        note = self.checkpoint()
        size = Verifier(self._signer.public).open(note, "checkpoint").size
        return note, merkle.inclusion_proof(index, size, self._tiles.node(size))

    def prove_consistency(self, old: int) -> tuple[str, list[bytes]]:
        """The last signed checkpoint, and the proof that its tree continues the one of ``old`` entries."""
        note = self.checkpoint()
        size = Verifier(self._signer.public).open(note, "checkpoint").size
        return note, merkle.consistency_proof(old, size, self._tiles.node(size))

    def close(self) -> None:
        """Sign what is unsigned, and stop."""
        with self._arming:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
        with self._lock:
            self._checkpoint()

    def _appended(self, size: int) -> None:
        """Have it signed before long. Nobody who appends waits for that: files are written for it, and synced."""
        self._size = size
        due = size - self._signed >= CHECKPOINT_ENTRIES
        if self._timer is not None and (self._at_once or not due):
            return
        with self._arming:
            if self._closed or (self._timer is not None and (self._at_once or not due)):
                return
            if self._timer is not None:
                self._timer.cancel()
            self._at_once = due
            self._timer = threading.Timer(0.0 if due else CHECKPOINT_SECONDS, self._due)
            self._timer.daemon = True
            self._timer.start()

    def _due(self) -> None:
        """In a thread that nobody waits for: what cannot be signed now is so after the next entry, or at the end."""
        try:
            with self._lock:
                if not self._closed:
                    self._checkpoint()
        except BedplateError as error:
            _log.error("the ledger could not be signed: %s", error)
            signed = False
        else:
            signed = True
        with self._arming:
            self._timer, self._at_once = None, False
        if signed and self._size > self._signed:
            self._appended(self._size)  # what came meanwhile, and armed nothing

    def _checkpoint(self) -> str:
        before, note = self._last()
        with self._store.read() as tx:
            size, joined = tx.ledger.head()
            rows = list(tx.ledger.entries(before.size, size))
        if note and size == before.size and merkle.frontier_root(split_frontier(joined)) == before.root:
            self._signed = size
            return note
        frontier = merkle.frontier_of(before.size, self._tiles.node(before.size))
        leaves = [row.leaf for row in rows]
        reached, frontier = merkle.extend(before.size, frontier, leaves)
        if reached != size or b"".join(frontier) != joined:
            raise IntegrityError(
                f"the ledger in the database ({size} entries) does not continue the signed one ({before.size} entries)",
                where=str(self._folder),
                fix="run `bedplate audit verify`; restore the last backup",
            )
        self._tiles.append(before.size, leaves, [row.entry for row in rows])
        note = self._signer.sign(size, merkle.frontier_root(frontier))
        files.write(self._folder / "checkpoint", note.encode())
        with self._store.transaction() as tx:
            tx.ledger.keep_checkpoint(size, note)
        self._signed = size
        return note

    def _last(self) -> tuple[Checkpoint, str]:
        path = self._folder / "checkpoint"
        if not path.exists():
            with self._store.read() as tx:
                signed = tx.ledger.checkpoint()
            if signed is not None:
                raise IntegrityError(
                    "the signed checkpoint is missing", where=str(path), fix="restore the ledger folder from a backup"
                )
            return Checkpoint(self._signer.name, 0, merkle.EMPTY), ""
        note = path.read_text()
        return Verifier(self._signer.public).open(note, str(path)), note


def payload_digest(salt: bytes, payload: bytes) -> str:
    """What an entry holds instead of the payload."""
    return f"sha256:{hashlib.sha256(salt + payload).hexdigest()}"


def erased_resource(index: int) -> str:
    """The resource that an erasure names."""
    return f"ledger/{index}"


def split_frontier(joined: bytes) -> list[bytes]:
    """The hashes of a frontier as the store keeps it."""
    return [joined[i : i + 32] for i in range(0, len(joined), 32)]
