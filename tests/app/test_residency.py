"""What two homes in two regions let out over HTTP and by command, of a table whose rows have to stay in one of them."""

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from bedplate.app import planning
from bedplate.app.exports import endpoint
from bedplate.errors import DeniedError, InputError
from bedplate.plan import catalogue
from bedplate.plan.types import Plan
from bedplate.records import REGIONS, Governance
from bedplate.usecase import load
from tests import team
from tests.governed import govern
from tests.plan.conftest import PROBE, SETTINGS
from tests.team import Team

NAME = "shop.people"
ROWS = pa.table({"id": [1, 2], "town": ["Lyon", "Turin"]})
EXAMPLE = Path(__file__).parents[2] / "examples" / "retail"


@pytest.fixture(scope="module", params=["eu", "us", ""])
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A home in each region, and one that does not say; each has the table already, however it came there."""
    root = tmp_path_factory.mktemp("residency") / "home"
    with team.running(root, BEDPLATE_REGION=request.param) as running:
        govern(running.system, "shop", Governance(purpose="care", sensitive=(), residency=("eu",)))
        govern(running.system, "open", Governance(purpose="care", sensitive=()))
        for name in (NAME, "shop.people.quarantine", "shop/predictions", "open.people"):
            running.system.tables.write(name, ROWS, mode="append")
        yield running


@pytest.mark.parametrize("table", [NAME, "shop.people.quarantine", "shop/predictions"])
def test_rows_go_out_by_page_and_command_where_they_may_lie_alone(home: Team, table: str) -> None:
    allowed, start = home.system.settings.region == "eu", home.size()
    with home.client("engineer") as client:
        page = client.get(f"/rows/{table}")
        assert ("Turin" in page.text) == allowed, page.text
        assert client.get(f"/tables/{table}").status_code == 200
    if allowed:
        assert home.do("read_table", role="engineer", name=table).rows[1] == (2, "Turin")
    else:
        assert "its rows have to stay in eu" in page.text
        with pytest.raises(DeniedError, match=r"engineer.one may not read .* its rows have to stay in eu") as raised:
            home.do("read_table", role="engineer", name=table)
        assert "BEDPLATE_REGION" in (raised.value.fix or "") or home.system.settings.region
    reads = [entry for entry in home.entries(start) if entry[0] == "table.read"]
    assert reads == [("table.read", f"table/{table}@0", "allow" if allowed else "deny")] * 2


def test_the_access_explorer_says_so(home: Team) -> None:
    view = home.do("explain_access", name=NAME, who="engineer.one")
    region = home.system.settings.region
    assert view.allowed == (region == "eu")
    if region != "eu":
        said = f"the home says that it is in {region}" if region else "the home does not say where it is"
        assert view.reasons == (f"its rows have to stay in eu, and {said}",)
    with home.client("administrator") as client:
        page = client.get("/access", params={"who": "engineer.one", "table": NAME})
        assert page.status_code == 200
        assert ("Its rows have to stay in eu" in page.text) == (region != "eu")


def test_rows_that_may_lie_anywhere_are_read_wherever_the_home_is(home: Team) -> None:
    assert home.do("read_table", role="engineer", name="open.people").rows
    assert home.do("explain_access", name="open.people", who="engineer.one").allowed


def test_a_whole_home_is_copied_where_each_of_its_use_cases_allows(home: Team, tmp_path: Path) -> None:
    """Wherever the home is: what was carried abroad may be brought back."""
    for region in ("us", ""):
        with pytest.raises(DeniedError, match="shop: its rows have to stay in eu, and the backup"):
            home.do("backup", destination=str(tmp_path / "copy"), region=region)
        assert not [*tmp_path.iterdir()]
    govern(home.system, "open", Governance(purpose="care", sensitive=(), residency=("us",)))
    with pytest.raises(DeniedError, match="open: its rows have to stay in us, and the backup says that it is in eu"):
        home.do("backup", destination=str(tmp_path / "copy"), region="eu")
    assert not [*tmp_path.iterdir()]
    govern(home.system, "open", Governance(purpose="care", sensitive=()))
    assert home.do("backup", destination=str(tmp_path / "copy"), region="eu").files


def test_a_plan_is_exported_to_machines_where_rows_may_lie_and_they_say_so(home: Team) -> None:
    """Wherever the home is, for nothing of it goes along."""
    made = planning.derive(load(EXAMPLE), PROBE, msgspec.structs.replace(SETTINGS, home=Path("/nowhere")))[1]
    where = {(i.provider, i.region): i.residency for i in catalogue.load().instances}
    option = next(o for o in made.options if o.machines and o.provider == "aws")
    abroad = next(i for i in catalogue.load().instances if i.provider == "aws" and i.residency == "us")
    assert where[option.provider, option.region] == "eu"
    moved = msgspec.structs.replace(option, region=abroad.region, instance="abroad")
    plan: Plan = msgspec.structs.replace(made, options=(option, moved))
    with home.system.store.transaction() as tx:
        for name in ("shop", "open"):
            tx.facts.put("plan", name, plan)

    def export(name: str, machine: str) -> str:
        asked = {"use_case": name, "tool": "skypilot", "option": machine, "image": "", "namespace": "default"}
        return str(home.do("export_launch", **asked).content["run"])

    assert "export BEDPLATE_REGION=eu && bedplate run ." in export("shop", option.instance)
    start = home.size()
    with pytest.raises(DeniedError, match=rf"the machine {re.escape(moved.name)} says that it is in us"):
        export("shop", "abroad")
    assert home.entries(start) == [("plan.export", "use_case/shop", "deny")]
    assert "BEDPLATE_REGION" not in export("open", "abroad")


def test_pods_are_kept_in_a_region_or_not_exported(home: Team) -> None:
    known = {i.residency for i in catalogue.load().instances}
    assert endpoint.regions(home.system, ()) == ()
    for region in REGIONS:
        if region in known:
            assert endpoint.regions(home.system, (region,))
        else:
            with pytest.raises(InputError, match=f"lies in {region}"):
                endpoint.regions(home.system, (region,))
    assert known < set(REGIONS), "there is no region left to try"
