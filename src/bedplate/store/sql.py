"""What every repository shares: a connection, JSON columns, and statements that both databases understand."""

import importlib
import sqlite3
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa

from bedplate import ids

T = TypeVar("T")
Row = sa.Row[Any]
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


class PerDialect(Generic[T]):
    """What is made for a database when it is first used with it: a home on one needs no statement for the other."""

    def __init__(self, make: Callable[[sa.Dialect], T]) -> None:
        self._make = make
        self._made: dict[str, T] = {}

    def on(self, connection: sa.Connection) -> T:
        """The one for the database of this connection."""
        dialect = connection.dialect
        made = self._made.get(dialect.name)
        if made is None:
            made = self._made[dialect.name] = self._make(dialect)
        return made


def insert(dialect: sa.Dialect, table: sa.Table) -> Any:
    """The database's own INSERT, which knows ON CONFLICT; SQLAlchemy has a class of it for each."""
    return importlib.import_module(f"sqlalchemy.dialects.{dialect.name}").insert(table)


def compiled(dialect: sa.Dialect, statement: Any) -> Any:
    """A statement as text with its parameters by position, as the drivers take it."""
    kind: Any = type(dialect)
    return statement.compile(dialect=kind(paramstyle="format" if dialect.name == "postgresql" else "qmark"))


Set = Callable[[Any], Any]
"""Makes the condition under which a row in the way is changed, from the columns of the row that was to be inserted."""


