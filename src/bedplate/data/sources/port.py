"""An open source: its files are on this disk, and a limited process parses them on request."""

import functools
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa

from bedplate import errors
from bedplate.data.parsing.profile import Profile
from bedplate.data.parsing.template import TEMPLATE
from bedplate.data.parsing.values import MAX_ROWS, ROW, SLOTS, BadLine, Chunk, Numbers, Told
from bedplate.errors import ContractError, DeniedError
from bedplate.ids import Digest, digest_file, digest_of
from bedplate.isolation.confine import Isolation
from bedplate.isolation.template import shared_memory
from bedplate.isolation.worker import Worker
from bedplate.policy.residency import Place

MEMORY = 2 << 30
"""Bytes that the process which parses a source may hold."""
_log = logging.getLogger(__name__)
_LIMIT = 1 << 26
PATIENCE = 300.0
"""Seconds that it may take for its next rows."""
T = TypeVar("T")
_told = msgspec.json.Decoder(Told)
_failed = msgspec.json.Decoder(dict[str, str | None])


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """What sources may reach beyond files and public web servers: what whoever runs the home says, never a use case.

    ``connections`` are addresses of databases by name, ``networks`` private networks in which web servers may lie,
    ``storage`` options of object stores beside what they read in ``AWS_`` variables themselves. ``isolated``: what the
    kernel cannot confine the parsing of is refused.

    ``residency`` is where rows of the use case have to stay, and ``here`` where they come to.
    """

    connections: Mapping[str, str] = {}
    networks: tuple[str, ...] = ()
    storage: Mapping[str, str] = {}
    isolated: bool = False
    residency: tuple[str, ...] = ()
    here: tuple[Place, ...] = ()


