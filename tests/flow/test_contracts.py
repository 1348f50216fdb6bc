"""A contract that changes under a use case that runs: told of, refused until it is announced, then accepted."""

from pathlib import Path

import pytest

from bedplate import settings, usecase
from bedplate.app import contract_changes
from bedplate.app.operations import Bedplate
from bedplate.app.system import System
from bedplate.cli import root
from bedplate.errors import ContractError
from bedplate.features.views import FeatureView
from bedplate.ids import digest_bytes
from bedplate.records import Bundle
from tests import retail
from tests.flow.conftest import Done


def _change(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / "contracts" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.long
def test_a_break_lists_the_features_models_and_endpoints_that_it_hits(done: Done, tmp_path: Path) -> None:
    assert done.bedplate.contract_diff(done.folder).accepted
    folder = retail.copy(done.folder, tmp_path / "changed")
    contract = next(path.name for path in (folder / "contracts").iterdir() if "transactions" in path.name)
    _change(
        folder,
        contract,
        "name: household_id\n        logicalType: integer",
        "name: household_id\n        logicalType: number",
    )
    report = done.bedplate.contract_diff(folder)
    (found,) = (each for each in report.contracts if each.changes)
    assert not report.accepted
    assert ("household_id", "the type was integer and is number") in {(c.column, c.what) for c in found.changes}
    assert "household_recent" in found.features
    assert len(found.models) == len(found.endpoints) == 1
    with pytest.raises(ContractError) as raised:
        done.bedplate.run(folder)
    for named in (*found.features, *found.models, *found.endpoints):
        assert named in str(raised.value)


def _refused_with_what_it_hits(bedplate: Bedplate, starter: Path) -> None:
    terms, amounts = (
        FeatureView(name=name, entity=("invoice_id",), times={"invoices": None}, sql=f"SELECT id, {column} FROM x")
        for name, column in (("terms", "terms_days"), ("amounts", "amount"))
    )
    some = digest_bytes(b"b")
    bundle = Bundle(
        name="late", version=3, digest=some, tenant="", files={}, size=1, signature_digest=some, bom_digest=some
    )
    with System(bedplate.settings) as system:
        with system.store.transaction() as tx:
            tx.facts.put("bundle", "starter", bundle)
            tx.endpoints.put("phone-list", use_case="starter", bundle=bundle.digest, spec={})
        with pytest.raises(ContractError) as raised:
            contract_changes.check(system, usecase.load(starter), (terms, amounts))
    said = str(raised.value)
    assert "hits features: terms\n" in said  # amounts never looks at it
    assert "hits models: late version 3" in said
    assert "hits endpoints: phone-list" in said


def test_a_break_is_accepted_by_its_version_and_what_breaks_nobody_at_once(
    starter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bedplate = Bedplate(settings.load({"BEDPLATE_HOME": str(tmp_path / "home")}))

    def ingest() -> None:
        for stage in ("check", "plan", "ingest"):
            bedplate.run(starter, only=stage)

    ingest()
    _change(starter, "invoices.odcs.yaml", "minimum: 1, maximum: 120", "minimum: 1, maximum: 100")  # tighter
    assert root.execute(["contract", "diff", str(starter), "--home", str(tmp_path / "home")]) == 0
    assert "breaks source" in capsys.readouterr().out
    ingest()
    _change(starter, "invoices.odcs.yaml", "minimum: 1, maximum: 100", "minimum: 1, maximum: 150")
    assert root.execute(["contract", "diff", str(starter), "--home", str(tmp_path / "home")]) == 2
    assert "terms_days.maximum was 100 and is 150; breaks readers" in capsys.readouterr().out
    with pytest.raises(ContractError, match="higher first number"):
        ingest()
    _refused_with_what_it_hits(bedplate, starter)
    assert bedplate.tables.show("starter.invoices").version == 1, "nothing came in"
    _change(starter, "invoices.odcs.yaml", "version: 1.0.0", "version: 2.0.0")
    assert bedplate.contract_diff(starter).accepted
    ingest()
    assert bedplate.contract_diff(starter).contracts[0].changes == ()


def test_a_first_contract_is_written_beside_its_rows(starter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = starter / "data" / "invoices.csv", starter / "contracts" / "new.odcs.yaml"
    assert root.execute(["contract", "infer", str(source), "--name", "invoices", "--out", str(out)]) == 0
    assert (
        root.execute(
            ["contract", "infer", str(source), "--out", str(out)],
        )
        == 2
    ), "it is not written over"
    capsys.readouterr()
    file = starter / "usecase.yaml"
    file.write_text(file.read_text().replace("contracts/invoices.odcs.yaml", "contracts/new.odcs.yaml"))
    assert root.execute(["contract", "test", str(starter)]) == 0
    assert (
        root.execute(
            ["contract", "infer", str(source.with_name("none.csv"))],
        )
        == 2
    )
    assert (
        root.execute(
            ["contract", "infer", str(starter / "pipeline.py")],
        )
        == 2
    )
