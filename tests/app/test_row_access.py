"""Row policies that a use case names: who sees which rows of its data sets, and of what was made of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from bedplate import settings, usecase
from bedplate.app import access, checking, row_access
from bedplate.app.operations import Bedplate
from bedplate.errors import DeniedError, InputError, UseCaseError
from bedplate.policy.values import FLOW
from bedplate.records import Governance, IngestResult, Objective, RowAccess
from bedplate.usecase.starter import starter
from tests import team
from tests.governed import govern
from tests.team import Team

POLICIES = """
@id("flow")
permit (principal == Service::"flow", action, resource) when { resource.consent };

@id("consented")
permit (principal in Group::"staff", action, resource) when { resource.consent };

@id("north")
permit (principal in Group::"north", action, resource) when { resource has region && resource.region == "north" };

@id("auditors")
permit (principal in Group::"everything", action, resource);
"""
RULE = RowAccess(
    text=POLICIES, columns={"id": "Long", "region": "String", "consent": "Bool"}, required=("id", "consent")
)
VISITS = pa.table(
    {
        "id": [1, 2, 3, 4, None],
        "region": ["north", "south", None, "north", "north"],
        "consent": [True, False, True, False, True],
        "spend": [1.5, 2.5, 3.5, 4.5, 5.5],
    }
)
NAME = "shop.visits"
GROUPS = {"north": "north", "staff": "staff", "all": "everything"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A home with a table under row policies, and what was set aside and made of it."""
    with team.running(tmp_path_factory.mktemp("rows") / "home") as running:
        govern(running.system, "shop", Governance(purpose="care", sensitive=(), rows={"visits": RULE}))
        govern(running.system, "other", Governance(purpose="care", sensitive=()))
        tables = running.system.tables
        tables.write(NAME, VISITS, mode="append")
        tables.write(NAME, VISITS.slice(0, 2), mode="overwrite")
        for made in ("shop.visits.quarantine", "shop/features/recent", "shop/scores/s", "shop.products", "other.t"):
            tables.write(made, pa.table({"id": ["1"], "_text": ["1,2"]}), mode="append")
        for name, group in GROUPS.items():
            running.member(name, "engineers", group)
        yield running


def ids(home: Team, role: str, **asked: Any) -> list[Any]:
    """The ids of the rows that somebody reads."""
    return [row[0] for row in home.do("read_table", role=role, name=NAME, columns=("id",), **asked).rows]


def test_people_see_the_rows_that_the_policies_let_out(home: Team) -> None:
    assert ids(home, "north", version=0) == [1, 4]
    assert ids(home, "staff", version=0) == [1, 3]
    assert ids(home, "all", version=0) == [1, 2, 3, 4]  # a row without a required column goes out to nobody
    assert ids(home, "engineer", version=0) == []
    assert ids(home, "north") == [1]  # versions before and after are filtered alike


