"""Segments of appended rows: how many there are, and the head of the hash chain over them."""

from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from bedplate.store.schema import append_segments
from bedplate.store.sql import Direct, Repository, Row, dump, param, parse

_actors = msgspec.json.Encoder(order="sorted").encode  # written a thousand times a second
_number = param("number_")
_columns = append_segments.c
_NEWEST = sa.select(append_segments).order_by(_columns.number.desc()).limit(1)
_LIST = sa.select(append_segments).order_by(_columns.number)
_BEGIN = sa.insert(append_segments)
_EXTEND = Direct(
    sa.update(append_segments)
    .where(_columns.number == _number, _columns.next == param("was_"), _columns.sealed.is_(None))
    .values(next=param("next_"), rows=param("rows_"), head=param("head_"), actors=param("actors_"))
)
_SEAL = (
    sa.update(append_segments)
    .where(_columns.number == _number, _columns.sealed.is_(None))
    .values(sealed=param("sealed_"), entry=param("entry_"))
)


class Segment(NamedTuple):
    """Rows appended at the positions from ``first`` up to, not including, ``next``.

    ``rows`` of them were kept; ``head`` is the end of the hash chain, which begins at the head of the segment before.
    ``actors`` says how many rows each principal appended. ``entry`` is the ledger's entry once it is sealed.
    """

    number: int
    first: int
    next: int
    rows: int
    head: bytes
    actors: dict[str, int]
    opened: int
    sealed: int | None
    entry: int | None


class Segments(Repository):
    """``tx.segments``."""

    def newest(self) -> Segment | None:
        """The segment that was begun last."""
        row = self._execute(_NEWEST).first()
        return None if row is None else _segment(row)

    def list(self) -> list[Segment]:
        """Every segment, in order."""
        return [_segment(row) for row in self._execute(_LIST)]

    def begin(self, segment: Segment) -> None:
        """Begin a segment."""
        self._execute(_BEGIN, **{**segment._asdict(), "actors": dump(segment.actors)})

    def extend(self, before: Segment, after: Segment) -> bool:
        """Note what was appended to the open segment; nothing, and False, if it is not as ``before`` any more."""
        found = _EXTEND.run(
            self._connection,
            number_=before.number,
            was_=before.next,
            next_=after.next,
            rows_=after.rows,
            head_=after.head,
            actors_=_actors(after.actors).decode(),
        )
        return found == 1

    def seal(self, number: int, *, entry: int, at: int) -> bool:
        """Close a segment for ever; False if it was closed before."""
        return bool(self._execute(_SEAL, number_=number, entry_=entry, sealed_=at).rowcount == 1)


def _segment(row: Row) -> Segment:
    return Segment(
        row.number,
        row.first,
        row.next,
        row.rows,
        bytes(row.head),
        parse(row.actors),
        row.opened,
        row.sealed,
        row.entry,
    )
