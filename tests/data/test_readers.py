"""Any reader of Delta opens our tables as they are: DuckDB, Polars and delta-rs, whatever was done to them."""

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
