"""Of a stream of rows the newest of each entity before each moment that is asked for.

What is asked for is held, and of the rows only those that are the newest so far: however many rows there are, they are
read once and need no more room than what is asked for. Moments of an entity, in their order, cut its rows into slots; a
row is looked at by the first moment after it, and what a slot found is known to every later one.
"""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

_NEVER = np.iinfo(np.int64).min
_HELD = 1 << 20
"""Rows that are held beyond twice the slots, before those that are no longer the newest are dropped."""


def newest_before(
    asked: "pa.Table", rows: "Iterable[pa.Table]", schema: "pa.Schema", *, at_moment: bool = False, threads: int = 1
) -> "pa.Table":
    """For each row of ``asked`` the newest of ``rows`` of its entity, or nulls.

    ``asked`` holds moments (microseconds) in its last column and entities, of one or two columns, before it; ``rows``
    the same columns of the same types, then any number of values: ``schema`` is theirs. A row is before a moment, or
    with ``at_moment`` not after it. Of rows of one entity and time the one with the greatest values counts. Gives the
    columns of ``rows`` after the entity. While one of ``threads`` waits for rows, the others look at theirs.
    """
    slots = _Slots(asked, schema, at_moment=at_moment)
    newest, stream = _Newest(slots), iter(rows)
    reading, keeping = threading.Lock(), threading.Lock()

    def look(_: int) -> None:
        while True:
            with reading:
                batch = next(stream, None)
            if batch is None:
                return
            cut = slots.cut(batch)
            with keeping:
                newest.keep(batch, cut)

    if threads == 1:
        look(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(look, range(threads)))
    return newest.found(threads)


class _Cut(NamedTuple):
    """Of rows of a batch, for those that some moment comes after: where they stand, their slots and their times."""

    places: np.ndarray
    slots: np.ndarray
    times: np.ndarray


class _Slots:
    """The moments that are asked for, each of an entity once, by entity and in the order of time."""

    def __init__(self, asked: "pa.Table", schema: "pa.Schema", *, at_moment: bool) -> None:
        *entity, moment = (column.combine_chunks() for column in asked.columns)
        self.schema, self.width, self._rows_asked = schema, len(entity), asked.num_rows
        self._keys = _Keys(entity)
        self._comes_after = np.greater_equal if at_moment else np.greater
        codes, moments = self._keys.of(entity), _whole(moment)
        self._asked = np.flatnonzero((codes >= 0) & (moments != _NEVER))
        codes, moments = codes[self._asked], moments[self._asked]
        order = _order(codes, moments)
        codes, moments = codes[order], moments[order]
        fresh = np.ones(len(order), dtype=bool)
        fresh[1:] = (codes[1:] != codes[:-1]) | (moments[1:] != moments[:-1])
        self._slot_asked = np.empty(len(order), dtype=np.int64)
        self._slot_asked[order] = np.cumsum(fresh) - 1
        self._entity_of, self._moments = codes[fresh], moments[fresh]
        self.count = len(self._moments)
        entities = np.arange(self._keys.count)
        self._first = np.searchsorted(self._entity_of, entities).astype(np.int32)
        self._last = np.searchsorted(self._entity_of, entities, side="right").astype(np.int32) - 1
        # Of an entity without a moment no row is looked at any further.
        self._end = np.where(self._last < self._first, _NEVER, self._moments[self._last] if self.count else _NEVER)

    def cut(self, batch: "pa.Table") -> _Cut:
        """Of each row the first slot of its entity whose moment comes after it, for those that have one."""
        *entity, time = (column.combine_chunks() for column in batch.columns[: self.width + 1])
        codes, times = self._keys.of(entity), _whole(time)
        places = np.flatnonzero((codes >= 0) & (times > _NEVER + 1))  # the time after that is DuckDB's -infinity
        if not self.count:
            return _Cut(places[:0], places[:0], times[:0])
        if len(places) < len(codes):
            codes, times = codes[places], times[places]
        before = np.flatnonzero(self._comes_after(self._end.take(codes), times))
        codes, times = codes[before], times[before]
        return _Cut(places[before], self._first_after(codes, times), times)

    def _first_after(self, codes: np.ndarray, times: np.ndarray) -> np.ndarray:
        found, high = self._first.take(codes), self._last.take(codes)
        left = np.flatnonzero(found < high)
        low, high, times = found[left], high[left], times[left]
        while len(left):  # all of them are halved at once: as often as the entity with most moments takes
            middle = (low + high) >> 1
            after = self._comes_after(self._moments.take(middle), times)
            low, high = np.where(after, low, middle + 1), np.where(after, middle, high)
            found[left] = low
            wide = low < high
            left, low, high, times = left[wide], low[wide], high[wide], times[wide]
        return found

    def answer(self, row_of: np.ndarray) -> np.ndarray:
        """Of each row that was asked for the row that is known at its moment, -1 for none."""
        place = np.full(self._rows_asked, -1)
        if self.count:
            last = np.maximum.accumulate(np.where(row_of >= 0, np.arange(self.count), 0))
            known = np.where(self._entity_of[last] == self._entity_of, row_of[last], -1)
            place[self._asked] = known[self._slot_asked]
        return place


