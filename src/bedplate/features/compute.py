"""Feature tables, point in time: each row is computed from what lay before its ``as_of``, and from nothing else.

The author of a view does not filter by time and cannot get around the filter: the SQL may name only the inputs it
declared, and under those names lie views that end before ``as_of``.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bedplate.errors import InputError
from bedplate.features.views import FeatureView, Periods

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

Connect = Callable[[], "duckdb.DuckDBPyConnection"]
Read = Callable[[str], "pa.RecordBatchReader"]
"""``read(input)``: the governed rows of an input."""
_ROW_MAKERS = ("range", "generate_series", "unnest")


def moments(end: datetime, *, holdout: timedelta, windows: int) -> tuple[datetime, ...]:
    """The moments to compute features for, newest first: the cut before the holdout, and ``windows`` cuts before it.

    ``end`` is the newest time in the data. The cut lies on midnight (UTC), and each window is one ``holdout`` long, so
    the labels of one window end where those of the next begin.
    """
    cut = end.replace(hour=0, minute=0, second=0, microsecond=0) - holdout
    return tuple(cut - i * holdout for i in range(windows + 1))


def compute_view(view: FeatureView, read: Read, as_of: Sequence[datetime], connect: Connect) -> "pa.Table":
    """The feature table of one view: entity columns, ``as_of`` (UTC), then features; one row per entity and moment.

    Rows are ordered by ``as_of`` as given, then by entity.

    Raises:
        InputError: the SQL cannot be run, names what it did not declare, or gives no or repeated entities.
    """
    import pyarrow as pa  # heavy: not every command computes features

    connection = connect()
    try:
        raw = {}
        for name in view.times:
            # The name is random, so that no SQL written before now can name the rows that are not cut off.
            raw[name] = f"raw_{secrets.token_hex(16)}"
            connection.register("incoming", read(name))
            _run(connection, view, f"CREATE TEMP TABLE {_quoted(raw[name])} AS FROM incoming")
            connection.unregister("incoming")
        return pa.concat_tables([_at(connection, view, raw, moment) for moment in as_of])
    finally:
        connection.close()


def _at(
    connection: "duckdb.DuckDBPyConnection", view: FeatureView, raw: dict[str, str], moment: datetime
) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    plain = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    for name, table in raw.items():
        condition = _ends_before(view, name, view.times[name], plain)
        _run(
            connection,
            view,
            f"CREATE OR REPLACE TEMP VIEW {_quoted(name)} AS FROM {_quoted(table)} WHERE {condition}",
        )
    _check_sql(connection, view)
    wanted = {"as_of": plain} if "$as_of" in view.sql else None
    table = _run(connection, view, view.sql, wanted).to_arrow_table()
    where = f"pipeline.py: {view.name}"
    absent = [name for name in view.entity if name not in table.column_names]
    if absent:
        raise InputError(f"its SQL gives no column {absent[0]!r}", where=where, fix="select every entity column")
    table = table.sort_by([(name, "ascending") for name in view.entity])
    keys = table.select(list(view.entity))
    if any(keys[name].null_count for name in view.entity):
        raise InputError("its SQL gives rows without an entity", where=where, fix="leave out rows whose key is null")
    if keys.group_by(list(view.entity)).aggregate([]).num_rows != keys.num_rows:
        raise InputError("its SQL gives an entity more than once", where=where, fix="group by the entity columns")
    columns: dict[str, Any] = {name: keys[name] for name in view.entity}
    columns["as_of"] = pa.repeat(pa.scalar(plain.replace(tzinfo=UTC), pa.timestamp("us", tz="UTC")), table.num_rows)
    for name in table.column_names:
        if name in columns:
            continue
        kind = table.schema.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            if not pa.types.is_decimal(kind):
                raise InputError(f"its feature {name!r} is {kind}, not a number", where=where, fix="cast or encode it")
        columns[name] = pc.cast(table[name], pa.float32(), safe=False)
    return pa.table(columns)


def _ends_before(view: FeatureView, name: str, time: "str | Periods | None", moment: datetime) -> str:
    """The condition under which a row was known before ``moment``. A view takes no parameters: literals are ours."""
    if time is None:
        return "true"
    literal = f"TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S.%f}'"
    if isinstance(time, str):
        return f"{_quoted(time)} < {literal}"
    first = f"TIMESTAMP '{time.first:%Y-%m-%d} 00:00:00'"
    return f"{first} + to_days(((CAST({_quoted(time.column)} AS INTEGER) - 1) * {time.days:d})) < {literal}"


def _check_sql(connection: "duckdb.DuckDBPyConnection", view: FeatureView) -> None:
    """One SELECT over the declared inputs alone, in plain names; of table functions only those that make rows."""
    where = f"pipeline.py: {view.name}"
    row = _run(connection, view, "SELECT json_serialize_sql($sql)", {"sql": view.sql}).fetchone()
    tree = json.loads(row[0]) if row else {}
    if tree.get("error") or len(tree.get("statements", [])) != 1:
        reason = tree.get("error_message") or "it holds more than one statement"
        raise InputError(f"its SQL is not one SELECT: {reason}", where=where, fix="return one SELECT statement")
    allowed = set(view.times)
    nodes = list(_nodes(tree))
    for node in nodes:
        allowed |= {entry["key"] for entry in (node.get("cte_map") or {}).get("map", [])}
    for node in nodes:
        kind = node.get("type")
        name = node.get("table_name") if kind == "BASE_TABLE" else ""
        if kind == "TABLE_FUNCTION":
            function = node.get("function") or {}
            name = "" if function.get("function_name") in _ROW_MAKERS else f"{function.get('function_name')}()"
        if name and (name not in allowed or node.get("schema_name") or node.get("catalog_name")):
            raise InputError(
                f"its SQL names {name!r}, which is not among its inputs",
                where=where,
                fix=f"name it in inputs, or use {', '.join(view.times)}",
            )


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _run(
    connection: "duckdb.DuckDBPyConnection", view: FeatureView, sql: str, values: dict[str, Any] | None = None
) -> "duckdb.DuckDBPyConnection":
    import duckdb

    try:
        return connection.execute(sql, values) if values else connection.execute(sql)
    except duckdb.OutOfMemoryException as error:
        raise InputError(f"it needs more memory: {error}", where=f"pipeline.py: {view.name}") from error
    except duckdb.Error as error:
        raise InputError(
            f"its SQL cannot be run: {error}", where=f"pipeline.py: {view.name}", fix="correct the SQL"
        ) from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
