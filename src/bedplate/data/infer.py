"""A first contract for a source: what its rows keep now, to be read over and tightened by whoever knows them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pyarrow as pa

from bedplate.data import convert, duck, sources
from bedplate.data.sources import BadLine, Chunk, Opened
from bedplate.errors import InputError
from bedplate.usecase.types import Source

FileKind = Literal["parquet", "csv", "json", "arrow"]

MOST_ROWS = 1_000_000
"""Rows that are looked at; a source with more is judged by its first ones, and the contract says so."""
_TAKEN = "CREATE TEMP TABLE rows AS FROM source LIMIT ?"
_FEW = 12
"""A text column of at most so many values, each there often, is taken for a list of choices."""
_TRIALS = (
    ("integer", "BIGINT", "[+-]?[0-9]+"),
    ("number", "DOUBLE", r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"),
    ("boolean", "BOOLEAN", "(?i)true|false"),
    ("date", "DATE", "[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    ("timestamp", "TIMESTAMP", "[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+"),
    ("moment", "TIMESTAMPTZ", "[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+(Z|[+-][0-9:]+)"),
)


class _Seen(msgspec.Struct):
    """What the rows say of one column."""

    name: str
    kind: str
    required: bool
    unique: bool
    not_negative: bool
    choices: list[str]


def infer(path: Path, kind: FileKind, name: str, reach: sources.Reach | None = None) -> str:
    """A contract (ODCS 3.1, YAML) that every row looked at keeps; it says of how many lines that are no row.

    Raises:
        ContractError: the file cannot be read as ``kind``.
        InputError: it has no rows, or two columns of one name.
    """
    source = Source(kind=kind, path=str(path.absolute()))
    with sources.opened(source, path.parent, reach) as files:
        names = files.columns(()).names or files.keys()
        if len(set(names)) != len(names):
            raise InputError("two columns have the same name", where=str(path), fix="give each its own")
        bad: list[BadLine] = []
        with duck.connect({"source": _rows(files, names, bad)}) as connection:
            connection.execute(_TAKEN, [MOST_ROWS + 1])
            (count,) = connection.execute("SELECT count(*) FROM rows").fetchone() or (0,)
            if not count:
                raise InputError("the source holds no rows", where=str(path), fix="name one that does")
            seen = [_look(connection, name) for name in names]
    return "\n".join(_written(name, path.name, seen, bad, whole=count <= MOST_ROWS)) + "\n"


def _chunks(files: Opened, names: list[str], bad: list[BadLine]) -> Iterator[Chunk]:
    for item in files.read(names):
        if isinstance(item, BadLine):
            bad.append(msgspec.structs.replace(item, text=""))  # there may be many
        else:
            yield item


def _rows(files: Opened, names: list[str], bad: list[BadLine]) -> pa.RecordBatchReader:
    chunks = _chunks(files, names, bad)
    first = next(chunks, None)
    if first is None:
        return pa.RecordBatchReader.from_batches(pa.schema([pa.field(name, pa.string()) for name in names]), [])
    schema = convert.plain(first.table).schema

    def batches() -> Iterator[pa.RecordBatch]:
        for chunk in _again(first, chunks):
            yield from convert.plain(chunk.table).cast(schema).to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


def _again(first: Chunk, rest: Iterator[Chunk]) -> Iterator[Chunk]:
    yield first
    yield from rest


def _look(connection: duck.Connection, name: str) -> _Seen:
    column = duck.quote(name)

    def one(expression: str) -> Any:
        sql = f"SELECT {expression} FROM rows"  # noqa: S608  identifiers are quoted
        row = connection.execute(sql).fetchone()
        return row[0] if row else None

    given = str(one(f"any_value(typeof({column}))"))
    known, present = one("count(*)"), one(f"count({column})")
    kind, value = _typed(given, column, one)
    flat = kind not in ("array", "object")
    distinct = one(f"count(DISTINCT {column})") if flat else 0
    choices: list[str] = []
    if kind == "string" and 1 < distinct <= _FEW and present >= 20 * distinct:
        sql = f"SELECT DISTINCT {column} FROM rows WHERE {column} IS NOT NULL ORDER BY 1"  # noqa: S608  as above
        choices = [text for (text,) in connection.execute(sql).fetchall()]
    return _Seen(
        name=name,
        kind=kind,
        required=present == known,
        unique=flat and kind in ("integer", "string") and present == known == distinct and known > 1,
        not_negative=kind in ("integer", "number") and present > 0 and bool(one(f"min({value}) >= 0")),
        choices=choices,
    )


def _typed(given: str, column: str, one: Any) -> tuple[str, str]:
    """The logical type of a column, and its values as that."""
    if given == "VARCHAR":
        text = f"trim({column})"
        for kind, sql, pattern in _TRIALS:
            fits = f"regexp_full_match({text}, '{pattern}') AND TRY_CAST({text} AS {sql}) IS NOT NULL"
            if one(f"count({column}) > 0 AND bool_and({fits}) FILTER (WHERE {column} IS NOT NULL)"):
                return kind, f"TRY_CAST({text} AS {sql})"
        return "string", column
    patterns = {
        r".*\[\]|.*\[\d+\]": "array",
        r"STRUCT.*|MAP.*": "object",
        r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?": "integer",
        r"FLOAT|DOUBLE|DECIMAL.*": "number",
        r"BOOLEAN": "boolean",
        r"DATE": "date",
        r"TIMESTAMP WITH TIME ZONE": "moment",
        r"TIMESTAMP.*": "timestamp",
    }
    return next((kind for pattern, kind in patterns.items() if re.fullmatch(pattern, given)), "string"), column


def _written(name: str, file: str, seen: list[_Seen], bad: list[BadLine], *, whole: bool) -> Iterator[str]:
    rows = "its rows" if whole else f"its first {MOST_ROWS:,} rows"
    yield f"# Made of what {json.dumps(file)[1:-1]} holds: {rows} keep it."
    if bad:
        lines = "1 line is no row" if len(bad) == 1 else f"{len(bad):,} lines are no rows"
        yield f"# {lines} and went by unseen: row {bad[0].row} {json.dumps(bad[0].reason)[1:-1]}."
    yield "# Read it over: it knows what was, not what must be."
    yield from ("apiVersion: v3.1.0", "kind: DataContract", f"id: {json.dumps(name)}", f"name: {json.dumps(name)}")
    yield from ("version: 1.0.0", "status: draft", "schema:", f"  - name: {json.dumps(name)}", "    properties:")
    for column in seen:
        yield f"      - name: {json.dumps(column.name)}"
        yield f"        logicalType: {'timestamp' if column.kind == 'moment' else column.kind}"
        if column.kind in ("moment", "timestamp"):
            yield f"        logicalTypeOptions: {{ timezone: {'true' if column.kind == 'moment' else 'false'} }}"
        if column.required:
            yield "        required: true"
        if column.unique:
            yield "        unique: true"
        if column.not_negative:
            yield "        logicalTypeOptions: { minimum: 0 }"
        if column.choices:
            listed = json.dumps(column.choices)
            rule = f"arguments: {{ validValues: {listed} }}, mustBe: 0, severity: warning"
            known = json.dumps(f"{column.name} is known")
            yield "        quality:"
            yield f"          - {{ name: {known}, type: library, metric: invalidValues, {rule} }}"
    yield "    quality:"
    yield "      - { name: not empty, type: library, metric: rowCount, mustBeGreaterThan: 0, severity: error }"
