"""From feature tables to the online store, in the layout that the predictor reads (:mod:`bedplate.serve.recommender`).

A view of one entity gives one value per entity under its own name. A view of two entities gives one value per first
entity, which holds all its pairs: a household's history comes in one read.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from bedplate.errors import InputError
from bedplate.serve.recommender import MISSING, key_of, pack_row, pack_rows

if TYPE_CHECKING:
    import pyarrow as pa


class Puts(Protocol):
    """The writing side of :class:`bedplate.online.Online`."""

    def put_many(self, namespace: str, items: Iterable[tuple[bytes, bytes]]) -> object:
        """Write ``items`` (key, value) under ``namespace``."""


def columns_of(table: "pa.Table", entity: tuple[str, ...]) -> tuple[str, ...]:
    """The feature columns of a feature table, in order."""
    return tuple(name for name in table.column_names if name not in entity and name != "as_of")


def at(table: "pa.Table", as_of: datetime) -> "pa.Table":
    """The rows of one moment."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return table.filter(pc.equal(table["as_of"], pa.scalar(as_of, table.schema.field("as_of").type)))


def matrix(table: "pa.Table", columns: Iterable[str]) -> npt.NDArray[np.float32]:
    """``columns`` of ``table`` as float32 of shape (rows, columns); nulls and NaN become MISSING."""
    arrays = [table[name].to_numpy().astype(np.float32) for name in columns]
    out = np.column_stack(arrays) if arrays else np.empty((table.num_rows, 0), np.float32)
    out[~np.isfinite(out)] = MISSING
    return out


def packed(table: "pa.Table", entity: tuple[str, ...]) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one view at one moment.

    Raises:
        InputError: an entity column does not hold whole numbers.
    """
    import pyarrow as pa

    for name in entity:
        if not pa.types.is_integer(table.schema.field(name).type):
            raise InputError(
                f"{name!r} does not hold whole numbers", where="features", fix="key online views by integers"
            )
    columns = columns_of(table, entity)
    values = matrix(table, columns)
    ids = table[entity[0]].to_numpy().astype(np.int64)
    if len(entity) == 1:
        for i, identifier in enumerate(ids.tolist()):
            yield key_of(identifier), pack_row(columns, values[i])
        return
    items = table[entity[1]].to_numpy().astype(np.int64)
    order = np.lexsort((items, ids))
    ids, items, values = ids[order], items[order], values[order]
    firsts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]]) if len(ids) else np.empty(0, np.intp)
    for low, high in zip(firsts, [*firsts[1:], len(ids)], strict=True):
        yield key_of(int(ids[low])), pack_rows(columns, items[low:high], values[low:high])


def materialise(online: Puts, tables: dict[str, tuple[tuple[str, ...], "pa.Table"]], as_of: datetime) -> dict[str, int]:
    """Put the features of ``as_of`` into the online store; ``tables`` maps a view to its entity and feature table.

    Returns the number of entities by view.
    """
    counts = {}
    for name, (entity, table) in tables.items():
        items = list(packed(at(table, as_of), entity))
        online.put_many(name, items)
        counts[name] = len(items)
    return counts
