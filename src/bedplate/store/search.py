"""Search: filters and orders become statements whose cost follows the page, not the number of runs.

A search over one experiment can go two ways. It can *walk* the index of the first key that it orders by and ask of each
run whether it matches: good when many do. Or it can *gather* the few runs that the most selective comparison finds in
its own index, and sort those: good when few do. How many a comparison finds is counted first, no further than where it
stops mattering. Runs that lack the key they are ordered by come last, as a walk of their own.

Pages are taken up by the values of the last row, so the last page costs what the first one costs. All that users wrote
is bound; names of columns come from the schema.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from bedplate.store import datasets
from bedplate.store.experiments import ExperimentRow, Lifecycle
from bedplate.store.filters import Clause, Comparator, Order
from bedplate.store.schema import HEAD_LENGTH, experiment_tags, experiments, latest_metrics, params, runs, tags
from bedplate.store.sql import Repository

Position = tuple[Any, ...]
"""Where a page ended: the values that its last row is ordered by."""

FEW = 3_000
"""As many runs, or four pages if that is more, are gathered and sorted rather than looked for along an index."""

_TABLES: dict[str, sa.Table] = {"metric": latest_metrics, "param": params, "tag": tags}
_RUN_COLUMNS: dict[str, sa.Column[Any]] = {
    "run_id": runs.c.id,
    "run_name": runs.c.name,
    "user_id": runs.c.user_id,
    "status": runs.c.status,
    "artifact_uri": runs.c.artifact_uri,
    "start_time": runs.c.started,
    "end_time": runs.c.ended,
}
_INDEXED = frozenset({"run_id", "status", "start_time", "end_time"})
_RUN_NAME_TAG = "mlflow.runName"
_STARTED = Order("attribute", "start_time", False)
_ID = Order("attribute", "run_id", True)
_EXPERIMENT_COLUMNS: dict[str, sa.Column[Any]] = {
    "name": experiments.c.name,
    "experiment_id": experiments.c.id,
    "creation_time": experiments.c.created,
    "last_update_time": experiments.c.updated,
}


class _Part(NamedTuple):
    """What is searched at a time: runs of one experiment in one stage of life."""

    experiment: int
    lifecycle: Lifecycle


class _Term:
    """One key of an order: which rank a run has (0 has a value, then NaN, then nothing), and the value."""

    def __init__(self, order: Order, number: int) -> None:
        self.order = order
        self.ascending = order.ascending
        self.table: Any = None
        self.rank: ColumnElement[Any] | None = None
        table = _TABLES.get(order.kind)
        if table is None:
            self.value: ColumnElement[Any] = _RUN_COLUMNS[order.key]
            if order.key == "end_time":
                self.rank = sa.case((self.value.is_(None), 1), else_=0)
        else:
            self.table = table.alias(f"order_{number}")
            self.value = self.table.c.value
            absent = (self.table.c.run.is_(None), 2)
            nan = ((self.table.c.is_nan, 1),) if order.kind == "metric" else ()
            self.rank = sa.case(absent, *nan, else_=0)

    def columns(self) -> list[ColumnElement[Any]]:
        """What a row has to hold so that a later page can begin after it."""
        return [self.value] if self.rank is None else [self.rank, self.value]

    def by(self) -> list[ColumnElement[Any]]:
        value = self.value.asc() if self.ascending else self.value.desc()
        return [value] if self.rank is None else [self.rank.asc(), value]

    def joined(self, source: Any) -> Any:
        if self.table is None:
            return source
        return source.outerjoin(self.table, sa.and_(self.table.c.run == runs.c.key, self.table.c.key == self.order.key))


class Search(Repository):
    """``tx.search``."""

    def runs(
        self,
        within: Sequence[int],
        clauses: Sequence[Clause],
        orders: Sequence[Order],
        *,
        lifecycles: Iterable[Lifecycle],
        limit: int,
        after: Position | None = None,
    ) -> tuple[list[int], Position | None]:
        """Keys of the runs of these experiments that match, in order, and where the next page begins if there is one.

        Ordered at last by start, newest first, then by id. Runs that lack a value come last, after those with NaN.
        """
        terms = _terms(orders)
        found: list[tuple[Any, ...]] = []
        for experiment in dict.fromkeys(within):
            for lifecycle in lifecycles:
                found += self._part(_Part(experiment, lifecycle), clauses, terms, limit + 1, after)
        if len(within) > 1:
            found.sort(key=lambda row: _sort_key(terms, row[1:]))
        page = found[:limit]
        return [row[0] for row in page], tuple(page[-1][1:]) if len(found) > limit else None

    def _part(
        self, part: _Part, clauses: Sequence[Clause], terms: list[_Term], limit: int, after: Position | None
    ) -> list[tuple[Any, ...]]:
        source: Any = runs
        for term in terms:
            source = term.joined(source)
        conditions = [runs.c.experiment == part.experiment, runs.c.lifecycle == part.lifecycle]
        conditions += [self._matches(clause) for clause in clauses]
        if after is not None:
            conditions.append(_beyond(terms, after))
        statement = (
            sa.select(runs.c.key, *(column for term in terms for column in term.columns()))
            .select_from(source)
            .where(*conditions)
            .order_by(*(column for term in terms for column in term.by()))
            .limit(limit)
        )
        return [tuple(row) for row in self._connection.execute(statement)]

    def _matches(self, clause: Clause) -> ColumnElement[bool]:
        """Whether the run at hand matches."""
        if clause.kind == "dataset":
            return datasets.was_read(clause, postgresql=self._postgresql)
        if clause.kind == "attribute":
            if clause.key == "run_name":
                return self._matches(Clause("tag", _RUN_NAME_TAG, clause.comparator, clause.value))
            return _compare(_RUN_COLUMNS[clause.key], clause.comparator, clause.value, self._postgresql)
        table = _TABLES[clause.kind]
        probe: sa.Select[Any] = sa.select(sa.literal_column("1")).where(
            table.c.run == runs.c.key, table.c.key == clause.key
        )
        if clause.comparator == "IS NULL":
            return ~probe.exists()
        if clause.comparator == "IS NOT NULL":
            return probe.exists()
        return probe.where(self._compare_values(table, clause)).exists()

    def _compare_values(self, table: Any, clause: Clause) -> ColumnElement[bool]:
        if clause.kind == "metric":
            compared = _compare(table.c.value, clause.comparator, float(clause.value), self._postgresql)  # type: ignore[arg-type]
            if clause.comparator == "!=":
                return sa.or_(compared, table.c.is_nan)
            return sa.and_(compared, sa.not_(table.c.is_nan))
        return _compare_long(table, clause.comparator, str(clause.value), self._postgresql)

    def experiments(
        self,
        workspace: str,
        clauses: Sequence[Clause],
        orders: Sequence[Order],
        *,
        lifecycles: Iterable[Lifecycle],
        limit: int,
        after: Position | None = None,
    ) -> tuple[list[ExperimentRow], Position | None]:
        """The experiments of a workspace that match, in order, and where the next page begins if there is one."""
        orders = orders or (Order("attribute", "creation_time", False), Order("attribute", "experiment_id", True))
        if not any(order.key == "experiment_id" for order in orders):
            orders = (*orders, Order("attribute", "experiment_id", False))
        columns = [_EXPERIMENT_COLUMNS[order.key] for order in orders]
        conditions = [experiments.c.workspace == workspace, experiments.c.lifecycle.in_(list(lifecycles))]
        conditions += [self._experiment_matches(clause) for clause in clauses]
        if after is not None:
            pairs = [
                (column, order.ascending, value) for column, order, value in zip(columns, orders, after, strict=True)
            ]
            conditions.append(_after(pairs))
        by = [column.asc() if order.ascending else column.desc() for column, order in zip(columns, orders, strict=True)]
        statement = sa.select(*experiments.c, *(c.label(f"o{i}") for i, c in enumerate(columns)))
        rows = self._connection.execute(statement.where(*conditions).order_by(*by).limit(limit + 1)).all()
        width = len(experiments.c)
        page = [ExperimentRow(*row[:width]) for row in rows[:limit]]
        return page, tuple(rows[limit - 1][width:]) if len(rows) > limit else None

    def _experiment_matches(self, clause: Clause) -> ColumnElement[bool]:
        if clause.kind == "attribute":
            value = clause.value
            if clause.key == "experiment_id":
                value = tuple(map(int, value)) if isinstance(value, tuple) else int(value)  # type: ignore[arg-type]
            return _compare(_EXPERIMENT_COLUMNS[clause.key], clause.comparator, value, self._postgresql)
        probe: sa.Select[Any] = sa.select(sa.literal_column("1")).where(
            experiment_tags.c.experiment == experiments.c.id, experiment_tags.c.key == clause.key
        )
        if clause.comparator == "IS NULL":
            return ~probe.exists()
        if clause.comparator == "IS NOT NULL":
            return probe.exists()
        return probe.where(
            _compare(experiment_tags.c.value, clause.comparator, clause.value, self._postgresql)
        ).exists()


def _terms(orders: Sequence[Order]) -> list[_Term]:
    whole = list(orders)
    for last in (_STARTED, _ID):
        if not any((order.kind, order.key) == (last.kind, last.key) for order in whole):
            whole.append(last)
    return [_Term(order, number) for number, order in enumerate(whole)]


def _after(pairs: Sequence[tuple[ColumnElement[Any], bool, Any]]) -> ColumnElement[bool]:
    """Whether a row comes after one that has these values, column by column."""
    condition: ColumnElement[bool] = sa.false()
    for column, ascending, value in reversed(pairs):
        further = column > value if ascending else column < value
        condition = sa.or_(further, sa.and_(column == value, condition))
    return condition


def _beyond(terms: list[_Term], after: Position) -> ColumnElement[bool]:
    pairs: list[tuple[ColumnElement[Any], bool, Any]] = []
    values = iter(after)
    for term in terms:
        rank = 0
        if term.rank is not None:
            rank = next(values)
            pairs.append((term.rank, True, rank))
        value = next(values)
        if rank == 0:
            pairs.append((term.value, term.ascending, value))
    return _after(pairs)


def _sort_key(terms: list[_Term], values: Sequence[Any]) -> tuple[Any, ...]:
    key: list[Any] = []
    each = iter(values)
    for term in terms:
        rank = next(each) if term.rank is not None else 0
        value = next(each)
        key.append(rank)
        if rank == 0:
            key.append(value if term.ascending else _Reversed(value))
    return tuple(key)


class _Reversed:
    """A value that sorts the other way round."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reversed) and self.value == other.value

    def __lt__(self, other: "_Reversed") -> bool:
        return bool(other.value < self.value)

    __hash__ = None  # type: ignore[assignment]


