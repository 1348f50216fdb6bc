"""Feature tables, point in time: each row is computed from what lay before its ``as_of``, and from nothing else.

The author of a view does not filter by time and cannot get around the filter: the SQL may name only the inputs it
declared, and under those names lie views that end before ``as_of``.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from bedplate import ids
from bedplate.errors import InputError
from bedplate.features import clocks, rows
from bedplate.features.sql import check_inputs
from bedplate.features.views import FeatureView, Periods
from bedplate.records import FeatureSet, TableVersion, ViewRecord
from bedplate.serve.state import AS_OF, SEEN, columns_of

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from bedplate.data.reads import Reader
    from bedplate.data.tables import Tables

Read = Callable[[str], "pa.RecordBatchReader"]
"""``read(input)``: the governed rows of an input."""
Asked = Callable[[FeatureView], "pa.Table | None"]
"""``asked(view)``: entities and moments (entity columns and ``as_of``) that a view of rows is needed for, if any."""


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
    asked: Asked = lambda _: None,
    on_progress: Callable[[str, float | None, float | None], None] | None = None,
) -> FeatureSet:
    """Compute every view for every moment and write each as the table ``<prefix><view>``, once per ``key``.

    Views of rows are computed for what is ``asked`` as well: for the very moments of the rows of a table, say.
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
                    where=f"feature view {view.name}",
                    fix=f"name one of {', '.join(inputs)}",
                )
    done: list[str] = []

    def work(view: FeatureView) -> tuple[TableVersion, tuple[str, ...]]:
        def read(name: str) -> "pa.RecordBatchReader":
            return reader.read(inputs[name])

        table = compute_view(view, read, as_of, memory=memory // workers, asked=asked(view))
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
        declared={view.name: _record(tables, inputs, view) for view in views},
    )


def _record(tables: "Tables", inputs: Mapping[str, TableVersion], view: FeatureView) -> ViewRecord:
    columns = (name for source in view.times for name in tables.schema(inputs[source]).names)
    return ViewRecord(
        digest=view.digest,
        entity=view.entity,
        rests_on=tuple(dict.fromkeys(name for name in columns if view.speaks_of(name))),
        inputs=tuple(view.times),
        rows=view.rows,
        ttl=view.ttl,
        defaults=view.defaults,
        on_demand=view.on_demand,
        request=view.request,
        owner=view.owner,
    )


def newest(stream: "pa.RecordBatchReader", column: str) -> datetime:
    """The newest time in ``column``, without a zone (UTC).

    Raises:
        InputError: there are no rows, or the column holds no times.
    """
    import pyarrow.compute as pc

    latest = None
    for batch in stream:
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


def compute_view(
    view: FeatureView,
    read: Read,
    as_of: Sequence[datetime],
    *,
    memory: int = 1 << 30,
    asked: "pa.Table | None" = None,
    touched: tuple[datetime, datetime] | None = None,
) -> "pa.Table":
    """The feature table of one view: entity columns, ``as_of`` (UTC), then features; one row per entity and moment.

    Rows are ordered by ``as_of`` as given, then by entity. Of a view of rows there is ``seen`` as well, the time of the
    newest row that each rests on, and rows for the entities and moments of ``asked``, in the order of time. With
    ``touched`` it holds of entities only those with a row that came into a window, or left one, in that range.

    Raises:
        InputError: the SQL cannot be run, names what it did not declare, or gives no or repeated entities; or times of
            one input, or of ``asked``, name a zone and those of another name none.
    """
    import pyarrow as pa  # heavy: not every command computes features

    from bedplate.data import duck

    with duck.connect(memory=memory, threads=1) as connection:
        if view.rows:
            return _of_rows(connection, view, read, as_of, asked, touched)
        raw, kinds = {}, {}
        for name, time in view.times.items():
            stream = read(name)
            if isinstance(time, str) and time in stream.schema.names:
                kinds[name] = stream.schema.field(time).type
                clocks.same(f"feature view {view.name}", kinds)
            # The name is random, so that no SQL written before now can name the rows that are not cut off.
            raw[name] = f"raw_{token_hex(16)}"
            connection.register("incoming", stream)
            _run(connection, view, f"CREATE TEMP TABLE {duck.quote(raw[name])} AS FROM incoming")
            connection.unregister("incoming")
        return pa.concat_tables([_at(connection, view, raw, moment) for moment in as_of])


