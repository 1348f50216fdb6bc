"""A use case that de-identifies: its run, what goes round it, and what the file refuses."""

import csv
import random
from pathlib import Path

import pytest

from bedplate import settings, usecase
from bedplate.app import access, row_access
from bedplate.app.operations import Bedplate
from bedplate.app.system import System
from bedplate.errors import BedplateError, ContractError, InputError
from bedplate.usecase.starter import starter

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
    with pytest.raises(InputError, match="not kept as they came"):
        bedplate.tables.replay(folder, "invoices")
    with pytest.raises(InputError, match="not kept as they came"):
        bedplate.tables.backfill(folder, "invoices")
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
