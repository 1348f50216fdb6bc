"""Of a stream of rows the newest of each entity before each moment that is asked for.

What is asked for is held, and of the rows only those that are the newest so far: however many rows there are, they are
read once and need no more room than what is asked for. Moments of an entity, in their order, cut its rows into slots; a
row is looked at by the first moment after it, and what a slot found is known to every later one.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

_NEVER = np.iinfo(np.int64).min
_HELD = 1 << 20
"""Rows that are held beyond twice the slots, before those that are no longer the newest are dropped."""


def newest_before(
    asked: "pa.Table", rows: "Iterable[pa.Table]", schema: "pa.Schema", *, at_moment: bool = False
) -> "pa.Table":
    """For each row of ``asked`` the newest of ``rows`` of its entity, or nulls.

    ``asked`` holds moments (microseconds) in its last column and entities, of one or two columns, before it; ``rows``
    the same columns of the same types, then any number of values: ``schema`` is theirs. A row is before a moment, or
    with ``at_moment`` not after it. Of rows of one entity and time the one with the greatest values counts. Gives the
    columns of ``rows`` after the entity.
    """
    search = _Search(asked, schema, at_moment=at_moment)
    for batch in rows:
        search.look_at(batch)
    return search.found()


class _Search:
    def __init__(self, asked: "pa.Table", schema: "pa.Schema", *, at_moment: bool) -> None:
        *entity, moment = (column.combine_chunks() for column in asked.columns)
        self._keys = _Keys(entity)
        self._comes_after = np.greater_equal if at_moment else np.greater
        self._schema, self._width, self._rows_asked = schema, len(entity), asked.num_rows
        codes, moments = self._keys.of(entity), _whole(moment)
        self._asked = np.flatnonzero((codes >= 0) & (moments != _NEVER))
        codes, moments = codes[self._asked], moments[self._asked]
        order = np.lexsort((moments, codes))
        codes, moments = codes[order], moments[order]
        fresh = np.ones(len(order), dtype=bool)
        fresh[1:] = (codes[1:] != codes[:-1]) | (moments[1:] != moments[:-1])
        self._slot_asked = np.empty(len(order), dtype=np.int64)
        self._slot_asked[order] = np.cumsum(fresh) - 1
        self._entity_of, self._moments = codes[fresh], moments[fresh]
        self._begins: np.ndarray = np.searchsorted(self._entity_of, np.arange(self._keys.count + 1))
        self._best = np.full(len(self._moments), _NEVER)
        self._row_of = np.full(len(self._moments), -1)
        self._held: list[Any] = []
        self._count = 0

    def look_at(self, batch: "pa.Table") -> None:
        """Keep what is newer than what is known."""
        import pyarrow as pa

        *entity, time = (column.combine_chunks() for column in batch.columns[: self._width + 1])
        codes, times = self._keys.of(entity), _whole(time)
        inside = np.flatnonzero((codes >= 0) & (times != _NEVER))
        codes, times = codes[inside], times[inside]
        slots = self._first_after(codes, times)
        mine = np.flatnonzero(slots < self._begins[codes + 1])
        mine = mine[times[mine] >= self._best[slots[mine]]]
        slots, times, inside = slots[mine], times[mine], inside[mine]
        before = self._best[slots]
        np.maximum.at(self._best, slots, times)
        top = np.flatnonzero(times == self._best[slots])
        if not len(top):
            return
        slots, places = slots[top], self._count + np.arange(len(top))
        ties = slots[before[top] == times[top]]
        earlier = self._row_of[ties]
        self._held.append(batch.take(pa.array(inside[top])))
        self._count += len(top)
        self._row_of[slots] = places
        if len(ties) or (self._row_of[slots] != places).any():
            self._settle(np.concatenate([slots, ties]), np.concatenate([places, earlier]))
        if self._count > 2 * len(self._moments) + _HELD:
            self._drop()

    def _first_after(self, codes: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Of each row the first slot of its entity whose moment comes after it, or where those of the next begin."""
        low: np.ndarray = self._begins[codes]
        high = self._begins[codes + 1]
        left = np.flatnonzero(low < high)
        while len(left):  # all of them are halved at once: as often as the entity with most moments takes
            middle = (low[left] + high[left]) >> 1
            after = self._comes_after(self._moments[middle], times[left])
            high[left[after]] = middle[after]
            low[left[~after]] = middle[~after] + 1
            left = left[low[left] < high[left]]
        return low

    def _settle(self, slots: np.ndarray, places: np.ndarray) -> None:
        """Of rows of one slot and time the one with the greatest values counts."""
        import pyarrow as pa
        import pyarrow.compute as pc

        of, counts = np.unique(slots, return_inverse=True, return_counts=True)[1:]
        several = np.flatnonzero(counts[of] > 1)
        slots, places = slots[several], places[several]
        values = self._rows().select(self._schema.names[self._width + 1 :]).take(pa.array(places))
        values = pa.table([pa.array(slots), *values.columns], names=[str(i) for i in range(values.num_columns + 1)])
        keys = [("0", "ascending"), *((name, "descending") for name in values.column_names[1:])]
        order = pc.sort_indices(values, sort_keys=keys).to_numpy()  # nulls come last
        firsts = order[np.unique(slots[order], return_index=True)[1]]
        self._row_of[slots[firsts]] = places[firsts]

    def _drop(self) -> None:
        import pyarrow as pa

        used = np.flatnonzero(self._row_of >= 0)
        self._held = [self._rows().take(pa.array(self._row_of[used]))]
        self._count = len(used)
        self._row_of[used] = np.arange(len(used))

    def _rows(self) -> "pa.Table":
        import pyarrow as pa

        self._held = [pa.concat_tables(self._held).combine_chunks() if self._held else self._schema.empty_table()]
        return self._held[0]

    def found(self) -> "pa.Table":
        """What is known at each moment asked for."""
        import pyarrow as pa

        rows = self._rows().select(self._schema.names[self._width :])
        place = np.full(self._rows_asked, -1)
        if len(self._moments):
            last = np.maximum.accumulate(np.where(self._row_of >= 0, np.arange(len(self._moments)), 0))
            known = np.where(self._entity_of[last] == self._entity_of, self._row_of[last], -1)
            place[self._asked] = known[self._slot_asked]
        return rows.take(pa.array(place, mask=place < 0))


