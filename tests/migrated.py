"""New SQLite databases at the cost of their statements, which the migrations work out for the first one.

Working out a hundred statements takes a fifth of a second, and most tests begin with a new database. The first one of a
worker is made by the migrations; to every other one the statements that they said then are said again, in the same
transaction. What is about migrations asks for the fixture ``real_migrations``. For PostgreSQL see
:meth:`tests.servers.Postgresql.store`.
"""

from typing import Any

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext

from bedplate.store import migrate

Said = list[tuple[str, Any]]
"""Statements, each with its parameters."""

really = migrate.run


class Again:
    """Stands where the migrations are run."""

    def __init__(self) -> None:
        self._said: Said = []

    def run(self, connection: sa.Connection) -> None:
        """As :func:`bedplate.store.migrate.run`."""
        new = MigrationContext.configure(connection).get_current_revision() is None
        if connection.dialect.name != "sqlite" or not new:
            really(connection)
        elif self._said:
            _say(connection, self._said)
        else:
            self._said = _listen(connection)


def _listen(connection: sa.Connection) -> Said:
    said: Said = []

    def heard(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        said.append((statement, parameters))

    sa.event.listen(connection, "before_cursor_execute", heard)
    try:
        really(connection)
    finally:
        sa.event.remove(connection, "before_cursor_execute", heard)
    return said


def _say(connection: sa.Connection, said: Said) -> None:
    cursor = connection.connection.cursor()
    try:
        for statement, parameters in said:
            cursor.execute(statement, parameters)
    finally:
        cursor.close()
