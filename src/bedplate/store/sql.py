"""What every repository shares: a connection, JSON columns, and statements that both databases understand."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import psycopg

from bedplate import ids

Row = sa.Row[Any]
_SQLITE: Any = sqlite.dialect
_PSYCOPG: Any = psycopg.dialect
WRITE = "bedplate_write"
"""The execution option that marks the connection of a write transaction."""


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


Set = Callable[[Any], Any]
"""Makes the condition under which a row in the way is changed, from the columns of the row that was to be inserted."""


class Upsert:
    """``INSERT .. ON CONFLICT`` of one table, built once per dialect (their classes differ, their text does not).

    A row with the same primary key is left alone, or gets the columns in ``update``, where ``when`` holds.
    """

    def __init__(self, table: sa.Table, *, update: tuple[str, ...] = (), when: Set | None = None) -> None:
        self._sqlite = _upsert(sqlite.insert(table), table, update, when)
        self._postgresql = _upsert(postgresql.insert(table), table, update, when)
        self._texts = (
            str(self._sqlite.compile(dialect=_SQLITE(paramstyle="qmark"))),
            str(self._postgresql.compile(dialect=_PSYCOPG(paramstyle="format"))),
        )

    def on(self, connection: sa.Connection) -> sa.Executable:
        """The statement for the database of this connection."""
        statement: sa.Executable = self._postgresql if connection.dialect.name == "postgresql" else self._sqlite
        return statement

    def many(self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """Insert rows, each with every column of the table in order, and return how many were inserted or changed.

        The rows go to the driver as they are, which takes a third of the time that named values take.
        """
        if not rows:
            return 0
        if connection.dialect.name == "postgresql":
            return connection.exec_driver_sql(self._texts[1], list(rows)).rowcount
        cursor = driver(connection).executemany(self._texts[0], rows)
        cursor.close()
        return cursor.rowcount


def _upsert(statement: Any, table: sa.Table, update: tuple[str, ...], when: Set | None) -> Any:
    key = list(table.primary_key.columns)
    if not update:
        return statement.on_conflict_do_nothing(index_elements=key)
    return statement.on_conflict_do_update(
        index_elements=key,
        set_={name: statement.excluded[name] for name in update},
        where=when(statement.excluded) if when is not None else None,
    )


class Direct:
    """A statement that goes to the driver as it is, for those that run thousands of times a second."""

    def __init__(self, statement: "sa.UpdateBase | sa.Select[Any]") -> None:
        forms = [
            statement.compile(dialect=sqlite.dialect(paramstyle="qmark")),
            statement.compile(dialect=_PSYCOPG(paramstyle="format")),
        ]
        self._forms = [(str(form), tuple(form.positiontup or ())) for form in forms]
        self._constants = {name: value for name, value in forms[0].params.items() if value is not None}

    def run(self, connection: sa.Connection, **values: Any) -> int:
        """Run it with these values bound, and return how many rows it changed."""
        if connection.dialect.name == "postgresql":
            return connection.exec_driver_sql(*self._bound(1, values)).rowcount
        cursor = driver(connection).execute(*self._bound(0, values))
        cursor.close()
        return cursor.rowcount

    def first(self, connection: sa.Connection, **values: Any) -> tuple[Any, ...] | None:
        """Run it with these values bound; the first row of what it finds or returns, as the driver gives it."""
        if connection.dialect.name == "postgresql":
            rows = plain(connection.exec_driver_sql(*self._bound(1, values)))
            return rows[0] if rows else None
        cursor = driver(connection).execute(*self._bound(0, values))
        row: tuple[Any, ...] | None = cursor.fetchone()
        cursor.close()
        return row

    def _bound(self, form: int, values: dict[str, Any]) -> tuple[str, tuple[Any, ...]]:
        text, order = self._forms[form]
        values |= self._constants
        return text, tuple([values[name] for name in order])


def driver(connection: sa.Connection) -> sqlite3.Connection:
    """SQLite's own connection: it shares the transaction, and its errors are translated like the others."""
    own: Any = connection.connection.dbapi_connection
    assert isinstance(own, sqlite3.Connection)
    return own


class Among:
    """A query for the rows of many keys, which are bound as one value, however many they are."""

    def __init__(self, statement: "sa.Select[Any]", column: sa.Column[int]) -> None:
        listed = sa.func.json_each(param("keys_")).table_valued("value")
        self._sqlite = statement.where(column.in_(sa.select(listed.c.value)))
        array = sa.bindparam("keys_", type_=postgresql.ARRAY(sa.BigInteger))
        self._postgresql = statement.where(column == sa.any_(array))

    def rows(self, connection: sa.Connection, keys: Iterable[int], **values: Any) -> list[tuple[Any, ...]]:
        """What the query finds for these keys, as plain tuples."""
        if connection.dialect.name == "postgresql":
            return plain(connection.execute(self._postgresql, {"keys_": list(keys), **values}))
        return plain(connection.execute(self._sqlite, {"keys_": dump(list(keys)), **values}))


def plain(result: sa.CursorResult[Any]) -> list[tuple[Any, ...]]:
    """All rows of a result as the driver gives them: for thousands of rows, without an object for each."""
    cursor = result.cursor
    assert cursor is not None
    rows: list[Any] = list(cursor.fetchall())
    result.close()
    return rows


def dump(value: object) -> str:
    """Canonical JSON text of a value for a column."""
    return ids.canonical(value).decode()


def parse(text: str) -> Any:
    """The value of a JSON column."""
    return msgspec.json.decode(text)


def fields(row: Row) -> dict[str, Any]:
    """The columns of a row by name, as plain text keys (SQLAlchemy's own class marks reserved words)."""
    return {str(name): value for name, value in row._mapping.items()}
