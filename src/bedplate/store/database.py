"""Opening the database, and its transactions."""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bedplate.errors import HomeError, StorageError, UnavailableError
from bedplate.settings import FORMAT
from bedplate.store import faults
from bedplate.store.artifacts import Artifacts, Condemned, Uploads
from bedplate.store.datasets import Datasets
from bedplate.store.endpoints import Endpoints
from bedplate.store.erasure import Erasure
from bedplate.store.executions import Executions
from bedplate.store.experiment_search import ExperimentSearch
from bedplate.store.experiments import Experiments
from bedplate.store.facts import Facts
from bedplate.store.history import History
from bedplate.store.leases import Leases
from bedplate.store.ledger import LedgerRows
from bedplate.store.logged_models import LoggedModels
from bedplate.store.metrics import Metrics
from bedplate.store.model_search import ModelSearch
from bedplate.store.models import Models, Versions
from bedplate.store.overview import Overview
from bedplate.store.policies import Policies
from bedplate.store.principals import Keys, Links, Principals, Sessions
from bedplate.store.privacy import Privacy
from bedplate.store.quotas import QuotaRows
from bedplate.store.registry_search import RegistrySearch
from bedplate.store.releases import Approvals, Waivers
from bedplate.store.rollouts import Rollouts
from bedplate.store.runs import Runs
from bedplate.store.schema import HEAD
from bedplate.store.search import Search
from bedplate.store.segments import Segments
from bedplate.store.sql import WRITE, driver
from bedplate.store.stages import Stages
from bedplate.store.subjects import Subjects
from bedplate.store.use_cases import UseCases
from bedplate.store.workspaces import Workspaces
from bedplate.store.writer import Writer

_VERSION = sa.text("SELECT version_num FROM alembic_version")
MAPPED = "PRAGMA mmap_size=1073741824"
"""So many bytes of an SQLite file are read through the system's memory rather than copied page by page: what a
connection has copied is of no use to it as soon as another one has written."""
PREPARED = 300
"""So many statements stay prepared on a connection to PostgreSQL: a search has a dozen, others for each shape of it."""


