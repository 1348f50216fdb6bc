"""SQL databases, and programs that give row by row: what they give is written to a file, which is then read as any.

Values come as text and are judged by the contract alone, so that it does not matter by which driver they came.
"""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from bedplate.data import convert
from bedplate.data.parsing import rows
from bedplate.data.parsing.values import Chunk
from bedplate.data.sources.port import Opened, Reach
from bedplate.errors import BedplateError, ContractError, InputError, NotFoundError, UnavailableError, UserCodeError
from bedplate.usecase.types import Source

_PROGRAM = "program:"


class Window(msgspec.Struct, frozen=True):
    """From when, inclusive, to when, exclusive: what a query may name as ``:since`` and ``:until``."""

    since: datetime | date | int | None = None
    until: datetime | date | int | None = None

    def bound(self, whole_numbers: bool = False) -> dict[str, Any]:
        """The values for a query; the ends of all time, or of all numbers, where it is open."""
        numbers = whole_numbers or isinstance(self.since, int) or isinstance(self.until, int)
        first, last = (-(1 << 63), (1 << 63) - 1) if numbers else ("0001-01-01 00:00:00", "9999-12-31 00:00:00")
        return {
            "since": first if self.since is None else _literal(self.since),
            "until": last if self.until is None else _literal(self.until),
        }


def _literal(value: datetime | date | int) -> Any:
    return value if isinstance(value, int) else value.isoformat(" ") if isinstance(value, datetime) else str(value)


def address_of(source: Source, connections: Mapping[str, str], where: str) -> str:
    """The address behind the name of a connection; ``where`` names the source in the file.

    Raises:
        InputError: the home has no such connection.
    """
    if source.connection not in connections:
        raise InputError(
            f"the home has no connection {source.connection!r}",
            where=f"{where}.connection",
            fix=f"use one of {', '.join(sorted(connections))}" if connections else "name it in BEDPLATE_CONNECTIONS",
        )
    return connections[source.connection]


def fetch(source: Source, folder: Path, reach: Reach, window: Window, scratch: Path, where: str) -> Opened:
    """What a query gives, written as Arrow.

    Raises:
        InputError: the home has no such connection, or its address cannot be used.
        NotFoundError: there is no such file of SQLite.
        ContractError: the database refuses the query.
        UnavailableError: it cannot be reached.
    """
    if source.path:
        batches, label = _by_file(source, folder, window, isolated=reach.isolated), source.path
    else:
        batches, label = _batches(address_of(source, reach.connections, where), source.query, window), source.connection
    path = scratch / "rows.arrow"
    try:
        first = next(batches)
        with pa.ipc.new_stream(path, first.schema) as writer:
            writer.write_batch(first)
            for batch in batches:
                writer.write_batch(batch)
    except OSError as error:
        raise UnavailableError(f"the rows of {label} cannot be written down: {error.strerror}", where=label) from error
    return Opened("arrow", label, (path,), typed=False, isolated=reach.isolated)


def _by_file(source: Source, folder: Path, window: Window, *, isolated: bool) -> Iterator[pa.RecordBatch]:
    """What a query gives of a file of SQLite, which somebody else made: it is opened where any file is parsed."""
    file = (folder / source.path).expanduser().resolve()
    if not file.is_file():
        raise NotFoundError("there is no such database", where=str(file), fix="correct the path in usecase.yaml")
    given = Opened("sqlite", source.path, (file,), isolated=isolated, query=source.query, bound=window.bound())
    try:
        schema = given.columns(())
        yield rows.batch([], schema.names)
        for item in given.read(schema.names):
            if isinstance(item, Chunk):
                yield from item.table.to_batches()
    finally:
        given.close()


def _batches(address: str, query: str, window: Window) -> Iterator[pa.RecordBatch]:
    """The rows of a query as text, at least one batch: by ADBC where a driver is installed, by SQLAlchemy otherwise."""
    driver = _adbc(address)
    if driver is not None and not (":since" in query or ":until" in query):
        return _by_adbc(driver, address, query)
    return _by_sqlalchemy(address, query, window)


def _adbc(address: str) -> Any:
    name = {"postgresql": "adbc_driver_postgresql"}.get(address.partition("://")[0].partition("+")[0], "")
    try:
        return importlib.import_module(f"{name}.dbapi") if name else None
    except ModuleNotFoundError:
        return None


