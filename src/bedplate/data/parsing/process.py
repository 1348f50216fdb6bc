"""The process that parses a source: a fork of :mod:`bedplate.isolation.template`, which has loaded this module.

It reads a header from the socket that it was given and gives up everything but the interpreter and the files of the
source. Then it answers requests until the socket closes.
"""

import io
import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa

from bedplate.data.parsing import formats, sqlite
from bedplate.data.parsing.profile import Profile
from bedplate.data.parsing.values import MAX_ROWS, ROW, SLOTS, BadLine, Chunk, Told
from bedplate.errors import BedplateError, ContractError
from bedplate.isolation import confine, wire
from bedplate.isolation.template import SHARED

_LIMIT = 64 << 20


def main(parent: int) -> None:
    """Confine, then answer; ``parent`` is the template."""
    confine.die_with_parent(parent)
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
    slots = _Slots(requests)
    while (frame := wire.read(requests, {"request": _LIMIT})) is not None:
        try:
            _answer(header, json.loads(frame[1]), answers, slots)
        except Exception as error:  # noqa: BLE001  whatever a parser raises is said about the file
            wire.write(answers, "error", _described(error))


def _described(error: Exception) -> bytes:
    if not isinstance(error, BedplateError):
        what = "it takes more memory to read than it may" if isinstance(error, MemoryError) else f"{error}"[:1000]
        error = ContractError(f"the source cannot be read: {what}", fix="check the file and its kind in usecase.yaml")
    return json.dumps(error.to_dict()).encode()


def _answer(header: dict[str, Any], request: list[Any], answers: BinaryIO, slots: "_Slots") -> None:
    kind, paths = header["kind"], [Path(path) for path in header["paths"]]
    what, names, known = request
    asked = header["query"], header["bound"]
    if what == "columns":
        found = formats.columns(kind, paths, names) if kind != "sqlite" else sqlite.columns(paths[0], *asked)
        wire.write(answers, "file", memoryview(found.serialize()))
    elif what == "keys":
        wire.write(answers, "result", json.dumps(formats.keys(paths)).encode())
    elif what == "total":
        wire.write(answers, "result", json.dumps(formats.total(kind, paths)).encode())
    else:
        rows: Iterator[Chunk | BadLine]
        if kind == "sqlite":
            rows = sqlite.read(paths[0], names, *asked)
        else:
            safe = header["profile"]
            profile = None if safe is None else msgspec.convert(safe, Profile)
            rows = formats.read(kind, paths, names, known, profile)
        for item in rows:
            if isinstance(item, BadLine):
                wire.write(answers, "name", msgspec.json.encode(Told(bad=item)))
                continue
            for first, table in _parts(item):
                told = Told(file=item.file, first=first, size=slots.put(table))
                wire.write(answers, "name", msgspec.json.encode(told))
        wire.write(answers, "result", b"null")
        slots.drain()


def _parts(chunk: Chunk) -> list[tuple[int, pa.Table]]:
    """A chunk in pieces that are not too large for one frame."""
    table, rows = chunk.table, chunk.rows
    if not isinstance(rows, range) and len(rows) and rows[-1] - rows[0] + 1 != len(rows):
        table = table.append_column(ROW, pa.array(rows.astype(np.int64)))
    pieces = max(1, min(len(rows), -(-table.nbytes // (MAX_ROWS >> 4))))
    step = -(-len(rows) // pieces) if len(rows) else 1
    return [(int(rows[at]), table.slice(at, step)) for at in range(0, len(rows), step)]


class _Slots:
    """The memory that is shared with the owner, who says of each piece that it was taken."""

    def __init__(self, requests: BinaryIO) -> None:
        self._requests = requests
        self._memory = memoryview(mmap.mmap(SHARED, SLOTS * MAX_ROWS))
        self._written = self._taken = 0

    def put(self, table: pa.Table) -> int:
        """Write rows into the next slot, once it is free; gives their size in bytes."""
        self._wait(SLOTS - 1)
        at = self._written % SLOTS * MAX_ROWS
        sink = pa.FixedSizeBufferWriter(pa.py_buffer(self._memory[at : at + MAX_ROWS]))
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        self._written += 1
        return int(sink.tell())

    def drain(self) -> None:
        """Wait until everything was taken: what is read next is a request."""
        self._wait(0)

    def _wait(self, most: int) -> None:
        while self._written - self._taken > most:
            if wire.read(self._requests, {"taken": 0}) is None:
                raise SystemExit("the owner has gone")
            self._taken += 1
