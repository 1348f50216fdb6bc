"""Files as chunks of rows that know where they stand. They are untrusted: this runs in a limited process only."""

import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from queue import Full, Queue
from typing import Any, BinaryIO, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from bedplate.data.parsing import pictures
from bedplate.data.parsing.profile import Profile
from bedplate.data.parsing.values import BadLine, Chunk
from bedplate.errors import ContractError

CHUNK = 1 << 18
READERS = 2
_AHEAD = 4
_Item: TypeAlias = pa.RecordBatch | Exception | None
MAX_ROWS = 2_000_000_000
MAX_GROUP = 8 << 30
"""Largest Parquet row group, in bytes once decoded, as its metadata says."""
MAX_CELL = 16 << 20
"""Largest JSON value or CSV block, in bytes."""
_MOST_KEYS = 10_000
_TOKEN = re.compile(rb'[\[\]{},"]|[^\[\]{},"]+')


def columns(kind: str, paths: Sequence[Path], wanted: Sequence[str]) -> pa.Schema:
    """The columns that the files have; see :meth:`.port.Opened.columns`.

    Raises:
        ContractError: a file is not of its kind, or has other columns than the first.
    """
    if kind in ("images", "dicom"):
        return pictures.columns(kind, wanted)
    first: pa.Schema | None = None
    for path in paths:
        with _readable(kind, path):
            found = _columns(kind, path)
        if first is not None and not found.equals(first):
            raise ContractError(f"{path.name} has other columns than {paths[0].name}", where=str(path))
        first = found
    return first if first is not None else pa.schema([])


def keys(paths: Sequence[Path]) -> list[str]:
    """The keys of the first rows of JSON, in the order they are met."""
    found: dict[str, None] = {}
    for path in paths[:1]:
        for _, value in islice(_json_values(path), _MOST_KEYS):
            found |= dict.fromkeys(value if isinstance(value, dict) else ())
    return list(found)


def total(kind: str, paths: Sequence[Path]) -> int | None:
    """How many rows there are, where that is known without reading them."""
    if kind in ("images", "dicom"):
        return len(paths)
    if kind != "parquet":
        return None
    return int(sum(pq.read_metadata(path).num_rows for path in paths))


def read(
    kind: str,
    paths: Sequence[Path],
    names: Iterable[str],
    known: Iterable[str] | None = None,
    profile: Profile | None = None,
) -> Iterator[Chunk | BadLine]:
    """Stream the rows, with the columns ``names`` in that order; see :meth:`.port.Opened.read`.

    Pictures are de-identified under a ``profile``.

    Raises:
        ContractError: a file is damaged or not of its kind.
    """
    wanted = list(names)
    if kind in ("images", "dicom"):
        yield from pictures.read(kind, paths, wanted, profile)
        return
    allowed = None if known is None else set(known)
    readers: dict[str, Callable[[Path, list[str]], Iterator[Chunk | BadLine]]] = {
        "parquet": _parquet, "csv": _csv, "arrow": _arrow, "json": lambda path, names: _json(path, names, allowed)
    }  # fmt: skip
    for path in paths:
        with _readable(kind, path):
            yield from readers[kind](path, wanted)


@contextmanager
def _readable(kind: str, path: Path) -> Iterator[None]:
    """What a parser says of a file that it cannot read, in our words."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError, OSError) as error:
        raise ContractError(
            f"the file cannot be read as {kind}: {str(error).splitlines()[0]}",
            where=str(path),
            fix="check the file and its kind in usecase.yaml",
        ) from error


def _columns(kind: str, path: Path) -> pa.Schema:
    if kind == "parquet":
        with pq.ParquetFile(path) as file:
            _check_metadata(file.metadata, path)
            return file.schema_arrow.remove_metadata()
    if kind == "csv":
        if path.stat().st_size == 0:
            return pa.schema([])
        with pacsv.open_csv(path, **_csv_options(None)) as reader:
            return pa.schema([pa.field(name, pa.string()) for name in reader.schema.names])
    if kind == "arrow":
        with path.open("rb") as file:
            return _arrow_batches(file)[0].remove_metadata()
    return pa.schema([])


def _arrow_batches(file: BinaryIO) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The schema and the batches of an Arrow IPC file or stream: the first bytes tell which."""
    magic = file.read(6)
    file.seek(0)
    if magic == b"ARROW1":
        reader = pa.ipc.open_file(file)
        return reader.schema, (reader.get_batch(index) for index in range(reader.num_record_batches))
    stream = pa.ipc.open_stream(file)
    return stream.schema, iter(stream)


