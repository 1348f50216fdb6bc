"""Write versions of a table until killed, printing each acknowledged one: run by :mod:`tests.data.test_kill`."""

import sys
from pathlib import Path

import pyarrow as pa

from bedplate.data.tables import Tables


def rows(number: int) -> pa.Table:
    """The rows that write ``number`` makes: as many as its number and two thousand more."""
    return pa.table({"write": [number] * (2000 + number)})


def main(folder: Path, number: int) -> None:
    tables = Tables(folder)
    print("ready", flush=True)
    while True:
        version = tables.write("t", rows(number), mode="overwrite", key=f"write {number}")
        print(number, version.version, flush=True)
        number += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
