"""The one factory of DuckDB connections: SQL here reaches registered views and nothing else.

By itself DuckDB reads any file, installs extensions and picks up Python variables from any SQL. The order below
matters: where it may spill is set first, then the doors are shut, then the lock is turned so that SQL cannot open them
again.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from bedplate.errors import ContractError, InputError

Connection = duckdb.DuckDBPyConnection

_SHUT = (
    "SET enable_external_access = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET python_enable_replacements = false",
    "SET lock_configuration = true",
)


def quote(identifier: str) -> str:
    """An SQL identifier, quoted. The only way a name gets into SQL text; values are bound.

    Raises:
        InputError: it is empty or holds a NUL.
    """
    if not identifier or "\x00" in identifier:
        raise InputError("a column or table name is empty or holds a NUL character", where=repr(identifier))
    doubled = identifier.replace('"', '""')
    return f'"{doubled}"'


_OF_THE_TEXT = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException, duckdb.SyntaxException)


def what_failed(error: duckdb.Error) -> str:
    """What DuckDB says of a query that failed, or, where it may quote a value of a row, only the kind of failure."""
    if isinstance(error, _OF_THE_TEXT):
        return str(error).splitlines()[0]
    return f"{type(error).__name__.removesuffix('Exception')} (what it says of the values is withheld)"


class Engine:
    """One DuckDB for many queries, each on a connection of its own: opening one takes what twenty small queries do.

    It is opened by the first query, so that who asks none pays for none. It computes in UTC, within ``memory`` bytes
    for all its queries together, and spills beyond that into a folder of its own that goes with it. To be closed.
    """

    def __init__(self, *, memory: int = 1 << 30, threads: int | None = None) -> None:
        self._memory, self._threads = memory, threads
        self._opened: tuple[Connection, Path] | None = None
        self._opening = threading.Lock()  # a stream that one query reads may ask another, from a thread of DuckDB

    @contextmanager
    def connect(self, views: Mapping[str, Any] | None = None) -> Iterator[Connection]:
        """A connection that sees ``views`` (Arrow tables, data sets or streams, by name) and nothing else.

        A stream can be read once.
        """
        with self._opening:
            if self._opened is None:
                self._opened = _open(self._memory, self._threads)
            connection = self._opened[0].cursor()
        try:
            for name, data in (views or {}).items():
                connection.register(name, data)
            yield connection
        finally:
            connection.close()

    def close(self) -> None:
        """Give back its memory and its folder."""
        with self._opening:
            opened, self._opened = self._opened, None
        if opened is not None:
            connection, spill = opened
            connection.close()
            shutil.rmtree(spill, ignore_errors=True)


@contextmanager
def engine(*, memory: int = 1 << 30, threads: int | None = None) -> Iterator[Engine]:
    """An :class:`Engine` that is closed at the end."""
    made = Engine(memory=memory, threads=threads)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def connect(
    views: Mapping[str, Any] | None = None, *, memory: int = 1 << 30, threads: int | None = None
) -> Iterator[Connection]:
    """The only connection of an :class:`Engine`, for what asks once."""
    with engine(memory=memory, threads=threads) as made, made.connect(views) as connection:
        yield connection


def _open(memory: int, threads: int | None) -> tuple[Connection, Path]:
    spill = Path(tempfile.mkdtemp(prefix="bedplate-sql-"))
    connection = duckdb.connect(":memory:")
    try:
        connection.execute("SET temp_directory = ?", [str(spill)])
        connection.execute("SET memory_limit = ?", [f"{max(memory, 1 << 26) // (1 << 20)}MiB"])
        connection.execute("SET threads = ?", [threads or os.cpu_count() or 1])
        # What follows would else hold for this connection alone, and not for those that queries get.
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        connection.execute("SET GLOBAL preserve_insertion_order = true")
        # Of a stream nobody knows how long it is, and DuckDB takes it for short: then an ASOF join is a loop in a loop.
        connection.execute("SET GLOBAL asof_loop_join_threshold = 0")
        for statement in _SHUT:
            connection.execute(statement)
    except BaseException:
        connection.close()
        shutil.rmtree(spill, ignore_errors=True)
        raise
    return connection, spill


def check_select(sql: str, where: str | None = None) -> None:
    """Refuse SQL that is not one query: foreign SQL may read views, not write files into the spill folder.

    Raises:
        InputError: it does not parse, is empty, or is anything but one SELECT.
    """
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise InputError(f"the SQL does not parse: {error}", where=where, fix="correct the SQL") from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise InputError("only one SELECT is allowed here", where=where, fix="write one SELECT over the views")


def first_row(connection: Connection, sql: str, where: str, seconds: float = 60.0) -> tuple[Any, ...] | None:
    """The first row of one SELECT that somebody wrote, within a time limit.

    Raises:
        ContractError: it is not one SELECT, fails, or takes too long.
    """
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        check_select(sql, where)
        return connection.execute(sql).fetchone()
    except InputError as error:
        raise ContractError(error.message, where=where, fix=error.fix) from error
    except duckdb.Error as error:
        raise ContractError(f"the SQL failed: {what_failed(error)}", where=where, fix="correct the query") from None
    finally:
        timer.cancel()
