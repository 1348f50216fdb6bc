import string
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.data import contract_diff, contracts, infer, ingest
from bedplate.errors import ContractError, InputError
from bedplate.usecase.types import DataSet, Source
from tests.laws import examples

AGE = "      - {name: age, logicalType: integer, logicalTypeOptions: {minimum: 0, maximum: 120}}"
BASE = """
apiVersion: v3.1.0
kind: DataContract
id: t
version: 1.2.0
status: active
schema:
  - name: rows
    properties:
      - {name: id, logicalType: integer, required: true, unique: true}
      - {name: age, logicalType: integer, logicalTypeOptions: {minimum: 0, maximum: 120}}
      - name: region
        logicalType: string
        quality:
          - {name: known, metric: invalidValues, arguments: {validValues: [a, b]}, mustBe: 0, severity: warning}
    quality:
      - {name: enough, metric: rowCount, mustBeGreaterThan: 10, severity: error}
"""


def _compared(old: str, new: str) -> set[tuple[str, str, str]]:
    assert old in BASE
    changed = contracts.parse_contract(BASE.replace(old, new).encode(), "new")
    before = contracts.parse_contract(BASE.encode(), "old")
    return {(c.column, c.what, c.breaks) for c in contract_diff.compare(before.models[0], changed.models[0])}


@pytest.mark.parametrize(
    ("old", "new", "column", "breaks"),
    [
        (f"{AGE}\n", "", "age", "both"),
        ("name: age, logicalType: integer", "name: age, logicalType: number", "age", "both"),
        ("      - {name: age", "      - {name: new, logicalType: date}\n      - {name: age", "new", "source"),
        ("maximum: 120", "maximum: 130", "age", "readers"),
        ("maximum: 120", "maximum: 100", "age", "source"),
        ("minimum: 0", "minimum: -1", "age", "readers"),
        ("minimum: 0", "minimum: 1", "age", "source"),
        ("required: true, unique", "required: false, unique", "id", "readers"),
        ("unique: true", "unique: false", "id", "readers"),
        ("name: age, logicalType: integer", "name: age, logicalType: integer, required: true", "age", "source"),
        ("[a, b]", "[a, b, c]", "region", "readers"),
        ("[a, b]", "[a]", "region", "source"),
        ("[a, b]", "[a, c]", "region", "both"),
        ("severity: warning", "severity: info", "region", "readers"),
        ("mustBeGreaterThan: 10", "mustBeGreaterThan: 5", "", "both"),
    ],
)  # fmt: skip
def test_each_change_says_for_whom_it_breaks(old: str, new: str, column: str, breaks: str) -> None:
    assert {(c, b) for c, _, b in _compared(old, new)} == {(column, breaks)}


@pytest.mark.parametrize(
    ("old", "new"), [("status: active", "status: draft"), ("severity: error", "severity: error, description: so")]
)
def test_words_are_no_change(old: str, new: str) -> None:
    assert _compared(old, new) == set()


@pytest.mark.parametrize(
    ("before", "after", "announced"),
    [("1.2.0", "2.0.0", True), ("1.2.0", "1.3.0", False), ("v9", "v10", True), ("2.0", "1.0", False), ("a", "b", True)],
)
def test_a_break_is_announced_by_the_first_number(before: str, after: str, announced: bool) -> None:
    whole = contracts.parse_contract(BASE.encode(), "c")
    old, new = (msgspec.structs.replace(whole, version=version) for version in (before, after))
    assert contract_diff.announced(old, new) == announced


# ---------------------------------------------------------------------------------------------------------- inferring

_CELL: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.integers(-(2**62), 2**62).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(str),
    st.dates().map(str),
    st.datetimes().map(str),
    st.sampled_from(["true", "FALSE", "x", "1", "0", " 7 ", "nan", "1e5", "1_000", "0x1", "2020-02-30", "a,b", 'q"']),
)


_NAME = st.text(string.ascii_letters + " é'\":#-", min_size=1, max_size=8).filter(str.strip)


_NAMES = st.lists(_NAME, min_size=1, max_size=4, unique_by=str.lower)


@examples(2)
@given(_NAMES, st.data())
def test_a_source_keeps_the_contract_that_is_inferred_of_it(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("infer")
    few = st.lists(_CELL, min_size=1, max_size=3).flatmap(lambda cells: st.lists(st.sampled_from(cells), min_size=5))
    columns = {name: (data.draw(few) * 5)[:5] for name in names}
    pq.write_table(pa.table({n: pa.array(v, pa.string()) for n, v in columns.items()}), folder / "rows.parquet")
    text = infer.infer(folder / "rows.parquet", "parquet", "rows")
    rows = zip(*columns.values(), strict=True)
    lines = (msgspec.json.encode(dict(zip(columns, row, strict=True))) for row in rows)
    (folder / "lines.json").write_bytes(b"\n".join(lines))
    for kind, file, made in (
        ("json", "lines.json", infer.infer(folder / "lines.json", "json", "rows")),
        ("json", "lines.json", text),
    ):
        (folder / "c.odcs.yaml").write_text(made)
        contract = contracts.load(folder / "c.odcs.yaml")
        spec = DataSet(contract="c.odcs.yaml", source=Source(kind=kind, path=file))  # type: ignore[arg-type]
        found = ingest.test(contract, "rows", spec, folder)
        assert [outcome for outcome in found if outcome.failed] == [], made


def test_types_keys_bounds_and_choices_are_told_from_the_rows(tmp_path: Path) -> None:
    lines = [f"{i},{'ab'[i % 2]},{i / 2},{'' if i == 3 else '2020-01-01'},true,{-i}" for i in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["id,choice,price,day,ok,low", *lines]) + "\n")
    made = infer.infer(tmp_path / "rows.csv", "csv", "rows")
    model = contracts.parse_contract(made.encode(), "made").models[0]
    assert {c.name: (c.logical_type, c.required) for c in model.columns} == {
        "id": ("integer", True),
        "choice": ("string", True),
        "price": ("number", True),
        "day": ("date", False),
        "ok": ("boolean", True),
        "low": ("integer", True),
    }
    assert {rule.id for rule in model.keys} == {"id.unique", "low.unique"}
    assert {r.id: r.limit for r in model.rows if r.check == "minimum"} == {"id.minimum": 0, "price.minimum": 0}
    assert [r.limit for r in model.rows if r.check == "validValues"] == [("a", "b")]


def test_lines_that_are_no_rows_are_counted(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('{"a": 1}\n{"a":\n{"a": 2}\nnothing\n')
    made = infer.infer(tmp_path / "rows.json", "json", "rows")
    assert "# 2 lines are no rows and went by unseen: row 2 is not JSON" in made
    assert contracts.parse_contract(made.encode(), "made").models[0].columns[0].logical_type == "integer"


def test_what_has_no_rows_or_is_no_such_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.csv").write_text("a,b\n")
    (tmp_path / "bad.parquet").write_bytes(b"nothing")
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n")
    with pytest.raises(InputError, match="no rows"):
        infer.infer(tmp_path / "none.csv", "csv", "rows")
    with pytest.raises(ContractError, match="cannot be read"):
        infer.infer(tmp_path / "bad.parquet", "parquet", "rows")
    with pytest.raises(InputError, match="same name"):
        infer.infer(tmp_path / "twice.csv", "csv", "rows")
