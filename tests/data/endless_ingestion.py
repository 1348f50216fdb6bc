"""Ingest batches until killed, printing each that is acknowledged: run by :mod:`tests.data.test_kill_ingestion`.

Each turn takes what the work of a shop is made of: a file of rows, some of which break the contract, to a table that
is added to; and now and then the same batch again, a backfill, or a replay of what was set aside.
"""

import sys
from pathlib import Path

from bedplate.data import replay
from bedplate.data.ingest import ingest
from bedplate.data.sources.databases import Window
from bedplate.data.tables import Tables
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
BATCHES = 100
"""Batches that one file holds: an ingestion acknowledges them together."""
ROWS = 3


def rows(batch: int) -> list[tuple[int, int, float]]:
    """The rows of a batch; one of every seventh breaks the contract."""
    return [(batch * ROWS + at, batch, -1.0 if batch % 7 == 0 and at == 1 else at + 0.5) for at in range(ROWS)]


def main(folder: Path, number: int) -> None:
    """Ingest file ``number`` and those after it; ``acknowledged N`` says that its batches are in."""
    (folder / "c.odcs.yaml").write_text(CONTRACT)
    tables = Tables(folder / "tables")
    spec = DataSet(
        contract="c.odcs.yaml", source=Source(kind="csv", path="rows.csv"), incremental=Incremental(watermark="batch")
    )
    print("ready", flush=True)
    while True:
        first = number * BATCHES
        lines = [",".join(map(str, row)) for batch in range(first, first + BATCHES) for row in rows(batch)]
        (folder / "rows.csv").write_text("\n".join(["id,batch,cost", *lines]) + "\n")
        for window in (None, Window(since=first, until=first + BATCHES)) if number % 3 == 0 else (None,):
            ingest(tables, use_case="u", dataset="orders", spec=spec, folder=folder, key=f"{number}", window=window)
        print("acknowledged", number, flush=True)
        if number % 4 == 0:
            replay.replay(tables, use_case="u", dataset="orders", spec=spec, folder=folder)
        number += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
