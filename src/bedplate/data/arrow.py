"""Arrow types as tables keep them: what Delta Lake knows, and nothing that depends on who wrote it."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pyarrow as pa

from bedplate.errors import InputError

_WIDER: dict[pa.DataType, pa.DataType] = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.int64(),
    pa.float16(): pa.float32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
    pa.date64(): pa.date32(),
}


def table_type(kind: pa.DataType, column: str) -> pa.DataType:
    """The type that a table keeps a column of type ``kind`` as.

    Dictionaries are decoded, unsigned integers widened, timestamps kept in microseconds, with UTC where they had a
    zone.

    Raises:
        InputError: Delta Lake has no such type.
    """
    if kind in _WIDER:
        return _WIDER[kind]
    if pa.types.is_dictionary(kind):
        return table_type(kind.value_type, column)
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", tz="UTC" if kind.tz else None)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(table_type(kind.value_type, column))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, table_type(f.type, f"{column}.{f.name}")) for f in kind])
    if pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    if pa.types.is_null(kind) or pa.types.is_time(kind) or pa.types.is_duration(kind) or pa.types.is_union(kind):
        raise InputError(
            f"column {column} has type {kind}, which tables cannot keep", fix="cast it to a number, text or timestamp"
        )
    return kind


def mixes_zones(kind: pa.DataType, other: pa.DataType) -> bool:
    """Whether one holds moments and the other times that name no zone, in themselves or in what they hold."""
    if pa.types.is_timestamp(kind) and pa.types.is_timestamp(other):
        return bool(kind.tz) != bool(other.tz)
    if pa.types.is_struct(kind) and pa.types.is_struct(other):
        return any(mixes_zones(f.type, other.field(f.name).type) for f in kind if other.get_field_index(f.name) >= 0)
    if kind.num_fields == other.num_fields == 1:
        return mixes_zones(kind.field(0).type, other.field(0).type)
    return False


def table_schema(schema: pa.Schema) -> pa.Schema:
    """The schema that a table keeps ``schema`` as: :func:`table_type` of every column, all nullable, no metadata.

    Raises:
        InputError: no columns, two of one name, or a type that tables cannot keep.
    """
    if not schema.names or len({name.lower() for name in schema.names}) != len(schema.names):
        raise InputError("a table needs columns, each with a name of its own", where=", ".join(schema.names))
    return pa.schema([pa.field(f.name, table_type(f.type, f.name)) for f in schema])


def rebatch(batches: Iterable[pa.RecordBatch | pa.Table], schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    """Cut a stream into tables of exactly ``rows`` rows (the last one smaller), cast to ``schema``.

    Text may stay as codes into its distinct values.
    """
    held: list[pa.Table] = []
    count = 0
    for batch in batches:
        table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
        table = _cast(table, schema, codes=True)
        while count + table.num_rows >= rows:
            take = rows - count
            yield _joined([*held, table.slice(0, take)], schema)
            table, held, count = table.slice(take), [], 0
        if table.num_rows:
            held.append(table)
            count += table.num_rows
    if held:
        yield _joined(held, schema)


def _joined(tables: list[pa.Table], schema: pa.Schema) -> pa.Table:
    if any(table.schema != tables[0].schema for table in tables):
        tables = [_cast(table, schema) for table in tables]
    return pa.concat_tables(tables).unify_dictionaries()


def _coded(kind: pa.DataType, target: pa.DataType) -> bool:
    """Whether the Parquet writer takes the codes as they are."""
    return bool(
        pa.types.is_dictionary(kind)
        and kind.value_type == target
        and pa.types.is_string(target)
        and kind.index_type == pa.int32()
    )


def _cast(table: pa.Table, schema: pa.Schema, *, codes: bool = False) -> pa.Table:
    if table.schema.equals(schema):
        return table
    for field, target in zip(table.schema, schema, strict=False):
        if mixes_zones(field.type, target.type):
            raise InputError(
                f"column {target.name} is {target.type}, rows come with {field.type}",
                fix="give all times a zone, or none",
            )
    try:
        # Sub-microsecond digits are dropped: Delta keeps microseconds.
        arrays = [
            column
            if codes and _coded(column.type, field.type)
            else column.cast(field.type, safe=not pa.types.is_timestamp(field.type))
            for column, field in zip(table.columns, schema, strict=True)
        ]
    except (pa.ArrowInvalid, ValueError) as error:
        raise InputError(f"rows do not fit the table: {error}", fix="give every batch the same columns") from error
    return pa.table(dict(zip(schema.names, arrays, strict=True)))


@contextmanager
def begun(stream: pa.RecordBatchReader) -> Iterator[pa.RecordBatchReader]:
    """The same stream, whose first batch is read while its reader still prepares, and those after it with that."""

    def batches() -> Iterator[pa.RecordBatch]:
        if (batch := first.result()) is not None:
            yield batch
            yield from stream

    with ThreadPoolExecutor(1, thread_name_prefix="begun") as pool:
        first = pool.submit(next, stream, None)
        yield pa.RecordBatchReader.from_batches(stream.schema, batches())
