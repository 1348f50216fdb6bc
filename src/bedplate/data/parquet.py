"""Rows as Parquet files: how each column is encoded, files written side by side, and scanned again.

Encodings are chosen from a sample of the values, for less work and less room than one for all. Only those that every
common reader of Parquet knows are used. The choice depends on the rows alone, so the same rows give the same bytes.
"""

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping
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
_FOOTERS = 8
"""Footers that are read at a time: of files that lie far away, each is a request."""
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
    dataset: ds.FileSystemDataset,
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
    # Arrow's scanner filters in pieces of 32,768 rows, which takes more than all the rest of it: here it says which
    # rows stay, and whole batches are cut to them.
    stays = "".join(["stays", *columns])  # no column is called so
    asked = dict(columns) if filter is None else {**columns, stays: filter}
    projected = dataset.scanner(columns=dict(columns)).projected_schema

    def scanner(part: ds.Dataset | ds.Fragment, **more: Any) -> ds.Scanner:
        return part.scanner(columns=asked, batch_size=1 << 18, batch_readahead=2, **more)

    def scanners() -> Iterator[ds.Scanner]:
        source = dataset if filter is None else _coded(dataset, columns)
        if few:
            yield from (scanner(_of(file, filter, source), schema=source.schema) for file in source.get_fragments())
            return
        if filter is not None:
            with ThreadPoolExecutor(_FOOTERS) as pool:
                parts = list(pool.map(lambda file: _of(file, filter, source), source.get_fragments()))
            source = ds.FileSystemDataset(parts, source.schema, source.format, filesystem=source.filesystem)
        yield scanner(source, fragment_readahead=1)

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for each in scanners():
                for batch in each.to_reader():
                    if filter is None:
                        yield batch
                    elif (kept := batch.filter(batch.column(stays))).num_rows:
                        yield kept.drop_columns([stays])
        except (OSError, pa.ArrowInvalid) as error:
            raise IntegrityError(
                f"a data file is damaged: {error}", where=where, fix="restore the home from a backup"
            ) from error

    return pa.RecordBatchReader.from_batches(projected, batches())


def _of(
    file: ds.ParquetFileFragment, filter: ds.Expression | None, dataset: ds.FileSystemDataset
) -> ds.ParquetFileFragment:
    """Of a file what may hold rows of ``filter``, by what its footer says of its values."""
    return file if filter is None else file.subset(filter, schema=dataset.schema)


def _coded(dataset: ds.FileSystemDataset, asked: Container[str]) -> ds.FileSystemDataset:
    """The same data set, in which text that is looked at and not asked for stays codes into its distinct values: where
    the files keep it so, making text of each row is half the work of a filter."""
    files = list(dataset.get_fragments())
    kept = files[0].metadata if files else None
    if not kept or not kept.num_row_groups:
        return dataset
    columns = [kept.row_group(0).column(i) for i in range(kept.num_columns)]
    texts = {field.name for field in dataset.schema if pa.types.is_string(field.type) and field.name not in asked}
    coded = {each.path_in_schema for each in columns if each.has_dictionary_page} & texts
    if not coded:
        return dataset
    scan_options = dataset.format.default_fragment_scan_options
    kind = ds.ParquetFileFormat(dictionary_columns=coded, default_fragment_scan_options=scan_options)
    again = [kind.make_fragment(file.path, filesystem=dataset.filesystem) for file in files]
    return ds.FileSystemDataset(again, dataset.schema, kind, filesystem=dataset.filesystem)


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
