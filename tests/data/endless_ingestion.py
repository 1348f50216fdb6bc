"""Ingest batches until killed, saying which are acknowledged: run by :mod:`tests.data.test_kill_ingestion`.

Each turn takes what the work of a shop is made of: a file of rows, some of which break the contract and some of which
came before, to a table that is added to; and now and then a backfill, or a replay of what was set aside. Meanwhile the
table is compacted.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bedplate.data import replay, upkeep
from bedplate.data.ingest import ingest
from bedplate.data.parsing.template import TEMPLATE
from bedplate.data.sources.databases import Window
from bedplate.data.tables import Tables
from bedplate.errors import ConflictError, NotFoundError
from bedplate.isolation import template
from bedplate.usecase.types import DataSet, Incremental, Source

CONTRACT = """apiVersion: v3.1.0
kind: DataContract
id: orders
version: 1.0.0
status: active
schema:
- name: orders
  properties:
  - {name: id, logicalType: integer, primaryKey: true}
  - {name: batch, logicalType: integer}
  - {name: cost, logicalType: number, logicalTypeOptions: {minimum: 0}}
"""
BATCHES = 60
"""Batches that one file holds: an ingestion acknowledges them together."""
ROWS = 3
SPEC = DataSet(
    contract="c.odcs.yaml", source=Source(kind="csv", path="rows.csv"), incremental=Incremental(watermark="batch")
)


def good(key: int) -> bool:
    """Whether the row of that id keeps the contract; one of every seventh batch breaks it."""
    return not (key // ROWS % 7 == 0 and key % ROWS == 1)


class Forked:
    """The process that parsers are forked from, itself a fork of this one while it has one thread: what a new
    interpreter takes to load is more than all the rest of a round."""

    def __init__(self, module: str, stdin: int, cwd: str, env: Mapping[str, str]) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.chdir(cwd)
            os.dup2(stdin, 0)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # else it would not see its owner end
            os.environ |= env
            sys.argv = [template.__file__, module]
            try:
                template.main()
            finally:
                os._exit(0)

    def poll(self) -> int | None:
        """How it ended; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def wait(self) -> int:
        """How it ended, once it has."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _start(command: list[str], **options: Any) -> "Forked | subprocess.Popen[bytes]":
    """A template; another interpreter where the first has left, as nobody needed it for a minute."""
    if threading.active_count() > 1:
        return subprocess.Popen(command, **options)
    return Forked(command[-1], options["stdin"], options["cwd"], options["env"])


def main(folder: Path, line: Connection) -> None:
    """Ingest the file that is named and those after it; a number that is sent says that its batches are in."""
    vars(template)["subprocess"] = SimpleNamespace(**{**vars(subprocess), "Popen": _start})
    TEMPLATE.warm()
    tables = Tables(folder / "tables")
    number: int = line.recv()
    threading.Thread(target=_compact, args=(tables,), daemon=True).start()
    while True:
        first = number * BATCHES
        _write(folder, max(0, first - BATCHES * (number % 2)), first + BATCHES)
        for window in (None, Window(since=first, until=first + BATCHES)) if number % 3 == 0 else (None,):
            _ingest(tables, folder, window)
        line.send(number)
        if number % 4 == 0:
            _replay(tables, folder)
        number += 1


def _write(folder: Path, since: int, until: int) -> None:
    rows = (f"{key},{key // ROWS},{0.5 if good(key) else -1.0}" for key in range(since * ROWS, until * ROWS))
    (folder / "rows.csv").write_text("\n".join(["id,batch,cost", *rows]) + "\n")


def _ingest(tables: Tables, folder: Path, window: Window | None) -> None:
    while True:
        try:
            ingest(tables, use_case="u", dataset="orders", spec=SPEC, folder=folder, key="", window=window)
            return
        except ConflictError:  # the table was compacted meanwhile
            continue


def _replay(tables: Tables, folder: Path) -> None:
    try:
        replay.replay(tables, use_case="u", dataset="orders", spec=SPEC, folder=folder)
    except ConflictError:
        return


def _compact(tables: Tables) -> None:
    pause = threading.Event()
    while not pause.wait(0.3):
        try:
            upkeep.compact(tables, "u.orders")
        except (ConflictError, NotFoundError):
            continue
