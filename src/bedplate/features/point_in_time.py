"""Feature tables, point in time: each row is computed from what lay before its ``as_of``, and from nothing else.

The author of a view does not filter by time and cannot get around the filter: the SQL may name only the inputs it
declared, and under those names lie views that end before ``as_of``.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from bedplate import ids
from bedplate.errors import InputError
from bedplate.features.views import FeatureView, Periods
from bedplate.records import FeatureSet, TableVersion
from bedplate.serve.state import columns_of

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from bedplate.data.reads import Reader
    from bedplate.data.tables import Tables

Read = Callable[[str], "pa.RecordBatchReader"]
"""``read(input)``: the governed rows of an input."""
_ROW_MAKERS = ("range", "generate_series", "unnest")


def compute(
    tables: "Tables",
    reader: "Reader",
    inputs: Mapping[str, TableVersion],
    views: Sequence[FeatureView],
    as_of: Sequence[datetime],
    *,
    prefix: str,
    key: str,
    memory: int = 2 << 30,
    workers: int = 2,
    on_progress: Callable[[str, float | None, float | None], None] | None = None,
) -> FeatureSet:
    """Compute every view for every moment and write each as the table ``<prefix><view>``, once per ``key``.

    ``inputs`` maps data sets to the versions to read. Each view runs on one thread, so that sums come out the same each
    time; ``workers`` views run at once and share ``memory`` bytes.

    Raises:
        InputError: a view cannot be computed, or names a data set that is not there.
        StorageError: a table cannot be written; views written before it stay, and the same ``key`` goes on from them.
    """
    for view in views:
        for name in view.times:
            if name not in inputs:
                raise InputError(
                    f"its input {name!r} is no data set of this use case",
                    where=f"pipeline.py: {view.name}",
                    fix=f"name one of {', '.join(inputs)}",
                )
    done: list[str] = []

    def work(view: FeatureView) -> tuple[TableVersion, tuple[str, ...]]:
        table = compute_view(view, lambda name: reader.read(inputs[name]), as_of, memory=memory // workers)
        version = tables.write(prefix + view.name, table, mode="overwrite", key=f"{key}:{view.name}")
        done.append(view.name)
        if on_progress is not None:
            on_progress(f"{view.name}: {table.num_rows:,} rows", len(done), len(views))
        return version, columns_of(table, view.entity)

    with ThreadPoolExecutor(max_workers=workers) as pool:
        made = dict(zip([view.name for view in views], pool.map(work, views), strict=True))
    used = dict.fromkeys(name for view in views for name in view.times)
    return FeatureSet(
        views={name: version for name, (version, _) in made.items()},
        columns={name: columns for name, (_, columns) in made.items()},
        as_of=tuple(moment.replace(tzinfo=UTC).isoformat() for moment in as_of),
        code_digest=ids.digest_of(list(views)),
        inputs=tuple(inputs[name] for name in used),
    )


def newest(rows: "pa.RecordBatchReader", column: str) -> datetime:
    """The newest time in ``column``, without a zone (UTC).

    Raises:
        InputError: there are no rows, or the column holds no times.
    """
    import pyarrow.compute as pc

    latest = None
    for batch in rows:
        value = pc.max(batch.column(column)).as_py()
        latest = value if latest is None or (value is not None and value > latest) else latest
    if not isinstance(latest, datetime):
        raise InputError(f"{column!r} holds no times", where="features", fix="name a timestamp column")
    return latest.astimezone(UTC).replace(tzinfo=None) if latest.tzinfo else latest


def moments(end: datetime, *, holdout: timedelta, windows: int) -> tuple[datetime, ...]:
    """The moments to compute features for, newest first: the cut before the holdout, and ``windows`` cuts before it.

    ``end`` is the newest time in the data. The cut lies on midnight (UTC), and each window is one ``holdout`` long, so
    the labels of one window end where those of the next begin.
    """
    cut = end.replace(hour=0, minute=0, second=0, microsecond=0) - holdout
    return tuple(cut - i * holdout for i in range(windows + 1))


def compute_view(view: FeatureView, read: Read, as_of: Sequence[datetime], *, memory: int = 1 << 30) -> "pa.Table":
    """The feature table of one view: entity columns, ``as_of`` (UTC), then features; one row per entity and moment.

    Rows are ordered by ``as_of`` as given, then by entity.

    Raises:
        InputError: the SQL cannot be run, names what it did not declare, or gives no or repeated entities.
    """
    import pyarrow as pa  # heavy: not every command computes features

    from bedplate.data import duck

    with duck.connect(memory=memory, threads=1) as connection:
        raw = {}
        for name in view.times:
            # The name is random, so that no SQL written before now can name the rows that are not cut off.
            raw[name] = f"raw_{token_hex(16)}"
            connection.register("incoming", read(name))
            _run(connection, view, f"CREATE TEMP TABLE {duck.quote(raw[name])} AS FROM incoming")
            connection.unregister("incoming")
        return pa.concat_tables([_at(connection, view, raw, moment) for moment in as_of])


def _at(
    connection: "duckdb.DuckDBPyConnection", view: FeatureView, raw: dict[str, str], moment: datetime
) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    from bedplate.data import duck

    plain = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    for name, table in raw.items():
        condition = _ends_before(view, name, view.times[name], plain)
        _run(
            connection,
            view,
            f"CREATE OR REPLACE TEMP VIEW {duck.quote(name)} AS FROM {duck.quote(table)} WHERE {condition}",
        )
    _check_sql(connection, view)
    table = _query(connection, view, plain)
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
        numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
        if not any(test(kind) for test in numeric):
            raise InputError(f"its feature {name!r} is {kind}, not a number", where=where, fix="cast or encode it")
        columns[name] = pc.cast(table[name], pa.float32(), safe=False)
    return pa.table(columns)


def _ends_before(view: FeatureView, name: str, time: "str | Periods | None", moment: datetime) -> str:
    """The condition under which a row was known before ``moment``. A view takes no parameters: literals are ours."""
    from bedplate.data import duck

    if time is None:
        return "true"
    literal = f"TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S.%f}'"
    if isinstance(time, str):
        return f"{duck.quote(time)} < {literal}"
    first = f"TIMESTAMP '{time.first:%Y-%m-%d} 00:00:00'"
    return f"{first} + to_days(((CAST({duck.quote(time.column)} AS INTEGER) - 1) * {time.days:d})) < {literal}"


def _check_sql(connection: "duckdb.DuckDBPyConnection", view: FeatureView) -> None:
    """One SELECT over the declared inputs alone, in plain names; of table functions only those that make rows."""
    where = f"pipeline.py: {view.name}"
    row = _run(connection, view, "SELECT json_serialize_sql($sql)", {"sql": view.sql}).fetchall()
    tree = json.loads(row[0][0])
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


def _query(connection: "duckdb.DuckDBPyConnection", view: FeatureView, moment: datetime) -> "pa.Table":
    import duckdb

    try:
        relation = connection.sql(view.sql, params={"as_of": moment} if "$as_of" in view.sql else None)
        return relation.to_arrow_table()
    except duckdb.Error as error:
        raise _refused(view, error) from None


def _run(
    connection: "duckdb.DuckDBPyConnection", view: FeatureView, sql: str, values: dict[str, Any] | None = None
) -> "duckdb.DuckDBPyConnection":
    import duckdb

    try:
        return connection.execute(sql, values) if values else connection.execute(sql)
    except duckdb.Error as error:
        raise _refused(view, error) from None


def _refused(view: FeatureView, error: "duckdb.Error") -> InputError:
    from bedplate.data import duck

    return InputError(
        f"its SQL cannot be run: {duck.what_failed(error)}", where=f"pipeline.py: {view.name}", fix="correct the SQL"
    )