class Opened:
    """The rows of one source. ``label`` names it to people; ``typed`` says that its columns have types of their own.

    ``isolated``: it is not parsed unless the process that does can be confined; ``unconfined`` says why it was parsed
    all the same.

    ``query`` with its values ``bound`` chooses the rows of a file of SQLite.

    ``profile``: what its pictures are de-identified under, before anything leaves the process that parses them.

    ``open_ended``: it offers more columns than anybody asks for, so those that a contract leaves out are not missed.

    Every method but ``digest`` raises ContractError where a file is damaged, not of its kind, or takes more memory or
    time to read than it may.
    """

    def __init__(
        self,
        kind: str,
        label: str,
        paths: tuple[Path, ...],
        *,
        memory: int = MEMORY,
        typed: bool = True,
        isolated: bool = False,
        query: str = "",
        bound: Mapping[str, Any] | None = None,
        profile: Profile | None = None,
    ) -> None:
        self.kind, self.label, self.paths = kind, label, paths
        self.typed = typed and kind in ("parquet", "arrow", "images", "dicom")
        self.open_ended = kind in ("images", "dicom")
        self._memory, self._query = memory, {"query": query, "bound": dict(bound or {})}
        self.profile = profile
        self._isolated, self.unconfined = isolated, ""
        self._worker: Worker | None = None
        self._shared = -1
        self._taken = 0

    def close(self) -> None:
        """End the process that reads it."""
        self._end("closed")

    def digest(self) -> Digest:
        """Covers the content of every file."""
        digests = [digest_file(path) for path in self.paths]
        return digests[0] if len(digests) == 1 else digest_of(digests)

    def columns(self, wanted: Sequence[str]) -> pa.Schema:
        """The columns that there are, with types where the format has any (text otherwise).

        Where nobody knows without reading all rows (JSON) there are none; ``wanted`` chooses where more can be had
        than anybody asks for (DICOM).
        """
        self._ask("columns", wanted)
        return pa.ipc.read_schema(pa.py_buffer(self._frame("file")[1]))

    def keys(self) -> list[str]:
        """The keys of the first rows, where each row names its own columns (JSON)."""
        self._ask("keys", ())
        return self._result(list[str])

    def total(self) -> int | None:
        """How many rows there are, where that is known without reading them."""
        self._ask("total", ())
        return self._result(int | None)  # type: ignore[arg-type]

    def read(self, names: Sequence[str], known: Sequence[str] | None = None) -> Iterator[Chunk | BadLine]:
        """Stream the rows, with the columns ``names`` in that order.

        Where each row names its own columns (JSON), one with others than ``known`` is a bad line; None: they are left
        out.
        """
        self._ask("read", names, known)
        whole = False
        try:
            while True:
                kind, payload = self._frame("name", "result")
                if kind == "result":
                    whole = True
                    return
                told = self._decoded(payload)
                yield told.bad if told.bad is not None else self._chunk(told, names)
        finally:
            if not whole:  # what is still on its way belongs to nobody
                self.close()

    def _chunk(self, told: Told, names: Sequence[str]) -> Chunk:
        payload = self._taken_out(told.size)
        try:
            table = pa.ipc.open_stream(payload).read_all()
            table.validate(full=True)  # written by a process that an adversary may hold
            rows: Numbers = range(told.first, told.first + table.num_rows)
            if ROW in table.column_names:
                rows = np.asarray(table.column(ROW).to_numpy())
            return Chunk(told.file, table.select(list(names)), rows)
        except (pa.ArrowException, ValueError, KeyError) as error:
            raise self._ended(f"its rows cannot be read: {error}") from error

    def _taken_out(self, size: int) -> pa.Buffer:
        """A copy of what lies in the next slot: the process that wrote it may go on to change it."""
        if not 0 <= size <= MAX_ROWS:
            raise self._ended("its answer cannot be read")
        assert self._worker is not None
        buffer, at = pa.allocate_buffer(size), self._taken % SLOTS * MAX_ROWS
        view, done = memoryview(buffer), 0
        while done < size:
            done += os.preadv(self._shared, [view[done:]], at + done)
        self._taken += 1
        try:
            self._worker.send("taken", b"", time.monotonic() + PATIENCE)
        except OSError as error:
            raise self._ended(str(error)) from error
        return buffer

    def _result(self, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(self._frame("result")[1], type=kind)
        except msgspec.MsgspecError as error:
            raise self._ended("its answer cannot be read") from error

    def _decoded(self, payload: bytearray) -> Told:
        try:
            return _told.decode(payload)
        except msgspec.MsgspecError as error:
            raise self._ended("its answer cannot be read") from error

    def _ask(self, what: str, names: Sequence[str], known: Sequence[str] | None = None) -> None:
        deadline = time.monotonic() + PATIENCE
        try:
            if self._worker is None:
                self._shared, self._taken = shared_memory(SLOTS * MAX_ROWS), 0
                start = functools.partial(TEMPLATE.start, shared=self._shared)
                header = {
                    "kind": self.kind,
                    "paths": [str(path) for path in self.paths],
                    "profile": msgspec.to_builtins(self.profile),
                    **self._query,
                }
                self._worker = Worker(
                    start, header, files={}, memory=self._memory, seconds=60.0, require_isolation=False
                )  # fmt: skip
                self._look(self._worker.isolation)
            self._worker.send("request", msgspec.json.encode([what, names, known]), deadline)
        except (ValueError, OSError) as error:
            raise self._ended(str(error)) from error

    def _look(self, found: Isolation) -> None:
        if found.isolated:
            return
        if self._isolated:
            self._end("closed")
            raise DeniedError(
                f"the source may be parsed in isolation only, and {found.reason}", where=self.label,
                fix="use a Linux kernel with Landlock",
            )  # fmt: skip
        if not self.unconfined:
            _log.warning("%s is parsed by a process that is not isolated: %s", self.label, found.reason)
        self.unconfined = found.reason

    def _frame(self, *kinds: Any) -> tuple[str, bytearray]:
        assert self._worker is not None
        limits: Any = {"error": 1 << 16, **dict.fromkeys(kinds, _LIMIT)}
        try:
            kind, payload = self._worker.receive(limits, time.monotonic() + PATIENCE)
        except (ValueError, OSError) as error:
            raise self._ended(str(error)) from error
        if kind == "error":
            raise self._raised(payload)
        return kind, payload

    def _raised(self, payload: bytearray) -> errors.BedplateError:
        try:
            return errors.of_dict(_failed.decode(payload))
        except msgspec.MsgspecError:
            return self._ended("its answer cannot be read")

    def _ended(self, reason: str) -> ContractError:
        return ContractError(
            f"the source cannot be read: {self._end(reason)}",
            where=self.label,
            fix="look at who made it; split it if it is meant to be so large",
        )

    def _end(self, reason: str) -> str:
        if self._worker is not None:
            reason = self._worker.end(reason)
            self._worker = None
        if self._shared >= 0:
            os.close(self._shared)
            self._shared = -1
        return reason
