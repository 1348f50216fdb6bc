"""A use case that de-identifies: its run, what goes round it, and what the file refuses."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bedplate import settings, usecase
from bedplate.app import access, deidentified, erase, row_access
from bedplate.app.operations import Bedplate
from bedplate.app.system import System
from bedplate.errors import BedplateError, ContractError, InputError, NotFoundError
from bedplate.identifiers import code
from bedplate.observe.ship import SCHEMA
from bedplate.usecase.starter import starter
from tests.app.test_access import logged

SAFE = "  deidentify: safe-harbor\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The first use case, with the name of a customer in each row and every column tagged."""
    root = tmp_path / "shop"
    starter(root, "shop")
    rng = random.Random(23)
    source = root / "data" / "invoices.csv"
    with source.open() as file:
        rows = [{**row, "customer": f"Zebulon{rng.randbytes(6).hex()}"} for row in csv.DictReader(file)]
    with source.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    contract = root / "contracts" / "invoices.odcs.yaml"
    text = contract.read_text().replace("maximum: 120 }", "maximum: 30 }")  # some rows go to the quarantine
    tagged = text.replace("        logicalType: ", "        tags: ['safe-harbor:none']\n        logicalType: ")
    more = "      - { name: customer, logicalType: string, required: true, tags: ['safe-harbor:name'] }\n    quality:"
    contract.write_text(tagged.replace("    quality:", more))
    _govern(root, SAFE)
    return root


def _govern(folder: Path, line: str) -> None:
    file, at = folder / "usecase.yaml", "  erasure: none\n"
    head, tail = file.read_text().replace(SAFE, "").split(at)
    file.write_text(head + at + line + tail)


def _run(bedplate: Bedplate, folder: Path) -> None:
    for stage in ("check", "plan", "ingest"):
        bedplate.run(folder, only=stage)


def test_no_name_is_in_any_byte_of_the_home_and_what_would_bring_one_in_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    bedplate = Bedplate(settings.load({"BEDPLATE_HOME": str(home)}))
    _run(bedplate, folder)
    with System(bedplate.settings) as system:
        for name, version in ((n, system.tables.current(n)) for n in ("shop.invoices", "shop.invoices.quarantine")):
            rows = system.tables.scan(version).read_all()
            assert rows.num_rows, name
            assert rows.column("customer").null_count == rows.num_rows
        assert access.mask_key(system, "shop") != access.mask_key(system, "other")
        with system.store.read() as tx:
            (fact,) = tx.facts.list("shop", "dataset")
        assert fact.body["deidentified"] == "safe-harbor"
    assert not [path for path in home.rglob("*") if path.is_file() and b"Zebulon" in path.read_bytes()]
    with pytest.raises(InputError, match="cannot be judged again"):
        bedplate.tables.replay(folder, "invoices")
    _run(bedplate, folder)  # what it brought in itself does not stop it
    _govern(folder, "")
    _run(bedplate, folder)
    _govern(folder, SAFE)
    with pytest.raises(BedplateError, match="hold rows as they came"):
        _run(bedplate, folder)


def test_the_file_refuses_contracts_that_do_not_say_and_policies_on_what_is_not_there(folder: Path) -> None:
    bedplate = Bedplate(settings.load({"BEDPLATE_HOME": str(folder / "home")}))
    assert bedplate.check(folder)
    (folder / "rows.cedar").write_text('permit (principal, action, resource) when { resource.customer == "x" };')
    _govern(folder, SAFE + "  rows: { invoices: rows.cedar }\n")
    assert "customer" not in row_access.read(usecase.load(folder))["invoices"].columns
    with pytest.raises(InputError, match="customer"):
        bedplate.check(folder)
    contract = folder / "contracts" / "invoices.odcs.yaml"
    contract.write_text(contract.read_text().replace("'safe-harbor:name'", "who"))
    with pytest.raises(ContractError, match=r"customer .line \d+. says nothing"):
        bedplate.check(folder)


def test_what_a_failed_run_set_aside_as_it_came_is_noticed(folder: Path, tmp_path: Path) -> None:
    """It left no evidence of a data set, and its quarantine all the same."""
    bedplate = Bedplate(settings.load({"BEDPLATE_HOME": str(tmp_path / "home")}))
    contract = folder / "contracts" / "invoices.odcs.yaml"
    whole = contract.read_text()
    contract.write_text(whole.replace("mustBeGreaterOrEqualTo: 1000", "mustBeGreaterOrEqualTo: 1000000"))
    _govern(folder, "")
    with pytest.raises(ContractError, match="breaks its contract"):
        _run(bedplate, folder)
    with System(bedplate.settings) as system:
        with pytest.raises(NotFoundError):
            system.tables.current("shop.invoices")
        assert system.tables.scan(system.tables.current("shop.invoices.quarantine")).read_all()["customer"][0].as_py()
    _govern(folder, SAFE)
    with pytest.raises(InputError, match=r"shop\.invoices\.quarantine hold rows as they came"):
        _run(bedplate, folder)


def test_a_failed_run_that_de_identified_does_not_stop_the_next(folder: Path, tmp_path: Path) -> None:
    bedplate = Bedplate(settings.load({"BEDPLATE_HOME": str(tmp_path / "home")}))
    contract = folder / "contracts" / "invoices.odcs.yaml"
    whole = contract.read_text()
    contract.write_text(whole.replace("mustBeGreaterOrEqualTo: 1000", "mustBeGreaterOrEqualTo: 1000000"))
    with pytest.raises(ContractError, match="breaks its contract"):
        _run(bedplate, folder)
    contract.write_text(whole)
    _run(bedplate, folder)


