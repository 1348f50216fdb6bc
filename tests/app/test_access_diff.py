"""Who would see more or less of which table, told before the change is made and true once it is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bedplate import settings
from bedplate.app.operations import Bedplate
from bedplate.app.table_reports import AccessDiff
from bedplate.cli import root
from bedplate.errors import DeniedError, InputError
from bedplate.records import Governance
from tests import team
from tests.governed import govern
from tests.team import Team

PEOPLE = pa.table({"id": [1, 2, 3], "age": [30, None, 50], "region": ["north", "south", "north"]})
SHOW_AGES = """
@id("show-ages") @reason("viewers of ages")
permit (principal in Group::"engineers", action == Action::"unmask", resource is Table);
"""
NO_SHOP = '@id("no-shop") forbid (principal in Group::"engineers", action == Action::"read", resource is Table);'


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with team.running(tmp_path_factory.mktemp("diff") / "home") as running:
        govern(running.system, "shop", Governance(purpose="care", sensitive=("age",)))
        running.system.tables.write("shop.people", PEOPLE, mode="append")
        running.system.tables.write("never/checked", PEOPLE, mode="append")
        yield running


def by_name(found: AccessDiff) -> dict[str, Any]:
    return {change.who: change for change in found.changes}


def test_a_policy_that_lets_people_see_a_masked_column_is_told_of_column_by_column(home: Team) -> None:
    found = home.do("diff_policies", text=SHOW_AGES)
    assert set(by_name(found)) == {"engineer.one"}
    change = by_name(found)["engineer.one"]
    assert (change.table, change.may_read, change.columns) == ("shop.people", (True, True), {"age": ("null", "it is")})
    assert (change.rows_more, change.rows_fewer) == (0, 0)
    assert found.compared_all
    assert home.do("read_table", role="engineer", name="shop.people").rows[0][1] is None, "nothing was changed"

    home.do("add_policies", text=SHOW_AGES)
    try:
        assert home.do("read_table", role="engineer", name="shop.people").rows[0][1] == 30
        assert home.do("diff_policies", text=SHOW_AGES).changes == ()
    finally:
        home.do("remove_policy", policy_id="show-ages")


def test_a_policy_that_takes_a_right_is_told_of_with_the_rows_that_go(home: Team) -> None:
    change = by_name(home.do("diff_policies", text=NO_SHOP))["engineer.one"]
    assert (change.may_read, change.rows_more, change.rows_fewer) == ((True, False), 0, 3)
    assert change.columns["id"] == ("it is", "not at all")


def test_only_administrators_compare_and_what_cannot_be_used_is_refused(home: Team) -> None:
    for role in ("engineer", "viewer", "auditor", "nobody"):
        with pytest.raises(DeniedError):
            home.do("diff_policies", role=role, text=SHOW_AGES)
        with pytest.raises(DeniedError):
            home.do("diff_use_case", role=role, path="/")
    with pytest.raises(InputError):
        home.do("diff_policies", text="permit (")


def test_a_change_of_a_use_case_is_told_of_and_comes_true(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bedplate = Bedplate(settings.load({"BEDPLATE_HOME": str(tmp_path / "home")}))
    folder = tmp_path / "starter"
    bedplate.init(folder, "starter")
    for stage in ("check", "plan", "ingest"):
        bedplate.run(folder, only=stage)
    bedplate.users.add("eng", groups=("engineers",))
    assert bedplate.tables.diff(folder).changes == ()

    (folder / "late.cedar").write_text(
        '@id("all") permit (principal == Service::"flow", action, resource);\n'
        '@id("late") permit (principal in Group::"engineers", action, resource) when { resource.paid_late == 1 };\n'
    )
    file = folder / "usecase.yaml"
    says = "  purpose: credit_control\n"
    file.write_text(
        file.read_text().replace(says, f"{says}  sensitive: [amount]\n  rows: {{ invoices: late.cedar }}\n")
    )
    found = {change.who: change for change in bedplate.tables.diff(folder).changes}
    assert "flow" not in found
    assert found["eng"].columns == {"amount": ("it is", "null")}
    assert found["eng"].rows_more == 0
    assert found["administrator"].rows_fewer == 3000
    kept = 3000 - found["eng"].rows_fewer
    assert 0 < kept < 3000
    assert root.execute(["access", "diff", str(folder), "--home", str(tmp_path / "home")]) == 0
    said = capsys.readouterr().out
    assert "eng sees otherwise starter.invoices" in said
    assert "amount  it is -> null" in said
    assert f"{found['eng'].rows_fewer:,} fewer" in said

    bedplate.run(folder, only="check")
    assert bedplate.tables.diff(folder).changes == ()
    policies = tmp_path / "amounts.cedar"
    policies.write_text(
        '@id("amounts") permit (principal in Group::"engineers", action == Action::"unmask", resource);'
    )
    assert root.execute(["access", "diff", str(policies), "--home", str(tmp_path / "home"), "--json"]) == 0
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert (change["who"], change["columns"]) == ("eng", {"amount": ["null", "it is"]})
