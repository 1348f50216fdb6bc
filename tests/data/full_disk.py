"""Write a table on a disk that fills up: run by :mod:`tests.data.test_failures` in a process of its own."""

import os
import resource
import sys
from pathlib import Path

import pyarrow as pa

from bedplate.data.tables import Tables
from bedplate.errors import StorageError
from bedplate.online import LmdbOnline

SMALL = pa.table({"a": [1, 2, 3]})
LARGE = pa.table({"a": [os.urandom(1 << 20).hex() for _ in range(4)]})


def main(folder: Path, limited: bool) -> None:
    tables = Tables(folder)
    first = tables.write("t", SMALL, mode="overwrite", key="first")
    before = sorted(folder.rglob("*.parquet"))
    if limited:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    try:
        tables.write("t", LARGE, mode="overwrite", key="second")
    except StorageError as error:
        print(error.message)
    else:
        raise SystemExit("the disk was not full")
    assert sorted(folder.rglob("*.parquet")) == before
    assert tables.current("t") == first
    assert not list(folder.rglob(".tmp_*"))
    again = tables.write("t", SMALL.slice(1), mode="overwrite", key="second")  # the same process goes on
    assert (again.version, again.rows) == (1, 2)
    _online(folder)


def _online(folder: Path) -> None:
    store = LmdbOnline(folder / "online")
    store.put_many("features", {b"k": b"1"})
    try:
        store.put_many("features", {b"k": b"2", **{b"%d" % i: os.urandom(1 << 16) for i in range(64)}})
    except StorageError:
        pass
    else:
        raise SystemExit("the disk was not full")
    assert (store.get("features", b"k"), store.count("features")) == (b"1", 1)
    store.put_many("features", {b"k": b"3"})
    assert store.get("features", b"k") == b"3"


main(Path(sys.argv[1]), sys.argv[2] == "limited")
