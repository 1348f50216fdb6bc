"""Any reader of Delta opens our tables as they are: DuckDB, Polars and delta-rs, whatever was done to them."""

import ast
import subprocess
from datetime import UTC, date, datetime
from pathlib import Path

import deltalake
import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from bedplate.data import upkeep
from bedplate.data.erase import erase
from bedplate.data.tables import Tables
from bedplate.records import TableVersion
from tests.mlflow import environment

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SCHEMA = pa.schema([
    ("id", pa.int64()), ("name", pa.string()), ("share", pa.float64()), ("on", pa.bool_()), ("day", pa.date32()),
    ("moment", pa.timestamp("us", "UTC")), ("clock", pa.timestamp("us")), ("raw", pa.binary()),
    ("list", pa.list_(pa.int32())), ("place", pa.struct([("city", pa.string())])),
])  # fmt: skip


def rows(first: int, count: int) -> pa.Table:
    found = [
        {"id": i, "name": f"n{i}", "share": i / 7, "on": i % 2 == 0, "day": date(2026, 5, 1), "moment": NOON,
         "clock": NOON.replace(tzinfo=None), "raw": bytes([i]), "list": [i, None], "place": {"city": "Faro"}}
        for i in range(first, first + count)
    ]  # fmt: skip
    return pa.Table.from_pylist([*found, {"id": first + count}], SCHEMA)


def folder_of(tables: Tables, name: str) -> str:
    return tables.folder_of(name).url


def test_tables_are_opened_as_they_are(tmp_path: Path) -> None:
    """Appended to, compacted, with rows erased, and at each version before the erasure that others can still read."""
    tables = Tables(tmp_path / "tables")
    made = [tables.write("t", rows(1 + 10 * i, 9), mode="append") for i in range(3)]
    made.append(upkeep.compact(tables, "t"))
    path = folder_of(tables, "t")
    for version in made:
        _same(tables, version, path)
    erase(tables, "t", lambda _: pc.field("id") == 5)
    assert len(_same(tables, tables.current("t"), path)) == 29


PANDAS = """
import sys
import pandas
frame = pandas.concat([pandas.read_parquet(path) for path in sys.argv[1:]]).sort_values("id")
kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
frame["raw"] = [None if raw is None else raw.hex() for raw in frame["raw"]]
frame = frame[["id", "name", "share", "raw"]].astype(object)
print({"kinds": kinds, "rows": frame.where(frame.notna(), None).values.tolist()})
"""


@pytest.mark.long
def test_pandas_opens_the_files_that_the_log_names(tmp_path: Path) -> None:
    """It has no reader of Delta of its own: delta-rs says which files, pandas and its own Parquet library read them."""
    tables = Tables(tmp_path / "tables")
    for i in range(2):
        version = tables.write("t", rows(1 + 10 * i, 9), mode="append")
    files = deltalake.DeltaTable(folder_of(tables, "t")).file_uris()
    done = subprocess.run(
        [str(environment.python()), "-c", PANDAS, *files], env=environment.variables(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = ast.literal_eval(done.stdout)
    assert (found["kinds"]["moment"], found["kinds"]["clock"]) == ("datetime64[us, UTC]", "datetime64[us]")
    ours = tables.scan(version).read_all().sort_by("id").to_pylist()
    wanted = [[row["id"], row["name"], row["share"], row["raw"] and row["raw"].hex()] for row in ours]
    assert found["rows"] == wanted


def _same(tables: Tables, version: TableVersion, path: str) -> list[dict[str, object]]:
    ours = tables.scan(version).read_all().sort_by("id").to_pylist()  # others read files in any order
    delta = deltalake.DeltaTable(path, version=version.version)
    assert delta.to_pyarrow_dataset().schema == SCHEMA
    assert delta.to_pyarrow_table().sort_by("id").to_pylist() == ours
    polars = pl.read_delta(path, version=version.version)
    assert (polars.schema["moment"], polars.schema["clock"]) == (pl.Datetime("us", "UTC"), pl.Datetime("us"))
    assert polars.sort("id").to_dicts() == ours
    seen = delta.to_pyarrow_dataset()
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("seen", seen)
        counted = connection.execute(
            "SELECT count(*), sum(id), max(place.city), max(moment)::VARCHAR FROM seen"
        ).fetchone()
        by_file = connection.execute("SELECT count(*), sum(id) FROM read_parquet(?)", [delta.file_uris()]).fetchone()
    ids = [row["id"] for row in ours]
    assert counted == (len(ours), sum(ids), "Faro", "2026-05-01 12:00:00+00")
    assert by_file == (len(ours), sum(ids))
    return ours


@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_polars_scans_lazily_what_it_needs(tmp_path: Path, mode: str) -> None:
    tables = Tables(tmp_path / "tables")
    tables.write("t", rows(1, 5), mode="overwrite")
    tables.write("t", rows(11, 5), mode=mode)  # type: ignore[arg-type]
    found = pl.scan_delta(folder_of(tables, "t")).filter(pl.col("id") > 12).select("name").collect()
    assert sorted(found["name"].drop_nulls()) == ["n13", "n14", "n15"]
