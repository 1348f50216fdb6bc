"""What a source, a table and a join do with many rows: in order, so many at a time, and without losing an error."""

import itertools
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.data import duck, parquet, rules
from bedplate.data.arrow import begun
from bedplate.data.model import RowRule
from bedplate.data.parsing import formats
from bedplate.data.tables import Tables
from bedplate.errors import ContractError, IntegrityError
from tests.laws import examples

VALUES = {
    "i": st.none() | st.integers(-(1 << 31), (1 << 31) - 1),
    "j": st.none() | st.sampled_from([1 << 60, -5, 7]),
    "f": st.none() | st.floats(width=32),
    "t": st.none() | st.sampled_from(["a", "bb", ""]) | st.text(max_size=3).filter(str.isprintable),
    "b": st.none() | st.booleans(),
}
TYPES = {"i": pa.int32(), "j": pa.int64(), "f": pa.float32(), "t": pa.string(), "b": pa.bool_()}


def _numbered(path: Path, groups: list[int]) -> None:
    numbers = itertools.count()
    schema = pa.schema([("n", pa.int64()), ("t", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for size in groups:
            rows = [next(numbers) for _ in range(size)]
            table = pa.table({"n": rows, "t": [f"g{row % 7}" for row in rows]}, schema)
            writer.write_table(table, row_group_size=max(1, size))


@pytest.mark.parametrize("groups", [[], [10], [3, 0, 400_000, 5, 300_000, 1], [400] * 30])
def test_row_groups_are_decoded_side_by_side_and_come_in_order(tmp_path: Path, groups: list[int]) -> None:
    _numbered(tmp_path / "s.parquet", groups)
    files = [tmp_path / "s.parquet"]
    chunks = [chunk for chunk in formats.read("parquet", files, ["t", "n"]) if isinstance(chunk, formats.Chunk)]
    found = np.concatenate([c.table.column("n").to_numpy() for c in chunks]) if chunks else np.array([])
    assert np.array_equal(found, np.arange(sum(groups)))
    rows = np.concatenate([c.rows for c in chunks]) if chunks else np.array([])
    assert np.array_equal(rows, np.arange(1, sum(groups) + 1))
    assert all(chunk.table.num_rows <= formats.CHUNK for chunk in chunks)


def test_a_reader_that_leaves_early_ends_the_threads_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    _numbered(path, [300_000] * 6)
    rows = formats.read("parquet", [path], ["n"])
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("source-reader")]
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    path.write_bytes(data)
    with pytest.raises(ContractError, match="cannot be read as parquet"):
        for _ in formats.read("parquet", [path], ["n", "t"]):
            pass


@given(st.fixed_dictionaries({name: st.lists(values, min_size=1, max_size=40) for name, values in VALUES.items()}))
def test_every_encoding_gives_back_what_was_written(columns: dict[str, list[object]]) -> None:
    length = min(map(len, columns.values()))
    table = pa.table({name: pa.array(columns[name][:length], TYPES[name]) for name in TYPES})
    table = table.append_column("c", table.column("t").dictionary_encode())
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, store_schema=False, **parquet.options(table))
    found = pq.read_table(pa.BufferReader(sink.getvalue()))
    assert found.column("c").to_pylist() == found.column("t").to_pylist()
    for name in TYPES:  # by text, in which NaN is like NaN and 0 unlike -0
        assert list(map(repr, found.column(name).to_pylist())) == list(map(repr, table.column(name).to_pylist()))


def test_few_values_become_a_dictionary_and_numbers_differences() -> None:
    table = pa.table({"n": range(9000), "t": ["x", "y", "z"] * 3000, "l": [["a"]] * 9000, "f": np.random.rand(9000)})
    assert parquet.options(table) == {
        "use_dictionary": ["t", "l.list.element"],
        "column_encoding": {"n": "DELTA_BINARY_PACKED"},
    }


@examples(40)
@given(
    st.lists(st.none() | st.floats() | st.integers(-20, 20).map(float), max_size=12),
    st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]),
    st.integers(-20, 20),
    st.sampled_from([pa.float64(), pa.float32(), pa.int32()]),
)
def test_a_limit_is_judged_from_the_ends_as_from_each_value(
    values: list[float | None], check: str, limit: int, kind: pa.DataType
) -> None:
    if pa.types.is_integer(kind):
        values = [None if v is None or v != v or abs(v) > 1000 else round(v) for v in values]
    rule = RowRule(id="r", column="c", check=check, limit=limit, severity="error", dimension="", message="")  # type: ignore[arg-type]
    array = pa.array(values, kind)
    keeps = {
        "minimum": lambda v: v >= limit,
        "maximum": lambda v: v <= limit,
        "exclusiveMinimum": lambda v: v > limit,
        "exclusiveMaximum": lambda v: v < limit,
    }[check]
    expected = [v is not None and not keeps(v) for v in array.to_pylist()]
    found = rules.broken(rule, array)
    assert (found.to_pylist() if found is not None else [False] * len(values)) == expected


def test_a_join_in_time_over_streams_takes_no_loop_in_a_loop() -> None:
    """Of a stream nobody knows the length: taken for short, this would compare 200,000 x 20,000 rows, for a minute."""

    def rows(count: int) -> pa.RecordBatchReader:
        table = pa.table({"k": np.arange(count) % 500, "t": np.arange(count) / count})
        return pa.RecordBatchReader.from_batches(table.schema, iter(table.to_batches(max_chunksize=10_000)))

    with duck.connect({"l": rows(20_000), "f": rows(200_000)}) as connection:
        query = "EXPLAIN SELECT l.k, f.t AS seen FROM l ASOF JOIN f ON l.k = f.k AND l.t >= f.t"
        assert "Asof Join" in str(connection.execute(query).fetchall())
    with duck.connect({"l": rows(20_000), "f": rows(200_000)}) as connection:
        found = connection.execute("SELECT count(*) FROM l ASOF LEFT JOIN f ON l.k = f.k AND l.t >= f.t").fetchall()
    assert found == [(20_000,)]


def test_a_scan_reads_nothing_before_it_is_asked(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    version = tables.write("t", pa.table({"n": [1, 2]}), mode="overwrite")
    stream = tables.scan(version)
    next(tmp_path.rglob("*.parquet")).write_bytes(b"gone")
    with pytest.raises(IntegrityError, match="damaged"):
        stream.read_all()


def test_a_stream_that_is_begun_early_loses_neither_rows_nor_errors() -> None:
    schema = pa.schema([("n", pa.int64())])
    asked = threading.Event()

    def batches(count: int, fails: bool):  # type: ignore[no-untyped-def]
        asked.set()
        for n in range(count):
            yield pa.record_batch([pa.array([n])], schema=schema)
        if fails:
            raise IntegrityError("lost")

    for count, fails in itertools.product([0, 1, 3], [False, True]):
        asked.clear()
        with begun(pa.RecordBatchReader.from_batches(schema, batches(count, fails))) as stream:
            assert asked.wait(30)
            if fails:
                with pytest.raises(IntegrityError, match="lost"):
                    stream.read_all()
            else:
                assert stream.read_all()["n"].to_pylist() == list(range(count))
    with pytest.raises(ZeroDivisionError), begun(pa.RecordBatchReader.from_batches(schema, batches(1, True))):
        raise ZeroDivisionError
