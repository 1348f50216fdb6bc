"""Rows that come in batch by batch: what the table holds already, what is late, and how it takes in more.

A row is known by the contract's primary key and stands once, however often its batch comes. The watermark is the
greatest value of one column in the table; a row further below it than ``lateness`` is late.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bedplate.data import duck
from bedplate.data.contract_types import in_utc
from bedplate.data.model import KeyRule, Model
from bedplate.data.sources.databases import Window
from bedplate.data.tables import Staged, Tables
from bedplate.errors import ContractError, InputError, NotFoundError
from bedplate.records import TableVersion
from bedplate.usecase.types import Incremental

PRIMARY = "primaryKey"


class Standing:
    """What a table holds before a batch comes in. ``window`` bounds the batch, and nothing in it is late then.

    Raises:
        ContractError: the contract gives no primary key, or the watermark is no column of times or whole numbers.
    """

    def __init__(
        self, tables: Tables, name: str, model: Model, wanted: Incremental, where: str, window: Window | None = None
    ) -> None:
        self._tables, self._name, self._wanted = tables, name, wanted
        self.column = wanted.watermark
        column = next((column for column in model.columns if column.name == wanted.watermark), None)
        if column is None or column.logical_type not in ("date", "timestamp", "integer"):
            raise ContractError(
                f"the watermark {wanted.watermark} is no date, timestamp or integer of the contract", where=where,
                fix="name such a column in data.<name>.incremental.watermark",
            )  # fmt: skip
        keys = next((rule for rule in model.keys if rule.id == PRIMARY), None)
        if keys is None:
            raise ContractError(
                "rows that come in batch by batch need a primary key, or a batch that comes twice would stand twice",
                where=where, fix="mark the properties that identify a row with primaryKey: true",
            )  # fmt: skip
        self.keys: KeyRule = keys
        self.window = window
        self.late = self.known = self.outside = 0
        try:
            self.current: TableVersion | None = tables.current(name)
        except NotFoundError:
            self.current = None
        self.high = self._high()

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return 0 if self.current is None else self.current.rows

    @property
    def floor(self) -> Any:
        """The least value that is not late; None where nothing is."""
        if self.high is None or self.window is not None:
            return None
        if isinstance(self.high, int):
            return self.high - int(self._wanted.lateness)
        return self.high - timedelta(seconds=self._wanted.lateness)

    @property
    def schema(self) -> pa.Schema | None:
        """The columns of the rows that there are."""
        return None if self.current is None else self._tables.schema(self.current)

    def since(self) -> Window:
        """What a database needs to be asked for."""
        return Window(since=self.floor) if self.window is None else self.window

    def _high(self) -> Any:
        if self.current is None or self.column not in self._tables.schema(self.current).names:
            return None
        high = None
        for batch in self._tables.scan(self.current, [self.column]):
            value = pc.max(batch.column(0)).as_py()
            high = value if high is None or (value is not None and value > high) else high
        return datetime.combine(high, time()) if isinstance(high, date) and not isinstance(high, datetime) else high

    def columns(self, names: Sequence[str]) -> pa.RecordBatchReader | None:
        """Some columns of the rows that there are; None where there are none, or they lack one."""
        if self.current is None or not set(names) <= set(self._tables.schema(self.current).names):
            return None
        return self._tables.scan(self.current, list(names))

    def there(self, keys: pa.RecordBatchReader, sql: duck.Engine) -> np.ndarray:
        """Positions of rows, given by their key and ``_position``, that the table holds already."""
        if self.current is None:
            return np.array([], dtype=np.int64)
        held = self._tables.scan(self.current, list(self.keys.columns))
        listed = ", ".join(duck.quote(column) for column in self.keys.columns)
        query = f"SELECT _position FROM source SEMI JOIN held USING ({listed}) ORDER BY 1"  # noqa: S608  identifiers are quoted
        with sql.connect({"source": keys, "held": held}) as connection:
            return np.asarray(connection.execute(query).fetchnumpy()["_position"], dtype=np.int64)

    def judge(self, values: pa.Table, known: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
        """Which rows are passed over, which late ones are refused, and what is said of the latter."""
        column = values.column(self.column)
        nothing = np.zeros(values.num_rows, dtype=bool)
        over = known.copy()
        if self.window is not None:
            for bound, outside in ((self.window.since, pc.less), (self.window.until, pc.greater_equal)):
                if bound is not None:
                    over |= _mask(outside(_comparable(column), _scalar(bound)))
            self.outside += int(np.count_nonzero(over & ~known))
        self.known += int(np.count_nonzero(known))
        if self.floor is None:
            return over, nothing, ""
        late = _mask(pc.less(_comparable(column), _scalar(self.floor))) & ~over
        self.late += int(np.count_nonzero(late))
        refused = late if self._wanted.late == "refuse" else nothing
        return over, refused, f"{self.column} is before {self.floor}, up to which rows had come in"

    # ------------------------------------------------------------------------------------------- how more is taken in

    def with_held(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The batches, after the rows that are there where those must be written anew with further columns.

        Raises:
            ContractError: the rows that are there have columns which the contract has no longer, or has otherwise.
        """
        if self.evolves(schema):
            assert self.current is not None
            yield from padded(self._tables.scan(self.current), schema)
        yield from batches

    def evolves(self, schema: pa.Schema) -> bool:
        """Whether the rows that are there lack columns.

        Raises:
            ContractError: see :meth:`with_held`.
        """
        if self.current is None:
            return False
        held = self._tables.schema(self.current)
        now = {field.name: field.type for field in schema}
        broken = [
            f"{field.name} was {field.type} and is {now.get(field.name, 'gone')}"
            for field in held
            if now.get(field.name) != field.type
        ]
        if broken:
            raise ContractError(
                f"the {self.current.rows:,} rows in {self._name} do not fit the contract: {'; '.join(broken)}",
                where=self._name,
                fix="take the change back, or bring the data set in under another name",
            )
        return bool(held != schema)

    def commit(self, staged: Staged, accepted: int) -> TableVersion:
        """The table with what came in; the version that is there where nothing did.

        Raises:
            ConflictError: somebody wrote meanwhile.
        """
        if self.current is not None and not accepted and not self.evolves(staged.schema):
            return self.current
        mode = "overwrite" if self.current is None or self.evolves(staged.schema) else "append"
        return staged.commit(mode=mode, after=self.current, what="ingest")  # type: ignore[arg-type]