def test_rows_are_looked_for_no_longer_than_somebody_waits(home: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not home.do("read_table", role="staff", name=NAME).more
    monkeypatch.setattr("bedplate.app.tables._LOOK", -1.0)
    assert home.do("read_table", role="staff", name=NAME).more  # nobody knows: it was not looked to the end


def test_the_flow_is_bound_by_them_too(home: Team) -> None:
    with home.system.store.read() as tx:
        governed = access.governance(tx, "shop")
    reader = access.reader_for(home.system, "shop", governed, FLOW)
    assert reader.read(home.system.tables.version(NAME, 0), ["id"]).read_all().to_pydict() == {"id": [1, 3]}


@pytest.mark.parametrize(
    ("table", "sees"),
    [
        ("shop.visits.quarantine", {"all"}),
        ("shop/scores/s", {"all"}),
        ("shop/features/recent", {"all", "staff"}),
        ("shop.products", {"all", "staff", "north", "engineer"}),
        ("other.t", {"all", "staff", "north", "engineer"}),
    ],
)
def test_what_was_set_aside_or_made_of_rows_goes_round_no_policy(home: Team, table: str, sees: set[str]) -> None:
    for role in ("all", "staff", "north", "engineer"):
        if role in sees:
            assert len(home.do("read_table", role=role, name=table).rows) == 1
        else:
            with pytest.raises(DeniedError, match="row policies"):
                home.do("read_table", role=role, name=table)
        view = home.do("explain_access", name=table, who=role if role in GROUPS else "engineer.one")
        assert view.allowed == (role in sees)


def test_what_somebody_sees_is_explained_with_the_policies_that_say_so(home: Team) -> None:
    view = home.do("explain_access", name=NAME, who="north")
    assert "\"region\" = 'north'" in view.rows
    assert view.row_policies == ("north",)
    assert home.do("explain_access", name=NAME, who="engineer.one").rows == "FALSE"


def test_a_version_that_the_policies_do_not_fit_shows_nothing(home: Team) -> None:
    mended = VISITS.drop_columns(["consent"])
    version = home.system.tables.write("shop.visits2", mended, mode="append")
    govern(home.system, "shop", Governance(purpose="care", sensitive=(), rows={"visits": RULE, "visits2": RULE}))
    try:
        with pytest.raises(DeniedError, match="do not fit the columns"):
            home.do("read_table", role="all", name=version.name)
    finally:
        govern(home.system, "shop", Governance(purpose="care", sensitive=(), rows={"visits": RULE}))


def test_a_reader_goes_by_the_rules_of_its_own_use_case_only(home: Team) -> None:
    """Else rows could be had under the rules of another use case."""
    with home.system.store.read() as tx:
        lenient = access.governance(tx, "other")
    reader = access.reader_for(home.system, "other", lenient, FLOW)
    with pytest.raises(DeniedError, match="no table of other"):
        reader.read(home.system.tables.current(NAME))


def test_rows_are_counted_only_for_whom_none_is_kept_in(home: Team) -> None:
    """On the page of the use case, over HTTP, and in the evidence itself."""
    version, kept = home.system.tables.current(NAME), 987_654
    taken = IngestResult(
        dataset="visits", table=version, quarantine=None, contract="c", contract_digest=version.digest, source="s",
        source_digest=version.digest, read=kept + 1, accepted=kept, rejected=1, outcomes=(),
    )  # fmt: skip
    with home.system.store.transaction() as tx:
        row = tx.use_cases.get("shop")
        objective = Objective(
            name="shop",
            statement="s",
            kpi={},
            owner={"accountable": "a", "team": "t", "contact": ""},
            purpose="care",
            file="f",
            file_digest=version.digest,
            line=1,
        )
        said = tx.facts.put("objective", "shop", objective)
        tx.use_cases.put("shop", folder=row.folder, file=row.file, file_digest=row.file_digest, objective=said.digest)
        fact = tx.facts.put("dataset", "shop", taken)
        others = tx.facts.put("dataset", "shop", msgspec.structs.replace(taken, dataset="products", accepted=77_777))
    places = (
        "/api/v1/use-cases/shop",
        "/use-cases/shop",
        f"/api/v1/evidence/{fact.digest}",
        f"/evidence/{fact.digest}",
    )
    for role, sees in (("all", True), ("staff", False), ("engineer", False)):
        with home.client(role) as client:
            for place in places:
                answer = client.get(place)
                assert ("987654" in answer.text.replace(",", "")) == sees, (role, place)
                assert answer.status_code == (200 if sees or "evidence" not in place else 403), (role, place)
            whole = client.get(places[0]).json()["evidence"]
            assert whole.get("kept_in", []) == ([] if sees else ["visits"])
            assert "visits" in client.get(places[1]).text
            assert client.get(f"/api/v1/evidence/{others.digest}").json()["body"]["accepted"] == 77_777


# ------------------------------------------------------------------------------------------------------------ the file

FLOW_TOO = '@id("all") permit (principal == Service::"flow", action, resource);\n'
LATE = '@id("late") permit (principal in Group::"engineers", action, resource) when { resource.paid_late == 1 };\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The starter, with a file of row policies."""
    starter(tmp_path / "starter", "starter")
    _name(tmp_path / "starter", "invoices", FLOW_TOO + LATE)
    return tmp_path / "starter"


def _name(folder: Path, dataset: str, policies: str) -> None:
    file = folder / "usecase.yaml"
    before, _, after = file.read_text().partition("  purpose: credit_control\n")
    kept = "\n".join(line for line in after.split("\n") if not line.startswith("  rows:") or "{" not in line)
    rows = f"  rows: {{ {dataset}: policies/invoices.cedar }}\n"
    file.write_text(f"{before}  purpose: credit_control\n{rows}{kept}")
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "policies" / "invoices.cedar").write_text(policies)


