"""Kill -9 during mixed ingestion: nothing that was acknowledged is lost, and nothing stands twice."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from bedplate.data.tables import Tables
from bedplate.errors import NotFoundError
from tests.data.endless_ingestion import BATCHES, ROWS, rows

KILLS = int(os.environ.get("INGESTION_KILLS", "40"))
"""``INGESTION_KILLS=500`` is the whole sweep."""


def _standing(tables: Tables, name: str, column: str) -> Counter[int]:
    try:
        version = tables.current(name)
    except NotFoundError:
        return Counter()
    return Counter(int(value) for value in tables.scan(version, [column]).read_all().column(column).to_pylist())


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_kills_during_ingestion_lose_and_double_nothing(tmp_path: Path) -> None:
    tables = Tables(tmp_path / "tables")
    choice = random.Random(7)
    number = kills = 0
    while kills < KILLS:
        command = [sys.executable, "-m", "tests.data.endless_ingestion", str(tmp_path), str(number)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(choice.uniform(0.1, 6))
        writer.kill()
        said, _ = writer.communicate()
        kills += 1
        done = [
            int(line.split()[1]) for line in said.splitlines() if line.startswith("acknowledged ") and line[-1] != " "
        ]
        number = done[-1] + 1 if done else number
        _check(tables, number)
    print(f"{kills} kills, {number * BATCHES:,} batches acknowledged")
    assert number
    assert tables.verify("u.orders").sound


def _check(tables: Tables, acknowledged: int) -> None:
    """Each row of an acknowledged file stands once, in the table or set aside; beyond it at most one more file."""
    kept, aside = _standing(tables, "u.orders", "id"), _standing(tables, "u.orders.quarantine", "id")
    for standing in (kept, aside):
        assert max(standing.values(), default=1) == 1
    assert not kept.keys() & aside.keys()
    wanted = {row[0]: row[2] >= 0 for batch in range(acknowledged * BATCHES) for row in rows(batch)}
    assert {key for key, good in wanted.items() if good} <= kept.keys()
    assert {key for key, good in wanted.items() if not good} <= aside.keys()
    end = (acknowledged + 1) * BATCHES * ROWS
    assert all(key < end for key in (*kept, *aside))
    more = sum(key >= acknowledged * BATCHES * ROWS for key in kept)
    whole = sum(row[2] >= 0 for batch in range(acknowledged * BATCHES, end // ROWS) for row in rows(batch))
    assert more in (0, whole)  # a file is in as a whole, or not at all
