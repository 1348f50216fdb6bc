"""Rows as Parquet files: how each column is encoded, files written side by side, and scanned again.

Encodings are chosen from a sample of the values, for less work and less room than one for all. Only those that every
common reader of Parquet knows are used. The choice depends on the rows alone, so the same rows give the same bytes.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from bedplate.data.arrow import rebatch, table_schema
from bedplate.data.folder import Folder
from bedplate.errors import InputError, IntegrityError

Rows: TypeAlias = Any
"""A table, a stream, or any iterable of record batches."""

ROWS_PER_FILE = 1 << 20
WRITERS = 2
_SAMPLE = 4096
_WIDE = 1 << 16
"""Whole numbers that lie closer together than this pack well as differences, however often they repeat."""


class DataFile(msgspec.Struct, frozen=True):
    """One data file of a table version. ``size`` in bytes."""

    path: str
    sha256: str
    size: int
    rows: int


def options(table: pa.Table) -> dict[str, Any]:
    """Arguments for the Parquet writer: which columns are dictionaries, and how the others are encoded."""
    dictionaries: list[str] = []
    encodings: dict[str, str] = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        kind = field.type
        if pa.types.is_nested(kind):
            dictionaries.extend(_leaves(field.name, kind))
        elif pa.types.is_dictionary(kind) or _repeats(column):
            dictionaries.append(field.name)
        elif _whole(kind):
            encodings[field.name] = "DELTA_BINARY_PACKED"
    return {"use_dictionary": dictionaries or False, "column_encoding": encodings or None}


def _whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_timestamp(kind) or pa.types.is_date32(kind))


def _repeats(column: pa.ChunkedArray) -> bool:
    """Whether few values stand for many rows."""
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        return False
    sample = column.slice(0, _SAMPLE).drop_null()
    if not len(sample):
        return True
    distinct = pc.count_distinct(sample).as_py()
    if not _whole(kind):
        return bool(2 * distinct <= len(sample))
    if 16 * distinct > len(sample):
        return False
    numbers = sample.cast(pa.int32() if pa.types.is_date32(kind) else pa.int64())
    ends = pc.min_max(numbers).as_py()
    return bool(ends["max"] - ends["min"] > _WIDE)


def _leaves(path: str, kind: pa.DataType) -> Iterator[str]:
    if pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{path}.{field.name}", field.type)
    else:
        yield path


def stream(
    dataset: ds.Dataset,
    columns: Mapping[str, ds.Expression],
    filter: ds.Expression | None = None,
    *,
    where: str,
    few: bool = False,
) -> pa.RecordBatchReader:
    """Scan a data set as a stream that names a damaged page as what it is. Nothing is read before it is asked for.

    ``few``: whoever reads will stop early, so one file is opened after the other; a scanner that is given up first
    reads all that it was made for.
    """

    def scanner(part: ds.Dataset | ds.Fragment) -> ds.Scanner:
        asked = {"columns": dict(columns), "filter": filter, "batch_size": 1 << 18, "batch_readahead": 2}
        return (
            part.scanner(**asked, fragment_readahead=1)
            if isinstance(part, ds.Dataset)
            else part.scanner(schema=dataset.schema, **asked)
        )

    whole = scanner(dataset)

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for each in map(scanner, dataset.get_fragments()) if few else (whole,):
                yield from each.to_reader()
        except (OSError, pa.ArrowInvalid) as error:
            raise IntegrityError(
                f"a data file is damaged: {error}", where=where, fix="restore the home from a backup"
            ) from error

    return pa.RecordBatchReader.from_batches(whole.projected_schema, batches())


def columns_and_rows(data: Rows) -> tuple[pa.Schema, Iterable[pa.RecordBatch | pa.Table]]:
    """What a table keeps the columns of ``data`` as, and the rows.

    Raises:
        InputError: there are no rows to tell the columns from, or a type that tables cannot keep.
    """
    if isinstance(data, pa.Table):
        return table_schema(data.schema), [data]
    if isinstance(data, pa.RecordBatchReader):
        return table_schema(data.schema), data
    iterator: Iterator[pa.RecordBatch] = iter(data)
    first = next(iterator, None)
    if first is None:
        raise InputError("there are no rows, and so no columns, to write")

    def again() -> Iterator[pa.RecordBatch]:
        yield first
        yield from iterator

    return table_schema(first.schema), again()


def write_files(
    folder: Folder, prefix: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch | pa.Table]
) -> Iterator[DataFile]:
    """Encode and store files of :data:`ROWS_PER_FILE` rows, :data:`WRITERS` at a time, in the order of the rows."""

    def write(index: int, table: pa.Table) -> DataFile:
        sink = pa.BufferOutputStream()
        pq.write_table(
            table,
            sink,
            compression="zstd",
            compression_level=1,
            write_page_checksum=True,
            store_schema=False,
            **options(table),
        )
        data = sink.getvalue()
        digest = hashlib.sha256(data).hexdigest()
        path = f"{prefix}-{index:06d}-{digest}.parquet"
        folder.put(path, memoryview(data))
        return DataFile(path=path, sha256=digest, size=data.size, rows=table.num_rows)

    with ThreadPoolExecutor(WRITERS, thread_name_prefix="table-writer") as pool:
        running: list[Future[DataFile]] = []
        for index, table in enumerate(rebatch(batches, schema, ROWS_PER_FILE)):
            if len(running) > WRITERS:
                yield running.pop(0).result()
            running.append(pool.submit(write, index, table))
        for future in running:
            yield future.result()