_NUMBERS: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "=": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
}


def _compare(column: ColumnElement[Any], comparator: Comparator, value: Any, postgresql: bool) -> ColumnElement[bool]:
    if comparator in ("IN", "NOT IN"):
        found = column.in_(list(value))
        return found if comparator == "IN" else ~found
    if comparator in ("LIKE", "ILIKE"):
        return _like(column, comparator, value, postgresql)
    if isinstance(value, float) and not isinstance(column.type, sa.Double):
        value = sa.literal(value, sa.Double)
    return _NUMBERS[comparator](column, value)


def _compare_long(table: Any, comparator: Comparator, value: str, postgresql: bool) -> ColumnElement[bool]:
    """Compare a text of which the first part is in ``value`` and what is left, if anything, in ``rest``."""
    head, rest = table.c.value, table.c.rest
    if comparator in ("LIKE", "ILIKE"):
        return _like(head.concat(sa.func.coalesce(rest, "")), comparator, value, postgresql)
    if len(value) <= HEAD_LENGTH:
        same = sa.and_(head == value, rest.is_(None))
    else:
        same = sa.and_(head == value[:HEAD_LENGTH], rest == value[HEAD_LENGTH:])
    if comparator == "=":
        return same
    return sa.or_(head != value[:HEAD_LENGTH], sa.func.coalesce(rest, "") != value[HEAD_LENGTH:])


def _like(column: ColumnElement[Any], comparator: str, pattern: str, postgresql: bool) -> ColumnElement[bool]:
    """LIKE and ILIKE with % and _ and no escape; ILIKE passes over the case of A to Z alone, on both databases."""
    if postgresql:
        ignoring = comparator == "ILIKE"
        return column.ilike(pattern, escape="") if ignoring else column.like(pattern, escape="")
    if comparator == "ILIKE":
        return column.op("LIKE", is_comparison=True)(pattern)  # SQLite's own passes over case
    return column.op("GLOB", is_comparison=True)(_glob(pattern))


_GLOB = str.maketrans({"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"})


def _glob(pattern: str) -> str:
    return pattern.translate(_GLOB)