def _order(codes: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """The order by code, and then by moment: a third of the time of sorting by two keys."""
    by_moment = np.argsort(moments)
    both = codes[by_moment].astype(np.int64) << 32 | np.arange(len(codes))
    both.sort()
    order: np.ndarray = by_moment[both & 0xFFFFFFFF]
    return order


class _Newest:
    """Of the rows that were looked at the newest of each slot, and those that were it lately."""

    def __init__(self, slots: _Slots) -> None:
        self._slots = slots
        self._best = np.full(slots.count, _NEVER)
        self._row_of = np.full(slots.count, -1)
        self._held: list[Any] = []
        self._count = 0

    def keep(self, batch: "pa.Table", cut: _Cut) -> None:
        """Keep of a batch what is newer than what is known."""
        import pyarrow as pa

        newer = np.flatnonzero(cut.times >= self._best.take(cut.slots))
        inside, slots, times = (each[newer] for each in cut)
        before = self._best.take(slots)
        np.maximum.at(self._best, slots, times)
        top = np.flatnonzero(times == self._best.take(slots))
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
        if self._count > 2 * self._slots.count + _HELD:
            self._drop()

    def _settle(self, slots: np.ndarray, places: np.ndarray) -> None:
        """Of rows of one slot and time the one with the greatest values counts."""
        import pyarrow as pa
        import pyarrow.compute as pc

        of, counts = np.unique(slots, return_inverse=True, return_counts=True)[1:]
        several = np.flatnonzero(counts[of] > 1)
        slots, places = slots[several], places[several]
        values = self._rows().select(self._slots.schema.names[self._slots.width + 1 :]).take(pa.array(places))
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

        self._held = [pa.concat_tables(self._held).combine_chunks() if self._held else self._slots.schema.empty_table()]
        return self._held[0]

    def found(self, threads: int) -> "pa.Table":
        """What is known at each moment asked for."""
        import pyarrow as pa

        place = self._slots.answer(self._row_of)
        places = pa.array(place, mask=place < 0)
        rows = self._rows().select(self._slots.schema.names[self._slots.width :])
        with ThreadPoolExecutor(threads) as pool:  # a table takes of one column after the other
            return pa.table(list(pool.map(lambda column: column.take(places), rows.columns)), schema=rows.schema)


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
            codes = np.where((codes < 0) | (others < 0), -1, codes.astype(np.int64) * column.count + others)
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

        self._table: np.ndarray | None = None
        if pa.types.is_signed_integer(column.type) and column.null_count < len(column):
            numbers = column.drop_null().to_numpy().astype(np.int64)
            self._least, most = int(numbers.min()), int(numbers.max())
            # Ids lie close together, mostly: then a table says where each stands, without a search.
            if most - self._least < 16 * len(numbers) + _HELD:
                there = np.zeros(most - self._least + 2, dtype=bool)  # the last place is that of all other numbers
                there[numbers - self._least] = True
                self.count = int(there.sum())
                self._table = np.where(there, np.cumsum(there, dtype=np.int32) - 1, -1).astype(np.int32)
                return
        self._values = column.unique().drop_null()
        self.count = len(self._values)

    def of(self, column: "pa.Array") -> np.ndarray:
        """The place of each value."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if self._table is None:
            return np.asarray(pc.fill_null(pc.index_in(column, value_set=self._values), -1).to_numpy(), dtype=np.int64)
        numbers = pc.fill_null(column.cast(pa.int64()), self._least).to_numpy()
        # As numbers without a sign, those below the least are the greatest.
        offsets = np.minimum((numbers - self._least).view(np.uint64), np.uint64(len(self._table) - 1))
        places: np.ndarray = self._table.take(offsets.view(np.int64))
        if column.null_count:
            places[column.is_null().to_numpy(zero_copy_only=False)] = -1
        return places


def _whole(times: "pa.Array") -> np.ndarray:
    """Times as whole numbers; the least for none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return np.asarray(pc.fill_null(times.cast(pa.int64()), _NEVER).to_numpy())
