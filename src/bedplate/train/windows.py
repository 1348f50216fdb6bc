"""One moment of the past as the recommender saw it, and what was bought after it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from bedplate.errors import InputError
from bedplate.serve.state import MISSING, Floats, Ids, View, columns_of, groups, identifiers, matrix, packed

if TYPE_CHECKING:
    import pyarrow as pa


class Columns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which columns of the purchase table say who bought what, in which basket, and when."""

    household: str = "household_id"
    product: str = "product_id"
    basket: str = "basket_id"
    time: str = "transaction_timestamp"


@dataclass(frozen=True)
class Purchases:
    """Purchase lines sorted by time: ids as int64, ``time`` in microseconds since 1970 (UTC), all of shape (n,)."""

    household: Ids
    product: Ids
    basket: Ids
    time: Ids

    @classmethod
    def of(cls, table: "pa.Table", columns: Columns) -> "Purchases":
        """The purchases of a table.

        Raises:
            InputError: a column is missing or has another type.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        missing = [name for name in msgspec.structs.astuple(columns) if name not in table.column_names]
        if missing:
            raise InputError(f"purchases have no column {missing[0]!r}", where="train", fix="name it in columns")
        time = pc.cast(pc.cast(table[columns.time], pa.timestamp("us"), safe=False), pa.int64()).to_numpy()
        order = np.argsort(time, kind="stable")
        ids = [identifiers(table, name)[order] for name in (columns.household, columns.product, columns.basket)]
        return cls(ids[0], ids[1], ids[2], time[order])

    def between(self, low: datetime | None, high: datetime | None) -> "Purchases":
        """The lines at or after ``low`` and before ``high``."""
        first = np.searchsorted(self.time, micros(low)) if low else 0
        last = np.searchsorted(self.time, micros(high)) if high else len(self.time)
        part = slice(first, last)
        return Purchases(self.household[part], self.product[part], self.basket[part], self.time[part])


def micros(moment: datetime) -> int:
    """Microseconds since 1970; a time without a zone is UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


class MemoryReader:
    """Online features held in memory: evaluation reads them as a replica reads its store."""

    def __init__(self, values: dict[str, dict[bytes, bytes]]) -> None:
        self._values = values

    def get(self, namespace: str, key: bytes) -> bytes | None:
        """The value under ``key``, or None."""
        return self._values[namespace].get(key)

    def get_many(self, namespace: str, keys: list[bytes]) -> list[bytes | None]:
        """The values under ``keys``, in their order."""
        space = self._values[namespace]
        return [space.get(key) for key in keys]


@dataclass(frozen=True)
class Lookup:
    """A view of one entity: ``ids`` ascending (n,), ``values`` (n, columns)."""

    ids: Ids
    values: Floats

    def rows(self, ids: Ids) -> Floats:
        """The values of ``ids``; MISSING where the view does not know one."""
        if not len(self.ids):
            return np.full((len(ids), self.values.shape[1]), MISSING)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        out = self.values[at]
        out[self.ids[at] != ids] = MISSING
        return out


@dataclass(frozen=True)
class Window:
    """Everything known at ``as_of``, and the products each household bought in the weeks after it.

    ``bounds`` maps a household to its rows in ``items`` and ``pairs``; ``truth`` maps it to its distinct later
    products, ascending, and holds only households that are also in ``bounds``.
    """

    as_of: datetime
    households: Lookup
    products: tuple[Lookup, ...]
    items: Ids
    pairs: Floats
    bounds: dict[int, tuple[int, int]]
    truth: dict[int, Ids]

    def product_rows(self, items: Ids) -> Floats:
        """The product features of ``items``, all views side by side."""
        return np.hstack([lookup.rows(items) for lookup in self.products])


class Views(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which feature views play which part."""

    household: str
    pairs: str
    products: tuple[str, ...]


def window(tables: "dict[str, pa.Table]", views: Views, columns: Columns, as_of: datetime, after: Purchases) -> Window:
    """The window at ``as_of``; ``after`` are the purchases of its label weeks."""
    household = (columns.household,)
    product = (columns.product,)
    pairs = at(tables[views.pairs], as_of)
    owners, items = identifiers(pairs, columns.household), identifiers(pairs, columns.product)
    values = matrix(pairs, columns_of(pairs, (*household, *product)))
    order = np.lexsort((items, owners))
    owners, items, values = owners[order], items[order], values[order]
    bounds = {int(owners[low]): (low, high) for low, high in groups(owners)}
    bought = np.unique(np.stack([after.household, after.product], 1), axis=0)
    truth = {
        int(bought[low, 0]): bought[low:high, 1] for low, high in groups(bought[:, 0]) if int(bought[low, 0]) in bounds
    }
    return Window(
        as_of=as_of,
        households=_lookup(at(tables[views.household], as_of), household),
        products=tuple(_lookup(at(tables[name], as_of), product) for name in views.products),
        items=items,
        pairs=values,
        bounds=bounds,
        truth=truth,
    )


def reader(tables: "dict[str, pa.Table]", views: Views, columns: Columns, as_of: datetime) -> MemoryReader:
    """The online features of ``as_of``, as materialised for serving."""
    entities: dict[str, tuple[str, ...]] = {
        views.household: (columns.household,),
        views.pairs: (columns.household, columns.product),
        **dict.fromkeys(views.products, (columns.product,)),
    }
    return MemoryReader({name: dict(packed(at(tables[name], as_of), e)) for name, e in entities.items()})


def view_of(table: "pa.Table", namespace: str, entity: tuple[str, ...]) -> View:
    """What the predictor must know of a feature table."""
    return View(namespace=namespace, columns=columns_of(table, entity))


def at(table: "pa.Table", as_of: datetime) -> "pa.Table":
    """The rows of a feature table that are for ``as_of``.

    Raises:
        InputError: there are none.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    moment = as_of if as_of.tzinfo else as_of.replace(tzinfo=UTC)
    rows = table.filter(pc.equal(table["as_of"], pa.scalar(moment, table.schema.field("as_of").type)))
    if rows.num_rows == 0:
        raise InputError(f"no features were computed for {moment:%Y-%m-%d}", where="train", fix="compute them first")
    return rows


def _lookup(table: "pa.Table", entity: tuple[str, ...]) -> Lookup:
    ids = identifiers(table, entity[0])
    order = np.argsort(ids, kind="stable")
    return Lookup(ids[order], matrix(table, columns_of(table, entity))[order])


def chunks(values: list[Any], size: int) -> Iterator[list[Any]]:
    """``values`` in pieces of ``size``."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