class Transaction:
    """One transaction: every aggregate as an attribute, seen and written together or not at all."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._after: list[Callable[[], None]] = []
        self.lost = False
        """Whether the database gave up the whole transaction when a savepoint was to be undone."""

    def after_commit(self, action: Callable[[], None]) -> None:
        """Call ``action`` once the transaction is durable; never if it is rolled back."""
        self._after.append(action)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """What the block wrote, and what it wants done after the commit, is undone if it raises."""
        kept = len(self._after)
        self._connection.exec_driver_sql("SAVEPOINT piece")
        try:
            yield
        except BaseException:
            del self._after[kept:]
            self.lost = True  # a full disk makes SQLite undo everything: then there is no savepoint to go back to
            self._connection.exec_driver_sql("ROLLBACK TO SAVEPOINT piece")
            self._connection.exec_driver_sql("RELEASE SAVEPOINT piece")
            self.lost = False
            raise
        self._connection.exec_driver_sql("RELEASE SAVEPOINT piece")

    @cached_property
    def facts(self) -> Facts:
        """Evidence."""
        return Facts(self._connection)

    @cached_property
    def stages(self) -> Stages:
        """Which stages are finished."""
        return Stages(self._connection)

    @cached_property
    def use_cases(self) -> UseCases:
        """Use cases."""
        return UseCases(self._connection)

    @cached_property
    def executions(self) -> Executions:
        """Runs of the flow."""
        return Executions(self._connection)

    @cached_property
    def models(self) -> Models:
        """Registered models."""
        return Models(self._connection)

    @cached_property
    def registry_search(self) -> RegistrySearch:
        """Searching the registry."""
        return RegistrySearch(self._connection)

    @cached_property
    def history(self) -> History:
        """What happened to models and their versions."""
        return History(self._connection)

    @cached_property
    def versions(self) -> Versions:
        """Model versions."""
        return Versions(self._connection)

    @cached_property
    def approvals(self) -> Approvals:
        """Approvals and refusals."""
        return Approvals(self._connection)

    @cached_property
    def waivers(self) -> Waivers:
        """Waivers of gates."""
        return Waivers(self._connection)

    @cached_property
    def endpoints(self) -> Endpoints:
        """Desired endpoints."""
        return Endpoints(self._connection)

    @cached_property
    def quotas(self) -> QuotaRows:
        """Quotas of principals and groups at endpoints."""
        return QuotaRows(self._connection)

    @cached_property
    def privacy(self) -> Privacy:
        """How much privacy is spent."""
        return Privacy(self._connection)

    @cached_property
    def rollouts(self) -> Rollouts:
        """Rollouts of releases."""
        return Rollouts(self._connection)

    @cached_property
    def principals(self) -> Principals:
        """Users and services."""
        return Principals(self._connection)

    @cached_property
    def keys(self) -> Keys:
        """Keys."""
        return Keys(self._connection)

    @cached_property
    def sessions(self) -> Sessions:
        """Sessions of the pages."""
        return Sessions(self._connection)

    @cached_property
    def links(self) -> Links:
        """One-time login links."""
        return Links(self._connection)

    @cached_property
    def policies(self) -> Policies:
        """Policies that users wrote."""
        return Policies(self._connection)

    @cached_property
    def ledger(self) -> LedgerRows:
        """Rows of the audit ledger."""
        return LedgerRows(self._connection)

    @cached_property
    def workspaces(self) -> Workspaces:
        """Workspaces."""
        return Workspaces(self._connection)

    @cached_property
    def experiments(self) -> Experiments:
        """Experiments and their tags."""
        return Experiments(self._connection)

    @cached_property
    def runs(self) -> Runs:
        """Runs, their params and tags."""
        return Runs(self._connection)

    @cached_property
    def metrics(self) -> Metrics:
        """Logged values."""
        return Metrics(self._connection)

    @cached_property
    def overview(self) -> Overview:
        """What pages show of many runs at once."""
        return Overview(self._connection)

    @cached_property
    def experiment_search(self) -> ExperimentSearch:
        """Finding experiments."""
        return ExperimentSearch(self._connection)

    @cached_property
    def search(self) -> Search:
        """Search in experiments and runs."""
        return Search(self._connection)

    @cached_property
    def segments(self) -> Segments:
        """Segments of appended rows."""
        return Segments(self._connection)

    @cached_property
    def datasets(self) -> Datasets:
        """Datasets, and which runs read them."""
        return Datasets(self._connection)

    @cached_property
    def logged_models(self) -> LoggedModels:
        """Logged models, what was logged of them, and which runs used and made them."""
        return LoggedModels(self._connection)

    @cached_property
    def model_search(self) -> ModelSearch:
        """Search among logged models."""
        return ModelSearch(self._connection)

    @cached_property
    def erasure(self) -> Erasure:
        """Deleting for good."""
        return Erasure(self._connection)

    @cached_property
    def subjects(self) -> Subjects:
        """Where a person's value stands."""
        return Subjects(self._connection)

    @cached_property
    def artifacts(self) -> Artifacts:
        """Names of artifacts."""
        return Artifacts(self._connection)

    @cached_property
    def uploads(self) -> Uploads:
        """Uploads in parts."""
        return Uploads(self._connection)

    @cached_property
    def condemned(self) -> Condemned:
        """Content that nothing names any more."""
        return Condemned(self._connection)

    @cached_property
    def leases(self) -> Leases:
        """Leases of owners."""
        return Leases(self._connection)


