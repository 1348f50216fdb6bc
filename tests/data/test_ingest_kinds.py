"""Ingestion from each kind of source, and what each severity does, on a contract small enough to read here."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bedplate.data import contracts
from bedplate.data import ingest as ingestion
from bedplate.data.tables import Tables
from bedplate.errors import ContractError, NotFoundError
from bedplate.records import IngestResult
from bedplate.usecase.types import DataSet, Source

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: urn:visits
version: 1.0.0
status: active
schema:
  - name: visits
    properties:
      - {name: visit, logicalType: integer, primaryKey: true}
      - {name: day, logicalType: date, required: true}
      - name: cost
        logicalType: number
        logicalTypeOptions: {minimum: 0}
        customProperties: [{property: onViolation, value: SEVERITY}]
      - {name: note, logicalType: string}
"""
GOOD = [
    {"visit": 1, "day": "2024-05-01", "cost": 2.5, "note": "first"},
    {"visit": 2, "day": "2024-05-02", "cost": 0, "note": None},
    {"visit": 3, "day": "2024-05-03", "cost": 7.25, "note": "with, comma"},
]


def _write(folder: Path, kind: str, rows: list[dict[str, object]], severity: str = "warning") -> DataSet:
    (folder / "c.odcs.yaml").write_text(CONTRACT.replace("SEVERITY", severity))
    path = folder / f"rows.{kind}"
    if kind == "json":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    elif kind == "csv":
        cells = [["" if v is None else f'"{v}"' if isinstance(v, str) else str(v) for v in r.values()] for r in rows]
        path.write_text("\n".join(["visit,day,cost,note", *(",".join(row) for row in cells)]) + "\n")
    else:
        days = pa.array([str(row["day"]) for row in rows]).cast(pa.date32())
        pq.write_table(pa.Table.from_pylist(rows).set_column(1, "day", days), path)
    return DataSet(contract="c.odcs.yaml", source=Source(kind=kind, path=path.name))  # type: ignore[arg-type]


def _ingest(folder: Path, spec: DataSet) -> IngestResult:
    return ingestion.ingest(
        Tables(folder / "tables"), use_case="u", dataset="visits", spec=spec, folder=folder, key="k"
    )


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_each_kind_of_source_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    result = _ingest(tmp_path, _write(tmp_path, kind, GOOD))
    rows = Tables(tmp_path / "tables").scan(result.table).read_all()
    assert (result.read, result.accepted, result.rejected, result.quarantine) == (3, 3, 0, None)
    assert [str(kind) for kind in rows.schema.types] == ["int64", "date32[day]", "double", "string"]
    assert rows.column("cost").to_pylist() == [2.5, 0.0, 7.25]
    assert rows.column("note").to_pylist() == ["first", None, "with, comma"]


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_values_of_another_type_are_set_aside_as_they_stood(tmp_path: Path, kind: str) -> None:
    bad = [
        {**GOOD[0], "visit": 9, "cost": "much"},
        {**GOOD[0], "visit": 10, "day": "tomorrow"},
        {**GOOD[0], "visit": 1.5},
    ]
    result = _ingest(tmp_path, _write(tmp_path, kind, [*GOOD, *bad]))
    assert (result.accepted, result.rejected) == (3, 3)
    assert result.quarantine is not None
    aside = Tables(tmp_path / "tables").scan(result.quarantine).read_all().to_pylist()
    assert [(row["_source_row"], row["_rules"]) for row in aside] == [
        (4, ["cost.logicalType"]),
        (5, ["day.logicalType"]),
        (6, ["visit.logicalType"]),
    ]
    assert aside[0]["cost"] == "much"


