"""The newest row before a moment, out of a stream, against a look at every row."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.features import before
from bedplate.features.before import newest_before

INTEGERS = st.one_of(st.none(), st.integers(-2, 2), st.sampled_from([-(1 << 63), (1 << 63) - 1]))
TEXTS = st.one_of(st.none(), st.sampled_from(["", "a", "b", "ä"]))
KEYS: dict[str, tuple[Any, ...]] = {
    "number": ((INTEGERS, pa.int64()),),
    "text": ((TEXTS, pa.string()),),
    "pair": ((INTEGERS, pa.int64()), (TEXTS, pa.string())),
}
TIMES = st.one_of(st.none(), st.integers(0, 6), st.sampled_from([-(1 << 62), 1 << 40, 1 << 62]))
VALUES = st.one_of(st.none(), st.integers(0, 3))


def table(rows: list[tuple[Any, ...]], kinds: list[pa.DataType]) -> pa.Table:
    columns = [pa.array([row[i] for row in rows], kind) for i, kind in enumerate(kinds)]
    return pa.table(columns, names=[str(i) for i in range(len(kinds))])


def by_hand(
    asked: list[tuple[Any, ...]], rows: list[tuple[Any, ...]], width: int, *, at_moment: bool
) -> list[tuple[Any, ...]]:
    found = []
    for *entity, moment in asked:
        known = [
            row[width:]
            for row in rows
            if moment is not None and None not in entity and list(row[:width]) == entity and row[width] is not None
            and (row[width] < moment or (at_moment and row[width] == moment))
        ]  # fmt: skip
        found.append(max(known, key=lambda row: [-1 if v is None else v for v in row], default=(None, None, None)))
    return found


@pytest.mark.parametrize("kind", KEYS)
@given(data=st.data())
def test_a_stream_gives_what_a_look_at_every_row_does(kind: str, data: st.DataObject) -> None:
    keys = KEYS[kind]
    rows = data.draw(st.lists(st.tuples(*(k for k, _ in keys), TIMES, VALUES, VALUES), max_size=40))
    asked = data.draw(st.lists(st.tuples(*(k for k, _ in keys), TIMES), max_size=20))
    at_moment, size = data.draw(st.booleans()), data.draw(st.integers(1, 8))
    kinds = [kind for _, kind in keys] + [pa.timestamp("us")]
    schema = table([], [*kinds, pa.int32(), pa.float32()]).schema
    parts = (table(rows[i : i + size], schema.types) for i in range(0, len(rows), size))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(before, "_HELD", data.draw(st.sampled_from([0, 1 << 20])))  # what is not newest is dropped soon
        threads = data.draw(st.sampled_from([1, 2]))
        found = newest_before(table(asked, kinds), parts, schema, at_moment=at_moment, threads=threads)
    times = found.column(0).cast(pa.int64())
    assert list(zip(times.to_pylist(), *(c.to_pylist() for c in found.columns[1:]), strict=True)) == by_hand(
        asked, rows, len(keys), at_moment=at_moment
    )