def _of_rows(
    connection: "duckdb.DuckDBPyConnection",
    view: FeatureView,
    read: Read,
    as_of: Sequence[datetime],
    asked: "pa.Table | None",
    touched: tuple[datetime, datetime] | None,
) -> "pa.Table":
    from bedplate.data import duck

    (name,), keys = view.times, ", ".join(duck.quote(name) for name in view.entity)
    moments = [_plain(moment) for moment in as_of]
    stream = read(name)
    if asked is not None and view.event_time in stream.schema.names:
        kinds = {
            "the rows that are joined": asked.schema.field(AS_OF).type,
            name: stream.schema.field(view.event_time).type,
        }
        clocks.same(f"feature view {view.name}", kinds)
    load_rows(connection, view, stream)
    cut = ", ".join(f"({i}, {_literal(moment)})" for i, moment in enumerate(moments)) or "(0, NULL)"
    plain = None if touched is None else (_literal(_plain(touched[0])), _literal(_plain(touched[1])))
    every = f"SELECT {keys}, m.turn, m.moment FROM ({rows.entities(view, plain)}) CROSS JOIN cuts m"
    if asked is not None:
        connection.register("given", asked)
        every += f" UNION ALL SELECT DISTINCT {keys}, {len(moments)}, {duck.quote(AS_OF)}::TIMESTAMP FROM given"
        every += f" WHERE {duck.quote(AS_OF)}::TIMESTAMP NOT IN (SELECT moment FROM cuts)"
    _run(
        connection,
        view,
        f"""CREATE TEMP TABLE {rows.ASKED} AS
        WITH cuts AS (FROM (VALUES {cut}) c(turn, moment) WHERE moment IS NOT NULL), every AS ({every})
        SELECT {keys}, moment AS {rows.MOMENT}, row_number() OVER (ORDER BY turn, moment, {keys}) AS {rows.PLACE}
        FROM every WHERE moment IS NOT NULL""",
    )
    listed = ", ".join(f"f.{duck.quote(name)}" for name in rows.names(connection, view))
    made = features(connection, view)
    return query(
        connection,
        view,
        f"""SELECT {keys}, {rows.MOMENT}::TIMESTAMPTZ AS {AS_OF}, f.{SEEN}::TIMESTAMPTZ AS {SEEN}, {listed}
        FROM {rows.ASKED} JOIN ({made}) f USING ({rows.PLACE})
        WHERE f.{SEEN} IS NOT NULL ORDER BY {rows.PLACE}""",
    )


def load_rows(
    connection: "duckdb.DuckDBPyConnection", view: FeatureView, stream: "pa.RecordBatchReader", *, once: bool = False
) -> "pa.RecordBatchReader | None":
    """Make the rows of a view of rows from its input, as :func:`bedplate.features.rows.load`.

    Raises:
        InputError: its SQL is no such SQL, or cannot be run.
    """
    import duckdb

    try:
        return rows.load(connection, view, stream, once=once)
    except duckdb.Error as error:
        raise _refused(view, error) from None


def features(
    connection: "duckdb.DuckDBPyConnection", view: FeatureView, stream: "pa.RecordBatchReader | None" = None
) -> str:
    """SQL of the features of a view of rows, as :func:`bedplate.features.rows.features`.

    Raises:
        InputError: its SQL cannot be run.
    """
    import duckdb

    try:
        return rows.features(connection, view, stream)
    except duckdb.Error as error:
        raise _refused(view, error) from None


def _plain(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _literal(moment: datetime) -> str:
    return f"TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S.%f}'"


def _at(
    connection: "duckdb.DuckDBPyConnection", view: FeatureView, raw: dict[str, str], moment: datetime
) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    from bedplate.data import duck

    plain = _plain(moment)
    for name, table in raw.items():
        condition = _ends_before(view, name, view.times[name], plain)
        _run(
            connection,
            view,
            f"CREATE OR REPLACE TEMP VIEW {duck.quote(name)} AS FROM {duck.quote(table)} WHERE {condition}",
        )
    check_inputs(connection, view)
    table = query(connection, view, view.sql, {"as_of": plain} if "$as_of" in view.sql else None)
    where = f"feature view {view.name}"
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
    columns[AS_OF] = pa.repeat(pa.scalar(plain.replace(tzinfo=UTC), pa.timestamp("us", tz="UTC")), table.num_rows)
    for name in table.column_names:
        if name in columns:
            continue
        kind = table.schema.field(name).type
        numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
        if not any(test(kind) for test in numeric):
            raise InputError(f"its feature {name!r} is {kind}, not a number", where=where, fix="cast or encode it")
        values = pc.cast(table[name], pa.float32(), safe=False)
        columns[name] = pc.fill_null(values, view.defaults[name]) if name in view.defaults else values
    if strange := sorted(view.defaults.keys() - columns.keys() - view.on_demand.keys()):
        raise InputError(
            f"it has a default for {strange[0]!r}, which is no feature", where=where, fix="correct the name"
        )
    return pa.table(columns)


def _ends_before(view: FeatureView, name: str, time: "str | Periods | None", moment: datetime) -> str:
    """The condition under which a row was known before ``moment``. A view takes no parameters: literals are ours."""
    from bedplate.data import duck

    if time is None:
        return "true"
    if isinstance(time, str):
        return f"{duck.quote(time)} < {_literal(moment)}"
    first = f"TIMESTAMP '{time.first:%Y-%m-%d} 00:00:00'"
    return f"{first} + to_days(((CAST({duck.quote(time.column)} AS INTEGER) - 1) * {time.days:d})) < {_literal(moment)}"


def query(
    connection: "duckdb.DuckDBPyConnection", view: FeatureView, sql: str, values: dict[str, Any] | None = None
) -> "pa.Table":
    """What a query over the tables of a view gives.

    Raises:
        InputError: it cannot be run: the SQL of the view is at fault, for the rest is ours.
    """
    import duckdb

    try:
        return connection.sql(sql, params=values).to_arrow_table()
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
        f"its SQL cannot be run: {duck.what_failed(error)}", where=f"feature view {view.name}", fix="correct the SQL"
    )
