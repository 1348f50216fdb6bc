"""Search among logged models, built like the search among runs: bound values, pages taken up where the last one ended.

What a model was measured at is every value that was logged of it, by any run and on any data set, so a comparison holds
if one of them does; ordered by is the one logged last. Where a comparison finds few models in its own index those are
gathered and sorted; else the models are gone through in their order and each is asked.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from bedplate.store import matching, pages
from bedplate.store.filters import Clause, is_storable
from bedplate.store.logged_models import PENDING, READY, UNSPECIFIED, UPLOAD_FAILED
from bedplate.store.matching import Condition
from bedplate.store.model_schema import logged_model_metrics, logged_model_params, logged_model_tags, logged_models
from bedplate.store.sql import Repository
from bedplate.store.walks import Position

FEW = 2_000
"""So many models are gathered and sorted rather than looked for along an index; at least four pages."""

ATTRIBUTES: dict[str, sa.Column[Any]] = {
    "model_id": logged_models.c.id,
    "experiment_id": logged_models.c.experiment,
    "name": logged_models.c.name,
    "model_type": logged_models.c.model_type,
    "source_run_id": logged_models.c.source_run,
    "artifact_location": logged_models.c.artifact_location,
    "status": logged_models.c.status,
    "status_message": logged_models.c.status_message,
    "lifecycle_stage": logged_models.c.lifecycle,
    "creation_timestamp": logged_models.c.created,
    "last_updated_timestamp": logged_models.c.updated,
}
"""What can be asked of a model itself, and the column that knows."""

_STATUS = {
    UNSPECIFIED: ("UNSPECIFIED", "LOGGED_MODEL_STATUS_UNSPECIFIED"),
    PENDING: ("PENDING", "LOGGED_MODEL_PENDING"),
    READY: ("READY", "LOGGED_MODEL_READY"),
    UPLOAD_FAILED: ("FAILED", "UPLOAD_FAILED", "LOGGED_MODEL_UPLOAD_FAILED"),
}
STATUS = {word: number for number, words in _STATUS.items() for word in (str(number), *words)}
"""Every word for a status, and its number."""

_ONE: ColumnElement[Any] = sa.literal_column("1")
_ZERO: ColumnElement[Any] = sa.literal_column("0")


class DatasetFilter(NamedTuple):
    """A dataset that values must have been measured on; any digest if none is given."""

    name: str
    digest: str = ""


class ModelOrder(msgspec.Struct, frozen=True):
    """One key to order by; a metric may be that on one dataset."""

    kind: Literal["attribute", "metric"]
    key: str
    ascending: bool = True
    dataset_name: str = ""
    dataset_digest: str = ""


class _Test(NamedTuple):
    """One thing that a model has to be: asked of the model at hand, or found in an index for an experiment."""

    asked: Condition
    found: sa.Select[Any] | None = None


class _Term:
    """One key of an order: whether a model has a value (0), has NaN (1) or has none (2), and the value."""

    def __init__(self, order: ModelOrder) -> None:
        self.ascending = order.ascending
        self.table: Any = None
        self.value: ColumnElement[Any]
        self.rank: ColumnElement[Any] = _ZERO
        if order.kind == "attribute":
            self.value = ATTRIBUTES[order.key]
            if ATTRIBUTES[order.key].nullable:
                self.rank = sa.case((self.value.is_(None), 2), else_=0)
            return
        self.table = logged_model_metrics.alias()
        self.value = self.table.c.value
        self.rank = sa.case((self.table.c.model.is_(None), 2), (self.table.c.is_nan, 1), else_=0)
        every = logged_model_metrics.alias()
        conditions = [every.c.model == logged_models.c.key, every.c.key == order.key]
        if order.dataset_name:
            conditions.append(every.c.dataset_name == order.dataset_name)
        if order.dataset_digest:
            conditions.append(every.c.dataset_digest == order.dataset_digest)
        # The primary key from its end, so the first row found is the one.
        last = [every.c[column.name].desc() for column in list(logged_model_metrics.primary_key)[2:]]
        latest = sa.select(every.c.position).where(*conditions).order_by(*last).limit(1).correlate(logged_models)
        self.latest = latest.scalar_subquery()

    @property
    def ranked(self) -> bool:
        return self.rank is not _ZERO

    def by(self) -> list[ColumnElement[Any]]:
        value = self.value.asc() if self.ascending else self.value.desc()
        return [self.rank.asc(), value] if self.ranked else [value]

    def joined(self, source: Any) -> Any:
        return source if self.table is None else source.outerjoin(self.table, self.table.c.position == self.latest)

    def fits(self, rank: Any, value: Any) -> bool:
        """Whether a position can hold these."""
        if type(rank) is not int or rank not in (0, 1, 2) or (rank and not self.ranked):
            return False
        if rank == 2:
            return value is None
        if isinstance(self.value.type, sa.Double):
            return type(value) is float and value == value
        if isinstance(self.value.type, sa.Integer):
            return type(value) is int and -(2**63) <= value < 2**63
        return type(value) is str and is_storable(value)


_LAST = (ModelOrder("attribute", "creation_timestamp", False), ModelOrder("attribute", "model_id", True))


class ModelSearch(Repository):
    """``tx.model_search``."""

    def models(
        self,
        within: Sequence[int],
        clauses: Sequence[Clause],
        orders: Sequence[ModelOrder],
        *,
        datasets: Sequence[DatasetFilter] = (),
        limit: int,
        after: Position | None = None,
    ) -> tuple[list[int], Position | None]:
        """Keys of the models of these experiments that match, in order, and where the next page begins if there is one.

        With ``datasets`` the comparisons of metrics are of values measured on one of them; without such comparisons
        some value must have been. Models equal in ``orders`` come newest first, then by id. Models that lack a value
        come last, after those with NaN. Deleted models are not found.

        Raises:
            InputError: ``after`` is no position in this order.
        """
        terms = [_Term(order) for order in (*orders, *_missing(orders))]
        _check(terms, after)
        found: list[tuple[Any, ...]] = []
        parts = dict.fromkeys(within)
        for experiment in parts:
            found += self._part(experiment, clauses, datasets, terms, limit + 1, after)
        if len(parts) > 1:
            _sort(found, terms)
        page = found[:limit]
        return [row[0] for row in page], tuple(page[-1][1:]) if len(found) > limit else None

    def _part(
        self,
        experiment: int,
        clauses: Sequence[Clause],
        datasets: Sequence[DatasetFilter],
        terms: list[_Term],
        limit: int,
        after: Position | None,
    ) -> list[tuple[Any, ...]]:
        tests = [self._test(clause, experiment, datasets) for clause in clauses]
        if datasets and not any(clause.kind == "metric" for clause in clauses):
            tests.append(_measured(datasets))
        few = max(FEW, 4 * limit)
        fewest, smallest = None, few + 1
        for test in tests:
            if test.found is not None:
                count = self._count(test.found, few + 1)
                if count == 0:
                    return []
                if count < smallest:
                    fewest, smallest = test, count
        conditions = [logged_models.c.experiment == experiment, logged_models.c.lifecycle == "active"]
        conditions += [test.asked for test in tests if test is not fewest]
        if fewest is not None and fewest.found is not None:
            conditions.append(self._among(fewest.found))
        if after is not None:
            conditions.append(matching.after(_pairs(terms, after)))
        source: Any = logged_models
        for term in terms:
            source = term.joined(source)
        statement = sa.select(logged_models.c.key, *(column for term in terms for column in (term.rank, term.value)))
        by = [column for term in terms for column in term.by()]
        rows = self._connection.execute(statement.select_from(source).where(*conditions).order_by(*by).limit(limit))
        return [tuple(row) for row in rows]

    def _count(self, found: sa.Select[Any], most: int) -> int:
        """How many an index finds, counted no further than ``most``."""
        counted = found.limit(most).subquery()
        return self._connection.execute(sa.select(sa.func.count()).select_from(counted)).scalar() or 0

    def _among(self, found: sa.Select[Any]) -> Condition:
        if self._postgresql:
            # An array, as the planner takes an IN for a join and may read all models for it.
            return logged_models.c.key == sa.any_(sa.func.array(found.scalar_subquery()))
        return logged_models.c.key.in_(found)

    def _test(self, clause: Clause, experiment: int, datasets: Sequence[DatasetFilter]) -> _Test:
        if clause.kind == "attribute":
            return _Test(self._attribute(clause))
        if clause.kind == "metric":
            table: sa.Table = logged_model_metrics
            compared = matching.real(table.c.value, clause.comparator, float(clause.value))  # type: ignore[arg-type]
            if clause.comparator == "!=":
                compared = sa.or_(compared, table.c.is_nan == sa.true())
            else:
                compared = sa.and_(compared, table.c.is_nan == sa.false())
            if datasets:
                compared = sa.and_(compared, _on(datasets))
        else:
            table = logged_model_params if clause.kind == "param" else logged_model_tags
            compared = self._text(table, clause)
        named = table.c.key == clause.key
        asked = sa.select(_ONE).where(table.c.model == logged_models.c.key, named, compared).exists()
        return _Test(asked, sa.select(table.c.model).where(table.c.experiment == experiment, named, compared))

    def _text(self, table: sa.Table, clause: Clause) -> Condition:
        if not isinstance(clause.value, tuple):
            return matching.long_text(table, clause.comparator, str(clause.value), postgresql=self._postgresql)
        same = [matching.long_text(table, "=", value, postgresql=self._postgresql) for value in clause.value]
        return sa.or_(*same) if clause.comparator == "IN" else ~sa.or_(*same)

    def _attribute(self, clause: Clause) -> Condition:
        column, comparator, value = ATTRIBUTES[clause.key], clause.comparator, clause.value
        if isinstance(column.type, sa.Integer) and not isinstance(value, int | float):
            words = value if isinstance(value, tuple) else (str(value),)
            numbers = [STATUS.get(word, -1) if clause.key == "status" else int(word) for word in words]
            found = column.in_(numbers)
            return ~found if comparator in ("!=", "NOT IN") else found
        if isinstance(column.type, sa.Integer):
            return matching.whole(column, comparator, value)  # type: ignore[arg-type]
        return matching.text(column, comparator, value, postgresql=self._postgresql)


def _measured(datasets: Sequence[DatasetFilter]) -> _Test:
    """That some value was measured on one of the datasets."""
    probe = sa.select(_ONE).where(logged_model_metrics.c.model == logged_models.c.key, _on(datasets))
    return _Test(probe.exists())


def _on(datasets: Sequence[DatasetFilter]) -> Condition:
    columns = logged_model_metrics.c
    named: list[Condition] = []
    for name, digest in datasets:
        same = columns.dataset_name == name
        named.append(sa.and_(same, columns.dataset_digest == digest) if digest else same)
    return sa.or_(*named)


def _missing(orders: Sequence[ModelOrder]) -> list[ModelOrder]:
    """What has to follow so that no two models are equal."""
    named = {order.key for order in orders if order.kind == "attribute"}
    return [order for order in _LAST if order.key not in named]


def _check(terms: list[_Term], after: Position | None) -> None:
    if after is None:
        return
    fits = len(after) == 2 * len(terms) and all(
        term.fits(*after[2 * number : 2 * number + 2]) for number, term in enumerate(terms)
    )
    if not fits:
        raise pages.unfit()


def _pairs(terms: list[_Term], after: Position) -> list[tuple[ColumnElement[Any], bool, Any]]:
    pairs: list[tuple[ColumnElement[Any], bool, Any]] = []
    for number, term in enumerate(terms):
        rank, value = after[2 * number : 2 * number + 2]
        if term.ranked:
            pairs.append((term.rank, True, rank))
        if rank == 0:
            pairs.append((term.value, term.ascending, value))
    return pairs


def _sort(rows: list[tuple[Any, ...]], terms: list[_Term]) -> None:
    """Sort rows as the database does: by the last key first, as sorting keeps the order of what is equal."""
    for number in reversed(range(len(terms))):
        rank, value = 2 * number + 1, 2 * number + 2
        nothing: Any = "" if isinstance(terms[number].value.type, sa.Text) else 0
        rows.sort(
            key=lambda row, rank=rank, value=value, nothing=nothing: nothing if row[rank] else row[value],  # type: ignore[misc]
            reverse=not terms[number].ascending,
        )
        rows.sort(key=lambda row, rank=rank: row[rank])  # type: ignore[misc]
