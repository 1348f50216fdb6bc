"""A file of SQLite as a source: what one query gives, which reads tables of the file and does nothing else."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from bedplate.data.parsing.rows import AT_ONCE, batch
from bedplate.data.parsing.values import Chunk
from bedplate.errors import ContractError

_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


def columns(path: Path, query: str, bound: Mapping[str, Any]) -> pa.Schema:
    """The columns that ``query`` gives, all of them text. Raises as :func:`read`."""
    with _result(path, query, bound) as cursor:
        return pa.schema([pa.field(name, pa.string()) for name in _names(cursor)])


def read(path: Path, names: list[str], query: str, bound: Mapping[str, Any]) -> Iterator[Chunk]:
    """The rows that ``query`` gives with its parameters ``bound``, with the columns ``names`` in that order.

    Raises:
        ContractError: it is no file of SQLite, or the query cannot be run on it.
    """
    with _result(path, query, bound) as cursor:
        given, count = _names(cursor), 0
        while rows := cursor.fetchmany(AT_ONCE):
            table = pa.Table.from_batches([batch(rows, given)]).select(names)
            yield Chunk("", table, range(count + 1, count + len(rows) + 1))
            count += len(rows)


@contextmanager
def _result(path: Path, query: str, bound: Mapping[str, Any]) -> Iterator[sqlite3.Cursor]:
    try:
        # Nothing in it is written, and nothing beside it is made or waited for.
        address = f"file:{quote(str(path))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            connection.set_authorizer(
                lambda action, *_: sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY
            )
            yield connection.execute(query, bound)
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise ContractError(
            f"the database refuses the query: {error}", where=str(path), fix="check the file and correct the query"
        ) from error


def _names(cursor: sqlite3.Cursor) -> list[str]:
    if cursor.description is None:
        raise ContractError("the query gives no rows", fix="write one SELECT")
    return [name for name, *_ in cursor.description]
