"""Views of rows: what each entity's rows before any moment say, computed for a list of entities and moments.

One function serves training, materialisation and the recomputation of what was served, so they cannot differ. A row
counts from just after its own time: at the very moment of a row, nobody knows it yet. Of several rows of one entity at
one time the one with the greatest values counts, whatever the order in which they came.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bedplate.errors import InputError
from bedplate.features.sql import check_row_by_row
from bedplate.features.views import FeatureView, Window
from bedplate.serve.state import AS_OF, SEEN

if TYPE_CHECKING:
    import pyarrow as pa

    from bedplate.data.duck import Connection

ASKED, PLACE, MOMENT = "asked_rows", "asked_place", "asked_moment"
"""The table of what is asked for: the entity columns, where the row stands, and its moment (UTC, without a zone)."""
_ROWS = "rows_of_view"
_NEWEST = "newest_rows"
_COLUMNS = "DESCRIBE rows_of_view"
_AT_ONCE = 1 << 18
"""Rows that are looked at together: what is made of a few of their columns stays in the caches."""
_THREADS = 4
"""Most that look at rows at once: what they keep, one keeps at a time, and each holds what it looks at."""
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
            "UHUGEINT", "FLOAT", "DOUBLE", "BOOLEAN", "DECIMAL")  # fmt: skip
_AGGREGATES = {"sum": "sum", "mean": "avg", "min": "min", "max": "max"}


def load(
    connection: "Connection", view: FeatureView, stream: "pa.RecordBatchReader", *, once: bool = False
) -> "pa.RecordBatchReader | None":
    """Make the rows of the view from ``stream``, its input. Rows without an entity or a time are left out.

    ``once``: they will be looked at a single time, and go by without being kept. If the view names columns of its input
    and does nothing else, the stream is given back as it is: what :func:`features` looks at.

    Raises:
        InputError: the SQL does more than choose and compute row by row, or gives something that is no feature.
        duckdb.Error: it cannot be run.
    """
    from bedplate.data import duck

    (source,) = view.times
    connection.register(source, stream.schema.empty_table())  # a stream is read once: its columns are looked at first
    plain = check_row_by_row(connection, view)
    time, keys = duck.quote(view.event_time), [duck.quote(name) for name in view.entity]
    values = [duck.quote(name) for name in _values(connection, view)]
    there = " AND ".join(f"{name} IS NOT NULL" for name in (*keys, time))
    made = f"""{_ROWS} AS SELECT {", ".join([*keys, f"{time}::TIMESTAMP AS {time}", *values])} FROM ({view.sql})
        WHERE {there} AND isfinite({time}::TIMESTAMP)"""
    kind = "VIEW" if once else "TABLE"
    create = f"CREATE OR REPLACE TEMP {kind} {made}"
    if once:
        connection.execute(create)
        if plain is not None and set(plain) <= set(stream.schema.names):
            return stream
        connection.register(source, stream)
        return None
    connection.register(source, stream)
    connection.execute(create)
    connection.unregister(source)
    return None


def entities(view: FeatureView, touched: tuple[str, str] | None = None) -> str:
    """SQL of every entity that has rows; with ``touched`` (two literals of time) only of those with a row that came
    into a window, or left one, from the first to before the second."""
    from bedplate.data import duck

    time, condition = duck.quote(view.event_time), "true"
    if touched is not None:
        ages = dict.fromkeys([0.0, *(window.over for window in view.windows.values())])
        moved = (f"{time} + to_microseconds({round(age * 1e6)})" for age in ages)
        condition = " OR ".join(f"({when} >= {touched[0]} AND {when} < {touched[1]})" for when in moved)
    return f"SELECT DISTINCT {', '.join(duck.quote(name) for name in view.entity)} FROM {_ROWS} WHERE {condition}"


def features(connection: "Connection", view: FeatureView, stream: "pa.RecordBatchReader | None" = None) -> str:
    """SQL that gives, for each row of :data:`ASKED`, its :data:`PLACE`, :data:`~bedplate.serve.state.SEEN` (the time of
    the entity's newest row before the moment; null where there is none, or it is older than the view's time to live)
    and the features as FLOAT: null, or the declared default, where there are none. To be called after :func:`load`,
    with what that gave.
    """

    made = _windowed(view) if view.windows else _newest(connection, view, stream)
    age = "" if view.ttl is None else f" AND {MOMENT} - {SEEN} <= to_microseconds({round(view.ttl * 1e6)})"
    return f"""WITH made AS ({made}), judged AS (
            SELECT *, coalesce({SEEN} IS NOT NULL{age}, false) AS alive FROM made)
        SELECT {PLACE}, CASE WHEN alive THEN {SEEN} END AS {SEEN},
            {", ".join(_feature(name, view) for name in names(connection, view))} FROM judged"""


def names(connection: "Connection", view: FeatureView) -> tuple[str, ...]:
    """The features of a view of rows, in order."""
    if view.windows:
        return tuple(view.windows)
    found = (name for name, *_ in connection.execute(_COLUMNS).fetchall())
    return tuple(name for name in found if name not in (*view.entity, view.event_time))


def _feature(name: str, view: FeatureView) -> str:
    from bedplate.data import duck

    quoted = duck.quote(name)
    value = f"CASE WHEN alive THEN {quoted} END::FLOAT"
    return (
        f"coalesce({value}, {view.defaults[name]!r}::FLOAT) AS {quoted}"
        if name in view.defaults
        else f"{value} AS {quoted}"
    )


def _newest(connection: "Connection", view: FeatureView, stream: "pa.RecordBatchReader | None") -> str:
    """SQL of the newest row of each entity asked for before its moment."""
    return newest_of(connection, view, _ROWS, view.event_time, names(connection, view), stream)


def newest_of(
    connection: "Connection",
    view: FeatureView,
    table: str,
    time: str,
    columns: Sequence[str],
    stream: "pa.RecordBatchReader | None" = None,
    *,
    at_moment: bool = False,
) -> str:
    """SQL that gives, for each row of :data:`ASKED`, its place and moment and of ``table`` the entity's newest row:
    its ``time`` as :data:`~bedplate.serve.state.SEEN`, and ``columns``; nulls where there is none. See
    :func:`bedplate.features.before.newest_before`. With a ``stream`` that is what ``table`` holds.

    Raises:
        duckdb.Error: the rows cannot be made.
    """
    import duckdb
    import pyarrow as pa

    from bedplate.data import duck
    from bedplate.data.arrow import rebatch
    from bedplate.features.before import newest_before

    ask = f"SELECT {', '.join(map(duck.quote, view.entity))}, {MOMENT}, {PLACE} FROM {ASKED}"
    asked: Any = connection.sql(ask).to_arrow_table()
    ((threads,),) = connection.execute("SELECT current_setting('threads')").fetchall()
    names = [*view.entity, time, *columns]
    if stream is None or not _fits(asked.schema, stream.schema, view.entity, time):
        if stream is not None:
            connection.register(table, stream)
        stream = _cast(connection, view, table, time, columns)
        names = stream.schema.names
    given = [stream.schema.get_field_index(name) for name in names]
    kinds = [stream.schema.field(i).type for i in given]
    kinds[len(view.entity)] = pa.timestamp("us")  # in UTC, as moments are
    schema = pa.schema([pa.field(str(i), kind) for i, kind in enumerate(kinds)])
    rows = (
        pa.RecordBatch.from_arrays(
            [batch.column(i).cast(kind) for i, kind in zip(given, kinds, strict=True)], schema=schema
        )
        for batch in stream
    )
    try:
        found = newest_before(
            asked.drop_columns([PLACE]),
            rebatch(rows, schema, _AT_ONCE),
            schema,
            at_moment=at_moment,
            threads=min(threads, _THREADS),
        )
    except OSError:  # as a stream says what DuckDB would, with a value of a row in its text
        raise duckdb.DataError(f"the rows of {table} cannot be made") from None
    found = found.rename_columns([SEEN, *columns])
    for name in (PLACE, MOMENT):
        found = found.append_column(name, asked[name])
    connection.register(_NEWEST, found)
    return f"FROM {_NEWEST}"


def _fits(asked: "pa.Schema", given: "pa.Schema", entity: Sequence[str], time: str) -> bool:
    """Whether rows can be compared with what is asked for as they are: keys of its type, times in microseconds."""
    import pyarrow as pa

    kind = given.field(time).type
    return bool(
        all(asked.field(name).type == given.field(name).type for name in entity)
        and pa.types.is_timestamp(kind)
        and kind.unit == "us"
    )


def _cast(
    connection: "Connection", view: FeatureView, table: str, time: str, columns: Sequence[str]
) -> "pa.RecordBatchReader":
    """The rows of a table with keys as what the asking side has: what cannot be that is no key of it."""
    from bedplate.data import duck

    described = f"DESCRIBE {ASKED}"
    kinds = {name: kind for name, kind, *_ in connection.execute(described).fetchall()}
    keys = [f"TRY_CAST({duck.quote(name)} AS {kinds[name]})" for name in view.entity]
    values = ", ".join(duck.quote(name) for name in columns)
    given = f"SELECT {', '.join(keys)}, {duck.quote(time)}::TIMESTAMP, {values} FROM {table}"
    return connection.sql(given).to_arrow_reader(_AT_ONCE)


def _windowed(view: FeatureView) -> str:
    """SQL that walks asked and given rows together, by entity in the order of time, with one frame for each length.

    Time becomes twice its microseconds, and one more for a given row: so it comes just after what is asked at its time.
    """
    from bedplate.data import duck

    entity, time = ", ".join(duck.quote(name) for name in view.entity), duck.quote(view.event_time)
    columns = dict.fromkeys(duck.quote(window.column) for window in view.windows.values() if window.column)
    frames = {over: f"frame_{i}" for i, over in enumerate(dict.fromkeys(w.over for w in view.windows.values()))}
    made = [f"{_aggregate(w)} OVER {frames[w.over]} AS {duck.quote(name)}" for name, w in view.windows.items()]
    windows = [
        f"{name} AS (PARTITION BY {entity} ORDER BY moved RANGE BETWEEN {round(2e6 * over)} PRECEDING AND CURRENT ROW)"
        for over, name in frames.items()
    ]
    return f"""SELECT * EXCLUDE (given) FROM (
        SELECT {PLACE}, {MOMENT}, {PLACE} IS NULL AS given,
            max({SEEN}) OVER (PARTITION BY {entity} ORDER BY moved ROWS UNBOUNDED PRECEDING) AS {SEEN},
            {", ".join(made)}
        FROM (
            SELECT {entity}, 2 * epoch_us({time}) + 1 AS moved, {time} AS {SEEN}, true AS counted,
                {", ".join([*columns, f"NULL::BIGINT AS {PLACE}"])} FROM {_ROWS}
            UNION ALL BY NAME
            SELECT {entity}, 2 * epoch_us({MOMENT}) AS moved, {PLACE}, {MOMENT} FROM {ASKED}
        ) WINDOW {", ".join(windows)}
    ) WHERE NOT given"""


def _aggregate(window: Window) -> str:
    from bedplate.data import duck

    if window.of == "count":
        return "count(counted)"
    column = duck.quote(window.column)
    if window.of == "last":  # of rows at one time the greatest value, so that their order says nothing
        return f"arg_max({column}, (moved, {column}))"
    return f"{_AGGREGATES[window.of]}({column})"


def _values(connection: "Connection", view: FeatureView) -> tuple[str, ...]:
    """The columns of the rows that features are made of, each of which holds numbers."""
    where = f"feature view {view.name}"
    given = f"DESCRIBE {view.sql}"
    kinds = {name: str(kind) for name, kind, *_ in connection.execute(given).fetchall()}
    for name in (*view.entity, view.event_time):
        if name not in kinds:
            raise InputError(f"its SQL gives no column {name!r}", where=where, fix="select entity and time as they are")
    if not kinds[view.event_time].startswith(("TIMESTAMP", "DATE")):
        raise InputError(
            f"{view.event_time!r} holds {kinds[view.event_time]}, not times", where=where, fix="name a timestamp column"
        )
    others = [name for name in kinds if name not in (*view.entity, view.event_time)]
    wanted = [w.column for w in view.windows.values() if w.column] if view.windows else others
    if not wanted and not view.windows:
        raise InputError("its SQL gives no features", where=where, fix="select columns beside entity and time")
    for name in wanted:
        if name not in others:
            raise InputError(f"its SQL gives no column {name!r}", where=where, fix=f"select it, of {', '.join(kinds)}")
        if not kinds[name].startswith(_NUMBERS) or kinds[name].endswith("]"):
            raise InputError(
                f"its feature {name!r} is {kinds[name]}, not a number", where=where, fix="cast or encode it"
            )
    if reserved := sorted({AS_OF, SEEN} & {*wanted, *view.windows}):
        raise InputError(f"a feature cannot be called {reserved[0]!r}", where=where, fix="rename it")
    made = view.windows.keys() or set(others)
    if strange := sorted(view.defaults.keys() - made - view.on_demand.keys()):
        raise InputError(
            f"it has a default for {strange[0]!r}, which is no feature", where=where, fix="correct the name"
        )
    return tuple(dict.fromkeys(wanted))
