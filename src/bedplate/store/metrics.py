"""Metrics: every value that was logged, and the latest of each."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from bedplate.store.schema import latest_metrics, metrics, runs
from bedplate.store.sql import Among, Direct, Repository, Upsert, param, plain

_run, _metric, _limit = param("run_"), param("metric_"), param("limit_")
_ADD = Upsert(metrics)


def _later(new: Any) -> sa.ColumnElement[bool]:
    old = latest_metrics.c
    return sa.tuple_(new.step, new.timestamp, new.value) > sa.tuple_(old.step, old.timestamp, old.value)


_LATEST = Upsert(latest_metrics, update=("step", "timestamp", "value", "is_nan"), when=_later)
_POINT = (metrics.c.timestamp, metrics.c.step, metrics.c.value, metrics.c.is_nan)
_HISTORY = sa.select(*_POINT).where(metrics.c.run == _run, metrics.c.key == _metric).order_by(*_POINT).limit(_limit)
_HISTORY_AFTER = _HISTORY.where(
    sa.tuple_(*_POINT)
    > sa.tuple_(
        sa.bindparam("timestamp_", type_=sa.BigInteger),
        sa.bindparam("step_", type_=sa.BigInteger),
        sa.bindparam("value_", type_=sa.Double),
        sa.bindparam("is_nan_", type_=sa.Boolean),
    )
)
_NEWEST = (
    sa.select(*_POINT)
    .where(metrics.c.run == _run, metrics.c.key == _metric)
    .order_by(*(column.desc() for column in _POINT))
    .limit(1)
)
_SEVERAL = sa.select(latest_metrics.c.key).where(
    latest_metrics.c.run == _run,
    sa.exists().where(
        metrics.c.run == latest_metrics.c.run,
        metrics.c.key == latest_metrics.c.key,
        sa.or_(metrics.c.step != latest_metrics.c.step, metrics.c.timestamp != latest_metrics.c.timestamp),
    ),
)
_OF_RUNS = Among(
    sa.select(metrics.c.run, *_POINT).where(metrics.c.key == _metric).order_by(metrics.c.run, *_POINT),
    metrics.c.run,
)
_BY_RUN = Among(
    sa.select(
        latest_metrics.c.run,
        latest_metrics.c.key,
        latest_metrics.c.value,
        latest_metrics.c.is_nan,
        latest_metrics.c.timestamp,
        latest_metrics.c.step,
    ),
    latest_metrics.c.run,
)
_AT = Direct(
    sa.select(metrics.c.position).where(
        metrics.c.run == _run,
        metrics.c.key == _metric,
        metrics.c.timestamp == param("timestamp_"),
        metrics.c.step == param("step_"),
        metrics.c.value == param("value_"),
        metrics.c.is_nan == param("is_nan_"),
    )
)
_APPENDED = (
    sa.select(
        metrics.c.position,
        runs.c.id,
        metrics.c.key,
        metrics.c.value,
        metrics.c.is_nan,
        metrics.c.timestamp,
        metrics.c.step,
    )
    .join(runs, runs.c.key == metrics.c.run)
    .order_by(metrics.c.position)
    .execution_options(yield_per=10_000)
)
_APPENDED_TO = _APPENDED.where(metrics.c.run == _run)
EVERYTHING = 2**62

Stored = tuple[int, int, float, bool]
"""A logged value as it is stored and ordered: timestamp, step, value (0 for NaN), whether it is NaN."""

Latest = dict[int, list[tuple[str, float, int, int]]]
"""For each run that has some, by its key: metric, value, timestamp, step."""


Row = tuple[int, str, str, float, int, int]
"""A row as it was appended: position, run id, metric, value, timestamp, step."""

Point = tuple[int, int, int, str, float, int, int, int]
"""One value to log: run, experiment, when the run started, metric, value, timestamp, step, position.

``position`` is its number among all appends. A plain tuple, because there are thousands in a call.
"""


class Metrics(Repository):
    """``tx.metrics``."""

    def log(self, points: Sequence[Point]) -> list[int]:
        """Log values, of one run or of many. Returns the positions of those that equal one which is there already.

        Of each metric of a run the value with the greatest step, then time, then value becomes its latest.
        """
        rows: list[tuple[Any, ...]] = []
        latest: dict[tuple[int, str], tuple[Any, ...]] = {}
        for run, experiment, started, key, value, timestamp, step, position in points:
            is_nan = value != value
            stored = 0.0 if is_nan else value
            rows.append((run, key, timestamp, step, stored, is_nan, position))
            of = run, key
            # Values come in order, as a rule: then the step alone tells.
            known = latest.get(of)
            if known is None or step > known[4] or (step, timestamp, stored) > known[4:7]:
                latest[of] = (run, key, experiment, started, step, timestamp, stored, is_nan)
        kept = _ADD.many(self._connection, rows)
        _LATEST.many(self._connection, list(latest.values()))
        if kept == len(rows):
            return []
        return [row[-1] for row in rows if self._position(row) != row[-1]]

    def _position(self, row: tuple[Any, ...]) -> int:
        """The position of the row that is there with the key of this one."""
        names = ("run_", "metric_", "timestamp_", "step_", "value_", "is_nan_")
        found = _AT.first(self._connection, **dict(zip(names, row, strict=False)))
        assert found is not None
        position: int = found[0]
        return position

    def history(self, run: int, key: str, limit: int = EVERYTHING, after: Stored | None = None) -> list[Stored]:
        """Values of one metric by timestamp, step and value, from the one after ``after``."""
        values = {"run_": run, "metric_": key, "limit_": limit}
        if after is None:
            return plain(self._execute(_HISTORY, **values))
        timestamp, step, value, is_nan = after
        more = {"timestamp_": timestamp, "step_": step, "value_": value, "is_nan_": is_nan}
        return plain(self._execute(_HISTORY_AFTER, **values, **more))

    def newest(self, run: int, key: str) -> Stored | None:
        """The value of a metric that :meth:`history` gives last; None if there is none."""
        rows = plain(self._execute(_NEWEST, run_=run, metric_=key))
        return rows[0] if rows else None

    def histories(self, runs: Iterable[int], key: str) -> list[tuple[int, int, int, float, bool]]:
        """Values of one metric of several runs: each run's key, then as in :meth:`history`."""
        return _OF_RUNS.rows(self._connection, runs, metric_=key)

    def latest(self, runs: Iterable[int]) -> Latest:
        """The latest value of every metric of these runs."""
        return latest_of(_BY_RUN.rows(self._connection, runs))

    def several(self, run: int) -> frozenset[str]:
        """The metrics of a run that have values at more than one step or time."""
        return frozenset(key for (key,) in plain(self._execute(_SEVERAL, run_=run)))

    def appended(self, run: int | None = None) -> Iterator[Row]:
        """Every row, or every row of one run, by position."""
        found = self._execute(_APPENDED) if run is None else self._execute(_APPENDED_TO, run_=run)
        with contextlib.closing(found):
            row: Any
            for row in found:
                yield row[0], row[1], row[2], math.nan if row[4] else row[3], row[5], row[6]


def latest_of(rows: list[tuple[int, str, float, bool, int, int]]) -> Latest:
    """Rows of latest metrics (run, metric, value, whether it is NaN, timestamp, step), by run."""
    found: Latest = {}
    for run, key, value, is_nan, timestamp, step in rows:
        point = (key, math.nan if is_nan else value, timestamp, step)
        if run in found:
            found[run].append(point)
        else:
            found[run] = [point]
    return found
