"""Registered models and versions that match, in order, page by page. Every word and number of a user's is bound."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from bedplate.store import matching
from bedplate.store.filters import Clause, Order
from bedplate.store.models import ModelRow, VersionRow
from bedplate.store.registry_schema import (
    model_version_tags,
    model_versions,
    registered_model_tags,
    registered_models,
)
from bedplate.store.sql import Repository, fields

Position = tuple[Any, ...]
"""Where a page ended: the values of its last row, in the order of the query."""

IS_PROMPT = "mlflow.prompt.is_prompt"

_MODELS: Mapping[str, ColumnElement[Any]] = {
    "name": registered_models.c.name,
    "last_updated_timestamp": registered_models.c.updated,
}
_VERSIONS: Mapping[str, ColumnElement[Any]] = {
    "name": model_versions.c.name,
    "version_number": model_versions.c.number,
    "run_id": model_versions.c.run,
    "source_path": model_versions.c.source,
    "creation_timestamp": model_versions.c.created,
    "last_updated_timestamp": model_versions.c.updated,
}
_ONE: ColumnElement[Any] = sa.literal_column("1")


class RegistrySearch(Repository):
    """``tx.registry_search``."""

    def models(
        self,
        workspace: str,
        clauses: Sequence[Clause],
        orders: Sequence[Order],
        *,
        limit: int,
        after: Position | None = None,
    ) -> tuple[list[ModelRow], Position | None]:
        """The models of a workspace that match, ordered at last by name, and where the next page begins if any.

        Prompts are models with a tag; they are left out, unless a clause asks for them.
        """
        table, tags = registered_models, registered_model_tags
        of = (tags.c.workspace == table.c.workspace, tags.c.name == table.c.name)
        orders = _completed(orders, Order("attribute", "name", True))
        conditions = [table.c.workspace == workspace, *self._conditions(_MODELS, tags, of, of, clauses)]
        rows, position = self._page(table, _MODELS, conditions, orders, limit, after)
        return [msgspec.convert(row, ModelRow) for row in rows], position

    def versions(
        self,
        workspace: str,
        clauses: Sequence[Clause],
        orders: Sequence[Order],
        *,
        limit: int,
        after: Position | None = None,
    ) -> tuple[list[VersionRow], Position | None]:
        """The versions of a workspace that match, ordered at last by name and then newest first.

        Models of which a version is a prompt are left out, unless a clause asks for prompts.
        """
        table, tags = model_versions, model_version_tags
        of_model = (tags.c.workspace == table.c.workspace, tags.c.name == table.c.name)
        of = (*of_model, tags.c.number == table.c.number)
        last = (Order("attribute", "name", True), Order("attribute", "version_number", False))
        orders = _completed(orders, *last)
        conditions = [table.c.workspace == workspace, *self._conditions(_VERSIONS, tags, of, of_model, clauses)]
        rows, position = self._page(table, _VERSIONS, conditions, orders, limit, after)
        return [msgspec.convert(row, VersionRow) for row in rows], position

    def _conditions(
        self,
        columns: Mapping[str, ColumnElement[Any]],
        tags: sa.Table,
        of: Sequence[ColumnElement[bool]],
        of_model: Sequence[ColumnElement[bool]],
        clauses: Sequence[Clause],
    ) -> list[ColumnElement[bool]]:
        found = []
        prompts = _asks_for_prompts(clauses)
        for clause in clauses:
            if clause.kind == "attribute":
                found.append(self._compare(columns[clause.key], clause))
            elif prompts or clause.key != IS_PROMPT:
                probe = sa.select(_ONE).where(*of, tags.c.key == clause.key)
                value = matching.text(tags.c.value, clause.comparator, clause.value, postgresql=self._postgresql)
                found.append(probe.where(value).exists())
        if not prompts:
            prompt = sa.select(_ONE).where(*of_model, tags.c.key == IS_PROMPT, tags.c.value == "true")
            found.append(~prompt.exists())
        return found

    def _compare(self, column: ColumnElement[Any], clause: Clause) -> ColumnElement[bool]:
        if isinstance(clause.value, int | float):
            return matching.whole(column, clause.comparator, clause.value)
        return matching.text(column, clause.comparator, clause.value, postgresql=self._postgresql)

    def _page(
        self,
        table: sa.Table,
        columns: Mapping[str, ColumnElement[Any]],
        conditions: list[ColumnElement[bool]],
        orders: Sequence[Order],
        limit: int,
        after: Position | None,
    ) -> tuple[list[dict[str, Any]], Position | None]:
        by = [(columns[order.key], order.ascending) for order in orders]
        if after is not None:
            conditions.append(matching.after([(*pair, value) for pair, value in zip(by, after, strict=True)]))
        statement = (
            sa.select(table)
            .where(*conditions)
            .order_by(*(column.asc() if ascending else column.desc() for column, ascending in by))
            .limit(limit + 1)
        )
        rows = [fields(row) for row in self._connection.execute(statement)]
        if len(rows) <= limit:
            return rows, None
        ended = rows[limit - 1]
        return rows[:limit], tuple(ended[str(column.key)] for column, _ in by)


def _completed(orders: Sequence[Order], *last: Order) -> list[Order]:
    """The order with what makes it total."""
    return [*orders, *(order for order in last if all(order.key != given.key for given in orders))]


def _asks_for_prompts(clauses: Sequence[Clause]) -> bool:
    """Whether the first clause about the tag of prompts asks for them, as MLflow reads it."""
    for clause in clauses:
        if clause.kind == "tag" and clause.key == IS_PROMPT:
            value = str(clause.value).lower()
            return (clause.comparator, value) in (("=", "true"), ("!=", "false"))
    return False
