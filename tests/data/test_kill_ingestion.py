"""Kill -9 during mixed ingestion: nothing that was acknowledged is lost, and nothing stands twice."""

import os
import random
import signal
import time
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pytest

from bedplate.data.tables import Tables
from bedplate.errors import NotFoundError
from tests.data import endless_ingestion
from tests.data.endless_ingestion import BATCHES, CONTRACT, ROWS, good
from tests.forked import CONTEXT

KILLS = int(os.environ.get("INGESTION_KILLS", "40"))
"""``INGESTION_KILLS=500`` is the whole sweep."""


def _writer(folder: Path) -> tuple[ForkServerProcess, Connection]:
    """One that has loaded everything, and waits to be told where to begin."""
    ours, theirs = CONTEXT.Pipe()
    writer = CONTEXT.Process(target=endless_ingestion.main, args=(folder, theirs), daemon=True)
    writer.start()
    theirs.close()
    return writer, ours


@pytest.mark.long
@pytest.mark.sweep
@pytest.mark.timeout(3600)
def test_kills_during_ingestion_lose_and_double_nothing(tmp_path: Path) -> None:
    (tmp_path / "c.odcs.yaml").write_text(CONTRACT)
    tables = Tables(tmp_path / "tables")
    choice = random.Random(7)
    number, took, began = 0, 1.0, time.monotonic()
    waiting = _writer(tmp_path)
    for _ in range(KILLS):
        writer, line = waiting
        line.send(number)
        waiting = _writer(tmp_path)  # the next loads while this one writes
        number, took = _run(line, choice, number, took)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        number = _acknowledged(line, number)
        _check(tables, number)
    os.kill(waiting[0].pid or 0, signal.SIGKILL)
    waiting[0].join()
    waiting[1].close()
    print(f"{KILLS} kills, {number * BATCHES:,} batches acknowledged, {time.monotonic() - began:.0f} s")
    assert number
    assert tables.verify("u.orders").sound


def _run(line: Connection, choice: random.Random, number: int, took: float) -> tuple[int, float]:
    """Let it write some files, and go on for a part of the time that one takes; gives the next file, and that time."""
    for _ in range(choice.randrange(2)):
        began = time.monotonic()
        assert line.poll(300)
        number = line.recv() + 1
        took = time.monotonic() - began
    time.sleep(choice.uniform(0, took))
    return number, took


def _acknowledged(line: Connection, number: int) -> int:
    """The file that comes after the last one that was acknowledged."""
    with line:
        while True:
            try:
                number = line.recv() + 1
            except (EOFError, ConnectionResetError):  # the latter where it was killed before it was told to begin
                return number


def _check(tables: Tables, acknowledged: int) -> None:
    """Each row of an acknowledged file stands once, in the table or set aside; beyond it at most one more file."""
    for name, wanted in (("u.orders", True), ("u.orders.quarantine", False)):
        ids = _ids(tables, name)
        assert len(np.unique(ids)) == len(ids)
        whole = [_expected(files, keeps=wanted) for files in (acknowledged, acknowledged + 1)]
        # A file is in as a whole, or not at all.
        assert any(np.array_equal(np.sort(ids), each) for each in whole), (name, acknowledged, len(ids))


def _expected(files: int, *, keeps: bool) -> np.ndarray:
    ids = np.arange(files * BATCHES * ROWS)
    return ids[np.array([good(int(key)) == keeps for key in ids[: 7 * ROWS]])[ids % (7 * ROWS)]] if files else ids


def _ids(tables: Tables, name: str) -> np.ndarray:
    try:
        version = tables.current(name)
    except NotFoundError:
        return np.array([], dtype=np.int64)
    return tables.scan(version, ["id"]).read_all().column("id").to_numpy().astype(np.int64)