def test_json_lines_that_are_no_rows_are_set_aside(tmp_path: Path) -> None:
    spec = _write(tmp_path, "json", GOOD)
    with (tmp_path / "rows.json").open("a") as file:
        file.write('\n{"visit": 4\n[1]\n{"visit": 5, "day": "2024-05-05", "surprise": 1}\n{"visit": 6}\n')
    result = _ingest(tmp_path, spec)
    assert (result.read, result.accepted, result.rejected) == (7, 3, 4)
    assert result.quarantine is not None
    aside = Tables(tmp_path / "tables").scan(result.quarantine).read_all().to_pylist()
    reasons = " ".join(row["_reasons"] for row in aside)
    for words in ("is not JSON", "is not an object", "unknown keys: surprise", "day is missing"):
        assert words in reasons


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_missing_or_extra_column_is_refused_before_a_row_is_read(tmp_path: Path, kind: str) -> None:
    spec = _write(tmp_path, kind, GOOD)
    path = tmp_path / f"rows.{kind}"
    if kind == "csv":
        path.write_text(path.read_text().replace("cost", "price", 1))
    else:
        pq.write_table(pq.read_table(path).rename_columns(["visit", "day", "price", "note"]), path)
    with pytest.raises(ContractError, match=r"cost .* is missing; column price is not in the contract"):
        _ingest(tmp_path, spec)
    assert not (tmp_path / "tables").exists()


def test_a_parquet_column_of_another_type_is_refused(tmp_path: Path) -> None:
    spec = _write(tmp_path, "parquet", GOOD)
    table = pq.read_table(tmp_path / "rows.parquet")
    pq.write_table(table.set_column(0, "visit", pa.array(["1", "2", "3"])), tmp_path / "rows.parquet")
    with pytest.raises(ContractError, match=r"visit is string, the contract \(line 9\) says integer"):
        _ingest(tmp_path, spec)


@pytest.mark.parametrize(
    ("severity", "accepted", "rejected"), [("error", None, None), ("warning", 3, 1), ("info", 4, 0)]
)
def test_severity_stops_sets_aside_or_counts(
    tmp_path: Path, severity: str, accepted: int | None, rejected: int | None
) -> None:
    spec = _write(tmp_path, "csv", [*GOOD, {**GOOD[0], "visit": 4, "cost": -1}], severity)
    tables = Tables(tmp_path / "tables")
    if accepted is None:
        with pytest.raises(ContractError, match="cost is below 0, 1 rows") as caught:
            _ingest(tmp_path, spec)
        assert "u.visits.quarantine" in str(caught.value)
        with pytest.raises(NotFoundError):
            tables.current("u.visits")
        assert tables.current("u.visits.quarantine").rows == 1
        return
    result = _ingest(tmp_path, spec)
    assert (result.accepted, result.rejected) == (accepted, rejected)
    assert result.outcomes[0].rule == "cost.minimum"
    assert result.outcomes[0].failed == 1


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_an_empty_source_is_refused_and_a_missing_one_named(tmp_path: Path, kind: str) -> None:
    spec = _write(tmp_path, kind, GOOD)
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    else:
        path.write_text("visit,day,cost,note\n" if kind == "csv" else "")
    with pytest.raises(ContractError, match="would be empty: the source holds no rows"):
        _ingest(tmp_path, spec)
    path.unlink()
    with pytest.raises(NotFoundError, match=f"rows.{kind} does not exist"):
        _ingest(tmp_path, spec)


def test_the_contract_can_be_tried_without_writing(tmp_path: Path) -> None:
    query = """\
    quality:
      - {type: sql, name: total, query: "SELECT sum(cost) FROM {object}", mustBeGreaterThan: 100}
"""
    bad = {"visit": 3, "day": "2024-05-09", "cost": -1, "note": None}
    spec = _write(tmp_path, "csv", [*GOOD, bad])
    plain = contracts.load(tmp_path / "c.odcs.yaml")
    found = {o.rule: o.failed for o in ingestion.test(plain, "visits", spec, tmp_path) if o.failed}
    assert found == {"cost.minimum": 1, "primaryKey": 1}
    with_sql = contracts.parse_contract(plain.data + query.encode(), "c.odcs.yaml")
    outcomes = {outcome.rule: outcome for outcome in ingestion.test(with_sql, "visits", spec, tmp_path)}
    assert (outcomes["total"].failed, outcomes["total"].severity) == (1, "error")
    assert "found 9.75" in outcomes["total"].message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.odcs.yaml", "rows.csv"]