def _coded(folder: Path) -> str:
    """The use case with customers as codes, who its rows are about, batch by batch; one of the customers."""
    contract = folder / "contracts" / "invoices.odcs.yaml"
    contract.write_text(contract.read_text().replace("'safe-harbor:name'", "'safe-harbor:account', 'safe-harbor:code'"))
    file, at = folder / "usecase.yaml", "    source: { kind: csv, path: data/invoices.csv }\n"
    more = "    subject: customer\n    incremental: { watermark: invoice_id }\n"
    assert at in file.read_text()
    file.write_text(file.read_text().replace(at, at + more).replace("  erasure: none\n", "  erasure: by subject\n"))
    source = folder / "data" / "invoices.csv"
    head, first, second, *rest = source.read_text().splitlines()
    customer = first.rpartition(",")[2]  # of two invoices: one lands, and the other is set aside
    source.write_text("\n".join([head, first, second.rpartition(",")[0] + "," + customer, *rest]) + "\n")
    return customer


def test_a_person_is_erased_by_the_number_that_only_a_code_of_landed(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    bedplate = Bedplate(settings.load({"BEDPLATE_HOME": str(home)}))
    customer = _coded(folder)
    _run(bedplate, folder)
    rows = (folder / "data" / "invoices.csv").read_text().splitlines(keepends=True)
    (folder / "data" / "invoices.csv").write_text("".join([rows[0], *rows[-5:]]))
    known = bedplate.tables.backfill(folder, "invoices")
    assert (known.read, known.known + known.rejected, known.accepted) == (5, 5, 0)
    with System(bedplate.settings) as system:
        key = access.mask_key(system, "shop")
        told = code(key, customer)
        assert told is not None
        inputs = {"customer": [told]}
        lines = [_logged("p1", inputs), _logged("p2", {"customer": [code(key, "else")]})]
        table = access.predictions_table("shop")
        system.tables.write(table, pa.Table.from_pylist(lines, schema=SCHEMA), mode="append")
        assert _stands(home, told)
        assert not _stands(home, customer)
        found = erase.subject(system, system.identity.authenticate(system.token), "shop", customer, "asked on paper")
        assert found.tables == {"shop.invoices": 1, "shop.invoices.quarantine": 1, table: 1}
        assert not _stands(home, told)
        again = erase.subject(system, system.identity.authenticate(system.token), "shop", customer, "asked on paper")
        assert again.tables == {}
        with pytest.raises(InputError, match="the reason names the person"):
            erase.subject(system, system.identity.authenticate(system.token), "shop", customer, f"as {told} wished")


def _logged(name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    told = {"id": name, "use_case": "shop", "entity": "", "inputs": json.dumps(inputs), "features": "{}"}
    return {**logged("sha256:" + "0" * 64), **told}


def _stands(home: Path, value: str) -> bool:
    """Whether a value is in any file of a home; Parquet files are read, as their pages may be compressed."""
    for path in (path for path in home.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data += str(pq.ParquetFile(path).read().to_pydict()).encode()
        if value.encode() in data:
            return True
    return False


def test_columns_that_refer_to_each_other_land_alike(folder: Path) -> None:
    bedplate = Bedplate(settings.load({"BEDPLATE_HOME": str(folder / "home")}))
    _coded(folder)
    file, at = folder / "usecase.yaml", "    source: { kind: csv, path: data/invoices.csv }\n"
    people = "  people:\n    contract: contracts/people.odcs.yaml\n    source: { kind: csv, path: data/people.csv }\n"
    file.write_text(file.read_text().replace("  invoices:\n", people + "  invoices:\n", 1))
    assert at in file.read_text()
    contract = folder / "contracts" / "people.odcs.yaml"
    text = """apiVersion: v3.1.0
kind: DataContract
id: people
version: 1.0.0
status: active
schema:
- name: people
  properties:
  - {name: customer, logicalType: string, tags: [%s]}
"""
    contract.write_text(text % "'safe-harbor:account', 'safe-harbor:code'")
    (folder / "data" / "people.csv").write_text("customer\nA1\n")
    invoices = folder / "contracts" / "invoices.odcs.yaml"
    refers = "'safe-harbor:code'], relationships: [{type: foreignKey, to: people.customer}]"
    invoices.write_text(invoices.read_text().replace("'safe-harbor:code']", refers))
    assert bedplate.check(folder)
    contract.write_text(text % "'safe-harbor:none'")
    with pytest.raises(
        ContractError, match=r"invoices\.customer refers to people\.customer, and the two do not land alike"
    ):
        bedplate.check(folder)
    with System(settings.load({"BEDPLATE_HOME": str(folder / "home")})) as system:
        rules = deidentified.log_rules(system, usecase.load(folder))
    assert rules is not None
    assert rules.columns["customer"] == "nothing"  # two contracts tell differently


def test_the_log_keeps_of_a_column_what_lands(folder: Path, tmp_path: Path) -> None:
    with System(settings.load({"BEDPLATE_HOME": str(tmp_path / "home")})) as system:
        rules = deidentified.log_rules(system, usecase.load(folder))
        assert rules is not None
        assert rules.columns["customer"] == "nothing"
        assert rules.columns["amount"] == "value"
        _coded(folder)
        coded = deidentified.log_rules(system, usecase.load(folder))
        assert coded is not None
        assert coded.columns["customer"] == "code"
        file = folder / "usecase.yaml"
        file.write_text(file.read_text().replace(SAFE, ""))
        assert deidentified.log_rules(system, usecase.load(folder)) is None
