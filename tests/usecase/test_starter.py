import ast
import csv
from pathlib import Path

import pytest
import yaml

from bedplate.errors import ConflictError, InputError
from bedplate.usecase import load
from bedplate.usecase.starter import starter


def test_the_starter_is_valid_as_it_is(tmp_path: Path) -> None:
    files = starter(tmp_path / "new", "late-invoices")
    assert {f.name for f in files} == {"usecase.yaml", "pipeline.py", "invoices.odcs.yaml", "invoices.csv", "README.md"}
    loaded = load(tmp_path / "new")
    assert loaded.use_case.name == "late-invoices"
    assert loaded.use_case.workload.kind == "tabular"
    assert loaded.use_case.train.holdout == "20 %"
    ast.parse((tmp_path / "new" / "pipeline.py").read_bytes())


def test_contract_and_rows_agree(tmp_path: Path) -> None:
    starter(tmp_path, "late-invoices")
    contract = yaml.safe_load((tmp_path / "contracts" / "invoices.odcs.yaml").read_text())
    columns = [p["name"] for p in contract["schema"][0]["properties"]]
    with (tmp_path / "data" / "invoices.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == columns
    assert len(rows) == load(tmp_path).use_case.workload.rows
    assert len({row["invoice_id"] for row in rows}) == len(rows)
    late = sum(row["paid_late"] == "1" for row in rows) / len(rows)
    assert 0.3 < late < 0.5


def test_nothing_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ConflictError):
        starter(tmp_path, "late-invoices")
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "Late", "../up", "a b", "a" * 80])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        starter(tmp_path / "new", name)
    assert not (tmp_path / "new").exists()
