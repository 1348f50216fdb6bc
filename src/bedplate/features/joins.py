"""The features of rows as they were known when each row was: labels in, the same labels with features out."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from bedplate.errors import InputError
from bedplate.features import clocks, rows
from bedplate.features.point_in_time import features, load_rows, query
from bedplate.features.views import FeatureView
from bedplate.serve.expressions import Expression, on_demand
from bedplate.serve.state import AS_OF, MISSING, SEEN, matrix

if TYPE_CHECKING:
    import pyarrow as pa

    from bedplate.data.duck import Connection

Source = Callable[[FeatureView], "pa.RecordBatchReader"]
"""Of a view of rows its input, of a view of moments its feature table: governed reads."""


def join(
    labels: "pa.Table",
    time: str,
    views: Sequence[FeatureView],
    source: Source,
    *,
    memory: int = 2 << 30,
    threads: int | None = None,
) -> "pa.Table":
    """``labels``, row by row as they are, with the features of every view as further columns (``float32``).

    Each row gets what was known before its ``time``: of a view of rows what lies before it, of a view of moments the
    newest moment that is not after it. What is missing, or older than a view's time to live, is the declared default,
    or null. A feature table's moments are in UTC; so are labels that name no zone, beside them.

    Raises:
        InputError: a column is missing or there twice, ``time`` holds no times, or names a zone where those of a view's
            input name none or the other way round, or the SQL of a view cannot be run.
    """
    import pyarrow as pa

    from bedplate.data.arrow import begun

    needed = dict.fromkeys([time, *(name for view in views for name in (*view.entity, *view.request))])
    for name in needed:
        if name not in labels.column_names:
            raise InputError(f"the labels have no column {name!r}", fix=f"give it, beside {labels.column_names}")
    if not pa.types.is_temporal(labels.schema.field(time).type):
        raise InputError(f"{time!r} holds no times", where="labels", fix="name a timestamp column")
    joined = labels
    for view in views:
        given = source(view)
        if view.rows and view.event_time in given.schema.names:
            kinds = {
                "the labels": labels.schema.field(time).type,
                next(iter(view.times)): given.schema.field(view.event_time).type,
            }
            clocks.same(view.name, kinds)
        with begun(given) as given:
            found = _one(labels, time, view, given, memory, threads)
        for name in found.column_names:
            if name in joined.column_names:
                raise InputError(f"{name!r} is there twice", where=view.name, fix="rename the feature")
            joined = joined.append_column(name, found[name])
        for name, column in _on_demand(joined, view):
            joined = joined.append_column(name, column)
    return joined


def _on_demand(joined: "pa.Table", view: FeatureView) -> "Iterator[tuple[str, pa.Array]]":
    import pyarrow as pa

    expressions = {name: Expression(text) for name, text in view.on_demand.items()}
    named = set().union(*(expression.names for expression in expressions.values()), set()) - expressions.keys()
    columns = matrix(joined, sorted(named))
    given = {name: columns[:, i] for i, name in enumerate(sorted(named))}
    for name, values in on_demand(expressions, given, view.defaults).items():
        yield name, pa.array(values, mask=values == MISSING)


def _one(
    labels: "pa.Table", time: str, view: FeatureView, given: "pa.RecordBatchReader", memory: int, threads: int | None
) -> "pa.Table":
    import numpy as np
    import pyarrow as pa

    from bedplate.data import duck

    keys = ", ".join(duck.quote(name) for name in view.entity)
    asked = labels.select([*dict.fromkeys((*view.entity, time))])
    asked = asked.append_column(rows.PLACE, pa.array(np.arange(labels.num_rows)))
    with duck.connect({"labels": asked}, memory=memory, threads=threads) as connection:
        ask = f"""CREATE TEMP TABLE {rows.ASKED} AS
            SELECT {keys}, {duck.quote(time)}::TIMESTAMP AS {rows.MOMENT}, {rows.PLACE} FROM labels"""
        connection.execute(ask)
        if view.rows:
            made = features(connection, view, load_rows(connection, view, given, once=not view.windows))
        else:
            made = _of_moments(connection, view, given)
        found = query(connection, view, f"FROM ({made})")
    places = found[rows.PLACE].to_numpy()
    if (places[1:] < places[:-1]).any():
        found = found.take(pa.array(places.argsort()))
    return found.drop_columns([rows.PLACE, SEEN])


def _of_moments(connection: "Connection", view: FeatureView, given: "pa.RecordBatchReader") -> str:
    """SQL of the newest moment of a feature table not after what is asked, as :func:`rows.features` gives it."""
    from bedplate.data import duck

    names = [name for name in given.schema.names if name not in (*view.entity, AS_OF)]
    made = rows.newest_of(connection, view, "computed", AS_OF, names, given, at_moment=True)
    age = "true"
    if view.ttl is not None:
        age = f"{rows.MOMENT} - {SEEN} <= to_microseconds({round(view.ttl * 1e6)})"
    columns = []
    for name in names:
        value = f"CASE WHEN {age} THEN {duck.quote(name)} END"
        filled = f"coalesce({value}, {view.defaults[name]!r}::FLOAT)" if name in view.defaults else value
        columns.append(f"{filled} AS {duck.quote(name)}")
    return f"SELECT {rows.PLACE}, {SEEN}, {', '.join(columns)} FROM ({made})"
