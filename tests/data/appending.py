"""Appends rows to a table, one by one, each under its own key: run as ``appending.py FOLDER FIRST COUNT``.

Every fourth write is asked again, as a client does that lost its answer. What conflicts is tried again by the table.
"""

import sys
from pathlib import Path

import pyarrow as pa

from bedplate.data.tables import Tables

folder, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
tables = Tables(folder)
for number in range(first, first + count):
    for _ in range(1 + (number % 4 == 0)):
        tables.write("t", pa.table({"n": [number]}), mode="append", key=str(number))
print("done", flush=True)
