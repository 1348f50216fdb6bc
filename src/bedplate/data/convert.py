"""From the columns of a source to the columns of a contract: compare, then convert, and say which values do not fit."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bedplate.data import duck
from bedplate.data.arrow import table_type
from bedplate.data.model import Column, LogicalType, Model
from bedplate.errors import ContractError

_TYPES: dict[LogicalType, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
}
_SQL = {"integer": "BIGINT", "number": "DOUBLE", "boolean": "BOOLEAN", "date": "DATE", "timestamp": "TIMESTAMP"}


def schema(model: Model, found: pa.Schema) -> pa.Schema:
    """The columns that the table will have."""
    return pa.schema([pa.field(column.name, _target(column, found)) for column in model.columns])


def _target(column: Column, found: pa.Schema) -> pa.DataType:
    if is_binary(column):
        return pa.binary()
    if column.logical_type in _TYPES:
        given = found.field(column.name).type if column.name in found.names else None
        if column.logical_type == "timestamp" and given is not None and pa.types.is_timestamp(given) and given.tz:
            return pa.timestamp("us", tz="UTC")
        return _TYPES[column.logical_type]
    if column.name in found.names and not pa.types.is_string(found.field(column.name).type):
        return table_type(found.field(column.name).type, column.name)
    return pa.string()


def compare(model: Model, found: pa.Schema, where: str, label: str, *, typed: bool, more: bool) -> None:
    """Refuse a source whose columns are not those of the contract, before a row is read. ``more``: it may have others.

    Raises:
        ContractError: columns are missing, extra or of another type; lists all of them.
    """
    if not found.names and not typed:
        return  # JSON lines carry no schema; each line is checked by itself
    known = {column.name: column for column in model.columns}
    problems = [
        f"column {name} (line {column.line}) is missing" for name, column in known.items() if name not in found.names
    ]
    problems += [f"column {name} is not in the contract" for name in found.names if name not in known and not more]
    if len(set(found.names)) != len(found.names):
        problems.append("two columns have the same name")
    if typed and not problems:
        problems += [
            f"column {name} is {found.field(name).type}, the contract (line {column.line}) says {column.logical_type}"
            for name, column in known.items()
            if not _fits(column, found.field(name).type)
        ]
    if problems:
        raise ContractError(
            f"{label} does not match the contract: " + "; ".join(problems), where=where, fix="correct one of the two"
        )


def _fits(column: Column, given: pa.DataType) -> bool:
    if pa.types.is_dictionary(given):
        given = given.value_type
    if pa.types.is_null(given):
        return True
    verdicts: dict[str, bool] = {
        "string": pa.types.is_string(given) or pa.types.is_large_string(given) or pa.types.is_string_view(given),
        "integer": pa.types.is_integer(given),
        "number": pa.types.is_floating(given) or pa.types.is_integer(given) or pa.types.is_decimal(given),
        "boolean": pa.types.is_boolean(given),
        "date": pa.types.is_date(given) or pa.types.is_timestamp(given),
        "timestamp": pa.types.is_timestamp(given) or pa.types.is_date(given),
        "array": pa.types.is_list(given) or pa.types.is_large_list(given) or pa.types.is_fixed_size_list(given),
        "object": pa.types.is_struct(given),
        "time": False,
    }
    return verdicts[column.logical_type] or (is_binary(column) and pa.types.is_binary(given))


def is_binary(column: Column) -> bool:
    """Whether the contract gives a column the format ``binary``: bytes instead of text."""
    return column.logical_type == "string" and column.format == "binary"


def convert(table: pa.Table, schema: pa.Schema) -> tuple[pa.Table, dict[str, np.ndarray]]:
    """Rows with the types of ``schema``, and per column which values do not fit (they become null).

    Text columns may stay as codes into their distinct values; :func:`plain` decodes them.
    """
    columns: list[pa.ChunkedArray] = []
    misfits: dict[str, np.ndarray] = {}
    for field, column in zip(schema, table.columns, strict=True):
        converted = _convert(column, field.type)
        columns.append(converted)
        if converted.null_count > column.null_count:
            lost = pc.and_(column.is_valid(), converted.is_null())
            misfits[field.name] = np.asarray(lost.to_numpy())
    return pa.table(dict(zip(schema.names, columns, strict=True))), misfits


def may_lose(given: pa.DataType, kind: pa.DataType) -> bool:
    """Whether a value of type ``given`` may have no like of type ``kind``."""
    if pa.types.is_dictionary(given):
        given = given.value_type
    if given == kind:
        return False
    return bool(pa.types.is_string(given) or pa.types.is_uint64(given) or pa.types.is_date32(kind))


def _convert(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    given = column.type
    if given == kind or (pa.types.is_dictionary(given) and given.value_type == kind):
        return column
    if pa.types.is_string(given):
        return _parse(column, kind)
    if pa.types.is_timestamp(given) and pa.types.is_date32(kind):
        days = column.cast(pa.timestamp("us"), safe=False).cast(kind, safe=False)
        whole = pc.equal(days.cast(pa.timestamp("us")), column.cast(pa.timestamp("us"), safe=False))
        return pc.if_else(whole, days, pa.scalar(None, kind))
    if pa.types.is_uint64(given) and pa.types.is_int64(kind):
        fits = pc.less_equal(column, pa.scalar((1 << 63) - 1, pa.uint64()))
        return pc.if_else(fits, column, pa.scalar(None, given)).cast(kind)
    return column.cast(kind, safe=False)


def _parse(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_binary(kind):
        return pa.chunked_array([pa.array(map(_bytes, column.to_pylist()), kind)])
    name = next(logical for logical, target in _TYPES.items() if target == kind)
    # TRY_CAST gives null for what cannot be read, and would round a fraction to an integer, so those are left out.
    whole = " WHERE regexp_full_match(trim(v), '[+-]?[0-9]+')" if name == "integer" else ""
    source = pa.table({"v": column, "n": pa.array(np.arange(len(column)))})
    query = f"SELECT n, TRY_CAST(trim(v) AS {_SQL[name]}) AS v FROM source{whole} ORDER BY n"  # noqa: S608  constants above
    with duck.connect({"source": source}) as connection:
        found: Any = connection.sql(query).to_arrow_table()
    values = found.column("v").combine_chunks().cast(kind)
    if len(values) == len(column):
        return pa.chunked_array([values])
    places = np.full(len(column), -1)
    places[found.column("n").to_numpy()] = np.arange(len(values))
    return pa.chunked_array([values.take(pa.array(places, mask=places < 0))])


def _bytes(text: str | None) -> bytes | None:
    try:
        return None if text is None else bytes.fromhex(text)
    except ValueError:
        return None


def plain(table: pa.Table) -> pa.Table:
    """The same rows with every column decoded."""
    columns = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    return pa.table(dict(zip(table.column_names, columns, strict=True)))


def text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Any column as text, for people to read; bytes as hexadecimal digits."""
    if pa.types.is_binary(column.type):
        digits = [None if value is None else value.hex() for value in column.to_pylist()]
        return pa.chunked_array([pa.array(digits, pa.string())])
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        return column.cast(pa.string())
    except pa.ArrowNotImplementedError:
        return pa.chunked_array([pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())])