class _Keys:
    """Entities as numbers from 0; -1 for one that nobody asks for. ``count``: how many there are."""

    def __init__(self, columns: "Sequence[pa.Array]") -> None:
        self._columns = [_Places(column) for column in columns]
        self._pairs: np.ndarray | None = None
        self.count = self._columns[0].count
        if len(columns) > 1:
            pairs = self.of(columns)
            self._pairs = np.unique(pairs[pairs >= 0])
            self.count = len(self._pairs)

    def of(self, columns: "Sequence[pa.Array]") -> np.ndarray:
        """The number of each entity."""
        codes = self._columns[0].of(columns[0])
        for column, values in zip(self._columns[1:], columns[1:], strict=True):
            others = column.of(values)
            codes = np.where((codes < 0) | (others < 0), -1, codes * column.count + others)
        if self._pairs is None:
            return codes
        if not len(self._pairs):
            return np.full(len(codes), -1)
        place = np.searchsorted(self._pairs, codes)
        place[place == len(self._pairs)] = 0
        return np.where(self._pairs[place] == codes, place, -1)


class _Places:
    """Where values stand among the ``count`` distinct ones of a column; -1 for others and for null."""

    def __init__(self, column: "pa.Array") -> None:
        import pyarrow as pa

        self._values = column.unique().drop_null()
        self.count = len(self._values)
        self._table: np.ndarray | None = None
        if pa.types.is_signed_integer(column.type) and self.count:
            numbers = self._values.to_numpy().astype(np.int64)
            self._least, most = int(numbers.min()), int(numbers.max())
            # Ids lie close together, mostly: then a table says where each stands, without a search.
            if most - self._least < 16 * self.count + _HELD:
                self._table = np.full(most - self._least + 1, -1)
                self._table[numbers - self._least] = np.arange(self.count)

    def of(self, column: "pa.Array") -> np.ndarray:
        """The place of each value."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self._table is None:
            return np.asarray(pc.fill_null(pc.index_in(column, value_set=self._values), -1).to_numpy(), dtype=np.int64)
        most = self._least + len(self._table) - 1
        numbers = pc.fill_null(column.cast(pa.int64()), self._least).to_numpy()
        inside = (numbers >= self._least) & (numbers <= most)
        if column.null_count:
            inside &= column.is_valid().to_numpy(zero_copy_only=False)
        return np.where(inside, self._table[np.where(inside, numbers - self._least, 0)], -1)


def _whole(times: "pa.Array") -> np.ndarray:
    """Times as whole numbers; the least for none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return np.asarray(pc.fill_null(times.cast(pa.int64()), _NEVER).to_numpy())
