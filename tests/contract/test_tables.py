"""What holds for tables, wherever they are kept."""

import threading
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from bedplate.data.tables import Tables
from bedplate.errors import NotFoundError
from tests.servers import S3, Azure

ROWS = pa.table({"a": pa.array([1, 2, 3], pa.int64()), "s": ["x", "y", None]})


@pytest.fixture(params=["disk", "s3", pytest.param("azure", marks=pytest.mark.long)])
def tables(request: pytest.FixtureRequest, tmp_path: Path) -> Tables:
    """An empty place for tables."""
    if request.param == "disk":
        return Tables(tmp_path)
    server: S3 | Azure = request.getfixturevalue(request.param)
    return Tables(server.address(), server.options)


def test_rows_come_back_as_they_were(tables: Tables) -> None:
    """Rows, schema and digest survive, and older versions stay."""
    first = tables.write("t", ROWS, mode="overwrite")
    second = tables.write("t", ROWS.slice(1), mode="append")
    assert tables.scan(first).read_all().equals(ROWS)
    assert tables.scan(second, ["a"]).read_all().to_pydict() == {"a": [1, 2, 3, 2, 3]}
    assert tables.current("t") == second
    assert tables.names() == ["t"]
    assert tables.verify("t").sound


def test_a_key_writes_once(tables: Tables) -> None:
    """The same key again gives the version it made."""
    first = tables.write("t", ROWS, mode="append", key="k")
    tables.write("t", ROWS, mode="append")
    assert tables.write("t", ROWS, mode="append", key="k") == first
    assert tables.current("t").rows == 6


def test_appends_at_once_lose_nothing(tables: Tables) -> None:
    """Writers that meet try again."""
    threads = [threading.Thread(target=tables.write, args=("t", ROWS), kwargs={"mode": "append"}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tables.current("t").rows == 12


def test_a_missing_table_is_named(tables: Tables) -> None:
    """Nothing is made up."""
    with pytest.raises(NotFoundError):
        tables.current("absent")


def test_what_a_killed_write_left_goes_once_no_write_can_be_under_way(tables: Tables) -> None:
    """Never a file that a version holds, nor one that a write may still commit."""
    first = tables.write("t", ROWS, mode="append")
    last = tables.write("t", ROWS, mode="append")
    folder = tables.folder_of("t")
    folder.put("part_killed.parquet", b"left by a write that was killed")
    now = folder.modified("part_killed.parquet")
    assert now is not None
    assert tables.collect("t", now) == 0
    assert tables.collect("t", now + timedelta(hours=1), dry_run=True) == 1
    assert folder.size("part_killed.parquet") is not None
    assert tables.collect("t", now + timedelta(hours=1)) == 1
    assert folder.size("part_killed.parquet") is None
    assert folder.modified("part_killed.parquet") is None
    assert tables.collect("t") == 0
    assert [tables.scan(version).read_all().num_rows for version in (first, last)] == [3, 6]
    assert tables.verify("t").sound
