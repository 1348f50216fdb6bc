"""Source files, read as chunks of rows that know where they stand. They are untrusted: capped before being decoded."""

import importlib.util
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Full, Queue
from typing import Any, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from bedplate.errors import ContractError, InputError, NotFoundError
from bedplate.ids import Digest, digest_file, digest_of
from bedplate.usecase.types import Source

CHUNK = 1 << 18
READERS = 2
_AHEAD = 4
_Item: TypeAlias = pa.RecordBatch | Exception | None
MAX_FILE = 64 << 30
"""Largest source file, in bytes as stored."""
MAX_ROWS = 2_000_000_000
MAX_GROUP = 8 << 30
"""Largest Parquet row group, in bytes once decoded, as its metadata says."""
MAX_CELL = 16 << 20
"""Largest JSON line or CSV block, in bytes."""


class Chunk(msgspec.Struct, frozen=True):
    """Some rows of one file. ``rows`` are their numbers in it, from 1, a CSV header not counted."""

    file: str
    table: pa.Table
    rows: np.ndarray


class BadLine(msgspec.Struct, frozen=True):
    """Text in a file that is no row at all."""

    file: str
    row: int
    text: str
    reason: str


class Files(msgspec.Struct, frozen=True):
    """The files of a source, in the order they are read. ``label`` names the source to people."""

    kind: str
    label: str
    paths: tuple[Path, ...]

    def digest(self) -> Digest:
        """Covers the content of every file."""
        digests = [digest_file(path) for path in self.paths]
        return digests[0] if len(digests) == 1 else digest_of(digests)


def find(source: Source, folder: Path) -> Files:
    """The files that ``source`` names: inside an installed package, or relative to the use case's folder.

    Raises:
        NotFoundError: nothing is there.
        InputError: the path leaves the package, or a file is too large.
    """
    if source.package is not None:
        root = _package(source.package)
        path = (root / source.path).resolve()
        if not path.is_relative_to(root):
            raise InputError(f"{source.path} leaves the package {source.package}", fix="name a file inside the package")
        label = f"{source.package}/{source.path}"
    else:
        path = (folder / source.path).expanduser()
        label = source.path
    if path.is_dir():
        paths = tuple(sorted(item for item in path.iterdir() if item.is_file() and not item.name.startswith(".")))
    else:
        paths = (path,) if path.is_file() else ()
    if not paths:
        raise NotFoundError(
            f"the source {label} does not exist", where=str(path), fix="correct the path in usecase.yaml"
        )
    for item in paths:
        if item.stat().st_size > MAX_FILE:
            raise InputError(f"{item.name} is larger than {MAX_FILE >> 30} GiB", where=str(item), fix="split the file")
    return Files(source.kind, label, paths)


def _package(name: str) -> Path:
    # The package is located, not imported: importing would run its code here.
    if not name.isidentifier():
        raise InputError(f"{name!r} is not the name of a top-level package", fix="name the package alone")
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise NotFoundError(
            f"the package {name} that holds the data is not installed", fix=f"pip install {name.replace('_', '-')}"
        )
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def columns(files: Files) -> pa.Schema:
    """The columns that the files have, with types where the format has any (text otherwise). JSON lines have none.

    Raises:
        ContractError: a file is not of its kind, or has other columns than the first.
    """
    first: pa.Schema | None = None
    for path in files.paths:
        found = _columns(files.kind, path)
        if first is not None and not found.equals(first):
            raise ContractError(f"{path.name} has other columns than {files.paths[0].name}", where=str(path))
        first = found
    return first if first is not None else pa.schema([])


def total(files: Files) -> int | None:
    """How many rows there are, where that is known without reading them."""
    if files.kind != "parquet":
        return None
    return int(sum(pq.read_metadata(path).num_rows for path in files.paths))


def read(files: Files, names: Iterable[str]) -> Iterator[Chunk | BadLine]:
    """Stream the rows, with the columns ``names`` in that order.

    Raises:
        ContractError: a file is damaged or not of its kind.
    """
    wanted = list(names)
    reader = {"parquet": _parquet, "csv": _csv, "json": _json}[files.kind]
    for path in files.paths:
        try:
            yield from reader(path, wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError, OSError) as error:
            raise ContractError(
                f"the file cannot be read as {files.kind}: {str(error).splitlines()[0]}",
                where=str(path),
                fix="check the file and its kind in usecase.yaml",
            ) from error


def _columns(kind: str, path: Path) -> pa.Schema:
    try:
        if kind == "parquet":
            with pq.ParquetFile(path) as file:
                _check_metadata(file.metadata, path)
                return file.schema_arrow.remove_metadata()
        if kind == "csv":
            if path.stat().st_size == 0:
                return pa.schema([])
            with pacsv.open_csv(path, **_csv_options(None)) as reader:
                return pa.schema([pa.field(name, pa.string()) for name in reader.schema.names])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise ContractError(
            f"the file cannot be read as {kind}: {str(error).splitlines()[0]}",
            where=str(path),
            fix="check the file and its kind in usecase.yaml",
        ) from error
    return pa.schema([])


def _check_metadata(metadata: Any, path: Path) -> None:
    # A few hundred bytes can claim gigabytes: what the metadata says is bounded before anything is decoded.
    sizes = [metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)]
    if metadata.num_rows > MAX_ROWS or any(size > MAX_GROUP or size < 0 for size in sizes):
        raise ContractError(
            f"the file says it holds {metadata.num_rows} rows, the largest group {max(sizes, default=0)} bytes",
            where=str(path),
            fix="write it with smaller row groups",
        )
    most = max((metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)), default=0)
    if most * max(1, metadata.num_columns) * 8 > max(1 << 30, path.stat().st_size * 20_000):
        raise ContractError("the file is far too small for the rows it claims", where=str(path), fix="check the file")


