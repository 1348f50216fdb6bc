"""Write to a table while the disk refuses now and then: run by :mod:`tests.data.test_failures`."""

import sys
import time
from pathlib import Path

import pyarrow as pa

from bedplate.data.tables import Tables
from bedplate.errors import StorageError


def rows(number: int) -> pa.Table:
    """What write ``number`` adds."""
    return pa.table({"write": [number] * 3})


def main(folder: Path, writes: int) -> None:
    tables = Tables(folder / "tables")
    tables.write("t", rows(0), mode="append", key="0")
    print("ready", flush=True)
    _wait_for(folder / "begin")
    said = []
    for number in range(1, writes):
        try:
            tables.write("t", rows(number), mode="append", key=str(number))
            said.append(f"{number} acknowledged")
        except StorageError:
            said.append(f"{number} refused")
    (folder / "over").mkdir()
    _wait_for(folder / "end")
    print("\n".join(said), flush=True)


def _wait_for(name: Path) -> None:
    while not name.exists():
        time.sleep(0.005)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
