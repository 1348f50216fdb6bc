"""Searching the experiments of a workspace: there are hundreds, so one statement with every condition does."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from bedplate.store import matching, pages
from bedplate.store.experiments import ExperimentRow, Lifecycle
from bedplate.store.filters import Clause, Order
from bedplate.store.matching import Condition
from bedplate.store.schema import experiment_tags, experiments
from bedplate.store.sql import Repository, among
from bedplate.store.walks import Position, names

_ATTRIBUTES: dict[str, sa.Column[Any]] = {
    "name": experiments.c.name,
    "experiment_id": experiments.c.id,
    "creation_time": experiments.c.created,
    "last_update_time": experiments.c.updated,
}
_ONE: ColumnElement[int] = sa.literal_column("1")


class ExperimentSearch(Repository):
    """``tx.experiment_search``."""

    def find(
        self,
        workspace: str,
        clauses: Sequence[Clause],
        orders: Sequence[Order],
        *,
        lifecycles: Sequence[Lifecycle],
        limit: int,
        after: Position | None = None,
    ) -> tuple[list[ExperimentRow], Position | None]:
        """The experiments of a workspace that match, in order, and where the next page begins if there is one.

        Without ``orders`` the newest comes first. Those equal in them come by number, the greatest first.

        Raises:
            InputError: ``after`` is no position in this order.
        """
        number = Order("attribute", "experiment_id", True)
        by = list(orders) or [Order("attribute", "creation_time", False), number]
        if not names(by, number):
            by.append(Order("attribute", "experiment_id", False))
        columns = [(_ATTRIBUTES[order.key], order.ascending) for order in by]
        conditions = [experiments.c.workspace == workspace, experiments.c.lifecycle.in_(list(lifecycles))]
        conditions += [self._experiment(clause) for clause in clauses]
        if after is not None:
            if [type(value) for value in after] != [column.type.python_type for column, _ in columns]:
                raise pages.unfit()
            pairs = zip(columns, after, strict=True)
            conditions.append(matching.after([(column, ascending, value) for (column, ascending), value in pairs]))
        directed = [column.asc() if ascending else column.desc() for column, ascending in columns]
        statement = sa.select(experiments).where(*conditions).order_by(*directed).limit(limit + 1)
        rows = [ExperimentRow(*tuple(row)) for row in self._connection.execute(statement)]
        if len(rows) <= limit:
            return rows, None
        last = rows[limit - 1]
        values = {"name": last.name, "id": last.id, "created": last.created, "updated": last.updated}
        return rows[:limit], tuple(values[column.name] for column, _ in columns)

    def _experiment(self, clause: Clause) -> Condition:
        comparator, value = clause.comparator, clause.value
        if clause.kind == "attribute":
            column = _ATTRIBUTES[clause.key]
            if clause.key == "experiment_id":
                if isinstance(value, tuple):
                    wanted = matching.listed([int(each) for each in value], postgresql=self._postgresql)
                    numbers = among(column, wanted, postgresql=self._postgresql)
                    return numbers if comparator == "IN" else ~numbers
                return matching.whole(column, comparator, int(value or 0))
            if isinstance(value, int | float):
                return matching.whole(column, comparator, value)
            return matching.text(column, comparator, value, postgresql=self._postgresql)
        own = sa.select(_ONE).where(
            experiment_tags.c.experiment == experiments.c.id, experiment_tags.c.key == clause.key
        )
        if comparator == "IS NULL":
            return ~own.exists()
        if comparator == "IS NOT NULL":
            return own.exists()
        return own.where(
            matching.text(experiment_tags.c.value, comparator, value, postgresql=self._postgresql)
        ).exists()