def _arrow(path: Path, names: list[str]) -> Iterator[Chunk]:
    count = 0
    with path.open("rb") as file:
        for batch in _arrow_batches(file)[1]:
            batch.validate(full=True)
            for start in range(0, batch.num_rows, CHUNK):
                table = pa.Table.from_batches([batch.slice(start, CHUNK)]).select(names)
                yield Chunk(path.name, table, range(count + 1, count + table.num_rows + 1))
                count += table.num_rows


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
        rows = range(count + 1, count + batch.num_rows + 1)
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


def _json(path: Path, names: list[str], known: set[str] | None) -> Iterator[Chunk | BadLine]:
    held: list[dict[str, Any]] = []
    rows: list[int] = []
    for number, (text, value) in enumerate(_json_values(path), 1):
        if isinstance(value, msgspec.DecodeError):
            yield BadLine(path.name, number, _shown(text), f"is not JSON: {value}")
        elif not isinstance(value, dict):
            yield BadLine(path.name, number, _shown(text), "is not an object")
        elif known is not None and (extra := ", ".join(sorted(value.keys() - known))):
            yield BadLine(path.name, number, _shown(text), f"has unknown keys: {extra}")
        else:
            held.append(value)
            rows.append(number)
            if len(held) == CHUNK // 4:
                yield Chunk(path.name, _texts(held, names), np.array(rows))
                held, rows = [], []
    if held:
        yield Chunk(path.name, _texts(held, names), np.array(rows))


def _shown(text: bytes) -> str:
    return text[:1000].decode("utf-8", "replace")


def _json_values(path: Path) -> Iterator[tuple[bytes, Any]]:
    """The values of a file, one on each line or all in one array, as they stood and decoded; or why they are none."""
    decoder = msgspec.json.Decoder()
    with path.open("rb") as file:
        pieces = _elements(file, path) if _is_array(file) else _lines(file)
        for text in pieces:
            try:
                if len(text) > MAX_CELL:
                    raise msgspec.DecodeError("it is too long")
                value = decoder.decode(text)
            except msgspec.DecodeError as error:
                value = error
            except RecursionError:
                value = msgspec.DecodeError("it is nested too deeply")
            yield text, value


def _is_array(file: BinaryIO) -> bool:
    start = file.read(4096).lstrip()
    file.seek(0)
    # A first line that is a whole list is a line; an array of rows opens with an object, or is written over lines.
    return start.startswith(b"[") and start[1:].lstrip()[:1] in (b"{", b"]", b"")


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(MAX_CELL + 1):
        if line.strip():
            yield line.strip()


def _elements(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The elements of an array, cut where a comma stands outside of every bracket and text.

    Raises:
        ContractError: the array does not end, or an element is larger than a line may be.
    """
    held, depth, quoted, ended = bytearray(), 0, False, False
    for block in iter(lambda: file.read(1 << 16), b""):
        for piece in _TOKEN.findall(block):
            mark = piece[:1]
            if ended:
                if piece.strip():
                    raise ContractError("something stands after the end of the array", where=str(path))
                continue
            if len(held) + len(piece) > MAX_CELL:
                raise ContractError(f"an element is larger than {MAX_CELL >> 20} MiB", where=str(path))
            if quoted:
                quoted = mark != b'"' or _escaped(held)
            elif mark == b'"':
                quoted = True
            elif mark in (b"[", b"{"):
                depth += 1
                if depth == 1:
                    continue
            elif mark in (b"]", b"}"):
                depth -= 1
                ended = depth == 0
            if ended or (not quoted and depth == 1 and mark == b","):
                if held.strip():
                    yield bytes(held.strip())
                held.clear()
                continue
            held += piece
    if not ended:
        raise ContractError("the array does not end", where=str(path), fix="check that the file is whole")


def _escaped(held: bytearray) -> bool:
    """Whether a quote that follows belongs to the text: an odd number of backslashes stands before it."""
    at = len(held)
    while at and held[at - 1] == 0x5C:
        at -= 1
    return (len(held) - at) % 2 == 1


def _texts(values: list[dict[str, Any]], names: list[str]) -> pa.Table:
    def text(value: Any) -> str | None:
        if value is None or isinstance(value, str):
            return value
        return msgspec.json.encode(value).decode()

    return pa.table({name: pa.array([text(value.get(name)) for value in values], pa.string()) for name in names})