def padded(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows with the columns of ``schema``: null where they had none."""
    for batch in batches:
        names = batch.schema.names
        columns = [
            batch.column(field.name).cast(field.type) if field.name in names else pa.nulls(len(batch), field.type)
            for field in schema
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def set_aside(tables: Tables, name: str, rows: pa.RecordBatchReader, sql: duck.Engine) -> TableVersion:
    """Add rows to a quarantine that is kept over batches; one that lies in it already is not added again.

    Where a row stood in its source does not count: a batch that comes again may have others before it.
    """
    try:
        current = tables.current(name)
    except NotFoundError:
        return tables.write(name, rows, mode="overwrite")
    held = tables.schema(current)
    schema = pa.unify_schemas([held, rows.schema])
    views = {
        "held": pa.RecordBatchReader.from_batches(schema, padded(tables.scan(current), schema)),
        "new": pa.RecordBatchReader.from_batches(schema, padded(rows, schema)),
    }
    same = " AND ".join(
        f"held.{duck.quote(column)} IS NOT DISTINCT FROM new.{duck.quote(column)}"
        for column in schema.names
        if column != "_source_row"
    )
    query = f"SELECT new.* FROM new ANTI JOIN held ON {same}"  # noqa: S608  identifiers are quoted
    with sql.connect(views) as connection:
        found: Iterable[pa.RecordBatch] = connection.sql(query).to_arrow_reader(1 << 16)
        added = (batch.cast(schema) for batch in found)
        if held == schema:
            with tables.stage(name, added, schema) as staged:
                return current if not staged.rows else staged.commit(mode="append", after=current, what="ingest")
        before = padded(tables.scan(current), schema)
        with tables.stage(name, itertools.chain(before, added), schema) as staged:
            return staged.commit(mode="overwrite", after=current, what="ingest")


def window(model: Model, wanted: Incremental, since: str | None, until: str | None) -> Window:
    """The range of a backfill, from its words.

    Raises:
        InputError: one of them is no value of the watermark, or the range is empty.
    """
    kind = next((column.logical_type for column in model.columns if column.name == wanted.watermark), "")

    def bound(text: str | None, option: str) -> Any:
        try:
            if text is None:
                return None
            return int(text) if kind == "integer" else in_utc(datetime.fromisoformat(text), None)
        except ValueError as error:
            like = "1200" if kind == "integer" else "2026-01-31 or 2026-01-31T10:00 (UTC)"
            raise InputError(
                f"{text!r} is no value of {wanted.watermark}", where=option, fix=f"write {like}"
            ) from error

    found = Window(since=bound(since, "--from"), until=bound(until, "--to"))
    if found.since is not None and found.until is not None and not found.since < found.until:  # type: ignore[operator]
        raise InputError("the range is empty", where="--to", fix="name a later end; it does not belong to the range")
    return found


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column if pa.types.is_integer(column.type) else column.cast(pa.timestamp("us"), safe=False)


def _scalar(value: Any) -> pa.Scalar:
    return pa.scalar(value) if isinstance(value, int) else pa.scalar(value.replace(tzinfo=None), pa.timestamp("us"))


def _mask(found: Any) -> np.ndarray:
    return np.asarray(pc.fill_null(found, False).to_numpy())
