"""The rows of the audit ledger; what they mean and how they are hashed is :mod:`bedplate.ledger`'s."""

from collections.abc import Iterator
from typing import NamedTuple

import sqlalchemy as sa

from bedplate import clock
from bedplate.store.schema import ledger_checkpoints, ledger_entries, ledger_head, ledger_payloads
from bedplate.store.sql import Direct, Repository, Upsert, param

_position = param("position_")
_head = sa.select(ledger_head.c.size, ledger_head.c.frontier).where(ledger_head.c.id == 0)
_HEAD, _LOCK = Direct(_head), Direct(_head.with_for_update())
_BEGIN = Upsert(ledger_head)
_ADVANCE = Direct(
    sa.update(ledger_head).where(ledger_head.c.id == 0).values(size=param("size_"), frontier=param("frontier_"))
)
_ENTRY = Direct(sa.insert(ledger_entries))
_PAYLOAD = Direct(sa.insert(ledger_payloads))
_ENTRIES = (
    sa.select(ledger_entries.c.position, ledger_entries.c.leaf, ledger_entries.c.entry)
    .where(ledger_entries.c.position >= _position, ledger_entries.c.position < param("end_"))
    .order_by(ledger_entries.c.position)
)
_LEAVES = (
    sa.select(ledger_entries.c.leaf)
    .where(ledger_entries.c.position >= _position, ledger_entries.c.position < param("end_"))
    .order_by(ledger_entries.c.position)
)
_GET_PAYLOAD = sa.select(ledger_payloads.c.salt, ledger_payloads.c.payload).where(
    ledger_payloads.c.position == _position
)
_PAYLOADS = (
    sa.select(ledger_payloads).where(ledger_payloads.c.position >= _position).order_by(ledger_payloads.c.position)
)
_ERASE = sa.delete(ledger_payloads).where(ledger_payloads.c.position == _position)
_CHECKPOINT = Upsert(ledger_checkpoints)
_LATEST_CHECKPOINT = sa.select(ledger_checkpoints).order_by(ledger_checkpoints.c.size.desc()).limit(1)
_CHECKPOINTS = sa.select(ledger_checkpoints).order_by(ledger_checkpoints.c.size)
_RECENT = (
    sa.select(ledger_entries.c.position, ledger_entries.c.leaf, ledger_entries.c.entry)
    .order_by(ledger_entries.c.position.desc())
    .limit(param("limit_"))
)
_RESOURCE = _RECENT.where(ledger_entries.c.resource == param("resource_"))
_PREFIX = _RECENT.where(ledger_entries.c.resource.startswith(param("resource_"), autoescape=False))


class EntryRow(NamedTuple):
    """One entry: its position, its RFC 6962 leaf hash and its canonical JSON."""

    position: int
    leaf: bytes
    entry: bytes


class LedgerRows(Repository):
    """``tx.ledger``."""

    def head(self, *, lock: bool = False) -> tuple[int, bytes]:
        """Size of the tree and its frontier hashes, joined. ``lock`` keeps other writers out until the commit."""
        # SQLite leaves the lock out: there it was taken when the transaction began.
        statement = _LOCK if lock else _HEAD
        row = statement.first(self._connection)
        if row is None:
            if not lock:
                return 0, b""
            self._execute(_BEGIN.on(self._connection), id=0, size=0, frontier=b"")
            row = statement.first(self._connection)
            assert row is not None
        return int(row[0]), bytes(row[1])

    def append(
        self, row: EntryRow, *, actor: str, action: str, resource: str, salt: bytes, payload: bytes, frontier: bytes
    ) -> None:
        """Add the entry at ``row.position`` and move the head past it."""
        _ENTRY.run(
            self._connection,
            position=row.position,
            leaf=row.leaf,
            entry=row.entry,
            actor=actor,
            action=action,
            resource=resource,
        )
        _PAYLOAD.run(self._connection, position=row.position, salt=salt, payload=payload)
        _ADVANCE.run(self._connection, size_=row.position + 1, frontier_=frontier)

    def entries(self, start: int, end: int) -> Iterator[EntryRow]:
        """Entries from ``start`` up to, not including, ``end``."""
        for row in self._execute(_ENTRIES, position_=start, end_=end):
            yield EntryRow(row.position, _bytes(row.leaf), _bytes(row.entry))

    def leaves(self, start: int, end: int) -> list[bytes]:
        """Leaf hashes from ``start`` up to, not including, ``end``."""
        return [_bytes(leaf) for leaf in self._execute(_LEAVES, position_=start, end_=end).scalars()]

    def recent(self, limit: int = 100, *, resource: str | None = None) -> list[EntryRow]:
        """The newest entries, newest first; only those about ``resource`` if one is given."""
        if resource is None:
            rows = self._execute(_RECENT, limit_=limit)
        else:
            rows = self._execute(_RESOURCE, limit_=limit, resource_=resource)
        return [EntryRow(row.position, _bytes(row.leaf), _bytes(row.entry)) for row in rows]

    def under(self, prefix: str, limit: int = 100) -> list[EntryRow]:
        """The newest entries about resources whose name begins with ``prefix``, newest first."""
        rows = self._execute(_PREFIX, limit_=limit, resource_=prefix)
        return [EntryRow(row.position, _bytes(row.leaf), _bytes(row.entry)) for row in rows]

    def payload(self, position: int) -> tuple[bytes, bytes] | None:
        """Salt and payload of an entry; None once erased."""
        row = self._execute(_GET_PAYLOAD, position_=position).first()
        return None if row is None else (_bytes(row.salt), _bytes(row.payload))

    def payloads(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Position, salt and payload of every entry whose payload is still here."""
        for row in self._execute(_PAYLOADS, position_=0):
            yield row.position, _bytes(row.salt), _bytes(row.payload)

    def erase(self, position: int) -> bool:
        """Forget salt and payload of an entry; False if they are gone already."""
        return bool(self._execute(_ERASE, position_=position).rowcount == 1)

    def keep_checkpoint(self, size: int, note: str) -> None:
        """Keep a signed checkpoint. The first one of a size stays."""
        self._execute(_CHECKPOINT.on(self._connection), size=size, note=note, created=clock.timestamp())

    def checkpoint(self) -> tuple[int, str] | None:
        """Size and note of the newest checkpoint."""
        row = self._execute(_LATEST_CHECKPOINT).first()
        return None if row is None else (int(row.size), row.note)

    def checkpoints(self) -> Iterator[tuple[int, str]]:
        """Size and note of every checkpoint, by size."""
        for row in self._execute(_CHECKPOINTS):
            yield int(row.size), row.note


def _bytes(value: bytes | memoryview | str) -> bytes:
    # SQLite keeps whatever type was written: somebody who changed a row by hand may have left text.
    return value.encode() if isinstance(value, str) else bytes(value)
