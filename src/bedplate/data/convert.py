"""From the columns of a source to the columns of a contract: compare, then convert, and say which values do not fit."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bedplate.data import duck, shapes
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
_ZONED = r":.*[0-9]([zZ]|[+-][0-9]{2}(:?[0-9]{2})?)\s*$"
"""A time of day, and at its end a zone."""
MOMENT = pa.timestamp("us", tz="UTC")
"""What a table keeps times as that name a zone."""
_SQL = {
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "time": "TIME",
}


def schema(model: Model, found: pa.Schema, held: pa.Schema | None = None) -> pa.Schema:
    """The columns that the table will have. ``held``: those of rows that are there, for text that is added to them."""
    return pa.schema([pa.field(column.name, _target(column, found, held)) for column in model.columns])


def _target(column: Column, found: pa.Schema, held: pa.Schema | None) -> pa.DataType:
    given = found.field(column.name).type if column.name in found.names else None
    if given is None or pa.types.is_string(given):
        open_ended = column.logical_type in ("array", "object") or (
            column.logical_type == "timestamp" and column.zone is None
        )
        if held is not None and open_ended and column.name in held.names:
            return held.field(column.name).type  # what the contract leaves to the source, the rows before have settled
    if column.logical_type == "timestamp" and column.zone is None and given is not None:
        if pa.types.is_timestamp(given) and given.tz:
            return MOMENT
    elif column.logical_type in ("array", "object") and given is not None and not pa.types.is_string(given):
        return table_type(given, column.name)
    return _said(column)


def _said(column: Column) -> pa.DataType:
    """The type that the contract alone gives a column. Times of day are text: tables have no type for them."""
    if is_binary(column):
        return pa.binary()
    if column.logical_type == "timestamp" and column.zone:
        return MOMENT
    if column.logical_type == "array" and column.items is not None:
        return pa.list_(_said(column.items))
    if column.logical_type == "object" and column.properties:
        return pa.struct([pa.field(each.name, _said(each)) for each in column.properties])
    return _TYPES.get(column.logical_type, pa.string())


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
            f"column {name} is {found.field(name).type}, the contract (line {column.line}) says {_in_words(column)}"
            for name, column in known.items()
            if not _fits(column, found.field(name).type)
        ]
    if problems:
        raise ContractError(
            f"{label} does not match the contract: " + "; ".join(problems), where=where, fix="correct one of the two"
        )


def _in_words(column: Column) -> str:
    return f"{column.logical_type} without a zone" if column.zone == "" else column.logical_type


def _fits(column: Column, given: pa.DataType, *, inside: bool = False) -> bool:
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
        "timestamp": (pa.types.is_timestamp(given) and _clock_fits(column, given, inside)) or pa.types.is_date(given),
        "array": pa.types.is_list(given) or pa.types.is_large_list(given) or pa.types.is_fixed_size_list(given),
        "object": pa.types.is_struct(given),
        "time": pa.types.is_time(given),
    }
    if verdicts["array"] and column.logical_type == "array":
        return column.items is None or _fits(column.items, given.value_type, inside=True)
    if verdicts["object"] and column.logical_type == "object":
        return not column.properties or (
            {each.name for each in column.properties} == {field.name for field in given}
            and all(_fits(each, given.field(each.name).type, inside=True) for each in column.properties)
        )
    return verdicts[column.logical_type] or (is_binary(column) and pa.types.is_binary(given))


def _clock_fits(column: Column, given: pa.DataType, inside: bool) -> bool:
    """Moments do not become times without a zone; what is ``inside`` of a value stays as it came."""
    return not (given.tz and column.zone == "") and not (inside and column.zone and not given.tz)


def is_binary(column: Column) -> bool:
    """Whether the contract gives a column the format ``binary``: bytes instead of text."""
    return column.logical_type == "string" and column.format == "binary"


def convert(
    table: pa.Table, schema: pa.Schema, model: Model, sql: duck.Engine
) -> tuple[pa.Table, dict[str, np.ndarray]]:
    """Rows with the types of ``schema``, and per column which values do not fit (they become null).

    Text columns may stay as codes into their distinct values; :func:`plain` decodes them.
    """
    known = {column.name: column for column in model.columns}
    texts = {
        field.name: (column, known[field.name])
        for field, column in zip(schema, table.columns, strict=True)
        if pa.types.is_string(column.type) and known[field.name].logical_type in _SQL
    }
    parsed = _parsed(texts, sql)
    columns: list[pa.ChunkedArray] = []
    misfits: dict[str, np.ndarray] = {}
    for field, column in zip(schema, table.columns, strict=True):
        converted = parsed.get(field.name)
        if converted is None:
            converted = _convert(column, field.type, known[field.name])
        columns.append(converted.cast(field.type) if field.name in parsed else converted)
        if converted.null_count > column.null_count:
            lost = pc.and_(column.is_valid(), converted.is_null())
            misfits[field.name] = np.asarray(lost.to_numpy())
    return pa.table(dict(zip(schema.names, columns, strict=True))), misfits


def zones(table: pa.Table, model: Model) -> dict[str, set[bool]]:
    """Of columns of text whose contract leaves it open whether times name a zone: whether some do, and some do not."""
    found: dict[str, set[bool]] = {}
    for column in model.columns:
        if column.logical_type != "timestamp" or column.zone is not None or column.pattern:
            continue
        if column.name in table.column_names and pa.types.is_string(table.schema.field(column.name).type):
            named = pc.match_substring_regex(table[column.name], _ZONED).unique().to_pylist()
            found[column.name] = {each for each in named if each is not None}
    return found


def may_lose(given: pa.DataType, kind: pa.DataType) -> bool:
    """Whether a value of type ``given`` may have no like of type ``kind``."""
    if pa.types.is_dictionary(given):
        given = given.value_type
    if given == kind:
        return False
    return bool(pa.types.is_string(given) or pa.types.is_uint64(given) or pa.types.is_date32(kind))


def _convert(column: pa.ChunkedArray, kind: pa.DataType, said: Column) -> pa.ChunkedArray:
    given = column.type
    if pa.types.is_string(given) and said.logical_type in ("array", "object"):
        return pa.chunked_array([shapes.read(column.to_pylist(), kind, said)])
    if given == kind or (pa.types.is_dictionary(given) and given.value_type == kind):
        return column
    if pa.types.is_string(given) and pa.types.is_binary(kind):
        return pa.chunked_array([pa.array(map(_bytes, column.to_pylist()), kind)])
    if pa.types.is_time(given):
        text = pc.replace_substring_regex(column.cast(pa.time64("us")).cast(kind), r"(\.\d*?)0+$", r"\1")
        return pc.replace_substring_regex(text, r"\.$", "")
    if kind == MOMENT and (pa.types.is_date(given) or (pa.types.is_timestamp(given) and not given.tz)):
        local = pc.assume_timezone(
            column.cast(pa.timestamp("us"), safe=False), said.zone, ambiguous="earliest", nonexistent="latest"
        )
        return local.cast(kind)
    if pa.types.is_timestamp(given) and pa.types.is_date32(kind):
        days = column.cast(pa.timestamp("us"), safe=False).cast(kind, safe=False)
        whole = pc.equal(days.cast(pa.timestamp("us")), column.cast(pa.timestamp("us"), safe=False))
        return pc.if_else(whole, days, pa.scalar(None, kind))
    if pa.types.is_uint64(given) and pa.types.is_int64(kind):
        fits = pc.less_equal(column, pa.scalar((1 << 63) - 1, pa.uint64()))
        return pc.if_else(fits, column, pa.scalar(None, given)).cast(kind)
    return column.cast(kind, safe=False)


def _parsed(columns: dict[str, tuple[pa.ChunkedArray, Column]], sql: duck.Engine) -> dict[str, pa.ChunkedArray]:
    """Columns of text as what the contract says they are, all by one query; null stands for what cannot be read."""
    if not columns:
        return {}
    source = pa.table({f"v{at}": column for at, (column, _) in enumerate(columns.values())})
    listed = ", ".join(f"{_sql(said, f'trim(v{at})')} AS v{at}" for at, (_, said) in enumerate(columns.values()))
    query = f"SELECT {listed} FROM source"  # noqa: S608  see _sql
    with sql.connect({"source": source}) as connection:
        found: Any = connection.sql(query).to_arrow_table()
    return dict(zip(columns, found.columns, strict=True))


def _sql(said: Column, text: str) -> str:
    """How a column is read; what a contract says is in it as a literal, quoted."""
    kind = _SQL[said.logical_type]
    if said.logical_type == "integer":  # it would round a fraction
        return f"CASE WHEN regexp_full_match({text}, '[+-]?[0-9]+') THEN TRY_CAST({text} AS {kind}) END"
    read = f"try_strptime({text}, {_literal(said.pattern)})" if said.pattern else text
    if said.logical_type == "time":
        return f"CAST(TRY_CAST({read} AS {kind}) AS VARCHAR)"
    if said.logical_type != "timestamp" or (said.pattern and said.zone is None):
        return f"TRY_CAST({read} AS {kind})"
    if said.zone is None:  # as a timestamp, a text would lose the zone that it names
        return f"CAST(TRY_CAST({text} AS TIMESTAMPTZ) AS TIMESTAMP)"
    zoned = f"regexp_matches({text}, '{_ZONED}')"
    if not said.zone:
        return f"CASE WHEN NOT ({zoned}) THEN TRY_CAST({read} AS {kind}) END"
    local = f"timezone({_literal(said.zone)}, TRY_CAST({read} AS {kind}))"
    return local if said.pattern else f"CASE WHEN {zoned} THEN TRY_CAST({text} AS TIMESTAMPTZ) ELSE {local} END"


def _literal(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


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
        return pa.chunked_array([pa.array(map(shapes.written, column.to_pylist()), pa.string())])
