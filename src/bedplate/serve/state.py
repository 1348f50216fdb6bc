"""Online features as bytes: what :func:`bedplate.features.materialise` writes and predictors read.

A view of one entity has one value per entity. A view of two entities has one value per first entity, which holds all
its pairs, so that a household's history comes in one read. Each value begins with four bytes that stand for the names
and order of the columns (features of another shape are refused, never misread) and the moment that the features are of.
"""

import functools
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate.errors import InputError, IntegrityError

if TYPE_CHECKING:
    import pyarrow as pa

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

AS_OF, SEEN = "as_of", "seen"
"""The columns of a feature table that are neither entity nor feature: the moment that its rows are for, and, in a view
of rows, the time of the newest row that each rests on."""
MISSING = np.float32(-1)
"""What stands for "there is none" (no second purchase, no discount)."""


class View(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One feature view as the predictor reads it: its namespace in the online store and its columns in order."""

    namespace: str
    columns: tuple[str, ...]


@functools.lru_cache(maxsize=1024)
def schema_of(columns: tuple[str, ...]) -> bytes:
    """Four bytes that stand for names and order of columns; remembered, for each read of features asks."""
    return zlib.crc32("\n".join(columns).encode()).to_bytes(4, "little")


key_of: Callable[[int], bytes] = struct.Struct("<q").pack
"""The online key of an entity; struct.error for what is no whole number of 64 bits."""


def pack_row(columns: tuple[str, ...], values: Floats, moment: int) -> bytes:
    """One entity's features: four bytes that stand for the column names, the moment, then float32 values.

    ``moment`` in microseconds since 1970.
    """
    return schema_of(columns) + moment.to_bytes(8, "little", signed=True) + values.astype("<f4", copy=False).tobytes()


def pack_rows(columns: tuple[str, ...], items: Ids, values: Floats, moment: int) -> bytes:
    """The features of one entity's pairs: head as above, the number of pairs, their items, their values by row."""
    head = schema_of(columns) + moment.to_bytes(8, "little", signed=True) + len(items).to_bytes(4, "little")
    return head + items.astype("<i8").tobytes() + values.astype("<f4", copy=False).tobytes()


_HEAD = 12


def without(data: bytes, item: bytes) -> bytes | None:
    """What :func:`pack_rows` packed without the pair of the ``item`` with this key; None where that was all."""
    start = _HEAD + 4
    n = int.from_bytes(data[_HEAD:start], "little")
    items = np.frombuffer(data, "<i8", count=n, offset=start)
    kept = items != int.from_bytes(item, "little", signed=True)
    if not kept.any():
        return None
    values = np.frombuffer(data, "<f4", offset=start + 8 * n).reshape(n, -1)[kept]
    left: bytes = items[kept].tobytes() + values.tobytes()
    return data[:_HEAD] + int(kept.sum()).to_bytes(4, "little") + left


def moments_of(rows: Sequence[bytes]) -> list[int]:
    """The moment that each packed value is of, in microseconds since 1970."""
    return [int.from_bytes(row[4:_HEAD], "little", signed=True) for row in rows]


def blank_row(view: View) -> bytes:
    """The packed row of an entity that the view does not know."""
    return pack_row(view.columns, np.full(len(view.columns), MISSING), 0)


def _check(view: View, data: bytes) -> None:
    if data[:4] != schema_of(view.columns):
        raise _foreign(view)


def _foreign(view: View) -> IntegrityError:
    return IntegrityError(
        "the online features have other columns than the model was trained on",
        where=view.namespace,
        fix="compute and materialise the features of this model's version again",
    )


def unpack_row(view: View, data: bytes) -> Floats:
    """The values that :func:`pack_row` packed, shape (columns,)."""
    _check(view, data)
    return np.frombuffer(data, "<f4", offset=_HEAD)


def unpack_rows(view: View, data: bytes) -> tuple[Ids, Floats]:
    """The items, shape (n,), and values, shape (n, columns), that :func:`pack_rows` packed."""
    _check(view, data)
    start = _HEAD + 4
    n = int.from_bytes(data[_HEAD:start], "little")
    items = np.frombuffer(data, "<i8", count=n, offset=start)
    return items, np.frombuffer(data, "<f4", offset=start + 8 * n).reshape(n, len(view.columns))


def unpack_many(view: View, rows: Sequence[bytes]) -> Floats:
    """The values of many packed rows, shape (rows, columns)."""
    size = _HEAD + 4 * len(view.columns)
    data = b"".join(rows)
    if len(data) != size * len(rows):
        raise _foreign(view)
    block = np.frombuffer(data, "<f4").reshape(len(rows), size // 4)
    heads = block[:, 0].view("<u4")
    if len(rows) and (heads != int.from_bytes(schema_of(view.columns), "little")).any():
        raise _foreign(view)
    return block[:, _HEAD // 4 :]


def pad(pairs: Floats, rows: int) -> Floats:
    """``pairs`` with rows of MISSING below, up to ``rows``."""
    out = np.full((rows, pairs.shape[1]), MISSING)
    out[: len(pairs)] = pairs
    return out


# ------------------------------------------------------------------------------------------------ from feature tables


def columns_of(table: "pa.Table", entity: Sequence[str]) -> tuple[str, ...]:
    """The feature columns of a feature table, in order."""
    return tuple(name for name in table.column_names if name not in entity and name not in (AS_OF, SEEN))


def matrix(table: "pa.Table", columns: Sequence[str]) -> Floats:
    """``columns`` of ``table`` as float32 of shape (rows, columns); nulls and NaN become MISSING."""
    out = np.empty((table.num_rows, len(columns)), np.float32)
    for i, name in enumerate(columns):
        out[:, i] = table[name].to_numpy()
    out[~np.isfinite(out)] = MISSING
    return out


def identifiers(table: "pa.Table", name: str) -> Ids:
    """An entity column as int64.

    Raises:
        InputError: it does not hold whole numbers.
    """
    values = table[name].to_numpy()
    if values.dtype.kind not in "iu":
        raise InputError(f"{name!r} does not hold whole numbers", where="features", fix="key online views by integers")
    return np.asarray(values, np.int64)


def packed(table: "pa.Table", entity: Sequence[str]) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one view at one moment. Each is of the time that it rests on, or of the moment.

    Raises:
        InputError: an entity column does not hold whole numbers.
    """
    columns = columns_of(table, entity)
    values = matrix(table, columns)
    ids = identifiers(table, entity[0])
    moments = known(table)
    if len(entity) == 1:
        for i, (identifier, moment) in enumerate(zip(ids.tolist(), moments.tolist(), strict=True)):
            yield key_of(identifier), pack_row(columns, values[i], moment)
        return
    items = identifiers(table, entity[1])
    order = np.lexsort((items, ids))
    ids, items, values, moments = ids[order], items[order], values[order], moments[order]
    for low, high in groups(ids):
        newest = int(moments[low:high].max())
        yield key_of(int(ids[low])), pack_rows(columns, items[low:high], values[low:high], newest)


def known(table: "pa.Table") -> Ids:
    """The time that each row of a feature table rests on, in microseconds since 1970."""
    column = table[SEEN if SEEN in table.column_names else AS_OF]
    return np.asarray(column.to_numpy().astype("datetime64[us]"), np.int64)


def groups(ids: Ids) -> Iterator[tuple[int, int]]:
    """The bounds [low, high) of each run of equal values in ``ids``."""
    firsts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]]) if len(ids) else np.empty(0, np.intp)
    yield from zip(firsts.tolist(), [*firsts[1:].tolist(), len(ids)], strict=True)