def test_row_policies_of_the_file_are_checked_come_into_force_and_are_explained(folder: Path, tmp_path: Path) -> None:
    bedplate = Bedplate(settings.load({"BEDPLATE_HOME": str(tmp_path / "home")}))
    assert bedplate.check(folder).name == "starter"
    for stage in ("check", "plan", "ingest"):
        bedplate.run(folder, only=stage)
    bedplate.users.add("eng", groups=("engineers",))
    view = bedplate.tables.explain("eng", "starter.invoices")
    assert 'coalesce(("paid_late" = 1), FALSE)' in view.rows
    assert view.row_policies == ("late",)
    _name(folder, "invoices", FLOW_TOO)
    assert bedplate.tables.explain("eng", "starter.invoices").rows == view.rows  # no file counts before its check
    bedplate.run(folder, only="check")
    assert bedplate.tables.explain("eng", "starter.invoices").rows == "FALSE"


@pytest.mark.parametrize(
    ("policies", "match"),
    [
        (LATE, "no row out to the flow"),
        (FLOW_TOO + LATE.replace("paid_late", "paid_early"), "paid_early"),
        (FLOW_TOO + LATE.replace("paid_late", "amount"), "amount"),  # no number that Cedar has
        (FLOW_TOO + "permit (principal, action, resource);", "no id"),
        ("(" * 5000, "deeper"),
        ("", "no row out"),
    ],
)
def test_row_policies_that_cannot_hold_are_refused_with_their_file(folder: Path, policies: str, match: str) -> None:
    _name(folder, "invoices", policies)
    with pytest.raises(InputError, match=match) as raised:
        checking.check(folder, settings.load({}))
    assert str(raised.value.where).endswith("invoices.cedar")


def test_a_slip_in_the_file_is_named_with_its_line(folder: Path) -> None:
    _name(folder, "invoice", FLOW_TOO)
    (folder / "policies" / "invoices.cedar").rename(folder / "policies" / "invoice.cedar")
    with pytest.raises(UseCaseError) as raised:
        checking.check(folder, settings.load({}))
    assert "'invoice' is not a data set of this file" in str(raised.value)
    assert "invoice.cedar" in str(raised.value)


def test_what_is_required_is_what_the_contract_keeps_from_being_null(folder: Path) -> None:
    """A column whose nulls are only counted may be null."""
    contract = folder / "contracts" / "invoices.odcs.yaml"
    kept = "        required: true\n        customProperties: [{ property: onViolation, value: info }]\n"
    name = "      - name: paid_late\n        logicalType: integer\n"
    contract.write_text(contract.read_text().replace(f"{name}        required: true\n", name + kept))
    rule = row_access.read(usecase.load(folder))["invoices"]
    assert "terms_days" in rule.required
    assert "paid_late" in rule.columns
    assert "paid_late" not in rule.required
    with pytest.raises(InputError, match="access to optional attribute"):
        checking.check(folder, settings.load({}))  # the policy touches it without "has"


def test_how_many_rows_there_are_is_told_to_whom_all_of_them_are_shown(home: Team) -> None:
    """Counts before and after a write would say whether it held a row of somebody."""
    for role, count in (("all", 2), ("north", None), ("engineer", None)):
        assert {t.rows for t in home.do("list_tables", role=role) if t.name == NAME} == {count}
        view = home.do("show_table", role=role, name=NAME)
        assert (view.rows, view.size is None) == (count, count is None)
        changes = home.do("table_history", role=role, name=NAME)
        assert [change.rows for change in changes] == [count and 2, count and 5]
    assert home.do("show_table", role="engineer", name="shop.products").rows == 1
