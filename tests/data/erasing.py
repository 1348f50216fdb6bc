"""Take the rows of one person out of a table once ``begin`` is there: run by :mod:`tests.data.test_erase`."""

import sys
import time
from pathlib import Path

import pyarrow.compute as pc

from bedplate.data import erase
from bedplate.data.tables import Tables

folder, subject = Path(sys.argv[1]), sys.argv[2]
tables = Tables(folder / "tables")
print("ready", flush=True)
while not (folder / "begin").exists():
    time.sleep(0.005)
erase.erase(tables, "t", lambda _: pc.field("who") == subject)
print("done", flush=True)