class Store:
    """The database. Threads may share it; each transaction belongs to one thread."""

    def __init__(self, engine: sa.Engine, where: str, wait: float = 30.0) -> None:
        self._engine = engine
        self._fence: Callable[[Transaction], None] | None = None
        self.where = where
        # SQLite lets one write at a time, and who waits there sleeps and looks again. Within a process we queue.
        self._one = None if self.postgresql else threading.Lock()
        self._wait = wait

    @cached_property
    def writer(self) -> Writer:
        """Writes for many, with one commit for all that wait."""
        return Writer(self)

    @property
    def postgresql(self) -> bool:
        """Whether this is a PostgreSQL server, which several machines can share."""
        return self._engine.dialect.name == "postgresql"

    def fence(self, check: Callable[[Transaction], None]) -> None:
        """Ask ``check`` at the beginning of every write transaction from now on; if it raises, nothing is written."""
        self._fence = check

    def check_fence(self) -> None:
        """Ask the fence now: for what is written elsewhere than in the database.

        Raises:
            FencedError: another owner has taken over.
            UnavailableError: the database cannot be asked.
        """
        if self._fence is not None:
            with self.transaction():
                pass

    @property
    def writing(self) -> bool:
        """Whether another write of this process is under way, for which the next one would wait."""
        return self._one is not None and self._one.locked()

    def connect(self) -> sa.Connection:
        """A connection for many transactions, which whoever asked closes.

        Raises:
            StorageError: damaged or unreadable.
            UnavailableError: the server is gone.
        """
        with self.translated():
            return self._engine.connect()

    @contextmanager
    def transaction(self, connection: sa.Connection | None = None) -> Iterator[Transaction]:
        """One write transaction: committed and on disk when the block ends, undone if it raises.

        It takes a connection of its own unless one is given.

        Raises:
            StorageError: disk full, damaged or unwritable.
            UnavailableError: locked by another process for too long, or the server is gone.
            FencedError: another owner has taken over.
            ConflictError: a constraint was violated.
        """
        transaction: Transaction | None = None
        if self._one is not None and not self._one.acquire(timeout=self._wait):
            raise UnavailableError("another write takes too long", where=self.where, fix="try again")
        try:
            with contextlib.nullcontext(connection) if connection is not None else self._engine.connect() as used:
                if WRITE not in used.get_execution_options():
                    used.execution_options(**{WRITE: True})
                with self._begun(used):
                    transaction = Transaction(used)
                    if self._fence is not None:
                        self._fence(transaction)
                    yield transaction
        except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
            raise faults.translate(error, self.where) from error
        finally:
            if self._one is not None:
                self._one.release()
        for action in transaction._after:
            action()

    @contextmanager
    def _begun(self, connection: sa.Connection) -> Iterator[None]:
        """A transaction on a connection for writes.

        SQLAlchemy begins one of its own with its first statement, and need not when all go straight to the driver:
        that, its commit and the events of both are as long as a small write.
        """
        if self.postgresql:
            with connection.begin():
                yield
            return
        raw = driver(connection)
        _begin(connection, raw)
        try:
            yield
            (connection if connection.in_transaction() else raw).commit()
        except BaseException:
            with contextlib.suppress(sa.exc.SQLAlchemyError, sqlite3.Error):  # the database may have undone it already
                (connection if connection.in_transaction() else raw).rollback()
            raise

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """One read transaction: everything in the block is seen as of one moment; writing is refused.

        Raises:
            StorageError: damaged or unreadable.
            UnavailableError: the server is gone.
        """
        with self.translated(), self._engine.connect() as connection:
            if self.postgresql:
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            # Committed, as psycopg forgets what it prepared on the server whenever something is rolled back.
            with connection.begin():
                yield Transaction(connection)

    def vacuum(self) -> None:
        """Write the file anew, without what was deleted from it. PostgreSQL does so by itself.

        Raises:
            StorageError: there is no room for a second file.
            UnavailableError: another write, or a read, takes too long.
        """
        if self._one is None:
            return
        if not self._one.acquire(timeout=self._wait):
            raise UnavailableError("another write takes too long", where=self.where, fix="try again")
        try:
            with self.translated(), self._engine.connect() as connection:
                raw = driver(connection)
                connection.info[WRITE] = True
                for statement in ("PRAGMA query_only=OFF", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                    raw.execute(statement).close()
        finally:
            self._one.release()

    def close(self) -> None:
        """Write what waits for the writer, then close all connections."""
        if "writer" in self.__dict__:
            self.writer.close()
        self._engine.dispose()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """What the database raises in the block comes out as an error of ours."""
        try:
            yield
        except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
            raise faults.translate(error, self.where) from error


def open_store(location: Path | str, *, wait: float = 30.0, read_only: bool = False) -> Store:
    """Open the database at a SQLite path or a ``postgresql://`` address; make and migrate it where needed.

    ``wait`` is how long, in seconds, a write waits for another one before it gives up. ``read_only`` opens what is
    there, such as a copy that is to be checked, and neither makes nor migrates anything.

    Raises:
        HomeError: it was written by another format of Bedplate.
        StorageError: it is damaged, or cannot be made or written.
        UnavailableError: the server does not answer, or another process holds the file.
    """
    text = str(location)
    if text.startswith(("postgresql://", "postgresql+psycopg://")):
        engine, where = _postgresql_engine(text, wait)
    else:
        engine, where = _sqlite_engine(Path(location), wait, read_only=read_only), text
    store = Store(engine, where, wait)
    try:
        _bring_to_head(store, read_only=read_only)
    except BaseException:
        store.close()
        raise
    return store


def _sqlite_engine(path: Path, wait: float, *, read_only: bool) -> sa.Engine:
    try:
        # Private from its first moment; the write-ahead log inherits the mode. An existing file is never opened here:
        # closing any descriptor of a database file would drop the locks that SQLite holds on it in this process.
        if not read_only and not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass  # another process was quicker
    except OSError as error:
        raise StorageError(
            f"the database cannot be made: {error.strerror}", where=str(path), fix="check the folder"
        ) from error
    database, query = (path.absolute().as_uri(), {"uri": "true", "mode": "ro"}) if read_only else (str(path), {})
    url = sa.URL.create("sqlite+pysqlite", database=database, query=query)
    engine = sa.create_engine(url, connect_args={"timeout": wait, "check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        for pragma in ("PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON", "PRAGMA trusted_schema=OFF", MAPPED):
            connection.execute(pragma).close()
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL").close()

    @sa.event.listens_for(engine, "begin")
    def _begins(connection: sa.Connection) -> None:
        raw = driver(connection)
        if not raw.in_transaction:
            _begin(connection, raw)

    return engine


def _begin(connection: sa.Connection, raw: sqlite3.Connection) -> None:
    # A write takes its lock first, so it can wait for it; a read that turned into a write could only fail.
    write = connection.get_execution_options().get(WRITE, False)
    if connection.info.get(WRITE) is not write:
        raw.execute("PRAGMA query_only=OFF" if write else "PRAGMA query_only=ON").close()
        connection.info[WRITE] = write
    raw.execute("BEGIN IMMEDIATE" if write else "BEGIN").close()


def _postgresql_engine(address: str, wait: float) -> tuple[sa.Engine, str]:
    url = sa.make_url(address).set(drivername="postgresql+psycopg")
    milliseconds = int(wait * 1000)
    # Compiling a plan, or dividing it among processes, takes longer than any statement of ours should.
    # A plan made without the values at hand takes a search of few for one of many.
    quick = "-c jit=off -c max_parallel_workers_per_gather=0 -c plan_cache_mode=force_custom_plan"
    options = f"-c lock_timeout={milliseconds} -c idle_in_transaction_session_timeout=600000 {quick}"
    # A network that is gone says nothing: after about ``wait`` a connection counts as lost.
    connect: dict[str, Any] = {"connect_timeout": max(2, int(wait)), "options": options}
    connect |= {"tcp_user_timeout": milliseconds, "keepalives_idle": 5, "keepalives_interval": 5}
    connect |= {"keepalives_count": max(1, int(wait) // 5 - 1)}
    engine = sa.create_engine(url, pool_pre_ping=True, connect_args=connect)

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.prepared_max = PREPARED

    return engine, url.render_as_string(hide_password=True)


def _bring_to_head(store: Store, *, read_only: bool) -> None:
    version = _version(store)
    if version == HEAD:
        return
    _refuse_foreign(version, store.where)
    if read_only:
        raise HomeError("this database is not of the newest form", where=store.where, fix="open its home once")
    from bedplate.store import migrate

    with store.translated():
        migrate.upgrade(store._engine.connect().execution_options(**{WRITE: True}), _refuse_foreign, store.where)


def _version(store: Store) -> str | None:
    """The revision the database is at; None if it is empty. One row, read before anything heavy is imported."""
    try:
        with store._engine.connect() as connection, connection.begin():
            return connection.execute(_VERSION).scalar()
    except (sa.exc.OperationalError, sa.exc.ProgrammingError) as error:
        missing = "no such table" in str(error.orig) or getattr(error.orig, "sqlstate", "") == "42P01"
        if missing:
            return None
        raise faults.translate(error, store.where) from error
    except sa.exc.SQLAlchemyError as error:
        raise faults.translate(error, store.where) from error


def _refuse_foreign(version: str | None, where: str) -> None:
    if version is not None and not (version.startswith(f"f{FORMAT}_") and version <= HEAD):
        raise HomeError(
            f"the database is of format {version}, this Bedplate writes format f{FORMAT}",
            where=where,
            fix="use the version of Bedplate that wrote it, or another home",
        )
