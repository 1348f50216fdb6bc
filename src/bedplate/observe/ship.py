"""From the prediction journal to the prediction table: each sealed segment exactly once, deleted after its commit."""

from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from bedplate import clock, journal
from bedplate.data.reads import Reader
from bedplate.data.tables import Tables
from bedplate.errors import IntegrityError, NotFoundError
from bedplate.journal import Segment, predictions
from bedplate.records import Prediction, TableVersion

SCHEMA = pa.schema(
    [
        pa.field(name, pa.string(), nullable=False)
        for name in (
            "id",
            "request_id",
            "use_case",
            "endpoint",
            "bundle",
            "evidence",
            "principal",
            "decision",
            "entity",
        )
    ]
    + [
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("inputs", pa.string(), nullable=False),
        pa.field("features", pa.string(), nullable=False),
        pa.field("outputs", pa.string(), nullable=False),
        pa.field("latency_ms", pa.float64(), nullable=False),
        pa.field("replayed", pa.bool_(), nullable=False),
        pa.field("exposure", pa.string(), nullable=False),
        pa.field("ended", pa.string(), nullable=False),
        pa.field("trace", pa.string(), nullable=False),
        pa.field("segment", pa.string(), nullable=False),
    ]
)
"""The prediction table. Inputs, features and outputs are JSON text: their names differ from model to model."""

_JSON_COLUMNS = ("inputs", "features", "outputs", "exposure", "trace")


class ShipReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was shipped, and the table it is in; None while no prediction was ever shipped."""

    segments: int
    rows: int
    table: TableVersion | None


def ship(
    folder: Path,
    tables: Tables,
    name: str,
    *,
    on_segment: Callable[[Segment, TableVersion], None] | None = None,
    on_predictions: Callable[[list[Prediction]], None] | None = None,
) -> ShipReport:
    """Append every sealed segment of the journal ``folder`` to the table ``name`` and delete it.

    The segment's id is the key of its commit, so that a crash between commit and deletion repeats neither.
    ``on_segment`` is called between the two (for the ledger entry: count and digest), and ``on_predictions`` with what
    was in it; both MUST bear being called again.

    Raises:
        IntegrityError: a segment is not what was sealed, or holds something else than predictions. It stays.
        StorageError: the disk is full or refuses.
    """
    count = rows = 0
    for segment in journal.segments(folder, sealed_only=True):
        if not count:
            _upgrade(tables, name)
        shipped = [_prediction(segment, record) for record in journal.read(segment)]
        table = pa.Table.from_pylist([_row(segment, prediction) for prediction in shipped], schema=SCHEMA)
        version = tables.write(name, table, mode="append", key=f"segment:{segment.id}")
        if on_segment is not None:
            on_segment(segment, version)
        if on_predictions is not None:
            on_predictions(shipped)
        journal.remove(segment)
        count, rows = count + 1, rows + table.num_rows
    try:
        current = tables.current(name)
    except NotFoundError:
        current = None
    return ShipReport(segments=count, rows=rows, table=current)


def answered(folder: Path, tables: Tables, name: str, among: Container[str] | None = None) -> set[str]:
    """Ids of the requests whose predictions lie in the journal or in the table: what a resumed replay passes over.

    Only those ``among`` which are asked for, if given (``ReplayPlan.moments()``): memory follows the plan then, not the
    age of the table.
    """
    found: set[str] = set()

    def take(ids: Iterable[str]) -> None:
        found.update(ids if among is None else (item for item in ids if item in among))

    try:
        for batch in tables.scan(tables.current(name), ["request_id"]):
            take(batch.column(0).to_pylist())
    except NotFoundError:
        pass
    for segment in journal.segments(folder):
        take(_prediction(segment, record).request_id for record in journal.read(segment))
    return found


def find(rows: Reader, version: TableVersion, prediction_id: str) -> Prediction:
    """The prediction of that id, as ``rows`` lets it be seen.

    Raises:
        DeniedError: policy does not allow it.
        NotFoundError: it is not in the table; it may still lie in the journal, for a minute at most.
    """
    for batch in rows.read(version, where={"id": prediction_id}):
        for row in batch.to_pylist():
            return _restore(row)
    raise NotFoundError(
        f"there is no prediction {prediction_id!r}",
        where=f"table {version.name}",
        fix="see the page of the endpoint for ids",
    )


def latest(rows: Reader, version: TableVersion) -> Prediction | None:
    """The newest prediction, to show one that can be traced; None if there is none.

    Raises:
        DeniedError: policy does not allow it.
    """
    newest: dict[str, Any] | None = None
    for batch in rows.read(version, ["id", "time"]):
        for row in batch.sort_by([("time", "descending")]).slice(0, 1).to_pylist():
            if newest is None or row["time"] > newest["time"]:
                newest = row
    return None if newest is None else find(rows, version, newest["id"])


_LATER = {"exposure": "null", "ended": "", "trace": "null"}
"""Columns that tables did not have from the start, and what stands there for rows from before."""


def _upgrade(tables: Tables, name: str) -> None:
    """Give a table the columns that came after it was made, once."""
    try:
        current = tables.current(name)
    except NotFoundError:
        return
    before = tables.schema(current)
    added = [column for column in _LATER if column not in before.names]
    if not added:
        return

    def grown() -> Iterator[pa.RecordBatch]:
        for batch in tables.scan(current):
            columns = {column: batch.column(column) for column in before.names}
            for column in added:
                columns[column] = pa.array([_LATER[column]] * batch.num_rows, pa.string())
            yield pa.RecordBatch.from_arrays([columns[field.name] for field in SCHEMA], schema=SCHEMA)

    reader = pa.RecordBatchReader.from_batches(SCHEMA, grown())
    tables.write(name, reader, mode="overwrite", key=f"{'+'.join(added)}:{name}")


def _row(segment: Segment, prediction: Prediction) -> dict[str, object]:
    row: dict[str, Any] = msgspec.structs.asdict(prediction)
    for column in _JSON_COLUMNS:
        row[column] = msgspec.json.encode(row[column]).decode()
    return {**row, "time": clock.parse(prediction.time), "segment": segment.id}


def _prediction(segment: Segment, record: bytes) -> Prediction:
    try:
        return predictions.decode(record)
    except IntegrityError as error:
        raise IntegrityError(error.message, where=str(segment.path)) from error


def _restore(row: dict[str, object]) -> Prediction:
    values = {key: value for key, value in row.items() if key != "segment"}
    for column in _JSON_COLUMNS:
        values[column] = msgspec.json.decode(str(row.get(column, "null")))  # it may be from before rollouts
    values["time"] = row["time"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # type: ignore[attr-defined]
    return msgspec.convert(values, Prediction)


def rows(
    tables: Tables, version: TableVersion, endpoint: str, bundle: str, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The predictions that ``bundle`` gave at ``endpoint``, streamed; only ``columns`` of them if given."""
    mine = (pc.field("endpoint") == endpoint) & (pc.field("bundle") == bundle)
    yield from tables.scan(version, columns, filter=mine)
