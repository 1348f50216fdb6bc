"""What the standard (ODCS 3.1) lets a contract say, and what that does to rows: one case for each."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from bedplate.data import contracts, replay
from bedplate.data import ingest as ingestion
from bedplate.data.tables import Tables
from bedplate.errors import ContractError
from bedplate.records import IngestResult
from bedplate.usecase.types import DataSet, Incremental, Source

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def _contract(name: str, properties: list[dict[str, Any]], **more: Any) -> str:
    schema = {"name": name, "properties": properties, **more.pop("schema", {})}
    head = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": name, "version": "1.0.0", "status": "active"}
    return yaml.safe_dump({**head, "schema": [schema], **more}, sort_keys=False)


def _ingest(folder: Path, name: str, text: str, rows: list[dict[str, Any]], **more: Any) -> IngestResult:
    (folder / f"{name}.odcs.yaml").write_text(text)
    (folder / f"{name}.json").write_text("\n".join(json.dumps(row) for row in rows))
    spec = DataSet(contract=f"{name}.odcs.yaml", source=Source(kind="json", path=f"{name}.json"), **more)
    tables = Tables(folder / "tables")
    return ingestion.ingest(tables, use_case="u", dataset=name, spec=spec, folder=folder, key=str(rows))


def _outcome(folder: Path, text: str, rows: list[dict[str, Any]]) -> tuple[list[Any], dict[str, list[Any]]]:
    """The values of ``v`` that came in, and by rule the numbers of the rows that were set aside."""
    result = _ingest(folder, "t", text, rows)
    tables = Tables(folder / "tables")
    aside: dict[str, list[Any]] = {}
    if result.quarantine is not None:
        for row in tables.scan(result.quarantine).read_all().to_pylist():
            for rule in row["_rules"]:
                aside.setdefault(rule, []).append(row["_source_row"])
    return tables.scan(result.table).read_all().column("v").to_pylist(), aside


ITEM = {"logicalType": "integer"}
PLACE = [{"name": "city", "logicalType": "string", "required": True}, {"name": "since", "logicalType": "date"}]
PLACE_TYPE = pa.struct([("city", pa.string()), ("since", pa.date32())])
MISSING = {"missingValues": ["", "n/a", None]}
TYPES: dict[str, tuple[dict[str, Any], list[Any], list[Any], dict[str, list[int]]]] = {
    "time": (
        {"logicalType": "time", "logicalTypeOptions": {"minimum": "08:00", "exclusiveMaximum": "18:00:00"}},
        ["08:00", "17:59:59.5", "18:00:00", "25:00", None],
        ["08:00:00", "17:59:59.5", None],
        {"v.exclusiveMaximum": [3], "v.logicalType": [4]},
    ),
    "date with a format": (
        {"logicalType": "date", "logicalTypeOptions": {"format": "dd.MM.yyyy", "minimum": "2024-01-01"}},
        ["01.05.2024", "2024-05-01", "31.12.2023"],
        [date(2024, 5, 1)],
        {"v.logicalType": [2], "v.minimum": [3]},
    ),
    "timestamp with a zone": (
        {"logicalType": "timestamp", "logicalTypeOptions": {"timezone": True, "defaultTimezone": "Europe/Lisbon"}},
        ["2024-05-01T12:00:00Z", "2024-05-01T14:00:00+02:00", "2024-05-01 13:00:00", "soon"],
        [NOON, NOON, NOON],
        {"v.logicalType": [4]},
    ),
    "timestamp without a zone": (
        {"logicalType": "timestamp", "logicalTypeOptions": {"timezone": False, "maximum": "2024-06-01T00:00:00"}},
        ["2024-05-01T12:00:00", "2024-05-01T12:00:00+02:00", "2024-06-01T00:00:01"],
        [NOON.replace(tzinfo=None)],
        {"v.logicalType": [2], "v.maximum": [3]},
    ),
    "integer of so many bits": (
        {"logicalType": "integer", "logicalTypeOptions": {"format": "u8", "multipleOf": 5}},
        ["255", "256", "-5", "12"],
        [255],
        {"v.format.maximum": [2], "v.multipleOf": [2, 4], "v.format.minimum": [3]},
    ),
    "array": (
        {"logicalType": "array", "items": ITEM,
         "logicalTypeOptions": {"minItems": 1, "maxItems": 2, "uniqueItems": True}},
        [[1, 2], [], [1, 2, 3], [4, 4], ["five"], 6, None],
        [[1, 2], None],
        {"v.minItems": [2], "v.maxItems": [3], "v.uniqueItems": [4], "v.logicalType": [5, 6]},
    ),
    "array of anything": ({"logicalType": "array"}, [[1, "a"], {"no": 1}], ['[1,"a"]'], {"v.logicalType": [2]}),
    "object": (
        {"logicalType": "object", "properties": PLACE, "logicalTypeOptions": {"minProperties": 2}},
        [{"city": "Faro", "since": "2024-05-01"}, {"city": "Faro"}, {"since": "2024-05-01"}, {"city": 1}, {"x": 1}, 1],
        [{"city": "Faro", "since": date(2024, 5, 1)}],
        {"v.minProperties": [2], "v.logicalType": [3, 4, 5, 6]},
    ),
    "object of anything": (
        {"logicalType": "object", "logicalTypeOptions": {"maxProperties": 1, "required": ["a"]}},
        [{"a": 1}, {"a": 1, "b": 2}, {"b": 2}],
        ['{"a":1}'],
        {"v.maxProperties": [2], "v.requiredProperties": [3]},
    ),
    "array of objects": (
        {"logicalType": "array", "items": {"logicalType": "object", "properties": PLACE}},
        [[{"city": "Faro"}], [{"city": None}]],
        [[{"city": "Faro", "since": None}]],
        {"v.logicalType": [2]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TYPES)
def test_each_logical_type_and_option(tmp_path: Path, case: str) -> None:
    said, given, kept, aside = TYPES[case]
    text = _contract("t", [{"name": "v", **said}])
    found = _outcome(tmp_path, text, [{"v": value} for value in given])
    renamed = {rule.replace("requiredProperties", "required"): rows for rule, rows in aside.items()}
    assert found == (kept, renamed)


def test_types_of_a_file_that_has_them(tmp_path: Path) -> None:
    table = pa.table({
        "at": pa.array([8 * 3600 * 1_000_000 + 500_000], pa.time64("us")),
        "moment": pa.array([NOON.replace(tzinfo=None)], pa.timestamp("ns")),
        "list": pa.array([[1, 2]], pa.list_(pa.int64())),
        "place": pa.array([{"city": "Faro", "since": None}], PLACE_TYPE),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet")
    zoned = {"logicalTypeOptions": {"timezone": True, "defaultTimezone": "Europe/Lisbon"}}
    properties = [
        {"name": "at", "logicalType": "time"},
        {"name": "moment", "logicalType": "timestamp", **zoned},
        {"name": "list", "logicalType": "array", "items": ITEM},
        {"name": "place", "logicalType": "object", "properties": PLACE},
    ]
    (tmp_path / "c.odcs.yaml").write_text(_contract("t", properties))
    spec = DataSet(contract="c.odcs.yaml", source=Source(kind="parquet", path="t.parquet"))
    tables = Tables(tmp_path / "tables")
    asked: dict[str, Any] = {"use_case": "u", "dataset": "t", "spec": spec, "folder": tmp_path, "key": "k"}
    made = ingestion.ingest(tables, **asked)
    assert tables.scan(made.table).read_all().to_pylist() == [
        {"at": "08:00:00.5", "moment": NOON.replace(hour=11), "list": [1, 2], "place": {"city": "Faro", "since": None}}
    ]
    properties[2]["items"] = {"logicalType": "string"}
    (tmp_path / "c.odcs.yaml").write_text(_contract("t", properties))
    with pytest.raises(ContractError, match="column list is"):
        ingestion.ingest(tables, **asked)


METRICS: dict[str, tuple[dict[str, Any], list[int], str]] = {
    # the rule, the numbers of the rows that are set aside by it, and what is said where the whole breaks it
    "none null": ({"metric": "nullValues", "mustBe": 0}, [2], ""),
    "some null": ({"metric": "nullValues", "mustBeLessThan": 1}, [], "found 1"),
    "none missing": ({"metric": "missingValues", "arguments": MISSING, "mustBe": 0}, [2, 3], ""),
    "few missing": (
        {"metric": "missingValues", "arguments": MISSING, "unit": "percent", "mustBeBetween": [1, 30]},
        [], "found 40"),
    "valid values": ({"metric": "invalidValues", "arguments": {"validValues": ["a", "b", "n/a"]}, "mustBe": 0}, [], ""),
    "valid pattern": ({"metric": "invalidValues", "arguments": {"pattern": "^[a-z]$"}, "mustBe": 0}, [3], ""),
    "invalid in all": ({"metric": "invalidValues", "arguments": {"pattern": "^[a-z]$"}, "mustNotBe": 1}, [], "found 1"),
    "no duplicates": ({"metric": "duplicateValues", "mustBe": 0}, [5], ""),
    "few duplicates": ({"metric": "duplicateValues", "mustBeLessOrEqualTo": 0}, [], "found 1"),
    "rows": ({"metric": "rowCount", "mustBeGreaterThan": 5}, [], "found 5"),
    "rows between": ({"metric": "rowCount", "mustNotBeBetween": [4, 6]}, [], "found 5"),
    "sql of the table": (
        {"type": "sql", "query": "SELECT count(*) FROM ${table}", "mustBeGreaterOrEqualTo": 6}, [], "found 5"),
    "sql of the column": (
        {"type": "sql", "query": "SELECT max({property}) FROM {object} WHERE ${column} <> 'n/a'", "mustBe": "a"},
        [], "found b"),
}  # fmt: skip


@pytest.mark.parametrize("severity", ["error", "warning", "info"])
@pytest.mark.parametrize("case", METRICS)
def test_each_metric_comparison_and_severity(tmp_path: Path, case: str, severity: str) -> None:
    rule, aside, said = METRICS[case]
    text = _contract("t", [{"name": "v", "logicalType": "string", "quality": [{**rule, "severity": severity}]}])
    rows = [{"v": value} for value in ("a", None, "n/a", "b", "a")]
    if severity == "error" and (aside or said):
        with pytest.raises(ContractError, match=said or f"{len(aside)} rows are in table u.t.quarantine"):
            _outcome(tmp_path, text, rows)
        return
    kept, found = _outcome(tmp_path, text, rows)
    numbers = sorted({number for each in found.values() for number in each})
    assert numbers == (aside if severity == "warning" else [])
    assert len(kept) == len(rows) - len(numbers)


PRODUCTS = _contract("products", [
    {"name": "shop", "logicalType": "integer", "primaryKey": True},
    {"name": "code", "logicalType": "string", "primaryKey": True},
])  # fmt: skip
LINE = [
    {"name": "line", "logicalType": "integer", "primaryKey": True},
    {"name": "shop", "logicalType": "integer"},
    {"name": "code", "logicalType": "string"},
    {"name": "after", "logicalType": "integer", "relationships": [{"type": "foreignKey", "to": "lines.line"}]},
]
BOTH = [{"from": ["lines.shop", "lines.code"], "to": ["products.shop", "products.code"]}]
ROWS = [
    {"line": 1, "shop": 1, "code": "a", "after": None},
    {"line": 2, "shop": 2, "code": "a", "after": 1},  # no such product in that shop
    {"line": 3, "shop": None, "code": "zz", "after": 1},  # a null refers to nothing
    {"line": 4, "shop": 1, "code": "b", "after": 9},  # no such line
]


def test_what_refers_to_another_table_stands_in_it(tmp_path: Path) -> None:
    lines = _contract("lines", LINE, schema={"relationships": BOTH})
    with pytest.raises(ContractError, match="refers to products, which has not come in"):
        _ingest(tmp_path, "lines", lines, ROWS)
    product = [{"shop": 1, "code": "a"}, {"shop": 1, "code": "b"}]
    _ingest(tmp_path, "products", PRODUCTS, product)
    by_line = {"incremental": Incremental(watermark="line")}
    made = _ingest(tmp_path, "lines", lines, ROWS, **by_line)
    tables = Tables(tmp_path / "tables")
    assert tables.scan(made.table).read_all().column("line").to_pylist() == [1, 3]
    assert made.quarantine is not None
    aside = tables.scan(made.quarantine).read_all()
    assert aside.column("_rules").to_pylist() == [["shop+code.foreignKey.products"], ["after.foreignKey.lines"]]
    # The product comes later: the line that was set aside can be brought in then.
    _ingest(tmp_path, "products", PRODUCTS, [*product, {"shop": 2, "code": "a"}])
    spec = DataSet(contract="lines.odcs.yaml", source=Source(kind="json", path="lines.json"), **by_line)
    again = replay.replay(tables, use_case="u", dataset="lines", spec=spec, folder=tmp_path)
    assert (again.accepted, again.left) == (1, 1)
    others = {
        name: (contracts.load(tmp_path / f"{name}.odcs.yaml"),
               DataSet(contract="", source=Source(kind="json", path=f"{name}.json")))
        for name in ("products", "lines")
    }  # fmt: skip
    contract, data = others["lines"]
    outcomes = ingestion.test(contract, "lines", data, tmp_path, others=others)
    assert {o.rule: o.failed for o in outcomes if o.failed} == {"after.foreignKey.lines": 1}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a relation to nothing": ({"relationships": [{"to": "lines"}]}, r"name columns as table\.column"),
    "a relation of another type": ({"relationships": [{"type": "friend", "to": "a.b"}]}, "use foreignKey"),
    "a relation with from": ({"relationships": [{"from": "a.b", "to": "a.b"}]}, "the key from is unknown"),
    "a letter of a format": ({"logicalType": "date", "logicalTypeOptions": {"format": "EEE"}}, "EEE is not supported"),
    "a zone": ({"logicalType": "timestamp", "logicalTypeOptions": {"defaultTimezone": "Mars"}}, "no zone 'Mars'"),
    "a zone of a time": ({"logicalType": "time", "logicalTypeOptions": {"timezone": True}}, "use a timestamp"),
    "a zone of a date": ({"logicalType": "date", "logicalTypeOptions": {"timezone": True}}, "timezone is unknown"),
    "a time": ({"logicalType": "time", "logicalTypeOptions": {"minimum": "noon"}}, "no.* time of day"),
    "a number of bits": ({"logicalType": "integer", "logicalTypeOptions": {"format": "i7"}}, "format is 'i7'"),
    "a rule inside": ({"logicalType": "array", "items": {**ITEM, "unique": True}}, "about a part of a value"),
    "items of no type": ({"logicalType": "array", "items": {"logicalType": "word"}}, "logicalType is 'word'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_contract_says_wrong_is_told_with_its_line(case: str) -> None:
    said, words = WRONG[case]
    text = _contract("t", [{"name": "v", "logicalType": "string", **said}])
    with pytest.raises(ContractError, match=words) as caught:
        contracts.parse_contract(text.encode(), "c.odcs.yaml")
    assert "line " in str(caught.value)