def _by_adbc(driver: Any, address: str, query: str) -> Iterator[pa.RecordBatch]:
    plain = "postgresql://" + address.partition("://")[2]
    plain += ("&" if "?" in plain else "?") + "options=-c%20default_transaction_read_only%3Don"  # as below
    try:
        with driver.connect(plain) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            reader = cursor.fetch_record_batch()
            names = reader.schema.names
            yield _texts(pa.Table.from_batches([], reader.schema), names)
            for batch in reader:
                yield _texts(pa.Table.from_batches([batch]), names)
    except driver.OperationalError as error:
        raise UnavailableError(
            f"the database cannot be reached: {_first_line(error)}", fix="check the address in BEDPLATE_CONNECTIONS"
        ) from error
    except driver.Error as error:
        raise ContractError(f"the database refuses the query: {_first_line(error)}", fix="correct the query") from error


def _texts(table: pa.Table, names: list[str]) -> pa.RecordBatch:
    columns = [convert.text(column).combine_chunks() for column in table.columns]
    arrays = [column.chunk(0) if isinstance(column, pa.ChunkedArray) else column for column in columns]
    return pa.RecordBatch.from_arrays(arrays, names)


def _by_sqlalchemy(address: str, query: str, window: Window) -> Iterator[pa.RecordBatch]:
    import sqlalchemy as sa

    try:
        # psycopg is the driver that is there; an address without one would ask for another.
        url = sa.make_url(address)
        url = url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url
        engine = sa.create_engine(url, poolclass=sa.NullPool)
    except (sa.exc.ArgumentError, ImportError) as error:
        raise InputError(
            f"the address of the connection cannot be used: {_first_line(error)}", where="BEDPLATE_CONNECTIONS",
            fix="write dialect+driver://user@host/name, and install its driver",
        ) from error  # fmt: skip
    statement = sa.text(query)
    bound = {name: value for name, value in window.bound().items() if name in statement._bindparams}
    try:
        with engine.connect() as connection:
            # The query is a use case's, the rights are the home's: it reads, whatever it says.
            reading = {"postgresql_readonly": True} if url.get_backend_name() == "postgresql" else {}
            streamed = connection.execution_options(stream_results=True, max_row_buffer=rows.AT_ONCE, **reading)
            result = streamed.execute(statement, bound)
            names = list(result.keys())
            yield rows.batch([], names)
            while found := result.fetchmany(rows.AT_ONCE):
                yield rows.batch(found, names)
    except sa.exc.OperationalError as error:
        raise UnavailableError(
            f"the database cannot be read: {_first_line(error.orig)}", where=url.render_as_string(hide_password=True),
            fix="check the address and the query",
        ) from error  # fmt: skip
    except sa.exc.SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise ContractError(
            f"the database refuses the query: {_first_line(cause)}", where=url.render_as_string(hide_password=True),
            fix="correct the query",
        ) from error  # fmt: skip
    finally:
        engine.dispose()


def _first_line(error: object) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def produce(source: Source, connections: Mapping[str, str], scratch: Path, where: str) -> tuple[Path, ...]:
    """What a program gives: a resource of dlt, or anything else that can be iterated over, written as JSON lines.

    The home names the program, as ``program:module:name``; a use case can choose it and not say what it runs. One
    resource of a source is ``program:module:source.resource``.

    Raises:
        InputError: the home has no such connection, or it is none of a program.
        UserCodeError: the program failed.
    """
    address = address_of(source, connections, where)
    module, _, name = address.removeprefix(_PROGRAM).partition(":")
    if not address.startswith(_PROGRAM) or not module or not name:
        raise InputError(
            f"the connection {source.connection} is no program", where="BEDPLATE_CONNECTIONS",
            fix=f"write {source.connection}={_PROGRAM}module:name",
        )  # fmt: skip
    path = scratch / "rows.json"
    encoder = msgspec.json.Encoder(enc_hook=str)
    try:
        given: Any = importlib.import_module(module)
        for part in name.split("."):
            given = _iterable(getattr(given, part))
        with path.open("wb") as file:
            for item in given:
                for row in _rows_of(item):
                    file.write(encoder.encode(row) + b"\n")
    except BedplateError:
        raise
    except Exception as error:
        raise UserCodeError(
            f"the program failed: {type(error).__name__}: {_first_line(error)}", where=address, fix="run it by hand"
        ) from error
    return (path,)


def _iterable(given: Any) -> Any:
    """What is made where a function or a source of dlt makes what can be iterated over."""
    return given() if callable(given) and not hasattr(given, "__iter__") else given


def _rows_of(item: Any) -> Iterable[Any]:
    """The rows of what a program gave at once: a row, a list of rows, an Arrow table, or a data frame."""
    if hasattr(item, "to_dicts"):  # of Polars
        return item.to_dicts()  # type: ignore[no-any-return]
    if hasattr(item, "iterrows"):  # of pandas: through Arrow, what is missing is null
        item = pa.Table.from_pandas(item, preserve_index=False)
    if hasattr(item, "to_pylist"):
        return item.to_pylist()  # type: ignore[no-any-return]
    return item if isinstance(item, list | tuple) else (item,)
