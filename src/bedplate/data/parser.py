"""The entry of the process that parses a source: ``python -m bedplate.data.parser <pid of the owner>``.

It reads a header from the socket that it was given, gives up everything but the interpreter and the files of the
source, and only then loads a parser. It answers requests until the socket closes.
"""

import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from bedplate.isolation import confine, wire

if TYPE_CHECKING:
    import pyarrow as pa

    from bedplate.data.sources.port import Chunk

_LIMIT = 64 << 20


def main() -> None:
    """Confine, then answer."""
    confine.die_with_parent(int(sys.argv[1]))
    requests = io.BufferedReader(io.FileIO(0, closefd=False), 1 << 16)
    answers = io.BufferedWriter(io.FileIO(os.dup(0), "wb"), 1 << 20)
    frame = wire.read(requests, {"header": _LIMIT})
    if frame is None:
        return
    header = json.loads(frame[1])
    paths = [Path(path) for path in header["paths"]]
    confine.limit(memory=header["memory"], cpu_seconds=None)
    isolation = confine.confine(readable=paths, scratch=Path(header["scratch"]))
    wire.write(answers, "confined", json.dumps(isolation).encode())
    while (frame := wire.read(requests, {"request": _LIMIT})) is not None:
        try:
            _answer(header["kind"], paths, json.loads(frame[1]), answers)
        except Exception as error:  # noqa: BLE001  whatever a parser raises is said about the file
            wire.write(answers, "error", _described(error))


def _described(error: Exception) -> bytes:
    from bedplate.errors import BedplateError, ContractError

    if not isinstance(error, BedplateError):
        what = "it takes more memory to read than it may" if isinstance(error, MemoryError) else f"{error}"[:1000]
        error = ContractError(f"the source cannot be read: {what}", fix="check the file and its kind in usecase.yaml")
    return json.dumps(error.to_dict()).encode()


def _answer(kind: str, paths: list[Path], request: list[Any], answers: BinaryIO) -> None:
    import msgspec  # and Arrow, which starts threads: only after the process is confined

    from bedplate.data.sources import formats
    from bedplate.data.sources.port import BadLine, Told

    what, names, known = request
    if what == "columns":
        wire.write(answers, "file", memoryview(formats.columns(kind, paths, names).serialize()))
    elif what == "keys":
        wire.write(answers, "result", json.dumps(formats.keys(paths)).encode())
    elif what == "total":
        wire.write(answers, "result", json.dumps(formats.total(kind, paths)).encode())
    else:
        for item in formats.read(kind, paths, names, known):
            if isinstance(item, BadLine):
                wire.write(answers, "name", msgspec.json.encode(Told(bad=item)))
                continue
            for first, table in _parts(item):
                wire.write(answers, "name", msgspec.json.encode(Told(file=item.file, first=first)))
                wire.write(answers, "file", memoryview(_packed(table)))
        wire.write(answers, "result", b"null")


def _parts(chunk: "Chunk") -> "list[tuple[int, pa.Table]]":
    """A chunk in pieces that are not too large for one frame."""
    import numpy as np
    import pyarrow as pa

    from bedplate.data.sources.port import MAX_FRAME, ROW

    table, rows = chunk.table, chunk.rows
    if len(rows) and rows[-1] - rows[0] + 1 != len(rows):
        table = table.append_column(ROW, pa.array(np.asarray(rows, dtype=np.int64)))
    pieces = max(1, min(len(rows), -(-table.nbytes // (MAX_FRAME >> 4))))
    step = -(-len(rows) // pieces) if len(rows) else 1
    return [(int(rows[at]), table.slice(at, step)) for at in range(0, len(rows), step)]


def _packed(table: "pa.Table") -> Any:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


if __name__ == "__main__":
    main()
