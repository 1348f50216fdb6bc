"""What every repository shares: a connection, JSON columns, and inserts that both databases understand."""

from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from bedplate import ids

Row = sa.Row[Any]


def param(name: str) -> sa.BindParameter[Any]:
    """A value bound when the statement is executed. Names end in ``_``, so none is taken for a column."""
    return sa.bindparam(name)


class Repository:
    """One aggregate's tables, within one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._postgresql = connection.dialect.name == "postgresql"

    def _execute(self, statement: sa.Executable, /, **values: Any) -> sa.CursorResult[Any]:
        # The one seam to SQLAlchemy: statements are built once at import, values are always bound.
        return self._connection.execute(statement, values)


class Upsert:
    """``INSERT .. ON CONFLICT`` of one table, built once per dialect (their classes differ, their text does not)."""

    def __init__(self, table: sa.Table, *, update: tuple[str, ...] = ()) -> None:
        self._sqlite = _upsert(sqlite.insert(table), table, update)
        self._postgresql = _upsert(postgresql.insert(table), table, update)

    def on(self, connection: sa.Connection) -> sa.Executable:
        """The statement for the database of this connection."""
        return self._postgresql if connection.dialect.name == "postgresql" else self._sqlite


def _upsert(statement: Any, table: sa.Table, update: tuple[str, ...]) -> sa.Executable:
    key = list(table.primary_key.columns)
    if not update:
        return statement.on_conflict_do_nothing()  # type: ignore[no-any-return]
    return statement.on_conflict_do_update(  # type: ignore[no-any-return]
        index_elements=key, set_={name: statement.excluded[name] for name in update}
    )


def dump(value: object) -> str:
    """Canonical JSON text of a value for a column."""
    return ids.canonical(value).decode()


def parse(text: str) -> Any:
    """The value of a JSON column."""
    return msgspec.json.decode(text)


def fields(row: Row) -> dict[str, Any]:
    """The columns of a row by name, as plain text keys (SQLAlchemy's own class marks reserved words)."""
    return {str(name): value for name, value in row._mapping.items()}