class Upsert:
    """``INSERT .. ON CONFLICT`` of one table.

    A row with the same primary key is left alone, or gets the columns in ``update``, where ``when`` holds.
    """

    def __init__(self, table: sa.Table, *, update: tuple[str, ...] = (), when: Set | None = None) -> None:
        def made(dialect: sa.Dialect) -> Any:
            return _upsert(insert(dialect, table), table, update, when)

        self._statement = PerDialect(made)
        self._text = PerDialect(lambda dialect: str(compiled(dialect, made(dialect))))

    def on(self, connection: sa.Connection) -> sa.Executable:
        """The statement for the database of this connection."""
        statement: sa.Executable = self._statement.on(connection)
        return statement

    def many(self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """Insert rows, each with every column of the table in order, and return how many were inserted or changed.

        The rows go to the driver as they are, which takes a third of the time that named values take.
        """
        if not rows:
            return 0
        if connection.dialect.name == "postgresql":
            return connection.exec_driver_sql(self._text.on(connection), list(rows)).rowcount
        cursor = driver(connection).executemany(self._text.on(connection), rows)
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


class Form(NamedTuple):
    """A statement as the driver takes it: the text, its parameters in order, and what the statement itself binds."""

    text: str
    order: tuple[str, ...]
    constants: dict[str, Any]

    @classmethod
    def of(cls, dialect: sa.Dialect, statement: "sa.UpdateBase | sa.Select[Any]") -> "Form":
        """The form of a statement for a database."""
        made = compiled(dialect, statement)
        constants = {name: value for name, value in made.params.items() if value is not None}
        return cls(str(made), tuple(made.positiontup or ()), constants)

    def run(self, connection: sa.Connection, values: dict[str, Any]) -> int:
        """Run it with these values bound, and return how many rows it changed."""
        if connection.dialect.name == "postgresql":
            return connection.exec_driver_sql(self.text, self._bound(values)).rowcount
        cursor = driver(connection).execute(self.text, self._bound(values))
        cursor.close()
        return cursor.rowcount

    def rows(self, connection: sa.Connection, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Run it with these values bound; what it finds or returns, as the driver gives it."""
        if connection.dialect.name == "postgresql":
            return _fetched(connection, self.text, self._bound(values))
        cursor = driver(connection).execute(self.text, self._bound(values))
        rows = cursor.fetchall()
        cursor.close()
        return rows

    def _bound(self, values: dict[str, Any]) -> tuple[Any, ...]:
        values = {**values, **self.constants}
        return tuple([values[name] for name in self.order])


class Direct:
    """A statement that goes to the driver as it is, for those that run thousands of times a second."""

    def __init__(self, statement: "sa.UpdateBase | sa.Select[Any]") -> None:
        self._form = PerDialect(lambda dialect: Form.of(dialect, statement))

    def run(self, connection: sa.Connection, **values: Any) -> int:
        """Run it with these values bound, and return how many rows it changed."""
        return self._form.on(connection).run(connection, values)

    def first(self, connection: sa.Connection, **values: Any) -> tuple[Any, ...] | None:
        """Run it with these values bound; the first row of what it finds or returns, as the driver gives it."""
        rows = self._form.on(connection).rows(connection, values)
        return rows[0] if rows else None


class Shapes:
    """Statements that follow from what is asked, as text: each is built when a question of its shape is first asked.

    Building one takes longer than running it, and the text is the same whatever values are bound.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._forms: dict[Hashable, Form] = {}
        self._lock = threading.Lock()

    def on(self, connection: sa.Connection, shape: Hashable, build: Callable[[], "sa.Select[Any]"]) -> Form:
        """The statement of a shape for the database of this connection."""
        named = connection.dialect.name, shape
        form = self._forms.get(named)
        if form is None:
            form = Form.of(connection.dialect, build())
            with self._lock:
                if len(self._forms) >= self._most:
                    del self._forms[next(iter(self._forms))]
                self._forms[named] = form
        return form


def driver(connection: sa.Connection) -> sqlite3.Connection:
    """SQLite's own connection: it shares the transaction, and its errors are translated like the others."""
    own: Any = connection.connection.dbapi_connection
    assert isinstance(own, sqlite3.Connection)
    return own


def _fetched(connection: sa.Connection, text: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Rows straight from psycopg: SQLAlchemy takes longer to make its result than a small statement takes.

    It shares the transaction, and its errors come out as those of SQLAlchemy.
    """
    raw: Any = connection.connection.dbapi_connection
    driver_error: Any = connection.dialect.loaded_dbapi.Error
    try:
        rows: list[tuple[Any, ...]] = raw.execute(text, values).fetchall()
        return rows
    except driver_error as error:
        if raw.closed:
            connection.invalidate(error)
        raise sa.exc.DBAPIError.instance(text, None, error, driver_error, dialect=connection.dialect) from error


class Among:
    """A query for the rows of many keys, and of some ``names`` where it has a column for them.

    Keys are bound as one value, however many they are, and so are names.
    """

    def __init__(
        self, statement: "sa.Select[Any]", column: sa.Column[int], names: sa.Column[str] | None = None
    ) -> None:
        def made(dialect: sa.Dialect) -> Form:
            postgresql = dialect.name == "postgresql"
            found = statement.where(among(column, param("keys_"), postgresql=postgresql))
            if names is not None:
                found = found.where(among(names, param("names_"), postgresql=postgresql))
            return Form.of(dialect, found)

        self._form = PerDialect(made)

    def rows(
        self, connection: sa.Connection, keys: Iterable[int], names: Sequence[str] = (), **values: Any
    ) -> list[tuple[Any, ...]]:
        """What the query finds for these keys, as plain tuples."""
        keys = list(keys)
        if not keys:
            return []
        listed = ",".join(map(str, keys))
        if connection.dialect.name == "postgresql":
            # As text: psycopg looks at each element of a list.
            values |= {"keys_": f"{{{listed}}}", "names_": list(names)}
        else:
            values |= {"keys_": f"[{listed}]", "names_": dump(list(names)) if names else "[]"}
        return self._form.on(connection).rows(connection, values)


def among(column: sa.ColumnElement[Any], values: Any, *, postgresql: bool) -> sa.ColumnElement[bool]:
    """Whether a column has one of these values, which are bound as one: a database takes so many values, and no more.

    ``values`` are a list on PostgreSQL, JSON on SQLite, or a parameter for that.
    """
    if postgresql:
        kind: Any = sa.BigInteger() if isinstance(column.type, sa.Integer) else sa.Text()
        return column == sa.any_(sa.cast(values, sa.ARRAY(kind)))
    return column.in_(sa.select(sa.func.json_each(values).table_valued("value").c.value))


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