def _parquet(path: Path, names: list[str]) -> Iterator[Chunk]:
    count = 0
    for batch in _decoded(path, names):
        rows = np.arange(count + 1, count + batch.num_rows + 1)
        count += batch.num_rows
        yield Chunk(path.name, pa.Table.from_batches([batch]).select(names), rows)


def _decoded(path: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows in order; :data:`READERS` spans of row groups are decoded at a time, each a few batches ahead.

    A row group is never held whole: somebody else chose how large it is.
    """
    metadata = pq.read_metadata(path)
    _check_metadata(metadata, path)
    spans = _spans([metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)])
    # Text is read as codes into its distinct values: rules then judge each value once.
    text = [field.name for field in metadata.schema.to_arrow_schema() if pa.types.is_string(field.type)]
    stop = threading.Event()

    def put(queue: "Queue[_Item]", item: "_Item") -> None:
        while not stop.is_set():
            with suppress(Full):
                queue.put(item, timeout=0.2)
                return

    def decode(span: list[int], queue: "Queue[_Item]") -> None:
        try:
            with pq.ParquetFile(path, metadata=metadata, page_checksum_verification=True, read_dictionary=text) as file:
                for batch in file.iter_batches(CHUNK, row_groups=span, columns=names, use_threads=len(spans) == 1):
                    put(queue, batch)
            put(queue, None)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the rows are asked for
            put(queue, error)

    waiting = iter(spans)
    queues: deque[Queue[_Item]] = deque()
    with ThreadPoolExecutor(READERS, thread_name_prefix="source-reader") as pool:
        try:
            while True:
                while len(queues) < READERS and (span := next(waiting, None)) is not None:
                    queues.append(Queue(_AHEAD))
                    pool.submit(decode, span, queues[-1])
                if not queues:
                    return
                item = queues[0].get()
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    queues.popleft()
                else:
                    yield item
        finally:
            stop.set()


def _spans(sizes: list[int]) -> list[list[int]]:
    """Neighbouring row groups, so many together that a span is worth a thread."""
    spans: list[list[int]] = []
    held = CHUNK
    for index, size in enumerate(sizes):
        if held >= CHUNK:
            spans.append([])
            held = 0
        spans[-1].append(index)
        held += size
    return spans


def _csv_options(names: list[str] | None, handler: Any = None) -> dict[str, Any]:
    return {
        "read_options": pacsv.ReadOptions(block_size=MAX_CELL, use_threads=False),
        "parse_options": pacsv.ParseOptions(newlines_in_values=True, invalid_row_handler=handler or (lambda _: "skip")),
        "convert_options": pacsv.ConvertOptions(
            column_types=None if names is None else {name: pa.string() for name in names},
            include_columns=names,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    }


def _csv(path: Path, names: list[str]) -> Iterator[Chunk | BadLine]:
    bad: list[BadLine] = []

    def skip(row: Any) -> str:
        # Arrow counts the header as row 1; we do not count it.
        reason = f"has {row.actual_columns} values where {row.expected_columns} are expected"
        bad.append(BadLine(path.name, row.number - 1, row.text, reason))
        return "skip"

    reported, last = 0, 0
    with pacsv.open_csv(path, **_csv_options(names, skip)) as reader:
        for batch in reader:
            skipped = np.array([line.row for line in bad], dtype=np.int64)
            candidates = np.arange(last + 1, last + batch.num_rows + len(skipped) + 1)
            rows = candidates[~np.isin(candidates, skipped)][: batch.num_rows]
            if len(rows):
                last = int(rows[-1])
            if batch.num_rows:
                yield Chunk(path.name, pa.Table.from_batches([batch]).select(names), rows)
            yield from bad[reported:]
            reported = len(bad)
    yield from bad[reported:]


def _json(path: Path, names: list[str]) -> Iterator[Chunk | BadLine]:
    held: list[dict[str, Any]] = []
    rows: list[int] = []
    known = set(names)
    decoder = msgspec.json.Decoder()
    for number, line in enumerate(_json_lines(path), 1):
        try:
            if len(line) > MAX_CELL:
                raise msgspec.DecodeError("the line is too long")
            value = decoder.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            yield BadLine(path.name, number, line[:1000].decode("utf-8", "replace"), f"is not JSON: {error}")
            continue
        if not isinstance(value, dict) or value.keys() - known:
            extra = ", ".join(sorted(value.keys() - known)) if isinstance(value, dict) else ""
            reason = f"has unknown keys: {extra}" if extra else "is not an object"
            yield BadLine(path.name, number, line[:1000].decode("utf-8", "replace"), reason)
            continue
        held.append(value)
        rows.append(number)
        if len(held) == CHUNK // 4:
            yield Chunk(path.name, _texts(held, names), np.array(rows))
            held, rows = [], []
    if held:
        yield Chunk(path.name, _texts(held, names), np.array(rows))


def _json_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(MAX_CELL + 1):
            if line.strip():
                yield line.strip()


def _texts(values: list[dict[str, Any]], names: list[str]) -> pa.Table:
    def text(value: Any) -> str | None:
        if value is None or isinstance(value, str):
            return value
        return msgspec.json.encode(value).decode()

    return pa.table({name: pa.array([text(value.get(name)) for value in values], pa.string()) for name in names})
