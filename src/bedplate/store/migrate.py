"""Bring the schema to its newest version. Imported only when it is not there yet: Alembic is slow to load."""

import logging
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from bedplate.store.schema import HEAD

_LOCK = sa.text("SELECT pg_advisory_xact_lock(:key)")
_LOCK_KEY = 0x626564706C617465  # "bedplate"


def upgrade(connection: sa.Connection, check: Callable[[str | None, str], None], where: str) -> None:
    """Run the missing migrations in one transaction, alone: a second migrator waits, then finds nothing to do.

    Whatever fails undoes everything, the version included.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(_LOCK, {"key": _LOCK_KEY})
        # What was true before the lock may not be true now.
        version = MigrationContext.configure(connection).get_current_revision()
        if version == HEAD:
            return
        check(version, where)
        run(connection)


def run(connection: sa.Connection) -> None:
    """Run what is missing, in the transaction under way."""
    scripts = ScriptDirectory(str(Path(__file__).parent / "migrations"))
    with EnvironmentContext(
        Config(), scripts, fn=lambda revision, _context: scripts._upgrade_revs(HEAD, revision)
    ) as environment:
        environment.configure(connection=connection, transactional_ddl=True)
        environment.run_migrations()
