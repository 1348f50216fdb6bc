"""From feature tables to the online store, in the layout that predictors read (:mod:`bedplate.serve.state`)."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from bedplate.serve.state import packed

if TYPE_CHECKING:
    import pyarrow as pa


class Puts(Protocol):
    """The writing side of :class:`bedplate.online.Online`."""

    def put_many(self, namespace: str, items: Iterable[tuple[bytes, bytes]]) -> object:
        """Write ``items`` (key, value) under ``namespace``."""


def at(table: "pa.Table", as_of: datetime) -> "pa.Table":
    """The rows of one moment; a time without a zone is UTC."""
    import pyarrow as pa
    import pyarrow.compute as pc

    moment = as_of if as_of.tzinfo else as_of.replace(tzinfo=UTC)
    return table.filter(pc.equal(table["as_of"], pa.scalar(moment, table.schema.field("as_of").type)))


def materialise(
    online: Puts, tables: Mapping[str, tuple[tuple[str, ...], "pa.Table"]], as_of: datetime
) -> dict[str, int]:
    """Put the features of ``as_of`` into the online store; ``tables`` maps a view to its entity and feature table.

    Returns the number of values by view.
    """
    counts = {}
    for name, (entity, table) in tables.items():
        items = list(packed(at(table, as_of), entity))
        online.put_many(name, items)
        counts[name] = len(items)
    return counts
